"""`mnemoscope build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mnemoscope_runtime import Bundle, InputError
from mnemoscope_runtime.engines.tensorrt import BuildOptions, build_engine

from .. import embedded

__all__ = ["ENGINES", "command"]

ENGINES = "engines"  # beside the graphs of a bundle


def command(
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle to build from.", show_default="embedded")
    ] = None,
    backend: Annotated[
        str, typer.Option(help="What to build for; tensorrt-rtx needs no GPU to build.")
    ] = "tensorrt-rtx",
    graphs: Annotated[
        str, typer.Option(help="Graphs to build, with commas.")
    ] = "screen,step,text_encoder",
    batch: Annotated[int, typer.Option(help="Most prompts in one call.")] = 4,
    workspace: Annotated[
        int | None, typer.Option(help="MiB of scratch memory.", show_default="TensorRT's choice")
    ] = None,
    level: Annotated[
        int | None, typer.Option(help="Optimisation, 0 to 5.", show_default="TensorRT's choice")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="tensorrt-rtx: SM86, SM89, ...; repeatable.", show_default="all"),
    ] = None,
    engines: Annotated[
        Path | None, typer.Option(help="Folder to write.", show_default="BUNDLE/engines")
    ] = None,
) -> None:
    """Build engines for a GPU from a bundle's graphs, ahead of time.

    The request path never builds. An engine that is there already, and fits, is left as it is.
    Running these engines is not implemented yet.
    """
    opened = Bundle.open(bundle or embedded.BUNDLE)
    names = [name.strip() for name in graphs.split(",") if name.strip()]
    unknown = [name for name in names if name not in opened.manifest.graphs]
    if unknown or not names:
        known = ", ".join(opened.manifest.graphs)
        raise InputError(f"The bundle has no graph {graphs!r}. Choose from: {known}.")
    options = BuildOptions(
        batch=batch,
        workspace=None if workspace is None else workspace * 2**20,
        level=level,
        targets=tuple(target or ()),
    )
    folder = engines or opened.path / ENGINES
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    for name in names:
        console = Console(stderr=True)
        with Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as bar:
            task = bar.add_task(name)

            def advance(phase: str, done: int, total: int, name: str = name) -> None:
                bar.update(task, description=f"{name}: {phase[:40]}", completed=done, total=total)  # noqa: B023

            path = build_engine(
                opened, name, folder, backend=backend, options=options, progress=advance
            )
        typer.echo(f"{path}  {path.stat().st_size:,} bytes")
