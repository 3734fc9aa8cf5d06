"""What the OTEL_* variables ask for. They mean here what OpenTelemetry says that they mean.

Those of the exporters (endpoint, headers, time limit, compression, certificates) are read by the
exporters themselves. What cannot be had is told as a problem, and left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from statekeep_server.telemetry.context import Sampling, read_sampling

EXPORTERS = {"traces": ("otlp",), "metrics": ("otlp", "prometheus")}
PROMETHEUS_PORT = 9_464
EVERYTHING = Sampling()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a server tells about itself, and how.

    Attributes:
        traces, metrics: Whether they are sent by OTLP.
        scrape: Host and port of the page for Prometheus; None for none.
        sampling: Which traces are recorded.
        max_spans, batch_spans, span_delay_s: Of the queue in front of the collector.
        metric_interval_s: Between two readings.
        resource: Who tells.
        problems: What was asked for and cannot be had, one sentence each.
    """

    traces: bool = False
    metrics: bool = False
    scrape: tuple[str, int] | None = None
    sampling: Sampling = EVERYTHING
    max_spans: int = 2_048
    batch_spans: int = 512
    span_delay_s: float = 5.0
    metric_interval_s: float = 60.0
    resource: Mapping[str, str]
    problems: tuple[str, ...] = ()

    @property
    def anything(self) -> bool:
        """Whether anything is told at all."""
        return self.traces or self.metrics or self.scrape is not None


def read_wanted(
    environment: Mapping[str, str],
    *,
    version: str,
    instance_id: str,
    metrics_port: int | None = None,
    worker: int | None = None,
) -> Wanted:
    """Read what is wanted.

    Args:
        environment: The variables.
        version: Of the server.
        instance_id: Of this process, unless the environment names one.
        metrics_port: Of the page for Prometheus; asks for it whatever the variables say.
        worker: Which of several processes; each has a port of its own, counted up by its number.
    """
    reader = _Reader(environment)
    resource = _resource(environment, version, instance_id, worker)
    if reader.text("OTEL_SDK_DISABLED").lower() == "true":
        return Wanted(resource=resource)
    traces, metrics = reader.exporters("traces"), reader.exporters("metrics")
    scrape = None
    if metrics_port is not None or "prometheus" in metrics:
        port = metrics_port
        if port is None:
            port = int(reader.number("OTEL_EXPORTER_PROMETHEUS_PORT", PROMETHEUS_PORT, most=65_535))
        host = reader.text("OTEL_EXPORTER_PROMETHEUS_HOST") or "localhost"
        scrape = (host, port + (worker or 0) if port else 0)
    return Wanted(
        traces="otlp" in traces,
        metrics="otlp" in metrics,
        scrape=scrape,
        sampling=reader.sampling(),
        max_spans=int(reader.number("OTEL_BSP_MAX_QUEUE_SIZE", 2_048)),
        batch_spans=int(reader.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)),
        span_delay_s=reader.number("OTEL_BSP_SCHEDULE_DELAY", 5_000) / 1_000,
        metric_interval_s=reader.number("OTEL_METRIC_EXPORT_INTERVAL", 60_000) / 1_000,
        resource=resource,
        problems=tuple(reader.problems),
    )


class _Reader:
    """Reads variables and keeps what is wrong with them. An empty one counts as not set."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.problems: list[str] = []

    def text(self, name: str) -> str:
        return self._environment.get(name, "").strip()

    def number(self, name: str, default: int, *, most: int = 10**9) -> float:
        text = self.text(name)
        if not text:
            return default
        if text.isascii() and text.isdecimal() and 0 < int(text) <= most:
            return int(text)
        self.problems.append(f"{name} is not a number from 1 to {most}: {default} is taken")
        return default

    def exporters(self, signal: str) -> set[str]:
        """The exporters of a signal: OTLP where an endpoint is set, unless another is named."""
        upper = signal.upper()
        variable = f"OTEL_{upper}_EXPORTER"
        endpoint = f"OTEL_EXPORTER_OTLP_{upper}_ENDPOINT"
        text = self.text(variable)
        if not text:
            has_endpoint = self.text("OTEL_EXPORTER_OTLP_ENDPOINT") or self.text(endpoint)
            text = "otlp" if has_endpoint else "none"
        wanted = {name.strip() for name in text.split(",")} - {"none", ""}
        for name in sorted(wanted - set(EXPORTERS[signal])):
            known = ", ".join((*EXPORTERS[signal], "none"))
            self.problems.append(f"{variable} names {name[:40]!r}, which is none of {known}")
        if "otlp" in wanted and not self._speaks_grpc(upper):
            wanted.discard("otlp")
        return wanted

    def _speaks_grpc(self, signal: str) -> bool:
        general = "OTEL_EXPORTER_OTLP_PROTOCOL"
        name = f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"
        name = name if self.text(name) else general
        protocol = self.text(name) or "grpc"
        if protocol != "grpc":
            self.problems.append(
                f"{name} is {protocol[:40]!r}: grpc alone is spoken, {signal.lower()} are not sent"
            )
        return protocol == "grpc"

    def sampling(self) -> Sampling:
        name = self.text("OTEL_TRACES_SAMPLER")
        sampling = read_sampling(name, self.text("OTEL_TRACES_SAMPLER_ARG"))
        if sampling is None:
            self.problems.append(
                f"OTEL_TRACES_SAMPLER names {name[:40]!r}: parentbased_always_on is taken"
            )
            return EVERYTHING
        return sampling


def _resource(
    environment: Mapping[str, str], version: str, instance_id: str, worker: int | None
) -> dict[str, str]:
    """Say who tells: what the environment says wins, but a worker has a number of its own."""
    resource = {
        "service.name": "statekeep",
        "service.version": version,
        "service.instance.id": instance_id,
    }
    for pair in environment.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        name, found, value = pair.partition("=")
        if found and name.strip():
            resource[name.strip()] = unquote(value.strip())
    if environment.get("OTEL_SERVICE_NAME"):
        resource["service.name"] = environment["OTEL_SERVICE_NAME"]
    if worker is not None:
        resource["statekeep.worker"] = str(worker)
    return resource
