"""The settings of `serve`: every option and variable, all problems at once, no secret in a text."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statekeep_server.cli import settings as module
from statekeep_server.cli.settings import (
    KNOBS,
    ServeOptions,
    SettingsError,
    parse_count,
    parse_names,
    parse_port,
    parse_seconds,
    parse_text,
    parse_workers,
    read_database_url,
    read_options,
)
from statekeep_server.config import Settings
from statekeep_server.flags import parse_log_level, parse_switch

URL = "sqlite:///states.db"


def read(
    options: dict[str, Any] | None = None, environment: dict[str, str] | None = None
) -> ServeOptions:
    return read_options(options or {}, {"STATEKEEP_DATABASE_URL": URL} | (environment or {}))


def problems(
    options: dict[str, Any] | None = None, environment: dict[str, str] | None = None
) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(options, environment)
    assert str(caught.value) == "; ".join(caught.value.problems)
    return list(caught.value.problems)


def test_nothing_configured_is_a_sqlite_file_of_the_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "user_data_path", lambda *_, **__: tmp_path / "a" / "statekeep")
    options = read_options({}, {})
    assert options.settings == Settings(
        database_url=f"sqlite+aiosqlite:///{tmp_path}/a/statekeep/statekeep.db"
    )
    assert options.log_level == "INFO"
    mode = stat.S_IMODE((tmp_path / "a" / "statekeep").stat().st_mode)
    assert mode == 0o700
    assert read_database_url(None, {}) == options.settings.database_url


def test_a_data_folder_that_cannot_be_made_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(module, "user_data_path", lambda *_, **__: tmp_path / "file" / "statekeep")
    for reading in (lambda: read_options({}, {}), lambda: read_database_url(None, {})):
        with pytest.raises(SettingsError, match=r"cannot make the folder .*: Not a directory"):
            reading()


EXAMPLES: dict[str, tuple[str, Any]] = {
    "database_url": ("postgresql://me@db/states", "postgresql://me@db/states"),
    "host": ("::1", "::1"),
    "port": ("0", 0),
    "workers": ("1", 1),
    "enable_optimized_persistence": ("on", True),
    "optimized_persistence_rollout": ("12.5", 12.5),
    "optimized_persistence_monitoring": ("false", False),
    "optimized_persistence_shadow": ("yes", True),
    "trip_fallback_percent": ("5%", 5.0),
    "trip_mean_s": ("0.5", 0.5),
    "trip_p99_s": ("0", 0.0),
    "ignored_fields": ("a, /b/*/c", ("a", "/b/*/c")),
    "max_skip_age_s": ("1.5", 1.5),
    "max_skips": ("7", 7),
    "compression": ("off", False),
    "cache_max_entries": ("10", 10),
    "cache_max_bytes": ("0", 0),
    "known_heads_max_bytes": ("1000000", 1_000_000),
    "payloads_max_bytes": ("0", 0),
    "write_behind_max_age_s": ("0.25", 0.25),
    "write_behind_max_runs": ("0", 0),
    "write_behind_max_bytes": ("1000000", 1_000_000),
    "write_behind_give_up_s": ("60", 60.0),
    "drain_timeout_s": ("45", 45.0),
    "metrics_port": ("9464", 9464),
    "token": ("s3cret", "s3cret"),
    "tls_certificate_path": ("cert.pem", "cert.pem"),
    "tls_key_path": ("key.pem", "key.pem"),
    "insecure": ("yes", True),
    "allow_unsafe_durability": ("1", True),
    "trust_tenant_metadata": ("true", True),
}


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.field)
def test_each_setting_has_a_variable(knob: Any) -> None:
    text, value = EXAMPLES[knob.field]
    environment = {knob.variable: text}
    if knob.field.startswith("tls_"):
        environment |= {"STATEKEEP_TLS_CERT": "cert.pem", "STATEKEEP_TLS_KEY": "key.pem"}
    assert getattr(read({}, environment).settings, knob.field) == value


@pytest.mark.parametrize("knob", [each for each in KNOBS if each.option], ids=lambda k: k.field)
def test_an_option_wins_over_its_variable(knob: Any) -> None:
    given_, value = EXAMPLES[knob.field]
    options: dict[str, Any] = {knob.field: given_}
    environment = {knob.variable: "nonsense\x00"}
    if knob.field == "ignored_fields":
        options = {knob.field: list(value)}
    if knob.field.startswith("tls_"):
        options = {"tls_certificate_path": "cert.pem", "tls_key_path": "key.pem"}
    assert getattr(read(options, environment).settings, knob.field) == value


def test_the_variables_have_the_names_that_were_promised() -> None:
    assert {knob.variable for knob in KNOBS} | {
        module.LOG_LEVEL.variable,
        module.LOG_FORMAT.variable,
    } == {
        "ENABLE_OPTIMIZED_PERSISTENCE",
        "LOG_LEVEL",
        "OPTIMIZED_PERSISTENCE_MONITORING",
        "OPTIMIZED_PERSISTENCE_ROLLOUT",
        "OPTIMIZED_PERSISTENCE_SHADOW",
        "STATEKEEP_ALLOW_UNSAFE_DURABILITY",
        "STATEKEEP_CACHE_MAX_BYTES",
        "STATEKEEP_CACHE_MAX_ENTRIES",
        "STATEKEEP_COMPRESSION",
        "STATEKEEP_DATABASE_URL",
        "STATEKEEP_DRAIN_TIMEOUT",
        "STATEKEEP_HOST",
        "STATEKEEP_IGNORED_FIELDS",
        "STATEKEEP_KNOWN_HEADS_MAX_BYTES",
        "STATEKEEP_INSECURE",
        "STATEKEEP_LOG_FORMAT",
        "STATEKEEP_MAX_SKIPS",
        "STATEKEEP_METRICS_PORT",
        "STATEKEEP_MAX_SKIP_AGE",
        "STATEKEEP_PAYLOADS_MAX_BYTES",
        "STATEKEEP_PORT",
        "STATEKEEP_TLS_CERT",
        "STATEKEEP_TLS_KEY",
        "STATEKEEP_TOKEN",
        "STATEKEEP_TRUST_TENANT_METADATA",
        "STATEKEEP_TRIP_FALLBACK_PERCENT",
        "STATEKEEP_TRIP_MEAN",
        "STATEKEEP_TRIP_P99",
        "STATEKEEP_WORKERS",
        "STATEKEEP_WRITE_BEHIND_GIVE_UP",
        "STATEKEEP_WRITE_BEHIND_MAX_AGE",
        "STATEKEEP_WRITE_BEHIND_MAX_BYTES",
        "STATEKEEP_WRITE_BEHIND_MAX_RUNS",
    }


def test_an_empty_variable_is_not_set() -> None:
    empty = {knob.variable: "" for knob in KNOBS if knob.field != "database_url"}
    assert read({}, empty | {"LOG_LEVEL": ""}).settings == read().settings
    assert read({"ignored_fields": []}).settings.ignored_fields == ()


@pytest.mark.parametrize("text", ["true", "1", "yes", "on", "TRUE", " On "])
def test_yes(text: str) -> None:
    assert parse_switch(text)


@pytest.mark.parametrize("text", ["false", "0", "no", "off", "False", "OFF "])
def test_no(text: str) -> None:
    assert not parse_switch(text)


@pytest.mark.parametrize("text", ["maybe", "2", "tru", "yes please", "-1"])
def test_nonsense_is_refused_with_what_is_allowed(text: str) -> None:
    assert problems({}, {"ENABLE_OPTIMIZED_PERSISTENCE": text}) == [
        f"ENABLE_OPTIMIZED_PERSISTENCE: {text!r} is none of true, 1, yes, on, false, 0, no, off"
    ]


@pytest.mark.parametrize(("text", "level"), [("debug", "DEBUG"), (" Warning", "WARNING")])
def test_a_log_level_may_be_written_in_any_case(text: str, level: str) -> None:
    assert parse_log_level(text) == level
    assert read({"log_level": text}, {"LOG_LEVEL": "bad"}).log_level == level
    assert read({}, {"LOG_LEVEL": text}).log_level == level


@pytest.mark.parametrize(
    ("parse", "bad"),
    [
        (parse_port, ["", "-1", "65536", "999999", "80a", "8 0", "1e3", "٣"]),
        (parse_seconds, ["", "-1", "nan", "inf", "soon", "1e300"]),
        (parse_count, ["", "-1", "1.5", "1000000000", "many"]),
        (parse_workers, ["", "0", "-1", "65", "1.5", "all"]),
        (parse_log_level, ["", "LOUD", "10"]),
        (parse_text, ["a\nb", "\x00", "\x1b[31m"]),
    ],
)
def test_what_cannot_be_read_is_refused(parse: Any, bad: list[str]) -> None:
    for text in bad:
        with pytest.raises(ValueError, match=r"is not|is none of|control character"):
            parse(text)


@given(port=st.integers(min_value=0, max_value=65_535), seconds=st.floats(0, 3e9))
def test_what_is_written_is_read(port: int, seconds: float) -> None:
    assert parse_port(str(port)) == port
    assert parse_seconds(repr(seconds)) == seconds


def test_names_are_split_at_commas() -> None:
    assert parse_names(" a,b ,, /c ") == ("a", "b", "/c")


def test_all_problems_are_told_at_once_by_the_name_that_was_used() -> None:
    found = problems(
        {"port": "http", "max_skips": "few", "ignored_fields": ["/~2"]},
        {
            "STATEKEEP_PORT": "1",
            "STATEKEEP_MAX_SKIP_AGE": "old",
            "ENABLE_OPTIMIZED_PERSISTENCE": "perhaps",
            "LOG_LEVEL": "LOUD",
            "STATEKEEP_TLS_CERT": "cert.pem",
        },
    )
    assert [text.partition(":")[0] for text in found] == [
        "--port",
        "ENABLE_OPTIMIZED_PERSISTENCE",
        "STATEKEEP_MAX_SKIP_AGE",
        "--max-skips",
        "LOG_LEVEL",
        "--ignored-field",
        "TLS needs both a certificate and its key",
    ]


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({"host": "127.0.0.1"}, True),
        ({"host": "::1"}, True),
        ({"host": "localhost"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "0.0.0.0", "token": "t"}, False),
        ({"host": "0.0.0.0", "tls_certificate_path": "c", "tls_key_path": "k"}, False),
        (
            {"host": "0.0.0.0", "tls_certificate_path": "c", "tls_key_path": "k", "token": "t"},
            True,
        ),
        ({"host": "0.0.0.0", "insecure": True}, True),
        ({"host": "0.0.0.0", "insecure": True, "trust_tenant_metadata": True}, False),
    ],
)
def test_a_server_is_not_opened_by_accident(fields: dict[str, Any], allowed: bool) -> None:
    if allowed:
        assert read(fields).settings.host == fields["host"]
    else:
        assert len(problems(fields)) == 1


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:hunter2@db/states",
        "me:hunter2@db",
        "sqlite:///:memory:",
        "postgresql://me:hunter2@db/states?sslmode=hunter2",
        "postgresql://me:hunter2@db:port/states",
    ],
)
def test_a_bad_database_url_is_told_without_its_password(url: str) -> None:
    for found in (
        problems({"database_url": url}),
        problems({}, {"STATEKEEP_DATABASE_URL": url}),
    ):
        assert len(found) == 1
        assert found[0].startswith(("--database-url: ", "STATEKEEP_DATABASE_URL: "))
        assert "hunter2" not in found[0]
    with pytest.raises(SettingsError):
        read_database_url(url, {})


def test_a_token_is_never_told() -> None:
    found = problems({"token": "hun\nter2"}, {"STATEKEEP_PORT": "x"})
    assert "ter2" not in " ".join(found)
    assert "hunter2" not in repr(read({"token": "hunter2"}))


def test_variables_that_nothing_reads_are_named_with_what_was_meant() -> None:
    environment = {"STATEKEEP_DATABSE_URL": "x", "STATEKEEP_TARGET": "t", "STATEKEEP_XYZZY": "1"}
    assert read({}, environment).unknown_variables == (
        "STATEKEEP_DATABSE_URL (did you mean STATEKEEP_DATABASE_URL?)",
        "STATEKEEP_XYZZY",
    )


def test_the_real_environment_can_be_read() -> None:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("STATEKEEP_")}
    kept.pop("LOG_LEVEL", None)
    assert read({}, kept).unknown_variables == ()


def test_several_workers_need_postgresql() -> None:
    (problem,) = problems({"workers": "2"})
    assert problem.startswith("--workers: several workers need PostgreSQL")
    url = "postgresql+asyncpg://me@db/states"
    assert read({"workers": "2", "database_url": url}).settings.workers == 2
