"""The Helm chart: linted, rendered with several values, and each document valid for Kubernetes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from statekeep_server.cli.settings import KNOBS, LOG_LEVEL
from statekeep_server.config import Settings
from tests.support.deploy import DEPLOY, lint, linter, read_yaml
from tests.support.project import run

CHART = DEPLOY / "helm" / "statekeep"
DIGEST = "sha256:" + "0" * 64
DATABASE = "database.existingSecret=db"
PLAIN = (DATABASE, "insecure=true")
TLS = (DATABASE, "token.existingSecret=token", "tls.existingSecret=tls")
FULL = (*TLS, "autoscaling.enabled=true", "workers=4", f"image.digest={DIGEST}")
EXTRA = ("flags.enableOptimizedPersistence=false", "telemetry.otlpEndpoint=http://collector:4317")
CASES = {"plain": PLAIN, "tls": TLS, "full": (*FULL, *EXTRA)}


def options(values: tuple[str, ...]) -> list[str]:
    return [
        word
        for value in values
        for word in ("--set-string" if "false" in value else "--set", value)
    ]


def rendered(values: tuple[str, ...]) -> str:
    return lint(linter("helm"), "template", "test", CHART, *options(values))


def documents(values: tuple[str, ...]) -> dict[str, Any]:
    """Render; the documents by kind and name."""
    found = yaml.safe_load_all(rendered(values))
    return {f"{each['kind']} {each['metadata']['name']}": each for each in found if each}


@pytest.mark.parametrize("case", CASES)
def test_helm_lints_it(case: str) -> None:
    lint(linter("helm"), "lint", "--strict", CHART, *options(CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_kubernetes_would_take_it(case: str, tmp_path: Path) -> None:
    validate = linter("kubernetes-validate")
    file = tmp_path / "rendered.yaml"
    file.write_text(rendered(CASES[case]))
    for version in ("1.27", "1.37"):
        lint(validate, "--strict", "--kubernetes-version", version, file)


def test_a_server_that_is_open_to_all_is_refused() -> None:
    helm = linter("helm")
    for values in ((), (DATABASE,), (DATABASE, "token.existingSecret=token")):
        done = run(helm, "template", "test", CHART, *options(values))
        assert done.returncode != 0
        assert "existingSecret" in done.stderr


def test_a_misspelt_value_is_refused() -> None:
    done = run(linter("helm"), "template", "test", CHART, *options((*PLAIN, "replica=3")))
    assert done.returncode != 0
    assert "replica" in done.stderr


def test_what_is_rendered() -> None:
    found = documents(CASES["full"])
    assert sorted(name.split()[0] for name in found) == [
        "Deployment",
        "HorizontalPodAutoscaler",
        "Job",
        "PodDisruptionBudget",
        "Service",
        "Service",
        "ServiceAccount",
    ]
    deployment = found["Deployment test-statekeep"]
    assert "replicas" not in deployment["spec"], "the autoscaler decides"
    pod = deployment["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    assert server["image"] == f"statekeep@{DIGEST}"
    known = {knob.variable for knob in KNOBS} | {LOG_LEVEL.variable}
    variables = {each["name"] for each in server["env"]}
    assert {name for name in variables if not name.startswith("OTEL_")} <= known
    assert server["livenessProbe"]["exec"]["command"][:3] == [
        "statekeep",
        "health",
        "statekeep.v1.AdminService",
    ]
    job = found["Job test-statekeep-migrate"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"


def test_the_probes_without_tls_are_those_of_grpc() -> None:
    (server,) = documents(PLAIN)["Deployment test-statekeep"]["spec"]["template"]["spec"][
        "containers"
    ]
    assert server["readinessProbe"]["grpc"] == {"port": 50551}
    assert server["livenessProbe"]["grpc"]["service"] == "statekeep.v1.AdminService"


def test_every_value_is_in_the_schema_and_has_a_default() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = read_yaml("helm/statekeep/values.yaml")
    assert set(schema["properties"]) - {"global"} == set(values)
    for name, value in values.items():
        described = schema["properties"][name].get("properties")
        if described and isinstance(value, dict):
            assert set(described) == set(value), name


def test_every_value_is_used() -> None:
    templates = "".join(
        path.read_text(encoding="utf-8") for path in sorted((CHART / "templates").iterdir())
    )
    unused = [
        name
        for name in read_yaml("helm/statekeep/values.yaml")
        if not re.search(rf"\.Values\.{name}\b", templates)
    ]
    assert not unused


def test_a_pod_has_time_to_drain() -> None:
    values = read_yaml("helm/statekeep/values.yaml")
    drain_s = Settings(database_url="").drain_timeout_s
    assert values["terminationGracePeriodSeconds"] >= values["preStopSeconds"] + drain_s + 10
