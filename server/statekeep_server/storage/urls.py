"""Database URLs: what operators write, turned into what SQLAlchemy and the driver take.

    sqlite+aiosqlite:///relative.db        sqlite+aiosqlite:////absolute.db
    postgresql+asyncpg://user:password@host:5432/database?sslmode=verify-full

The driver may be left out. The options of a PostgreSQL URL are those of libpq: `sslmode` (or
`ssl`, which means the same), `sslrootcert`, `sslcert`, `sslkey`, `application_name`,
`target_session_attrs`, `host` with a socket folder, and so on; any other name is a setting of the
session, as in `?search_path=statekeep`. `prepared_statement_cache_size=0` says that a pooler in
transaction mode, such as PgBouncer, stands in between: see `engine`.
"""

from dataclasses import dataclass
from urllib.parse import urlencode

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from statekeep_server.domain.errors import InvalidField

_KINDS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}
_FIELD = "database_url"
_SQLALCHEMY_OPTIONS = frozenset({"host", "port"})
_CACHE_SIZE = "prepared_statement_cache_size"
_SSL_MODES = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """A database, and how to reach it.

    Attributes:
        url: For SQLAlchemy, without the options in `driver_options`. Never print it.
        driver_options: The query of a libpq connection string for asyncpg, percent-encoded.
        statement_cache_size: Prepared statements that a connection keeps; 0 behind a pooler.
    """

    url: URL
    driver_options: str = ""
    statement_cache_size: int = 100

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file of ours."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def behind_pooler(self) -> bool:
        """Whether a pooler in transaction mode stands in between."""
        return self.statement_cache_size == 0


def parse_database_url(text: str) -> DatabaseUrl:
    """Read a database URL.

    Raises InvalidField for a URL that cannot be used; its message never repeats the URL, which may
    hold a password.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # From None: SQLAlchemy's message holds the URL.
        raise InvalidField(_FIELD, "not a database URL such as sqlite:///FILE") from None
    driver = _KINDS.get(url.drivername)
    if driver is None:
        raise InvalidField(_FIELD, "neither sqlite:///FILE nor postgresql://…")
    url = url.set(drivername=driver)
    if driver.startswith("sqlite"):
        return _sqlite(url)
    return _postgresql(url)


def _sqlite(url: URL) -> DatabaseUrl:
    path = url.database or ""
    if not path or ":memory:" in path or url.query.get("mode") == "memory":
        # Acknowledged saves would be gone with the process.
        raise InvalidField(_FIELD, "a database in memory keeps nothing; name a file")
    if url.host:
        raise InvalidField(_FIELD, "an absolute path takes four slashes: sqlite:////FILE")
    return DatabaseUrl(url)


def _postgresql(url: URL) -> DatabaseUrl:
    options = {
        name: value if isinstance(value, str) else value[-1] for name, value in url.query.items()
    }
    kept = {name: value for name, value in url.query.items() if name in _SQLALCHEMY_OPTIONS}
    for name in kept:
        del options[name]
    ssl_mode = options.pop("ssl", None) or options.get("sslmode")
    if ssl_mode is not None:
        if ssl_mode not in _SSL_MODES:
            raise InvalidField(_FIELD, f"sslmode is one of {', '.join(sorted(_SSL_MODES))}")
        options["sslmode"] = ssl_mode
    cache_size = options.pop(_CACHE_SIZE, "100")
    if not cache_size.isdecimal():
        raise InvalidField(_FIELD, f"{_CACHE_SIZE} is a number")
    return DatabaseUrl(url.set(query=kept), urlencode(options), int(cache_size))
