"""A way of measuring, of which a calibration holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec

from ..prompts.printable import counted
from .cascade import First

__all__ = ["Setting"]

_Count = Annotated[int, msgspec.Meta(ge=1, le=2**31)]


@dataclass(frozen=True)
class Setting:
    """A way of measuring: the scores of two settings say nothing of each other.

    Attributes:
        bundle: Id of the bundle, which stands for its weights, precision and noise bank.
        backend: What ran it.
        detector: Name of the statistic.
        steps: Denoising steps that were measured.
        noises: How many noises of the bank, the first ones.
        first: The stage before this one, in a cascade.
    """

    bundle: str
    backend: str
    detector: str
    steps: _Count
    noises: _Count
    first: First | None = None

    def __str__(self) -> str:
        after = "" if self.first is None else f"after {self.first}, "
        return (
            f"{self.detector} at {counted(self.steps, 'step')} on "
            f"{counted(self.noises, 'noise')}, {after}"
            f"{self.backend}, bundle {self.bundle[:12]}"
        )

    def distance(self, other: Setting) -> tuple[bool, bool, bool, bool]:
        """Sorts others, the nearest first: by detector, stage before, engine, precision."""
        engines = (each.backend.partition(":")[0] for each in (self, other))
        return (
            self.detector != other.detector,
            self.first != other.first,
            len(set(engines)) > 1,
            self.backend != other.backend,
        )

    @property
    def parts(self) -> dict[str, str]:
        """What `backend` says of a pipeline, name by name; nothing where it names what runs graphs.

        Guards write there of which pipeline, and in which state of it, a calibration is.
        """
        try:
            return msgspec.json.decode(self.backend, type=dict[str, str])
        except (msgspec.DecodeError, RecursionError):
            return {}

    @property
    def options(self) -> str:
        """Those of the command line that measure in this way."""
        first = "" if self.first is None else f" {self.first.options}"
        return (
            f"--backend {self.backend} --detector {self.detector} --steps {self.steps} "
            f"--noises {self.noises}{first}"
        )
