"""What the OTEL_* variables ask for, and what is said where it cannot be had."""

import pytest

from statekeep_server.telemetry.context import Sampling
from statekeep_server.telemetry.environment import Wanted, read_wanted

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}


def wanted(variables: dict[str, str], **options: int) -> Wanted:
    return read_wanted(variables, version="1", instance_id="i", **options)


def test_nothing_is_told_unless_somebody_asks() -> None:
    assert not wanted({}).anything
    assert not wanted({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": ""}).anything
    off = wanted({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, metrics_port=9_464)
    assert not off.anything


def test_an_endpoint_switches_its_signals_on() -> None:
    both = wanted(ENDPOINT)
    assert (both.traces, both.metrics, both.scrape) == (True, True, None)
    traces = wanted({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4317"})
    assert (traces.traces, traces.metrics) == (True, False)
    without = wanted({**ENDPOINT, "OTEL_METRICS_EXPORTER": "none"})
    assert (without.traces, without.metrics) == (True, False)


def test_a_page_for_prometheus_and_its_port() -> None:
    assert wanted({"OTEL_METRICS_EXPORTER": "prometheus"}).scrape == ("localhost", 9_464)
    named = {
        "OTEL_METRICS_EXPORTER": "otlp,prometheus",
        "OTEL_EXPORTER_PROMETHEUS_HOST": "::",
        "OTEL_EXPORTER_PROMETHEUS_PORT": "1234",
    }
    assert wanted(named).scrape == ("::", 1_234)
    assert wanted(named).metrics
    assert wanted(named, metrics_port=99).scrape == ("::", 99)
    assert wanted({}, metrics_port=9_000, worker=3).scrape == ("localhost", 9_003)
    assert wanted({}, metrics_port=0, worker=3).scrape == ("localhost", 0)


def test_who_tells() -> None:
    resource = wanted(
        {"OTEL_RESOURCE_ATTRIBUTES": "a=b%20c, service.name=x,,=,broken", "OTEL_SERVICE_NAME": "y"},
        worker=2,
    ).resource
    assert resource == {
        "service.name": "y",
        "service.version": "1",
        "service.instance.id": "i",
        "a": "b c",
        "statekeep.worker": "2",
    }
    assert wanted({}).resource["service.name"] == "statekeep"


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_TRACES_SAMPLER": "jaeger_remote"}, "OTEL_TRACES_SAMPLER"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "many"}, "OTEL_BSP_MAX_QUEUE_SIZE"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "0"}, "OTEL_METRIC_EXPORT_INTERVAL"),
    ],
)
def test_what_cannot_be_had_is_said(variables: dict[str, str], problem: str) -> None:
    problems = wanted({**ENDPOINT, **variables}).problems
    assert problems
    assert all(problem in each for each in problems)


def test_numbers_and_samplers_are_read() -> None:
    read = wanted(
        {
            **ENDPOINT,
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.25",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_METRIC_EXPORT_INTERVAL": "2000",
        }
    )
    assert read.sampling == Sampling(bound=1 << 62)
    assert (read.span_delay_s, read.metric_interval_s) == (0.1, 2.0)
    assert not read.problems
