"""Detectors by name on the command line: those that draw pictures take a model, as PyTorch does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mnemoscope_runtime import InputError

from ..detectors import CopySimilarity, Statistic, TiledL2, open_statistics
from ..quiet import quiet_libraries
from ..shipped import model_of
from ._backends import is_torch

__all__ = ["ModelOption", "check_model", "open_detectors"]

ModelOption = Annotated[
    str | None,
    typer.Option(
        help="Model of the bundle, for torch and torch-compile and for detectors that draw.",
        show_default="of a bundle that ships its own",
    ),
]


def check_model(model: str | None, backends: Sequence[str], detectors: Sequence[str] = ()) -> None:
    """Refuse a model that nothing would look at.

    Raises:
        InputError: neither a backend nor a detector takes one.
    """
    if model is None or any(map(is_torch, backends)) or any(map(_draws, detectors)):
        return
    run = "runs" if len(backends) == 1 else "run"
    draw = "draws" if len(detectors) == 1 else "draw"
    pictures = f", and {', '.join(detectors)} {draw} nothing" if detectors else ""
    raise InputError(
        f"{', '.join(backends)} {run} the bundle alone{pictures}, so that --model {model} would "
        "change nothing. Leave it out, or choose the backend torch."
    )


def open_detectors(names: Sequence[str], bundle: Path | None, model: str | None) -> list[Statistic]:
    """Detectors by name; those that draw pictures take the VAE of the bundle's model.

    Raises:
        InputError: no such detector, or no model or descriptor for it.
        BackendUnavailable: PyTorch or diffusers is not installed.
        ExportError: the model cannot be loaded.
    """
    drawing = [name for name in names if _draws(name)]
    model = model_of(bundle, model)
    if drawing and bundle is not None and model is None:
        raise InputError(
            f"{drawing[0]} draws pictures with the VAE of the model that {bundle} was exported "
            "from, which a bundle does not hold. Give it with --model."
        )
    if drawing:
        quiet_libraries()
    return open_statistics(names, model)


def _draws(name: str) -> bool:
    return name.partition(":")[0] in (TiledL2.name, CopySimilarity.name)
