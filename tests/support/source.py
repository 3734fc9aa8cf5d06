"""Python source as a syntax tree: what the house rules ask of a module."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
BROAD = {"Exception", "BaseException"}


@dataclass(frozen=True)
class Module:
    """A parsed module."""

    path: Path
    text: str
    tree: ast.Module

    @cached_property
    def lines(self) -> list[str]:
        """The text, line by line."""
        return self.text.splitlines()

    @cached_property
    def names(self) -> dict[str, str]:
        """The dotted name behind each name that the module imports."""
        names = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    root = alias.name.partition(".")[0]
                    names[alias.asname or root] = alias.name if alias.asname else root
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        return names

    def functions(self) -> Iterator[Function]:
        """List every function and method."""
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield node

    def calls(self) -> Iterator[tuple[str, int]]:
        """List every call of something with a dotted name: that name as imported, and the line.

        A method of anything that is not a plain name is listed as `?.method`.
        """
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield self._dotted(node.func), node.lineno

    def broad_handlers(self) -> Iterator[int]:
        """List the lines that catch, or suppress, every exception."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ExceptHandler) and _is_broad(node.type):
                yield node.lineno
            if isinstance(node, ast.Call) and self._dotted(node.func) == "contextlib.suppress":
                yield from (node.lineno for argument in node.args if _is_broad(argument))

    def imported(self) -> Iterator[tuple[str, int]]:
        """List every imported module, and the line."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)

    def mutable_dataclasses(self) -> Iterator[str]:
        """List the dataclasses that are not frozen."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ClassDef):
                for decorator in node.decorator_list:
                    call = decorator if isinstance(decorator, ast.Call) else None
                    name = self._dotted(call.func if call else decorator)
                    frozen = call and any(option.arg == "frozen" for option in call.keywords)
                    if name == "dataclasses.dataclass" and not frozen:
                        yield node.name

    def _dotted(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            base = self._dotted(node.value)
            return f"{base}.{node.attr}"
        return "?"


def _is_broad(caught: ast.expr | None) -> bool:
    if isinstance(caught, ast.Tuple):
        return any(map(_is_broad, caught.elts))
    return caught is None or (isinstance(caught, ast.Name) and caught.id in BROAD)


@cache
def read(path: Path) -> Module:
    """Parse a file, once."""
    text = path.read_text(encoding="utf-8")
    return Module(path, text, ast.parse(text, filename=str(path)))
