"""The dashboards as the texts of their files, and as tables for the docs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from tools.dashboards.database import database
from tools.dashboards.fleet import fleet
from tools.dashboards.overview import overview
from tools.dashboards.saves import saves

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "grafana" / "dashboards"
PAGE = ROOT / "docs" / "dashboards.md"
BEGIN, END = "<!-- panels of {name} -->", "<!-- end of panels -->"

DASHBOARDS = {"overview": overview, "saves": saves, "database": database, "fleet": fleet}


def built() -> Mapping[str, str]:
    """Build all: the text of each JSON file by the name of its dashboard."""
    return {name: _text(name) for name in DASHBOARDS}


def _text(name: str) -> str:
    board = DASHBOARDS[name]().build()
    # Grafana numbers panels that have no number, and then saves a file that differs from ours.
    for number, panel in enumerate(board.panels or (), start=1):
        panel.id_val = number
    return json.dumps(board, cls=JSONEncoder, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def documented(page: str) -> str:
    """Return the page of the docs with its tables of panels as they are now."""
    for name, text in built().items():
        begin = BEGIN.format(name=name)
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(END)
        page = f"{before}{begin}\n{_table(json.loads(text))}{END}{after}"
    return page


def _table(board: Mapping[str, Any]) -> str:
    rows = ["\n| panel | what it shows |", "|---|---|"]
    for panel in board["panels"]:
        if panel["type"] == "row":
            rows.append(f"| **{panel['title']}** | |")
        else:
            rows.append(f"| {panel['title']} | {panel['description']} |")
    return "\n".join(rows) + "\n\n"
