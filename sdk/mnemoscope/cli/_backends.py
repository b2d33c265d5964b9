"""Backends by name on the command line, where PyTorch is one too, given a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, get_args

import typer

from mnemoscope_runtime import (
    BACKENDS,
    Backend,
    BackendOptions,
    BackendUnavailable,
    InputError,
)
from mnemoscope_runtime.manifest import Precision

from .. import embedded
from ..detectors import CopySimilarity, Statistic, TiledL2, find_statistic, open_statistic
from ._quiet import quiet_libraries

__all__ = ["ModelOption", "check_model", "open_detector", "open_torch", "options_of_each"]

ModelOption = Annotated[
    str | None,
    typer.Option(
        help="Model of the bundle, for torch and torch-compile and for detectors that draw.",
        show_default="the embedded one",
    ),
]
_COMPILERS = {"torch": None, "torch-compile": "inductor"}
_DRAW = (TiledL2.name, CopySimilarity.name)


def open_torch(
    name: str, bundle: Path | None, model: str | None, options: BackendOptions
) -> tuple[str | Backend, BackendOptions]:
    """PyTorch as a backend for "torch" and "torch-compile"; any other name as it is.

    Args:
        name: With a precision, if it is not to be float32: "torch:bfloat16".
        bundle: What it is to run; None is the embedded bundle.
        model: Directory or hub id of what the bundle was exported from.
        options: As of other backends; threads are those that torch may use in this process.

    Returns:
        What to open, and the options that are still to be told to it.

    Raises:
        InputError: no model, no such precision, or an option that PyTorch does not take.
        BackendUnavailable: PyTorch is not installed.
        ExportError: the model cannot be loaded.
    """
    kind, _, precision = name.partition(":")
    if kind not in _COMPILERS:
        return name, options
    if options.engines is not None:
        raise InputError(f"{kind} runs the model itself, and no engines. Leave --engines out.")
    if precision and precision not in get_args(Precision):
        choice = ", ".join(f"{kind}:{known}" for known in get_args(Precision))
        raise InputError(f"There is no precision {precision!r}. Choose one of: {choice}.")
    if bundle is not None and model is None:
        raise InputError(
            f"{kind} runs the model that {bundle} was exported from, which a bundle does not hold. "
            "Give it with --model."
        )
    quiet_libraries()
    try:
        import torch

        from mnemoscope_export import StableDiffusion, TorchBackend
    except ImportError as error:
        raise BackendUnavailable(
            f"The backend {kind!r} cannot be used: {error}. "
            "Install it with `pip install 'mnemoscope[export]'`."
        ) from None
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    opened = TorchBackend(
        StableDiffusion.load(model or embedded.MODEL),
        precision={p: p for p in get_args(Precision)}.get(precision, "float32"),
        device="cpu" if options.device is None else f"cuda:{options.device}",
        compiler=_COMPILERS[kind],
    )
    return opened, BackendOptions()


def check_model(model: str | None, backend: str, *detectors: str) -> None:
    """Refuse a model that nothing would look at.

    Raises:
        InputError: neither the backend nor a detector takes one.
    """
    draw = any(each.partition(":")[0] in _DRAW for each in detectors)
    if model is not None and backend.partition(":")[0] not in _COMPILERS and not draw:
        raise InputError(
            f"{backend} runs the bundle alone, and {', '.join(detectors)} draws nothing, so that "
            f"--model {model} would change nothing. Leave it out, or pass --backend torch."
        )


def options_of_each(names: Sequence[str], options: BackendOptions) -> dict[str, BackendOptions]:
    """What each of several backends is told: those of the options that it takes.

    Raises:
        InputError: an option cannot be used, or none of them takes it.
    """
    options.check(*BACKENDS)
    told = {name: _taken(name, options) for name in names}
    known = {option for each in told.values() for option in each.given}
    if set(options.given) - known:
        options.check(*names)
    return told


def _taken(name: str, options: BackendOptions) -> BackendOptions:
    if name == "auto":  # sorts them out itself
        return options
    if name.partition(":")[0] in _COMPILERS:
        return replace(options, engines=None)
    return options.taken_by(name)


def open_detector(name: str, bundle: Path | None, model: str | None) -> Statistic:
    """A detector by name; one that draws pictures takes the VAE of the bundle's model.

    Raises:
        InputError: no such detector, or no model or descriptor for it.
        BackendUnavailable: PyTorch or diffusers is not installed.
        ExportError: the model cannot be loaded.
    """
    if name.partition(":")[0] not in _DRAW:
        return find_statistic(name)
    if bundle is not None and model is None:
        raise InputError(
            f"{name} draws pictures with the VAE of the model that {bundle} was exported from, "
            "which a bundle does not hold. Give it with --model."
        )
    quiet_libraries()
    return open_statistic(name, model)
