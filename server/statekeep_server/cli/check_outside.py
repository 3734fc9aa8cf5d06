"""What `statekeep doctor` finds beyond this process: the database, a server, the collector."""

import asyncio
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from statekeep_server import __version__
from statekeep_server.cli.connection import Connection, failure
from statekeep_server.cli.findings import Finding, note, ok, problem, warning
from statekeep_server.config import Settings
from statekeep_server.domain.errors import StateError

if TYPE_CHECKING:  # they bring SQLAlchemy and gRPC, which `--help` does not need
    from statekeep import ServerInfo, ServerStats, WriteBehindStats
    from statekeep_server.storage.checkup import DatabaseFacts

CLOCK_S = 1.0
"""Expiry and the age of a skip go by the database's clock: a second is nothing there, and logs and
traces of two machines that are further apart cannot be read together."""

OLDEST_POSTGRESQL = 15

CONNECT_TIMEOUT_S = 3.0

CURES = {
    "UNREACHABLE": "start it, or correct address, user and password in STATEKEEP_DATABASE_URL; "
    "`psql` with the same URL says more",
    "LOCKED": "end what holds it: a SQLite file is for one server",
    "READ_ONLY": "point STATEKEEP_DATABASE_URL to the primary, or correct the modes of the file",
    "FULL": "free some space on the disk of the database",
    "TIMEOUT": "look for slow disks and locks in the database",
}
"""What to do where the database does not answer, by the cause of the error."""


async def check_database(settings: Settings) -> list[Finding]:
    """Ask the database."""
    from statekeep_server.service.clock import SystemClock
    from statekeep_server.storage.checkup import examine, sqlite_path

    path = sqlite_path(settings.database_url)
    if path is not None and not path.exists():
        return []  # asking would create it
    try:
        facts = await examine(settings.database_url, SystemClock())
    except StateError as error:
        return [_no_database(error, settings)]
    return list(_on_database(facts, settings))


def _no_database(error: StateError, settings: Settings) -> Finding:
    """Say where it was looked for, without the secrets of the URL, and what to do."""
    address = urlsplit(settings.database_url)
    where = f"{address.hostname}: " if address.hostname else ""
    cure = CURES.get(error.metadata.get("cause", ""), CURES["UNREACHABLE"])
    return problem("database", f"{where}{error.message}", cure)


def _on_database(facts: "DatabaseFacts", settings: Settings) -> Iterator[Finding]:
    postgresql = not settings.database_url.startswith("sqlite")
    name = "PostgreSQL" if postgresql else "SQLite"
    major = facts.version.split(".")[0]
    if postgresql and major.isdecimal() and int(major) < OLDEST_POSTGRESQL:
        cure = f"upgrade to PostgreSQL {OLDEST_POSTGRESQL} or newer"
        yield problem("database", f"PostgreSQL {facts.version} is too old", cure)
    else:
        yield ok("database", f"{name} {facts.version} answers")
    if facts.read_only:
        yield problem("database", "it takes no writes", "connect to the primary")
    if facts.unsafe is None:
        yield ok("durability", "acknowledged saves survive a crash")
    elif settings.allow_unsafe_durability:
        yield warning("durability", facts.unsafe, "switch it on: this was allowed, and loses saves")
    else:
        yield problem("durability", facts.unsafe, "switch it on; `serve` refuses to start")
    if facts.fits:
        yield ok("schema", f"revision {facts.revision}")
    elif not postgresql and (facts.revision or "") < facts.needed_revision:
        yield note("schema", f"revision {facts.revision or 'none'}; `serve` migrates it")
    else:
        yield problem(
            "schema",
            f"revision {facts.revision or 'none'}, this server needs {facts.needed_revision}",
            "run `statekeep migrate`, or upgrade this server if its schema is the older one",
        )
    yield from _on_clock(facts)
    yield from _on_connections(facts, settings)


def _on_clock(facts: "DatabaseFacts") -> Iterator[Finding]:
    if facts.clock_ahead_s is None:
        return
    off_s = abs(facts.clock_ahead_s)
    word = "ahead of" if facts.clock_ahead_s > 0 else "behind"
    found = f"the database's is {off_s:.2f} s {word} this machine's"
    if off_s > CLOCK_S + facts.clock_doubt_s:
        yield warning("clock", found, "synchronise both machines (NTP)")
    else:
        yield ok("clock", found)


def _on_connections(facts: "DatabaseFacts", settings: Settings) -> Iterator[Finding]:
    from statekeep_server.paths import most_connections

    if facts.connection_limit is None:
        return
    most = most_connections(settings, settings.workers)
    found = (
        f"{settings.workers} process(es) of one server open up to {most}, the database allows "
        f"{facts.connection_limit}"
    )
    if most > facts.connection_limit:
        cure = "raise max_connections, make the pools smaller, or serve with fewer workers"
        yield warning("connections", found, cure)
    else:
        yield ok("connections", found)


async def check_server(connection: Connection) -> list[Finding]:
    """Ask a running server."""
    from statekeep import StatekeepError, Unavailable

    async with connection.client() as client:
        try:
            info, stats = await client.server_info(), await client.stats()
        except StatekeepError as error:
            failed = failure(error)
            cure = failed.hint or "start it, or correct --target"
            return [problem("server", str(failed), cure)]
        found = list(_on_server(info, stats))
        try:
            async for _ in client.list_runs(page_size=1):
                break
        except Unavailable as error:
            cure = "look at the database; `statekeep doctor` on the server's machine asks it"
            found.append(problem("server", f"it does not serve: {error.message}", cure))
        except StatekeepError as error:
            found.append(warning("server", error.message, "ask with a token that may read"))
        return found


def _on_server(info: "ServerInfo", stats: "ServerStats") -> Iterator[Finding]:
    yield ok("server", f"version {info.version} on {info.database}, path {info.path}")
    if info.version != __version__:
        yield warning(
            "server", f"version {info.version}, this command is {__version__}", "upgrade the older"
        )
    for worker in stats.workers:
        if (trip := worker.trip) is not None:
            yield problem(
                "path",
                f"worker {worker.index} went to standard by itself: {trip.crossed} "
                f"{trip.value:.3f} over {trip.limit:.3f} in {trip.saves} saves",
                "look why in its log, then `statekeep rollout reset`",
            )
    if stats.circuit_open:
        cure = "look for `Optimized persistence failed` in its log"
        yield problem("path", "the circuit breaker keeps saves off the optimized path", cure)
    if stats.shadow.disagreements:
        cure = "keep the standard path, and report it with the log's `Shadow disagrees` lines"
        yield problem("shadow", f"{stats.shadow.disagreements} disagreements", cure)
    if stats.silent_workers:
        cure = "ask again; if it stays, look for crashes in its log"
        yield warning("server", f"{stats.silent_workers} workers do not answer", cure)
    yield from _on_write_behind(stats.write_behind)
    for pool in stats.pools:
        if pool.checked_out >= pool.pool_size + pool.max_overflow:
            yield problem(
                "pool",
                f"all {pool.checked_out} connections of the {pool.path} path are in use",
                "look for slow statements and locks in the database, or add servers",
            )


def _on_write_behind(late: "WriteBehindStats") -> Iterator[Finding]:
    if late.lost:
        cure = "look for `Write-behind gave up` in its log: it names the runs"
        yield warning("write-behind", f"{late.lost} buffered states were given up", cure)
    # A state waits for its age and a write; one that waits for so long was tried many times.
    if late.oldest_age_s > 10 * max(late.max_age_s, 1.0):
        yield problem(
            "write-behind",
            f"{late.pending} buffered states cannot be written, the oldest for "
            f"{late.oldest_age_s:.0f} s",
            "look at the database, and for `Write-behind could not write` in the server's log",
        )


async def check_collector(environment: Mapping[str, str]) -> list[Finding]:
    """Knock at the endpoints of telemetry, if there are any."""
    names = ("", "TRACES_", "METRICS_", "LOGS_")
    variables = [f"OTEL_EXPORTER_OTLP_{name}ENDPOINT" for name in names]
    told = {name: environment[name] for name in variables if environment.get(name)}
    found = [await _knock(name, endpoint) for name, endpoint in told.items()]
    return found or [note("telemetry", "OTEL_EXPORTER_OTLP_ENDPOINT is not set: none is sent")]


async def _knock(variable: str, endpoint: str) -> Finding:
    cure = f"start the collector, or correct {variable}; saves go on without it"
    try:
        address = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}")
        host, port = address.hostname, address.port
    except ValueError:
        host = port = None
    if not host:
        return warning("telemetry", f"{variable} is no URL such as http://HOST:4317", cure)
    port = port or (443 if address.scheme == "https" else 4317)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
    except (OSError, TimeoutError) as error:
        return warning("telemetry", f"{host}:{port} cannot be reached: {_why(error)}", cure)
    return ok("telemetry", f"{host}:{port} takes connections")


def _why(error: OSError) -> str:
    """Say why nothing answered, by the system's word: asyncio's own repeats the address."""
    if error.errno is not None and error.errno > 0:  # below are those of looking up names
        return os.strerror(error.errno)
    return error.strerror or "no answer"
