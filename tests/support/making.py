"""`make` as its users call it, and the Go programs that it builds."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.project import ROOT

MAKE = shutil.which("make") or "make"


def make(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `make` in the project's folder and return what it said."""
    # `make test` may have started this: its own variables would make this one a part of it.
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    return subprocess.run(
        [MAKE, "--no-print-directory", *arguments],
        cwd=ROOT,
        env=own | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def built_with_go(program: str, *, in_ci: bool = True) -> Path:
    """The path of a program in build/tools, current with its source.

    A first build takes a minute, so that it is made in CI alone: elsewhere the test is skipped. One
    that takes longer is not made there either.
    """
    target = f"build/tools/{program}"
    if shutil.which("go") is None:
        pytest.skip(f"Go is missing, which builds {target}")
    if not (ROOT / target).exists() and not (in_ci and os.environ.get("CI")):
        pytest.skip(f"{target} is not built; `make {target}` takes a minute or more")
    built = make(target)
    assert built.returncode == 0, built.stderr
    return ROOT / target
