"""Write the dashboards, and the tables of their panels: `python -m tools.dashboards`."""

from tools.dashboards.build import FOLDER, PAGE, built, documented

FOLDER.mkdir(parents=True, exist_ok=True)
for name, text in built().items():
    (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")
PAGE.write_text(documented(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
