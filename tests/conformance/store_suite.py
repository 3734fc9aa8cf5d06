"""What every store must do: one coroutine per requirement, which its docstring states.

`test_stores` runs all of them over every store. A requirement gets a `Subject` on fresh data.
"""

import inspect
from collections.abc import Awaitable, Callable

from tests.conformance import suite_calls, suite_reads, suite_removals, suite_saves
from tests.conformance.subject import Subject

Requirement = Callable[[Subject], Awaitable[None]]

REQUIREMENTS: dict[str, Requirement] = {
    name: requirement
    for suite in (suite_saves, suite_calls, suite_reads, suite_removals)
    for name, requirement in vars(suite).items()
    if inspect.iscoroutinefunction(requirement) and requirement.__module__ == suite.__name__
}
