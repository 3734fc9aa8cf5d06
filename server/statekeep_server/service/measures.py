"""What the service measures, as metrics: read from those who count, when somebody collects."""

from collections.abc import Iterable, Mapping, Sequence

from statekeep_server.batching.group_commit import GroupStatistics
from statekeep_server.domain.errors import CommitUnknown, Refused, StorageUnavailable
from statekeep_server.domain.model import Outcome
from statekeep_server.flags import POSITIONS
from statekeep_server.service.admission import Admission
from statekeep_server.service.answers import PathStatistics, WriteBehindStatistics
from statekeep_server.service.arms import Arms
from statekeep_server.service.both_paths import BothPaths
from statekeep_server.service.counters import UNEXPECTED
from statekeep_server.service.groups import Groups
from statekeep_server.service.ports import CacheStatistics
from statekeep_server.service.shadow import NO_SHADOW
from statekeep_server.service.statistics import path_statistics
from statekeep_server.telemetry import names
from statekeep_server.telemetry.buckets import Bucketed, Buckets
from statekeep_server.telemetry.event_queue import QueueStatistics
from statekeep_server.telemetry.measures import Points, Reading, one


def _reasons(kind: type[Refused]) -> Iterable[str]:
    yield kind.reason
    for narrower in kind.__subclasses__():
        yield from _reasons(narrower)


REFUSALS = frozenset(_reasons(Refused))
"""The reasons of requests that were refused; every other reason is a failure of the system's."""

LIKELY_FAILURES = (StorageUnavailable.reason, CommitUnknown.reason, UNEXPECTED)
"""Told as 0 before they happen: a rate sees how a counter grows, and not how it appears."""


def readings(
    both: BothPaths,
    arms: Arms,
    admission: Admission,
    monitoring: QueueStatistics,
    held: WriteBehindStatistics,
) -> list[Reading]:
    """Read everything."""
    standard, optimized = both.standard, both.optimized
    paths = path_statistics((standard, optimized))
    found = [
        *_saves(paths),
        Reading(
            names.SAVE_DURATION,
            {
                (outcome, service.path): durations
                for service in (standard, optimized)
                for outcome, durations in service.counters.durations().items()
                if outcome is not Outcome.BUFFERED  # counted when it is written
            },
        ),
        one(names.SAVES_UNDER_WAY, admission.saves),
        Reading(
            names.ROUTES,
            {
                ("right",): optimized.counters.routes_right,
                ("wrong",): optimized.counters.routes_wrong,
            },
        ),
        *_switches(both, arms),
        one(names.MONITORING_DEPTH, monitoring.depth),
        one(names.MONITORING_DROPPED, monitoring.dropped),
    ]
    found += [] if optimized.groups is None else _groups(optimized.groups)
    found += [] if optimized.heads is None else _cache(optimized.heads.statistics())
    shadow = NO_SHADOW if standard.shadow is None else standard.shadow.statistics()
    found += [
        Reading(
            names.SHADOW_DECISIONS,
            {
                (Outcome.SKIPPED,): shadow.would_skip,
                (Outcome.PERSISTED,): sum(shadow.would_persist.values()),
            },
        ),
        one(names.SHADOW_DISAGREEMENTS, shadow.disagreements),
        *_write_behind(held),
    ]
    return found


def _saves(paths: Sequence[PathStatistics]) -> list[Reading]:
    refusals: dict[tuple[str, ...], float] = {}
    failures: dict[tuple[str, ...], float] = {
        (reason, each.path): 0 for each in paths for reason in LIKELY_FAILURES
    }
    fallbacks: dict[tuple[str, ...], float] = {(reason,): 0 for reason in LIKELY_FAILURES}
    for each in paths:
        for reason, count in each.failures.items():
            (refusals if reason in REFUSALS else failures)[reason, each.path] = count
        fallbacks |= {(reason,): count for reason, count in each.fallbacks.items()}
    return [
        Reading(
            names.SAVES_TOTAL,
            {
                (outcome, each.path): count
                for each in paths
                for outcome, count in (
                    (Outcome.PERSISTED, each.persisted),
                    (Outcome.SKIPPED, each.skipped),
                )
            },
        ),
        Reading(
            names.DECISIONS,
            {
                (reason, each.path): count
                for each in paths
                for reason, count in each.decisions.items()
            },
        ),
        Reading(names.REFUSALS, refusals),
        Reading(names.FAILURES, failures),
        Reading(names.FALLBACKS, fallbacks),
        Reading(names.COMMITS_UNKNOWN, {(each.path,): _commits_unknown(each) for each in paths}),
        Reading(names.LOADS, {(each.path,): each.loads for each in paths}),
        Reading(names.ROWS_WRITTEN, {(each.path,): each.rows_written for each in paths}),
        Reading(names.STATEMENTS, {(each.path,): each.statements for each in paths}),
        Reading(names.POOL_CONNECTIONS, _pools(paths)),
    ]


def _commits_unknown(path: PathStatistics) -> int:
    reason = CommitUnknown.reason
    return path.failures.get(reason, 0) + path.fallbacks.get(reason, 0)


def _pools(paths: Iterable[PathStatistics]) -> Points:
    points: dict[tuple[str, ...], float] = {}
    for each in paths:
        if each.pool is not None:
            points["used", each.path] = each.pool.checked_out
            points["idle", each.path] = each.pool.idle
            points["limit", each.path] = each.pool.pool_size + each.pool.max_overflow
    return points


def _groups(groups: Groups) -> list[Reading]:
    each: Mapping[str, GroupStatistics] = {
        "saves": groups.saves.statistics(),
        "probes": groups.probes.statistics(),
        "loads": groups.loads.statistics(),
    }
    return [
        Reading(names.GROUP_SIZE, {(name,): _sizes(group.sizes) for name, group in each.items()}),
        Reading(
            names.GROUP_RETRIES, {(name,): group.retried_items for name, group in each.items()}
        ),
        Reading(names.QUEUE_DEPTH, {(name,): group.waiting for name, group in each.items()}),
        Reading(names.QUEUE_SIZE, {(name,): group.waiting_bytes for name, group in each.items()}),
        Reading(names.QUEUE_AGE, {(name,): group.oldest_s for name, group in each.items()}),
    ]


def _sizes(sizes: Mapping[int, int]) -> Bucketed:
    buckets = Buckets(names.SIZE_BOUNDS)
    for size, batches in sizes.items():
        buckets.add(size, batches)
    return buckets.read()


def _cache(cache: CacheStatistics) -> list[Reading]:
    return [
        Reading(names.CACHE_LOOKUPS, {("hit",): cache.hits, ("miss",): cache.misses}),
        one(names.CACHE_ENTRIES, cache.entries),
        one(names.CACHE_SIZE, cache.size_bytes),
        one(names.CACHE_EVICTIONS, cache.evictions),
        one(names.CACHE_INVALIDATIONS, cache.invalidations),
    ]


def _write_behind(held: WriteBehindStatistics) -> list[Reading]:
    return [
        one(names.WRITE_BEHIND_DEPTH, held.pending),
        one(names.WRITE_BEHIND_SIZE, held.pending_bytes),
        one(names.WRITE_BEHIND_AGE, held.oldest_age_s),
        Reading(
            names.WRITE_BEHIND_SAVES,
            {
                ("persisted",): held.persisted,
                ("skipped",): held.skipped,
                ("coalesced",): held.coalesced,
                ("superseded",): held.superseded,
                ("lost",): held.lost,
            },
        ),
    ]


def _switches(both: BothPaths, arms: Arms) -> list[Reading]:
    flags = arms.flags()
    return [
        one(names.CIRCUIT_OPEN, both.breaker.is_open),
        one(names.TRIPPED, arms.trip.tripped is not None),
        one(names.OPTIMIZED, flags.enable_optimized_persistence),
        one(names.ROLLOUT, flags.fleet_positions / POSITIONS),
        one(names.SHADOW, flags.shadow),
        one(names.MONITORING, flags.monitoring),
    ]
