"""The documentation is true, as far as a program can check it."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from statekeep.v1.error_reason_pb2 import ErrorReason
from statekeep_server.cli.main import app
from statekeep_server.config import OPTIMIZED_POOL, STANDARD_POOL
from tests.support.project import CLIENT, ROOT, SERVER, project_files, relative

DOCS = [path for path in project_files(".md") if ROOT / "tests" not in path.parents]
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


@cache
def text(path: Path) -> str:
    """Read a document."""
    return path.read_text(encoding="utf-8")


def anchors(path: Path) -> set[str]:
    """List the anchors of a document's headings, as Markdown viewers make them."""
    headings = re.findall(r"^#+ (.+)$", CODE_BLOCK.sub("", text(path)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def code(path: Path) -> Iterator[str]:
    """List what a document shows as code, line by line: blocks and inline."""
    for block in CODE_BLOCK.findall(text(path)):
        yield from block.splitlines()[1:-1]
    yield from re.findall(r"`([^`\n]+)`", CODE_BLOCK.sub("", text(path)))


@pytest.mark.parametrize("path", DOCS, ids=relative)
def test_every_link_leads_somewhere(path: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", CODE_BLOCK.sub("", text(path))):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("path", DOCS, ids=relative)
def test_every_named_file_exists(path: Path) -> None:
    homes = (ROOT, ROOT / "docs", SERVER, CLIENT, path.parent)
    named = {
        word
        for line in code(path)
        for word in re.findall(
            r"(?:^|(?<=[\s(]))[\w./-]+/[\w.-]+\.(?:py|md|proto|toml|lock)\b", line
        )
    }
    missing = {name for name in named if not any((home / name).exists() for home in homes)}
    assert not missing


@pytest.mark.parametrize("path", DOCS, ids=relative)
def test_every_make_command_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text(ROOT / "Makefile"), re.MULTILINE))
    named = {name for line in code(path) for name in re.findall(r"^\s*make ([a-z-]+)", line)}
    assert named <= targets


@pytest.mark.parametrize("path", DOCS, ids=relative)
def test_every_statekeep_command_exists_with_its_options(path: Path) -> None:
    for line in code(path):
        if not (found := re.match(r"(?:[A-Z_]+=\S+ )*statekeep (.*)", line)):
            continue
        words = found[1].split()
        command: Any = typer.main.get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        options = {"--help"}.union(*(parameter.opts for parameter in command.params))
        unknown = {word for word in words if word.startswith("-")} - options
        assert not unknown, line
        assert not hasattr(command, "commands") or words, f"{line}: which command?"
        assert not hasattr(command, "commands") or words[0] in options, line


def test_the_readme_names_the_commands_that_matter() -> None:
    shown = "\n".join(code(ROOT / "README.md"))
    missing = [name for name in ("make demo", "make test", "statekeep serve") if name not in shown]
    assert not missing


def test_every_error_has_a_cure() -> None:
    reasons = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118  # the wrapper is no dictionary
    _, *sections = re.split(r"^### ", text(ROOT / "docs/troubleshooting.md"), flags=re.MULTILINE)
    cures = {section.splitlines()[0]: section for section in sections}
    assert cures.keys() == reasons - {"UNSPECIFIED"}
    for reason, cure in cures.items():
        for part in ("**Symptom**", "**Command**", "**Cause", "ure**"):
            assert part in cure, f"{reason} says nothing under {part}"


def test_the_pools_are_as_promised() -> None:
    operations = text(ROOT / "docs/operations.md")
    for name, pool in (("standard", STANDARD_POOL), ("optimized", OPTIMIZED_POOL)):
        sizes = f"{pool.pool_size} | {pool.max_overflow} | {pool.pool_timeout_s}"
        assert f"| {name} | {sizes} | {pool.pool_recycle_s:,} |" in operations


def test_the_changelog_has_a_place_for_what_changes_now() -> None:
    versions = re.findall(r"^## \[(.+?)\]", text(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert versions[0] == "Unreleased" or re.fullmatch(r"\d+\.\d+\.\d+", versions[0])


def test_decisions_are_numbered_and_listed() -> None:
    pages = sorted((ROOT / "docs/decisions").glob("0*.md"))
    # A number that was taken and given up again leaves a gap.
    assert len({page.name[:4] for page in pages}) == len(pages)
    listed = text(ROOT / "docs/decisions/README.md")
    for page in pages:
        title = text(page).splitlines()[0].removeprefix("# ")
        number, _, name = title.partition(": ")
        assert f"| [{number}]({page.name}) | {name} |" in listed
        for part in ("Context", "Decision", "Consequences", "What would change our mind"):
            assert f"\n## {part}\n" in text(page), page.name
