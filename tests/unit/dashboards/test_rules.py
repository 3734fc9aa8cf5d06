"""The rules of Prometheus: about metrics that there are, with a runbook, and tested by promtool."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from statekeep.v1.error_reason_pb2 import ErrorReason
from statekeep_server.telemetry import names
from tests.support.known_metrics import LABELS, OTHERS, known_labels, known_metrics
from tests.support.project import ROOT, must_pass
from tests.support.promql import named
from tests.test_docs import anchors

FOLDER = ROOT / "deploy" / "prometheus"
RULES = sorted((FOLDER / "rules").glob("*.yaml"))
TESTS = sorted((FOLDER / "tests").glob("*.yaml"))

with_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is missing (Debian's package prometheus has it)",
)


def read(path: Path) -> Any:
    """Read a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


RULE_LIST = [rule for path in RULES for group in read(path)["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULE_LIST if "alert" in rule}
RECORDED = {rule["record"] for rule in RULE_LIST if "record" in rule}


def test_every_metric_and_label_exists() -> None:
    used: set[str] = set()
    for rule in RULE_LIST:
        found = named(rule["expr"])
        assert found.metrics <= known_metrics() | RECORDED | OTHERS, rule
        assert found.labels <= known_labels() | LABELS, rule
        used |= found.metrics
    assert used >= RECORDED, "worked out for nobody"


def test_what_the_rules_compare_with_is_there() -> None:
    text = "\n".join(rule["expr"] for rule in RULE_LIST)
    bounds = {float(bound) for bound in re.findall(r'le="([^"]+)"', text)}
    assert bounds == {0.25}
    assert bounds <= set(names.DURATION_BOUNDS)
    reasons = set(re.findall(r'reason="([^"]+)"', text))
    assert reasons
    assert {f"ERROR_REASON_{reason}" for reason in reasons} <= set(ErrorReason.keys())


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_and_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    assert name.startswith("Statekeep")  # a stat of the overview counts those
    assert alert["labels"]["severity"] in {"critical", "warning"}
    said = alert["annotations"]
    assert said.keys() == {"summary", "description", "runbook_url"}
    assert not said["summary"].endswith(".")
    assert said["description"].endswith(".")
    page, _, anchor = said["runbook_url"].partition("#")
    assert anchor in anchors(ROOT / page)


def test_the_docs_list_every_alert() -> None:
    page = (ROOT / "docs" / "dashboards.md").read_text(encoding="utf-8")
    for name, alert in ALERTS.items():
        assert f"| `{name}` | {alert['labels']['severity']} |" in page


def test_every_alert_is_tested_both_ways() -> None:
    fires: set[str] = set()
    quiet: set[str] = set()
    for path in TESTS:
        for case in read(path)["tests"]:
            for check in case.get("alert_rule_test", ()):
                (fires if check.get("exp_alerts") else quiet).add(check["alertname"])
    assert fires == quiet == set(ALERTS)


@with_promtool
def test_prometheus_accepts_the_files() -> None:
    must_pass("promtool", "check", "rules", *RULES)
    must_pass("promtool", "check", "config", FOLDER / "prometheus.yaml")


@with_promtool
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_where_they_should_and_only_there(path: Path) -> None:
    must_pass("promtool", "test", "rules", path)
