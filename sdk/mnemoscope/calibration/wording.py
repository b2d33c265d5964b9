"""Calibrations in words."""

from __future__ import annotations

from mnemoscope_runtime.wording import counted

from ..prompts.printable import percent, percent_within, printable
from .calibration import Calibration

__all__ = ["describe"]


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
