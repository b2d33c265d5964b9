"""`mnemoscope doctor`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import typer
from rich.console import Console
from rich.table import Table

from mnemoscope_runtime import Bundle, __version__
from mnemoscope_runtime.selection import Trial, try_backends

from .. import embedded

__all__ = ["command"]

_PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "torch",
    "diffusers",
    "transformers",
    "pyarrow",
)


def command() -> None:
    """Show which backends work here, how well and how fast, and why the others do not.

    Exit code 3 if none works.
    """
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
    trials = list(try_backends(embedded.BUNDLE))
    budget = Bundle.open(embedded.BUNDLE).manifest.budget
    for trial in trials:
        typer.echo(f"backend {trial.backend}: {_found(trial, budget)}")
    raise typer.Exit(3 if all(trial.problem for trial in trials) else 0)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _found(trial: Trial, budget: float) -> str:
    if trial.error is None or trial.seconds is None:
        return str(trial.problem)
    measured = f"{trial.seconds * 1e3:.2f} ms for a prompt on the embedded bundle"
    if trial.error <= budget:
        return f"works: {measured}, {trial.error:.1e} from PyTorch (relative)"
    return (
        f"runs, but is {trial.error:.1e} from PyTorch (relative), over the bundle's budget of "
        f"{budget:.0e}, so auto does not choose it; {measured}. "
        f"`mnemoscope parity --backend {trial.backend}` shows what that does to verdicts"
    )
