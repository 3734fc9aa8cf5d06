"""What `statekeep doctor` sees in settings and files: contradictions, surprises, open doors."""

import os
import ssl
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from statekeep_server.cli.findings import Finding, note, ok, problem, warning
from statekeep_server.cli.settings import ServeOptions, SettingsError, read_options
from statekeep_server.config import Settings

DAY_S = 86_400.0
"""Ignored fields older than a day surprise whoever resumes."""


def check_settings(
    database_url: str | None, environment: Mapping[str, str]
) -> tuple[Settings | None, list[Finding]]:
    """Read the settings as `serve` would, and look at them."""
    try:
        options = read_options({"database_url": database_url}, environment)
    except SettingsError as error:
        cure = "correct the variable; `statekeep serve --help` lists them"
        return None, [problem("settings", each, cure) for each in error.problems]
    found = [*_unknown(options), *_unsafe(options.settings), *_nonsense(options)]
    return options.settings, found or [ok("settings", "read, and they agree with one another")]


def _unknown(options: ServeOptions) -> Iterator[Finding]:
    for name in options.unknown_variables:
        yield warning("settings", f"nothing reads the variable {name}", "correct or remove it")


def _unsafe(settings: Settings) -> Iterator[Finding]:
    from statekeep_server.transport.listen import is_loopback  # late: it imports gRPC

    if settings.allow_unsafe_durability:
        yield warning(
            "settings",
            "STATEKEEP_ALLOW_UNSAFE_DURABILITY lets a database lose acknowledged saves",
            "unset it, unless the data may be lost",
        )
    if settings.insecure and not is_loopback(settings.host):
        yield warning(
            "settings",
            f"plaintext, or no token, on {settings.host}",
            "give STATEKEEP_TLS_CERT, STATEKEEP_TLS_KEY and STATEKEEP_TOKEN, and unset "
            "STATEKEEP_INSECURE",
        )
    if settings.trust_tenant_metadata:
        yield warning(
            "settings",
            "every caller chooses its tenant (STATEKEEP_TRUST_TENANT_METADATA)",
            "unset it beyond development",
        )


def _nonsense(options: ServeOptions) -> Iterator[Finding]:
    settings = options.settings
    if settings.enable_optimized_persistence is False and settings.optimized_persistence_rollout:
        yield warning(
            "settings",
            "ENABLE_OPTIMIZED_PERSISTENCE=false wins over OPTIMIZED_PERSISTENCE_ROLLOUT",
            "unset ENABLE_OPTIMIZED_PERSISTENCE to let the rollout decide",
        )
    if settings.enable_optimized_persistence and settings.optimized_persistence_rollout == 0:
        yield warning(
            "settings",
            "the optimized path is enabled for 0 % of the runs",
            "raise OPTIMIZED_PERSISTENCE_ROLLOUT, or unset it",
        )
    if settings.max_skip_age_s == 0 or settings.max_skips == 0:
        yield warning(
            "settings",
            "nothing is ever skipped: STATEKEEP_MAX_SKIP_AGE or STATEKEEP_MAX_SKIPS is 0",
            "unset them to skip unchanged saves",
        )
    if settings.max_skip_age_s > DAY_S:
        yield warning(
            "settings",
            f"ignored fields may be {settings.max_skip_age_s / 3_600:,.0f} hours old in a resume",
            "lower STATEKEEP_MAX_SKIP_AGE",
        )
    if not (settings.trip_fallback_percent or settings.trip_mean_s or settings.trip_p99_s):
        yield warning(
            "settings",
            "the server never goes to standard by itself: all STATEKEEP_TRIP_ limits are 0",
            "unset one of them",
        )
    if settings.workers > (cores := os.cpu_count() or 1):
        yield warning(
            "settings",
            f"{settings.workers} workers share {cores} processor cores",
            f"set STATEKEEP_WORKERS to {cores} at most",
        )
    if options.log_level == "DEBUG":
        yield note("settings", "LOG_LEVEL=DEBUG logs every save: for looking, not for load")


def check_files(settings: Settings) -> Iterator[Finding]:
    """Look at the files of TLS: whether they fit, and whether the key is kept from others."""
    path = settings.tls_key_path
    if path is None:
        return
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        yield problem("TLS key", f"{path}: {error.strerror}", "correct STATEKEEP_TLS_KEY")
        return
    yield _private("TLS key", path, mode)
    yield _pair(str(settings.tls_certificate_path), path)


def _pair(certificate: str, key: str) -> Finding:
    about = "TLS"
    try:
        # Without a password: the server does not ask for one either.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, lambda: "")
    except ssl.SSLError:  # what OpenSSL says of a file, PEM lib, helps nobody
        why = "not PEM, or not a pair"
    except OSError as error:
        why = error.strerror or "no such file"
    else:
        return ok(about, f"{key} is the key of {certificate}")
    cure = "give a certificate and its key, both PEM: STATEKEEP_TLS_CERT and STATEKEEP_TLS_KEY"
    return problem(about, f"{certificate} and {key} cannot be used: {why}", cure)


def _private(about: str, path: str | Path, mode: int) -> Finding:
    bits = stat.S_IMODE(mode)
    if bits & 0o077:
        return problem(
            about, f"{path} can be reached by others (mode {bits:04o})", f"chmod 600 {path}"
        )
    return ok(about, f"{path} belongs to its owner alone (mode {bits:04o})")


def check_sqlite_file(path: Path) -> Iterator[Finding]:
    """Look at a SQLite file, its companions and the room beside it."""
    about = "database file"
    if not path.exists():
        yield note(about, f"{path} is not there yet; `statekeep serve` creates it")
    else:
        for each in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            if each.exists():
                yield _private(about, each, each.stat().st_mode)
        if not os.access(path, os.R_OK | os.W_OK):
            yield problem(about, f"{path} cannot be read and written", f"chown {path} to this user")
    folder = next(each for each in (path.absolute(), *path.absolute().parents) if each.is_dir())
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize
    yield _room(folder, free)


MIB = 1024 * 1024
LITTLE_ROOM = 1024 * MIB
NO_ROOM = 64 * MIB
"""SQLite's log alone may grow to tens of MB before it is written back."""


def _room(folder: Path, free: int) -> Finding:
    about, found = "disk", f"{free // MIB:,} MiB free in {folder}"
    if free < NO_ROOM:
        return problem(about, found, "free some space: saves fail when the disk is full")
    if free < LITTLE_ROOM:
        return warning(about, found, "free some space, or keep fewer states")
    return ok(about, found)
