"""Which calibration applies to what a detector looks at, and what is said where none does."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from mnemoscope_runtime import CalibrationError, Embeddings, InputError

from ..calibration import Calibration, CalibrationFile, Setting

__all__ = ["Calibrations", "Uncalibrated", "check_uncalibrated"]

Uncalibrated = Literal["raise", "score"]
_WAY_OUT = (
    'Scores without verdicts come with uncalibrated="score" in Python, and without --calibration '
    "on the command line."
)


class Calibrations:
    """Those of a detector.

    Args:
        known: All that there are; of one bundle.
        uncalibrated: What becomes of a setting that has none: "raise", or "score".
        learns: Whether the detector has no scores without one.
        length: How many tokens the bundle reads.
        bundle: Its directory, for the commands that messages name.
    """

    def __init__(
        self,
        known: CalibrationFile,
        uncalibrated: Uncalibrated,
        *,
        learns: bool,
        length: int,
        bundle: Path,
    ) -> None:
        self._known = known
        self._uncalibrated = uncalibrated
        self._learns = learns
        self._length = length
        self._bundle = bundle

    def missing(self, setting: Setting) -> CalibrationError | None:
        """Why a setting has no verdicts, and what makes them; None if it has."""
        return None if self._known.find(setting) is not None else self._missing(setting)

    def of(self, setting: Setting) -> Calibration | None:
        """The one of a setting.

        Raises:
            CalibrationError: there is none, and scores without verdicts were not asked for, or
                cannot be had.
        """
        found = self._known.find(setting)
        if found is not None:
            return found
        if setting.first is not None:
            raise self._missing(
                setting, "A cascade knows what to clear only after it has seen benign prompts."
            )
        if self._learns:
            raise self._missing(
                setting, f"The detector {setting.detector!r} has no scores without one."
            )
        if self._uncalibrated == "raise":
            raise self._missing(setting, after=_WAY_OUT)
        return None

    def _missing(self, setting: Setting, why: str = "", after: str = "") -> CalibrationError:
        return self._known.missing(setting, self._bundle, why, after)

    def of_embeddings(self, setting: Setting, told: Embeddings) -> Calibration | None:
        """The one that applies to embeddings: that of the setting, if they are as tokens are.

        Raises:
            InputError: the detector is a cascade.
            CalibrationError: as `of`.
        """
        if setting.first is not None:
            raise InputError(
                "A cascade looks at prompts as the bundle's tokens. Leave the first stage out to "
                "screen embeddings, or prompts in chunks."
            )
        if told.as_tokens:
            return self.of(setting)
        other = f"Calibrations are of {self._length} tokens against the empty prompt, and these "
        other += f"embeddings are of {told.length} tokens"
        other += "." if told.length != self._length else " and another baseline."
        if self._learns:
            raise CalibrationError(
                f"{other} The detector {setting.detector!r} has no scores without one. Choose the "
                "magnitude."
            )
        if self._uncalibrated == "raise":
            raise CalibrationError(f"{other} {_WAY_OUT}")
        return None


def check_uncalibrated(value: object) -> None:
    """Refuse what is neither "raise" nor "score".

    Raises:
        InputError: it is not.
    """
    if value not in get_args(Uncalibrated):
        choice = " or ".join(f'"{each}"' for each in get_args(Uncalibrated))
        raise InputError(f"uncalibrated is {value!r:.80}. Give {choice}.")
