"""`mnemoscope doctor`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mnemoscope_runtime import BACKENDS, BackendOptions, Bundle, InputError, __version__
from mnemoscope_runtime.backends import check_name
from mnemoscope_runtime.selection import CANDIDATES, Trial, try_backends

from .. import embedded
from ..prompts.printable import printable
from ._gpu import describe_engines, describe_gpus, describe_libraries
from ._options import TrustOption, takes_backend_options

__all__ = ["command"]

_PACKAGES = (
    *(package for spec in BACKENDS.values() for package in spec.packages),
    "torch",
    "diffusers",
    "transformers",
    "pyarrow",
)


@takes_backend_options
def command(
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle to try them on.", show_default="embedded")
    ] = None,
    trust: TrustOption = None,
    backend: Annotated[
        str, typer.Option(help="Backends to try, with commas.", show_default="all")
    ] = ",".join(CANDIDATES),
    *,
    options: BackendOptions,
) -> None:
    """Show which backends work here, how well and how fast, and why the others do not.

    Then what is here for GPUs, and which plans of the bundle fit.

    Exit code 3 if no backend works.
    """
    path = bundle or embedded.BUNDLE
    names = [name.strip() for name in backend.split(",")]
    if "auto" in names:
        raise InputError("auto chooses among all that work, which doctor tries without --backend.")
    for name in names:
        check_name(name)
    options.check(*names)
    opened = Bundle.open(path, trust=trust)
    console = Console()
    console.print(
        f"mnemoscope {__version__}, Python {platform.python_version()}, {platform.platform()}"
    )
    installed = {name: _version(name) for name in _PACKAGES}
    table = Table("package", "version", box=None)
    for name, number in installed.items():
        table.add_row(name, number or "not installed")
    console.print(table)
    if installed["onnxruntime"] and installed["onnxruntime-gpu"]:
        console.print(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "uninstall both, then install the one you want."
        )
    trials = []
    for trial in try_backends(path, names, options, trust):
        typer.echo(printable(f"backend {trial.backend}: {_found(trial, opened.manifest.budget)}"))
        trials.append(trial)
    told = [str(trial.problem) for trial in trials]
    found = describe_engines(opened, options.engines, options.device or 0)
    for line in (*describe_gpus(), *describe_libraries(told), *found):
        typer.echo(printable(line))
    raise typer.Exit(3 if all(trial.problem for trial in trials) else 0)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _found(trial: Trial, budget: float) -> str:
    if trial.error is None or trial.seconds is None:
        return str(trial.problem)
    measured = f"{trial.seconds * 1e3:.2f} ms for a prompt on this bundle"
    if trial.error <= budget:
        return f"works: {measured}, {trial.error:.1e} from PyTorch (relative)"
    return (
        f"runs, but is {trial.error:.1e} from PyTorch (relative), over the bundle's budget of "
        f"{budget:.0e}, so auto does not choose it; {measured}. "
        f"`mnemoscope parity --backend {trial.backend}` shows what that does to verdicts"
    )
