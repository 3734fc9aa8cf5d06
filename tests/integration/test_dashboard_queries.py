"""A real Prometheus answers every query of the dashboards and rules."""

import asyncio
import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc import StatusCode
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from statekeep import AsyncClient, DataLoss, StatekeepError
from statekeep.v1 import agent_state_service_pb2 as pb
from statekeep.v1 import agent_state_service_pb2_grpc
from tests.support.cli_server import cli_server
from tests.support.made_up_exporter import made_up_exporter
from tests.support.project import ROOT
from tests.support.promql import unfiltered
from tests.support.wire import save_request
from tools.private_prometheus import Prometheus, private_prometheus

RULES = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yaml"))
BOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
EVALUATIONS = 4
"""Enough for a rate, and for what one rule takes from another."""
BATCH = 200
"""Saves of a batch: five of them are more than a server holds."""
ROUNDS = 4
"""Of trouble: what is counted for the first time has no rate yet, and machines are slow."""
WINDOW = "2m"
"""Of the rates that panels show: longer than all troubles of a test take together."""
TROUBLES = (
    "StatekeepFallbacks",
    "StatekeepCircuitOpen",
    "StatekeepSavesFail",
    "StatekeepOverloaded",
    "StatekeepStateCorrupt",
)
"""Alerts for what is done to a loaded server."""

pytestmark = [
    pytest.mark.skipif(
        shutil.which("prometheus") is None,
        reason="prometheus is missing (Debian's package has that name)",
    ),
    pytest.mark.timeout(300),  # a Prometheus starts, and is scraped for some seconds
]


def read(path: Any) -> Any:
    """Read a file of rules."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rules() -> Iterator[tuple[str, str]]:
    """List what the rules ask, by name."""
    for path in RULES:
        for group in read(path)["groups"]:
            for rule in group["rules"]:
                yield rule.get("alert") or rule["record"], rule["expr"]


def panels() -> Iterator[tuple[str, str]]:
    """List what the panels ask, by dashboard and title, as Grafana would fill them in."""
    for path in BOARDS:
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel.get("targets", ()):
                query = target["expr"].replace("$__rate_interval", WINDOW)
                query = query.replace('"$job"', '".+"').replace('"$instance"', '".+"')
                yield f"{path.stem}: {panel['title']} {target['refId']}", query


def unanswered(prometheus: Prometheus) -> list[str]:
    """Name what has no answer. The comparisons of rules answer with 0 or 1 here.

    Those of panels only leave out a share of nothing, and there is something here.
    """
    empty = [name for name, query in panels() if not prometheus.now(query)]
    empty += [name for name, query in rules() if not prometheus.now(unfiltered(query))]
    return empty


def wait_for_rules(prometheus: Prometheus) -> None:
    """Wait for the slowest to come: what is worked out from what was worked out."""
    slowest = "count_over_time(job:statekeep_skips:ratio_rate1d[5m])"
    prometheus.wait_for(
        slowest, lambda found: bool(found) and found[0].points[-1][1] >= EVALUATIONS
    )


@pytest.fixture(scope="module")
def made_up() -> Iterator[Prometheus]:
    """A Prometheus that has scraped a server that does everything, with the rules at work."""
    with (
        made_up_exporter() as target,
        private_prometheus([target], rules=RULES, interval_s=0.5) as prometheus,
    ):
        wait_for_rules(prometheus)
        yield prometheus


def test_every_query_has_an_answer_where_everything_happens(made_up: Prometheus) -> None:
    assert len(list(panels())) > 60
    # Its corrupt loads are not new, and were there a moment ago.
    assert set(unanswered(made_up)) <= {"StatekeepStateCorrupt"}


def test_rules_that_should_fire_do(made_up: Prometheus) -> None:
    # The made-up server has tripped, and its circuit is open.
    made_up.wait_for('ALERTS{alertname="StatekeepTripped", alertstate="firing"}', bool)


def test_a_query_for_what_is_not_there_has_none(made_up: Prometheus) -> None:
    assert not made_up.now("statekeep_no_such_thing_total")


async def agent(client: AsyncClient, run: str) -> None:
    """Save what changed and what did not, load, and be refused, for as long as it may."""
    for step in range(1_000_000):
        with suppress(StatekeepError):
            for again in range(2):
                await client.save(run, {"step": step, "timestamp": again}, checkpoint_type="AUTO")
            await client.load(run)
            await client.save(run, {"step": step}, expected_version=0)


async def trouble(target: str, database: AsyncEngine) -> None:
    """Give a server more saves than it takes, before a database that lets nobody write.

    Its optimized path gives up soon, standard later, and some saves are not even let in.
    """
    async with grpc.aio.insecure_channel(target) as channel, database.connect() as holding:
        stub: Any = agent_state_service_pb2_grpc.AgentStateServiceStub(channel)
        await holding.exec_driver_sql("lock table heads in exclusive mode")
        batches = [
            stub.BatchSaveAgentStates(
                pb.BatchSaveAgentStatesRequest(
                    saves=[save_request(run_id=f"held-{n}-{m}") for m in range(BATCH)]
                )
            )
            for n in range(4)
        ]
        saves = [stub.SaveAgentState(save_request(run_id=f"alone-{n}")) for n in range(BATCH)]
        answers: list[Any] = await asyncio.gather(*saves, return_exceptions=True)
        codes = {answer.code() for answer in answers}
        assert codes <= {StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED}
        await holding.rollback()
        await asyncio.gather(*batches, return_exceptions=True)


async def damage(client: AsyncClient, database: AsyncEngine) -> None:
    """Find a stored state that is not what was saved."""
    for step in (1, 2):
        await client.save("damaged", {"step": step})
    async with database.begin() as connection:
        await connection.exec_driver_sql(
            "update snapshots set state_bytes = 7 where run_id = 'damaged'"
        )
    with pytest.raises(DataLoss):
        await client.load("damaged", version=1)


def alerted(prometheus: Prometheus) -> set[str]:
    """List the alerts that had a reason, whether or not for long enough to be sent."""
    found = prometheus.now(f"max_over_time(ALERTS[{WINDOW}])")
    return {series.labels["alertname"] for series in found}


def stand_ins(prometheus: Prometheus) -> list[str]:
    """Name the panels that show a "none" instead of the reasons of troubles."""
    return [
        name
        for name, query in panels()
        if '"reason", "none"' in query
        and {series.labels["reason"] for series in prometheus.now(query)} <= {"none"}
    ]


def free_port() -> int:
    """Find a port for the metrics: a server does not say which it chose."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.mark.postgresql
async def test_every_query_has_an_answer_from_a_loaded_server(
    tmp_path: Path, postgresql_url: str
) -> None:
    port = free_port()
    database = create_async_engine(postgresql_url)
    async with cli_server(
        tmp_path,
        "--metrics-port",
        str(port),
        database_url=postgresql_url,
        ENABLE_OPTIMIZED_PERSISTENCE="true",
    ) as server:
        scraped = private_prometheus([f"127.0.0.1:{port}"], rules=RULES, interval_s=0.5)
        with scraped as prometheus:
            async with AsyncClient(server.target) as client:
                agents = [asyncio.create_task(agent(client, f"run-{n}")) for n in range(4)]
                await asyncio.to_thread(wait_for_rules, prometheus)
                await damage(client, database)
                missing = set(TROUBLES)
                for _ in range(ROUNDS):
                    await trouble(server.target, database)
                    missing -= await asyncio.to_thread(alerted, prometheus)
                    if not missing:
                        break
                empty = await asyncio.to_thread(unanswered, prometheus)
                empty += await asyncio.to_thread(stand_ins, prometheus)
                # It was scraped meanwhile: its page is no call like others.
                seen = f"max_over_time(statekeep_saves_under_way[{WINDOW}])"
                (most,) = await asyncio.to_thread(prometheus.now, seen)
                for one in agents:
                    one.cancel()
                ended = await asyncio.gather(*agents, return_exceptions=True)
    await database.dispose()
    assert all(isinstance(end, asyncio.CancelledError) for end in ended)
    assert not missing
    assert not empty
    assert most.points[-1][1] > 3 * BATCH
