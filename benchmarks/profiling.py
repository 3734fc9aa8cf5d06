"""Where a server's time goes: py-spy's samples as a table by subsystem and by function.

A sample is a look at the thread that holds the interpreter's lock. It belongs to the subsystem of
its innermost frame that one is known for. Code without Python frames of its own (uvloop, Cython)
counts for the frame that called it: what has nothing above the event loop is "gRPC and event loop".
Work without the lock (the C core of gRPC, compression) has no samples: the processor time of each
thread, which the system counts, shows it.
"""

import asyncio
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.flames import draw

RATE_HZ = 250

POLLER = "_poll_wrapper"
"""In the name of the thread in which gRPC's C core waits for the network, and works for it."""
LOOP = "gRPC and event loop"
SUBSYSTEMS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        ("asyncpg driver", r"(^|/)asyncpg/"),
        ("SQLAlchemy", r"(^|/)sqlalchemy/"),
        ("SQLite driver", r"(^|/)aiosqlite/"),
        ("compression", r"zstd"),
        ("our domain (canonical form, differ, audit)", r"statekeep_server/domain/"),
        ("our storage", r"statekeep_server/storage/"),
        ("our group commit", r"statekeep_server/batching/"),
        ("our service, paths and cache", r"statekeep_server/(service|paths|cache|flags|config)"),
        ("our transport", r"statekeep_server/transport/"),
        ("telemetry", r"statekeep_server/telemetry/|opentelemetry/"),
        ("protobuf", r"google/protobuf|_pb2"),
        (LOOP, r"(^|/)(grpc|asyncio|uvloop)/|cygrpc"),
    )
)

FRAME = re.compile(r"^(?P<function>.*) \((?P<file>.*?)(?::\d+)?\)$")


@dataclass(frozen=True, slots=True)
class Profile:
    """Counted samples.

    Attributes:
        samples: All that were taken while the process was busy.
        by_subsystem: Samples by the subsystem of their innermost known frame, largest first.
        by_function: Samples by their innermost frame, `function (file)`, largest first.
        inclusive: Samples in which one of our functions occurs at all, largest first.
        stacks: Samples by all their frames, from the outside in.
    """

    samples: int
    by_subsystem: Mapping[str, int]
    by_function: Mapping[str, int]
    inclusive: Mapping[str, int]
    stacks: Mapping[tuple[str, ...], int]

    def flame_graph(self, *, title: str) -> str:
        """The stacks as an SVG: wide is often, the caller below the called."""
        return draw(self.stacks, title=title)


def read_profile(lines: Iterable[str]) -> Profile:
    """Count samples in py-spy's raw format: frames from the outside in with `;`, then a number."""
    subsystems: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    inclusive: Counter[str] = Counter()
    stacks: Counter[tuple[str, ...]] = Counter()
    for line in lines:
        stack, _, number = line.rstrip().rpartition(" ")
        if not number.isdigit():
            continue
        count = int(number)
        frames = [_without_line(frame) for frame in stack.split(";")]
        subsystems[_subsystem(frames)] += count
        functions[frames[-1]] += count
        stacks[tuple(frames)] += count
        for frame in {frame for frame in frames if "statekeep_server/" in frame}:
            inclusive[frame] += count
    return Profile(
        sum(subsystems.values()),
        dict(subsystems.most_common()),
        dict(functions.most_common()),
        dict(inclusive.most_common()),
        dict(stacks),
    )


def _without_line(frame: str) -> str:
    found = FRAME.match(frame)
    return f"{found['function']} ({found['file']})" if found else frame


def _subsystem(frames: list[str]) -> str:
    if any(POLLER in frame for frame in frames[:3]):
        return "gRPC's polling thread"
    for frame in reversed(frames):
        for name, pattern in SUBSYSTEMS:
            if pattern.search(frame.rpartition("(")[2]):
                return name
    return "other"


def thread_times_s(pid: int) -> dict[str, float]:
    """Processor time by the names of a process's threads; the first thread is `main`."""
    times: Counter[str] = Counter()
    for thread in psutil.Process(pid).threads():
        try:
            name = Path(f"/proc/{pid}/task/{thread.id}/comm").read_text().strip()
        except OSError:  # it has ended, or this is no Linux
            name = "other"
        known = "main" if thread.id == pid else name
        times[known] += thread.user_time + thread.system_time
    return dict(times)


def render_threads(before: Mapping[str, float], after: Mapping[str, float], calls: int) -> str:
    """The processor time of each kind of thread, a call, as a Markdown table."""
    spent = {name: after[name] - before.get(name, 0.0) for name in after}
    lines = ["| thread | processor µs a call |", "|---|---:|"]
    lines += [
        f"| {name} | {1e6 * seconds / max(1, calls):.0f} |"
        for name, seconds in sorted(spent.items(), key=lambda item: -item[1])
        if seconds > 0
    ]
    return "\n".join([*lines, ""])


def render_profile(profile: Profile, *, title: str, functions: int = 25) -> str:
    """The profile as Markdown tables."""
    lines = [f"## {title}", "", f"{profile.samples:,} samples with the interpreter's lock.", ""]
    for heading, counts, rows in (
        ("subsystem", profile.by_subsystem, len(profile.by_subsystem)),
        ("innermost function", profile.by_function, functions),
        ("our function with all it calls", profile.inclusive, functions),
    ):
        lines += [f"| {heading} | share |", "|---|---:|"]
        lines += [
            f"| {_escaped(name)} | {100 * count / max(1, profile.samples):.1f} % |"
            for name, count in list(counts.items())[:rows]
        ]
        lines.append("")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


async def record(pid: int, raw: Path, *, duration_s: float) -> Profile | None:
    """Sample a process; None where py-spy is missing or may not look into other processes.

    Only threads that hold the interpreter's lock are counted: it cannot tell those that wait from
    those that work in C.
    """
    program = Path(sys.executable).with_name("py-spy")
    if not program.exists():
        return None
    process = await asyncio.create_subprocess_exec(
        str(program),
        "record",
        *("--rate", str(RATE_HZ), "--duration", str(max(1, round(duration_s)))),
        *("--gil", "--threads", "--format", "raw", "--output", str(raw), "--pid", str(pid)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await process.wait()
    return await asyncio.to_thread(_read, raw)


def _read(raw: Path) -> Profile | None:
    return read_profile(raw.read_text().splitlines()) if raw.exists() else None
