"""What a rollout is judged by, as messages: both arms, the shadow, and a trip."""

from statekeep.v1 import admin_service_pb2 as pb
from statekeep_server.service.answers import (
    ArmStatistics,
    ServiceStatistics,
    ShadowStatistics,
    Tripped,
)
from statekeep_server.service.histogram import Durations
from statekeep_server.transport import convert, words


def fill(message: pb.GetStatsResponse, statistics: ServiceStatistics) -> None:
    """Write it into an answer that has the worker which counted it."""
    message.arms.extend(map(_arm, statistics.arms))
    message.arms_since.CopyFrom(convert.timestamp(statistics.arms_since_us))
    message.shadow.CopyFrom(_shadow(statistics.shadow))
    if statistics.tripped is not None:
        message.tripped = True
        message.workers[0].trip.CopyFrom(_trip(statistics.tripped))


def _arm(arm: ArmStatistics) -> pb.ArmStats:
    return pb.ArmStats(
        path=words.path_number(arm.path),
        saves=arm.saves,
        skipped=arm.skipped,
        rows_written=arm.rows_written,
        statements=arm.statements,
        failures=arm.failures,
        fallbacks=arm.fallbacks,
        persisted_durations=_durations(arm.persisted_durations),
        skipped_durations=_durations(arm.skipped_durations),
    )


def _durations(durations: Durations) -> pb.Durations:
    return pb.Durations(
        count=durations.count,
        sum_s=durations.sum_s,
        sum_squares=durations.sum_squares,
        buckets=durations.buckets,
    )


def _shadow(shadow: ShadowStatistics) -> pb.ShadowStats:
    return pb.ShadowStats(
        would_skip=shadow.would_skip,
        would_persist=shadow.would_persist,
        disagreements=shadow.disagreements,
        rows_avoided=shadow.rows_avoided,
        routes_right=shadow.routes_right,
        routes_wrong=shadow.routes_wrong,
    )


def _trip(tripped: Tripped) -> pb.Trip:
    return pb.Trip(
        at=convert.timestamp(tripped.at_us),
        crossed=words.trip_limit_number(tripped.crossed),
        value=tripped.value,
        limit=tripped.limit,
        saves=tripped.saves,
    )
