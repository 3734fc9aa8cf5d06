"""Bad days: databases that stall, restart, break off at a commit or are full, under load."""

import asyncio
import secrets
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from sqlalchemy import make_url

from statekeep.v1 import agent_state_pb2
from statekeep.v1 import agent_state_service_pb2 as pb
from statekeep_server.domain.errors import StorageUnavailable
from statekeep_server.domain.model import Path
from statekeep_server.storage import engine
from tests.support.commit_cutter import COMMITTED, CommitCutter, commit_cutter
from tests.support.postgres import Postgresql, run_postgresql
from tests.support.savers import advance, saving
from tests.support.wire import (
    Wire,
    gate,
    new_run,
    open_faulty_wire,
    open_wire,
    opened,
    refusal,
    save_request,
)

MANUAL = agent_state_pb2.CHECKPOINT_TYPE_MANUAL
SAVERS = 8
STALL_S = 1.0


@pytest.fixture(params=list(Path), ids=lambda path: path.value.lower())
def path(request: pytest.FixtureRequest) -> Path:
    chosen: Path = request.param
    return chosen


@pytest.fixture(scope="module")
def own_postgresql() -> Iterator[Postgresql]:
    """A server that these tests may freeze and stop."""
    with run_postgresql() as server:
        yield server


@pytest.mark.postgresql
async def test_a_short_stall_is_only_waited_for(own_postgresql: Postgresql, path: Path) -> None:
    async with own_postgresql.database() as url, open_wire(path, url) as wire:
        async with saving(wire.channel, SAVERS) as savers:
            with own_postgresql.frozen():
                await asyncio.sleep(STALL_S)
            await advance(savers, 5)
        assert not any(saver.failures for saver in savers)


@pytest.mark.postgresql
async def test_a_long_stall_loses_nothing_and_leaves_nobody_waiting(
    own_postgresql: Postgresql, path: Path
) -> None:
    limits = {"statement_timeout_s": 0.5, "lock_timeout_s": 0.5}
    async with own_postgresql.database() as url, open_wire(path, url, **limits) as wire:
        # The callers' own deadline is far away: the server tells each of them while it lasts.
        async with saving(wire.channel, SAVERS, within_s=60.0, timeout_s=300.0) as savers:
            with own_postgresql.frozen():
                while not all(saver.failures for saver in savers):
                    await asyncio.sleep(0.01)
            await advance(savers, 5)
        failures = set[StatusCode]().union(*(saver.failures for saver in savers))
        assert failures == {StatusCode.UNAVAILABLE}


@pytest.mark.postgresql
async def test_a_database_that_restarts_loses_nothing(
    own_postgresql: Postgresql, path: Path
) -> None:
    async with own_postgresql.database() as url, open_wire(path, url) as wire:
        async with saving(wire.channel, SAVERS) as savers:
            await asyncio.to_thread(own_postgresql.stop, "immediate")
            await asyncio.to_thread(own_postgresql.start)
            await advance(savers, 5)
        failures = set[StatusCode]().union(*(saver.failures for saver in savers))
        assert failures <= {StatusCode.UNAVAILABLE}


@pytest.mark.postgresql
@pytest.mark.parametrize("known", [False, True], ids=["first_save", "known_run"])
async def test_a_connection_cut_at_commit_saves_once(
    postgresql: Postgresql, path: Path, known: bool
) -> None:
    async with postgresql.database() as database_url:
        url = make_url(database_url)
        folder = url.query["host"]
        async with commit_cutter(f"{folder}/.s.PGSQL.5432") as cutter:
            through = url.set(host="127.0.0.1", port=cutter.port, query={"sslmode": "disable"})
            rendered = through.render_as_string(hide_password=False)
            async with open_wire(path, rendered) as wire:
                await one_save_although_cut(wire, cutter, path, known=known)


async def one_save_although_cut(
    wire: Wire, cutter: CommitCutter, path: Path, *, known: bool
) -> None:
    run_id = new_run()
    before = 0
    if known:
        for step in range(3):
            saved = await wire.state.SaveAgentState(
                save_request({"step": step}, run_id=run_id, checkpoint_type=MANUAL)
            )
            before = saved.version
    request = save_request(
        {"step": "cut"}, run_id=run_id, checkpoint_type=MANUAL, request_id="cut-save"
    )
    # One statement, which is its own transaction, saves on the standard path, and a known run on
    # the optimized one.
    cutter.after = b'"cut"'
    cutter.armed = b"SELECT 1\x00" if known or path is Path.STANDARD else COMMITTED
    try:
        answer = await wire.state.SaveAgentState(request, timeout=30)
    except grpc.aio.AioRpcError:
        answer = None
    assert cutter.cuts == 1
    again = await wire.state.SaveAgentState(request, timeout=30)
    assert again.version == before + 1
    assert again.replayed
    if answer is not None:
        assert answer.snapshot_id == again.snapshot_id
    listed = await wire.state.ListSnapshots(pb.ListSnapshotsRequest(run_id=run_id))
    assert [each.version for each in listed.snapshots] == list(range(before + 1, 0, -1))


async def test_a_full_queue_refuses_at_once_but_not_what_may_not_be_skipped(path: Path) -> None:
    async with open_faulty_wire(path, max_concurrent_saves=16) as (wire, world):
        closed = gate(world)
        waiting = [
            asyncio.ensure_future(
                wire.state.SaveAgentState(save_request({"step": i}, run_id=new_run()))
            )
            for i in range(14)
        ]
        while world.facade._admission._saves < 14:
            await asyncio.sleep(0.001)
        for _ in range(3):
            async with asyncio.timeout(5):
                refused = await refusal(
                    wire.state.SaveAgentState(save_request(run_id=new_run()), timeout=5)
                )
            assert (refused.code, refused.reason) == (StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
            assert refused.retry_after_ms
            assert refused.pushback_ms == refused.retry_after_ms
        important = [
            asyncio.ensure_future(wire.state.SaveAgentState(request))
            for request in (
                save_request(run_id=new_run(), checkpoint_type=MANUAL),
                save_request(run_id=new_run(), is_recovery_point=True),
            )
        ]
        while world.facade._admission._saves < 16:
            await asyncio.sleep(0.001)
        closed.gate.set()
        for answer in await asyncio.gather(*waiting, *important):
            assert answer.outcome == agent_state_pb2.SAVE_OUTCOME_PERSISTED
        await wire.works()


async def test_every_call_of_a_burst_is_answered_by_the_server() -> None:
    """gRPC would by default end some of them by chance, as CANCELLED, which nobody retries."""
    async with open_faulty_wire(Path.OPTIMIZED) as (wire, _):
        saves = (wire.state.SaveAgentState(save_request(run_id=new_run())) for _ in range(3_000))
        answers = await asyncio.gather(*saves, return_exceptions=True)
        refusals = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
        assert {opened(each).reason for each in refusals} <= {"OVERLOADED"}
        await wire.works()


async def test_a_batch_whose_commit_fails_is_saved_on_the_other_path() -> None:
    async with open_faulty_wire(Path.OPTIMIZED) as (wire, world):
        world.optimized.faults["append_many"] = [StorageUnavailable("UNREACHABLE")] * 2
        answers = await asyncio.gather(
            *(
                wire.state.SaveAgentState(save_request({"step": i}, run_id=f"run-b-{i}"))
                for i in range(20)
            )
        )
        assert {answer.version for answer in answers} == {1}
        assert any(answer.HasField("fallback_cause") for answer in answers)
        # A commit whose answer is lost: each save of the batch happened, and happens once.
        world.optimized.lose_commits = 1
        answers = await asyncio.gather(
            *(
                wire.state.SaveAgentState(save_request({"step": -i - 1}, run_id=f"run-b-{i}"))
                for i in range(20)
            )
        )
        assert {answer.version for answer in answers} == {2}


async def test_a_full_disk_is_said_and_the_next_save_after_it_works(
    path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = engine._prepare_sqlite
    opened: list[Any] = []

    def limited(connection: Any, record: object) -> None:
        prepare(connection, record)
        opened.append(connection.driver_connection)

    monkeypatch.setattr(engine, "_prepare_sqlite", limited)
    async with open_wire(path, sqlite_url) as wire:
        saved = await wire.state.SaveAgentState(save_request(run_id="run-f"))

        async def give(pages: int) -> None:
            for connection in opened:
                await connection.execute(f"PRAGMA max_page_count = {pages}")

        await give(1)  # SQLite keeps what there is, and gives no page more
        large = {"text": secrets.token_hex(100_000)}  # nothing that could be compressed away
        refused = await refusal(
            wire.state.SaveAgentState(save_request(large, run_id="run-f", request_id="full"))
        )
        assert (refused.code, refused.reason) == (StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
        assert refused.metadata["cause"] == "FULL"
        loaded = await wire.state.LoadAgentState(pb.LoadAgentStateRequest(run_id="run-f"))
        assert loaded.snapshot.snapshot_id == saved.snapshot_id
        await give(1_000_000)
        again = await wire.state.SaveAgentState(
            save_request(large, run_id="run-f", request_id="full")
        )
        assert again.version == 2
        assert not again.replayed
        await wire.works()
