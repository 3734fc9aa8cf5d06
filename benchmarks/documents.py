"""Puts what was measured into the page about performance, between two marks.

A reader of the page sees target beside measured without another click, and no figure in it is
written by hand.
"""

from pathlib import Path

from benchmarks.processes import ROOT

PAGE = ROOT / "docs" / "performance.md"
BEGIN = "<!-- {name}: written by `make bench`, do not edit -->"
END = "<!-- end of {name} -->"


def section(text: str, name: str) -> str:
    """What stands between the marks of a name. Raises ValueError where they are missing."""
    begin, end = _places(text, name)
    return text[begin:end].strip("\n")


def replaced(text: str, name: str, content: str) -> str:
    """The text with something else between the marks. Raises ValueError where they are missing."""
    begin, end = _places(text, name)
    return f"{text[:begin]}\n\n{content.strip()}\n\n{text[end:]}"


def write_sections(page: Path, contents: dict[str, str]) -> None:
    """Write sections of a page; one without content stays as it was."""
    text = page.read_text()
    for name, content in contents.items():
        if content:
            text = replaced(text, name, content)
    page.write_text(text)


def _places(text: str, name: str) -> tuple[int, int]:
    begin, end = BEGIN.format(name=name), END.format(name=name)
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"the page has no place for {name!r}")
    return text.index(begin) + len(begin), text.index(end)
