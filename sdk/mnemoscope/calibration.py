"""What benign prompts score in one way of measuring, and what follows for the next prompt."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import CalibrationError, InputError

from .cascade import First, Gate
from .conformal import (
    MARGIN,
    allowed_above,
    just_above,
    p_values,
    proportion_interval,
    smallest_fpr,
    statistics,
)
from .detectors import Fit
from .places import require_regular

__all__ = ["Calibration", "CalibrationFile", "Carried", "Drift", "Setting", "digest"]

_KIND, _SCHEMA, _READABLE = "mnemoscope-calibration", 3, (2, 3)  # 2 knew no cascades
_NAMED = 4  # settings, in a message
AGAIN = "Calibrate the bundle again with `mnemoscope calibrate`."


@dataclass(frozen=True)
class Setting:
    """A way of measuring: the scores of two settings say nothing of each other.

    Attributes:
        bundle: Id of the bundle, which stands for its weights, precision and noise bank.
        backend: What ran it.
        detector: Name of the statistic.
        steps: Denoising steps that were measured.
        noises: How many noises of the bank, the first ones.
        first: The stage before this one, in a cascade.
    """

    bundle: str
    backend: str
    detector: str
    steps: int
    noises: int
    first: First | None = None

    def __str__(self) -> str:
        after = "" if self.first is None else f"after {self.first}, "
        return (
            f"{self.detector} at {self.steps} step(s) on {self.noises} noise(s), {after}"
            f"{self.backend}, bundle {self.bundle[:12]}"
        )

    @property
    def command(self) -> str:
        """What calibrates it."""
        return f"mnemoscope calibrate BUNDLE --benign FILE {self.options}"

    @property
    def options(self) -> str:
        """Those of the command line that measure in this way."""
        first = "" if self.first is None else f" {self.first.options}"
        return (
            f"--backend {self.backend} --detector {self.detector} --steps {self.steps} "
            f"--noises {self.noises}{first}"
        )


@dataclass(frozen=True)
class Drift:
    """Whether recent prompts score higher than those that were calibrated on.

    Attributes:
        recent: How many recent scores there were.
        p_value: Of Mann and Whitney's one-sided test. A few memorised prompts among many move it
            little; benign ones that score higher than before do.
        level: Below it, it is time to calibrate again.
    """

    recent: int
    p_value: float
    level: float

    @property
    def drifted(self) -> bool:
        """Whether the threshold's promise should no longer be relied on."""
        return self.p_value < self.level


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


@dataclass(frozen=True)
class Calibration:
    """Benign scores of one setting, and the threshold that they set.

    Attributes:
        setting: How they were measured.
        fpr: The most benign prompts to come that may score above the threshold, as a share ...
        delta: ... and the probability, over the draw of these benign prompts, that more do.
        threshold: Above it a prompt counts as memorised.
        prompts: `digest` of each benign prompt.
        scores: Of each of them.
        positives: Scores of prompts known to be memorised, if some were given.
        fit: What the detector learned from prompts other than these; None for one that does not.
        gate: What a cascade learned; None for a detector by itself.
        among: How many settings this one was chosen among. Each has delta / among, so that the
            promise holds for whichever is chosen.
        carried: Where it was measured, if that was another backend (`mnemoscope.carrying`).
    """

    setting: Setting
    fpr: float
    delta: float
    threshold: float
    prompts: tuple[str, ...]
    scores: tuple[float, ...]
    positives: tuple[float, ...] = ()
    fit: Fit | None = None
    gate: Gate | None = None
    among: int = 1
    carried: Carried | None = None

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
    ) -> Calibration:
        """Set the lowest threshold that keeps the promise.

        It is a benign prompt's score and a hair (`MARGIN`, relative), so that rounding on another
        machine does not push that very prompt over it.

        Args:
            setting: How the scores were measured.
            scores: Of each benign prompt's digest.
            positives: Scores of memorised prompts.
            fpr: False-positive rate to promise, in 0..1.
            delta: The chance that the promise is broken, in 0..1.
            fit: What the detector learned.
            gate: What a cascade learned.
            among: How many settings are candidates.
            carried: Where they were measured, if not on the setting's own backend.

        Raises:
            InputError: too few benign prompts for the promise, or NaN among the scores.
        """
        found = np.array(list(scores.values()), np.float64)
        known = tuple(map(float, positives))
        if not (np.isfinite(found).all() and np.isfinite(known).all()):
            raise InputError("There is NaN or infinity among the scores. Measure them again.")
        above = allowed_above(len(found), fpr, delta / among)
        return cls(
            setting=setting,
            fpr=fpr,
            delta=delta,
            threshold=just_above(float(np.sort(found)[len(found) - 1 - above])),
            prompts=tuple(scores),
            scores=tuple(map(float, found)),
            positives=known,
            fit=fit,
            gate=gate,
            among=among,
            carried=carried,
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
        scores = np.asarray(recent, np.float64)
        if len(scores) < 20 or not np.isfinite(scores).all():
            raise InputError(
                f"{len(scores)} recent scores{'' if len(scores) < 20 else ', NaN among them,'} "
                "cannot tell whether traffic changed. Give 20 or more."
            )
        test = statistics().mannwhitneyu(scores, self.ordered, alternative="greater")
        return Drift(len(scores), float(test.pvalue), level)

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
                f"One calibration of {self.setting} was chosen among {self.among} setting(s), the "
                f"other among {other.among}, so that they share the risk (delta) otherwise. "
                "Calibrate both with the same --target-tpr and candidates, or both without."
            )
        if (self.fpr, self.delta) != (other.fpr, other.delta):
            raise CalibrationError(
                f"One calibration promises a rate of {self.fpr} (delta {self.delta}), the other "
                f"{other.fpr} (delta {other.delta}). Calibrate both with the same --fpr and "
                "--delta."
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
        )


@dataclass(frozen=True)
class CalibrationFile:
    """The calibrations of one bundle, one for each setting."""

    calibrations: tuple[Calibration, ...]
    schema: int = _SCHEMA
    kind: str = _KIND

    @classmethod
    def read(cls, path: str | Path) -> CalibrationFile:
        """Read a calibration file.

        Raises:
            CalibrationError: it cannot be read or is no calibration.
        """
        try:
            require_regular(Path(path))
            text = Path(path).read_bytes()
            head = msgspec.json.decode(text, type=dict[str, Any])
            if head.get("kind") != _KIND or head.get("schema") not in _READABLE:
                raise CalibrationError(f"{path} is no calibration of this version. {AGAIN}")
            found = replace(msgspec.json.decode(text, type=cls), schema=_SCHEMA)
        except OSError as error:
            raise CalibrationError(
                f"{path} cannot be read: {error.strerror or error}. Make a calibration "
                "(`mnemoscope calibrate`, `calibrate_guard`), or name another file."
            ) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CalibrationError(f"{path} is damaged: {error}. {AGAIN}") from None
        for each in found.calibrations:
            gate = () if each.gate is None else (each.gate.level, each.gate.floor)
            values = (*each.scores, *each.positives, each.threshold, *gate)
            if not each.scores or len(each.scores) != len(each.prompts):
                raise CalibrationError(f"{path} has no usable scores. {AGAIN}")
            promises = 0 < each.fpr < 1 and 0 < each.delta < 1 <= each.among
            if not (np.isfinite(values).all() and promises):
                raise CalibrationError(f"{path} has no usable threshold. {AGAIN}")
            if (each.setting.first is None) != (each.gate is None):
                raise CalibrationError(f"{path} has half a cascade. {AGAIN}")
            if each.threshold < min(each.scores):
                raise CalibrationError(f"{path} has a threshold below every score. {AGAIN}")
        if len({each.setting for each in found.calibrations}) != len(found.calibrations):
            raise CalibrationError(f"{path} has two calibrations of one setting. {AGAIN}")
        return found

    def write(self, path: str | Path) -> None:
        """Write the file as JSON.

        Raises:
            InputError: the file cannot be written.
        """
        path = Path(path)
        require_regular(path)
        staged = path.with_name(f".{path.name}.new")
        try:
            staged.write_bytes(msgspec.json.encode(self) + b"\n")
            staged.replace(path)
        except OSError as error:
            staged.unlink(missing_ok=True)
            raise InputError(f"{path} cannot be written: {error}. Choose another file.") from None

    def check(self, bundle: str) -> None:
        """Raise CalibrationError unless every calibration was made on that bundle."""
        for other in {each.setting.bundle for each in self.calibrations} - {bundle}:
            raise CalibrationError(
                f"This calibration was made on bundle {other[:12]}, not on {bundle[:12]}: "
                "its thresholds mean nothing here. Calibrate this bundle (`mnemoscope calibrate`), "
                "or load the other one."
            )

    def find(self, setting: Setting) -> Calibration | None:
        """The calibration of a setting, or None."""
        return next((each for each in self.calibrations if each.setting == setting), None)

    def require(self, setting: Setting) -> Calibration:
        """The calibration of a setting.

        Raises:
            CalibrationError: it has none; the message says what it has and what makes one.
        """
        found = self.find(setting)
        if found is None:
            raise self.missing(setting)
        return found

    def backends(self, detector: str, first: First | None = None) -> list[str]:
        """Those on which a detector, or a cascade with it, is calibrated in some way."""
        settings = (each.setting for each in self.calibrations)
        alike = [s.backend for s in settings if (s.detector, s.first) == (detector, first)]
        return list(dict.fromkeys(alike))

    def missing(self, setting: Setting, why: str = "", after: str = "") -> CalibrationError:
        """What to raise where a setting is not calibrated: what is, and what makes one.

        Settings of the same bundle, backend and detector are enough to choose from; if there are
        none, others are named. A threshold of the same setting on another backend may
        be carried over.

        Args:
            setting: What is not calibrated.
            why: What needs it.
            after: Other ways out.
        """
        known = [each.setting for each in self.calibrations]
        alike = [
            s for s in known if replace(s, steps=setting.steps, noises=setting.noises) == setting
        ]
        named = alike or known
        has = "; ".join(map(str, named[:_NAMED]))
        has += f"; and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        parts = [f"There is no calibration of {setting}{f', only of: {has}' if has else ''}.", why]
        parts.append(f"`{setting.command}` makes one.")
        measured = [each.setting for each in self.calibrations if each.carried is None]
        elsewhere = [s.backend for s in measured if replace(s, backend=setting.backend) == setting]
        elsewhere = [each for each in elsewhere if _carries(each)]
        if elsewhere and setting.first is None and _carries(setting.backend):
            parts.append(
                f"Where {elsewhere[0]} and {setting.backend} agree, `mnemoscope calibration carry "
                f"BUNDLE --from {elsewhere[0]} --to {setting.backend}` carries its threshold over."
            )
        return CalibrationError(" ".join(filter(None, [*parts, after])))

    def with_(self, others: Iterable[Calibration]) -> CalibrationFile:
        """The same, with others added; they replace calibrations of the same setting."""
        known = {each.setting: each for each in self.calibrations}
        known |= {each.setting: each for each in others}
        return replace(self, calibrations=tuple(known.values()))

    def merged(self, other: CalibrationFile) -> CalibrationFile:
        """The settings of both; the benign prompts of both where they share one.

        Raises:
            CalibrationError: as `Calibration.merged`, or they belong to two bundles.
        """
        for each in self.calibrations[:1]:
            other.check(each.setting.bundle)
        pooled = [
            each if (mine := self.find(each.setting)) is None else mine.merged(each)
            for each in other.calibrations
        ]
        return self.with_(pooled)


def _carries(backend: str) -> bool:
    """Whether thresholds may be carried over from or to it: float32, and opened by its name."""
    name, _, precision = backend.partition(":")
    return not name.startswith("torch") and precision in ("", "float32")


def digest(prompt: str) -> str:
    """A prompt's name in a calibration, which thus does not spell prompts out."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:12]
