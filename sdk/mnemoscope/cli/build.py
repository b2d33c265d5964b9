"""`mnemoscope build`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mnemoscope_runtime import Bundle, InputError
from mnemoscope_runtime.backends.cover import Profile
from mnemoscope_runtime.backends.tensorrt.build import BuildOptions, build_plan, check_plan
from mnemoscope_runtime.backends.tensorrt.progress import Progress as Report

from .. import embedded
from ._options import TrustOption

__all__ = ["check_builds", "command"]


def command(
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle to build from.", show_default="embedded")
    ] = None,
    trust: TrustOption = None,
    backend: Annotated[
        str,
        typer.Option(help="tensorrt-rtx, which needs no GPU to build, or tensorrt, which does."),
    ] = "tensorrt-rtx",
    graphs: Annotated[
        str | None,
        typer.Option(help="Graphs to build, with commas.", show_default="all of the bundle"),
    ] = None,
    batch: Annotated[
        int, typer.Option(help="One to this many prompts in one call, on any number of noises.")
    ] = 4,
    profile: Annotated[
        str | None,
        typer.Option(
            help="Instead: exact sizes of call, with commas, which replay as CUDA graphs: "
            "1,4,8 prompts on one noise, 1x4 prompts x noises.",
            show_default="a range",
        ),
    ] = None,
    workspace: Annotated[
        int | None, typer.Option(help="MiB of scratch memory.", show_default="TensorRT's choice")
    ] = None,
    level: Annotated[
        int | None, typer.Option(help="Optimisation, 0 to 5.", show_default="TensorRT's choice")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="tensorrt-rtx: SM86, SM89, ...; repeatable.", show_default="Ampere and later"
        ),
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option(help="tensorrt: newer versions of it may run the plan too.")
    ] = False,
    timing_cache: Annotated[
        Path | None, typer.Option(help="tensorrt: file that keeps what was measured.")
    ] = None,
    device: Annotated[
        int | None,
        typer.Option(help="tensorrt: GPU to build on, from 0.", min=0, show_default="the first"),
    ] = None,
    engines: Annotated[
        Path | None,
        typer.Option(help="Folder to write.", show_default="one of the user's cache"),
    ] = None,
) -> None:
    """Build TensorRT's engines from a bundle's graphs, ahead of time: files that are called plans.

    The request path never builds. A plan that is there already, and fits, is left as it is.
    Ctrl-C stops a build and leaves nothing half-written.
    """
    opened = Bundle.open(bundle or embedded.BUNDLE, trust=trust)
    known = opened.manifest.graphs
    names = list(known) if graphs is None else list(filter(None, map(str.strip, graphs.split(","))))
    if not names or any(name not in known for name in names):
        raise InputError(f"The bundle has no graph {graphs!r}. Choose from: {', '.join(known)}.")
    options = BuildOptions(
        batch=batch,
        profiles=tuple(map(Profile.parse, profile.split(","))) if profile else (),
        workspace=None if workspace is None else workspace * 2**20,
        level=level,
        targets=tuple(target or ()),
        version_compatible=version_compatible,
        timing_cache=timing_cache,
        device=device,
    )
    for name, report in _followed(names):
        told = _Told(report)
        path = build_plan(opened, name, engines, backend=backend, options=options, progress=told)
        state = "built" if told.anything else "there already"
        typer.echo(f"{path}  {path.stat().st_size:,} bytes, {state}")


def check_builds(bundle: Bundle) -> None:
    """Build every graph under TensorRT for RTX, say so, and throw the plans away.

    Raises:
        BackendUnavailable: TensorRT for RTX is not installed.
        BackendError: a graph does not build.
    """
    for name, report in _followed(list(bundle.manifest.graphs)):
        product = check_plan(bundle, name, progress=report)
        typer.echo(f"{name}: builds under {product}, which stands in for TensorRT here", err=True)


class _Told:
    """Passes a builder's progress on, and knows whether there was any."""

    def __init__(self, report: Report) -> None:
        self.report, self.anything = report, False

    def __call__(self, phase: str, done: int, total: int) -> None:
        self.anything = True
        self.report(phase, done, total)


def _followed(names: Sequence[str]) -> Iterator[tuple[str, Report]]:
    """Each name with a progress bar of its own."""
    for name in names:
        with _bar(name) as report:
            yield name, report


@contextmanager
def _bar(name: str) -> Iterator[Report]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    silent = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=silent) as progress:
        task = progress.add_task(name)

        def advance(phase: str, done: int, total: int) -> None:
            nonlocal silent
            if silent:  # no bar, so at least a line
                typer.echo(f"{name} ...", err=True)
                silent = False
            label = f"{name}: {phase[:40]}"
            progress.update(task, description=label, completed=done, total=total)

        yield advance
