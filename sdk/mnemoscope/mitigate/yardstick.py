"""What the scores of drawn pictures are compared with: a calibration, if there is one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mnemoscope_runtime import Bundle
from mnemoscope_runtime.errors import CalibrationError, InputError
from mnemoscope_runtime.wording import counted

from ..calibration import Calibration, CalibrationFile
from ..shipped import name_of
from .sampling import Sampling

__all__ = ["Yardstick"]

_STEPS = 10  # that are scored if no calibration says otherwise


@dataclass(frozen=True)
class Yardstick:
    """Benign magnitudes, of the first step alone and of the longest beginning there is.

    A picture's score is its mean magnitude in the first steps of drawing it, on its own noise.
    Benign scores are of the bundle's noise bank: a p-value compares one noise with another.

    Attributes:
        first: At the first step: where targets come from.
        longest: Of as many steps as were calibrated: what scores are compared with.
    """

    first: Calibration | None = None
    longest: Calibration | None = None

    @classmethod
    def of(cls, file: CalibrationFile | None, bundle: Bundle, sampling: Sampling) -> Yardstick:
        """The calibrations of a bundle, of whichever backend: they agree within its budget.

        Raises:
            CalibrationError: they belong to another bundle.
            InputError: pictures are to be drawn otherwise than was calibrated.
        """
        if file is None:
            return cls()
        file.check(bundle.id, bundle.path)
        measured = Sampling.of(bundle.manifest)
        if sampling != measured:
            raise InputError(
                f"The calibration of {name_of(bundle.path)} is of {_in_words(measured)}, and says "
                f"nothing of {_in_words(sampling)}. Leave out steps and guidance. Or export a "
                f"bundle of these, `mnemoscope export MODEL OUT {_as_options(sampling)}`, and "
                "calibrate it, `mnemoscope calibrate OUT --benign FILE`."
            )
        known = [each for each in file.calibrations if each.setting.detector == "magnitude"]
        first = [each for each in known if each.setting.steps == 1]
        return cls(_fewest_noises(first), _fewest_noises(_longest(known)))

    @property
    def steps(self) -> int:
        """How many steps a score is the mean of."""
        return _STEPS if self.longest is None else self.longest.setting.steps

    def scores(self, magnitudes: Tensor) -> list[float]:
        """Of magnitudes on the way. # [B, steps] -> [B]"""
        found: list[float] = magnitudes[:, : self.steps].double().mean(1).tolist()
        return found

    def p_value(self, score: float) -> float | None:
        """Share of benign prompts, counting this one, that score as high; None uncalibrated."""
        return None if self.longest is None else float(self.longest.p_values([score])[0])

    def target(self, quantile: float) -> float:
        """A magnitude of the first step that this share of benign prompts stays below.

        Raises:
            InputError: the share is not one.
            CalibrationError: there is no calibration of the first step.
        """
        if not 0 < quantile < 1:
            raise InputError(f"A share of benign prompts lies between 0 and 1, not at {quantile}.")
        if self.first is None:
            raise CalibrationError(
                "No calibration of the first step says what magnitude benign prompts have. Give "
                "a target (--target), or a calibrated bundle of the model (--bundle), which "
                "`mnemoscope calibrate` makes of one."
            )
        return float(np.quantile(self.first.ordered, quantile))


def _in_words(sampling: Sampling) -> str:
    guidance = "no guidance" if sampling.guidance is None else f"guidance {sampling.guidance:g}"
    return f"{counted(sampling.steps, 'step')} with {guidance}"


def _as_options(sampling: Sampling) -> str:
    """Those of `mnemoscope export`."""
    guidance = "" if sampling.guidance is None else f" --guidance {sampling.guidance:g}"
    return f"--inference-steps {sampling.steps}{guidance}"


def _longest(known: Iterable[Calibration]) -> list[Calibration]:
    known = list(known)
    most = max((each.setting.steps for each in known), default=0)
    return [each for each in known if each.setting.steps == most]


def _fewest_noises(known: list[Calibration]) -> Calibration | None:
    return min(known, key=lambda each: each.setting.noises, default=None)
