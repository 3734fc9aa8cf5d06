"""Both clients against a real server in a process of its own, on both paths."""

import asyncio
import hashlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from statekeep import (
    AsyncClient,
    CheckpointType,
    DecisionReason,
    InvalidRequest,
    NotFound,
    RequestIdReused,
    Save,
    SaveResult,
    ServerNotFound,
    ServingPath,
    StaleWriter,
    Unauthenticated,
    VersionConflict,
)
from tests.support import tls
from tests.support.both_clients import KINDS, Kind, connect
from tests.support.project import BIN
from tests.support.server_process import ServerProcess


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture(params=[False, True], ids=["standard", "optimized"])
def optimized(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def client(sqlite_url: str, optimized: bool, kind: Kind) -> AsyncIterator[AsyncClient]:
    async with (
        ServerProcess(sqlite_url, optimized=optimized) as server,
        connect(kind, server.target, timeout_s=30.0) as opened,
    ):
        yield opened


@dataclass
class Trip:
    goal: str
    distance: int


async def test_the_whole_way(client: AsyncClient, optimized: bool) -> None:
    # One server for many questions: starting one for each would take longer than all of them.
    await _states_come_back(client)
    await _automatic_saves_are_skipped_where_they_may(client, optimized)
    await _repeated_saves_happen_once(client)
    await _stale_writers_are_told(client)
    await _refusals_name_their_field(client)
    await _batches(client)
    await _lists_and_the_end(client)
    await _what_the_server_says(client, optimized)


async def _states_come_back(client: AsyncClient) -> None:
    state = {"big": 2**64 + 1, "huge": 10**300, "float": 1.0, "text": "å𝄞\u0000", "none": None}
    saved = await client.save("states", state, agent_phase="planning")
    loaded = await client.load("states")
    assert loaded.state == state
    assert isinstance(loaded.state["float"], float)
    assert loaded.snapshot.agent_phase == "planning"
    assert hashlib.sha256(loaded.data).digest() == saved.state_sha256
    assert (loaded.version, loaded.snapshot_id) == (saved.version, saved.snapshot_id)

    data = os.urandom(3_000_000)
    await client.save("states", data)
    assert (await client.load("states")).state == data

    await client.save("states", Trip("Oslo", 2**70))
    assert (await client.load("states", as_=Trip)).state == Trip("Oslo", 2**70)
    assert (await client.load("states", version=1)).state == state
    assert (await client.load("states", snapshot_id=saved.snapshot_id)).head_version == 3
    with pytest.raises(NotFound):
        await client.load("states", version=4)
    with pytest.raises(NotFound):
        await client.load("other", snapshot_id=saved.snapshot_id)


async def _automatic_saves_are_skipped_where_they_may(client: AsyncClient, optimized: bool) -> None:
    first = await client.save("skips", {"step": 1}, checkpoint_type="AUTO")
    again = await client.save("skips", {"step": 1}, checkpoint_type="AUTO")
    assert first.persisted
    assert again.skipped is optimized
    if optimized:
        assert (again.snapshot_id, again.version) == (first.snapshot_id, first.version)
        assert again.reason is DecisionReason.UNCHANGED
    manual = await client.save("skips", {"step": 1})
    assert manual.persisted
    newer = await client.save("skips", {"step": 1}, checkpoint_type=CheckpointType("UNKNOWN_99"))
    assert newer.reason is DecisionReason.UNKNOWN_CHECKPOINT_TYPE
    changed = await client.save("skips", {"step": 2, "new": 1}, checkpoint_type="AUTO")
    assert changed.changed_fields == ("new", "step")
    assert not changed.changed_fields_truncated


async def _repeated_saves_happen_once(client: AsyncClient) -> None:
    options: dict[str, Any] = {
        "expires_at": timedelta(days=1),
        "execution_context": {"b": "2", "a": "1"},
        "ignored_fields": ["seen_at"],
    }
    first = await client.save("repeats", {"step": 1}, **options)
    again = await client.save(
        "repeats", {"step": 1}, request_id=first.request_id, attempt=2, **options
    )
    assert again.replayed
    assert (again.version, again.snapshot_id) == (first.version, first.snapshot_id)
    assert (await client.load("repeats")).head_version == 1
    with pytest.raises(RequestIdReused) as caught:
        await client.save("repeats", {"step": 2}, request_id=first.request_id, attempt=2)
    assert caught.value.request_id == first.request_id


async def _stale_writers_are_told(client: AsyncClient) -> None:
    await client.save("writers", 1, expected_version=0, writer_sequence=5)
    with pytest.raises(VersionConflict) as conflict:
        await client.save("writers", 2, expected_version=0)
    assert (conflict.value.expected, conflict.value.actual) == (0, 1)
    with pytest.raises(StaleWriter):
        await client.save("writers", 2, writer_sequence=4)

    def count(state: dict[str, int] | None) -> dict[str, int]:
        return {"count": (state or {"count": 0})["count"] + 1}

    updates = [client.update("counter", count, max_attempts=50) for _ in range(8)]
    results = await asyncio.gather(*updates)
    assert sorted(result.version or 0 for result in results) == list(range(1, 9))
    assert (await client.load("counter")).state == {"count": 8}
    assert await client.delete_run("counter") == 8
    await client.update("counter", count)  # a deleted run starts afresh, and its versions go on
    loaded = await client.load("counter")
    assert (loaded.state, loaded.version) == ({"count": 1}, 10)


async def _refusals_name_their_field(client: AsyncClient) -> None:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"run_id": ""}, "run_id", "INVALID_FIELD"),
        ({"run_id": "x" * 257}, "run_id", "INVALID_FIELD"),
        ({"state": deep}, "state.data", "STATE_TOO_DEEP"),
        ({"state": b"{", "content_type": "application/json"}, "state.data", "STATE_NOT_JSON"),
        (
            {"state": b'{"a":1,"a":2}', "content_type": "application/json"},
            "state.data",
            "STATE_DUPLICATE_KEY",
        ),
        ({"expires_at": timedelta(days=-1)}, "expires_at", "INVALID_FIELD"),
        ({"ignored_fields": [""]}, "ignored_fields", "INVALID_FIELD"),
    ]
    for options, field, reason in cases:
        arguments: dict[str, Any] = {"run_id": "refused", "state": {}, **options}
        with pytest.raises(InvalidRequest) as caught:
            await client.save(**arguments)
        assert (caught.value.field, caught.value.reason) == (field, reason)
        assert caught.value.request_id
    with pytest.raises(NotFound) as missing:
        await client.load("refused")
    assert missing.value.reason == "RUN_NOT_FOUND"


async def _batches(client: AsyncClient) -> None:
    saves = [
        Save("batch-1", {"n": 1}),
        Save("batch-1", {"n": 2}, expected_version=7),
        Save("batch-2", float("nan")),
        Save("batch-1", {"n": 3}, expected_version=1),
    ]
    results = await client.save_many(saves)
    kinds = [SaveResult, VersionConflict, InvalidRequest, SaveResult]
    assert [type(result) for result in results] == kinds
    assert [result.request_id for result in results] == [save.request_id for save in saves]
    again = await client.save_many(saves, attempt=2)
    assert isinstance(again[0], SaveResult)
    assert again[0].replayed
    assert (await client.load("batch-1")).head_version == 2

    atomic = [Save("batch-3", 1), Save("batch-1", 1, expected_version=0)]
    with pytest.raises(VersionConflict) as caught:
        await client.save_many(atomic, atomic=True)
    assert caught.value.request_id == atomic[1].request_id
    with pytest.raises(NotFound):
        await client.load("batch-3")


async def _lists_and_the_end(client: AsyncClient) -> None:
    for step in range(5):
        await client.save("listed", {"step": step}, thread_id="thread-1", user_id="user-1")
    found = [snapshot async for snapshot in client.list_snapshots("listed", page_size=2)]
    assert [snapshot.version for snapshot in found] == [5, 4, 3, 2, 1]
    assert all(snapshot.persisted_at.tzinfo is not None for snapshot in found)
    await client.save("listed-2", {}, thread_id="thread-1")
    runs = [run.run_id async for run in client.list_runs(thread_id="thread-1", page_size=1)]
    assert runs == ["listed-2", "listed"]
    assert [run.run_id async for run in client.list_runs(user_id="user-1")] == ["listed"]
    assert await client.delete_run("listed") == 5
    assert await client.delete_run("listed") == 0
    assert [run async for run in client.list_runs(user_id="user-1")] == []
    with pytest.raises(InvalidRequest):
        await anext(client.list_runs(page_size=-1))


async def _what_the_server_says(client: AsyncClient, optimized: bool) -> None:
    path = ServingPath.OPTIMIZED if optimized else ServingPath.STANDARD
    info = await client.server_info()
    assert info.path is path
    assert info.database == "sqlite"
    assert info.limits.max_state_bytes == 3_670_016
    stats = await client.stats()
    served = next(stats for stats in stats.paths if stats.path is path)
    assert served.persisted > 10
    assert served.failures["VERSION_CONFLICT"] >= 2
    assert stats.unknown_checkpoint_types == 1
    assert not stats.circuit_open


async def test_a_server_that_goes_away_and_comes_back(sqlite_url: str, kind: Kind) -> None:
    async with ServerProcess(sqlite_url, optimized=True) as server:
        async with connect(kind, server.target) as client:
            saved = await client.save("run-1", {"step": 1})
            await server.kill()
            with pytest.raises(ServerNotFound) as caught:
                await client.save("run-1", {"step": 2})
        await server.start()
        async with connect(kind, server.target) as client:
            assert (await client.load("run-1")).snapshot_id == saved.snapshot_id
            request_id = caught.value.request_id
            again = await client.save("run-1", {"step": 2}, request_id=request_id, attempt=2)
            assert (again.version, again.replayed) == (2, False)


@contextmanager
def served(tmp_path: Path, *arguments: str) -> Iterator[str]:
    """Serve as an operator does, and give the port."""
    port_file = tmp_path / "port"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STATEKEEP_")}
    with subprocess.Popen(
        [BIN / "statekeep", "serve", "--port", "0", "--port-file", port_file, *arguments],
        env={**kept, "XDG_DATA_HOME": str(tmp_path), "STATEKEEP_TOKEN": "secret"},
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            give_up_s = time.monotonic() + 60
            while not port_file.exists():
                assert process.poll() is None, "the server did not start"
                assert time.monotonic() < give_up_s, "the server took too long to start"
                time.sleep(0.02)
            yield port_file.read_text()
        finally:
            process.terminate()


async def test_tls_and_a_token(tmp_path: Path) -> None:
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    certificate.write_text(tls.CERTIFICATE)
    key.write_text(tls.KEY)
    with served(tmp_path, "--tls-cert", str(certificate), "--tls-key", str(key)) as port:
        for kind in KINDS:
            target = f"localhost:{port}"
            async with connect(kind, target, tls=certificate, token="secret") as client:
                assert (await client.save("run-1", {"step": 1})).persisted
                assert (await client.server_info()).version
            async with connect(kind, target, tls=certificate, token="wrong") as client:
                with pytest.raises(Unauthenticated) as caught:
                    await client.save("run-1", {"step": 1}, request_id="mine")
                assert caught.value.request_id == "mine"
                assert "wrong" not in str(caught.value)
                with pytest.raises(Unauthenticated):
                    await client.stats()
