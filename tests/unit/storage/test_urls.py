"""Database URLs: what operators write and what the drivers get."""

from urllib.parse import parse_qsl, urlsplit

import pytest

from statekeep_server.domain.errors import InvalidField
from statekeep_server.storage.engine import Timeouts, postgresql_arguments
from statekeep_server.storage.urls import parse_database_url

TIMEOUTS = Timeouts(statement_s=2.0, lock_s=0.5)


@pytest.mark.parametrize(
    ("text", "drivername"),
    [
        ("sqlite:///state.db", "sqlite+aiosqlite"),
        ("sqlite+aiosqlite:////var/lib/state.db", "sqlite+aiosqlite"),
        ("postgres://host/db", "postgresql+asyncpg"),
        ("postgresql://user:password@host:5433/db", "postgresql+asyncpg"),
        ("postgresql+asyncpg:///db?host=/run/postgresql", "postgresql+asyncpg"),
    ],
)
def test_the_driver_may_be_left_out(text: str, drivername: str) -> None:
    url = parse_database_url(text)
    assert url.url.drivername == drivername
    assert url.is_sqlite == text.startswith("sqlite")
    assert not url.behind_pooler


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s3cr3t",
        "mysql://user:s3cr3t@host/db",
        "postgresql+psycopg://user:s3cr3t@host/db",
        "postgresql://user:s3cr3t@host:port/db",
        "postgresql://user:s3cr3t@host/db?sslmode=s3cr3t",
        "postgresql://user:s3cr3t@host/db?ssl=yes",
        "postgresql://user:s3cr3t@host/db?prepared_statement_cache_size=s3cr3t",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:s3cr3t?mode=memory&uri=true",
        "sqlite://s3cr3t/state.db",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(InvalidField) as refused:
        parse_database_url(text)
    assert refused.value.field == "database_url"
    assert "s3cr3t" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def options_of(text: str) -> dict[str, str]:
    """The options that the driver reads in its connection string."""
    dsn = postgresql_arguments(parse_database_url(text), TIMEOUTS)["dsn"]
    return dict(parse_qsl(urlsplit(dsn).query, strict_parsing=True))


@pytest.mark.parametrize("name", ["ssl", "sslmode"])
def test_tls_is_asked_for_in_the_words_of_libpq(name: str) -> None:
    """`test_postgresql_store_tls` shows that the driver obeys."""
    found = options_of(f"postgresql://u:p@host/db?{name}=verify-full&sslrootcert=/a b/c&sslkey=k")
    assert found == {"sslmode": "verify-full", "sslrootcert": "/a b/c", "sslkey": "k"}


def test_other_options_are_left_to_the_driver() -> None:
    """It makes settings of the session of those that it does not know."""
    found = options_of("postgresql://host/db?search_path=statekeep&application_name=my%20agents")
    assert found == {"search_path": "statekeep", "application_name": "my agents"}


def test_a_pooler_gets_no_settings_and_no_names() -> None:
    url = parse_database_url("postgresql://host/db?prepared_statement_cache_size=0")
    assert url.behind_pooler
    arguments = postgresql_arguments(url, TIMEOUTS)
    assert "server_settings" not in arguments
    assert arguments["statement_cache_size"] == arguments["prepared_statement_cache_size"] == 0
    assert arguments["prepared_statement_name_func"]() == ""
    assert arguments["command_timeout"] == 2.0


def test_hosts_stay_with_the_url() -> None:
    url = parse_database_url("postgresql:///db?host=/run/postgresql&port=5433&ssl=disable")
    assert dict(url.url.query) == {"host": "/run/postgresql", "port": "5433"}
    assert url.driver_options == "sslmode=disable"
