"""Calibrations in words."""

from __future__ import annotations

from mnemoscope_runtime.wording import counted

from ..prompts.printable import percent, percent_within, printable
from .calibration import Calibration

__all__ = ["describe", "doubt"]

_HARDLY = 2  # times the promised rate


def describe(calibration: Calibration) -> str:
    """A calibration, and what it promises, in a sentence."""
    setting, count = calibration.setting, len(calibration.scores)
    above = sum(score > calibration.threshold for score in calibration.scores)
    text = (
        f"{setting}: threshold {calibration.threshold:.5g}. With {percent(1 - calibration.delta)} "
        f"confidence it flags at most {percent(calibration.fpr)} of benign prompts drawn like "
        f"these {count:,}, of which it flags {above:,}. To promise less than "
        f"{percent(calibration.smallest_fpr, 2)} takes more prompts."
    )
    if (found := calibration.tpr()) is not None:
        text += (
            f" Of {counted(len(calibration.positives), 'memorised prompt')} it flags "
            f"{percent_within(*found)}, with 95 % confidence."
        )
    if (carried := calibration.carried) is not None:
        text += (
            f" Measured on {carried.backend} and carried over: on "
            f"{counted(carried.prompts, 'prompt')} the two differ by {carried.error:.1e} at most."
        )
    if calibration.among > 1:
        text += (
            f" Chosen among {calibration.among} settings, all of which keep the promise at once "
            "with that confidence."
        )
    return printable(text)  # names come from a file


def doubt(calibration: Calibration) -> str | None:
    """What to look at where memorised prompts are hardly flagged more than benign ones; or None."""
    found = calibration.tpr()
    if found is None or found[0] > _HARDLY * calibration.fpr:
        return None
    many = counted(len(calibration.positives), "memorised prompt")
    return printable(
        f"{calibration.setting} flags {percent(found[0])} of {many}, and may flag "
        f"{percent(calibration.fpr)} of benign ones: a prompt that it does not flag is not cleared "
        "by that. Draw some of the memorised ones from several seeds (`mnemoscope generate "
        "--images 4`) and see whether one picture comes back; check that they are written as in "
        "training, and that no memorised prompts are among the benign; then try more steps or "
        "noises, or another detector."
    )
