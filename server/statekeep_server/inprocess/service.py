"""Saving and loading in the caller's own process, with the signatures that agents know.

Both paths serve it, and flags choose between them as they do in a server.
"""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel

from statekeep_server.config import Settings
from statekeep_server.domain.errors import (
    CommitUnknown,
    InvalidField,
    RunNotFound,
    SnapshotNotFound,
    StorageUnavailable,
)
from statekeep_server.domain.limits import Limits
from statekeep_server.domain.model import (
    DEFAULT_TENANT,
    ById,
    Newest,
    RunKey,
    SaveCommand,
    make_context,
)
from statekeep_server.domain.validation import validate_key, validate_selector
from statekeep_server.inprocess.models import DeepAgentState, StatePersistenceRequest
from statekeep_server.paths import open_facade, open_flags
from statekeep_server.service.answers import ServiceStatistics
from statekeep_server.service.clock import SystemClock
from statekeep_server.service.facade import StateFacade
from statekeep_server.service.ids import new_id
from statekeep_server.service.kpis import Kpis, kpis

logger = logging.getLogger("statekeep.inprocess")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class StatePersistenceService:
    """Saves and loads agent states over a facade."""

    def __init__(
        self, facade: StateFacade, limits: Limits, *, tenant: str = DEFAULT_TENANT
    ) -> None:
        self._facade = facade
        self._limits = limits
        self._tenant = tenant

    async def save_agent_state(
        self, request: StatePersistenceRequest, db_session: Any = None
    ) -> tuple[bool, str | None]:
        """Save a state; return whether it stands, and the id of the snapshot that holds it.

        Without a session True means committed. With the caller's own SQLAlchemy AsyncSession or
        AsyncConnection it means staged: durable when the caller commits.

        Returns (False, None) only when the database could not take the save and certainly did not
        (unreachable, locked, read-only, full); the cause is logged. Raises CommitUnknown when it
        may have: retry with the same `request_id`. Raises InvalidField, VersionConflict,
        RequestIdReused or Overloaded when the request itself was refused.
        """
        command = self._command(request)
        try:
            if db_session is None:
                ack = await self._facade.save(command)
            else:
                ack = await self._facade.save_in_session(command, db_session)
        except CommitUnknown:
            raise
        except StorageUnavailable as error:
            logger.warning("Save failed: reason=%s cause=%s", error.reason, error.cause)
            return False, None
        return True, ack.result.snapshot_id

    async def load_agent_state(
        self, run_id: str, snapshot_id: str | None = None, db_session: Any = None
    ) -> DeepAgentState | None:
        """Load the newest state of a run, or the one with this id; None when there is none.

        A caller's session sees what it has staged. Raises InvalidField for an id that no run can
        have, StorageUnavailable when the database
        cannot answer, and StateCorrupt when the stored bytes do not match their hash: neither is
        "no state".
        """
        key = RunKey(self._tenant, run_id)
        selector = Newest() if snapshot_id is None else ById(snapshot_id)
        validate_key(key, self._limits)
        validate_selector(selector, self._limits)
        try:
            loaded = await self._facade.load(key, selector, session=db_session)
        except (RunNotFound, SnapshotNotFound):
            return None
        if loaded.snapshot.state is None:
            return None
        return DeepAgentState.model_validate(json.loads(loaded.snapshot.state))

    def get_cache_stats(self) -> dict[str, float]:
        """What the head cache holds and did, and how often it was right.

        `hit_rate` and `routes_right_rate` are shares of 1, and 0.0 before the first look-up.
        """
        statistics = self._facade.statistics()
        cache = statistics.cache
        if cache is None:
            return {}
        right, wrong = statistics.routes_right, statistics.routes_wrong
        return {
            **{name: getattr(cache, name) for name in cache.__slots__},
            "hit_rate": cache.hits / max(1, cache.hits + cache.misses),
            "routes_right": right,
            "routes_wrong": wrong,
            "routes_right_rate": right / max(1, right + wrong),
        }

    def kpis(self) -> Kpis:
        """The figures by which the optimized path is judged."""
        statistics = self._facade.statistics()
        pools = [path.pool for path in statistics.paths if path.pool is not None]
        return kpis(statistics.paths, statistics.cache, pools)

    def statistics(self) -> ServiceStatistics:
        """Count what this service did."""
        return self._facade.statistics()

    def _command(self, request: StatePersistenceRequest) -> SaveCommand:
        context = {
            name: value if isinstance(value, str) else _encode("execution_context", value).decode()
            for name, value in request.execution_context.items()
        }
        return SaveCommand(
            key=RunKey(self._tenant, request.run_id),
            state=_encode("state_data", request.state_data),
            thread_id=request.thread_id or "",
            user_id=request.user_id or "",
            checkpoint_type=request.checkpoint_type.upper(),
            agent_phase=request.agent_phase or "",
            execution_context=make_context(context),
            is_recovery_point=request.is_recovery_point,
            expires_at_us=_microseconds(request.expires_at),
            request_id=request.request_id,
            expected_version=request.expected_version,
        )


def _encode(field: str, value: Any) -> bytes:
    """Encode JSON exactly: NaN, Infinity and what is no JSON value are refused, never guessed."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_unset=True)
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidField(field, f"is not JSON: {type(error).__name__}") from error


def _microseconds(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise InvalidField("expires_at", "must have a time zone")
    return (moment - EPOCH) // timedelta(microseconds=1)


@asynccontextmanager
async def open_state_persistence(
    settings: Settings, *, tenant: str = DEFAULT_TENANT
) -> AsyncIterator[StatePersistenceService]:
    """Open the service on a database. It follows the flags that are stored there, as servers do.

    LOG_LEVEL aside: how much a process logs is its own business.
    """
    async with (
        open_flags(settings) as flags,
        open_facade(settings, flags=flags, clock=SystemClock(), new_id=new_id) as facade,
    ):
        flags.watch_changes(facade.flag_changed)
        yield StatePersistenceService(facade, settings.limits, tenant=tenant)
