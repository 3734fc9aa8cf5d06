"""A real PostgreSQL for tests: a private server, and fresh databases on it.

`STATEKEEP_TEST_POSTGRESQL_URL` names another server to use instead; its role must be allowed to
create databases.
"""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import URL, make_url

from statekeep_server.storage.migrate import migrate
from tools.private_postgresql import private_postgresql

EXTERNAL = "STATEKEEP_TEST_POSTGRESQL_URL"
TEMPLATE = "statekeep_template"
AS_USER = """
import subprocess, sys
sys.exit(subprocess.call(sys.argv[2:], user=sys.argv[1] or None))
"""


class Postgresql:
    """A running server."""

    def __init__(self, url: URL, server: Any = None) -> None:
        self.url = url.set(drivername="postgresql+asyncpg")
        self._server = server
        self._migrated = False

    def url_of(self, database: str) -> str:
        """The URL of one of its databases."""
        return self.url.set(database=database).render_as_string(hide_password=False)

    async def execute(self, statement: str, *, database: str | None = None) -> list[Any]:
        """Run one statement as the administrator."""
        url = self.url if database is None else self.url.set(database=database)
        dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
        connection = await asyncpg.connect(dsn)
        try:
            rows: list[Any] = await connection.fetch(statement)
        finally:
            await connection.close()
        return rows

    @asynccontextmanager
    async def database(self, *, migrated: bool = True) -> AsyncIterator[str]:
        """Create a database for the time of the context; yield its URL."""
        name = f"test_{uuid.uuid4().hex}"
        template = await self._template() if migrated else "template0"
        await self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url_of(name)
        finally:
            await self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def _template(self) -> str:
        """Migrate once, copy often."""
        name = f"{TEMPLATE}_{os.getpid()}"
        if not self._migrated:
            await self.execute(f"DROP DATABASE IF EXISTS {name}")
            await self.execute(f"CREATE DATABASE {name} TEMPLATE template0")
            await migrate(self.url_of(name))
            self._migrated = True
        return name

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server: "immediate" is a crash, "fast" breaks off what runs."""
        self._control("stop", "-m", mode)

    def start(self) -> None:
        """Start the server again, where it was."""
        options = f'-h "" -k {self.url.query["host"]}'
        log = str(self._server.pgdata / "log")
        self._control("start", "-w", "-o", options, "-l", log)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all its processes where they are, as a disk that hangs would, until the end."""
        main = int((self._server.pgdata / "postmaster.pid").read_text().split()[0])
        stopped = [main]
        os.kill(main, signal.SIGSTOP)  # first: it then starts no others
        try:
            for children in Path(f"/proc/{main}/task").glob("*/children"):
                for process_id in map(int, children.read_text().split()):
                    os.kill(process_id, signal.SIGSTOP)
                    stopped.append(process_id)
            yield
        finally:
            for process_id in stopped:
                with suppress(ProcessLookupError):
                    os.kill(process_id, signal.SIGCONT)

    def _control(self, *arguments: str) -> None:
        server = self._server
        command = [server.bin_path / "pg_ctl", "-D", server.pgdata, *arguments]
        # Changing the user means a fork, which the threads of gRPC in this process do not survive:
        # a process without any does it.
        subprocess.run(
            [sys.executable, "-c", AS_USER, server.system_user or "", *command],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )


@contextmanager
def run_postgresql() -> Iterator[Postgresql]:
    """Start a server of its own, for tests that stop it or change its settings."""
    with private_postgresql() as server:
        yield Postgresql(make_url(server.get_uri()), server)


@contextmanager
def postgresql_for_session() -> Iterator[Postgresql]:
    """The server of this test process.

    Where none can be started, its tests are skipped by name; with CI set they fail instead.
    """
    external = os.environ.get(EXTERNAL)
    if external:
        yield Postgresql(make_url(external))
        return
    started = run_postgresql()
    try:
        server = started.__enter__()
    except (ImportError, OSError, subprocess.SubprocessError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"PostgreSQL cannot be started here: {type(error).__name__}: {error}")
    try:
        yield server
    finally:
        started.__exit__(None, None, None)
