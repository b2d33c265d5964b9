"""The cheapest setting that catches enough of the memorised prompts at a promised rate."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mnemoscope_runtime import Screener
from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.options import check_options
from mnemoscope_runtime.wording import counted

from ..detector import Detector
from ..detectors import Statistic, find_statistic
from ..screening.stages import Stage
from .calibration import Calibration
from .cascade import First
from .making import Progress, calibrate

__all__ = ["Candidate", "Choice", "choose"]


@dataclass(frozen=True)
class Candidate:
    """A setting that could be chosen.

    Attributes:
        calibration: Of that setting; its threshold has delta / k, for k candidates.
        flops: Floating-point operations of a benign prompt; of a cascade, those of the first
            stage, and of the second for the share of prompts that is not to be cleared.
        tpr: Share of the positives above the threshold.
        low: Its exact interval at 1 - 0.05 / k, ...
        high: ... so that the intervals of all candidates hold at once with 95 % confidence.
    """

    calibration: Calibration
    flops: int
    tpr: float
    low: float
    high: float


@dataclass(frozen=True)
class Choice:
    """All candidates, and which of them is to be used.

    Attributes:
        target: The true-positive rate that was asked for.
        candidates: The cheapest first.
    """

    target: float
    candidates: tuple[Candidate, ...]

    @property
    def best(self) -> Candidate:
        """The one with the highest true-positive rate, and of several the cheapest."""
        return max(self.candidates, key=lambda each: each.tpr)

    @property
    def chosen(self) -> Candidate:
        """The cheapest that reaches the target.

        Raises:
            InputError: none does; the message names the best.
        """
        for each in self.candidates:
            if each.tpr >= self.target:
                return each
        best = self.best
        raise InputError(
            f"None of the {counted(len(self.candidates), 'candidate')} flags {self.target:.3g} of "
            f"the memorised prompts at a false-positive rate of {best.calibration.fpr:.3g}. The "
            f"best flags {best.tpr:.3f} (95 % confidence: {best.low:.3f} to {best.high:.3f}): "
            f"{best.calibration.setting}. Ask for less (--target-tpr), promise less (--fpr), give "
            "more benign prompts, or try other --steps, --noises and --detector."
        )


def choose(
    screener: Screener,
    benign: Sequence[str],
    positives: Sequence[str],
    *,
    target: float,
    detectors: Sequence[str | Statistic] = ("magnitude",),
    first: First | None = None,
    fpr: float = 0.01,
    delta: float = 0.05,
    steps: Sequence[int] = (1,),
    noises: Sequence[int] | None = None,
    progress: Progress = lambda *_: None,
    tell: Callable[[str], None] = warnings.warn,
) -> Choice:
    """Calibrate every combination of detectors, steps and noises, to choose one.

    One is chosen by its true-positive rate on a few positives, and among thresholds of which some
    are lucky. So each threshold has delta / k, with which all k keep the promise at once, whichever
    is chosen; and each interval 1 - 0.05 / k. Detectors that learn do so from benign prompts alone,
    so that all positives judge.

    Args:
        screener: The bundle on a backend.
        benign: As in `calibrate`.
        positives: Prompts that the model memorised.
        target: The true-positive rate to reach, in 0..1.
        detectors: Statistics, or their names. One that looks at the first step alone has one step,
            whatever `steps` is.
        first: A first stage for all of them.
        fpr: False-positive rate to promise, in 0..1.
        delta: The chance that the promise is broken, in 0..1.
        steps: Numbers of steps.
        noises: Numbers of noises; all of the bank by default.
        progress: Told how many measurements of how many are done, for each detector anew.
        tell: Told of prompts that are left out.

    Raises:
        InputError: no such rate, no positives, a setting that the bundle does not have, or too few
            benign prompts to promise the rate of so many candidates.
        NumericsError: a feature is NaN or infinite.
    """
    check_options("a number", target=target)
    if not 0 < target <= 1:
        raise InputError(
            f"A true-positive rate to reach lies above 0 and is at most 1, --target-tpr {target} "
            "is not."
        )
    if not positives:
        raise InputError(
            "A true-positive rate is one of prompts known to be memorised. Give them: --positives."
        )
    counts = sorted(set(noises or (screener.noises,)))
    runs: dict[Detector, list[int]] = {}
    known = {each.name: each for each in map(find_statistic, detectors)}
    for statistic in known.values():
        detector = Detector(screener, detector=statistic, first=first)
        runs[detector] = [1] if detector.statistic.only_first else sorted(set(steps))
        for k, m in itertools.product(runs[detector], counts):
            detector.setting(steps=k, noises=m)  # before measuring for an hour
    among = len(counts) * sum(map(len, runs.values()))
    found = [
        calibration
        for i, (detector, lengths) in enumerate(runs.items())
        for calibration in calibrate(
            detector,
            benign,
            positives=positives,
            fpr=fpr,
            delta=delta,
            steps=lengths,
            noises=counts,
            among=among,
            weigh=False,
            progress=progress,
            tell=tell if i == 0 else lambda _: None,
        )
    ]
    candidates = [
        _candidate(screener, known[calibration.setting.detector], calibration)
        for calibration in found
    ]
    return Choice(target, tuple(sorted(candidates, key=lambda each: each.flops)))


def _candidate(screener: Screener, statistic: Statistic, calibration: Calibration) -> Candidate:
    setting, rate = calibration.setting, calibration.tpr()
    assert rate is not None
    own = Stage.of(screener, statistic, setting.steps, setting.noises)
    cost, first = own.flops, setting.first
    if first is not None:
        before = Stage.of(screener, find_statistic(first.detector), first.steps, first.noises)
        cost = before.flops + round((1 - first.clear) * own.flops)
    return Candidate(calibration, cost, *rate)
