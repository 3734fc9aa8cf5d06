"""From the messages of the admin service to the client's values."""

from collections.abc import Iterable

from statekeep._admin_types import (
    ArmStats,
    CacheStats,
    Durations,
    FlagChange,
    FlagInForce,
    FlagList,
    Limits,
    PathStats,
    PoolStats,
    QueueStats,
    ServerInfo,
    ServerStats,
    ShadowStats,
    SkipRules,
    StoredFlag,
    Trip,
    WorkerStats,
    WriteBehindStats,
)
from statekeep._answers import SERVING_PATHS, known, moment, words
from statekeep._types import ServingPath
from statekeep.v1 import admin_service_pb2

TRIP_LIMITS = words(admin_service_pb2.TripLimit.DESCRIPTOR)
FLAG_SOURCES = words(admin_service_pb2.FlagSource.DESCRIPTOR)


def server_info(message: admin_service_pb2.GetServerInfoResponse) -> ServerInfo:
    """Read what a server is."""
    limits, rules = message.limits, message.skip_rules
    return ServerInfo(
        version=message.version,
        path=_path(message.path),
        database=message.database,
        limits=Limits(
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
        ),
        skip_rules=SkipRules(
            canonical_version=rules.canonical_version,
            ignored_fields=tuple(rules.ignored_fields),
            max_skip_age_s=rules.max_skip_age_s,
            max_skips=rules.max_skips,
        ),
        pools=_pools(message.pools),
    )


def server_stats(message: admin_service_pb2.GetStatsResponse) -> ServerStats:
    """Read what a server did."""
    cache = message.cache
    return ServerStats(
        started_at=moment(message.started_at),
        paths=tuple(_path_stats(path) for path in message.paths),
        cache=CacheStats(
            entries=cache.entries,
            max_entries=cache.max_entries,
            size_bytes=cache.size_bytes,
            max_size_bytes=cache.max_size_bytes,
            hits=cache.hits,
            misses=cache.misses,
            evictions=cache.evictions,
            invalidations=cache.invalidations,
            routes_right=cache.routes_right,
            routes_wrong=cache.routes_wrong,
        ),
        pools=_pools(message.pools),
        unknown_checkpoint_types=message.unknown_checkpoint_types,
        circuit_open=message.circuit_open,
        workers=tuple(
            WorkerStats(
                index=worker.index,
                process_id=worker.process_id,
                started_at=moment(worker.started_at),
                saves=worker.saves,
                trip=_trip(worker.trip) if worker.HasField("trip") else None,
            )
            for worker in message.workers
        ),
        silent_workers=message.silent_workers,
        arms=tuple(_arm_stats(arm) for arm in message.arms),
        arms_since=moment(message.arms_since),
        shadow=ShadowStats(
            would_skip=message.shadow.would_skip,
            would_persist=dict(message.shadow.would_persist),
            disagreements=message.shadow.disagreements,
            rows_avoided=message.shadow.rows_avoided,
            routes_right=message.shadow.routes_right,
            routes_wrong=message.shadow.routes_wrong,
        ),
        tripped=message.tripped,
        monitoring=_queue_stats(message.monitoring),
        log=_queue_stats(message.log),
        write_behind=_write_behind_stats(message.write_behind),
    )


def _queue_stats(message: admin_service_pb2.QueueStats) -> QueueStats:
    return QueueStats(depth=message.depth, written=message.written, dropped=message.dropped)


def flag_list(message: admin_service_pb2.ListFlagsResponse) -> FlagList:
    """Read the flags of the fleet."""
    return FlagList(
        version=message.version,
        flags=tuple(
            StoredFlag(
                name=flag.name,
                tenant=flag.tenant,
                run_id=flag.run_id,
                value=flag.value,
                version=flag.version,
                set_by=flag.set_by,
                set_at=moment(flag.set_at),
                problem=flag.problem,
            )
            for flag in message.flags
        ),
        in_force=tuple(
            FlagInForce(
                name=flag.name,
                value=flag.value,
                source=FLAG_SOURCES.get(flag.source, f"UNKNOWN_{flag.source}"),
            )
            for flag in message.in_force
        ),
    )


def flag_change(message: admin_service_pb2.FlagChange) -> FlagChange:
    """Read a line of the history of the flags."""
    return FlagChange(
        version=message.version,
        name=message.name,
        tenant=message.tenant,
        run_id=message.run_id,
        value_before=message.value_before if message.HasField("value_before") else None,
        value_after=message.value_after if message.HasField("value_after") else None,
        changed_by=message.changed_by,
        changed_at=moment(message.changed_at),
    )


def _path_stats(message: admin_service_pb2.PathStats) -> PathStats:
    return PathStats(
        path=_path(message.path),
        saves=message.saves,
        persisted=message.persisted,
        skipped=message.skipped,
        decisions=dict(message.decisions),
        failures=dict(message.failures),
        fallbacks=dict(message.fallbacks),
        rows_written=message.rows_written,
        statements=message.statements,
        persisted_mean_s=message.persisted_mean_s,
        skipped_mean_s=message.skipped_mean_s,
        loads=message.loads,
    )


def _arm_stats(message: admin_service_pb2.ArmStats) -> ArmStats:
    return ArmStats(
        path=_path(message.path),
        saves=message.saves,
        skipped=message.skipped,
        rows_written=message.rows_written,
        statements=message.statements,
        failures=dict(message.failures),
        fallbacks=message.fallbacks,
        persisted_durations=_durations(message.persisted_durations),
        skipped_durations=_durations(message.skipped_durations),
    )


def _write_behind_stats(message: admin_service_pb2.WriteBehindStats) -> WriteBehindStats:
    return WriteBehindStats(
        buffered=message.buffered,
        persisted=message.persisted,
        skipped=message.skipped,
        coalesced=message.coalesced,
        superseded=message.superseded,
        lost=message.lost,
        pending=message.pending,
        pending_bytes=message.pending_bytes,
        oldest_age_s=message.oldest_age_s,
        flush_failures=message.flush_failures,
        declined=dict(message.declined),
        max_runs=message.max_runs,
        max_bytes=message.max_bytes,
        max_age_s=message.max_age_s,
    )


def _durations(message: admin_service_pb2.Durations) -> Durations:
    return Durations(
        count=message.count,
        sum_s=message.sum_s,
        sum_squares=message.sum_squares,
        buckets=dict(message.buckets),
    )


def _trip(message: admin_service_pb2.Trip) -> Trip:
    return Trip(
        at=moment(message.at),
        crossed=TRIP_LIMITS.get(message.crossed, f"UNKNOWN_{message.crossed}"),
        value=message.value,
        limit=message.limit,
        saves=message.saves,
    )


def _pools(messages: Iterable[admin_service_pb2.PoolStats]) -> tuple[PoolStats, ...]:
    return tuple(
        PoolStats(
            path=_path(pool.path),
            pool_size=pool.pool_size,
            max_overflow=pool.max_overflow,
            pool_timeout_s=pool.pool_timeout_s,
            checked_out=pool.checked_out,
            idle=pool.idle,
        )
        for pool in messages
    )


def _path(number: int) -> ServingPath:
    return known(ServingPath, SERVING_PATHS, number)
