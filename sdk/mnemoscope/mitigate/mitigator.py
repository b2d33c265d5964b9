"""Drawing a prompt with and without a strategy, and judging what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import InputError

from ..detector import Detector
from ..drawing.alignment import Alignment
from ..drawing.copy_detection import CopyDescriptor
from .agreement import Agreement, Usual, agreeing, most_alike
from .flagging import is_flagged, screen
from .planning import checked, planned
from .results import (
    AGREEMENT,
    DRAWING,
    REFERENCE,
    SCREENING,
    Judged,
    Mitigation,
    Picture,
    Rule,
)
from .sampling import Painter, Sampling, sample
from .strategies import Plain, Strategy
from .words import random_prompts
from .yardstick import Yardstick

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Mitigator"]

_BATCH = 20
_NEXT = "preparing a strategy"
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Mitigator:
    """What draws and what judges.

    Attributes:
        painter: The model.
        descriptor: Says whether a picture is a copy.
        alignment: Says whether it follows its prompt; None if nobody does.
        yardstick: Benign magnitudes.
        sampling: How pictures are drawn; None as diffusers' pipeline of the family does.
        benign: Prompts that the model did not memorise, to see how alike two pictures of one
            are; by default twenty of random words.
    """

    painter: Painter
    descriptor: CopyDescriptor
    alignment: Alignment | None
    yardstick: Yardstick = field(default_factory=Yardstick)
    sampling: Sampling | None = None
    benign: Sequence[str] = ()

    @cached_property
    def usual(self) -> Usual:
        """How alike two pictures of one benign prompt are: drawn once, when it is needed."""
        prompts = self.benign or random_prompts(self.painter.model)
        return Usual(self.painter, self.descriptor, prompts, self.sampling)

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        strategy: Strategy,
        references: Vectors | None = None,
        *,
        unmitigated: Callable[[int], Vectors] | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> list[Picture]:
        """Draw and judge one picture for each prompt and seed.

        Args:
            prompts: # [B]
            seeds: # [B]
            strategy: How.
            references: Descriptors of pictures that must not come out. # [R, D]
            unmitigated: Of those that the i-th prompt draws unmitigated. # i -> [U, D]
            progress: Told how many were drawn since it was last called.

        Raises:
            InputError: prompts, seeds or the strategy cannot be used.
            NumericsError: something became NaN or infinite.
        """
        found: list[Picture] = []
        for i in range(0, len(prompts), _BATCH):
            task = self.painter.task(prompts[i : i + _BATCH], seeds[i : i + _BATCH], self.sampling)
            plan = planned(strategy, task)
            drawn = sample(plan, task.sampling, self.painter.watch)
            maps = drawn.maps.cpu().numpy()
            images = self.painter.pictures(drawn.latents)
            scores = self.yardstick.scores(drawn.magnitudes)
            aligned: list[float | None] = [None] * len(images)
            if self.alignment is not None:
                aligned = self.alignment.score(task.prompts, images).tolist()
            compared = references is not None or unmitigated is not None
            vectors = self.descriptor.describe(images) if compared else [None] * len(images)
            for j, image in enumerate(images):
                judged = Judged(
                    score=scores[j],
                    p_value=self.yardstick.p_value(scores[j]),
                    copy_similarity=_nearest(references, vectors[j]),
                    alignment=aligned[j],
                    unmitigated_similarity=_nearest(
                        None if unmitigated is None else unmitigated(i + j), vectors[j]
                    ),
                )
                text = (plan.prompts or task.prompts)[j]
                found.append(
                    Picture(
                        task.seeds[j], strategy.name, text, judged, image, drawn.passes, maps[j]
                    )
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
        progress: Callable[[str], None] = lambda _: None,
    ) -> Mitigation:
        """Draw a prompt as it is and with a strategy.

        Args:
            prompt: The prompt.
            strategy: How.
            seeds: One for each picture.
            references: Pictures that must not come out, beside what the prompt draws unmitigated;
                each is compared as it is, and as the model's VAE renders it.
            rule: When a picture passes; see `Rule`.
            progress: Told what is done, as it begins.

        Raises:
            InputError: an argument cannot be used.
            NumericsError: something became NaN or infinite.
        """
        name = checked(strategy).name
        return self._tried(prompt, [strategy], seeds, references, rule, None, name, progress)

    def auto(
        self,
        prompt: str,
        ladder: Iterable[Strategy],
        detector: Detector,
        seeds: Sequence[int] = (0,),
        *,
        references: Sequence[Image] = (),
        rule: Rule | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> Mitigation:
        """Screen a prompt and, if it is flagged, try strategies until every picture settles.

        A prompt is flagged if its p-value is no higher than the rule's level, or that of an
        unmitigated picture's own score is not, if such a picture is like a reference, or if those
        of two seeds agree more than those of benign prompts do (with one seed, another is drawn for
        that). One that is not gets the pictures it would have had.

        Args:
            prompt: The prompt.
            ladder: Strategies in the order they are tried. Each draws what the ones before it
                left; what a generator would have made after the last one needed is not made.
            detector: Calibrated; of this model.
            seeds: One for each picture.
            references: See `mitigate`.
            rule: When a picture passes, and when it settles; see `Rule`.
            progress: Told what is done, as it begins.

        Raises:
            InputError: an argument cannot be used.
            CalibrationError: the detector has no calibration to flag by.
            NumericsError: something became NaN or infinite.
        """
        return self._tried(prompt, ladder, seeds, references, rule, detector, "auto", progress)

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
        progress: Callable[[str], None],
    ) -> Mitigation:
        if not isinstance(prompt, str) or not prompt.strip():
            raise InputError(f"A prompt is a text that is not empty, unlike {prompt!r}.")
        if isinstance(seeds, int) or not seeds:
            raise InputError("There is nothing to draw. Give at least one seed, in a list.")
        start = time.perf_counter()
        rule = rule or Rule(self.descriptor.copied_above)
        if detector is not None:
            progress("screening it")
        detection = None if detector is None else screen(detector, prompt)
        progress("drawing it as it is")
        known = self.descriptor.describe(self.shown(given)) if given else None
        originals = self.draw([prompt] * len(seeds), seeds, Plain(), known)
        before = _together(originals, self.yardstick)
        own = self.descriptor.describe([each.image for each in originals])
        flagged_by, agreement = None, None
        if detection is not None and is_flagged(detection, rule.level):
            flagged_by = SCREENING
        elif any(rule.unusual(each.judged) for each in originals):
            flagged_by = DRAWING
        elif any(rule.like_reference(each.judged) for each in originals):
            flagged_by = REFERENCE
        elif detection is not None:
            progress("comparing its pictures with each other")
            agreement = self._agreement(prompt, seeds, own, rule.level)
            flagged_by = AGREEMENT if agreement.recites else None
        told = detection is not None or before.p_value is not None
        flagged = True if flagged_by is not None else False if told else None
        pictures = originals
        if detection is None or flagged:
            if detection is not None and rule.copied_above is None:
                progress("drawing benign prompts, to know how alike pictures are")
                rule = replace(rule, alike_above=self.usual.bound(rule.level))
            avoid = agreeing(own, rule.alike)
            pictures = self._climb(prompt, ladder, originals, known, avoid, rule, progress)
        verified, why = rule.verdict([each.judged for each in pictures], flagged=flagged)
        return Mitigation(
            prompt=prompt,
            strategy=name,
            before=before,
            after=_together(pictures, self.yardstick),
            verified=verified,
            why=why,
            flagged=flagged,
            flagged_by=flagged_by,
            descriptor=self.descriptor.name,
            detection=detection,
            agreement=agreement,
            seconds=time.perf_counter() - start,
            originals=tuple(originals),
            pictures=tuple(pictures),
        )

    def _agreement(
        self, prompt: str, seeds: Sequence[int], own: Vectors, level: float
    ) -> Agreement:
        """Of the unmitigated pictures, and of one more where there is only one."""
        if len(own) == 1:
            [witness] = self.draw([prompt], [seeds[0] - 1 if seeds[0] else 1], Plain())
            own = np.r_[own, self.descriptor.describe([witness.image])]
        return self.usual.agreement(most_alike(own), level)

    def _climb(
        self,
        prompt: str,
        ladder: Iterable[Strategy],
        originals: Sequence[Picture],
        known: Vectors | None,
        avoid: Sequence[Vectors],
        rule: Rule,
        progress: Callable[[str], None],
    ) -> list[Picture]:
        """Each picture by the first strategy that settles it, or by the best of all."""
        tried: list[list[Picture]] = [[] for _ in originals]
        left = list(range(len(originals)))
        progress(_NEXT)  # which may learn first what is usual
        for strategy in ladder:
            if not left:
                break
            progress(f"drawing it with {strategy.name}")
            seeds = [originals[i].seed for i in left]

            def unmitigated(j: int, left: list[int] = left) -> Vectors:
                return avoid[left[j]]

            drawn = self.draw([prompt] * len(left), seeds, strategy, known, unmitigated=unmitigated)
            for i, picture in zip(left, drawn, strict=True):
                tried[i].append(picture)
            left = [i for i in left if not rule.settles(tried[i][-1].judged, originals[i].judged)]
            progress(_NEXT)
        if not all(tried):
            raise InputError("There is no strategy to try. Give one or more.")
        return [
            chosen(each, original.judged, rule)
            for each, original in zip(tried, originals, strict=True)
        ]


def chosen(tried: Sequence[Picture], before: Judged, rule: Rule) -> Picture:
    """What the rule takes of the pictures that were tried, with the passes of all up to there."""
    found = tried[rule.best([each.judged for each in tried], before)]
    return replace(found, passes=sum(each.passes for each in tried))


def _together(pictures: Sequence[Picture], yardstick: Yardstick) -> Judged:
    """The mean score and alignment, the highest similarity."""
    parts = [each.judged for each in pictures]
    score = float(np.mean([each.score for each in parts]))
    aligned = [each.alignment for each in parts if each.alignment is not None]
    known = [each.copy_similarity for each in parts if each.copy_similarity is not None]
    own = [each.unmitigated_similarity for each in parts if each.unmitigated_similarity is not None]
    return Judged(
        score=score,
        p_value=yardstick.p_value(score),
        copy_similarity=max(known, default=None),
        alignment=float(np.mean(aligned)) if aligned else None,
        unmitigated_similarity=max(own, default=None),
    )


def _nearest(others: Vectors | None, vector: Vectors | None) -> float | None:
    """Cosine with the most similar of them; None if there are none. # [N, D], [D]"""
    return None if others is None or vector is None else float((others @ vector).max())
