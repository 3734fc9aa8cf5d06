"""Behind a real PgBouncer in transaction mode; skipped where the program is not installed."""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from statekeep_server.config import PoolSettings
from statekeep_server.domain.errors import CommitUnknown, StorageUnavailable
from statekeep_server.domain.model import Newest, RunKey, SaveResult
from statekeep_server.service.ports import Probe
from statekeep_server.storage.sql_store import SqlStateStore
from tests.support.stores import a_store, an_append, new_key

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

pytestmark = [
    pytest.mark.postgresql,
    pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed here"),
]

CONFIGURATION = """
[databases]
{database} = host={host} dbname={database} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = any
pool_mode = transaction
default_pool_size = 3
min_pool_size = 3
max_client_conn = 100
unix_socket_dir =
logfile = {folder}/log
pidfile = {folder}/pid
"""


@pytest.fixture
async def pooled_url(
    postgresql_url: str,
) -> AsyncIterator[str]:
    """The database behind PgBouncer, which shares three sessions among all clients."""
    url = make_url(postgresql_url)
    host = url.query.get("host")
    if host is None:
        pytest.skip("the external server is not on a socket")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # PgBouncer does not run as root, and must reach its files as somebody else.
    folder = Path(tempfile.mkdtemp(prefix="statekeep-pgbouncer-"))
    folder.chmod(0o777)
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(
        CONFIGURATION.format(database=url.database, host=host, port=port, folder=folder)
    )
    # Only the server's own user reaches its socket.
    user = ["-u", Path(str(host)).owner()] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [str(PGBOUNCER), *user, str(configuration)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await listening(port, process)
        yield (
            f"postgresql://postgres@127.0.0.1:{port}/{url.database}"
            "?sslmode=disable&prepared_statement_cache_size=0"
        )
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


async def listening(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return
    pytest.fail(f"PgBouncer ended with {process.returncode}")


async def work(store: SqlStateStore, key: RunKey, saves: int) -> None:
    for n in range(saves):
        append = an_append(key, b'{"n": %d}' % n)
        (answer,) = await store.append_many([append])
        assert isinstance(answer, SaveResult)
        (standing,) = await store.barrier([Probe(key, append.save.command.request_id)])
        assert standing.earlier is not None
        assert standing.earlier.result == answer
        assert (await store.load(key, Newest())).snapshot.version == answer.version
    assert len((await store.list_snapshots(key, limit=100)).snapshots) == saves


async def test_many_clients_share_few_sessions(pooled_url: str) -> None:
    """Statements of one client meet those of others on the same session, and do not mix."""
    pool = PoolSettings(pool_size=8, max_overflow=0, pool_timeout_s=30)
    async with a_store(pooled_url, pool) as store, a_store(pooled_url, pool) as other:
        await asyncio.gather(*(work(s, new_key(), 10) for s in (store, other) * 8))
        await store.check()
        assert await store.connection_limit() is not None


async def test_time_limits_are_the_clients(pooled_url: str, postgresql_url: str) -> None:
    async with (
        a_store(postgresql_url) as holder,
        a_store(pooled_url, statement_timeout_s=0.5) as store,
        holder._engines.writer.connect() as connection,
    ):
        key = new_key()
        await store.append_many([an_append(key)])
        await holder.append_in_session(connection, an_append(key, rules=None))
        with pytest.raises(StorageUnavailable) as failed:
            await store.append_many([an_append(key, rules=None)])
        assert not isinstance(failed.value, CommitUnknown)
        assert failed.value.cause == "TIMEOUT"
        await connection.rollback()
        (answer,) = await store.append_many([an_append(key, rules=None)])
        assert isinstance(answer, SaveResult)
        assert answer.version == 2
