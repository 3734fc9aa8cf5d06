"""Pipelines of both clients: one write at a clean end, none after an error."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from statekeep import AsyncClient, Client, InvalidRequest, PipelineSaves, Unavailable
from statekeep.v1 import agent_state_pb2
from tests.support.both_clients import Kind
from tests.support.scripted_server import ScriptedServer, fails

COMPLETE = agent_state_pb2.CHECKPOINT_TYPE_PIPELINE_COMPLETE
MANUAL = agent_state_pb2.CHECKPOINT_TYPE_MANUAL


@asynccontextmanager
async def opened(
    server: ScriptedServer, kind: Kind, run_id: str = "run-1"
) -> AsyncIterator[PipelineSaves]:
    """Open a pipeline of either client; the synchronous one blocks here, and nothing else runs."""
    if kind == "async":
        async with AsyncClient(server.target) as client, client.pipeline(run_id) as pipeline:
            yield pipeline
    else:
        with Client(server.target) as waiting, waiting.pipeline(run_id) as written_by_it:
            yield written_by_it


def written(server: ScriptedServer) -> list[tuple[Any, ...]]:
    (asked,) = server.asked
    assert asked.method == "BatchSaveAgentStates"
    assert asked.request.atomic
    return [(save.run_id, save.state.data, save.checkpoint_type) for save in asked.request.saves]


async def test_the_newest_state_is_written_once(server: ScriptedServer, kind: Kind) -> None:
    async with opened(server, kind) as pipeline:
        for step in range(50):
            pipeline.save({"step": step}, checkpoint_type="AUTO" if step % 2 else "INTERMEDIATE")
        assert not server.asked
        assert not pipeline.results
    assert written(server) == [("run-1", b'{"step":49}', COMPLETE)]
    assert [result.request_id for result in pipeline.results] == [pipeline.saves[0].request_id]


async def test_what_must_be_persisted_is_all_written_in_order(
    server: ScriptedServer, kind: Kind
) -> None:
    async with opened(server, kind) as pipeline:
        pipeline.save(1)
        pipeline.save(2, checkpoint_type="MANUAL")
        pipeline.save(3, is_recovery_point=True)
        pipeline.save(4, run_id="run-2")
        pipeline.save(5, expected_version=2)
        pipeline.save(6, checkpoint_type="AUTO", writer_sequence=1)
        pipeline.save(7)
        pipeline.save(8)
        pipeline.save(9, run_id="run-3")
        pipeline.save(10, run_id="run-3", checkpoint_type="CRITICAL")
    saved = written(server)
    assert [data for run, data, _ in saved if run == "run-1"] == [b"2", b"3", b"5", b"6", b"8"]
    assert saved[0][2] == MANUAL
    assert ("run-1", b"8", COMPLETE) in saved
    assert ("run-2", b"4", COMPLETE) in saved
    assert [data for run, data, _ in saved if run == "run-3"] == [b"10"]


async def test_an_error_inside_writes_nothing(server: ScriptedServer, kind: Kind) -> None:
    with pytest.raises(ValueError, match="mine"):
        await failing(server, kind)
    assert not server.asked


async def failing(server: ScriptedServer, kind: Kind) -> None:
    async with opened(server, kind) as pipeline:
        pipeline.save(1, checkpoint_type="MANUAL")
        raise ValueError("mine")


async def test_an_empty_pipeline_writes_nothing(server: ScriptedServer, kind: Kind) -> None:
    async with opened(server, kind):
        pass
    assert not server.asked


async def test_a_state_may_change_after_it_was_saved(server: ScriptedServer, kind: Kind) -> None:
    state = {"step": 1}
    async with opened(server, kind) as pipeline:
        pipeline.save(state, agent_phase="p")
        state["step"] = 2
    assert written(server) == [("run-1", b'{"step":1}', COMPLETE)]
    save = server.asked[0].request.saves[0]
    assert (save.state.content_type, save.agent_phase) == ("application/json", "p")


async def test_a_write_that_failed_can_be_repeated(server: ScriptedServer) -> None:
    refused = fails(grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
    server.will("BatchSaveAgentStates", *[refused] * 4)
    async with AsyncClient(server.target) as client:
        pipeline = client.pipeline("run-1")

        async def work() -> None:
            async with pipeline:
                pipeline.save(1)

        with pytest.raises(Unavailable):
            await work()
        assert not pipeline.results
        await client.save_many(pipeline.saves, atomic=True, attempt=2)
    first, *_, last = server.asked
    assert last.request.saves[0].request_id == first.request.saves[0].request_id
    assert last.request.saves[0].attempt == 2


async def test_a_pipeline_is_bounded_when_it_is_filled(server: ScriptedServer) -> None:
    async with AsyncClient(server.target) as client, client.pipeline("run-1") as pipeline:
        with pytest.raises(InvalidRequest) as caught:
            pipeline.save(b"x" * 3_670_017)
        assert (caught.value.field, caught.value.limit) == ("state.data", 3_670_016)
        with pytest.raises(InvalidRequest):
            pipeline.save(float("nan"))
        for _ in range(20):
            pipeline.save(b"x" * 3_000_000)  # replaced, so they take no room
        for number in range(4):
            pipeline.save(b"x" * 3_000_000, run_id=f"other-{number}")
        with pytest.raises(InvalidRequest) as caught:
            pipeline.save(b"x" * 3_000_000, run_id="one-more")
        assert (caught.value.field, caught.value.limit) == ("saves", 16 * 1024 * 1024)
        for number in range(251):
            pipeline.save(number, run_id=f"small-{number}", request_id=f"r-{number}")
        with pytest.raises(InvalidRequest) as caught:
            pipeline.save(1, run_id="r-1", request_id="r-1")
        assert caught.value.field == "request_id"
        with pytest.raises(InvalidRequest) as caught:
            pipeline.save(1, run_id="the-257th")
        assert (caught.value.field, caught.value.limit) == ("saves", 256)
    assert len(written(server)) == 256
