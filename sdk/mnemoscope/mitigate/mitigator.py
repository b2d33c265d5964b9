"""Drawing a prompt with and without a strategy, and judging what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import CalibrationError, InputError

from ..detector import Detector
from ..drawing.alignment import Alignment
from ..drawing.copy_detection import CopyDescriptor
from ..screening.detection import Detection
from .results import Judged, Mitigation, Picture, Rule
from .sampling import USUAL, Painter, Plan, Sampling, Task, sample
from .strategies import Plain, Strategy
from .yardstick import Yardstick

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Mitigator"]

NOT_FLAGGED = "the prompt was not flagged, so that it was drawn as ever"
_BATCH = 20
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Mitigator:
    """What draws and what judges.

    Attributes:
        painter: The model.
        descriptor: Says whether a picture is a copy.
        alignment: Says whether it follows its prompt; None if nobody does.
        yardstick: Benign magnitudes.
        sampling: How pictures are drawn.
    """

    painter: Painter
    descriptor: CopyDescriptor
    alignment: Alignment | None
    yardstick: Yardstick = field(default_factory=Yardstick)
    sampling: Sampling = USUAL

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        strategy: Strategy,
        references: Callable[[int], Vectors] | None = None,
        *,
        progress: Callable[[int], None] = lambda _: None,
    ) -> list[Picture]:
        """Draw and judge one picture for each prompt and seed.

        Args:
            prompts: # [B]
            seeds: # [B]
            strategy: How.
            references: Descriptors of what the i-th must not be like. # i -> [R, D]
            progress: Told how many were drawn since it was last called.

        Raises:
            InputError: prompts, seeds or the strategy cannot be used.
            NumericsError: something became NaN or infinite.
        """
        found: list[Picture] = []
        for i in range(0, len(prompts), _BATCH):
            task = self.painter.task(prompts[i : i + _BATCH], seeds[i : i + _BATCH], self.sampling)
            plan = _planned(strategy, task)
            drawn = sample(plan, self.sampling)
            images = self.painter.pictures(drawn.latents)
            scores = self.yardstick.scores(drawn.magnitudes)
            aligned: list[float | None] = [None] * len(images)
            if self.alignment is not None:
                aligned = self.alignment.score(task.prompts, images).tolist()
            likeness: list[float | None] = [None] * len(images)
            if references is not None:
                vectors = self.descriptor.describe(images)
                likeness = [
                    float((references(i + j) @ vector).max()) for j, vector in enumerate(vectors)
                ]
            for j, image in enumerate(images):
                judged = Judged(
                    scores[j], self.yardstick.p_value(scores[j]), likeness[j], aligned[j]
                )
                text = (plan.prompts or task.prompts)[j]
                found.append(
                    Picture(task.seeds[j], strategy.name, text, judged, image, drawn.passes)
                )
            progress(len(images))
        return found

    def mitigate(
        self,
        prompt: str,
        strategy: Strategy,
        seeds: Sequence[int] = (0,),
        *,
        references: Sequence[Image] = (),
        rule: Rule | None = None,
    ) -> Mitigation:
        """Draw a prompt as it is and with a strategy.

        Args:
            prompt: The prompt.
            strategy: How.
            seeds: One for each picture.
            references: Pictures that must not come out, beside what the prompt draws unmitigated;
                each is compared as it is, and as the model's VAE renders it.
            rule: When a picture passes; see `Rule`.

        Raises:
            InputError: an argument cannot be used.
            NumericsError: something became NaN or infinite.
        """
        name = _checked(strategy).name
        return self._tried(prompt, [strategy], seeds, references, rule, None, name)

    def auto(
        self,
        prompt: str,
        ladder: Iterable[Strategy],
        detector: Detector,
        seeds: Sequence[int] = (0,),
        *,
        references: Sequence[Image] = (),
        rule: Rule | None = None,
    ) -> Mitigation:
        """Screen a prompt and, if it is flagged, try strategies until every picture settles.

        A prompt is flagged if its p-value is no higher than the rule's level. One that is not gets
        the pictures it would have had.

        Args:
            prompt: The prompt.
            ladder: Strategies in the order they are tried. Each draws what the ones before it
                left; what a generator would have made after the last one needed is not made.
            detector: Calibrated; of this model.
            seeds: One for each picture.
            references: See `mitigate`.
            rule: When a picture passes, and when it settles; see `Rule`.

        Raises:
            InputError: an argument cannot be used.
            CalibrationError: the detector has no calibration to flag by.
            NumericsError: something became NaN or infinite.
        """
        return self._tried(prompt, ladder, seeds, references, rule, detector, "auto")

    def shown(self, references: Sequence[Image]) -> list[Image]:
        """References, and each as the model would show it: a copy is as sharp as its VAE."""
        return [*references, *self.painter.rendered(references)]

    def _tried(
        self,
        prompt: str,
        ladder: Iterable[Strategy],
        seeds: Sequence[int],
        given: Sequence[Image],
        rule: Rule | None,
        detector: Detector | None,
        name: str,
    ) -> Mitigation:
        if not isinstance(prompt, str) or not prompt.strip():
            raise InputError(f"A prompt is a text that is not empty, unlike {prompt!r}.")
        if isinstance(seeds, int) or not seeds:
            raise InputError("There is nothing to draw. Give at least one seed, in a list.")
        start = time.perf_counter()
        rule = rule or Rule(self.descriptor.copied_above)
        detection = None if detector is None else screen(detector, prompt)
        known = self.descriptor.describe(self.shown(given)) if given else None
        originals = self.draw(
            [prompt] * len(seeds), seeds, Plain(), None if known is None else lambda _: known
        )
        before = _together(originals, self.yardstick)
        flagged = detection is None or _p_value(detection) <= rule.level
        pictures = originals
        verdict: tuple[bool | None, str | None] = None, NOT_FLAGGED
        if flagged:
            own = self.descriptor.describe([each.image for each in originals])
            avoid = [row[None] if known is None else np.r_[row[None], known] for row in own]
            pictures = self._climb(prompt, ladder, originals, avoid, rule)
            verdict = rule.verdict([each.judged for each in pictures])
        return Mitigation(
            prompt=prompt,
            strategy=name,
            before=before,
            after=_together(pictures, self.yardstick),
            verified=verdict[0],
            why=verdict[1],
            flagged=flagged,
            descriptor=self.descriptor.name,
            detection=detection,
            seconds=time.perf_counter() - start,
            originals=tuple(originals),
            pictures=tuple(pictures),
        )

    def _climb(
        self,
        prompt: str,
        ladder: Iterable[Strategy],
        originals: Sequence[Picture],
        avoid: Sequence[Vectors],
        rule: Rule,
    ) -> list[Picture]:
        """Each picture by the first strategy that settles it, or by the best of all."""
        tried: list[list[Picture]] = [[] for _ in originals]
        left = list(range(len(originals)))
        for strategy in ladder:
            if not left:
                break
            seeds = [originals[i].seed for i in left]

            def references(j: int, left: list[int] = left) -> Vectors:
                return avoid[left[j]]

            for i, picture in zip(
                left, self.draw([prompt] * len(left), seeds, strategy, references), strict=True
            ):
                tried[i].append(picture)
            left = [i for i in left if not rule.settles(tried[i][-1].judged, originals[i].judged)]
        if not all(tried):
            raise InputError("There is no strategy to try. Give one or more.")
        return [
            chosen(each, original.judged, rule)
            for each, original in zip(tried, originals, strict=True)
        ]


def _checked(strategy: Strategy) -> Strategy:
    """A strategy, if it is one."""
    if (
        isinstance(strategy, type)
        or not callable(getattr(strategy, "plan", None))
        or not hasattr(strategy, "name")
    ):
        raise InputError(
            f"{strategy!r:.200} is no strategy: an object with a name and a method `plan`. "
            "`Kit.make` makes one by its name."
        )
    return strategy


def _planned(strategy: Strategy, task: Task) -> Plan:
    """The strategy's plan, if it is one."""
    plan = _checked(strategy).plan(task)
    if not isinstance(plan, Plan):
        raise InputError(
            f"{strategy.name!r} planned a {type(plan).__name__}, which is no Plan. Change "
            "`task.plan()` with `dataclasses.replace` and return that."
        )
    usual = task.plan()
    pairs = zip((plan.latents, *plan.embeds), (usual.latents, *usual.embeds), strict=False)
    if len(plan.embeds) != len(usual.embeds) or any(a.shape != b.shape for a, b in pairs):
        raise InputError(
            f"{strategy.name!r} planned latents of shape {list(plan.latents.shape)} and embeddings "
            f"of {[list(each.shape) for each in plan.embeds]}, where {list(usual.latents.shape)} "
            f"and {[list(each.shape) for each in usual.embeds]} are needed. Keep the shapes."
        )
    return plan


def chosen(tried: Sequence[Picture], before: Judged, rule: Rule) -> Picture:
    """What the rule takes of the pictures that were tried, with the passes of all up to there."""
    found = tried[rule.best([each.judged for each in tried], before)]
    return replace(found, passes=sum(each.passes for each in tried))


def screen(detector: Detector, prompt: str) -> Detection:
    """Screen with as many steps and noises as the detector was calibrated with.

    Raises:
        CalibrationError: it was not, on this backend.
    """
    file = detector.calibration
    settings = [
        each.setting
        for each in (() if file is None else file.calibrations)
        if (each.setting.backend, each.setting.detector)
        == (detector.screener.backend.name, detector.statistic.name)
    ]
    if not settings:
        raise CalibrationError(
            "`auto` decides by p-values, and the bundle has no calibration for "
            f"{detector.screener.backend.name}. Make one with `mnemoscope calibrate BUNDLE "
            "--benign FILE`, or name a strategy."
        )
    best = max(settings, key=lambda each: (each.steps, each.noises))
    [found] = detector.screen([prompt], steps=best.steps, noises=best.noises)
    return found


def _p_value(detection: Detection) -> float:
    if detection.p_value is None:  # `screen` chose a calibrated setting
        raise InputError("The prompt is empty, so there is nothing to mitigate. Give one.")
    return detection.p_value


def _together(pictures: Sequence[Picture], yardstick: Yardstick) -> Judged:
    """The mean score and alignment, the highest similarity."""
    parts = [each.judged for each in pictures]
    score = float(np.mean([each.score for each in parts]))
    aligned = [each.alignment for each in parts if each.alignment is not None]
    known = [each.copy_similarity for each in parts if each.copy_similarity is not None]
    return Judged(
        score,
        yardstick.p_value(score),
        max(known, default=None),
        float(np.mean(aligned)) if aligned else None,
    )
