"""What an audit found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..calibration import Setting
from ..prompts.printable import counted
from .confirming.confirmation import Confirmation
from .deciding import least

__all__ = ["Audit"]


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        file: The prompts.
        prompts: How many the file holds.
        distinct: How many different ones were screened.
        flagged: How many of those are flagged.
        groups: How many groups of near-duplicates the flagged ones form.
        errors: How many could not be screened, by reason; they are neither flagged nor cleared.
        repeated: How many rows hold what is to the model the same prompt as an earlier row's.
        truncated: How many of the distinct were longer than what the model reads.
        weighted: How many hold signs that some pipelines make weights of, or the like.
        calibrated: How many the calibration was made with: their p-values are no evidence.
        fdr: The false-discovery rate that was asked for.
        dependent: Whether it holds for any dependence between scores.
        limitation: What so few benign prompts cannot tell; None if they can tell of a single one.
        setting: How prompts were measured.
        benign: How many benign prompts the calibration has.
        calibration: sha256 of the calibration of that setting, in JSON.
        input: sha256 of the file, or of a captioned set (`mnemoscope.captioned.fingerprint`).
        confirmation: What came of drawing captions; None if nothing was drawn.
    """

    file: Path
    prompts: int
    distinct: int
    flagged: int
    groups: int
    errors: dict[str, int]
    repeated: int
    truncated: int
    weighted: int
    calibrated: int
    fdr: float
    dependent: bool
    limitation: str | None
    setting: Setting
    benign: int
    calibration: str
    input: str
    confirmation: Confirmation | None = None

    @property
    def verdict(self) -> str:
        """The result in a sentence."""
        text = (
            f"{self.flagged:,} of {counted(self.distinct, 'distinct prompt')} flagged, in "
            f"{counted(self.groups, 'group')}, at a false-discovery rate of {self.fdr:.3g}"
        )
        unscreened = sum(self.errors.values())
        text += f"; {counted(unscreened, 'row')} not screened" if unscreened else ""
        if self.flagged or self.limitation is None:
            return text
        fewest = least(self.distinct, self.benign, self.fdr, self.dependent)
        return (
            f"{text}. That clears none: with {counted(self.benign, 'benign prompt')} fewer than "
            f"{fewest:,} memorised ones cannot be flagged among so many"
        )
