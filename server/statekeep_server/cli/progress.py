"""Progress on stderr: a bar where somebody watches, one line a stage where nobody does."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from statekeep_server.cli.output import error_console


class Bar:
    """What is going on now, and how far it is."""

    def __init__(self, progress: Progress, *, watched: bool) -> None:
        self._progress = progress
        self._watched = watched
        self._task = progress.add_task("", total=None)

    def tell(self, text: str) -> None:
        """Print a line that stays."""
        self._progress.console.print(text)

    def stage(self, text: str, total: int) -> None:
        """Begin a stage of so many steps."""
        if not self._watched:
            self.tell(text)
        self._progress.update(self._task, description=text)
        self._progress.reset(self._task, total=total)

    def advance(self) -> None:
        """One more is done."""
        self._progress.advance(self._task)

    def reached(self, done: int, total: int) -> None:
        """So many of all are done."""
        self._progress.update(self._task, completed=min(done, total), total=total)


@contextmanager
def progress_bar() -> Iterator[Bar]:
    """Show a bar while the context is open; nothing of it stays."""
    console = error_console()
    watched = console.is_terminal
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not watched) as progress:
        yield Bar(progress, watched=watched)
