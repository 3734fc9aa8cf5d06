"""The configuration reference is what the code says, and names every variable that it reads."""

import ast
import re
from collections.abc import Iterator

import pytest
import typer

from statekeep_server.cli.main import app
from tests.support.project import BIN, CLIENT, ROOT, SERVER, must_pass, python_files, relative
from tests.support.source import Module, read

REFERENCE = ROOT / "docs" / "configuration.md"
PRODUCT = [read(path) for path in python_files() if {SERVER, CLIENT} & set(path.parents)]
VARIABLE = re.compile(r"(STATEKEEP|OTEL|GRPC|ENABLE|OPTIMIZED|XDG)_[A-Z0-9_]+|LOG_LEVEL")
ENVIRONMENTS = {"environ", "environment", "variables", "os.environ"}


def documented() -> set[str]:
    return set(re.findall(r"`([A-Z][A-Z0-9_]+)`", REFERENCE.read_text(encoding="utf-8")))


def is_environment(node: ast.expr) -> bool:
    return ast.unparse(node).removeprefix("self.").lstrip("_") in ENVIRONMENTS


def read_from_environments(module: Module) -> Iterator[str]:
    """List what is looked up in something that is named like an environment."""
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(
                func=ast.Attribute(value=where, attr="get" | "setdefault" | "pop" | "getenv"),
                args=[ast.Constant(value=str(name)), *_],
            ) if is_environment(where) or ast.unparse(node.func) == "os.getenv":
                yield name
            case ast.Subscript(value=where, slice=ast.Constant(value=str(name))) if is_environment(
                where
            ):
                yield name


def named(module: Module) -> Iterator[str]:
    """List the texts that are spelt like a variable, and the beginnings of those put together."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = VARIABLE.fullmatch(node.value)
            if found:
                yield node.value


@pytest.mark.parametrize("module", PRODUCT, ids=lambda module: relative(module.path))
def test_every_variable_is_in_the_reference(module: Module) -> None:
    known = documented()
    missing = {
        name
        for name in (*read_from_environments(module), *named(module))
        if name not in known
        and not (name.endswith("_") and any(each.startswith(name) for each in known))
    }
    assert not missing, "add them to KNOBS or to cli/variables.py, then `make configuration`"


def test_the_search_for_variables_finds_some() -> None:
    found = {name for module in PRODUCT for name in read_from_environments(module)}
    assert {"STATEKEEP_TARGET", "STATEKEEP_TOKEN", "GRPC_VERBOSITY"} <= found
    spelt = {name for module in PRODUCT for name in named(module)}
    assert {"STATEKEEP_TRIP_P99", "LOG_LEVEL", "OTEL_EXPORTER_OTLP_"} <= spelt


def test_every_option_of_serve_is_in_the_reference() -> None:
    command = typer.main.get_command(app)
    options = {
        option
        for parameter in command.commands["serve"].params  # type: ignore[attr-defined]  # a group
        for option in parameter.opts
    }
    text = REFERENCE.read_text(encoding="utf-8")
    assert {option for option in options if f"`{option}" not in text} == set()


def test_the_reference_is_written_from_the_code() -> None:
    must_pass(BIN / "python", "tools/configuration.py", "--check")
