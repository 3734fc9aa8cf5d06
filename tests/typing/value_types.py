"""What the type checker says of values; strict, it complains of an exception that is not needed."""

from dataclasses import replace

from statekeep_server.domain.values import value_class


@value_class(kw_only=True)
class Point:
    """A value."""

    x: int
    y: int = 0


def values_cannot_be_changed(point: Point) -> Point:
    """Assigning to a field is an error, and so is a field that is not there."""
    point.x = 1  # type: ignore[misc]  # frozen
    Point(1)  # type: ignore[call-arg]  # by keyword only
    return replace(point, z=3)  # type: ignore[call-arg]  # no such field
