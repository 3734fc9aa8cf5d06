"""Stores, saves and settings for the tests of storage."""

import itertools
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from statekeep_server.config import PoolSettings, Settings
from statekeep_server.domain.audit import AuditRecord
from statekeep_server.domain.canonical import DEFAULT_IGNORED_FIELDS, compile_ignored
from statekeep_server.domain.limits import Limits
from statekeep_server.domain.model import PreparedSave, RunKey, SaveCommand
from statekeep_server.domain.policy import SkipRules
from statekeep_server.domain.prepare import prepare
from statekeep_server.service.ports import Append
from statekeep_server.storage import rows
from statekeep_server.storage.loading import MINUTE_US
from statekeep_server.storage.sql_store import (
    NO_MEMORY,
    SqlStateStore,
    StoreMemory,
    open_sql_store,
)
from statekeep_server.storage.tables import audit_records, heads, request_results, snapshots

POOL = PoolSettings(pool_size=5, max_overflow=5, pool_timeout_s=5.0)
RULES = SkipRules()
IGNORED = compile_ignored(DEFAULT_IGNORED_FIELDS)
LIMITS = Limits()

_numbers = itertools.count(1)


def new_id() -> str:
    """A snapshot id like any other."""
    return str(uuid.uuid4())


def new_key(tenant: str = "tenant") -> RunKey:
    """A run that no other test has."""
    return RunKey(tenant, f"run-{uuid.uuid4().hex}")


def a_save(key: RunKey, state: bytes = b'{"step": 1}', **options: Any) -> PreparedSave:
    """Prepare a save; it may be skipped unless its options say otherwise."""
    options.setdefault("checkpoint_type", "AUTO")
    options.setdefault("request_id", f"request-{next(_numbers)}")
    command = SaveCommand(key=key, state=state, **options)
    return prepare(command, ignored=IGNORED, limits=LIMITS)


def an_append(
    key: RunKey,
    state: bytes = b'{"step": 1}',
    *,
    rules: SkipRules | None = RULES,
    skips_in_a_row: int = 0,
    **options: Any,
) -> Append:
    """Prepare a save under the rules of skipping."""
    return Append(save=a_save(key, state, **options), rules=rules, skips_in_a_row=skips_in_a_row)


@asynccontextmanager
async def a_store(
    url: str,
    pool: PoolSettings = POOL,
    *,
    memory: StoreMemory = NO_MEMORY,
    reads_first: bool = False,
    **settings: Any,
) -> AsyncIterator[SqlStateStore]:
    """Open a store on a database."""
    configured = Settings(database_url=url, **settings)
    async with open_sql_store(
        url,
        settings=configured,
        pool=pool,
        new_id=new_id,
        memory=memory,
        reads_first=reads_first,
    ) as store:
        yield store


async def read_audit(engine: AsyncEngine, key: RunKey) -> Sequence[AuditRecord]:
    """Read the audit log of a run from its table."""
    statement = (
        select(*rows.AUDIT_COLUMNS)
        .where(audit_records.c.tenant == key.tenant, audit_records.c.run_id == key.run_id)
        .order_by(audit_records.c.version)
    )
    async with engine.connect() as connection:
        found = (await connection.execute(statement)).mappings().all()
    return [rows.read_audit(key, row) for row in found]


async def make_older(engine: AsyncEngine, duration_us: int) -> None:
    """Let time pass: to every row, the clock has moved on by so much."""
    persisted_at_us = heads.c.persisted_at_us - duration_us
    changes = (
        update(heads).values(
            persisted_at_us=persisted_at_us,
            active_minute=persisted_at_us // MINUTE_US,
            expires_at_us=heads.c.expires_at_us - duration_us,
        ),
        update(snapshots).values(expires_at_us=snapshots.c.expires_at_us - duration_us),
        update(request_results).values(
            recorded_minute=request_results.c.recorded_minute - duration_us // MINUTE_US
        ),
    )
    async with engine.begin() as connection:
        for change in changes:
            await connection.execute(change)
