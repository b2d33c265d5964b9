"""What the pipelines of each family tell their network, and what magnitudes of it are in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from mnemoscope_runtime.units import Unit

from .baselines import Encode, of_flux, of_masked, of_qwen, of_sd3, of_stable_diffusion
from .conditioning import EMBEDS, MASK, POOLED, QWEN_MASK, XL_POOLED, Arguments, Told

__all__ = ["FAMILIES", "MODULAR", "Family", "family_of", "is_known"]


@dataclass(frozen=True)
class Family:
    """One line of the table.

    Attributes:
        network: The part of a pipeline that predicts.
        baseline: What it is told without a prompt.
        guided: Whether a call of a pipeline computes both predictions.
        beside: What it is told of a prompt beside embeddings, by what messages call it.
        names: Of its arguments that pipelines give by place.
        unit: What magnitudes are in: of a flow the predicted picture.
        apart: Guidance is of two calls, that of the prompts first, and not of one on
            [unconditional; prompt].
        fraction: Timesteps are handed on so many times smaller.
        varies: The network may predict a variance behind the noise.
        pads: Where its pipelines have the tokenizer put padding, from their first call on.
        refused: Arguments of a call that no calibration covers, and why.
    """

    network: str
    baseline: Encode
    guided: Callable[[Any, Arguments], bool]
    beside: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    names: tuple[str, ...] = ("hidden_states",)
    unit: Unit = "x0"
    apart: bool = False
    fraction: int = 1
    varies: bool = False
    pads: str | None = None
    refused: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, pipe: Any) -> Any:
        """A pipeline's network, or what stands before it; None if it has none."""
        return getattr(pipe, self.network, None)

    def named(self, args: tuple[Any, ...], kwargs: Told) -> Told:
        """Arguments of the network by name."""
        return {**dict(zip(self.names, args, strict=False)), **kwargs}

    def timestep(self, pipe: Any, told: Told) -> float:
        """t of a call; a Sana is told it times a number of its configuration."""
        scale = getattr(self.of(pipe).config, "timestep_scale", 1.0)
        return float(torch.as_tensor(told["timestep"]).flatten()[0]) * self.fraction / scale

    def prediction(self, pipe: Any, output: Tensor) -> Tensor:
        """What it says of the latents. # [B, ...]"""
        return output[:, : self.of(pipe).config.in_channels] if self.varies else output

    def latents(self, told: Told, prediction: Tensor) -> tuple[int, ...]:
        """(C, H, W) of the latents, also where they are told in patches of 2x2."""
        if prediction.ndim == 4:
            return tuple(prediction.shape[1:])
        if "img_shapes" in told:
            _, down, across = told["img_shapes"][0][0]
        else:
            down, across = (int(last) + 1 for last in told["img_ids"].amax(0)[1:])
        return prediction.shape[-1] // 4, 2 * down, 2 * across

    def tells_scale(self, pipe: Any) -> bool:
        """Whether the network is told the scale of guidance."""
        config = self.of(pipe).config
        is_lcm = getattr(config, "time_cond_proj_dim", None) is not None
        return is_lcm or bool(getattr(config, "guidance_embeds", False))


def _as_the_pipeline_says(pipe: Any, _: Arguments) -> bool:
    return bool(pipe.do_classifier_free_guidance)


def _by_its_scale(_: Any, told: Arguments) -> bool:
    return bool(told["guidance_scale"] > 1)


def _truly(*needed: str) -> Callable[[Any, Arguments], bool]:
    """Where there is something for the second call: a negative prompt, or all these embeddings."""

    def guided(_: Any, told: Arguments) -> bool:
        given = all(told.get(name) is not None for name in needed)
        given = given or told.get("negative_prompt") is not None
        return given and bool(told["true_cfg_scale"] > 1)

    return guided


_UNET_NAMES = ("sample", "timestep", EMBEDS)
_OF_PICTURES = dict.fromkeys(
    (
        "ip_adapter_image",
        "ip_adapter_image_embeds",
        "ip_adapter_embeds",
        "negative_ip_adapter_image",
        "negative_ip_adapter_image_embeds",
    ),
    "with an IP-Adapter the magnitude is of the picture as much as of the prompt",
)
_SKIPS = {"skip_guidance_layers": "it combines a third prediction, without some of the layers"}

_STABLE_DIFFUSION = Family(
    "unet",
    of_stable_diffusion,
    _as_the_pipeline_says,
    names=_UNET_NAMES,
    unit="eps",
    refused=_OF_PICTURES,
)
_XL = Family(
    "unet",
    of_stable_diffusion,
    _as_the_pipeline_says,
    beside={"pooled embeddings": XL_POOLED},
    names=_UNET_NAMES,
    unit="eps",
    refused=_OF_PICTURES,
)
_SD3 = Family(
    "transformer",
    of_sd3,
    _as_the_pipeline_says,
    beside={"pooled embeddings": POOLED},
    refused={**_OF_PICTURES, **_SKIPS},
)
_PIXART = Family(
    "transformer",
    of_masked,
    _by_its_scale,
    beside={"mask": MASK},
    unit="eps",
    varies=True,
)
_SANA = Family(
    "transformer",
    of_masked,
    _by_its_scale,
    beside={"mask": MASK},
    pads="right",
)
_FLUX = Family(
    "transformer",
    of_flux,
    _truly("negative_prompt_embeds", "negative_pooled_prompt_embeds"),
    beside={"pooled embeddings": POOLED},
    apart=True,
    fraction=1000,
    refused=_OF_PICTURES,
)
_QWEN = Family(
    "transformer",
    of_qwen,
    _truly("negative_prompt_embeds"),
    beside={"mask": QWEN_MASK},
    apart=True,
    fraction=1000,
)

MODULAR = "StableDiffusionXLModularPipeline"
FAMILIES: Mapping[str, Family] = {
    **{f"StableDiffusion{kind}Pipeline": _STABLE_DIFFUSION for kind in ("", "Img2Img", "Inpaint")},
    **{f"StableDiffusionXL{kind}Pipeline": _XL for kind in ("", "Img2Img", "Inpaint")},
    MODULAR: _XL,
    "StableDiffusion3Pipeline": _SD3,
    "PixArtSigmaPipeline": _PIXART,
    "SanaPipeline": _SANA,
    "FluxPipeline": _FLUX,
    "QwenImagePipeline": _QWEN,
}
"""By the name of a pipeline's class."""


def is_known(kind: type) -> bool:
    """Whether a class of pipelines is in the table: diffusers' own, not another one of its name."""
    return kind.__name__ in FAMILIES and kind.__module__.startswith("diffusers.")


def family_of(pipe: Any) -> Family | None:
    """The family of a pipeline; None of one that a guard does not know."""
    return FAMILIES[type(pipe).__name__] if is_known(type(pipe)) else None
