"""The dashboards: built from the code, complete, and about metrics that there are."""

import itertools
import json
import re
from typing import Any

import pytest
import yaml

from tests.support.known_metrics import LABELS, OTHERS, known_labels, known_metrics
from tests.support.project import ROOT
from tests.support.promql import named
from tools.dashboards.build import FOLDER, PAGE, built, documented

NAMES = ("overview", "saves", "database", "fleet")


def board(name: str) -> dict[str, Any]:
    """Read a dashboard that is committed."""
    read: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return read


def panels(name: str) -> list[dict[str, Any]]:
    """List its panels, without the headings between them."""
    return [panel for panel in board(name)["panels"] if panel["type"] != "row"]


def queries(name: str) -> list[str]:
    """List what it asks Prometheus, the choices at its top included."""
    asked = [target["expr"] for panel in panels(name) for target in panel["targets"]]
    choices = [
        re.sub(r"label_values\((.*), (\w+)\)", r"count by (\2) (\1)", choice["query"])
        for choice in board(name)["templating"]["list"]
        if choice["type"] == "query"
    ]
    return asked + choices


def test_what_is_committed_is_what_the_code_builds() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == sorted(NAMES)
    for name, text in built().items():
        assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == text, "make dashboards"


def test_the_docs_list_every_panel() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert documented(page) == page, "make dashboards"
    assert "| Skip rate | " in page


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_says_what_it_shows(name: str) -> None:
    for panel in panels(name):
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["targets"]
        if panel["type"] in {"stat", "timeseries"}:
            assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("name", NAMES)
def test_no_two_panels_share_a_place_or_a_number(name: str) -> None:
    everything = board(name)["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in everything
        for x, y in itertools.product(range(panel["gridPos"]["w"]), range(panel["gridPos"]["h"]))
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24  # the columns of Grafana's grid


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_and_label_exists(name: str) -> None:
    for query in queries(name):
        found = named(query)
        assert found.metrics
        assert found.metrics <= known_metrics() | OTHERS, query
        assert found.labels <= known_labels() | LABELS, query


@pytest.mark.parametrize("name", NAMES)
def test_every_query_asks_for_the_chosen_servers_only(name: str) -> None:
    chosen = '{job=~"$job", instance=~"$instance"'
    for panel in panels(name):
        for query in (target["expr"] for target in panel["targets"]):
            for metric in named(query).metrics - OTHERS:
                assert len(re.findall(rf"\b{metric}\b", query)) == query.count(metric + chosen)


def test_the_names_of_a_query() -> None:
    found = named(
        'sum by (job, le) (rate(a_total{x="by (c)", y!~"d"}[5m])) / on (job) (b:c offset 5m > 0.5)'
    )
    assert found.metrics == {"a_total", "b:c"}
    assert found.labels == {"job", "le", "x", "y"}


def test_grafana_is_told_where_the_files_are() -> None:
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())
    assert source["datasources"][0]["type"] == "prometheus"
    scrape = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yaml").read_text())
    assert (
        source["datasources"][0]["jsonData"]["timeInterval"]
        == (scrape["global"]["scrape_interval"])
    )
    provider = yaml.safe_load((provisioning / "dashboards" / "statekeep.yaml").read_text())
    (only,) = provider["providers"]
    assert only["type"] == "file"
    assert only["options"]["path"]
