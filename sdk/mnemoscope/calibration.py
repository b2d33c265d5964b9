"""Thresholds that belong to one bundle: how large a magnitude benign prompts reach."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import CalibrationError, InputError
from mnemoscope_runtime.options import check_options

__all__ = ["Calibration"]

MARGIN = 1e-4  # what the parity gate allows: two engines may differ by that much on one prompt
_KIND, _SCHEMA = "mnemoscope-calibration", 1


@dataclass(frozen=True)
class Calibration:
    """A threshold for every number of noises and steps, at one false-positive rate.

    Attributes:
        bundle: Id of the bundle whose magnitudes these are.
        fpr: Share of the benign prompts that may lie above the threshold.
        benign: How many benign prompts were measured.
        thresholds: [m - 1][k - 1] is for m noises and k steps.
    """

    bundle: str
    fpr: float
    benign: int
    thresholds: tuple[tuple[float, ...], ...]
    schema: int = _SCHEMA
    kind: str = _KIND

    @classmethod
    def fit(cls, bundle: str, magnitudes: NDArray[np.float32], fpr: float = 0.01) -> Calibration:
        """Thresholds above which at most `fpr` of the benign prompts lie.

        Each is a benign prompt's score and a hair (`MARGIN`, relative), so that rounding on another
        engine does not push that very prompt over it.

        Args:
            bundle: Id of the bundle.
            magnitudes: Of benign prompts. # [prompt, noise, step]
            fpr: In 0..1, not below 1 / number of prompts.

        Raises:
            InputError: too few prompts for the rate, or NaN among the magnitudes.
        """
        check_options("a number", fpr=fpr)
        count = len(magnitudes)
        allowed = _allowed(fpr, count) if count and 0 < fpr < 1 else 0
        if allowed < 1:
            raise InputError(
                f"{count} benign prompts cannot set a threshold for a false-positive rate of "
                f"{fpr}. The rate lies between 0 and 1 and needs at least 1 / rate prompts."
            )
        if not np.isfinite(magnitudes).all():
            raise InputError("Benign magnitudes contain NaN or infinity. Measure them again.")
        scores = prefix_means(magnitudes)  # [prompt, noise, step]
        limits = (1 + MARGIN) * np.sort(scores, axis=0)[count - 1 - allowed]
        return cls(bundle, fpr, count, tuple(tuple(map(float, row)) for row in limits))

    @classmethod
    def read(cls, path: str | Path) -> Calibration:
        """Read a calibration file.

        Raises:
            CalibrationError: it cannot be read or is no calibration.
        """
        try:
            text = Path(path).read_bytes()
            head = msgspec.json.decode(text, type=dict[str, Any])
            if (head.get("kind"), head.get("schema")) != (_KIND, _SCHEMA):
                raise CalibrationError(
                    f"{path} is no calibration of this version. Calibrate the bundle again."
                )
            found = msgspec.json.decode(text, type=cls)
        except OSError as error:
            raise CalibrationError(f"{path} cannot be read: {error}.") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CalibrationError(
                f"{path} is damaged: {error}. Calibrate the bundle again."
            ) from None
        widths = {len(row) for row in found.thresholds}
        if len(widths) != 1 or widths == {0} or not np.isfinite(found.thresholds).all():
            raise CalibrationError(f"{path} has no usable thresholds. Calibrate the bundle again.")
        return found

    def write(self, path: str | Path) -> None:
        """Write the calibration as JSON.

        Raises:
            InputError: the file cannot be written.
        """
        text = msgspec.json.format(msgspec.json.encode(self), indent=1)
        try:
            Path(path).write_bytes(text + b"\n")
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error}. Choose another file.") from None

    def check(self, bundle: str) -> None:
        """Raise CalibrationError unless this calibration was made on that bundle."""
        if self.bundle != bundle:
            raise CalibrationError(
                f"This calibration was made on bundle {self.bundle[:12]}, not on {bundle[:12]}: "
                "its thresholds mean nothing here. Calibrate this bundle, or load the other one."
            )

    def threshold(self, *, noises: int, steps: int) -> float | None:
        """The threshold for a setting, or None if it was not calibrated."""
        if noises > len(self.thresholds) or steps > len(self.thresholds[0]):
            return None
        return self.thresholds[noises - 1][steps - 1]


def _allowed(fpr: float, count: int) -> int:
    """The most prompts of `count` whose share is at most `fpr`; 0.29 of 100 is 29, not 28."""
    nearest = round(fpr * count)
    return nearest if nearest / count <= fpr else nearest - 1


def prefix_means(magnitudes: NDArray[np.float32]) -> NDArray[np.float64]:
    """The score of every setting: [..., m - 1, k - 1] is the mean of the first m noises, k steps.

    Args:
        magnitudes: # [prompt, noise, step]

    Returns:
        # [prompt, noise, step]
    """
    _, noises, steps = magnitudes.shape
    sums = magnitudes.astype(np.float64).cumsum(1).cumsum(2)
    counts = np.arange(1, noises + 1)[:, None] * np.arange(1, steps + 1)
    return np.asarray(sums / counts)
