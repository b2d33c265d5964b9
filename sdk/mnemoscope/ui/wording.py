"""Verdicts in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..calibration import Setting
from ..calibration.moving import Moved
from ..prompts.printable import counted, percent, percent_within
from ..screening.detection import Detection

__all__ = ["MEANING", "Verdict", "cost", "setting_words", "verdict"]

Kind = Literal["flagged", "clean", "part", "none"]

MEANING = (
    "p is the share of benign prompts, counting this one, that score as high: a small p says that "
    "few ordinary prompts look like this one. It is not the probability that the prompt is benign."
)
_FEW = 0.05  # a share of benign prompts that a reader would call unusual


@dataclass(frozen=True)
class Verdict:
    """What the page says of a prompt.

    Attributes:
        kind: How it looks; "part" if only its beginning was read.
        title: The verdict.
        sentence: Where it comes from.
    """

    kind: Kind
    title: str
    sentence: str


def verdict(found: Detection, benign: int) -> Verdict:
    """A detection in words.

    Args:
        found: What was measured.
        benign: With how many benign prompts it was compared.
    """
    if found.empty:
        return Verdict("none", "No verdict", "There is nothing to screen: type a prompt.")
    if found.memorized is None or found.p_value is None:
        return Verdict("none", "No verdict", "This way of measuring has not been calibrated.")
    compared = f"{_as_high(found.p_value, benign)} (p = {_share(found.p_value)})"
    if found.memorized:
        return Verdict(
            "flagged",
            "Flagged: the model may be about to repeat a training picture",
            f"{compared}, and its score is above the threshold.",
        )
    under = "which is ordinary"
    if found.p_value <= _FEW:
        under = "which is unusual, but the score is not above the threshold"
    if found.truncated:
        return Verdict("part", "Not flagged, as far as it was read", f"{compared}, {under}.")
    return Verdict("clean", "Not flagged", f"{compared}, {under}.")


def cost(moved: Moved, confidence: float) -> list[str]:
    """What a threshold costs, in sentences.

    Args:
        moved: What `mnemoscope.calibration.moving.move` found.
        confidence: Of the promise, in 0..1.
    """
    share = moved.benign_above / moved.benign
    found = [
        f"Above {moved.threshold:.4g} lie {moved.benign_above:,} of "
        f"{counted(moved.benign, 'benign prompt')} ({percent(share)}): they would be flagged for "
        "nothing.",
        f"Of benign prompts to come, it would flag at most {percent(moved.fpr)}, with "
        f"{percent(confidence)} confidence, had it been chosen before anybody looked.",
    ]
    if moved.tpr is None:
        found.append("The calibration holds no memorised prompts, so what it catches is not known.")
    else:
        found.append(
            f"Of {counted(moved.positives, 'memorised prompt')} it would catch "
            f"{moved.positives_above:,} ({percent_within(*moved.tpr)}, with 95 % confidence)."
        )
    return found


def setting_words(setting: Setting) -> str:
    """A way of measuring a bundle, as short as can be."""
    parts = [
        setting.detector,
        counted(setting.steps, "step"),
        counted(setting.noises, "noise"),
        setting.backend,
    ]
    return ", ".join([*parts, *([] if setting.first is None else [f"after {setting.first}"])])


def _as_high(p_value: float, benign: int) -> str:
    count = round(p_value * (benign + 1)) - 1
    if count == 0:
        return f"None of the {counted(benign, 'benign prompt')} it is compared with scores as high"
    verb = "scores" if count == 1 else "score"
    return f"{count:,} of the {counted(benign, 'benign prompt')} it is compared with {verb} as high"


def _share(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
