"""What a server did since it started, put together from those who counted it."""

from collections.abc import Sequence

from statekeep_server.domain.model import Reason
from statekeep_server.service.answers import (
    PathStatistics,
    ServiceStatistics,
    WriteBehindStatistics,
)
from statekeep_server.service.arms import Arms
from statekeep_server.service.both_paths import BothPaths
from statekeep_server.service.monitor import Monitor
from statekeep_server.service.shadow import NO_SHADOW
from statekeep_server.service.state_service import StateService
from statekeep_server.telemetry.process_log import process_log


def path_statistics(services: Sequence[StateService]) -> tuple[PathStatistics, ...]:
    """Ask the services of the paths and their stores."""
    return tuple(service.counters.statistics(service.store.statistics()) for service in services)


def service_statistics(
    both: BothPaths,
    arms: Arms,
    monitor: Monitor,
    write_behind: WriteBehindStatistics,
    started_at_us: int,
) -> ServiceStatistics:
    """Ask everyone who counts; standard comes first."""
    standard, optimized = both.standard, both.optimized
    log = process_log()
    paths = path_statistics((standard, optimized))
    return ServiceStatistics(
        started_at_us=started_at_us,
        paths=paths,
        cache=None if optimized.heads is None else optimized.heads.statistics(),
        routes_right=optimized.counters.routes_right,
        routes_wrong=optimized.counters.routes_wrong,
        unknown_checkpoint_types=sum(
            path.decisions.get(Reason.UNKNOWN_CHECKPOINT_TYPE, 0) for path in paths
        ),
        circuit_open=both.breaker.is_open,
        arms=arms.statistics(),
        arms_since_us=arms.since_us,
        shadow=NO_SHADOW if standard.shadow is None else standard.shadow.statistics(),
        tripped=arms.trip.tripped,
        monitoring=monitor.statistics(),
        write_behind=write_behind,
        log=None if log is None else log.statistics(),
    )
