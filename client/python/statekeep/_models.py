"""Models as states: dataclasses, taken apart and built again, and pydantic models, recognised.

pydantic is never imported: a model is what has pydantic's methods.
"""

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints
from uuid import UUID

T = TypeVar("T")


def is_model_class(kind: object) -> bool:
    """Whether this is a class of pydantic models (version 2)."""
    return isinstance(kind, type) and callable(getattr(kind, "model_validate_json", None))


def is_model(value: object) -> bool:
    """Whether this is a pydantic model."""
    return callable(getattr(type(value), "model_dump_json", None))


def validate_json(kind: Any, data: bytes) -> Any:
    """Build a pydantic model from JSON; raises pydantic's ValidationError, a ValueError."""
    return kind.model_validate_json(data)


def is_dataclass_value(value: object) -> bool:
    """Whether this is a value of a dataclass, not the class."""
    return dataclasses.is_dataclass(type(value))


def dump_fields(value: Any) -> dict[str, Any]:
    """Give the fields of a dataclass's value by their names, one level deep."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def build(kind: type[T], value: Any) -> T:
    """Build a value of a dataclass from a decoded JSON object.

    Fields are restored by their annotations: dataclasses and pydantic models, enums, UUIDs and
    times, and lists, tuples and dicts of them, optional or not. Anything else stays as decoded.

    Raises:
        ValueError: The object has fields that the dataclass does not know. They would be lost with
            the next save.
        TypeError: A field without a default is missing, or the state is no object.
    """
    if not isinstance(value, dict):
        raise TypeError(f"the state is a {type(value).__qualname__}, not a {kind.__qualname__}")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # callers ask is_dataclass
    unknown = value.keys() - fields.keys()
    if unknown:
        names = ", ".join(sorted(unknown))
        raise ValueError(f"{kind.__qualname__} has no field for what the state holds: {names}")
    hints = _hints(cast("Any", kind))  # every class is hashable; mypy does not know
    return kind(
        **{name: restore(hints[name], item) for name, item in value.items() if fields[name].init}
    )


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)


def restore(hint: Any, value: Any) -> Any:
    """Make a decoded JSON value what its annotation says."""
    if value is None:
        return None
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Union or origin is types.UnionType:
        choices = [choice for choice in arguments if choice is not types.NoneType]
        return restore(choices[0], value) if len(choices) == 1 else value
    if isinstance(value, list) and isinstance(origin, type):
        return _restore_items(origin, arguments, value)
    if isinstance(value, dict) and isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: restore(arguments[1], item) for key, item in value.items()}
    if isinstance(hint, type):
        return _restore_class(hint, value)
    return value


def _restore_items(origin: type, arguments: tuple[Any, ...], value: list[Any]) -> Any:
    if issubclass(origin, tuple):
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(restore(arguments[0], item) for item in value)
        return tuple(restore(hint, item) for hint, item in zip(arguments, value, strict=True))
    if issubclass(origin, Sequence):
        return [restore(arguments[0], item) for item in value]
    return value


_FROM_TEXT: Mapping[type, Callable[[str], Any]] = {
    UUID: UUID,
    datetime: datetime.fromisoformat,
    date: date.fromisoformat,
    time: time.fromisoformat,
}


def _restore_class(kind: type, value: Any) -> Any:
    if dataclasses.is_dataclass(kind):
        return build(kind, value)
    if is_model_class(kind):
        return kind.model_validate(value)  # type: ignore[attr-defined]  # is_model_class looked
    if issubclass(kind, Enum):
        return kind(value)
    if kind is tuple and isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and kind in _FROM_TEXT:
        return _FROM_TEXT[kind](value)
    return value
