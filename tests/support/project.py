"""The project as files and programs: where things stand, and how the house's tools are run."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVER = ROOT / "server" / "statekeep_server"
CLIENT = ROOT / "client" / "python" / "statekeep"
GENERATED = CLIENT / "v1"
BIN = Path(sys.executable).parent
TOOLS = ROOT / ".venv-tools" / "bin"

_FOLDERS = (
    *(".ci", "benchmarks", "client", "deploy", "docs", "examples", "load", "protos", "server"),
    "tests",
    "tools",
)
_NEVER = {"__pycache__", "node_modules"}


def project_files(*suffixes: str) -> list[Path]:
    """List the project's own files, those with one of the suffixes if any are given.

    Walks the known folders instead of asking git, so that an unpacked archive can be tested too.
    """
    found = [path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith(".cov")]
    # In a worktree .git is a file, and names a folder of the machine.
    found = [path for path in found if path.name != ".git"]
    for folder in filter(Path.exists, (ROOT / name for name in _FOLDERS)):
        found += _walk(folder)
    return sorted(path for path in found if not suffixes or path.suffix in suffixes)


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir():
            if path.name not in _NEVER and not path.name.endswith(".egg-info"):
                yield from _walk(path)
        else:
            yield path


def python_files(*, generated: bool = False) -> list[Path]:
    """List the Python files that people write."""
    return [
        path
        for path in project_files(".py")
        if generated or (GENERATED not in path.parents and not path.name.startswith("_sync_"))
    ]


def relative(path: Path) -> str:
    """Name a file as the project does."""
    return path.relative_to(ROOT).as_posix()


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a tool of the house in the project's folder and return what it said."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
    }
    return subprocess.run(  # the tools are the project's own
        [str(part) for part in command],
        cwd=ROOT,
        env=environment | {"BUF_CACHE_DIR": str(ROOT / "build" / "buf")},
        capture_output=True,
        text=True,
        check=False,
    )


def must_pass(*command: str | Path) -> None:
    """Run a tool and fail with the beginning of its output unless it passes."""
    done = run(*command)
    said = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 0, "\n".join([f"{command[0]} failed:", *said[:40]])
