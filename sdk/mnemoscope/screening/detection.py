"""What a detector says of one prompt, and how it comes to say so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mnemoscope_runtime import Embeddings, Screener, Tokens

from ..calibration import Calibration, Setting
from .stages import Look
from .weighting import read_literally

__all__ = ["Detection", "detections"]

_EMPTY = "It is empty: there is nothing to compare with the empty prompt, and so no verdict."


@dataclass(frozen=True)
class Detection:
    """What was measured for one prompt.

    Attributes:
        prompt: The prompt.
        score: What the detector made of it, mean over noises; larger for memorised prompts. The
            magnitude's is its mean over steps, in eps units (of flows in those of the predicted
            picture), >= 0.
        scores: The same for each noise. Of a cascade those of the stage that decided, and `score`
            is the joint one of `mnemoscope.calibration.cascade`.
        rms: Of a magnitude, the difference per latent element of the predicted picture
            (docs/metric.md), comparable between models whatever they predict and how large their
            latents are; None for other detectors, and for what the first stage cleared.
        p_value: Share of benign prompts, counting this one, that score as high: how unusual a
            benign prompt this would be. Not the probability that it is benign. None, like the
            next two, where the detector was asked for scores without verdicts and the setting is
            not calibrated.
        threshold: Above it a prompt counts as memorized, or None.
        memorized: score > threshold, or None, which is no verdict. None also of an empty prompt.
        truncated: Whether the prompt has more tokens than the bundle reads: its end was not
            screened. A pipeline that cuts it off as well does not see it either; one that reads
            long prompts in chunks does.
        detector: Name of the statistic.
        backend: The backend that ran.
        bundle: Id of the bundle.
        steps: Denoising steps that were measured.
        noises: Noises that were.
        seconds: Time per prompt, shared evenly within a batch.
        passes: Network passes that it took.
        first: The first stage of a cascade, in words; None for a detector by itself.
        cleared: Whether that stage cleared the prompt, so that the second never looked. Detector,
            steps and noises name the second in any case.
        notes: What else to know about it, a sentence each: what was not read, or is read otherwise
            by some pipelines.
        empty: Whether the model reads the empty prompt there: it is compared with itself, which
            says nothing, so that there is no p-value and no verdict.
    """

    prompt: str
    score: float
    scores: tuple[float, ...]
    rms: float | None
    p_value: float | None
    threshold: float | None
    memorized: bool | None
    truncated: bool
    detector: str
    backend: str
    bundle: str
    steps: int
    noises: int
    seconds: float
    passes: int
    first: str | None = None
    cleared: bool = False
    notes: tuple[str, ...] = ()
    empty: bool = False


def detections(
    screener: Screener,
    setting: Setting,
    calibration: Calibration | None,
    prompts: Sequence[str],
    told: Tokens | Embeddings,
    looks: Sequence[Look],
    seconds: float,
    *,
    literal: bool,
) -> Iterator[Detection]:
    """A detection of each prompt, in order.

    Args:
        screener: What measured.
        setting: How.
        calibration: What scores are compared with; without one there are no verdicts.
        prompts: Or what embeddings are called.
        told: What was screened.
        looks: What came of it.
        seconds: That each took.
        literal: Whether the bundle's tokens were read, and not a pipeline's embeddings.
    """
    p_values: list[float] | list[None] = [None] * len(looks)
    if calibration is not None:
        p_values = [calibration.p_value(look.score) for look in looks]
    threshold = None if calibration is None else calibration.threshold
    cut = told.truncated if isinstance(told, Tokens) else [False] * len(told)
    first = None if setting.first is None else str(setting.first)
    read = screener.tokenizer.cut_at
    rows = zip(prompts, looks, p_values, cut, _empty(screener, told), strict=True)
    for prompt, look, p_value, truncated, empty in rows:
        yield Detection(
            prompt=prompt,
            score=look.score,
            scores=tuple(look.scores),
            rms=look.rms,
            p_value=None if empty else p_value,
            threshold=threshold,
            memorized=None if threshold is None or empty else look.score > threshold,
            truncated=bool(truncated),
            detector=setting.detector,
            backend=setting.backend,
            bundle=setting.bundle,
            steps=setting.steps,
            noises=setting.noises,
            seconds=seconds,
            passes=look.passes,
            first=first,
            cleared=look.cleared,
            notes=_notes(
                prompt,
                told,
                read if truncated else None,
                literal=literal,
                empty=empty,
            ),
            empty=empty,
        )


def _empty(screener: Screener, told: Tokens | Embeddings) -> list[bool]:
    """Of which rows the model reads the baseline itself, whatever the prompt looks like."""
    if isinstance(told, Tokens):
        return [bool(each) for each in (told.ids == screener.tokenizer.empty).all(1)]
    pairs = zip(told.embeds, told.empty, strict=True)
    same = [(each == empty).reshape(len(told), -1).all(1) for each, empty in pairs]
    return [bool(each) for each in np.logical_and.reduce(same)]


def _notes(
    prompt: str,
    told: Tokens | Embeddings,
    cut: int | None,
    *,
    literal: bool,
    empty: bool = False,
) -> tuple[str, ...]:
    """Sentences about one prompt.

    Args:
        prompt: The prompt, or what embeddings are called.
        told: What was screened.
        cut: After how many tokens it was cut off; None where it was not.
        literal: Whether the bundle's tokens were read, and not a pipeline's embeddings.
        empty: Whether the model reads the empty prompt there.
    """
    notes = [_EMPTY] if empty else []
    if isinstance(told, Embeddings) and not told.as_tokens:
        notes.append(
            f"It was screened as {told.length} tokens, whose scores are on a scale of their own."
        )
    if cut is not None:
        notes.append(
            f"Only its first {cut} tokens were screened; a pipeline that reads long prompts in "
            "chunks draws the rest too."
        )
    if literal and (note := read_literally(prompt)) is not None:
        notes.append(note)
    return tuple(notes)
