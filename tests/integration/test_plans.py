"""What PostgreSQL makes of our statements while it knows nothing about the tables."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from statekeep_server.domain.model import ById, ByVersion, Newest, RunKey, Selector
from statekeep_server.storage.chains import Chains
from statekeep_server.storage.dialect import Postgresql
from statekeep_server.storage.lane import RawStatement
from statekeep_server.storage.reading import Reading
from statekeep_server.storage.snapshot_ids import name_snapshot
from statekeep_server.storage.sql_store import SqlStateStore, StoreMemory
from tests.support.stores import a_store, an_append, new_id, new_key

pytestmark = pytest.mark.postgresql

VERSIONS = 200
SETTINGS = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}
MEMORY = StoreMemory(heads_bytes=1_000_000, payloads_bytes=1_000_000)


@pytest.fixture
async def store(postgresql_url: str) -> AsyncIterator[SqlStateStore]:
    async with a_store(postgresql_url, memory=MEMORY) as opened:
        yield opened


@pytest.fixture
async def connection(postgresql_url: str) -> AsyncIterator[Any]:
    """A connection with the settings of the server's own, where statistics are not collected."""
    dsn = postgresql_url.replace("postgresql+asyncpg:", "postgresql:")
    opened = await asyncpg.connect(dsn, server_settings=SETTINGS)
    for table in ("heads", "snapshots", "audit_records"):
        await opened.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    yield opened
    await opened.close()


async def index_scans(connection: Any, statement: Any, values: dict[str, Any]) -> list[Any]:
    raw = RawStatement(statement)
    rows = await connection.fetch(
        "EXPLAIN (ANALYZE, FORMAT JSON) " + raw.text, *raw.arguments(values)
    )
    return list(_index_scans(json.loads(rows[0][0])[0]["Plan"]))


def _index_scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "Index Name" in plan:
        yield plan
    for below in plan.get("Plans", ()):
        yield from _index_scans(below)


async def save_versions(store: SqlStateStore) -> RunKey:
    key = new_key()
    states = (b'{"step": %d, "text": "%s"}' % (step, b"text " * 100) for step in range(VERSIONS))
    await store.append_many([an_append(key, state) for state in states])
    return key


@pytest.mark.parametrize(
    "selector",
    [Newest(), ByVersion(150), ById(name_snapshot(new_id(), 150))],
    ids=["newest", "version", "id"],  # always the same: several processes collect them
)
async def test_a_load_reads_the_rows_of_its_chain_alone(
    store: SqlStateStore, connection: Any, selector: Selector
) -> None:
    key = await save_versions(store)
    if isinstance(selector, ById):
        snapshot = (await store.load(key, ByVersion(150))).snapshot
        selector = ById(snapshot.snapshot_id)
    statement = Chains(Postgresql()).load(key, selector)
    assert statement is not None
    scans = await index_scans(connection, *statement)
    assert {scan["Index Name"] for scan in scans} == {
        "heads_pkey",
        "snapshots_pkey",
        "audit_records_pkey",
    }
    for scan in scans:
        # Per loop; ANALYZE rounds it. A scan of the run would have read 200.
        assert scan["Actual Rows"] <= 1, scan


async def test_a_page_of_snapshots_reads_one_audit_record_for_each(
    store: SqlStateStore, connection: Any
) -> None:
    key = await save_versions(store)
    statement, _ = Reading(Postgresql()).list_snapshots(key, limit=10, before_version=None)
    scans = await index_scans(connection, statement, {})
    audits = [scan for scan in scans if scan["Relation Name"] == "audit_records"]
    assert [(scan["Actual Rows"], scan["Actual Loops"]) for scan in audits] == [(1, 11)]


async def test_the_list_of_runs_is_read_in_its_order(store: SqlStateStore, connection: Any) -> None:
    tenant = new_key().run_id
    keys = [RunKey(tenant, f"run-{number}") for number in range(50)]
    await store.append_many([an_append(key, thread_id="t", user_id="u") for key in keys])
    indexes = {
        "heads_by_time": (None, None),
        "heads_by_thread": ("t", None),
        "heads_by_user": (None, "u"),
    }
    for index, (thread_id, user_id) in indexes.items():
        statement, _ = Reading(Postgresql()).list_runs(
            tenant, limit=10, thread_id=thread_id, user_id=user_id, after=None
        )
        assert [scan["Index Name"] for scan in await index_scans(connection, statement, {})] == [
            index
        ]


async def test_saves_within_a_minute_touch_no_index_of_the_heads(
    store: SqlStateStore, connection: Any
) -> None:
    key = new_key()
    saves = 40
    minutes = [await connection.fetchval("SELECT extract(epoch FROM now())::bigint / 60")]
    for step in range(saves):
        await store.append_many([an_append(key, b'{"step": %d}' % step, thread_id="t")])
    minutes.append(await connection.fetchval("SELECT extract(epoch FROM now())::bigint / 60"))
    written = 0
    while written < saves - 1:  # the counters come a moment later
        await asyncio.sleep(0.05)
        written, hot = await connection.fetchrow(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'heads'"
        )
    # The first save of a run writes its head twice: it is created, then filled in.
    assert written - hot <= 1 + minutes[1] - minutes[0]
