"""What each family's pipelines tell their network for a negative prompt, or for none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .conditioning import MASK, POOLED, QWEN_MASK, XL_POOLED, Arguments, Baseline

__all__ = ["Encode", "of_flux", "of_masked", "of_qwen", "of_sd3", "of_stable_diffusion", "reading"]

Encode = Callable[[Any, str | None, Arguments], Baseline]
"""Of a pipeline, a negative prompt, and the arguments of a call."""

_READS = ("max_sequence_length", "clean_caption")


def reading(told: Arguments) -> dict[str, Any]:
    """Those arguments of a call that say how prompts are read."""
    return {name: told[name] for name in _READS if name in told}


def of_stable_diffusion(pipe: Any, negative: str | None, _: Arguments) -> Baseline:
    """Of Stable Diffusion 1.x, 2.x and XL."""
    found = _encoded(pipe, prompt="", negative_prompt=negative, do_classifier_free_guidance=True)
    beside = {XL_POOLED: found[3]} if len(found) > 2 else {}
    if not negative:
        return Baseline(found[1], beside)
    empty = _encoded(pipe, prompt="", negative_prompt="", do_classifier_free_guidance=True)[1]
    return Baseline(found[1], beside, empty)


def of_sd3(pipe: Any, negative: str | None, told: Arguments) -> Baseline:
    """Of Stable Diffusion 3 and 3.5."""
    prompts = {"prompt": "", "prompt_2": None, "prompt_3": None, "negative_prompt": negative}
    _, embeds, _, pooled = _encoded(pipe, **prompts, **reading(told))
    return Baseline(embeds, {POOLED: pooled}, lengths="one")


def of_masked(pipe: Any, negative: str | None, told: Arguments) -> Baseline:
    """Of PixArt-Sigma, and of Sana, whose pipeline puts an instruction before prompts alone."""
    *_, embeds, mask = _encoded(pipe, prompt="", negative_prompt=negative or "", **reading(told))
    return Baseline(embeds, {MASK: mask}, lengths="one")


def of_flux(pipe: Any, negative: str | None, told: Arguments) -> Baseline:
    """Of FLUX.1."""
    embeds, pooled, _ = _encoded(pipe, prompt=negative or "", prompt_2=None, **reading(told))
    return Baseline(embeds, {POOLED: pooled}, lengths="one")


def of_qwen(pipe: Any, negative: str | None, told: Arguments) -> Baseline:
    """Of Qwen-Image: prompts have the length that they have."""
    embeds, mask = _encoded(pipe, prompt=negative or "", **reading(told))
    return Baseline(embeds, {QWEN_MASK: mask}, lengths="any")


def _encoded(pipe: Any, **options: Any) -> Any:
    with torch.no_grad():
        return pipe.encode_prompt(device=pipe._execution_device, num_images_per_prompt=1, **options)
