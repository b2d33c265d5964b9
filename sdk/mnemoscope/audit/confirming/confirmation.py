"""What came of drawing captions of an audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...duplicates import Repeats
from ...prompts.printable import counted
from .choosing import Chosen
from .estimates import Estimate, Part, recall, share, total
from .findings import Cosines, Finding

__all__ = ["Confirmation", "DrawnCaption", "Likeness"]


@dataclass(frozen=True)
class Likeness:
    """What drawings of a row's caption have to do with the row's own picture.

    Attributes:
        similarity: The highest cosine.
        copies: How many drawings are copies of it; None if nobody knows what a copy is.
    """

    similarity: float
    copies: int | None


@dataclass(frozen=True, eq=False)
class DrawnCaption:
    """What came of drawing a caption.

    Attributes:
        place: Which of the distinct captions it is.
        prompt: The caption.
        flagged: Whether the audit flags it.
        finding: What its drawings say; None if nobody knows what a copy is.
        own: Cosine of each drawing with the caption's own pictures, the highest. # [K]
        own_row: The row of the picture of its own that a drawing is most like.
        other: With the nearest other picture of the set; -1 if there is none. # [K]
        other_row: The row of the other picture that a drawing is most like; None likewise.
        shown: The drawings, scaled down, as WebP. # [K]
    """

    place: int
    prompt: str
    flagged: bool
    finding: Finding | None
    own: Cosines
    own_row: int
    other: Cosines
    other_row: int | None
    shown: Sequence[bytes]


@dataclass(frozen=True, eq=False)
class Confirmation:
    """What came of drawing captions.

    Attributes:
        descriptor: Name of what compares pictures.
        copied_above: A cosine above it counts as a copy; None if nobody knows one.
        usual_up_to: What unrelated drawings reach (`findings.usual`); None of too few.
        seeds: From how many each caption was drawn.
        steps: Steps of a drawing.
        guidance: Scale of classifier-free guidance, or what the network is told; None if none is.
        pictures: How many pictures could be read.
        errors: How many could not, by reason.
        chosen: Which captions were drawn.
        captions: What came of each, in the order of `chosen.places`.
        rows: What came of each row whose caption was drawn and whose picture can be read.
        picture_errors: Why rows have a picture that cannot be read.
        repeats: What the set holds more than once; None if nobody knows for this descriptor.
    """

    descriptor: str
    copied_above: float | None
    usual_up_to: float | None
    seeds: int
    steps: int
    guidance: float | None
    pictures: int
    errors: Mapping[str, int]
    chosen: Chosen
    captions: Sequence[DrawnCaption]
    rows: Mapping[int, Likeness]
    picture_errors: Mapping[int, str]
    repeats: Repeats | None = None

    def counts(self, *, flagged: bool) -> Counter[Finding | None]:
        """How many captions there are of each finding."""
        return Counter(each.finding for each in self.captions if each.flagged == flagged)

    @property
    def flagged(self) -> tuple[Part, Part]:
        """The flagged captions with a picture: those with the highest scores, and the others."""
        worst, some = len(self.chosen.worst), len(self.chosen.flagged)
        found = [each.finding is Finding.confirmed for each in self.captions]
        return (
            Part(worst, worst, sum(found[:worst])),
            Part(self.chosen.other_flagged, some, sum(found[worst : worst + some])),
        )

    @property
    def others(self) -> tuple[Part]:
        """The captions that are not flagged."""
        found = sum(each.finding is Finding.confirmed for each in self.captions if not each.flagged)
        return (Part(self.chosen.all_unflagged, len(self.chosen.unflagged), found),)

    @property
    def share(self) -> Estimate | None:
        """The share of the flagged captions that is confirmed; None if that cannot be known."""
        return None if self.copied_above is None else share(self.flagged)

    @property
    def missed(self) -> Estimate | None:
        """How many of the captions that are not flagged would be confirmed; None likewise."""
        return None if self.copied_above is None else total(self.others)

    @property
    def recall(self) -> Estimate | None:
        """Of all captions that would be confirmed, the share that is flagged; None likewise."""
        return None if self.copied_above is None else recall(self.flagged, self.others)

    def sentences(self) -> list[str]:
        """The result in words."""
        repeats = [] if self.repeats is None else [f"{self.repeats.verdict}."]
        return [*self._findings(), *repeats]

    def _findings(self) -> list[str]:
        hits = sum(part.size for part in self.flagged)
        drawn = sum(part.drawn for part in self.flagged)
        seeds, many = counted(self.seeds, "seed"), len(self.captions)
        if self.copied_above is None:
            return [
                f"{counted(many, 'caption')} {_were(many)} drawn from {seeds} each. What cosine "
                f"is a copy is not known for {self.descriptor}: nothing is confirmed."
            ]
        counts = self.counts(flagged=True)
        found = [
            f"{drawn:,} of {counted(hits, 'flagged caption')} with a picture {_were(drawn)} drawn "
            f"from {seeds} each: "
            f"{counts[Finding.confirmed]:,} confirmed, {_near(counts)}, "
            f"{counts[Finding.not_confirmed]:,} not confirmed."
        ]
        if drawn < hits and self.share is not None:
            found.append(f"Of all flagged, {_percent(self.share)} would be confirmed.")
        (others,) = self.others
        if not others.size:
            return found
        counts = self.counts(flagged=False)
        text = (
            f"{others.drawn:,} of {counted(others.size, 'caption')} that "
            f"{'is' if others.size == 1 else 'are'} not flagged {_were(others.drawn)} drawn: "
            f"{counts[Finding.confirmed]:,} confirmed, {_near(counts)}."
        )
        if self.missed is not None and others.drawn < others.size:
            text += f" {_misses(self.missed, others)}"
        found.append(text)
        if self.recall is not None:
            found.append(f"It flags {_percent(self.recall)} of all that would be confirmed.")
        return found


def _near(counts: Counter[Finding | None]) -> str:
    return counted(counts[Finding.near_miss], "near miss", "near misses")


def _percent(estimate: Estimate) -> str:
    low, high = 100 * estimate.low, 100 * estimate.high
    value = "an unknown share" if estimate.value is None else f"{100 * estimate.value:.0f} %"
    return value if low == high else f"{value} (95 %: {low:.0f} to {high:.0f} %)"


def _misses(estimate: Estimate, others: Part) -> str:
    low, high = f"{estimate.low:,.0f}", f"{estimate.high:,.0f}"
    if estimate.value is None:
        return f"How many the audit misses is not known: from 0 to {high}."
    if not others.found:
        return f"No miss was seen; there are at most {high} (95 %)."
    return f"So the audit misses some {estimate.value:,.0f} (95 %: {low} to {high})."


def _were(number: int) -> str:
    return "was" if number == 1 else "were"
