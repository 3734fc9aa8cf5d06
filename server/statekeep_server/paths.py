"""The two compositions of one service. This file is the whole difference between them.

    standard   StateService(SqlStore)            every save persisted, a transaction each
    optimized  StateService(SqlStore, rules, head cache, groups)
                                                 unchanged saves skipped, transactions shared

Each has a connection pool of its own, so that an exhausted pool of one leaves the other; pools
open their connections when they are first needed.
"""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from statekeep_server.batching.detached import Detached
from statekeep_server.batching.group_commit import GroupLimits
from statekeep_server.batching.turns import Turns
from statekeep_server.cache.local import LocalHeadCache
from statekeep_server.config import Settings, Worker
from statekeep_server.domain.canonical import DEFAULT_IGNORED_FIELDS, compile_ignored
from statekeep_server.domain.model import Path, RunKey
from statekeep_server.domain.policy import SkipRules
from statekeep_server.flags import Environment, Flags
from statekeep_server.service.admission import Admission
from statekeep_server.service.arms import Arms
from statekeep_server.service.both_paths import BothPaths
from statekeep_server.service.breaker import Breaker
from statekeep_server.service.facade import StateFacade
from statekeep_server.service.flag_follower import FlagFollower, following
from statekeep_server.service.groups import Groups, open_groups
from statekeep_server.service.monitor import Monitor, open_monitor
from statekeep_server.service.ports import Clock, HeadCache, StateStore
from statekeep_server.service.retiring import retiring
from statekeep_server.service.shadow import Shadow
from statekeep_server.service.state_service import StateService
from statekeep_server.service.statistics import path_statistics
from statekeep_server.service.sweeper import sweeping
from statekeep_server.service.trip import Trip, TripLimits
from statekeep_server.service.write_behind import WriteBehind
from statekeep_server.service.write_behind_writer import writing_behind
from statekeep_server.service.write_buffer import WriteBehindLimits
from statekeep_server.storage.flag_store import open_flag_store
from statekeep_server.storage.observed import ObservedStore
from statekeep_server.storage.sql_store import (
    NO_MEMORY,
    SqlStateStore,
    StoreMemory,
    open_sql_store,
)
from statekeep_server.telemetry.operations import Operations
from statekeep_server.telemetry.setup import NO_TELEMETRY, Telemetry

logger = logging.getLogger("statekeep.paths")

MICROSECONDS = 1_000_000


def skip_rules(settings: Settings) -> SkipRules:
    """Make the skip rules of the settings."""
    return SkipRules(
        max_skip_age_us=int(settings.max_skip_age_s * MICROSECONDS), max_skips=settings.max_skips
    )


def trip_limits(settings: Settings) -> TripLimits:
    """Make the limits at which a server trips."""
    return TripLimits(
        fallback_rate=settings.trip_fallback_percent / 100,
        mean_s=settings.trip_mean_s,
        p99_s=settings.trip_p99_s,
    )


def write_behind_limits(settings: Settings) -> WriteBehindLimits:
    """Make the bounds of what is held for write-behind."""
    return WriteBehindLimits(
        max_age_s=settings.write_behind_max_age_s,
        max_runs=settings.write_behind_max_runs,
        max_bytes=settings.write_behind_max_bytes,
        give_up_s=settings.write_behind_give_up_s,
    )


def store_memory(settings: Settings) -> StoreMemory:
    """Make the memory of the optimized store."""
    payloads_bytes = settings.payloads_max_bytes if settings.compression else 0
    return StoreMemory(heads_bytes=settings.known_heads_max_bytes, payloads_bytes=payloads_bytes)


def group_settings(settings: Settings) -> Settings:
    """Let groups wait for locks as long as they should. SQLite has one lock, which all wait for."""
    if settings.database_url.startswith("sqlite"):
        return settings
    lock_timeout_s = min(settings.lock_timeout_s, settings.group_lock_timeout_s)
    return replace(settings, lock_timeout_s=lock_timeout_s)


def head_cache(settings: Settings, clock: Clock) -> LocalHeadCache:
    """Make the head cache of the settings."""
    return LocalHeadCache(
        max_entries=settings.cache_max_entries,
        max_size_bytes=settings.cache_max_bytes,
        ttl_s=settings.cache_ttl_s,
        timer=clock.monotonic_s,
    )


def compose(
    *,
    standard_store: StateStore,
    optimized_store: StateStore,
    heads: HeadCache,
    groups: Groups | None,
    settings: Settings,
    flags: Callable[[], Flags],
    detached: Detached,
    clock: Clock,
    new_id: Callable[[], str],
    monitor: Monitor,
) -> StateFacade:
    """Put both paths together over their stores."""
    turns: Turns[RunKey] = Turns()
    ignored = compile_ignored((*DEFAULT_IGNORED_FIELDS, *settings.ignored_fields))
    standard = StateService(
        standard_store,
        path=Path.STANDARD,
        turns=turns,
        clock=clock,
        ignored=ignored,
        limits=settings.limits,
        shadow=Shadow(
            rules=skip_rules(settings),
            heads=head_cache(settings, clock),
            wanted=lambda: flags().shadow,
        ),
    )
    optimized = StateService(
        optimized_store,
        path=Path.OPTIMIZED,
        turns=turns,
        clock=clock,
        ignored=ignored,
        limits=settings.limits,
        rules=skip_rules(settings),
        heads=heads,
        groups=groups,
    )
    paths = BothPaths(
        standard=standard,
        optimized=optimized,
        breaker=Breaker(clock),
        detached=detached,
    )
    arms = Arms(
        clock,
        Trip(clock, trip_limits(settings)),
        flags=flags,
        totals=lambda: path_statistics((standard, optimized)),
    )
    return StateFacade(
        paths=paths,
        arms=arms,
        write_behind=WriteBehind(paths, arms.flags, detached, clock, write_behind_limits(settings)),
        detached=detached,
        clock=clock,
        new_id=new_id,
        admission=Admission(settings.max_concurrent_saves, settings.max_concurrent_bytes),
        monitor=monitor,
    )


def environment(settings: Settings) -> Environment:
    """Say what the environment of a server gives its flags."""
    return Environment(
        enable_optimized_persistence=settings.enable_optimized_persistence,
        rollout_percent=settings.optimized_persistence_rollout,
        monitoring=settings.optimized_persistence_monitoring,
        shadow=settings.optimized_persistence_shadow,
    )


@asynccontextmanager
async def open_flags(settings: Settings) -> AsyncIterator[FlagFollower]:
    """Open the flags of a database and follow them."""
    async with open_flag_store(
        settings.database_url, allow_unsafe_durability=settings.allow_unsafe_durability
    ) as store:
        follower = FlagFollower(environment(settings), store, settings.limits)
        async with following(follower):
            yield follower


@asynccontextmanager
async def open_facade(
    settings: Settings,
    *,
    flags: Callable[[], Flags],
    clock: Clock,
    new_id: Callable[[], str],
    worker: Worker | None = None,
    telemetry: Telemetry = NO_TELEMETRY,
) -> AsyncIterator[StateFacade]:
    """Open both stores and yield the facade over them; on the way out, writes end first."""
    async with AsyncExitStack() as stack:
        # First in, last out: it tells of the last saves too.
        monitor = await stack.enter_async_context(
            open_monitor(clock, wanted=lambda: flags().monitoring)
        )
        stores = [
            await stack.enter_async_context(
                open_sql_store(
                    settings.database_url,
                    settings=tuned,
                    pool=pool,
                    new_id=new_id,
                    memory=memory,
                    reads_first=memory is NO_MEMORY,
                )
            )
            for tuned, pool, memory in (
                (settings, settings.standard_pool, NO_MEMORY),
                (group_settings(settings), settings.optimized_pool, store_memory(settings)),
            )
        ]
        if worker is None or worker.index == 0:  # once for all workers
            workers = 1 if worker is None else worker.count
            await _compare_with_the_database(stores[0], settings, workers)
        await stack.enter_async_context(
            sweeping(
                stores[0],
                interval_s=settings.sweep_interval_s,
                batch_rows=settings.sweep_batch_rows,
                request_result_ttl_s=settings.request_result_ttl_s,
            )
        )
        await stack.enter_async_context(
            retiring({Path.STANDARD: stores[0], Path.OPTIMIZED: stores[1]}, flags)
        )
        standard, optimized = observed(stores, settings, telemetry, clock)
        groups = await stack.enter_async_context(open_groups(optimized, GroupLimits(), clock))
        detached = await stack.enter_async_context(Detached())
        facade = compose(
            standard_store=standard,
            optimized_store=optimized,
            heads=head_cache(settings, clock),
            groups=groups,
            settings=settings,
            flags=flags,
            detached=detached,
            clock=clock,
            new_id=new_id,
            monitor=monitor,
        )
        await stack.enter_async_context(
            writing_behind(
                facade.write_behind,
                max_age_s=settings.write_behind_max_age_s,
                drain_timeout_s=settings.drain_timeout_s,
            )
        )
        yield facade


def observed(
    stores: Sequence[StateStore], settings: Settings, telemetry: Telemetry, clock: Clock
) -> list[StateStore]:
    """Have the stores of both paths watched, where anything is told."""
    if not telemetry.is_on:
        return list(stores)
    system = "sqlite" if settings.database_url.startswith("sqlite") else "postgresql"
    watched: list[StateStore] = []
    for store, path in zip(stores, (Path.STANDARD, Path.OPTIMIZED), strict=True):
        operations = Operations(system, path, clock.monotonic_s)
        telemetry.measures.follow(operations.readings)
        watched.append(ObservedStore(store, operations))
    return watched


def most_connections(settings: Settings, workers: int) -> int:
    """Count the connections that the processes of a server may open."""
    pools = (settings.standard_pool, settings.optimized_pool)
    # Each process has one more, for its flags.
    return workers * (1 + sum(pool.pool_size + pool.max_overflow for pool in pools))


async def _compare_with_the_database(
    store: SqlStateStore, settings: Settings, workers: int
) -> None:
    """Warn when the pools of all workers may open more connections than the database allows."""
    limit = await store.connection_limit()
    most = most_connections(settings, workers)
    if limit is not None and most > limit:
        logger.warning(
            "The pools of %d processes may open %d connections, the database allows %d in all: "
            "raise its max_connections, make the pools smaller or serve with fewer workers",
            workers,
            most,
            limit,
        )
