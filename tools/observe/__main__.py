"""Start everything, let agents work, show one save's trace and the KPIs, and stay up or exit."""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from statekeep_server.bench.server_process import ServerDidNotStart
from tools.observe.agents import Agents
from tools.observe.processes import Failed, together, until
from tools.observe.prometheus import find_prometheus
from tools.observe.shared_commit import Traces, Trail, best_trail
from tools.observe.spans import draw
from tools.observe.stage import Programs, Stage, loud, stage, telemetry, tell

LOOKED_AT = 40
"""Saves whose traces are looked at, newest last; any of them will do."""
ARRIVAL_TIMEOUT_S = 30.0
"""Many times what a trace or a scrape takes to arrive."""


def main() -> int:
    """Run `make observe`."""
    parser = argparse.ArgumentParser(prog="make observe", description=__doc__)
    parser.add_argument("--jaeger", type=Path, help="the Jaeger that was built")
    parser.add_argument("--go-agent", type=Path, help="the Go agent that was built")
    parser.add_argument("--once", action="store_true", help="exit instead of staying up")
    given = parser.parse_args()
    if given.jaeger is not None and given.go_agent is None:
        parser.error(
            "--jaeger needs --go-agent: the agents in Go name the traces to ask Jaeger for"
        )
    programs = Programs(given.jaeger, given.go_agent, find_prometheus())
    try:
        asyncio.run(observe(programs, once=given.once))
    except (Failed, ServerDidNotStart) as error:
        print(f"make observe: {error}", file=sys.stderr)
        return 1
    return 0


async def observe(programs: Programs, *, once: bool) -> None:
    """Show what there is to see; Ctrl-C and SIGTERM end it at any time, and all that it started.

    Raises:
        Failed: A program ended too early, or the trace did not arrive.
        ServerDidNotStart: The server ended before it served.
    """
    ours = asyncio.current_task()
    assert ours is not None  # noqa: S101  # a coroutine runs in a task

    def stop() -> None:
        if not ours.cancelling():  # once: what stops the programs is not to be stopped
            ours.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        with tempfile.TemporaryDirectory(prefix="statekeep-observe-") as name:
            async with stage(programs, Path(name)) as running:
                agents = Agents(running.target, Path(name))
                await _show(programs, running, agents)
                if not once:
                    print("\nAgents work on, and everything stays up, until Ctrl-C.", flush=True)
                    await _work_on(programs, running, agents)
    except asyncio.CancelledError:
        print("\nStopped.")


async def _show(programs: Programs, on: Stage, agents: Agents) -> None:
    """Let agents work, and print what they did: a trace, the KPIs, the addresses."""
    trace_ids = await _first_work(programs, on, agents)
    trail = await _wait_for_trail(on.traces, trace_ids)
    print(f"\nOne save, from its agent to the commit that it shared ({on.traces.kind}):\n")
    away = ", in the trace of the first of them" if trail.away else ""
    shared = {trail.commit.span_id: f"<- shared by {trail.saves} saves{away}"}
    print("\n".join(draw(trail.spans, notes=shared)), flush=True)
    print(flush=True)
    await _statekeep("stats", "--target", on.target)
    if on.prometheus is not None:
        saves = await until(
            "Prometheus has the server's saves",
            on.prometheus.saves,
            within_s=ARRIVAL_TIMEOUT_S,
        )
        print(f"\nPrometheus has counted {saves:.0f} saves so far.")
    print("\nAddresses:")
    for name, address in _addresses(on, trail.spans[0].trace_id):
        print(f"  {name:<11} {address}", flush=True)


async def _first_work(programs: Programs, on: Stage, agents: Agents) -> Callable[[], Iterable[str]]:
    """Let agents work; return what names the traces of their saves."""
    variables = _variables(on, "demo-agent")
    if programs.go_agent is None:
        loud("The Go agent is not built, for want of Go: only the demo's agents work")
        await agents.of_the_demo(variables, agents=4, steps=60)
        return on.traces.trace_ids
    tell("The demo's agent and eight agents in Go work ...")
    _, saves = await together(
        agents.of_the_demo(variables, agents=1, steps=60),
        agents.in_go(
            programs.go_agent, _variables(on, "go-agent"), agents=8, steps=20, pause="20ms"
        ),
    )
    persisted = [save.trace_id for save in saves if save.outcome == "PERSISTED"]
    return lambda: persisted[-LOOKED_AT:]


async def _wait_for_trail(traces: Traces, trace_ids: Callable[[], Iterable[str]]) -> Trail:
    """Wait until the spans of a save have arrived, of one with a shared commit if there is one.

    Raises:
        Failed: None arrived from end to end.
    """

    async def shared() -> Trail | None:
        trail = await best_trail(traces, trace_ids())
        return trail if trail and trail.saves > 1 else None

    try:
        return await until("a trace arrives", shared, within_s=ARRIVAL_TIMEOUT_S)
    except Failed:
        trail = await best_trail(traces, trace_ids())
        if trail is None:
            raise
        return trail


async def _work_on(programs: Programs, on: Stage, agents: Agents) -> None:
    """Let slow agents work until cancelled, so that the pages have something to show."""
    while True:
        if programs.go_agent is None:
            await agents.of_the_demo(_variables(on, "demo-agent"), agents=1, steps=240)
        else:
            await agents.in_go(
                programs.go_agent, _variables(on, "go-agent"), agents=8, steps=60, pause="500ms"
            )


async def _statekeep(*arguments: str) -> None:
    """Run a command of ours, whose output goes where ours goes."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "statekeep_server", *arguments
    )
    await process.wait()


def _addresses(on: Stage, trace_id: str) -> Iterator[tuple[str, str]]:
    yield "server", on.target
    yield "metrics", on.metrics
    yield "traces", on.traces.page
    yield "this trace", on.traces.address(trace_id)
    if on.prometheus is not None:
        yield "Prometheus", on.prometheus.page


def _variables(on: Stage, service: str) -> dict[str, str]:
    return os.environ | telemetry(on.traces.endpoint, service)


if __name__ == "__main__":
    sys.exit(main())
