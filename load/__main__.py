"""`python -m load`: load a server of its own with ghz, compare it with a bare echo, and report.

Exit codes: 0 all went well; 1 a call failed, a count does not agree or a program broke down; 2 a
file or option is wrong. (3, from `make load`, says that Go is missing.)
"""

import argparse
import asyncio
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from benchmarks.states import States, make_states
from load.dapr import APP_ID, DaprDidNotStart, dapr_sidecar
from load.ghz import ROOT, GhzFailed
from load.html import by_scenario, index_page, scenario_page
from load.page import Baseline, make_page
from load.plan import PLAN, Plan, PlanError, read_plan
from load.rounds import DAPR, ECHO, STATEKEEP, Rounds, Stage
from load.servers import (
    NO_POSTGRESQL,
    EchoDidNotStart,
    Postgresql,
    echo_server,
    postgresql,
    statekeep_server,
)
from load.summary import NoBaseline, against_dapr, for_bench, read_baseline, summarise, to_json
from statekeep import StatekeepError
from statekeep_server.bench.server_process import ServerDidNotStart
from statekeep_server.bench.trajectories import TrajectoryError

FAILED, WRONG_USAGE = 1, 2
BROKE_DOWN = (
    *NO_POSTGRESQL,
    ServerDidNotStart,
    EchoDidNotStart,
    DaprDidNotStart,
    GhzFailed,
    StatekeepError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a load run is made from."""

    ghz: Path
    daprd: Path | None
    plan: Plan
    states: States
    baseline: Baseline | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, report, and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        plan = read_plan(options.plan)
        inputs = Inputs(
            ghz=options.ghz.resolve(),
            daprd=options.daprd and options.daprd.resolve(),
            plan=plan,
            states=make_states(options.file, state_bytes=plan.state_bytes),
            baseline=read_baseline(options.baseline) if options.baseline else None,
        )
    except (PlanError, TrajectoryError, NoBaseline) as error:
        print(f"make load: {error}", file=sys.stderr)
        return WRONG_USAGE
    # Whoever ends us, the servers that we started end too.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with postgresql() as database_server, tempfile.TemporaryDirectory() as folder:
            rounds, about = asyncio.run(_measure(inputs, database_server, Path(folder)))
    except BROKE_DOWN as error:
        print(f"make load: {type(error).__name__}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("make load: stopped", file=sys.stderr)
        return FAILED
    _report(inputs, rounds, about, options.output)
    if options.results:
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_bytes(orjson.dumps(for_bench(rounds.measurements)))
    return FAILED if rounds.faults else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m load", description=__doc__)
    parser.add_argument("--ghz", type=Path, required=True, help="the program")
    parser.add_argument("--daprd", type=Path, help="measure this Dapr sidecar too")
    parser.add_argument("--file", type=Path, required=True, help="recorded conversations")
    parser.add_argument("--plan", type=Path, default=PLAN, help="how much to do")
    parser.add_argument("--baseline", type=Path, help="compare with this report")
    parser.add_argument("--output", type=Path, default=ROOT / "build/load", help="for the reports")
    parser.add_argument("--results", type=Path, help="leave the closed loop for `make bench` here")
    return parser


async def _measure(
    inputs: Inputs, database_server: Postgresql, folder: Path
) -> tuple[Rounds, dict[str, Any]]:
    """Start everybody and measure."""
    busy = os.getloadavg()[0]  # before anything of ours is busy
    async with AsyncExitStack() as stack:
        start = stack.enter_async_context
        dsn, dapr_dsn = [await start(database_server.database()) for _ in range(2)]
        targets = {
            STATEKEEP: await start(statekeep_server(folder, dsn=dsn)),
            ECHO: await start(echo_server()),
        }
        if inputs.daprd is not None:
            sidecar = dapr_sidecar(inputs.daprd, folder / DAPR, dsn=dapr_dsn)
            targets[DAPR] = await start(sidecar)

        async def dapr_keys(prefix: str) -> int:
            statement = "SELECT count(*) FROM state WHERE starts_with(key, $1)"
            begin = f"{APP_ID}||{prefix}-"
            rows = await database_server.query(statement, begin, dsn=dapr_dsn)
            return int(rows[0]["count"])

        rounds = Rounds(
            Stage(
                ghz=inputs.ghz,
                plan=inputs.plan,
                states=inputs.states,
                targets=targets,
                dapr_keys=dapr_keys,
                folder=folder,
                tell=lambda line: print(line, file=sys.stderr, flush=True),
            )
        )
        await rounds.run()
        (setting,) = await database_server.query("SHOW server_version")
    return rounds, {
        "version": version("statekeep-server"),
        "commit": _commit(),
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
        "load_average": round(busy, 2),
        "postgresql": setting["server_version"],
        "ghz": " ".join(_pinned("ghz")),
        **({"dapr": " ".join(_pinned("dapr"))} if inputs.daprd else {}),
        "plan": inputs.plan.to_json(),
    }


def _pinned(tool: str) -> tuple[str, str]:
    """The name and version of a Go tool, as its module pins it."""
    for line in (ROOT / "tools" / tool / "go.mod").read_text().splitlines():
        words = line.split()
        if words and words[0].endswith(f"/{tool}"):
            return tool, words[1]
    return tool, "of an unknown version"


def _commit() -> str:
    """The short name of the commit, marked where files differ from it."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    done = subprocess.run(
        [git, "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def _report(inputs: Inputs, rounds: Rounds, about: dict[str, Any], output: Path) -> None:
    """Write the reports, and print the page."""
    rows = summarise(rounds.measurements)
    versus = against_dapr(rounds.measurements)
    page = make_page(rows, versus, about=about, baseline=inputs.baseline, faults=rounds.faults)
    output.mkdir(parents=True, exist_ok=True)
    for name, mine in by_scenario(rows).items():
        file = output / name
        file.with_suffix(".html").write_text(scenario_page(name, mine, about=about))
        file.with_suffix(".json").write_bytes(
            orjson.dumps(to_json(mine, [], about=about, faults=[]), option=orjson.OPT_INDENT_2)
        )
    (output / "index.html").write_text(index_page(rows, page=page, faults=rounds.faults))
    report = to_json(rows, versus, about=about, faults=rounds.faults)
    (output / "report.json").write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    print(f"\n{page}\nReports: {_shown(output / 'index.html')} and report.json beside it")


def _shown(path: Path) -> str:
    """A path as a reader in the project's folder would type it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    sys.exit(main())
