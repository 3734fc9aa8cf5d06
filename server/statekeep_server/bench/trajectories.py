"""Recorded conversations of agents: a gzip file with one JSON object a line.

{"trajectory_id": unique text, "reward": number, "messages": [{"role": …, "content": …, …}, …]}
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MAX_LINE_BYTES = 64 * 1024 * 1024
"""A trajectory larger than this is no conversation, and a small file can unpack to anything."""
ROLES = frozenset({"system", "user", "assistant", "tool"})


class TrajectoryError(ValueError):
    """A file does not hold trajectories; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One recorded conversation."""

    trajectory_id: str
    reward: float
    messages: tuple[dict[str, Any], ...]


def read_trajectories(path: Path, *, limit: int | None = None) -> tuple[Trajectory, ...]:
    """Read up to `limit` trajectories.

    Raises TrajectoryError where the file or a line of it is not as it should be.
    """
    try:
        with gzip.GzipFile(path, "rb") as file:
            found = tuple(_parse_lines(path, file, limit))
    except (OSError, EOFError, zlib.error) as error:
        # gzip's own errors do not name the file.
        problem = (error.strerror if isinstance(error, OSError) else None) or error
        raise TrajectoryError(f"cannot read {path}: {problem}") from error
    if not found:
        raise TrajectoryError(f"{path} holds no trajectory")
    return found


def write_trajectories(path: Path, trajectories: Iterable[Trajectory]) -> int:
    """Write a file, the same bytes for the same trajectories; return how many.

    The file appears under its name when it is complete. Raises OSError.
    """
    unfinished = path.with_name(f"{path.name}.part")
    count = 0
    try:
        with (
            unfinished.open("wb") as plain,
            gzip.GzipFile(filename="", mode="wb", fileobj=plain, mtime=0) as file,
        ):
            for trajectory in trajectories:
                line = json.dumps(asdict(trajectory), ensure_ascii=False, separators=(",", ":"))
                file.write(line.encode() + b"\n")
                count += 1
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def _parse_lines(path: Path, file: gzip.GzipFile, limit: int | None) -> Iterator[Trajectory]:
    seen: set[str] = set()
    number = 0
    while limit is None or len(seen) < limit:
        number += 1
        line = file.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        where = f"{path}, line {number}"
        if len(line) > MAX_LINE_BYTES:
            raise TrajectoryError(f"{where}: longer than {MAX_LINE_BYTES} bytes")
        if not line.strip():
            continue
        trajectory = _parse(line, where)
        if trajectory.trajectory_id in seen:
            raise TrajectoryError(
                f"{where}: trajectory_id {trajectory.trajectory_id!r} comes twice"
            )
        seen.add(trajectory.trajectory_id)
        yield trajectory


def _parse(line: bytes, where: str) -> Trajectory:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TrajectoryError(f"{where}: not JSON: {error}") from error
    if not isinstance(entry, dict):
        raise TrajectoryError(f"{where}: not a JSON object")
    for name, kinds, wanted in (
        ("trajectory_id", (str,), "a text"),
        ("reward", (int, float), "a number"),
        ("messages", (list,), "a list"),
    ):
        if name not in entry:
            raise TrajectoryError(f"{where}: {name} is missing")
        if not isinstance(entry[name], kinds) or isinstance(entry[name], bool):
            raise TrajectoryError(f"{where}: {name} is not {wanted}")
    if not entry["trajectory_id"]:
        raise TrajectoryError(f"{where}: trajectory_id is empty")
    for index, message in enumerate(entry["messages"]):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ROLES:
            raise TrajectoryError(
                f"{where}: messages[{index}] has no role of {', '.join(sorted(ROLES))}"
            )
    return Trajectory(
        trajectory_id=entry["trajectory_id"],
        reward=float(entry["reward"]),
        messages=tuple(entry["messages"]),
    )
