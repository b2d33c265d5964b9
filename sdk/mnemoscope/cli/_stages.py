"""How far a command of several stages is, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ._options import say

__all__ = ["stages_shown"]


@contextmanager
def stages_shown() -> Iterator[tuple[Callable[[str, int], None], Callable[[int, int], None]]]:
    """What is told of a stage's beginning, and of how many items of how many are done.

    On a terminal a bar that names the stage; elsewhere, as in a log, a line for each stage.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        *(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("starting", total=None)

        def begins(what: str, count: int) -> None:
            bar.reset(task, description=what, total=count)
            if not console.is_terminal:
                say(f"{what}: {count:,} to do.")

        yield begins, lambda done, total: bar.update(task, completed=done, total=total)
