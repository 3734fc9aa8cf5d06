"""The rules of the house, as far as a program can check them.

Where a rule has to be broken, the place and the reason stand in a table here. A place that no
longer needs its exception fails too, so that the tables stay true.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from tests.support.project import (
    BIN,
    CLIENT,
    ROOT,
    SERVER,
    must_pass,
    project_files,
    python_files,
    relative,
)
from tests.support.source import Module, read

MAX_MODULE_LINES = 500
MAX_FUNCTION_LINES = 70
MODULES = [read(path) for path in python_files()]
PRODUCT = [module for module in MODULES if {SERVER, CLIENT} & set(module.path.parents)]
TESTS = [module for module in MODULES if ROOT / "tests" in module.path.parents]

Found = Iterable[tuple[Module, object]]


def only_where_allowed(found: Found, allowed: Mapping[str, str], rule: str) -> None:
    """Fail for what was found in other places, and for places that do not need to be allowed."""
    places: dict[str, list[object]] = {}
    for module, what in found:
        places.setdefault(relative(module.path), []).append(what)
    faults = [f"{place}: {what}" for place, what in places.items() if place not in allowed]
    faults += [f"{place}: needs no exception any more" for place in allowed if place not in places]
    assert not faults, "\n".join([rule, *faults])


# Size and shape.


def test_every_module_says_its_subject() -> None:
    silent = [relative(module.path) for module in MODULES if not ast.get_docstring(module.tree)]
    assert not silent


def test_a_module_is_not_longer_than_its_subject() -> None:
    long = {relative(module.path): len(module.lines) for module in MODULES}
    assert not {path: lines for path, lines in long.items() if lines > MAX_MODULE_LINES}


def test_a_function_fits_a_screen() -> None:
    long = [
        f"{relative(module.path)}:{function.lineno} {function.name}: {lines} lines"
        for module in MODULES
        for function in module.functions()
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert not long


def test_values_cannot_be_changed() -> None:
    found = ((module, name) for module in PRODUCT for name in module.mutable_dataclasses())
    only_where_allowed(found, MUTABLE_DATACLASSES, "dataclasses are frozen")


MUTABLE_DATACLASSES: dict[str, str] = {}


# Calls that have a better one here.


@dataclass(frozen=True)
class Ban:
    """Calls that are not made, what is done instead, and where they may be made nevertheless."""

    calls: frozenset[str]
    instead: str
    exempt: tuple[str, ...] = ()
    allowed: dict[str, str] = field(default_factory=dict)


BANS = [
    Ban(
        calls=frozenset(
            {
                f"time.{name}{unit}"
                for name in ("time", "monotonic", "perf_counter")
                for unit in ("", "_ns")
            }
        ),
        instead="take a Clock as an argument, so that tests can turn its hands",
        exempt=("server/statekeep_server/bench/", "server/statekeep_server/cli/", "client/"),
        allowed={"server/statekeep_server/service/clock.py": "it is the clock"},
    ),
    Ban(
        calls=frozenset({"asyncio.create_task", "asyncio.ensure_future", "loop.create_task"}),
        instead="use Detached, or a TaskGroup: a task without an owner is lost or leaks",
        allowed={
            "client/python/statekeep/_stream.py": "its reader ends with its context",
            "server/statekeep_server/batching/detached.py": "it owns tasks, and waits for them",
            "server/statekeep_server/batching/group_commit.py": "leaving it waits for its worker",
            "server/statekeep_server/service/flag_follower.py": "its context ends it, likewise",
            "server/statekeep_server/service/retiring.py": "its context ends it, likewise",
            "server/statekeep_server/service/sweeper.py": "its context ends it, and waits for it",
            "server/statekeep_server/service/write_behind_writer.py": "likewise",
            "server/statekeep_server/telemetry/setup.py": "its context ends it, likewise",
            "server/statekeep_server/transport/health.py": "its poll ends with its context; a "
            "TaskGroup would wrap every error of the server in a group",
        },
    ),
    Ban(
        calls=frozenset({"time.sleep"}),
        instead="await asyncio.sleep: this would stop every other save",
        exempt=("client/",),
    ),
    Ban(
        calls=frozenset({"print"}),
        instead="log, or let the command line print",
        exempt=("server/statekeep_server/bench/", "server/statekeep_server/cli/"),
    ),
    Ban(
        calls=frozenset({"asyncio.get_event_loop", "asyncio.run", "asyncio.new_event_loop"}),
        instead="be called from a loop; the command line and the synchronous client start one",
        exempt=("server/statekeep_server/cli/", "server/statekeep_server/bench/", "client/"),
    ),
]


@pytest.mark.parametrize("ban", BANS, ids=lambda ban: min(ban.calls))
def test_a_banned_call_is_not_made(ban: Ban) -> None:
    found = (
        (module, f"line {line}: {name}")
        for module in PRODUCT
        if not relative(module.path).startswith(ban.exempt)
        for name, line in module.calls()
        if name in ban.calls
    )
    only_where_allowed(found, ban.allowed, ban.instead)


BROAD_HANDLERS: dict[str, str] = {
    "server/statekeep_server/batching/group_commit.py": "an error is the answer of its waiters",
    "server/statekeep_server/service/both_paths.py": "whatever the first error is, standard serves",
    "server/statekeep_server/service/facade.py": "a failure of any kind is counted in its arm",
    "server/statekeep_server/service/batches.py": "an item of a batch has its own answer",
    "server/statekeep_server/telemetry/log_lines.py": "a line that cannot be made of its arguments "
    "must not raise in the middle of a save",
    "server/statekeep_server/service/monitor.py": "it tells of every failure, and raises it again",
    "server/statekeep_server/service/write_behind.py": "a state that is held has its fate to come",
    "server/statekeep_server/service/tracing.py": "a failure of any kind is told on its span",
    "server/statekeep_server/telemetry/shipping.py": "what cannot be sent is dropped",
    "server/statekeep_server/transport/interceptors/adapter.py": "every error becomes a status",
}


def test_only_a_few_places_catch_everything() -> None:
    found = ((module, f"line {line}") for module in MODULES for line in module.broad_handlers())
    only_where_allowed(found, BROAD_HANDLERS, "catch what you expect")


def test_tests_use_fakes_and_no_mocks() -> None:
    mocks = [
        f"{relative(module.path)}:{line} {name}"
        for module in TESTS
        for name, line in module.imported()
        if name.startswith(("unittest.mock", "mock.", "pytest_mock"))
    ]
    assert not mocks


SILENCER = re.compile(r"#\s*(noqa|type:\s*ignore|pragma)(:?\s*[\w\[\]\-]+(,\s*\w+)*)?(?P<rest>.*)")


def unexplained(module: Module) -> Iterator[int]:
    """List the lines that silence a tool and say no reason, there or in the line above."""
    for number, line in enumerate(module.lines, start=1):
        found = SILENCER.search(line)
        above = module.lines[number - 2].lstrip() if number > 1 else ""
        if found and not re.search(r"\w{2}", found["rest"]) and not above.startswith("#"):
            yield number


def test_a_silenced_warning_has_a_reason() -> None:
    silent = [
        f"{relative(module.path)}:{line}"
        for module in MODULES
        if module.path.name != "test_tidy.py"
        for line in unexplained(module)
    ]
    assert not silent


# The tools of the house.


def test_ruff_finds_no_fault() -> None:
    must_pass(BIN / "ruff", "check")


def test_the_code_is_formatted() -> None:
    must_pass(BIN / "ruff", "format", "--check")


@pytest.mark.timeout(600)  # a first run has no cache yet
def test_the_types_are_right() -> None:
    must_pass(BIN / "mypy")


def test_imports_go_one_way() -> None:
    must_pass(BIN / "lint-imports", "--no-logo")


def test_the_synchronous_client_is_generated_from_the_asynchronous() -> None:
    must_pass(BIN / "python", "tools/unasync.py", "--check")


# What must not stand in a file of the project.

# Put together here, so that this file is not found itself.
HOSTS = ["py" + "pi.org", "python" + "hosted", "npm" + "js.org", "proxy.golang" + ".org"]
MACHINE_PATHS = ["/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/", "/opt/" + "wheels"]


@pytest.mark.parametrize("words", [HOSTS, MACHINE_PATHS], ids=["host", "path"])
def test_no_file_names_a_registry_or_a_machine(words: list[str]) -> None:
    found = [
        f"{relative(path)}: {word}"
        for path in project_files()
        for word in words
        if word.encode() in path.read_bytes()
    ]
    assert not found
