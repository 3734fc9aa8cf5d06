"""The settings of a server, read from options and the environment, all problems told at once.

An option wins over its variable, and a variable that is empty counts as not set. The names are in
one table, `KNOBS`. Nothing of a token or a database URL enters a problem's text.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from platformdirs import user_data_path

from statekeep_server.cli.variables import OTHER_VARIABLES
from statekeep_server.config import Settings
from statekeep_server.domain.errors import InvalidField
from statekeep_server.flags import parse_log_level, parse_percent, parse_switch
from statekeep_server.supervisor.port import CannotSupervise
from statekeep_server.supervisor.supervise import MAX_WORKERS, check_workers
from statekeep_server.telemetry.process_log import LOG_FORMATS, LogFormat

SECRETS = ("STATEKEEP_DATABASE_URL", "STATEKEEP_TOKEN")
"""Variables whose value may stand in a file instead: the one that the variable with _FILE names."""


class SettingsError(Exception):
    """The settings cannot be used. Each problem is one sentence that starts with its name."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What `statekeep serve` runs with.

    Attributes:
        log_level: One of `flags.LOG_LEVELS`.
        log_format: One of `process_log.LOG_FORMATS`.
        unknown_variables: Variables that look like settings and are none, with what was meant.
    """

    settings: Settings
    log_level: str
    log_format: LogFormat = "auto"
    unknown_variables: tuple[str, ...] = ()


def parse_text(text: str) -> str:
    """Take any text without control characters."""
    if any(ord(character) < 32 for character in text):
        raise ValueError("holds a control character")
    return text


def parse_port(text: str) -> int:
    """Read a port; 0 lets the system choose."""
    if not re.fullmatch(r"[0-9]{1,5}", text.strip()) or int(text) > 65_535:
        raise ValueError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def parse_log_format(text: str) -> LogFormat:
    """Read the form of log lines."""
    for form in LOG_FORMATS:
        if text.strip().lower() == form:
            return form
    raise ValueError(f"{text!r} is none of {', '.join(LOG_FORMATS)}")


def parse_seconds(text: str) -> float:
    """Read a duration in seconds; 0 is one."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    # A hundred years fit into the microseconds of a database; NaN is in no range.
    if not 0 <= seconds <= 3.2e9:
        raise ValueError(f"{text!r} is not a number of seconds from 0 on")
    return seconds


def parse_count(text: str) -> int:
    """Read a number of things; 0 is one."""
    if not re.fullmatch(r"[0-9]{1,9}", text.strip()):
        raise ValueError(f"{text!r} is not a whole number from 0 to 999999999")
    return int(text)


def parse_workers(text: str) -> int:
    """Read a number of processes."""
    if not re.fullmatch(r"[0-9]{1,3}", text.strip()) or not 1 <= int(text) <= MAX_WORKERS:
        raise ValueError(f"{text!r} is not a number of workers from 1 to {MAX_WORKERS}")
    return int(text)


def parse_names(text: str) -> tuple[str, ...]:
    """Read a list of names with commas between them."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parse_database_url(text: str) -> str:
    """Take a database URL of SQLite or PostgreSQL."""
    # Late: it imports SQLAlchemy, which only `serve` and `migrate` need.
    from statekeep_server.storage.urls import parse_database_url as parse

    try:
        parse(text)
    except InvalidField as error:
        raise ValueError(error.message.removeprefix("database_url: ")) from None
    return text


@dataclass(frozen=True, slots=True)
class Knob:
    """One setting: its field, its option, its variable, and how its text is read.

    Attributes:
        field: Of `Settings`.
        option: None where only the environment may say it.
    """

    field: str
    option: str | None
    variable: str
    parse: Callable[[str], Any]


KNOBS = (
    Knob("database_url", "--database-url", "STATEKEEP_DATABASE_URL", parse_database_url),
    Knob("host", "--host", "STATEKEEP_HOST", parse_text),
    Knob("port", "--port", "STATEKEEP_PORT", parse_port),
    Knob("workers", "--workers", "STATEKEEP_WORKERS", parse_workers),
    # No option: whoever switches a server off in its environment must be sure that it is off.
    Knob("enable_optimized_persistence", None, "ENABLE_OPTIMIZED_PERSISTENCE", parse_switch),
    Knob("optimized_persistence_rollout", None, "OPTIMIZED_PERSISTENCE_ROLLOUT", parse_percent),
    Knob(
        "optimized_persistence_monitoring",
        None,
        "OPTIMIZED_PERSISTENCE_MONITORING",
        parse_switch,
    ),
    Knob("optimized_persistence_shadow", None, "OPTIMIZED_PERSISTENCE_SHADOW", parse_switch),
    Knob("trip_fallback_percent", None, "STATEKEEP_TRIP_FALLBACK_PERCENT", parse_percent),
    Knob("trip_mean_s", None, "STATEKEEP_TRIP_MEAN", parse_seconds),
    Knob("trip_p99_s", None, "STATEKEEP_TRIP_P99", parse_seconds),
    Knob("ignored_fields", "--ignored-field", "STATEKEEP_IGNORED_FIELDS", parse_names),
    Knob("max_skip_age_s", "--max-skip-age", "STATEKEEP_MAX_SKIP_AGE", parse_seconds),
    Knob("max_skips", "--max-skips", "STATEKEEP_MAX_SKIPS", parse_count),
    Knob("compression", "--compression", "STATEKEEP_COMPRESSION", parse_switch),
    Knob("cache_max_entries", None, "STATEKEEP_CACHE_MAX_ENTRIES", parse_count),
    Knob("cache_max_bytes", None, "STATEKEEP_CACHE_MAX_BYTES", parse_count),
    Knob("known_heads_max_bytes", None, "STATEKEEP_KNOWN_HEADS_MAX_BYTES", parse_count),
    Knob("payloads_max_bytes", None, "STATEKEEP_PAYLOADS_MAX_BYTES", parse_count),
    Knob("write_behind_max_age_s", None, "STATEKEEP_WRITE_BEHIND_MAX_AGE", parse_seconds),
    Knob("write_behind_max_runs", None, "STATEKEEP_WRITE_BEHIND_MAX_RUNS", parse_count),
    Knob("write_behind_max_bytes", None, "STATEKEEP_WRITE_BEHIND_MAX_BYTES", parse_count),
    Knob("write_behind_give_up_s", None, "STATEKEEP_WRITE_BEHIND_GIVE_UP", parse_seconds),
    Knob("metrics_port", "--metrics-port", "STATEKEEP_METRICS_PORT", parse_port),
    Knob("drain_timeout_s", None, "STATEKEEP_DRAIN_TIMEOUT", parse_seconds),
    Knob("token", "--token", "STATEKEEP_TOKEN", parse_text),
    Knob("tls_certificate_path", "--tls-cert", "STATEKEEP_TLS_CERT", parse_text),
    Knob("tls_key_path", "--tls-key", "STATEKEEP_TLS_KEY", parse_text),
    Knob("insecure", "--insecure", "STATEKEEP_INSECURE", parse_switch),
    Knob(
        "allow_unsafe_durability",
        "--allow-unsafe-durability",
        "STATEKEEP_ALLOW_UNSAFE_DURABILITY",
        parse_switch,
    ),
    Knob(
        "trust_tenant_metadata",
        "--trust-tenant-metadata",
        "STATEKEEP_TRUST_TENANT_METADATA",
        parse_switch,
    ),
)

LOG_LEVEL = Knob("log_level", "--log-level", "LOG_LEVEL", parse_log_level)
"""Of the process rather than of `Settings`."""
LOG_FORMAT = Knob("log_format", "--log-format", "STATEKEEP_LOG_FORMAT", parse_log_format)
"""Likewise."""


def read_options(options: Mapping[str, Any], environment: Mapping[str, str]) -> ServeOptions:
    """Read the settings of a server.

    Args:
        options: What the command line gave, by the field's name; None where it said nothing.
            Texts are parsed as variables are.
        environment: The process's variables.

    Raises:
        SettingsError: With every problem that was found.
    """
    problems: list[str] = []
    fields: dict[str, Any] = {}
    for knob in KNOBS:
        value = _read(knob, options.get(knob.field), environment, problems)
        if value is not None:
            fields[knob.field] = value
    level = _read(LOG_LEVEL, options.get("log_level"), environment, problems)
    form = _read(LOG_FORMAT, options.get("log_format"), environment, problems)
    told = ("STATEKEEP_DATABASE_URL", "STATEKEEP_DATABASE_URL_FILE")
    if not (options.get("database_url") or any(map(environment.get, told))):
        fields["database_url"] = _default_database_url(problems)
    problems += _contradictions(fields)
    if problems:
        raise SettingsError(tuple(problems))
    return ServeOptions(
        Settings(**fields),
        log_level=level or "INFO",
        log_format=form or "auto",
        unknown_variables=_unknown_variables(environment),
    )


def read_database_url(option: str | None, environment: Mapping[str, str]) -> str:
    """Read only where the database is, as `read_options` would."""
    problems: list[str] = []
    url = _read(KNOBS[0], option, environment, problems)
    if url is None and not problems:
        url = _default_database_url(problems)
    if problems:
        raise SettingsError(tuple(problems))
    return str(url)


def _read(
    knob: Knob, option: Any, environment: Mapping[str, str], problems: list[str]
) -> Any | None:
    """The parsed value of a setting; None if nobody said anything, or if it is a problem."""
    name, text = str(knob.option), option
    if isinstance(option, list) and option:
        return tuple(option)
    try:
        if option is None or option == []:
            name = knob.variable
            text = read_variable(name, environment)
        return knob.parse(text) if isinstance(text, str) else text
    except ValueError as error:
        problems.append(f"{name}: {error}")
        return None


def read_variable(name: str, environment: Mapping[str, str]) -> str | None:
    """Read a variable, or the file of a secret; None if neither says anything.

    An empty file is no secret: a server that took it would serve without a token.

    Raises:
        ValueError: The file cannot be read, or is empty.
    """
    if text := environment.get(name):
        return text
    path = environment.get(f"{name}_FILE") if name in SECRETS else None
    if not path:
        return None
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise ValueError(f"cannot read {path}, which {name}_FILE names: {why}") from None
    if not text:
        raise ValueError(f"{path}, which {name}_FILE names, is empty")
    return text


def _default_database_url(problems: list[str]) -> str:
    """A SQLite file in the user's data folder, which is made for its owner only."""
    folder = user_data_path("statekeep", appauthor=False)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        problems.append(
            f"--database-url: cannot make the folder {folder} of the embedded database: "
            f"{error.strerror}"
        )
    return sqlite_url(folder / "statekeep.db")


def sqlite_url(path: Path) -> str:
    """The database URL of a SQLite file."""
    return f"sqlite+aiosqlite:///{path.absolute()}"


def _contradictions(fields: Mapping[str, Any]) -> list[str]:
    """Settings that are good one by one and cannot be used together."""
    # Late: it imports gRPC, which `--help` does not need.
    from statekeep_server.domain.ignored import compile_ignored
    from statekeep_server.transport.listen import CannotServe, check_protection

    found = []
    try:
        compile_ignored(fields.get("ignored_fields", ()))
    except InvalidField as error:
        found.append(f"--ignored-field: {error.message.removeprefix('ignored_fields: ')}")
    settings = Settings(**{"database_url": "", **fields})
    try:
        check_protection(settings)
    except CannotServe as error:
        found.append(str(error))
    try:
        check_workers(settings)
    except CannotSupervise as error:
        found.append(f"--workers: {error}")
    return found


def _unknown_variables(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Variables of our prefix that nothing reads: most likely misspelt."""
    known = [knob.variable for knob in KNOBS] + [*OTHER_VARIABLES, LOG_FORMAT.variable]
    unknown = sorted(
        name for name in environment if name.startswith("STATEKEEP_") and name not in known
    )
    hints = []
    for name in unknown:
        close = get_close_matches(name, known, n=1, cutoff=0.85)  # a letter or two
        hints.append(f"{name} (did you mean {close[0]}?)" if close else name)
    return tuple(hints)
