"""What mitigation came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..screening.detection import Detection
    from .agreement import Agreement

__all__ = [
    "AGREEMENT",
    "DRAWING",
    "NONE",
    "REFERENCE",
    "SCREENING",
    "Judged",
    "Mitigation",
    "Picture",
    "Rule",
]

NONE = "none"  # the strategy that changes nothing
# what flags a prompt
SCREENING, DRAWING, REFERENCE, AGREEMENT = "screening", "drawing", "reference", "agreement"


@dataclass(frozen=True)
class Judged:
    """What was measured of a picture, or of several.

    Attributes:
        score: Mean magnitude in the first steps of drawing, in eps units; of several the mean.
        p_value: Share of benign prompts, counting this one, that score as high; None uncalibrated.
        copy_similarity: Cosine with the reference it is most like, in -1..1; of several the
            highest; None without any reference.
        alignment: CLIP score with the prompt as it was given, in -1..1; of several the mean; None
            without a CLIP.
        unmitigated_similarity: Cosine with the unmitigated picture it is most like: that of its
            seed, and those that agree with each other; of several the highest; None of one that is
            unmitigated itself.
    """

    score: float
    p_value: float | None
    copy_similarity: float | None
    alignment: float | None
    unmitigated_similarity: float | None = None

    def lost(self, before: Judged) -> float:
        """By how much less it follows the prompt than before; 0 if nobody knows."""
        if self.alignment is None or before.alignment is None:
            return 0.0
        return before.alignment - self.alignment


@dataclass(frozen=True)
class Picture:
    """A drawn picture.

    Attributes:
        seed: Of its noise.
        strategy: What drew it.
        prompt: What was drawn: other words than the user's, if the strategy changes words.
        judged: What was measured.
        image: The picture.
        passes: Network passes of planning, beyond those of drawing.
        recited: Where the prompt decided it: see `Drawn.maps`. # [H, W] of latents
    """

    seed: int
    strategy: str
    prompt: str
    judged: Judged
    image: Image
    passes: float
    recited: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)

    def as_json(self) -> dict[str, Any]:
        """All but the picture itself."""
        return {
            "seed": self.seed,
            "strategy": self.strategy,
            "drawn": self.prompt,
            "passes": self.passes,
            **asdict(self.judged),
        }


@dataclass(frozen=True)
class Rule:
    """When a picture may go out.

    Attributes:
        copied_above: A cosine above it counts as a copy; None if nobody knows one: then no picture
            is found to be a copy, and none is verified.
        alike_above: Where none is known: a cosine that two pictures of one benign prompt rarely
            exceed; None if that is not known either.
        level: A p-value above it counts as a benign prompt's, in 0..1.
        tolerance: How much alignment a picture may lose and still be taken at once. One that
            loses more is taken only if nothing better is found.
    """

    copied_above: float | None
    level: float = 0.05
    tolerance: float = 0.05
    alike_above: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.level < 1 or self.tolerance < 0:
            raise InputError(
                f"A level lies between 0 and 1, not at {self.level}, and a tolerance of alignment "
                f"is no less than 0, not {self.tolerance}."
            )

    @property
    def alike(self) -> float | None:
        """A cosine above it says that two pictures are one, as far as anything is known."""
        return self.alike_above if self.copied_above is None else self.copied_above

    def copied(self, judged: Judged) -> bool:
        """Whether it is like a reference, or the unmitigated picture, as `alike` says."""
        return self.like_reference(judged) or self._like(judged.unmitigated_similarity)

    def like_reference(self, judged: Judged) -> bool:
        """Whether it is like a picture that must not come out."""
        return self._like(judged.copy_similarity)

    def _like(self, cosine: float | None) -> bool:
        return self.alike is not None and cosine is not None and cosine > self.alike

    def unusual(self, judged: Judged) -> bool:
        """Whether its score is one that few benign prompts have, as far as anything is known."""
        return judged.p_value is not None and judged.p_value <= self.level

    def passes(self, judged: Judged) -> bool:
        """As far as was measured, no copy, and a score that benign prompts have too."""
        return not self.copied(judged) and not self.unusual(judged)

    def verdict(
        self, judged: Sequence[Judged], *, flagged: bool | None = True
    ) -> tuple[bool | None, str | None]:
        """Whether mitigated pictures are verified, and why not if they are not.

        True if all were compared, none is a copy, and all scores are benign ones as far as there is
        a calibration; False if any is not; None if they were not compared. Of a prompt that was not
        flagged, the unmitigated picture may come out again, and there is nothing to verify.

        Args:
            judged: The pictures.
            flagged: Whether the prompt was; None if nobody can tell.
        """
        if any(map(self.like_reference, judged)):
            return False, self._alike_to("a reference")
        if flagged is not False and any(map(self.copied, judged)):
            return False, self._alike_to("what the prompt draws unmitigated")
        if any(map(self.unusual, judged)):
            why = "a picture's score is one that few benign prompts have"
            return False, f"{why} (p no higher than {self.level})"
        if flagged is False:
            return None, "the prompt was not flagged"
        compared = [(each.copy_similarity, each.unmitigated_similarity) for each in judged]
        if self.copied_above is None or (None, None) in compared:
            return None, "no copy descriptor has compared the pictures"
        return True, None

    def _alike_to(self, what: str) -> str:
        if self.copied_above is not None:
            return f"a picture is a copy of {what}, with a cosine above {self.copied_above:.3g}"
        why = f"a picture is more like {what} than two pictures of one benign prompt are alike"
        return f"{why}, with a cosine above {self.alike:.3g}"

    def settles(self, judged: Judged, before: Judged) -> bool:
        """Passes, and follows the prompt about as well as before."""
        return self.passes(judged) and judged.lost(before) <= self.tolerance

    def best(self, tried: Sequence[Judged], before: Judged) -> int:
        """Which to take: the first that settles; else the best aligned of those that pass, of
        those that are no copies, of all.
        """

        def rank(i: int) -> tuple[bool, bool, bool, float]:
            each = tried[i]
            settled = self.settles(each, before)
            return (
                settled,
                self.passes(each),
                not self.copied(each),
                (-i if settled else each.alignment or 0.0),
            )

        return max(range(len(tried)), key=rank)


@dataclass(frozen=True)
class Mitigation:
    """A prompt's pictures before and after.

    Attributes:
        prompt: The prompt.
        strategy: What was asked for.
        before: Of `originals`, together.
        after: Of `pictures`, together.
        verified: Whether `pictures` are mitigated, see `Rule.verdict`; None also if the prompt was
            not flagged, so that there was nothing to mitigate.
        why: Why they are not verified; None if they are.
        flagged: Whether the prompt was; None if nobody can tell: the strategy was forced, no
            picture is like a reference, and no calibration says whose scores are unusual.
        flagged_by: What flagged it: "screening", before anything was drawn; "drawing", the score of
            an unmitigated picture; "reference", which such a picture is like; or the "agreement"
            of several. None if nothing did. A forced strategy is not screened for, nor are
            pictures asked whether they agree.
        descriptor: What compared pictures.
        detection: What screening said; None if the strategy was forced.
        agreement: How alike the unmitigated pictures of several seeds are; None if the strategy
            was forced, or a score had flagged the prompt already.
        seconds: All of it.
        originals: Unmitigated, one for each seed.
        pictures: Mitigated; the originals if the prompt was not flagged.
    """

    prompt: str
    strategy: str
    before: Judged
    after: Judged
    verified: bool | None
    why: str | None
    flagged: bool | None
    flagged_by: str | None
    descriptor: str
    detection: Detection | None
    agreement: Agreement | None
    seconds: float
    originals: tuple[Picture, ...]
    pictures: tuple[Picture, ...]

    @property
    def passed(self) -> bool:
        """Whether the pictures may go out: they are verified, or the prompt was not flagged.

        What was not flagged passes unless something that was measured of a picture forbids it.
        """
        return self.verified is True or (self.flagged is False and self.verified is None)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the pictures."""
        return tuple(each.seed for each in self.pictures)

    def as_json(self) -> dict[str, Any]:
        """All but the pictures themselves."""
        seen = self.detection
        return {
            "prompt": self.prompt,
            "strategy": self.strategy,
            "before": asdict(self.before),
            "after": asdict(self.after),
            "passed": self.passed,
            "verified": self.verified,
            "why": self.why,
            "flagged": self.flagged,
            "flagged_by": self.flagged_by,
            "descriptor": self.descriptor,
            "seconds": self.seconds,
            "seeds": list(self.seeds),
            "detection": None
            if seen is None
            else {
                key: getattr(seen, key)
                for key in ("score", "p_value", "threshold", "memorized", "steps")
            },
            "agreement": None
            if self.agreement is None
            else {**asdict(self.agreement), "recites": self.agreement.recites},
            "pictures": [each.as_json() for each in self.pictures],
        }
