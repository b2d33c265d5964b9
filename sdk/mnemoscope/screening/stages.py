"""One look at prompts: a statistic at so many steps on so many noises of an open bundle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime import (
    CalibrationError,
    Embeddings,
    InputError,
    NumericsError,
    Prompts,
    Screener,
    Tokens,
)
from mnemoscope_runtime.options import check_options

from ..calibration import Calibration, Setting
from ..calibration.cascade import First
from ..detectors import Features, Fit, Scores, Statistic, check_unit, find_statistic
from ..detectors.magnitude import Magnitude
from ..detectors.taps import Tap, Taps
from ..prompts.printable import counted

__all__ = ["Look", "Stage", "alone", "checked_scores", "in_turn"]


@dataclass(frozen=True)
class Stage:
    """A statistic, and how much of the bundle it looks at.

    Attributes:
        screener: The bundle on a backend.
        statistic: What is measured.
        steps: Denoising steps.
        noises: How many noises of the bank, the first ones.
    """

    screener: Screener
    statistic: Statistic
    steps: int
    noises: int

    @classmethod
    def of(
        cls, screener: Screener, statistic: Statistic, steps: int = 1, noises: int | None = None
    ) -> Stage:
        """Of all noises by default.

        Raises:
            InputError: steps or noises cannot be used, the bundle lacks a tap, or the statistic is
                not one of what it measures.
        """
        check_options("a whole number", steps=steps)
        check_unit(statistic, screener)
        if statistic.only_first and steps != 1:
            raise InputError(
                f"The detector {statistic.name!r} looks at the first step alone, so that --steps "
                f"{steps} means nothing. Leave it out, or choose another detector."
            )
        if isinstance(statistic, (Tap, Taps)):
            screener.require_taps(*([statistic.layer] if isinstance(statistic, Tap) else []))
        count, steps = screener.counts(noises, steps)
        if statistic.draws and (steps != screener.steps or count < 2):
            raise InputError(
                f"The detector {statistic.name!r} compares finished pictures, so that --steps "
                f"{steps} on --noises {count} gives it nothing. Give --steps {screener.steps} and "
                "--noises 2 or more."
            )
        return cls(screener, statistic, steps, count)

    @classmethod
    def before(cls, screener: Screener, first: First) -> Stage:
        """The first one of a cascade.

        Raises:
            InputError: it is no `First`, or as `of`.
        """
        if not isinstance(first, First):
            raise InputError(f"first is {first!r:.80}, not a stage. Give First({first!r:.40}).")
        return cls.of(screener, find_statistic(first.detector), first.steps, first.noises)

    def __str__(self) -> str:
        steps, noises = counted(self.steps, "step"), counted(self.noises, "noise")
        return f"{self.statistic.name} at {steps} on {noises}"

    def measure(self, prompts: Prompts) -> Features:
        """What scores are made of. # [prompt, noise, step, feature]

        Raises:
            InputError: a prompt cannot be used.
            NumericsError: a feature is NaN or infinite.
        """
        statistic = self.statistic
        features = statistic.measure(self.screener, prompts, steps=self.steps, noises=self.noises)
        count = len(prompts.ids) if isinstance(prompts, Tokens) else len(prompts)
        steps = 1 if statistic.draws else self.steps
        _check(statistic, features, 4, (count, self.noises, steps), "measures")
        finite = np.isfinite(features)
        if not finite.all():
            bad = int(np.argwhere(~finite)[0, 0])
            raise NumericsError(
                f"What {statistic.name!r} measures of prompt {bad} is NaN or infinite: that is no "
                "verdict. Export the model in float32, or run the bundle on another backend."
            )
        return features

    def scores(self, prompts: Prompts, fit: Fit | None) -> Scores:
        """Scores. # [prompt, noise]

        Raises:
            CalibrationError: the statistic learns, and there is no fit.
            InputError, NumericsError: as `measure` and `checked_scores`.
        """
        return checked_scores(self.statistic, self.measure(prompts), fit)

    def rms(self, features: Features) -> list[float] | list[None]:
        """Of magnitudes: the difference per latent element, of predicted pictures; see `units`.

        Args:
            features: Of `measure`. # [prompt, noise, step, feature]
        """
        if not isinstance(self.statistic, Magnitude):
            return [None] * len(features)
        found: list[float] = (features[..., 0] @ self._rms_per_step).mean(1).tolist()
        return found

    @cached_property
    def _rms_per_step(self) -> NDArray[np.float64]:
        """# [step]"""
        weight = self.steps * self.screener.latent_elements**0.5
        return np.asarray(self.screener.x0_per_unit(self.steps) / weight)

    @property
    def passes(self) -> int:
        """Network passes of one prompt."""
        return self.noises * self.statistic.passes(self.steps)

    @property
    def flops(self) -> int:
        """Floating-point operations of one prompt, as the manifest counts them.

        The text encoder once, and the network for every noise: half of the graph `step`, which
        holds two passes, or the graph of the first step, which holds one and the text encoder.
        """
        manifest = self.screener.bundle.manifest
        text = manifest.flops["text_encoder"]
        inside = 0 if manifest.encodes_apart else text
        if self.statistic.passes(self.steps) > 1:
            return text + self.passes * manifest.flops["step"] // 2
        looks_at_taps = isinstance(self.statistic, (Tap, Taps))
        graph = "taps" if looks_at_taps and "taps" in manifest.graphs else "screen"
        return text + self.passes * (manifest.flops[graph] - inside)


def checked_scores(statistic: Statistic, features: Features, fit: Fit | None) -> Scores:
    """What a statistic makes of its features. # [prompt, noise]

    Whoever makes a number of them for a verdict makes sure that it is finite.

    Raises:
        CalibrationError: the statistic learns, and there is no fit.
        InputError: the statistic is the caller's own, and returned something else.
    """
    scores = statistic.score(features, fit)
    _check(statistic, scores, 2, features.shape[:2], "makes")
    return scores


def _check(
    statistic: Statistic, found: object, rank: int, leading: tuple[int, ...], does: str
) -> None:
    """Whether it is an array of floats that has so many dimensions and begins with these."""
    if (
        type(found) is not np.ndarray
        or found.dtype not in (np.float32, np.float64)
        or found.ndim != rank
        or found.shape[: len(leading)] != leading
    ):
        what = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else f"{found!r:.80}"
        sizes = ", ".join(map(str, leading)) + (", any" if rank > len(leading) else "")
        raise InputError(
            f"What the detector {statistic.name!r} {does} of prompts is {what}, not float32 or "
            f"float64 ({sizes}). Mend its code (docs/detectors.md)."
        )


class Look(NamedTuple):
    """What one or two stages made of a prompt.

    Attributes:
        score: Of both stages together where there are two.
        scores: Of each noise, by the stage that decided.
        passes: Network passes that it took.
        cleared: Whether the first of two stages cleared it.
        rms: Of the stage that decided, if that is the magnitude and not the first of two.
    """

    score: float
    scores: list[float]
    passes: int
    cleared: bool = False
    rms: float | None = None


def alone(stage: Stage, told: Tokens | Embeddings, calibration: Calibration | None) -> list[Look]:
    """Looks of a stage by itself; raises as `Stage.scores`."""
    fit = None if calibration is None else calibration.fit
    # few array operations: on small models each costs as much as a percent of the network
    features = stage.measure(told)
    rows = checked_scores(stage.statistic, features, fit).tolist()
    passes = stage.passes
    if isinstance(told, Embeddings):  # the other branch of the first step is not known
        passes = max(passes, 2 * stage.steps * stage.noises)
    pairs = zip(rows, stage.rms(features), strict=True)
    return _possible([Look(_mean(row), row, passes, rms=rms) for row, rms in pairs])


def in_turn(
    first: Stage, second: Stage, tokens: Tokens, setting: Setting, calibration: Calibration | None
) -> list[Look]:
    """Looks of a cascade: the second stage looks at what the first does not clear.

    Raises:
        CalibrationError: the cascade is not calibrated.
        NumericsError: a feature is NaN or infinite.
    """
    if calibration is None or calibration.gate is None:
        raise CalibrationError(
            "A cascade knows what to clear only after it has seen benign prompts. Calibrate "
            f"{setting}."
        )
    gate = calibration.gate
    rows = first.scores(tokens, gate.fit)
    means = rows.mean(1)
    left = np.flatnonzero(means > gate.level)
    looks = [Look(0.0, row, first.passes, cleared=True) for row in rows.tolist()]
    found = np.empty((0, second.noises))
    rms: list[float] | list[None] = []
    if len(left):
        cut = tuple(tokens.truncated[i] for i in left)
        try:
            features = second.measure(Tokens(tokens.ids[left], cut))
            found, rms = (
                checked_scores(second.statistic, features, calibration.fit),
                second.rms(features),
            )
        except NumericsError as error:
            where = f"(The second stage looked at prompts {left.tolist()} of its batch.)"
            raise NumericsError(f"{error} {where}") from None
    for place, row, each in zip(left.tolist(), found.tolist(), rms, strict=True):
        looks[place] = Look(0.0, row, first.passes + second.passes, rms=each)
    joint = gate.joint(means, found.mean(1)).tolist()
    scored = [look._replace(score=score) for look, score in zip(looks, joint, strict=True)]
    return _possible(scored)


def _mean(row: list[float]) -> float:
    try:
        return math.fsum(row) / len(row)
    except (OverflowError, ValueError):  # too large together, or infinite with both signs
        return math.nan


def _possible(looks: list[Look]) -> list[Look]:
    """The last look at the numbers that verdicts are made of.

    Raises:
        NumericsError: one is NaN or infinite, as where finite ones add up to more than a float.
    """
    for index, look in enumerate(looks):
        if not math.isfinite(look.score):
            raise NumericsError(
                f"The score of prompt {index} is NaN or infinite: that is no verdict. Calibrate "
                "the bundle again, or run it on another backend."
            )
    return looks
