"""`statekeep doctor`: each finding, with what to do about it."""

import os
import socket
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from statekeep._admin_answers import server_info, server_stats
from statekeep.v1 import admin_service_pb2 as pb
from statekeep.v1 import agent_state_pb2
from statekeep_server import __version__
from statekeep_server.cli.check_outside import (
    _no_database,
    _on_database,
    _on_server,
    check_collector,
    check_database,
)
from statekeep_server.cli.check_settings import (
    LITTLE_ROOM,
    NO_ROOM,
    _room,
    check_files,
    check_settings,
    check_sqlite_file,
)
from statekeep_server.cli.findings import Finding, Health
from statekeep_server.config import Settings
from statekeep_server.domain.errors import StorageUnavailable
from statekeep_server.storage.checkup import DatabaseFacts
from tests.support.tls import CERTIFICATE, KEY

OPTIMIZED = agent_state_pb2.SERVING_PATH_OPTIMIZED
SQLITE = "sqlite:///a.db"
POSTGRESQL = Settings(database_url="postgresql+asyncpg://u:hunter2@db/x")
GOOD = DatabaseFacts(
    version="18.1",
    unsafe=None,
    revision="0003",
    needed_revision="0003",
    fits=True,
    read_only=False,
    clock_ahead_s=0.01,
    clock_doubt_s=0.001,
    connection_limit=100,
)


def the(found: Iterable[Finding], words: str) -> Finding:
    """The one finding that says this."""
    (one,) = [each for each in found if words in each.found]
    return one


def worst(found: Iterable[Finding]) -> Health:
    return max((each.health for each in found), key=list(Health).index)


def told(**variables: str) -> list[Finding]:
    return check_settings(SQLITE, variables)[1]


def test_settings_without_a_fault_are_well() -> None:
    settings, found = check_settings(SQLITE, {})
    assert settings is not None
    assert worst(found) is Health.OK


def test_settings_that_cannot_be_are_told_one_by_one() -> None:
    settings, found = check_settings(SQLITE, {"STATEKEEP_PORT": "x", "LOG_LEVEL": "LOUD"})
    assert settings is None
    assert [each.health for each in found] == [Health.PROBLEM] * 2
    assert the(found, "STATEKEEP_PORT").cure


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"STATEKEEP_TOKN": "x"}, "STATEKEEP_TOKN (did you mean STATEKEEP_TOKEN?)"),
        ({"STATEKEEP_ALLOW_UNSAFE_DURABILITY": "yes"}, "lose acknowledged saves"),
        ({"STATEKEEP_HOST": "0.0.0.0", "STATEKEEP_INSECURE": "yes"}, "plaintext, or no token"),
        ({"STATEKEEP_TRUST_TENANT_METADATA": "yes"}, "every caller chooses its tenant"),
        (
            {"ENABLE_OPTIMIZED_PERSISTENCE": "false", "OPTIMIZED_PERSISTENCE_ROLLOUT": "10"},
            "wins over",
        ),
        (
            {"ENABLE_OPTIMIZED_PERSISTENCE": "true", "OPTIMIZED_PERSISTENCE_ROLLOUT": "0"},
            "0 % of the runs",
        ),
        ({"STATEKEEP_MAX_SKIPS": "0"}, "nothing is ever skipped"),
        ({"STATEKEEP_MAX_SKIP_AGE": "0"}, "nothing is ever skipped"),
        ({"STATEKEEP_MAX_SKIP_AGE": "172800"}, "48 hours old"),
        (
            {
                "STATEKEEP_TRIP_FALLBACK_PERCENT": "0",
                "STATEKEEP_TRIP_MEAN": "0",
                "STATEKEEP_TRIP_P99": "0",
            },
            "never goes to standard by itself",
        ),
    ],
)
def test_what_surprises_is_a_warning_with_a_cure(variables: dict[str, str], words: str) -> None:
    found = the(told(**variables), words)
    assert found.health is Health.WARNING
    assert found.cure


def test_more_workers_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    _, found = check_settings("postgresql://db/x", {"STATEKEEP_WORKERS": "4"})
    assert the(found, "4 workers share 2").health is Health.WARNING


def test_debug_is_worth_a_note() -> None:
    assert the(told(LOG_LEVEL="debug"), "logs every save").health is Health.NOTE


# Files.


def test_a_key_for_everybody_is_a_problem(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    key.write_text(KEY)
    certificate.write_text(CERTIFICATE)
    settings = replace(POSTGRESQL, tls_key_path=str(key), tls_certificate_path=str(certificate))
    key.chmod(0o640)
    found, _ = check_files(settings)
    assert (found.health, found.cure) == (Health.PROBLEM, f"chmod 600 {key}")
    assert "mode 0640" in found.found
    key.chmod(0o600)
    assert worst(check_files(settings)) is Health.OK
    key.unlink()
    assert the(check_files(settings), "No such file").health is Health.PROBLEM
    assert not list(check_files(POSTGRESQL))


@pytest.mark.parametrize(
    ("certificate", "why"), [("nonsense", "not PEM, or not a pair"), (None, "No such file")]
)
def test_a_certificate_that_cannot_be_used_is_a_problem(
    tmp_path: Path, certificate: str | None, why: str
) -> None:
    key, path = tmp_path / "key", tmp_path / "certificate"
    key.write_text(KEY)
    key.chmod(0o600)
    if certificate is not None:
        path.write_text(certificate)
    settings = replace(POSTGRESQL, tls_key_path=str(key), tls_certificate_path=str(path))
    found = the(check_files(settings), "cannot be used")
    assert found.health is Health.PROBLEM
    assert why in found.found
    assert "STATEKEEP_TLS_CERT" in found.cure


def test_a_database_file_and_its_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "not" / "there" / "statekeep.db"
    found = list(check_sqlite_file(path))
    assert the(found, "not there yet").health is Health.NOTE
    assert f"free in {tmp_path}" in found[-1].found, "the folder that will hold it"
    path.parent.mkdir(parents=True)
    for name in ("statekeep.db", "statekeep.db-wal"):
        (path.parent / name).touch(mode=0o600)
    (path.parent / "statekeep.db-wal").chmod(0o644)
    assert the(check_sqlite_file(path), "-wal can be reached").health is Health.PROBLEM
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert the(check_sqlite_file(path), "cannot be read and written").health is Health.PROBLEM


@pytest.mark.parametrize(
    ("free", "health"),
    [
        (NO_ROOM - 1, Health.PROBLEM),
        (LITTLE_ROOM - 1, Health.WARNING),
        (LITTLE_ROOM, Health.OK),
    ],
)
def test_room_on_the_disk(free: int, health: Health) -> None:
    assert _room(Path("/data"), free).health is health


# The database.


@pytest.mark.parametrize(
    ("change", "words", "health"),
    [
        ({}, "PostgreSQL 18.1 answers", Health.OK),
        ({"version": "14.9 (Debian)"}, "too old", Health.PROBLEM),
        ({"read_only": True}, "takes no writes", Health.PROBLEM),
        ({"unsafe": "fsync is off"}, "fsync is off", Health.PROBLEM),
        ({"fits": False, "revision": None}, "revision none", Health.PROBLEM),
        ({"clock_ahead_s": 90.0}, "90.00 s ahead of", Health.WARNING),
        ({"clock_ahead_s": -90.0}, "90.00 s behind", Health.WARNING),
        ({"clock_ahead_s": 1.5, "clock_doubt_s": 0.6}, "1.50 s ahead", Health.OK),
        ({"connection_limit": 65}, "the database allows 65", Health.WARNING),
        ({"connection_limit": 66}, "the database allows 66", Health.OK),
    ],
)
def test_what_a_database_says(change: dict[str, Any], words: str, health: Health) -> None:
    assert the(_on_database(replace(GOOD, **change), POSTGRESQL), words).health is health


def test_a_good_database_has_nothing_to_do() -> None:
    found = list(_on_database(GOOD, POSTGRESQL))
    assert worst(found) is Health.OK
    assert not any(each.cure for each in found)
    assert "hunter2" not in repr(found)


def test_what_was_allowed_is_a_warning() -> None:
    allowed = replace(POSTGRESQL, allow_unsafe_durability=True)
    found = the(_on_database(replace(GOOD, unsafe="fsync is off"), allowed), "fsync is off")
    assert found.health is Health.WARNING


def test_sqlite_has_no_limit_and_no_other_clock() -> None:
    sqlite = replace(GOOD, version="3.40", clock_ahead_s=None, connection_limit=None, fits=False)
    found = list(_on_database(replace(sqlite, revision="0001"), Settings(database_url=SQLITE)))
    assert the(found, "`serve` migrates it").health is Health.NOTE
    assert {each.about for each in found} == {"database", "durability", "schema"}
    newer = list(_on_database(replace(sqlite, revision="9999"), Settings(database_url=SQLITE)))
    assert the(newer, "revision 9999").health is Health.PROBLEM


# A server.


def test_a_server_that_is_well() -> None:
    info = server_info(pb.GetServerInfoResponse(version=__version__))
    assert worst(_on_server(info, server_stats(pb.GetStatsResponse()))) is Health.OK


@pytest.mark.parametrize(
    ("stats", "words", "health"),
    [
        (
            {
                "workers": [
                    pb.WorkerStats(index=1, trip=pb.Trip(crossed=pb.TRIP_LIMIT_P99, saves=200))
                ]
            },
            "worker 1 went to standard by itself: P99",
            Health.PROBLEM,
        ),
        ({"circuit_open": True}, "circuit breaker", Health.PROBLEM),
        ({"shadow": pb.ShadowStats(disagreements=2)}, "2 disagreements", Health.PROBLEM),
        (
            {"write_behind": pb.WriteBehindStats(lost=3)},
            "3 buffered states were given up",
            Health.WARNING,
        ),
        (
            {"write_behind": pb.WriteBehindStats(pending=2, oldest_age_s=60.4, max_age_s=0.5)},
            "2 buffered states cannot be written, the oldest for 60 s",
            Health.PROBLEM,
        ),
        ({"silent_workers": 1}, "1 workers do not answer", Health.WARNING),
        (
            {"pools": [pb.PoolStats(path=OPTIMIZED, pool_size=2, max_overflow=1, checked_out=3)]},
            "all 3 connections of the OPTIMIZED path",
            Health.PROBLEM,
        ),
    ],
)
def test_what_a_server_says(stats: dict[str, Any], words: str, health: Health) -> None:
    info = server_info(pb.GetServerInfoResponse(version=__version__))
    found = the(_on_server(info, server_stats(pb.GetStatsResponse(**stats))), words)
    assert found.health is health
    assert found.cure


def test_another_version_is_a_warning() -> None:
    info = server_info(pb.GetServerInfoResponse(version="9.9"))
    found = _on_server(info, server_stats(pb.GetStatsResponse()))
    assert worst(found) is Health.WARNING


# The collector.


async def test_a_collector_is_knocked_at() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        variable = "OTEL_EXPORTER_OTLP_ENDPOINT"
        (closed,) = await check_collector({variable: f"http://127.0.0.1:{port}"})
        listening.listen()
        (answers,) = await check_collector({variable: f"http://user:hunter2@127.0.0.1:{port}/"})
    assert (closed.health, answers.health) == (Health.WARNING, Health.OK)
    assert variable in closed.cure
    assert closed.found == f"127.0.0.1:{port} cannot be reached: Connection refused"
    assert "hunter2" not in repr(answers)


async def test_a_collector_whose_name_nobody_knows() -> None:
    (found,) = await check_collector({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://no.invalid:4317"})
    assert found.health is Health.WARNING
    assert "no.invalid:4317 cannot be reached" in found.found
    assert "Unknown error" not in found.found


async def test_a_database_that_is_away_is_named_without_its_password() -> None:
    url = "postgresql+asyncpg://me:hunter2@127.0.0.1:1/x"
    (found,) = await check_database(Settings(database_url=url))
    assert found.health is Health.PROBLEM
    assert found.found.startswith("127.0.0.1: the database cannot serve this now")
    assert "hunter2" not in repr(found)
    assert "psql" in found.cure


@pytest.mark.parametrize(("cause", "words"), [("LOCKED", "holds it"), ("OTHER", "start it")])
def test_the_cause_says_what_to_do(cause: str, words: str) -> None:
    found = _no_database(StorageUnavailable(cause), Settings(database_url=SQLITE))
    assert words in found.cure
    assert not found.found.startswith(":")


@pytest.mark.parametrize("endpoint", ["http://", "http://[x", "http://host:notaport"])
async def test_an_endpoint_that_is_none(endpoint: str) -> None:
    (found,) = await check_collector({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint})
    assert found.health is Health.WARNING
    assert "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is no URL" in found.found


async def test_without_an_endpoint_there_is_a_note() -> None:
    assert [each.health for each in await check_collector({})] == [Health.NOTE]
