"""What a server exports, as Prometheus calls it."""

from statekeep_server.telemetry import names
from statekeep_server.telemetry.instruments import Kind, label_of

OTHERS = frozenset({"ALERTS", "up"})
"""Series that Prometheus itself adds."""
LABELS = frozenset({"job", "instance", "le", "alertname", "alertstate"})
"""Labels that it adds."""


def known_metrics() -> set[str]:
    """List what a server exports, as Prometheus calls it."""
    found = {metric.prometheus for metric in names.METRICS if metric.kind is not Kind.HISTOGRAM}
    for metric in names.METRICS:
        if metric.kind is Kind.HISTOGRAM:
            found |= {f"{metric.prometheus}_{part}" for part in ("bucket", "sum", "count")}
    return found


def known_labels() -> set[str]:
    """List their labels."""
    return {label_of(label) for metric in names.METRICS for label in metric.labels}
