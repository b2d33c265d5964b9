"""Calibrating a guard in ComfyUI: what benign prompts score, measured just as the guard will."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mnemoscope.calibration import Calibration, digest, name_of
from mnemoscope.calibration.conformal import allowed_above
from mnemoscope.calibration.making import distinct
from mnemoscope_runtime.errors import InputError

from .baseline import encode
from .decision import Sampled
from .session import Measured
from .watch import Ruling, Watch

__all__ = ["Sample", "calibrate_sampling"]

# (model, noise, positive, negative, seed of what the sampler adds): draws with ComfyUI's sampler
Sample = Callable[[Any, Tensor, Any, Any, int], object]


def calibrate_sampling(
    patcher: Any,
    clip: Any,
    benign: Sequence[str],
    *,
    shape: tuple[int, ...],
    sample: Sample,
    negative: str = "",
    steps: int = 1,
    extra_pass: bool = False,
    fpr: float = 0.01,
    delta: float = 0.05,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda *_: None,
    tell: Callable[[str], None] = warnings.warn,
) -> Calibration:
    """Measure benign prompts as requests, each with a noise of its own, and draw none to its end.

    Args:
        patcher: ComfyUI's MODEL, not guarded.
        clip: Its CLIP.
        benign: Prompts that the model did not memorise, drawn like those to come.
        shape: Of a latent. # (1, C, H, W)
        sample: Draws an empty latent from that noise, as requests will.
        negative: The negative prompt that requests will have.
        steps: Calls of the model that the guard is to look at.
        extra_pass: As of the guard.
        fpr: False-positive rate to promise, for an image, in 0..1.
        delta: The chance that the promise is broken, in 0..1.
        seed: Of the noises.
        progress: Told how many prompts of how many are done.
        tell: Told of prompts that are left out.

    Raises:
        InputError: too few prompts for the promise, one is empty or the negative one, or a guard
            cannot tell what the model predicts.
        NumericsError: a magnitude is NaN or infinite.
    """
    read = partial(_digests, clip)
    prompts, _ = distinct(benign, (), read, tell)
    allowed_above(len(prompts), fpr, delta)  # before measuring for an hour
    found: list[Measured] = []

    def keep(measured: Measured) -> Ruling:
        found.append(measured)
        return Ruling(Sampled(), stop=True)

    watch = Watch(patcher, clip, negative=negative, steps=steps, decide=keep, extra_pass=extra_pass)
    watched = watch.attach(patcher)
    baseline = encode(clip, negative)
    for done, prompt in enumerate(prompts, 1):
        own = int(digest(prompt), 16) + seed
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(own))
        sample(watched, noise, encode(clip, prompt), baseline, own)
        if len(found) != done:
            raise InputError(
                "The sampler drew to its end without being measured. Give it at least as many "
                f"steps as the guard looks at: {steps}."
            )
        if found[-1].compared != (True,):
            raise InputError(
                f"The benign prompt {prompt!r:.80} is to the model the negative one, so that "
                "nothing is compared. Take it out."
            )
        progress(done, len(prompts))
    settings = {each.request.setting for each in found}
    if len(settings) > 1:
        tokens = sorted({each.request.tokens for each in found})
        raise InputError(
            "The benign prompts are not drawn in one way, so that one threshold cannot hold for "
            f"all: the model is told {', '.join(map(str, tokens))} embeddings of them. Take those "
            "out that are longer than 75 tokens, or calibrate them by themselves."
        )
    names = map(name_of, read(prompts))
    scores = {name: each.scores[0] for name, each in zip(names, found, strict=True)}
    return Calibration.of(
        found[-1].request.setting, scores, fpr=fpr, delta=delta, named_by="tokens"
    )


def _digests(clip: Any, prompts: Sequence[str]) -> list[bytes]:
    """sha256 of what ComfyUI's tokenizers make of each prompt: tokens, and what each weighs."""
    return [hashlib.sha256(repr(clip.tokenize(text)).encode()).digest() for text in prompts]
