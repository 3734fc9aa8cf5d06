"""The telemetry of a server: opened with it, and flushed when everything else is closed.

With no endpoint and no page for Prometheus there is nothing: no thread, no exporter, no import of
the SDK, and nobody counts calls.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from statekeep_server.telemetry import names
from statekeep_server.telemetry.calls import Calls
from statekeep_server.telemetry.environment import Wanted
from statekeep_server.telemetry.measures import Measures, Reading, Source
from statekeep_server.telemetry.process import process_source
from statekeep_server.telemetry.prometheus import OPEN_METRICS, TEXT, render
from statekeep_server.telemetry.scrape import scraped
from statekeep_server.telemetry.shipping import Shipping
from statekeep_server.telemetry.spans import Tracer

if TYPE_CHECKING:  # imported where it is needed: it brings gRPC's classes and takes its time
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.resources import Resource

    from statekeep_server.telemetry.otlp import MetricSender

logger = logging.getLogger("statekeep.telemetry")

CLOSE_S = 2.0
"""What a dead collector may cost a server that stops, all signals together."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What a server tells about itself while it is open.

    Attributes:
        calls: Watches calls; None where nothing is told.
        measures: Everybody who counts.
        scrape_port: Of the page for Prometheus; None where there is none.
    """

    calls: Calls | None = None
    measures: Measures = field(default_factory=Measures)
    scrape_port: int | None = None

    @property
    def is_on(self) -> bool:
        """Whether anything is told."""
        return self.calls is not None

    @contextmanager
    def following(self, source: Source) -> Iterator[None]:
        """Ask this one too; when it is left, what it said last stays said."""
        if not self.is_on:
            yield
            return
        with self.measures.following(source):
            yield


NO_TELEMETRY = Telemetry()


@asynccontextmanager
async def open_telemetry(
    wanted: Wanted,
    *,
    version: str,
    worker: int | None = None,
    now_us: Callable[[], int],
    monotonic_s: Callable[[], float],
) -> AsyncIterator[Telemetry]:
    """Tell what is wanted while the context is open; leaving flushes, within `CLOSE_S`.

    Raises CannotListen when the port of the page for Prometheus is taken.
    """
    for problem in wanted.problems:
        logger.warning("Telemetry: %s", problem)
    if not wanted.anything:
        yield NO_TELEMETRY
        return
    measures = Measures()
    measures.follow(process_source(version=version, worker=worker, monotonic_s=monotonic_s))
    async with AsyncExitStack() as stack:
        sending = await stack.enter_async_context(
            _sending(wanted, measures, version=version, now_us=now_us)
        )
        measures.follow(sending.readings)
        calls = Calls(sending.tracer, monotonic_s)
        measures.follow(calls.readings)
        port = None
        if wanted.scrape is not None:

            def page(open_metrics: bool) -> tuple[str, str]:
                text = render(measures.collect(), wanted.resource, open_metrics=open_metrics)
                return OPEN_METRICS if open_metrics else TEXT, text

            port = await stack.enter_async_context(scraped(*wanted.scrape, page))
        logger.info(
            "Telemetry: traces=%s metrics=%s metrics_port=%s", wanted.traces, wanted.metrics, port
        )
        yield Telemetry(calls, measures, port)


@dataclass(frozen=True, slots=True)
class _Sending:
    """What is sent to a collector."""

    tracer: Tracer | None
    spans: Shipping[bytes] | None
    metrics: "Shipping[MetricsData] | None"

    def readings(self) -> list[Reading]:
        """Tell what was dropped."""
        return [
            Reading(
                names.TELEMETRY_DROPPED,
                {
                    ("traces",): 0 if self.spans is None else self.spans.dropped,
                    ("metrics",): 0 if self.metrics is None else self.metrics.dropped,
                },
            )
        ]


@asynccontextmanager
async def _sending(
    wanted: Wanted, measures: Measures, *, version: str, now_us: Callable[[], int]
) -> AsyncIterator[_Sending]:
    """Send spans and metrics to a collector while the context is open."""
    if not (wanted.traces or wanted.metrics):
        yield _Sending(None, None, None)
        return
    from statekeep_server.telemetry.otlp import MetricSender, make_resource

    resource = make_resource(wanted.resource)
    spans = _ship_spans(wanted, resource, version) if wanted.traces else None
    tracer = None if spans is None else Tracer(wanted.sampling, spans.put, now_us)
    sender = metrics = None
    if wanted.metrics:
        sender = MetricSender(resource, version, started_us=now_us(), now_us=now_us)
        metrics = Shipping(
            "statekeep-metrics", sender.send, sender.cancel, max_items=1, batch_items=1, delay_s=1.0
        )
    pushing = None
    if sender is not None and metrics is not None:
        pushing = asyncio.create_task(_push(measures, sender, metrics, wanted.metric_interval_s))
    close_s = CLOSE_S
    try:
        yield _Sending(tracer, spans, metrics)
    except asyncio.CancelledError:
        close_s = 0.0  # a second signal: at once
        raise
    finally:
        if pushing is not None:
            pushing.cancel()
        if sender is not None and metrics is not None:
            metrics.put(sender.encode(measures.collect()))
        open_ones = (each for each in (spans, metrics) if each is not None)
        await asyncio.gather(*(each.close(close_s) for each in open_ones))


def _ship_spans(wanted: Wanted, resource: "Resource", version: str) -> Shipping[bytes]:
    from statekeep_server.telemetry.otlp import SpanSender  # late, see above

    sender = SpanSender(resource, version)
    return Shipping(
        "statekeep-spans",
        sender.send,
        sender.shutdown,
        max_items=wanted.max_spans,
        batch_items=wanted.batch_spans,
        delay_s=wanted.span_delay_s,
    )


async def _push(
    measures: Measures,
    sender: "MetricSender",
    metrics: "Shipping[MetricsData]",
    interval_s: float,
) -> None:
    """Send what is measured, every now and then."""
    while True:
        await asyncio.sleep(interval_s)
        metrics.put(sender.encode(measures.collect()))
