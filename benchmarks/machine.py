"""What was measured where: the machine, the commit and the versions, without any path or name."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = (
    "statekeep-server",
    "grpcio",
    "protobuf",
    "uvloop",
    "orjson",
    "sqlalchemy",
    "asyncpg",
    "aiosqlite",
    "zstandard",
    "langgraph-checkpoint",
    "langgraph-checkpoint-postgres",
    "langgraph-checkpoint-sqlite",
    "psycopg",
)
GIB = 1024**3


def describe_machine() -> dict[str, Any]:
    """The processor, memory, kernel and load before the run."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / GIB, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def describe_versions() -> dict[str, str]:
    """Python's version and those of the packages that matter, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe_commit(root: Path) -> str:
    """The commit that was measured, marked if the tree has changes; empty outside of git."""
    try:
        return subprocess.run(
            ("git", "describe", "--always", "--dirty", "--abbrev=12"),
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
