"""What runs the graphs of a bundle. A backend is imported only when it is chosen."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import get_args

from ..errors import InputError
from ..manifest import Precision
from ..options import check_options
from .base import Arrays, Backend, Engine
from .table import BACKENDS, Spec

__all__ = [
    "BACKENDS",
    "Arrays",
    "Backend",
    "BackendOptions",
    "Engine",
    "Spec",
    "check_name",
    "checked_backend",
    "open_backend",
]

_FEW = 4  # threads a core


@dataclass(frozen=True)
class BackendOptions:
    """What a backend may be told; None leaves it to the backend.

    Attributes:
        threads: CPU threads that it may use.
        device: Which GPU, counted from 0 as CUDA does; the first by default.
        engines: Folder of the engines that `mnemoscope build` made, or that ONNX Runtime keeps; by
            default in the user's cache.
        batch: Prompts that one run on the GPU takes, 1 to 256; 1 by default.
        contexts: Calls that may run on the GPU at once; 1 by default.
    """

    threads: int | None = None
    device: int | None = None
    engines: str | Path | None = None
    batch: int | None = None
    contexts: int | None = None

    @property
    def given(self) -> dict[str, int | str | Path]:
        """Those that are not None, by name."""
        named = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in named.items() if value is not None}

    def only(self, names: Collection[str]) -> BackendOptions:
        """Those of these names."""
        return replace(self, **dict.fromkeys(set(self.given) - set(names)))

    def taken_by(self, name: str) -> BackendOptions:
        """Those that a backend takes, of options that are meant for several."""
        spec = BACKENDS.get(name.partition(":")[0])
        return self.only(() if spec is None else spec.takes)

    def check(self, *names: str) -> None:
        """Refuse what cannot be used, or what none of these backends takes.

        Raises:
            InputError: says which option, and which backends take it.
        """
        counts = {"threads": self.threads, "batch": self.batch, "contexts": self.contexts}
        check_options("a whole number or None", device=self.device, **counts)
        check_options("a path or None", engines=self.engines)
        for option, count in counts.items():
            if count is not None and count < 1:
                what = "prompts at once" if option == "batch" else option
                raise InputError(f"{count} {what} cannot run anything. Give 1 or more.")
        cores = os.cpu_count() or 1
        if self.threads is not None and self.threads > (most := max(16, _FEW * cores)):
            raise InputError(
                f"{self.threads:,} threads would be busy with each other: this machine's cores "
                f"number {cores}. Give {most} or fewer, or leave it out."
            )
        if self.device is not None and self.device < 0:
            raise InputError(f"There is no GPU {self.device}. Count from 0.")
        for option, value in self.given.items():
            takers = [name for name, spec in BACKENDS.items() if option in spec.takes]
            if not {name.partition(":")[0] for name in names} & set(takers):
                verb = "takes" if len(names) == 1 else "take"
                raise InputError(
                    f"{', '.join(names)} {verb} no {option} (--{option} {value}). Leave it out, or "
                    f"choose a backend that does: {', '.join(takers)}."
                )


def open_backend(
    name: str,
    *,
    threads: int | None = None,
    device: int | None = None,
    engines: str | Path | None = None,
    batch: int | None = None,
    contexts: int | None = None,
) -> Backend:
    """The backend of that name: this one or none, there is no fallback.

    Args:
        name: One of `BACKENDS`, and a precision if it is not to be the graph's own:
            "openvino:bfloat16".
        threads: What it is told, as in `BackendOptions`; None leaves it to the backend.
        device: Likewise.
        engines: Likewise.
        batch: Likewise.
        contexts: Likewise.

    Raises:
        InputError: no such backend or precision, or an option that it does not take.
        BackendUnavailable: it is not installed here, or does not work; says how to mend it.
    """
    check_name(name)
    name, colon, precision = name.partition(":")
    spec = BACKENDS[name]
    options = BackendOptions(threads, device, engines, batch, contexts)
    options.check(name)
    told: dict[str, object] = dict(options.given)
    if colon:
        told["precision"] = precision
    if spec.named:
        told["name"] = name
    opened: Backend = spec.load()(**told)
    return opened


def check_name(name: str) -> None:
    """Refuse what names no backend, or one in a precision that it does not have.

    Raises:
        InputError: says which there are.
    """
    check_options("text", backend=name)
    name, colon, precision = name.partition(":")
    if name == "auto" and colon:
        raise InputError(
            f"auto takes no precision ({precision!r}): it tries backends in theirs. Leave it out, "
            "or name a backend."
        )
    if name not in BACKENDS:
        raise InputError(
            f"There is no backend {name!r}. Choose one of: {', '.join(BACKENDS)}, "
            "openvino:bfloat16, openvino:float16, or auto."
        )
    spec = BACKENDS[name]
    if colon and precision not in get_args(Precision):
        choice = ", ".join(f"{name}:{known}" for known in get_args(Precision))
        raise InputError(f"There is no precision {precision!r}. Choose one of: {choice}.")
    if colon and "precision" not in spec.takes:
        raise InputError(
            f"{name} computes in the precision of the graph, so {name}:{precision} is not to be "
            "had. Leave the precision out, or export the model in that precision."
        )


def checked_backend(backend: object) -> Backend:
    """A backend that somebody opened, if it can be told from those of the table.

    Raises:
        InputError: it is none, has no name, or bears the name of one of `BACKENDS`, whose
            calibrations would be taken for its own.
    """
    if not isinstance(backend, Backend):
        raise InputError(
            f"backend is {backend!r:.80}, neither a name nor a Backend. Name one of: "
            f"{', '.join(BACKENDS)}; or derive yours from mnemoscope_runtime.Backend "
            '(docs/backends.md, "A backend of your own").'
        )
    kind, name = type(backend), getattr(backend, "name", None)
    if not isinstance(name, str) or not hasattr(backend, "process"):
        raise InputError(
            f"A {kind.__name__} has no name, or was not begun. Give the class a `name`, and let "
            "its `__init__` begin with `super().__init__()`."
        )
    ours = kind.__module__.startswith(f"{__name__}.")
    if name.partition(":")[0] in BACKENDS and not ours:
        raise InputError(
            f"This {kind.__name__} is called {name!r}, which is a backend of Mnemoscope: that "
            "one's calibrations would be taken for its own. Give it another name."
        )
    return backend
