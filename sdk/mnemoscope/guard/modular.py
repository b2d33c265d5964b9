"""Modular pipelines of Stable Diffusion XL: predictions come from what their guider combines."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import guiders
from torch import Tensor

from mnemoscope_runtime.errors import InputError

from .access import Access
from .conditioning import XL_POOLED, Arguments, Baseline, Branch, Told
from .drawing import zeroed
from .families import Family
from .interposing import around
from .refusing import through
from .watching import Watch

__all__ = ["Modular"]

# combine the conditional and the unconditional prediction of the same UNet, and nothing else
GUIDERS = (
    "ClassifierFreeGuidance",
    "ClassifierFreeZeroStarGuidance",
    "AdaptiveProjectedGuidance",
    "AdaptiveProjectedMixGuidance",
    "TangentialClassifierFreeGuidance",
)
_SKIPS = "it also combines a third prediction, of a UNet without some of its layers"
_OTHERS = {
    "AutoGuidance": "its unconditional prediction is that of a UNet without some of its layers",
    "PerturbedAttentionGuidance": _SKIPS,
    "SkipLayerGuidance": _SKIPS,
    "SmoothedEnergyGuidance": _SKIPS,
    "FrequencyDecoupledGuidance": "it was never tried here",
    "MagnitudeAwareGuidance": "it fails on latents of pictures in the diffusers that was tried",
}
# arguments of other tasks than text to image
_TASKS = (
    "image",
    "image_latents",
    "mask_image",
    "mask",
    "masked_image_latents",
    "control_image",
    "controlnet_cond",
)
# what a pipeline takes that makes embeddings, sizes and timesteps itself
_NEEDED = ("prompt", "original_size", "num_inference_steps")
_IMAGES = ("images", "latents")  # what holds them in a `PipelineState`


class Modular(Access):
    """Stable Diffusion XL, text to image: a guider combines predictions of two UNet calls."""

    def __init__(self, pipe: Any, family: Family) -> None:
        super().__init__(pipe, family)
        _check(pipe.guider)
        if foreign := sorted(set(_foreign(pipe.blocks))):
            raise InputError(
                f"This pipeline has blocks that are not of diffusers: {', '.join(foreign)}. What "
                "they take and do is not known to a guard. Leave them out, or screen prompts "
                "before they are drawn with `Detector`."
            )
        self._defaults |= pipe.default_call_parameters
        inputs = pipe.blocks.inputs
        self.names |= {name for each in inputs for name in (each.name, each.kwargs_type) if name}
        if missing := [name for name in _NEEDED if name not in self._defaults]:
            raise InputError(
                f"This pipeline does not go all the way from a prompt to an image: it takes no "
                f"{', '.join(missing)}. Make it of `StableDiffusionXLAutoBlocks`."
            )

    def arguments(self, args: tuple[Any, ...], kwargs: Arguments) -> Arguments:
        """See `Access`; those of a `state` that is continued are among them."""
        told = super().arguments(args, kwargs)
        if (state := told.get("state")) is not None:
            told = {**told, **state.values, **kwargs}
        told = {**told, **(told.get("denoiser_input_fields") or {})}
        self.refuse(told)
        if given := [name for name in _TASKS if told.get(name) is not None]:
            raise InputError(
                f"A guard watches modular pipelines from text to image only, and this request "
                f"gives {', '.join(given)}. Use StableDiffusionXLImg2ImgPipeline or "
                "StableDiffusionXLInpaintPipeline of the same parts, or detach the guard."
            )
        return {**told, "guider": _text(self.pipe.guider)}

    def free(self) -> None:
        """See `Access`; modular pipelines do nothing at their end."""

    def blank(self, output: Any, indices: Collection[int], told: Arguments) -> Any:
        """See `Access`."""
        if not indices:
            return output
        if isinstance(name := told["output"], str):
            return zeroed(output, indices) if name in _IMAGES else output
        values = output if isinstance(output, dict) else output.values
        for name in _IMAGES:
            if values.get(name) is not None:
                values[name] = zeroed(values[name], indices)
        return output

    def negative(self, negative: str | None, _: Arguments) -> Baseline:
        """See `Access`."""
        from diffusers.modular_pipelines.stable_diffusion_xl.encoders import (
            StableDiffusionXLTextEncoderStep,
        )

        encode = StableDiffusionXLTextEncoderStep.encode_prompt
        with torch.no_grad():
            found = encode(self.pipe, prompt="", negative_prompt=negative)
            empty = encode(self.pipe, prompt="", negative_prompt="")[1] if negative else None
        return Baseline(found[1], {XL_POOLED: found[3]}, empty)

    @contextmanager
    def predictions(self, watch: Watch) -> Iterator[None]:
        """See `Access`.

        What the guider is about to combine counts only if it is what the UNet has just answered,
        so that what the UNet was told is known for certain.
        """
        guider = self.pipe.guider
        _check(guider)
        prepare, combine = guider.prepare_inputs, guider.forward
        answers: list[tuple[Told, Tensor]] = []

        def branch(prediction: Tensor | None) -> Branch | None:
            if prediction is None:
                return None
            for told, answer in answers:
                if answer is prediction:
                    return Branch(told, slice(None), prediction)
            raise InputError(
                f"{type(guider).__name__} combines something that the UNet did not answer, so that "
                "a guard cannot tell what it is of. Draw with diffusers' own blocks."
            )

        def prepare_inputs(*args: Any, **kwargs: Any) -> Any:
            answers.clear()
            sides = prepare(*args, **kwargs)
            if watch.embeds:  # the first side is the prompts'
                sides[0].prompt_embeds = watch.changed(sides[0].prompt_embeds, 0)
            return sides

        @through()
        def forward(pred_cond: Tensor, pred_uncond: Tensor | None = None) -> Any:
            if not watch.idle:
                cond = branch(pred_cond)
                assert cond is not None
                found = watch.see(cond, branch(pred_uncond))
                pred_cond = pred_cond if found is None else found
            answers.clear()
            return combine(pred_cond, pred_uncond)

        def after(args: tuple[Any, ...], kwargs: Told, output: Any) -> None:
            if not watch.idle:
                answers.append((self.family.named(args, kwargs), output[0]))

        state = dict(vars(guider))
        guider.prepare_inputs, guider.forward = prepare_inputs, forward
        try:
            with around(self.pipe, self.family.network, lambda *_: None, after):
                yield
        except BaseException:
            vars(guider).update(state)  # not left in the middle of a request
            raise
        finally:
            del guider.prepare_inputs, guider.forward


def _check(guider: Any) -> None:
    """Check that a guider combines two predictions of which a guard knows what they are.

    Raises:
        InputError: it does not; and why.
    """
    name = type(guider).__name__
    if name not in GUIDERS or type(guider) is not getattr(guiders, name, None):
        why = _OTHERS.get(name, "a guard does not know what it combines")
        raise InputError(
            f"A guard cannot watch a pipeline guided by {name}: {why}. Use one of "
            f"{', '.join(GUIDERS)}: `pipe.update_components(guider=...)`."
        )
    if {"prepare_inputs", "forward"} & vars(guider).keys():
        raise InputError(
            f"Methods of this {name} were replaced, perhaps by a guard of another pipeline that is "
            "drawing: what it combines is not known. Give every pipeline a guider of its own."
        )


def _text(guider: Any) -> str:
    """A guider and its options as they are now, which may have been set after it was made."""
    now = vars(guider)
    made = {name: value for name, value in guider.config.items() if not name.startswith("_")}
    found = {name: now.get(name, now.get(f"_{name}", value)) for name, value in made.items()}
    values = ", ".join(f"{name}={value!r}" for name, value in sorted(found.items()))
    return f"{type(guider).__name__}({values})"


def _foreign(block: Any) -> Iterator[str]:
    if not type(block).__module__.startswith("diffusers."):
        yield type(block).__name__
    for each in getattr(block, "sub_blocks", {}).values():
        yield from _foreign(each)
