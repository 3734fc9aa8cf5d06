"""A server that exists only as its client: honest unless a test makes it lie."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from statekeep import (
    CacheStats,
    CheckpointType,
    DecisionReason,
    Limits,
    LoadedState,
    NotFound,
    PathStats,
    QueueStats,
    SaveOutcome,
    SaveResult,
    ServerInfo,
    ServerStats,
    ServingPath,
    ShadowStats,
    SkipRules,
    SnapshotMetadata,
    WriteBehindStats,
)

NOW = datetime(2024, 1, 1, tzinfo=UTC)
IGNORED = ("heartbeat_count", "last_updated")


@dataclass
class Kept:
    """One snapshot."""

    version: int
    snapshot_id: str
    data: bytes


@dataclass
class FakeKeeper:
    """Keeps states in memory and answers as a server on one path does."""

    path: ServingPath = ServingPath.OPTIMIZED
    ignored: tuple[str, ...] = IGNORED
    runs: dict[str, list[Kept]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    skipped: int = 0

    async def save(
        self,
        run_id: str,
        state: bytes,
        *,
        checkpoint_type: Any,
        is_recovery_point: bool,
        request_id: str,
        content_type: str,
    ) -> SaveResult:
        assert content_type == "application/json"
        self.requests.append(request_id)
        kept = self.runs.setdefault(run_id, [])
        may_skip = self.path == "OPTIMIZED" and checkpoint_type in {"AUTO", "INTERMEDIATE"}
        if may_skip and not is_recovery_point and kept and self._same(kept[-1].data, state):
            self.skipped += 1
            return self._answer(SaveOutcome.SKIPPED, DecisionReason.UNCHANGED, kept[-1], request_id)
        kept.append(Kept(len(kept) + 1, f"{run_id}/{len(kept) + 1}", state))
        return self._answer(SaveOutcome.PERSISTED, DecisionReason.CHANGED, kept[-1], request_id)

    def _same(self, one: bytes, other: bytes) -> bool:
        states = [json.loads(each) for each in (one, other)]
        for state in states:
            for name in self.ignored:
                state.pop(name, None)
        return json.dumps(states[0], sort_keys=True) == json.dumps(states[1], sort_keys=True)

    def _answer(
        self, outcome: SaveOutcome, reason: DecisionReason, kept: Kept, request_id: str
    ) -> SaveResult:
        return SaveResult(
            outcome=outcome,
            snapshot_id=kept.snapshot_id,
            version=kept.version,
            state_sha256=hashlib.sha256(kept.data).digest(),
            comparison_hash=bytes(32),
            changed_fields=(),
            changed_fields_truncated=False,
            reason=reason,
            path=self.path,
            fallback_cause=None,
            request_id=request_id,
            replayed=False,
        )

    async def load(self, run_id: str, *, version: int | None = None) -> LoadedState[Any]:
        kept = [each for each in self.runs.get(run_id, []) if version in {None, each.version}]
        if not kept:
            raise NotFound(f"run {run_id!r} has no such snapshot")
        snapshot = SnapshotMetadata(
            run_id=run_id,
            snapshot_id=kept[-1].snapshot_id,
            version=kept[-1].version,
            thread_id="",
            user_id="",
            checkpoint_type=CheckpointType.AUTO,
            agent_phase="",
            execution_context={},
            is_recovery_point=False,
            persisted_at=NOW,
            expires_at=None,
            content_type="application/json",
            state_bytes=len(kept[-1].data),
            state_sha256=hashlib.sha256(kept[-1].data).digest(),
            comparison_hash=bytes(32),
        )
        return LoadedState(
            state=json.loads(kept[-1].data),
            data=kept[-1].data,
            head_version=len(self.runs[run_id]),
            snapshot=snapshot,
        )

    async def server_info(self) -> ServerInfo:
        return ServerInfo(
            version="0",
            path=self.path,
            database="memory",
            limits=Limits(
                max_state_bytes=1,
                max_large_state_bytes=1,
                max_message_bytes=1,
                max_batch_items=1,
                max_depth=1,
                max_integer_digits=1,
                max_members=1,
                max_id_characters=1,
                max_context_entries=1,
                max_context_bytes=1,
            ),
            skip_rules=SkipRules(
                canonical_version=1,
                ignored_fields=self.ignored,
                max_skip_age_s=300.0,
                max_skips=1_000,
            ),
            pools=(),
        )

    async def stats(self) -> ServerStats:
        persisted = sum(map(len, self.runs.values()))
        path = PathStats(
            path=self.path,
            saves=persisted + self.skipped,
            persisted=persisted,
            skipped=self.skipped,
            decisions={},
            failures={},
            fallbacks={},
            rows_written=4 * persisted,
            statements=6 * persisted + self.skipped,
            persisted_mean_s=0.0,
            skipped_mean_s=0.0,
            loads=0,
        )
        unused = replace(path, persisted=0, rows_written=0, statements=0)
        return ServerStats(
            started_at=NOW,
            paths=(path, unused),
            cache=CacheStats(
                entries=0,
                max_entries=0,
                size_bytes=0,
                max_size_bytes=0,
                hits=0,
                misses=0,
                evictions=0,
                invalidations=0,
                routes_right=0,
                routes_wrong=0,
            ),
            pools=(),
            unknown_checkpoint_types=0,
            circuit_open=False,
            workers=(),
            silent_workers=0,
            arms=(),
            arms_since=NOW,
            shadow=ShadowStats(
                would_skip=0,
                would_persist={},
                disagreements=0,
                rows_avoided=0,
                routes_right=0,
                routes_wrong=0,
            ),
            tripped=False,
            monitoring=QueueStats(depth=0, written=0, dropped=0),
            log=QueueStats(depth=0, written=0, dropped=0),
            write_behind=WriteBehindStats(
                buffered=0,
                persisted=0,
                skipped=0,
                coalesced=0,
                superseded=0,
                lost=0,
                pending=0,
                pending_bytes=0,
                oldest_age_s=0.0,
                flush_failures=0,
                declined={},
                max_runs=0,
                max_bytes=0,
                max_age_s=0.0,
            ),
        )
