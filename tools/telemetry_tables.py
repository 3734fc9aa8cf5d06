"""Writes the tables of `docs/telemetry.md`, from the names that a server itself uses."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from statekeep_server.telemetry import names
from statekeep_server.telemetry.instruments import Kind, Metric, label_of

TARGET = Path(__file__).resolve().parents[1] / "docs" / "telemetry.md"


def code(words: Iterable[str]) -> str:
    """Write names."""
    return ", ".join(f"`{word}`" for word in words)


def spans() -> Iterator[str]:
    """Write the table of the spans."""
    yield "| span | kind | what it is | attributes | events |"
    yield "|---|---|---|---|---|"
    for span in names.SPANS:
        what = f"{span.description} Linked with {span.links}." if span.links else span.description
        events = code(event.name for event in span.events)
        yield f"| `{span.name}` | {span.kind} | {what} | {code(span.attributes)} | {events} |"


def events() -> Iterator[str]:
    """Write the table of the events."""
    yield "| event | what happened | attributes |"
    yield "|---|---|---|"
    for event in (names.DECISION, names.FALLBACK, names.RETRY, names.FAILURE):
        yield f"| `{event.name}` | {event.description} | {code(event.attributes)} |"


def metrics() -> Iterator[str]:
    """Write the table of the metrics."""
    yield "| metric | kind, unit | in Prometheus | labels there | what it says |"
    yield "|---|---|---|---|---|"
    for metric in names.METRICS:
        yield row(metric)


def row(metric: Metric) -> str:
    """Write a metric."""
    kind = f"{metric.kind}, `{metric.unit}`"
    more = "_bucket" if metric.kind is Kind.HISTOGRAM else ""
    labels = code(map(label_of, metric.labels))
    return (
        f"| `{metric.name}` | {kind} | `{metric.prometheus}{more}` | {labels} | "
        f"{metric.description} |"
    )


def filled(text: str) -> str:
    """Put each table between its marks."""
    for name, lines in (("spans", spans()), ("events", events()), ("metrics", metrics())):
        table = "\n".join(lines)
        begin, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not found or not ended:
            raise SystemExit(f"{TARGET.name} has no place for the table of the {name}")
        text = f"{before}{begin}{table}\n{end}{after}"
    return text


def main() -> None:
    """Write the tables, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if it differs")
    wanted = filled(TARGET.read_text(encoding="utf-8"))
    if not parser.parse_args().check:
        TARGET.write_text(wanted, encoding="utf-8")
    elif wanted != TARGET.read_text(encoding="utf-8"):
        sys.exit("docs/telemetry.md is not what the code says: run `make configuration`")


if __name__ == "__main__":
    main()
