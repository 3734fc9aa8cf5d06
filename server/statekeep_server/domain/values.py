"""Values that are made for every call."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value_class(*, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
    """Make a dataclass that is frozen for the type checker and not at run time.

    A frozen dataclass sets each field through `object.__setattr__`, which took five times as long;
    with it a save took about 8 % more processor time. What assigns to a field here fails the type
    checker, which reads all code of the project, and not the interpreter.
    """
    return dataclass(slots=True, kw_only=kw_only, unsafe_hash=True)
