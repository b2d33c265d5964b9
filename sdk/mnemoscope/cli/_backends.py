"""Backends by name on the command line, where PyTorch is one too, given a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from mnemoscope_runtime import (
    BACKENDS,
    Backend,
    BackendOptions,
    BackendUnavailable,
    InputError,
)
from mnemoscope_runtime.manifest import Precision
from mnemoscope_runtime.wording import pip_install

from .. import embedded
from ..quiet import quiet_libraries
from ..shipped import model_of
from ._options import say

__all__ = ["choose_backend", "is_torch", "options_of_each", "say_unused"]

_COMPILERS = {"torch": None, "torch-compile": "inductor"}
_TAKES = ("threads", "device")  # PyTorch, of what backends may be told


def is_torch(backend: str) -> bool:
    """Whether a backend is PyTorch, in any precision."""
    return backend.partition(":")[0] in _COMPILERS


def choose_backend(
    name: str, bundle: Path | None, model: str | None, options: BackendOptions
) -> tuple[str | Backend, BackendOptions]:
    """What `Detector.load` is to open: "torch" and "torch-compile" opened, other names as they are.

    Args:
        name: With a precision, if it is not to be float32: "torch:bfloat16".
        bundle: What it is to run; None is the embedded bundle.
        model: Directory or hub id of what the bundle was exported from; of one that ships its own.
        options: As of other backends; threads are those that torch may use in this process.

    Returns:
        What to open, and the options that are still to be told to it.

    Raises:
        InputError: no such backend or precision, no model, or an option that PyTorch does not take.
        BackendUnavailable: PyTorch is not installed.
        ExportError: the model cannot be loaded.
    """
    kind, _, precision = name.partition(":")
    _check_name(name)
    if kind not in _COMPILERS:
        return name, options
    for option in options.given:
        if option not in _TAKES:
            raise InputError(
                f"{kind} runs the model itself, and takes no {option}. Leave --{option} out."
            )
    if precision and precision not in get_args(Precision):
        choice = ", ".join(f"{kind}:{known}" for known in get_args(Precision))
        raise InputError(f"There is no precision {precision!r}. Choose one of: {choice}.")
    model = model_of(bundle, model)
    if bundle is not None and model is None:
        raise InputError(
            f"{kind} runs the model that {bundle} was exported from, which a bundle does not hold. "
            "Give it with --model."
        )
    quiet_libraries()
    try:
        import torch

        from mnemoscope_export import TorchBackend, load_model
    except ImportError as error:
        raise BackendUnavailable(
            f"The backend {kind!r} cannot be used: {error}. "
            f"Install it with {pip_install('export')}."
        ) from None
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    opened = TorchBackend(
        load_model(model or embedded.MODEL),
        precision={p: p for p in get_args(Precision)}.get(precision, "float32"),
        device="cpu" if options.device is None else f"cuda:{options.device}",
        compiler=_COMPILERS[kind],
    )
    return opened, BackendOptions()


def options_of_each(names: Sequence[str], options: BackendOptions) -> dict[str, BackendOptions]:
    """What each of several backends is told: those of the options that it takes.

    Raises:
        InputError: there is no such backend, an option cannot be used, or none of them takes it.
    """
    for name in names:
        _check_name(name)
    options.check(*BACKENDS)
    told = {name: _taken(name, options) for name in names}
    known = {option for each in told.values() for option in each.given}
    if set(options.given) - known:
        options.check(*names)
    return told


def say_unused(name: str, options: BackendOptions, opened: Backend) -> None:
    """Say which options "auto" was told that the backend it took does not take."""
    if name != "auto":
        return
    told = options.taken_by(opened.name).given
    for option, value in options.given.items():
        if option not in told:
            say(f"--{option} {value} was not used: {opened.name} takes none.")


def _check_name(name: str) -> None:
    if name.partition(":")[0] not in (*_COMPILERS, *BACKENDS, "auto"):
        raise InputError(
            f"There is no backend {name!r}. Choose one of: {', '.join((*BACKENDS, *_COMPILERS))}, "
            "openvino:bfloat16, openvino:float16, or auto."
        )


def _taken(name: str, options: BackendOptions) -> BackendOptions:
    if name == "auto":  # sorts them out itself
        return options
    if is_torch(name):
        return options.only(_TAKES)
    return options.taken_by(name)
