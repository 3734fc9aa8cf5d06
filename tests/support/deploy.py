"""What is under `deploy/`, read for tests, and the linters of others, where they are installed."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.project import ROOT, run

DEPLOY = ROOT / "deploy"
PLACES = (ROOT / "build" / "tools", ROOT / ".venv-deploy" / "bin")
"""Where `make deploy-tools` puts them."""


def linter(name: str, how: str = "make deploy-tools") -> Path:
    """Find a linter, or skip the test and say how it is had."""
    for place in PLACES:
        if (place / name).exists():
            return place / name
    if found := shutil.which(name):
        return Path(found)
    pytest.skip(f"{name} is not installed, so what it would find stays unseen: {how}")


def lint(*command: str | Path) -> str:
    """Run a linter; return what it said on stdout. Fails with all of it unless it passes."""
    done = run(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def read_yaml(path: Path | str) -> Any:
    """Read a document under `deploy/`."""
    return yaml.safe_load((DEPLOY / path).read_text(encoding="utf-8"))
