"""The page for Prometheus: its text, its OpenMetrics, and who gets it."""

import asyncio

import pytest

from statekeep_server.telemetry import names
from statekeep_server.telemetry.buckets import Buckets
from statekeep_server.telemetry.measures import Reading, one
from statekeep_server.telemetry.prometheus import render
from statekeep_server.telemetry.scrape import CannotListen, scraped
from tests.support.tracing import traced


def test_readings_as_text() -> None:
    sizes = Buckets((1.0, 2.0))
    for value in (1, 2, 3):
        sizes.record(value)
    readings = [
        Reading(names.FALLBACKS, {('odd"\n\\',): 2}),
        Reading(names.GROUP_SIZE, {("saves",): sizes.read()}),
        one(names.CIRCUIT_OPEN, True),
    ]
    page = render(readings, {"service.name": "statekeep"}).splitlines()
    assert 'target_info{service_name="statekeep"} 1' in page
    assert "# TYPE statekeep_fallbacks_total counter" in page
    assert 'statekeep_fallbacks_total{reason="odd\\"\\n\\\\"} 2.0' in page
    assert [line for line in page if line.startswith("statekeep_group_size_")] == [
        'statekeep_group_size_bucket{group="saves",le="1.0"} 1',
        'statekeep_group_size_bucket{group="saves",le="2.0"} 2',
        'statekeep_group_size_bucket{group="saves",le="+Inf"} 3',
        'statekeep_group_size_sum{group="saves"} 6.0',
        'statekeep_group_size_count{group="saves"} 3',
    ]
    assert "statekeep_circuit_open 1.0" in page


def test_open_metrics_has_exemplars_and_an_end() -> None:
    durations = Buckets((0.5,))
    with traced():
        durations.record(0.25)
    reading = Reading(names.SAVE_DURATION, {("PERSISTED", "OPTIMIZED"): durations.read()})
    page = render([reading, Reading(names.LOADS, {("STANDARD",): 1})], {}, open_metrics=True)
    assert page.endswith("# EOF\n")
    assert "# TYPE statekeep_loads counter" in page
    (bucket,) = (line for line in page.splitlines() if 'le="0.5"' in line)
    assert ' # {trace_id="' in bucket
    assert " 0.25 " in bucket


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_only_the_page_is_served() -> None:
    def page(open_metrics: bool) -> tuple[str, str]:
        return "text/plain", "open" if open_metrics else "plain"

    async with scraped("127.0.0.1", 0, page) as port:
        assert (await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\nplain")
        accept = b"GET /metrics?x HTTP/1.1\r\nAccept: application/openmetrics-text\r\n\r\n"
        assert (await ask(port, accept)).endswith(b"\r\n\r\nopen")
        assert b"200" in await ask(port, b"HEAD /metrics HTTP/1.1\r\n\r\n")
        assert b"404" in await ask(port, b"GET / HTTP/1.1\r\n\r\n")
        assert b"405" in await ask(port, b"POST /metrics HTTP/1.1\r\n\r\n")
        assert await ask(port, b"nonsense") == b""
        assert await ask(port, b"x" * 100_000) == b""
        with pytest.raises(CannotListen, match=str(port)):
            async with scraped("127.0.0.1", port, page):
                pass
