"""What benign prompts score in one way of measuring, and what follows for the next prompt."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import CalibrationError, InputError

from ..detectors import Fit, never_negative
from ..prompts.printable import counted
from .cascade import Gate
from .conformal import MARGIN, lowest_threshold, p_values, proportion_interval, smallest_fpr
from .drift import Drift
from .setting import Setting

__all__ = ["AGAIN", "SAFETY", "Calibration", "Carried", "Named", "digest", "name_of"]

SAFETY = 10  # times the largest difference of two backends that was measured (see `carrying`)
_MOST = 2**31  # settings that one may be chosen among
AGAIN = "Calibrate the bundle again with `mnemoscope calibrate`."
"""What to do where a calibration cannot be used."""
Named = Literal["text", "tokens"]
"""What the names of prompts in a calibration are digests of."""


@dataclass(frozen=True)
class Carried:
    """Where a calibration comes from that was not measured on its own backend.

    Attributes:
        backend: The one it was measured on.
        prompts: On how many prompts both were compared.
        error: The largest difference between their scores there.
    """

    backend: str
    prompts: int
    error: float

    def fits(self, calibration: Calibration) -> bool:
        """Whether no score lies so near to the threshold that the difference could matter."""
        measured = self.backend != calibration.setting.backend and self.prompts > 0
        return measured and 0 <= self.error < calibration.nearest / SAFETY


@dataclass(frozen=True)
class Calibration:
    """Benign scores of one setting, and the threshold that they set.

    Attributes:
        setting: How they were measured.
        fpr: The most benign prompts to come that may score above the threshold, as a share ...
        delta: ... and the probability, over the draw of these benign prompts, that more do.
        threshold: Above it a prompt counts as memorised.
        prompts: The name of each benign prompt: a digest of what `named_by` says.
        scores: Of each of them.
        positives: Scores of prompts known to be memorised, if some were given.
        fit: What the detector learned from prompts other than these; None for one that does not.
        gate: What a cascade learned; None for a detector by itself.
        among: How many settings this one was chosen among. Each has delta / among, so that the
            promise holds for whichever is chosen.
        carried: Where it was measured, if that was another backend (see `carrying`).
        named_by: "tokens": `name_of` what the model reads of a prompt, so that two which are the
            same to it count once. "text": `digest` of its text, as earlier versions wrote.

    Raises:
        CalibrationError: the threshold is not the one that scores and promise set, or they cannot
            have been measured, or cannot promise that.
    """

    setting: Setting
    fpr: float
    delta: float
    threshold: float
    prompts: tuple[str, ...] = field(repr=False)  # a thousand, mostly
    scores: tuple[float, ...] = field(repr=False)
    positives: tuple[float, ...] = field(default=(), repr=False)
    fit: Fit | None = None
    gate: Gate | None = None
    among: int = 1
    carried: Carried | None = None
    named_by: Named = "text"

    def __post_init__(self) -> None:
        problem = next(_problems(self), None)
        if problem is not None:
            raise CalibrationError(f"The calibration of {self.setting} {problem}. {AGAIN}")

    @classmethod
    def of(
        cls,
        setting: Setting,
        scores: dict[str, float],
        *,
        positives: Iterable[float] = (),
        fpr: float = 0.01,
        delta: float = 0.05,
        fit: Fit | None = None,
        gate: Gate | None = None,
        among: int = 1,
        carried: Carried | None = None,
        named_by: Named = "text",
    ) -> Calibration:
        """Set the lowest threshold that keeps the promise.

        It is a benign prompt's score and a hair (`MARGIN`, relative), so that rounding on another
        machine does not push that very prompt over it.

        Args:
            setting: How the scores were measured.
            scores: Of each benign prompt's name.
            positives: Scores of memorised prompts.
            fpr: False-positive rate to promise, in 0..1.
            delta: The chance that the promise is broken, in 0..1.
            fit: What the detector learned.
            gate: What a cascade learned.
            among: How many settings are candidates.
            carried: Where they were measured, if not on the setting's own backend.
            named_by: What names are digests of.

        Raises:
            InputError: too few benign prompts for the promise, or NaN among the scores.
            CalibrationError: as `Calibration`.
        """
        found, known = (tuple(map(float, each)) for each in (scores.values(), positives))
        if not all(map(math.isfinite, (*found, *known))):
            raise InputError("There is NaN or infinity among the scores. Measure them again.")
        return cls(
            setting=setting,
            fpr=fpr,
            delta=delta,
            threshold=lowest_threshold(found, fpr, delta / among),
            prompts=tuple(scores),
            scores=found,
            positives=known,
            fit=fit,
            gate=gate,
            among=among,
            carried=carried,
            named_by=named_by,
        )

    @cached_property
    def ordered(self) -> NDArray[np.float64]:
        """Benign scores, ascending. # [n]"""
        return np.sort(np.array(self.scores, np.float64))

    @cached_property
    def _ascending(self) -> list[float]:
        return sorted(self.scores)

    def p_values(self, scores: Sequence[float] | NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Of each score: the share of benign prompts, counting this one, that score as high.

        A small one says that few benign prompts look like this one. It is not the probability
        that the prompt is benign, nor 1 - it that it is memorised.
        """
        return p_values(np.asarray(scores, np.float64), self.ordered)

    def p_value(self, score: float) -> float:
        """The same of one score, without arrays."""
        at_least = len(self.scores) - bisect_left(self._ascending, score)
        return (1 + at_least) / (len(self.scores) + 1)

    @property
    def nearest(self) -> float:
        """How far the nearest score lies from the threshold."""
        return min(abs(score - self.threshold) for score in (*self.scores, *self.positives))

    @property
    def smallest_fpr(self) -> float:
        """The smallest false-positive rate that as many benign prompts can promise."""
        return smallest_fpr(len(self.scores), self.delta / self.among)

    def tpr(self) -> tuple[float, float, float] | None:
        """Share of the positives above the threshold, with its exact 95 % interval.

        Of a setting that was chosen among k it is that at 1 - 0.05 / k, so that all k hold at once.
        """
        if not self.positives:
            return None
        hits = sum(score > self.threshold for score in self.positives)
        return hits / len(self.positives), *proportion_interval(
            hits, len(self.positives), 1 - 0.05 / self.among
        )

    def drift(self, recent: Sequence[float], level: float = 0.01) -> Drift:
        """Test whether recent traffic, benign in the main, scores higher than it did.

        Raises:
            InputError: too few scores to tell, or NaN among them.
        """
        return Drift.of(recent, self.ordered, level)

    def merged(self, other: Calibration) -> Calibration:
        """Prompts of both, measured in the same way; one in both counts once.

        Positives have no names: those are the same that score the same to the last digit.

        Raises:
            CalibrationError: they were measured or fitted differently, or promise other rates.
        """
        if (self.setting, self.fit, self.gate) != (other.setting, other.fit, other.gate):
            raise CalibrationError(
                f"A calibration of {self.setting} and one of {other.setting} cannot become one: "
                "their scores say nothing of each other."
            )
        if self.carried != other.carried:
            raise CalibrationError(
                f"Of two calibrations of {self.setting} one was carried over from another backend, "
                "and the other was not, or otherwise. Merge those that were measured, and carry "
                "the result over."
            )
        if self.among != other.among:
            raise CalibrationError(
                f"One calibration of {self.setting} was chosen among "
                f"{counted(self.among, 'setting')}, the other among {other.among}, so that they "
                "share the risk (delta) otherwise. Calibrate both with the same --target-tpr and "
                "candidates, or both without."
            )
        if (self.fpr, self.delta) != (other.fpr, other.delta):
            raise CalibrationError(
                f"One calibration promises a rate of {self.fpr} (delta {self.delta}), the other "
                f"{other.fpr} (delta {other.delta}). Calibrate both with the same --fpr and "
                "--delta."
            )
        if self.named_by != other.named_by:
            raise CalibrationError(
                f"One calibration of {self.setting} names prompts by their text, as earlier "
                "versions did, the other by what the model reads of them: which are in both nobody "
                "can tell, and none may count twice. Calibrate again on the prompts of both."
            )
        mine = dict(zip(self.prompts, self.scores, strict=True))
        theirs = dict(zip(other.prompts, other.scores, strict=True))
        for prompt in mine.keys() & theirs.keys():
            if not math.isclose(mine[prompt], theirs[prompt], rel_tol=10 * MARGIN, abs_tol=1e-6):
                raise CalibrationError(
                    f"One prompt scores {mine[prompt]:.5g} in one calibration and "
                    f"{theirs[prompt]:.5g} in the other, so they were not measured in the same "
                    f"way. {AGAIN}"
                )
        return Calibration.of(
            self.setting,
            theirs | mine,
            positives=(Counter(self.positives) | Counter(other.positives)).elements(),
            fpr=self.fpr,
            delta=self.delta,
            fit=self.fit,
            gate=self.gate,
            among=self.among,
            carried=self.carried,
            named_by=self.named_by,
        )


def _problems(calibration: Calibration) -> Iterator[str]:
    """What keeps a calibration from being one, the gravest first: parts of sentences.

    Everything that follows from something else that it says is worked out anew.
    """
    scores, setting, gate = calibration.scores, calibration.setting, calibration.gate
    if not scores or len(scores) != len(calibration.prompts):
        yield "has no usable scores"
    if len(set(calibration.prompts)) < len(calibration.prompts):
        yield "counts a prompt twice"
    numbers = (*scores, *calibration.positives, calibration.threshold)
    if not all(map(math.isfinite, numbers)):
        yield "has scores that are NaN or infinite"
    if (setting.first is None) != (gate is None):
        yield "is half a cascade"
    lowest = _lowest(setting, gate)
    if min(numbers) < lowest:
        yield f"has scores below {lowest:.4g}, which no prompt has"
    if not 1 <= calibration.among <= _MOST:
        yield f"has no usable threshold: one setting was chosen among {calibration.among}"
    try:
        follows = lowest_threshold(scores, calibration.fpr, calibration.delta / calibration.among)
    except InputError as error:
        yield f"has no usable threshold: {str(error).removesuffix('.')}"
        return
    if calibration.threshold != follows:
        yield f"has a threshold of {calibration.threshold:.7g}, and its scores set {follows:.7g}"
    if gate is not None and not (math.isfinite(gate.level) and gate.floor in scores):
        yield "has a gate that is of other scores"
    if gate is not None and follows < gate.floor:
        yield "flags what the first stage clears"
    if calibration.fit is not None and calibration.fit.steps < setting.steps:
        yield "learned at fewer steps than it measures"
    carried = calibration.carried
    if carried is not None and (gate is not None or not carried.fits(calibration)):
        yield f"cannot have been carried over from {carried.backend}"


def _lowest(setting: Setting, gate: Gate | None) -> float:
    """Below it there are no scores."""
    if setting.first is None or gate is None:
        return 0.0 if never_negative(setting.detector) else -math.inf
    return gate.floor - gate.level if never_negative(setting.first.detector) else -math.inf


def digest(prompt: str) -> str:
    """A text's name, which does not spell it out."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def name_of(read: bytes) -> str:
    """A prompt's name in a calibration, of a digest of what is read of it (`Tokenizer.digests`)."""
    return read.hex()[:12]
