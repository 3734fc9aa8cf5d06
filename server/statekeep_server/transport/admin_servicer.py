"""AdminService: what the server is and what it did, written from its settings and its counts."""

import os
from typing import Any

import grpc

from statekeep.v1 import admin_service_pb2 as pb
from statekeep.v1 import admin_service_pb2_grpc
from statekeep_server import __version__
from statekeep_server.config import Settings, Worker
from statekeep_server.domain.canonical import CANONICAL_VERSION, DEFAULT_IGNORED_FIELDS
from statekeep_server.domain.limits import Limits
from statekeep_server.service.answers import (
    PathStatistics,
    ServiceStatistics,
    WriteBehindStatistics,
)
from statekeep_server.service.facade import StateFacade
from statekeep_server.service.flag_follower import FlagFollower
from statekeep_server.telemetry.event_queue import QueueStatistics
from statekeep_server.transport import convert, flag_calls, rollout_stats, words
from statekeep_server.transport.colleagues import with_colleagues

Context = grpc.aio.ServicerContext[Any, Any]

# ruff: noqa: N802, D102, ARG002 - the contract names, documents and shapes these methods


class AdminServicer(admin_service_pb2_grpc.AdminServiceServicer):
    """The operators' service.

    Args:
        worker: Which of several processes this is: any of them answers for all.
    """

    def __init__(
        self,
        facade: StateFacade,
        settings: Settings,
        flags: FlagFollower,
        worker: Worker | None,
    ) -> None:
        self._facade = facade
        self._flags = flags
        self._settings = settings
        self._worker = worker

    async def GetServerInfo(
        self, request: pb.GetServerInfoRequest, context: Context
    ) -> pb.GetServerInfoResponse:
        settings = self._settings
        return pb.GetServerInfoResponse(
            version=__version__,
            path=words.path_number(self._facade.path_now()),
            # `postgresql+asyncpg://…`: nothing after the scheme may leave the server.
            database=settings.database_url.partition(":")[0].partition("+")[0],
            limits=_limits(settings.limits),
            skip_rules=pb.SkipRules(
                canonical_version=CANONICAL_VERSION,
                ignored_fields=(*DEFAULT_IGNORED_FIELDS, *settings.ignored_fields),
                max_skip_age_s=settings.max_skip_age_s,
                max_skips=settings.max_skips,
            ),
            pools=(await self._stats()).pools,
        )

    async def GetStats(self, request: pb.GetStatsRequest, context: Context) -> pb.GetStatsResponse:
        return await self._stats()

    async def ListFlags(
        self, request: pb.ListFlagsRequest, context: Context
    ) -> pb.ListFlagsResponse:
        return flag_calls.list_flags(self._flags)

    async def SetFlag(self, request: pb.SetFlagRequest, context: Context) -> pb.SetFlagResponse:
        return await flag_calls.set_flag(self._flags, request)

    async def UnsetFlag(
        self, request: pb.UnsetFlagRequest, context: Context
    ) -> pb.UnsetFlagResponse:
        return await flag_calls.unset_flag(self._flags, request)

    async def ListFlagChanges(
        self, request: pb.ListFlagChangesRequest, context: Context
    ) -> pb.ListFlagChangesResponse:
        return await flag_calls.list_flag_changes(self._flags, request)

    async def _stats(self) -> pb.GetStatsResponse:
        return await with_colleagues(self._worker, self.own_stats())

    def own_stats(self) -> pb.GetStatsResponse:
        """Write what this process counted."""
        statistics = self._facade.statistics()
        started_at = convert.timestamp(statistics.started_at_us)
        own = pb.WorkerStats(
            index=0 if self._worker is None else self._worker.index,
            process_id=os.getpid(),
            started_at=started_at,
            saves=sum(path.saves for path in statistics.paths),
        )
        answer = pb.GetStatsResponse(
            started_at=started_at,
            paths=map(_path_stats, statistics.paths),
            cache=_cache_stats(statistics),
            pools=_pools(statistics),
            unknown_checkpoint_types=statistics.unknown_checkpoint_types,
            circuit_open=statistics.circuit_open,
            workers=[own],
            monitoring=_queue_stats(statistics.monitoring),
            log=_queue_stats(statistics.log),
            write_behind=_write_behind(statistics.write_behind),
        )
        rollout_stats.fill(answer, statistics)
        return answer


def _limits(limits: Limits) -> pb.Limits:
    return pb.Limits(
        max_state_bytes=limits.max_state_bytes,
        max_large_state_bytes=limits.max_large_state_bytes,
        max_message_bytes=limits.max_message_bytes,
        max_batch_items=limits.max_batch_items,
        max_depth=limits.max_depth,
        max_integer_digits=limits.max_integer_digits,
        max_members=limits.max_members,
        max_id_characters=limits.max_id_characters,
        max_context_entries=limits.max_context_entries,
        max_context_bytes=limits.max_context_bytes,
    )


def _path_stats(path: PathStatistics) -> pb.PathStats:
    return pb.PathStats(
        path=words.path_number(path.path),
        saves=path.saves,
        persisted=path.persisted,
        skipped=path.skipped,
        decisions=path.decisions,
        failures=path.failures,
        fallbacks=path.fallbacks,
        rows_written=path.rows_written,
        statements=path.statements,
        persisted_mean_s=path.persisted_mean_s,
        skipped_mean_s=path.skipped_mean_s,
        loads=path.loads,
    )


def _cache_stats(statistics: ServiceStatistics) -> pb.CacheStats | None:
    cache = statistics.cache
    if cache is None:
        return None
    return pb.CacheStats(
        entries=cache.entries,
        max_entries=cache.max_entries,
        size_bytes=cache.size_bytes,
        max_size_bytes=cache.max_size_bytes,
        hits=cache.hits,
        misses=cache.misses,
        evictions=cache.evictions,
        invalidations=cache.invalidations,
        routes_right=statistics.routes_right,
        routes_wrong=statistics.routes_wrong,
    )


def _queue_stats(queue: QueueStatistics | None) -> pb.QueueStats | None:
    if queue is None:
        return None
    return pb.QueueStats(depth=queue.depth, written=queue.written, dropped=queue.dropped)


def _write_behind(write_behind: WriteBehindStatistics) -> pb.WriteBehindStats:
    return pb.WriteBehindStats(
        buffered=write_behind.buffered,
        persisted=write_behind.persisted,
        skipped=write_behind.skipped,
        coalesced=write_behind.coalesced,
        superseded=write_behind.superseded,
        lost=write_behind.lost,
        pending=write_behind.pending,
        pending_bytes=write_behind.pending_bytes,
        oldest_age_s=write_behind.oldest_age_s,
        flush_failures=write_behind.flush_failures,
        declined=write_behind.declined,
        max_runs=write_behind.max_runs,
        max_bytes=write_behind.max_bytes,
        max_age_s=write_behind.max_age_s,
    )


def _pools(statistics: ServiceStatistics) -> list[pb.PoolStats]:
    return [
        pb.PoolStats(
            path=words.path_number(path.path),
            pool_size=path.pool.pool_size,
            max_overflow=path.pool.max_overflow,
            pool_timeout_s=path.pool.pool_timeout_s,
            checked_out=path.pool.checked_out,
            idle=path.pool.idle,
        )
        for path in statistics.paths
        if path.pool is not None
    ]
