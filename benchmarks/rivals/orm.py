"""A session of the SQLAlchemy ORM per save: how a service keeps state that nobody has tuned.

In one transaction the head is read for update or made, the snapshot and an audit record are added,
and everything is committed. The pool is that of statekeep's standard path. On SQLite sessions take
turns at a lock, which made more saves than letting them fail and wait at the file's.
"""

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import orjson
from sqlalchemy import DateTime, ForeignKey, LargeBinary, event, func
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from statekeep.v1 import agent_state_service_pb2 as messages
from statekeep_server.config import STANDARD_POOL

PERSISTED = 1


class Base(DeclarativeBase):
    """The ORM's tables."""


class Head(Base):
    """Where a run stands."""

    __tablename__ = "orm_heads"
    run_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    state_hash: Mapped[bytes]
    snapshot_id: Mapped[str]
    saved_at: Mapped[Any] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), onupdate=func.now()
    )


class SnapshotRow(Base):
    """One stored state."""

    __tablename__ = "orm_snapshots"
    snapshot_id: Mapped[str] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("orm_heads.run_id"), index=True)
    version: Mapped[int]
    checkpoint_type: Mapped[int]
    state: Mapped[bytes] = mapped_column(LargeBinary)
    state_hash: Mapped[bytes]
    saved_at: Mapped[Any] = mapped_column(DateTime(timezone=True), server_default=func.now())


class AuditRow(Base):
    """Who saved what when."""

    __tablename__ = "orm_audit"
    audit_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    run_id: Mapped[str]
    snapshot_id: Mapped[str]
    action: Mapped[str]
    at: Mapped[Any] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Orm:
    """Saves, each in a session of its own."""

    def __init__(self, engine: AsyncEngine, *, one_at_a_time: bool) -> None:
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)
        self._turn: Any = asyncio.Lock() if one_at_a_time else nullcontext()

    async def save(
        self, request: messages.SaveAgentStateRequest
    ) -> messages.SaveAgentStateResponse:
        """Persist a state."""
        state = request.state.data
        canonical = orjson.dumps(orjson.loads(state), option=orjson.OPT_SORT_KEYS)
        state_hash = hashlib.sha256(canonical).digest()
        snapshot_id = str(uuid.uuid4())
        async with self._turn, self._sessions() as session, session.begin():
            version = await self._write(session, request, state, state_hash, snapshot_id)
        return messages.SaveAgentStateResponse(
            outcome=PERSISTED,  # type: ignore[arg-type]  # the number of an enum
            snapshot_id=snapshot_id,
            version=version,
            state_sha256=state_hash,
        )

    async def _write(
        self,
        session: AsyncSession,
        request: messages.SaveAgentStateRequest,
        state: bytes,
        state_hash: bytes,
        snapshot_id: str,
    ) -> int:
        head = await session.get(Head, request.run_id, with_for_update=True)
        if head is None:
            head = Head(run_id=request.run_id, version=0)
            session.add(head)
        head.version += 1
        head.state_hash = state_hash
        head.snapshot_id = snapshot_id
        session.add(
            SnapshotRow(
                snapshot_id=snapshot_id,
                run_id=request.run_id,
                version=head.version,
                checkpoint_type=request.checkpoint_type,
                state=state,
                state_hash=state_hash,
            )
        )
        session.add(AuditRow(run_id=request.run_id, snapshot_id=snapshot_id, action="save"))
        return head.version


@asynccontextmanager
async def open_orm(url: str) -> AsyncIterator[Orm]:
    """Make the tables and keep an engine open."""
    sqlite = url.startswith("sqlite")
    pool = {} if sqlite else {"max_overflow": STANDARD_POOL.max_overflow}
    engine = create_async_engine(url, pool_size=1 if sqlite else STANDARD_POOL.pool_size, **pool)
    if sqlite:
        event.listen(engine.sync_engine, "connect", _durable)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    try:
        yield Orm(engine, one_at_a_time=sqlite)
    finally:
        await engine.dispose()


def _durable(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()
