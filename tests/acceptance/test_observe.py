"""`make observe`, and the trace of a Go agent's save in a receiver of ours and in a real Jaeger."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.cli_server import cli_server
from tests.support.making import built_with_go
from tests.support.project import ROOT
from tools.observe.agents import Agents
from tools.observe.jaeger import jaeger
from tools.observe.processes import until
from tools.observe.receiver import receiver
from tools.observe.shared_commit import Traces, Trail, best_trail
from tools.observe.stage import telemetry

WAY = [
    ("go-agent", "agent.save"),
    ("go-agent", "statekeep.v1.AgentStateService/SaveAgentState"),
    ("statekeep", "statekeep.v1.AgentStateService/SaveAgentState"),
    ("statekeep", "statekeep.save"),
    ("statekeep", "statekeep.store"),
    ("statekeep", "statekeep.commit"),
]
"""A save from its agent to its commit."""


@asynccontextmanager
async def traces_in(kind: str, folder: Path) -> AsyncIterator[Traces]:
    if kind == "jaeger":
        async with jaeger(built_with_go("jaeger", in_ci=False), folder) as real:
            yield real
    else:
        async with receiver() as ours:
            yield ours


@pytest.mark.timeout(900)  # the first build of the agent, in CI
@pytest.mark.parametrize("kind", ["receiver", "jaeger"])
async def test_the_trace_of_a_go_agents_save_goes_down_to_its_commit(
    kind: str, tmp_path: Path
) -> None:
    program = built_with_go("go-agent")
    url = f"sqlite+aiosqlite:///{tmp_path}/statekeep.db"
    async with (
        traces_in(kind, tmp_path) as traces,
        cli_server(
            tmp_path,
            database_url=url,
            ENABLE_OPTIMIZED_PERSISTENCE="true",
            **telemetry(traces.endpoint, "statekeep"),
        ) as server,
    ):
        saves = await Agents(server.target, tmp_path).in_go(
            program, os.environ | telemetry(traces.endpoint, "go-agent"),
            agents=6, steps=3, pause="1ms",
        )  # fmt: skip
        persisted = [save for save in saves if save.outcome == "PERSISTED"]
        assert len(persisted) == 12

        async def arrived() -> Trail | None:
            trail = await best_trail(traces, [save.trace_id for save in persisted])
            return trail if trail and not trail.away else None

        trail = await until("the trace", arrived, within_s=60)
    spans = {span.span_id: span for span in trail.spans}
    way, step = [], trail.commit
    while True:
        way.append((step.service, step.name))
        if not step.parent_id:
            break
        step = spans[step.parent_id]
    assert way[::-1] == WAY
    assert {span.trace_id for span in trail.spans} <= {save.trace_id for save in persisted}
    assert (trail.commit.trace_id, trail.commit.parent_id) in trail.commit.links


@pytest.mark.postgresql
@pytest.mark.usefixtures("postgresql_url")
@pytest.mark.timeout(300)  # it starts a database, a server and agents, on a machine that tests
async def test_make_observe_shows_a_save_and_stops_all_that_it_started(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tools.observe"),
        cwd=ROOT,
        env=os.environ | {"PATH": str(tmp_path)},  # no Prometheus
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    said = ""
    while "until Ctrl-C" not in said:
        line = await process.stdout.readline()
        assert line, (said, await process.communicate())
        said += line.decode()
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGINT)
    more, errors = await process.communicate()

    assert process.returncode == 0, errors
    assert more.endswith(b"Stopped.\n")
    assert not psutil.wait_procs(children, timeout=10)[1]
    assert re.search(r"ms  statekeep +statekeep\.commit +<- shared by \d+ saves", said)
    assert "skipped %" in said
    assert re.search(r"server +127\.0\.0\.1:\d+\n", said)
    for missing in (b"Jaeger is not built", b"The Go agent is not built", b"Prometheus is missing"):
        assert b"*** " + missing in errors
