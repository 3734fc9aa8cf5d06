"""Follows the stored flags: every server of the fleet has a change within a second.

The follower asks for the version of the newest change twice a second, and reads the flags when it
is another than its own. While the database does not answer, the last known flags hold, and no save
notices. Each change is logged once by every server, with who made it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from statekeep_server.domain.errors import InvalidField, StateError
from statekeep_server.domain.limits import Limits
from statekeep_server.domain.model import Path
from statekeep_server.domain.validation import validate_text
from statekeep_server.flags import (
    NOTHING_STORED,
    POSITIONS,
    SCOPES,
    Environment,
    FlagChange,
    FlagInForce,
    FlagName,
    Flags,
    Scope,
    StoredFlags,
    has_scope,
    in_force,
    normalized,
    resolve,
    unusable,
)
from statekeep_server.service.ports import FlagStore

logger = logging.getLogger("statekeep.flags")

POLL_INTERVAL_S = 0.5
"""Half of what a change may take to reach every server; the statement takes a millisecond."""

MAX_LOGGED_CHANGES = 100
"""A server that was cut off for long does not have to tell all that it missed."""


class FlagFollower:
    """The flags of this server, and how operators change those of the fleet.

    Calling it gives the flags as they are now; a request does that once.

    Args:
        environment: What this server's environment says.
        store: Holds what is set for the fleet.
        limits: Of the names of tenants and runs.
    """

    def __init__(self, environment: Environment, store: FlagStore, limits: Limits) -> None:
        self.environment = environment
        self._store = store
        self._limits = limits
        self._stored = NOTHING_STORED
        self._flags = resolve(environment, NOTHING_STORED)
        self._refreshing = asyncio.Lock()
        self._failing = False
        self._watchers: list[Callable[[Flags], None]] = []
        self._change_watchers: list[Callable[[FlagChange], None]] = []

    def __call__(self) -> Flags:
        """Give the flags as they are now."""
        return self._flags

    @property
    def stored(self) -> StoredFlags:
        """What this server last read."""
        return self._stored

    def in_force(self) -> tuple[FlagInForce, ...]:
        """Say of each flag what holds in this server, and why."""
        # The root's level is that of the start: only our own loggers follow the flag.
        started_with = logging.getLevelName(logging.getLogger().getEffectiveLevel())
        return in_force(self.environment, self._stored, started_with)

    def watch(self, watcher: Callable[[Flags], None]) -> None:
        """Tell a watcher the flags now, and whenever they change."""
        self._watchers.append(watcher)
        watcher(self._flags)

    def watch_changes(self, watcher: Callable[[FlagChange], None]) -> None:
        """Tell a watcher every change from now on, after it is in force."""
        self._change_watchers.append(watcher)

    async def start(self) -> None:
        """Read the flags for the first time, and say which path serves. Raises a StateError."""
        self._take(await self._store.read())
        logger.info("%s", describe(self._flags))

    async def refresh(self) -> None:
        """Read the flags if they changed; keep the last known ones where that fails."""
        try:
            async with self._refreshing:
                if await self._store.version() != self._stored.version:
                    await self._follow()
        except StateError as error:
            if not self._failing:
                logger.warning("Flags cannot be read, the last ones hold: reason=%s", error.reason)
            self._failing = True
            return
        if self._failing:
            logger.info("Flags can be read again")
        self._failing = False

    async def change(
        self,
        name: str,
        scope: Scope,
        value: str | None,
        *,
        changed_by: str,
        expected_version: int | None = None,
    ) -> FlagChange:
        """Set a flag for the fleet, a tenant or a run; None unsets it.

        This server follows before it answers. Raises InvalidField that names what is allowed, and
        what `FlagStore.change` raises.
        """
        flag = self._checked(name, scope)
        validate_text("changed_by", changed_by, self._limits)
        if value is not None:
            try:
                value = normalized(flag, value)
            except ValueError as error:
                raise InvalidField("value", str(error)) from None
        change = await self._store.change(
            flag, scope, value, changed_by=changed_by, expected_version=expected_version
        )
        await self.refresh()
        return change

    async def changes(
        self, *, limit: int, before_version: int | None = None
    ) -> Sequence[FlagChange]:
        """Read the history, newest first. Raises a StateError."""
        return await self._store.changes(limit=limit, before_version=before_version)

    def _checked(self, name: str, scope: Scope) -> FlagName:
        if name not in FlagName.__members__:
            raise InvalidField("name", f"must be one of {', '.join(FlagName)}")
        flag = FlagName(name)
        validate_text("tenant", scope.tenant, self._limits)
        validate_text("run_id", scope.run_id, self._limits)
        if scope.run_id and not scope.tenant:
            raise InvalidField("tenant", "is required with a run")
        if not has_scope(flag, scope):
            field = "run_id" if scope.run_id else "tenant"
            raise InvalidField(field, f"{flag} can be set for {SCOPES[flag]}")
        return flag

    async def _follow(self) -> None:
        before, flags_before = self._stored, self._flags
        stored = await self._store.read()
        changes: Sequence[FlagChange] = ()
        missed = min(stored.version - before.version, MAX_LOGGED_CHANGES)
        if missed > 0:
            changes = await self._store.changes(limit=missed, before_version=stored.version + 1)
            for change in reversed(changes):
                _log_change(change)
        self._take(stored)
        if describe(self._flags) != describe(flags_before):
            logger.info("%s", describe(self._flags))
        for watcher in self._watchers:
            watcher(self._flags)
        for change in reversed(changes):
            for change_watcher in self._change_watchers:
                change_watcher(change)

    def _take(self, stored: StoredFlags) -> None:
        for flag in stored.flags:
            problem = unusable(flag)
            if problem is not None and flag not in self._stored.flags:
                logger.error(
                    "A stored flag is ignored: name=%r scope=%r problem=%s",
                    flag.name,
                    str(flag.scope),
                    problem,
                )
        self._stored = stored
        self._flags = resolve(self.environment, stored)


def describe(flags: Flags) -> str:
    """Say which path serves, for the log."""
    if flags.only_path is not None:
        word = "optimized" if flags.only_path is Path.OPTIMIZED else "standard"
        return f"Using {word} state persistence"
    word = "optimized" if flags.fleet_positions else "standard"
    some = 0 < flags.fleet_positions < POSITIONS
    share = f" for {flags.fleet_positions / 100:g} % of runs" if some else ""
    overrides = len(flags.tenants) + len(flags.runs)
    others = f" (set otherwise: tenants={len(flags.tenants)} runs={len(flags.runs)})"
    return f"Using {word} state persistence{share}{others if overrides else ''}"


def _log_change(change: FlagChange) -> None:
    # Whoever made it chose its words: they are quoted.
    logger.info(
        "Flag changed: name=%s scope=%r from=%s to=%s by=%r version=%d",
        change.name,
        str(change.scope),
        "unset" if change.before is None else change.before,
        "unset" if change.after is None else change.after,
        change.changed_by,
        change.version,
    )


@asynccontextmanager
async def following(
    follower: FlagFollower, *, interval_s: float = POLL_INTERVAL_S
) -> AsyncIterator[None]:
    """Read the flags, and follow them while the context is open. Raises a StateError."""
    await follower.start()

    async def follow_forever() -> None:
        while True:
            await asyncio.sleep(interval_s)
            await follower.refresh()

    task = asyncio.create_task(follow_forever())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
