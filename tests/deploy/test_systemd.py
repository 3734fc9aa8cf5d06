"""The unit of systemd: verified by systemd itself, hardened, and with time to drain."""

from pathlib import Path

from statekeep_server.config import Settings
from tests.support.deploy import DEPLOY, lint, linter
from tests.support.project import BIN

UNIT = DEPLOY / "systemd" / "statekeep.service"
DEBIAN = "apt-get install systemd"


def service() -> dict[str, list[str]]:
    """The lines of the section [Service]; a name may stand there several times."""
    found: dict[str, list[str]] = {}
    _, _, section = UNIT.read_text(encoding="utf-8").partition("[Service]\n")
    for line in section.partition("\n[")[0].splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_systemd_verifies_it(tmp_path: Path) -> None:
    # systemd looks for the program too: here it is that of the development environment.
    text = UNIT.read_text(encoding="utf-8")
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace("/opt/statekeep/bin/statekeep", str(BIN / "statekeep")))
    lint(linter("systemd-analyze", DEBIAN), "verify", "--man=no", unit)


def test_systemd_finds_it_hardly_exposed() -> None:
    analyze = linter("systemd-analyze", DEBIAN)
    # 0 is best, 10 is worst; the threshold is in tenths.
    lint(analyze, "security", "--offline=true", "--threshold=15", UNIT)


def test_it_stops_as_the_server_stops() -> None:
    lines = service()
    drain_s = Settings(database_url="").drain_timeout_s
    assert float(lines["TimeoutStopSec"][0].removesuffix("s")) >= drain_s + 10
    assert lines["KillSignal"] == ["SIGTERM"]
    assert lines["RestartPreventExitStatus"] == ["2"]


def test_secrets_are_credentials() -> None:
    lines = service()
    credentials = {line.partition(":")[0] for line in lines["LoadCredential"]}
    environment = dict(line.split("=", 1) for line in lines["Environment"])
    assert environment["STATEKEEP_TOKEN_FILE"] == "%d/token"
    assert environment["STATEKEEP_DATABASE_URL_FILE"] == "%d/database-url"
    assert credentials == {"token", "database-url"}
