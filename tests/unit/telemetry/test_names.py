"""The names of spans and metrics: by the conventions, unique, and what Prometheus makes of them."""

import re

from statekeep_server.telemetry import names
from statekeep_server.telemetry.instruments import Kind, label_of
from tests.support.project import BIN, must_pass

NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")


def test_names_are_unique_and_written_as_the_conventions_write_them() -> None:
    everything = [each.name for each in (*names.METRICS, *names.SPANS)]
    assert len(set(everything)) == len(everything)
    assert all(NAME.fullmatch(name) for name in everything if name != names.CALL.name)


def test_no_metric_has_a_run_or_a_tenant_as_a_label() -> None:
    labels = {label for metric in names.METRICS for label in metric.labels}
    assert not any(word in label for label in labels for word in ("run", "tenant", "user", "id"))


def test_histograms_have_rising_bounds_and_nothing_else_has() -> None:
    for metric in names.METRICS:
        assert bool(metric.bounds) == (metric.kind is Kind.HISTOGRAM)
        assert list(metric.bounds) == sorted(set(metric.bounds))


def test_the_names_that_prometheus_gives() -> None:
    assert names.CALL_DURATION.prometheus == "rpc_server_call_duration_seconds"
    assert names.SAVES_TOTAL.prometheus == "statekeep_saves_total"
    assert names.CACHE_SIZE.prometheus == "statekeep_cache_size_bytes"
    assert names.ROLLOUT.prometheus == "statekeep_rollout_ratio"
    assert names.CPU_TIME.prometheus == "process_cpu_time_seconds_total"
    assert names.QUEUE_DEPTH.prometheus == "statekeep_queue_depth"
    assert label_of(names.RPC_STATUS) == "rpc_response_status_code"
    assert len({metric.prometheus for metric in names.METRICS}) == len(names.METRICS)


def test_the_tables_of_the_docs_are_written_from_the_names() -> None:
    must_pass(BIN / "python", "tools/telemetry_tables.py", "--check")
