"""How a metric, a span and an event are described, and what Prometheus calls a metric."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a metric is read."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


PROMETHEUS_UNITS = {"s": "_seconds", "By": "_bytes", "1": "_ratio"}
"""What OpenTelemetry's rules for Prometheus append to a name; units in braces are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric.

    Attributes:
        unit: In UCUM, as OpenTelemetry writes it: `s`, `By`, `1` for a share, `{save}` for things.
        labels: The attributes of its points.
        bounds: Of the buckets of a histogram, each the greatest value of its bucket.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def prometheus(self) -> str:
        """The name in Prometheus; a histogram has `_bucket`, `_sum` and `_count` behind it."""
        name = self.name.replace(".", "_") + PROMETHEUS_UNITS.get(self.unit, "")
        return f"{name}_total" if self.kind is Kind.COUNTER else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happens within a span."""

    name: str
    description: str
    attributes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A span.

    Attributes:
        kind: SERVER, CLIENT or INTERNAL.
        links: What it is linked to.
    """

    name: str
    kind: str
    description: str
    attributes: tuple[str, ...]
    events: tuple[Event, ...] = ()
    links: str = ""


def label_of(attribute: str) -> str:
    """The label of an attribute in Prometheus."""
    return attribute.replace(".", "_")
