"""`mnemoscope doctor`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import typer
from rich.console import Console
from rich.table import Table

from mnemoscope_runtime import __version__
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
    for trial in trials:
        console.print(f"backend {trial.backend}: {_found(trial)}", markup=False)
    raise typer.Exit(3 if all(trial.problem for trial in trials) else 0)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _found(trial: Trial) -> str:
    if trial.error is None or trial.seconds is None:
        return str(trial.problem)
    return (
        f"works: {trial.seconds * 1e3:.2f} ms for a prompt on the embedded bundle, "
        f"{trial.error:.1e} from PyTorch (relative)"
    )
