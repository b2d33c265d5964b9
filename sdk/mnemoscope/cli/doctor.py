"""`mnemoscope doctor`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import typer
from rich.console import Console
from rich.table import Table

from mnemoscope_runtime import BACKENDS, MnemoscopeError, __version__

from ..detector import Detector

__all__ = ["command"]

_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "torch", "diffusers", "transformers", "pyarrow")


def command() -> None:
    """Show which backends work here, and why the others do not.

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
    results = {name: _problem(name) for name in BACKENDS}
    for name, problem in results.items():
        console.print(f"backend {name}: {problem or 'works'}", markup=False)
    raise typer.Exit(3 if all(results.values()) else 0)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _problem(backend: str) -> str | None:
    """Screen a prompt with the embedded bundle; what went wrong, or None."""
    try:
        with Detector.load(backend=backend) as detector:
            detector.screen(["a prompt"], noises=1)
    except MnemoscopeError as error:
        return str(error)
    return None
