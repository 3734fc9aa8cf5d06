"""What a server tells a collector, over the wire: a real server, a real OTLP receiver."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path as FilePath
from typing import Any

import pytest

from statekeep.v1 import agent_state_pb2
from statekeep.v1 import agent_state_service_pb2 as pb
from statekeep_server.domain.model import Path
from statekeep_server.telemetry import names
from statekeep_server.telemetry.instruments import Kind
from tests.support.collector import Collector, attributes, collecting
from tests.support.wire import Wire, open_wire, refusal, save_request

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
SAMPLED = ("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01")
UNSAMPLED = ("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-00")
SAVE = "statekeep.v1.AgentStateService/SaveAgentState"


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    async with collecting() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.endpoint)
        yield running


MANUAL = agent_state_pb2.CHECKPOINT_TYPE_MANUAL


@asynccontextmanager
async def serving(tmp_path: FilePath, **settings: Any) -> AsyncIterator[Wire]:
    """Serve on SQLite, optimized."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'states.db'}"
    async with open_wire(Path.OPTIMIZED, url, **settings) as wire:
        yield wire


def only(spans: list[Any]) -> Any:
    (span,) = spans
    return span


async def test_a_save_is_traced_from_its_caller_down_to_its_commit(
    tmp_path: FilePath, collector: Collector
) -> None:
    async with serving(tmp_path) as wire:
        await wire.state.SaveAgentState(
            save_request(run_id="run-1", checkpoint_type=MANUAL), metadata=[SAMPLED]
        )
    call, save = only(collector.named(SAVE)), only(collector.named("statekeep.save"))
    store, commit = (
        only(collector.named("statekeep.store")),
        only(collector.named(names.COMMIT.name)),
    )
    assert {span.trace_id.hex() for span in collector.spans()} == {TRACE_ID}
    assert call.parent_span_id.hex() == SPAN_ID
    assert call.flags == 0x300  # its parent is in another process
    assert save.parent_span_id == call.span_id
    assert store.parent_span_id == save.span_id
    assert commit.parent_span_id == store.span_id
    assert [link.span_id for link in commit.links] == [store.span_id]
    assert [link.span_id for link in store.links] == [commit.span_id]
    assert call.start_time_unix_nano <= commit.start_time_unix_nano
    assert commit.end_time_unix_nano <= store.end_time_unix_nano <= call.end_time_unix_nano
    assert attributes(call.attributes) == {
        "rpc.system.name": "grpc",
        "rpc.method": SAVE,
        "rpc.response.status_code": "OK",
    }
    assert attributes(save.attributes) == {
        "statekeep.run.id": "run-1",
        "statekeep.path": "OPTIMIZED",
        "statekeep.checkpoint.type": "MANUAL",
        "statekeep.state.size": 11,
        "statekeep.outcome": "PERSISTED",
        "statekeep.reason": "CHECKPOINT_TYPE",
        "statekeep.version": 1,
        "statekeep.changed_fields": 1,
    }
    assert [event.name for event in save.events] == ["statekeep.decision"]
    assert attributes(commit.attributes) == {
        "db.system.name": "sqlite",
        "db.operation.name": "append",
    }
    assert (call.kind, save.kind, store.kind, commit.kind) == (2, 1, 1, 3)
    resource = attributes(collector.traces[0].resource_spans[0].resource.attributes)
    assert resource["service.name"] == "statekeep"
    assert resource["service.version"]
    assert resource["service.instance.id"]


async def test_saves_that_share_a_commit_are_all_linked_with_it(
    tmp_path: FilePath, collector: Collector
) -> None:
    async with serving(tmp_path) as wire:
        await asyncio.gather(
            *(
                wire.state.SaveAgentState(save_request(run_id=f"run-{n}", checkpoint_type=MANUAL))
                for n in range(40)
            )
        )
    commits = collector.named("statekeep.commit")
    stores = {span.span_id: span for span in collector.named("statekeep.store")}
    linked = [link.span_id for commit in commits for link in commit.links]
    assert sorted(linked) == sorted(stores)
    assert len(commits) < 40
    for commit in commits:
        for link in commit.links:
            assert [back.span_id for back in stores[link.span_id].links] == [commit.span_id]
        size = attributes(commit.attributes).get("db.operation.batch.size", 1)
        assert size == len(commit.links)


async def test_a_skip_and_a_load_are_traced_down_to_their_statement(
    tmp_path: FilePath, collector: Collector
) -> None:
    async with serving(tmp_path) as wire:
        for _ in range(2):
            await wire.state.SaveAgentState(save_request(run_id="run-1"), metadata=[UNSAMPLED])
        await wire.state.SaveAgentState(save_request(run_id="run-1"), metadata=[SAMPLED])
        await wire.state.LoadAgentState(
            pb.LoadAgentStateRequest(run_id="run-1"), metadata=[SAMPLED]
        )
    save, load = only(collector.named("statekeep.save")), only(collector.named("statekeep.load"))
    assert attributes(save.attributes)["statekeep.outcome"] == "SKIPPED"
    assert attributes(load.attributes) == {
        "statekeep.run.id": "run-1",
        "statekeep.path": "OPTIMIZED",
        "statekeep.version": 1,
        "statekeep.state.size": 11,
    }
    operations = {
        attributes(span.attributes)["db.operation.name"]
        for span in collector.named("statekeep.read")
    }
    assert operations == {"barrier", "load_newest"}
    assert len(collector.named(SAVE)) == 1  # two were not sampled by their caller
    assert collector.value("statekeep.saves", outcome="SKIPPED", path="OPTIMIZED") == 2


async def test_what_fails_is_told_with_its_reason(tmp_path: FilePath, collector: Collector) -> None:
    async with serving(tmp_path) as wire:
        run = pb.LoadAgentStateRequest(run_id="nobody")
        refused = await refusal(wire.state.LoadAgentState(run, metadata=[SAMPLED]))
        bad = save_request(run_id="run-1", expected_version=7)
        await refusal(wire.state.SaveAgentState(bad, metadata=[SAMPLED]))
    load = only(collector.named("statekeep.load"))
    call = only(collector.named("statekeep.v1.AgentStateService/LoadAgentState"))
    assert refused.reason == "RUN_NOT_FOUND"
    assert attributes(call.attributes)["rpc.response.status_code"] == "NOT_FOUND"
    for span in (call, load):
        event = only(span.events)
        assert event.name == "statekeep.failure"
        assert attributes(event.attributes) == {"statekeep.reason": "RUN_NOT_FOUND"}
        assert span.status.code == 0  # not the server's fault
    assert collector.value("statekeep.refusals", reason="VERSION_CONFLICT", path="OPTIMIZED") == 1
    (count,) = (
        point.count
        for metric, labels, point in collector.points()
        if metric.name == "rpc.server.call.duration"
        and labels["rpc.response.status_code"] == "ABORTED"
    )
    assert count == 1


async def test_calls_that_are_refused_at_the_door_are_told_too(
    tmp_path: FilePath, collector: Collector
) -> None:
    async with serving(tmp_path, token="secret-token") as wire:
        call = wire.state.SaveAgentState(save_request(), metadata=[SAMPLED])
        assert (await refusal(call)).reason == "UNAUTHENTICATED"
    span = only(collector.spans())
    assert attributes(span.attributes)["rpc.response.status_code"] == "UNAUTHENTICATED"
    assert b"secret-token" not in collector.everything()


async def test_nothing_of_a_state_a_user_or_a_token_is_told(
    tmp_path: FilePath, collector: Collector
) -> None:
    canary = "canary-7f3a"
    folder = tmp_path / canary
    folder.mkdir()
    url = f"sqlite+aiosqlite:///{folder / 'states.db'}"
    token = [("authorization", f"Bearer {canary}"), SAMPLED, ("baggage", f"user={canary}")]
    async with open_wire(Path.OPTIMIZED, url, token=canary) as wire:
        for state in ({"secret": canary, canary: 1}, {"secret": canary, canary: 2}):
            save = save_request(
                state, user_id=canary, thread_id=canary, execution_context={canary: canary}
            )
            await wire.state.SaveAgentState(save, metadata=token)
        broken = save_request(canary.encode(), run_id="run-2")
        await refusal(wire.state.SaveAgentState(broken, metadata=token))
        await wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id="run-1"), metadata=token)
    assert len(collector.spans()) > 8
    assert canary.encode() not in collector.everything()


@pytest.mark.parametrize("fault", ["refuse", "hang"])
async def test_a_bad_collector_costs_no_save_and_holds_no_end(
    tmp_path: FilePath, collector: Collector, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")  # the library would wait for an hour
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    setattr(collector, fault, True)
    page = ""
    async with asyncio.timeout(60), serving(tmp_path, metrics_port=0) as wire:
        for n in range(12):
            await wire.state.SaveAgentState(save_request(run_id=f"run-{n}"), metadata=[SAMPLED])
        page = await scrape(wire)
    assert not collector.traces
    assert float(sample(page, 'statekeep_telemetry_dropped_total{signal="traces"}')) > 0


async def test_a_dead_collector_costs_no_save_and_no_end(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with collecting() as collector:
        endpoint = collector.endpoint
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)  # nobody listens any more
    async with asyncio.timeout(60), serving(tmp_path) as wire:
        for n in range(3):
            await wire.state.SaveAgentState(save_request(run_id=f"run-{n}"), metadata=[SAMPLED])


async def test_prometheus_sees_what_the_collector_gets(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus")
    async with serving(tmp_path, metrics_port=0) as wire:
        await wire.state.SaveAgentState(save_request())
        page = await scrape(wire)
    assert sample(page, 'statekeep_saves_total{outcome="PERSISTED",path="OPTIMIZED"}') == "1.0"
    assert sample(page, 'statekeep_cache_lookups_total{result="miss"}') == "1.0"
    assert "target_info{" in page


async def test_every_name_is_told_by_a_loaded_server_and_nothing_else(
    collector: Collector, postgresql_url: str
) -> None:
    async with open_wire(Path.OPTIMIZED, postgresql_url) as wire:
        state = wire.state
        for step in (1, 1, 2):
            await state.SaveAgentState(save_request({"step": step}), metadata=[SAMPLED])
        again = ("grpc-previous-rpc-attempts", "1")
        await state.SaveAgentState(save_request({"step": 3}), metadata=[SAMPLED, again])
        await refusal(state.SaveAgentState(save_request(expected_version=9), metadata=[SAMPLED]))
        batch = pb.BatchSaveAgentStatesRequest(saves=[save_request(run_id="b")])
        await state.BatchSaveAgentStates(batch, metadata=[SAMPLED])
        await state.LoadAgentState(pb.LoadAgentStateRequest(run_id="run-1"), metadata=[SAMPLED])
        await refusal(
            state.LoadAgentState(pb.LoadAgentStateRequest(run_id="no"), metadata=[SAMPLED])
        )
    told = {metric.name: (metric, labels) for metric, labels, _ in collector.points()}
    expected = {each.name: each for each in names.METRICS}
    assert set(told) == set(expected)
    for name, (metric, labels) in told.items():
        assert metric.unit == expected[name].unit
        assert metric.description == expected[name].description
        assert set(labels) == set(expected[name].labels)
        kind = {"sum": Kind.COUNTER, "gauge": Kind.GAUGE, "histogram": Kind.HISTOGRAM}
        assert kind[metric.WhichOneof("data")] is expected[name].kind
    described = {each.name: each for each in names.SPANS}
    for span in collector.spans():
        known = described.get(span.name, names.CALL)
        assert set(attributes(span.attributes)) <= set(known.attributes)
        events = {each.name: each for each in known.events}
        for event in span.events:
            assert set(attributes(event.attributes)) == set(events[event.name].attributes)
    assert set(described) - {names.CALL.name} == {
        span.name for span in collector.spans() if "/" not in span.name
    }


async def scrape(wire: Wire) -> str:
    """Read the page of this process's only server."""
    assert wire.metrics_port is not None
    reader, writer = await asyncio.open_connection("localhost", wire.metrics_port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    page = (await reader.read()).decode()
    writer.close()
    assert page.startswith("HTTP/1.1 200 OK")
    return page


def sample(page: str, name: str) -> str:
    (line,) = (line for line in page.splitlines() if line.startswith(f"{name} "))
    return line.rpartition(" ")[2]
