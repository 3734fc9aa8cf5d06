"""The compose file: valid, closed, and in agreement with what it starts."""

import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from statekeep_server.cli.settings import KNOBS, LOG_LEVEL, SECRETS
from tests.support.cli_server import cli_server
from tests.support.deploy import DEPLOY, lint, linter, read_yaml
from tests.support.project import BIN

COMPOSE = read_yaml("compose/compose.yaml")
SERVICES: dict[str, Any] = COMPOSE["services"]
FOLDER = DEPLOY / "compose"
OURS = SERVICES["statekeep"]


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The secrets that the script makes, in a folder of the test's own."""
    script = tmp_path / "secrets.sh"
    script.write_bytes((FOLDER / "secrets.sh").read_bytes())
    for _ in range(2):  # the second time changes nothing
        said = subprocess.run(["/bin/sh", script], check=True, capture_output=True).stdout
    assert said == b""
    return tmp_path / "secrets"


def test_the_reference_implementation_reads_it() -> None:
    lint(linter("compose-go"), FOLDER / "compose.yaml")


def test_the_secrets_are_made_and_kept_from_others(secrets: Path) -> None:
    named = {Path(each["file"]).name for each in COMPOSE["secrets"].values()}
    assert {path.name for path in secrets.iterdir()} == named
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    password = (secrets / "postgres-password").read_text()
    assert re.fullmatch("[0-9a-f]{64}", password)
    url = (secrets / "database-url").read_text()
    assert url == f"postgresql://statekeep:{password}@postgres/statekeep"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_closed(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] not in {"root", "0", "0:0"}
    assert {"cpus", "memory", "pids"} == set(service["deploy"]["resources"]["limits"])
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:"), "only this machine reaches it"
    image = re.fullmatch(r"\$\{[A-Z_]+:-([\w./-]+):([\w.-]+)\}", service["image"])
    assert image, "its own variable, and a tag"
    assert image[2] != "latest"


def test_no_secret_stands_in_the_open() -> None:
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    values = re.findall(r"(?:PASSWORD|TOKEN|DATABASE_URL)\w*: (.+)", text)
    assert values
    assert all(value.startswith("/run/secrets/") for value in values)


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_exists(name: str) -> None:
    for volume in SERVICES[name].get("volumes", ()):
        source = volume.split(":")[0]
        if source.startswith("."):
            assert (FOLDER / source).exists(), source
        else:
            assert source in COMPOSE["volumes"]


def test_every_variable_of_the_server_is_one() -> None:
    known = {knob.variable for knob in KNOBS} | {f"{name}_FILE" for name in SECRETS}
    known.add(LOG_LEVEL.variable)
    for service in ("statekeep", "migrate"):
        ours = {name for name in SERVICES[service]["environment"] if not name.startswith("OTEL_")}
        assert ours <= known


def test_the_ports_of_telemetry_agree() -> None:
    collector = read_yaml("otel/collector.yaml")
    endpoint = OURS["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    listens = collector["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    assert endpoint == f"http://otel-collector:{listens.rpartition(':')[2]}"
    assert collector["exporters"]["otlp/jaeger"]["endpoint"].split(":")[0] in SERVICES
    scraped = [
        target
        for job in read_yaml("prometheus/prometheus.yaml")["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    ]
    port = OURS["environment"]["OTEL_EXPORTER_PROMETHEUS_PORT"]
    assert f"statekeep:{port}" in scraped


def test_the_pipelines_of_the_collector_are_made_of_what_it_defines() -> None:
    collector = read_yaml("otel/collector.yaml")
    assert set(collector["service"]["extensions"]) <= set(collector["extensions"])
    used: dict[str, set[str]] = {"receivers": set(), "processors": set(), "exporters": set()}
    for pipeline in collector["service"]["pipelines"].values():
        assert pipeline["processors"][0] == "memory_limiter", "it must refuse first"
        for kind, names in used.items():
            names.update(pipeline[kind])
    assert {kind: set(collector[kind]) for kind in used} == used


def seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text[:-1])


async def test_what_it_starts_serves_and_answers_its_probe(
    tmp_path: Path, sqlite_url: str, secrets: Path
) -> None:
    (secrets / "database-url").chmod(0o600)
    (secrets / "database-url").write_text(sqlite_url)
    environment = {
        name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value).replace("/run/secrets", str(secrets))
        for name, value in OURS["environment"].items()
        if not name.startswith("OTEL_")  # nothing of it is there
    }
    environment |= {"STATEKEEP_HOST": "127.0.0.1", "STATEKEEP_DATABASE_URL": ""}
    assert OURS["command"] == ["serve"]
    environment.pop("STATEKEEP_DATABASE_URL")
    async with cli_server(tmp_path, database_url="", **environment) as server:
        kind, program, *words = OURS["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "statekeep")
        done = subprocess.run(
            [BIN / program, *words, "--target", server.target], check=False, capture_output=True
        )
        assert (done.returncode, done.stdout) == (0, b"SERVING\n"), done.stderr
        told = {"STATEKEEP_TOKEN_FILE": str(secrets / "token"), "STATEKEEP_TARGET": server.target}
        for variables, code in ((told, 0), ({**told, "STATEKEEP_TOKEN_FILE": ""}, 1)):
            done = subprocess.run(
                [BIN / "statekeep", "stats"], env=variables, check=False, capture_output=True
            )
            assert done.returncode == code, done.stderr
        assert await server.end() == 0
    from statekeep_server.config import Settings

    assert seconds(OURS["stop_grace_period"]) > Settings(database_url="").drain_timeout_s
