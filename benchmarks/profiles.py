"""A server under each kind of load, seen by py-spy: where its time goes."""

import asyncio
from pathlib import Path
from typing import Any

from benchmarks.bench import LOAD, Bench, say
from benchmarks.processes import Server
from benchmarks.profiling import record, render_profile, render_threads, thread_times_s

CONCURRENCY = 64
PROFILE_S = 6.0
LEAD_S = 0.5
"""Until the load stands."""


async def profile(bench: Bench, folder: Path) -> None:
    """Write `profile.md` and a flame graph for each load."""
    parts = ["# Where the time of a server goes", ""]
    async with (
        bench.statekeep("profile_optimized", optimized=True) as optimized,
        bench.statekeep("profile_standard", optimized=False) as standard,
    ):
        await bench.send(optimized, kind="prepare", concurrency=16, prefix="kept", runs=1_024)
        for title, name, server, spec in (
            ("Durable saves, optimized path", "save", optimized, {"kind": "save"}),
            ("Skipped saves", "skip", optimized, {"kind": "skip", "prefix": "kept"}),
            ("Loads", "load", optimized, {"kind": "load", "prefix": "kept", "path": LOAD}),
            ("Durable saves, standard path", "standard", standard, {"kind": "save"}),
        ):
            say(f"profile: {title.lower()}")
            text = await _profile_one(bench, folder, title, name, server, spec)
            if text is None:
                say("py-spy may not look into other processes here: no profile")
                return
            parts.append(text)
    (folder / "profile.md").write_text("\n".join(parts))


async def _profile_one(
    bench: Bench, folder: Path, title: str, name: str, server: Server, spec: dict[str, Any]
) -> str | None:
    defaults = {"prefix": f"profile-{name}", "concurrency": CONCURRENCY}
    before = thread_times_s(server.pid)
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(
            bench.send(server, **(defaults | spec), duration_s=PROFILE_S + 2 * LEAD_S)
        )
        await asyncio.sleep(LEAD_S)
        profile = await record(server.pid, bench.folder / name, duration_s=PROFILE_S)
    if profile is None:
        return None
    answer = sending.result()
    rate = answer["answered"] / answer["elapsed_s"]
    picture = folder / f"profile-{name}.svg"
    picture.write_text(profile.flame_graph(title=f"{title}, {CONCURRENCY} concurrent"))
    heading = f"{title}, {CONCURRENCY} concurrent, {rate:,.0f} a second while it was watched"
    threads = render_threads(before, thread_times_s(server.pid), answer["total"])
    return f"{render_profile(profile, title=heading)}\n{threads}"
