"""Who watches health sees a real database die and return, by the names of all that need it."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from statekeep_server.domain.model import Path
from statekeep_server.transport.server import ADMIN_SERVICE, NEED_DATABASE
from tests.support.postgres import Postgresql, run_postgresql
from tests.support.wire import Wire, open_wire

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def own_postgresql() -> Iterator[Postgresql]:
    """A server that these tests may freeze and stop."""
    with run_postgresql() as server:
        yield server


@contextmanager
def stopped(server: Postgresql) -> Iterator[None]:
    """Crash it, and start it again at the end."""
    server.stop("immediate")
    try:
        yield
    finally:
        server.start()


def asked(service: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


@pytest.mark.postgresql
@pytest.mark.parametrize("away", [stopped, Postgresql.frozen], ids=["crashed", "frozen"])
async def test_watchers_see_the_database_die_and_return(
    own_postgresql: Postgresql, away: Any
) -> None:
    async with own_postgresql.database() as url, open_wire(Path.OPTIMIZED, url) as wire:
        watches = [wire.health.Watch(asked(name)) for name in NEED_DATABASE]
        live = wire.health.Watch(asked(ADMIN_SERVICE))
        assert await states(wire, [*watches, live]) == [SERVING] * 4
        change = asyncio.ensure_future(live.read())
        outage: AbstractContextManager[None] = away(own_postgresql)
        with outage:
            assert await states(wire, watches) == [NOT_SERVING] * 3
            # Alive all the same: nothing would be better after a restart of this one.
            assert (await wire.health.Check(asked(ADMIN_SERVICE))).status == SERVING
        assert await states(wire, watches) == [SERVING] * 3
        await wire.works()
        assert not change.done()
        live.cancel()


async def states(wire: Wire, watches: list[Any]) -> list[int]:
    """Read what each watch says next; Check and List then say the same."""
    said = [(await watch.read()).status for watch in watches]
    listed = (await wire.health.List(health_pb2.HealthListRequest())).statuses
    for name, status in zip((*NEED_DATABASE, ADMIN_SERVICE), said, strict=False):
        assert listed[name].status == status
        assert (await wire.health.Check(asked(name))).status == status
    return said
