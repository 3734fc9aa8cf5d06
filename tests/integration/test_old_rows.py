"""Databases of earlier revisions, with rows as servers wrote them: nothing of them is lost."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from statekeep_server.domain.audit import verify_chain
from statekeep_server.domain.errors import RunNotFound
from statekeep_server.domain.model import (
    ById,
    ByVersion,
    Newest,
    Outcome,
    Reason,
    RunKey,
    SaveResult,
)
from statekeep_server.domain.policy import SkipRules
from statekeep_server.service.ports import Append
from statekeep_server.storage.migrate import Migrated, migrate
from statekeep_server.storage.schema import SCHEMA_REVISION
from statekeep_server.storage.sql_store import NO_MEMORY, SqlStateStore, StoreMemory
from tests.support.stores import a_store, an_append, make_older, read_audit

OLD: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "rows_0003.json").read_text("utf-8")
)
STATES = {run: [state.encode() for state in states] for run, states in OLD["states"].items()}
GROWING, PLAIN, DELETED = (RunKey("tenant", name) for name in ("growing", "plain", "deleted"))
TABLES = ("heads", "snapshots", "audit_records", "request_results")
BOOLEANS = {"deleted", "is_recovery_point", "changed_fields_truncated"}
FRAMES = {"base_version", "base_sha256", "depth"}

MEMORIES = {
    "standard": NO_MEMORY,
    "optimized": StoreMemory(heads_bytes=10**6, payloads_bytes=10**6),
}


def value(name: str, stored: Any) -> object:
    if name in BOOLEANS:
        return bool(stored)
    return bytes.fromhex(stored["hex"]) if isinstance(stored, dict) else stored


def old_rows(revision: str, table: str) -> list[dict[str, object]]:
    """The rows of a table, as a server of that revision wrote them."""
    rows = [{name: value(name, stored) for name, stored in row.items()} for row in OLD[table]]
    if table == "snapshots" and revision == "0001":
        for row in rows:
            state = STATES[str(row["run_id"])][int(str(row["version"])) - 1]
            row |= {"encoding": "identity", "state": state}
            for name in FRAMES:
                del row[name]
    return rows


@pytest.fixture(params=["0001", "0002", "0003"])
async def old_url(
    request: pytest.FixtureRequest, new_url: str, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The URL of a database of an earlier revision that was migrated."""
    revision: str = request.param
    with monkeypatch.context() as older:
        older.setattr("statekeep_server.storage.migrate.SCHEMA_REVISION", revision)
        await migrate(new_url)
    engine = create_async_engine(new_url, poolclass=NullPool)
    async with engine.begin() as connection:
        for table in TABLES:
            for row in old_rows(revision, table):
                names, values = ", ".join(row), ", ".join(f":{name}" for name in row)
                await connection.execute(
                    text(f"INSERT INTO {table} ({names}) VALUES ({values})"), row
                )
    await engine.dispose()
    assert await migrate(new_url) == Migrated(revision, SCHEMA_REVISION)
    return new_url


def old_save(version: int, **options: Any) -> Append:
    if version > 3:
        options |= {"thread_id": "thread", "user_id": "user", "agent_phase": "plan"}
        options |= {"execution_context": (("a", "1"),)}
    options.setdefault("request_id", f"save-{version}")
    # Those rows get older every day, and are to be leaned on nevertheless.
    rules = SkipRules(max_skip_age_us=2**62)
    return an_append(GROWING, STATES["growing"][version - 1], rules=rules, **options)


async def append(store: SqlStateStore, one: Append) -> SaveResult:
    (answer,) = await store.append_many([one])
    assert isinstance(answer, SaveResult), answer
    return answer


@pytest.mark.parametrize("path", MEMORIES)
async def test_every_old_version_is_loaded_and_listed(old_url: str, path: str) -> None:
    old_ids = {row["version"]: row["snapshot_id"] for row in old_rows("0003", "snapshots")[:6]}
    async with a_store(old_url, memory=MEMORIES[path]) as store:
        for version, state in enumerate(STATES["growing"], 1):
            for selector in (ByVersion(version), ById(str(old_ids[version]))):
                loaded = await store.load(GROWING, selector)
                assert (loaded.snapshot.version, loaded.snapshot.state) == (version, state)
                assert loaded.snapshot.snapshot_id == old_ids[version]
        listed = (await store.list_snapshots(GROWING, limit=10)).snapshots
        assert {one.version: one.snapshot_id for one in listed} == old_ids
        assert (listed[0].thread_id, listed[0].agent_phase) == ("thread", "plan")
        assert listed[0].execution_context == (("a", "1"),)
        plain = (await store.load(PLAIN, Newest())).snapshot
        assert (plain.state, plain.content_type) == (b"not json at all", "text/plain")
        assert (plain.is_recovery_point, plain.checkpoint_type) == (True, "MANUAL")
        with pytest.raises(RunNotFound):
            await store.load(DELETED, Newest())
        runs = (await store.list_runs("tenant", limit=10)).runs
        assert [run.key.run_id for run in runs] == ["plain", "growing"]
        found = await store.list_runs("tenant", limit=10, user_id="user")
        assert [run.key.run_id for run in found.runs] == ["growing"]


@pytest.mark.parametrize("path", MEMORIES)
async def test_old_requests_are_answered_again(old_url: str, path: str) -> None:
    async with a_store(old_url, memory=MEMORIES[path]) as store:
        saved = await append(store, old_save(2))
        snapshot = (await store.load(GROWING, ByVersion(2))).snapshot
        assert (saved.outcome, saved.reason) == (Outcome.PERSISTED, Reason.CHANGED)
        assert (saved.version, saved.replayed) == (2, True)
        assert saved.changed_fields == ("messages", "step")
        assert saved.snapshot_id == snapshot.snapshot_id
        assert saved.state_sha256 == snapshot.state_sha256
        assert saved.comparison_hash == snapshot.comparison_hash
        skipped = await append(store, old_save(6, request_id="skipped", attempt=2))
        assert (skipped.outcome, skipped.replayed) == (Outcome.SKIPPED, True)
        assert (skipped.version, skipped.reason) == (6, Reason.UNCHANGED)


@pytest.mark.parametrize("path", MEMORIES)
async def test_old_runs_go_on(old_url: str, path: str) -> None:
    """They are skipped, saved, verified, swept and deleted as if they were new."""
    engine = create_async_engine(old_url, poolclass=NullPool)
    async with a_store(old_url, memory=MEMORIES[path]) as store:
        for key in (GROWING, PLAIN, DELETED):
            records = await read_audit(engine, key)
            assert records
            assert verify_chain(records) is None
        same = await append(store, old_save(6, request_id="again"))
        assert (same.outcome, same.version) == (Outcome.SKIPPED, 6)
        # What the head names, its size and its hash are known: the next frame builds on it.
        await store.load(GROWING, Newest())
        new = await append(store, old_save(1, request_id="new"))
        assert (new.version, new.changed_fields) == (7, ("messages", "step"))
        assert (await store.load(GROWING, ById(new.snapshot_id))).snapshot.version == 7
        assert (await append(store, an_append(DELETED, b'{"a": 2}'))).version == 3
        for key in (GROWING, DELETED):
            assert verify_chain(await read_audit(engine, key)) is None
        await make_older(engine, 3 * 10**15)
        assert await store.sweep(limit=10, request_results_before_us=-(10**16)) == 1
        assert await store.delete_run(GROWING) == 7
    await engine.dispose()
