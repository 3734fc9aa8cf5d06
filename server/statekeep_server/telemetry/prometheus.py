"""Readings as Prometheus scrapes them: its text format, or OpenMetrics, which has exemplars.

Written by hand: the library's exporter would bring a second registry that counts everything again.
"""

from collections.abc import Iterable, Iterator, Mapping

from statekeep_server.telemetry.buckets import Bucketed, Exemplar
from statekeep_server.telemetry.instruments import label_of
from statekeep_server.telemetry.measures import Reading

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def render(
    readings: Iterable[Reading], resource: Mapping[str, str], *, open_metrics: bool = False
) -> str:
    """Write readings; the resource becomes `target_info`."""
    lines = []
    if resource:
        kind = "info" if open_metrics else "gauge"
        family = "target" if open_metrics else "target_info"
        lines += [f"# TYPE {family} {kind}", f"# HELP {family} What is measured."]
        lines.append(f"target_info{_labels(resource)} 1")
    for reading in readings:
        lines += _family(reading, open_metrics=open_metrics)
    if open_metrics:
        lines.append("# EOF")
    return "\n".join(lines) + "\n"


def _family(reading: Reading, *, open_metrics: bool) -> Iterator[str]:
    metric = reading.metric
    name = metric.prometheus
    # OpenMetrics names a counter without what its samples end with.
    family = name.removesuffix("_total") if open_metrics else name
    yield f"# TYPE {family} {metric.kind}"
    yield f"# HELP {family} {_escaped(metric.description)}"
    for values, value in reading.points.items():
        labels = dict(zip(map(label_of, metric.labels), values, strict=True))
        if isinstance(value, Bucketed):
            yield from _histogram(name, labels, value, open_metrics=open_metrics)
        else:
            yield f"{name}{_labels(labels)} {_number(value)}"


def _histogram(
    name: str, labels: Mapping[str, str], value: Bucketed, *, open_metrics: bool
) -> Iterator[str]:
    count = 0
    bounds = [*(_number(bound) for bound in value.bounds), "+Inf"]
    for index, (bound, counted) in enumerate(zip(bounds, value.counts, strict=True)):
        count += counted
        exemplar = value.exemplars.get(index) if open_metrics else None
        yield f"{name}_bucket{_labels({**labels, 'le': bound})} {count}{_exemplar(exemplar)}"
    yield f"{name}_sum{_labels(labels)} {_number(value.sum)}"
    yield f"{name}_count{_labels(labels)} {count}"


def _exemplar(exemplar: Exemplar | None) -> str:
    if exemplar is None:
        return ""
    ids = {"trace_id": exemplar.trace_id.hex(), "span_id": exemplar.span_id.hex()}
    return f" # {_labels(ids)} {_number(exemplar.value)} {exemplar.at_us / 1_000_000:.3f}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{label_of(name)}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return repr(float(value))
