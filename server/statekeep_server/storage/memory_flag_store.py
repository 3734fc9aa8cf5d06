"""Flags in memory: the executable specification of the store, for tests and processes alone."""

from collections.abc import Sequence

from statekeep_server.domain.errors import FlagConflict, InvalidField
from statekeep_server.flags import FlagChange, FlagName, Scope, StoredFlag, StoredFlags
from statekeep_server.service.ports import MAX_OVERRIDES, Clock


class MemoryFlagStore:
    """Keeps flags for as long as it lives. Implements `service.ports.FlagStore`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._flags: dict[tuple[str, str, str], StoredFlag] = {}
        self._changes: list[FlagChange] = []

    async def version(self) -> int:
        """Count the changes."""
        return len(self._changes)

    async def read(self) -> StoredFlags:
        """List all that is set."""
        stored = tuple(flag for _, flag in sorted(self._flags.items()))
        return StoredFlags(version=len(self._changes), flags=stored)

    async def change(
        self,
        name: FlagName,
        scope: Scope,
        value: str | None,
        *,
        changed_by: str,
        expected_version: int | None = None,
    ) -> FlagChange:
        """Change a flag."""
        key = (scope.tenant, scope.run_id, str(name))
        found = self._flags.get(key)
        actual_version = 0 if found is None else found.version
        if expected_version is not None and actual_version != expected_version:
            raise FlagConflict(name, expected_version, actual_version)
        overrides = sum(bool(flag.scope.tenant) for flag in self._flags.values())
        is_new_override = found is None and value is not None and scope.tenant
        if is_new_override and overrides >= MAX_OVERRIDES:
            message = f"{MAX_OVERRIDES} flags of tenants and runs are set, which is the limit"
            raise InvalidField("tenant", message, limit=MAX_OVERRIDES)
        change = FlagChange(
            version=len(self._changes) + 1,
            name=name,
            scope=scope,
            before=None if found is None else found.value,
            after=value,
            changed_by=changed_by,
            changed_at_us=self._clock.now_us(),
        )
        self._changes.append(change)
        if value is None:
            self._flags.pop(key, None)
        else:
            self._flags[key] = StoredFlag(
                name=name,
                scope=scope,
                value=value,
                version=change.version,
                set_by=changed_by,
                set_at_us=change.changed_at_us,
            )
        return change

    async def changes(
        self, *, limit: int, before_version: int | None = None
    ) -> Sequence[FlagChange]:
        """List the history."""
        newest_first = reversed(self._changes)
        wanted = [c for c in newest_first if before_version is None or c.version < before_version]
        return wanted[:limit]
