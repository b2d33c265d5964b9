"""What an oracle measured of a model, and how closely graphs must agree with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import ExportError
from mnemoscope_runtime.manifest import Precision, Probe

__all__ = ["PROMPTS", "Coverage", "Reference", "Tolerance"]

PROMPTS = (
    "a photo of a cat on a windowsill",
    "The quick brown fox, oil painting, 1889",
    "icon of rocket",
    "portrait of a woman with a red hat in the style of an old master, highly detailed, canvas",
    "x",
)
_RESOLVED = 1e-4  # what `floors` are measured to
_TOLD = 100.0  # times what rounding makes: an engine that is a hundredth wrong is told from it
_LARGE = 200_000_000  # parameters of a network above which a pass takes seconds
_HUGE = 2_000_000_000  # and tens of seconds


@dataclass(frozen=True)
class Coverage:
    """What is measured: `prompts` of PROMPTS, at every batch size and number of noises."""

    prompts: int = 5
    batches: tuple[int, ...] = (1, 2, 3, 5)
    noises: tuple[int, ...] = (1, 64)  # as many as the bank has, at most
    steps: int = 3
    is_large: bool = False

    @classmethod
    def of(cls, parameters: int) -> Coverage:
        """All of it for a small network; for a large one what takes minutes."""
        if parameters < _LARGE:
            return cls()
        if parameters < _HUGE:
            return cls(prompts=2, batches=(1, 2), noises=(1, 2), steps=2, is_large=True)
        return cls(prompts=2, batches=(1, 2), noises=(1,), steps=2, is_large=True)


@dataclass(frozen=True)
class Tolerance:
    """Largest accepted error of a magnitude, relative as in `agreement`."""

    magnitude: float = 1e-4

    @classmethod
    def of(cls, precision: Precision) -> Tolerance:
        """What rounding explains: a few units in the last place of a few hundred layers."""
        return cls({"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}[precision])


@dataclass(frozen=True)
class Reference:
    """What the oracle measured: all that the gate needs of a model, which can then be let go.

    Attributes:
        oracle: What errors call it.
        coverage: What is compared.
        screening: Of the prompts covered on every noise, at the screening timestep: the magnitude,
            then the norms of the bundle's taps. # [prompt, noise, 1 + K]
        sampling: Likewise along the first steps of sampling. # [prompt, noise, step, 1 + K]
        embeds: Of PROMPTS. # [5, ...] each
        floors: What errors of the magnitude and of each tap count relative to, where it is larger
            than what is measured; see `agreement`. # [1 + K]
    """

    oracle: str
    coverage: Coverage
    screening: NDArray[np.float32]
    sampling: NDArray[np.float32]
    embeds: tuple[NDArray[np.float32], ...]
    floors: tuple[float, ...]

    def check(self) -> None:
        """Make sure that there is something to compare: prompts move the prediction measurably.

        Raises:
            ExportError: they do not.
        """
        largest, least = float(self.screening[..., 0].max()), float(self.screening[..., 0].min())
        rounding = self.floors[0] * _RESOLVED
        if not (largest > _TOLD * rounding and least > 0):
            raise ExportError(
                f"Prompts hardly move what this model predicts: magnitudes are {least:.1e} to "
                f"{largest:.1e}, and rounding alone makes up to {rounding:.1e}. Nothing could be "
                "screened with it. See whether its cross-attention is trained, and its text "
                "encoder its own."
            )

    def probes(self) -> tuple[Probe, ...]:
        """Magnitudes at the screening timestep, for the manifest."""
        rows = zip(PROMPTS, self.screening[..., 0].tolist(), strict=False)
        return tuple(Probe(prompt, tuple(values)) for prompt, values in rows)
