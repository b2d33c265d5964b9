"""Stable Diffusion XL: two text encoders, a pooled embedding, and the picture's size and crop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from torch import Tensor
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from mnemoscope_runtime.errors import ExportError

from .base import Configs, Embeds, Model
from .clip import read_tokenizers
from .on_bank import OnBank
from .options import LoadOptions
from .stable_diffusion import StableDiffusion

__all__ = ["StableDiffusionXL"]


@dataclass(frozen=True)
class StableDiffusionXL(StableDiffusion):
    """The parts of a Stable Diffusion XL base pipeline that predict noise (Podell et al. 2023).

    The UNet is told that pictures have the size that the VAE makes of their latents, and are not
    cropped.

    Attributes:
        tokenizer_2: What the second text encoder reads. Its padding token is another than the
            first's and a token by itself wherever it stands, so that the two differ in prompts too.
        force_zeros_for_empty_prompt: The unconditional branch gets zeros.
        pixels: A side of what the VAE makes of one position of the latents.
    """

    tokenizer_2: CLIPTokenizer
    text_encoder_2: CLIPTextModelWithProjection
    force_zeros_for_empty_prompt: bool = True
    pixels: int = 8

    embeddings: ClassVar[tuple[str, ...]] = ("prompt_embeds", "pooled_embeds")
    networks: ClassVar[Mapping[str, Any]] = {
        **StableDiffusion.networks,
        "text_encoder_2": CLIPTextModelWithProjection,
    }
    pipeline_class: ClassVar[Any] = StableDiffusionXLPipeline
    unused: ClassVar[tuple[str, ...]] = ("feature_extractor", "image_encoder")

    def __post_init__(self) -> None:
        lengths = [each.model_max_length for each in (self.tokenizer, self.tokenizer_2)]
        if len(set(lengths)) > 1:
            raise ExportError(
                f"{self.id} has tokenizers of {lengths[0]} and {lengths[1]} tokens, but the UNet "
                "is told both side by side. Only Stable Diffusion XL base and its descendants can "
                "be exported."
            )

    @classmethod
    def read_tokenizers(cls, folder: Path, configs: Configs) -> dict[str, CLIPTokenizer]:
        """See `Model.read_tokenizers`."""
        second = read_tokenizers(folder, {"tokenizer_2": configs["text_encoder_2"]})
        return {**super().read_tokenizers(folder, configs), **second}

    @classmethod
    def read_scheduler(cls, folder: Path) -> DDIMScheduler:
        """As it is there, unlike in older pipelines."""
        return DDIMScheduler.from_pretrained(folder, subfolder="scheduler")

    @classmethod
    def other_fields(cls, configs: Configs, model: str, options: LoadOptions) -> dict[str, Any]:
        """See `Model.other_fields`."""
        zeros = configs["model_index"].get("force_zeros_for_empty_prompt", True)
        levels = configs.get("vae", {}).get("block_out_channels", "1234")
        return {
            **super().other_fields(configs, model, options),
            "force_zeros_for_empty_prompt": bool(zeros),
            "pixels": 2 ** (len(levels) - 1),
        }

    @classmethod
    def assemble(cls, parts: Mapping[str, Any]) -> Any:
        """See `Model.assemble`; the scheduler is a copy, since a pipeline corrects it."""
        scheduler = DDIMScheduler.from_config(parts["scheduler"].config)
        given = {"vae": None, **parts, "scheduler": scheduler}
        return StableDiffusionXLPipeline(**given, add_watermarker=False)

    @property
    def tokenizers(self) -> dict[str, tuple[CLIPTokenizer, int]]:
        """Each tokenizer by its field, and how many embeddings its text encoder has."""
        rows: int = self.text_encoder_2.get_input_embeddings().weight.shape[0]
        return {**super().tokenizers, "tokenizer_2": (self.tokenizer_2, rows)}

    @property
    def zero_empty(self) -> bool:
        """The unconditional branch gets zeros, not the embedded empty prompt."""
        return self.force_zeros_for_empty_prompt and self.negative is None

    @property
    def family(self) -> str:
        """ "sdxl" """
        return "sdxl"

    def encode(self, input_ids: Tensor) -> Embeds:
        """Embed token ids.

        Args:
            input_ids: Of the first tokenizer, then of the second. # [B, 2 L]

        Returns:
            Both encoders' last but one hidden states side by side, or those before the layers that
            are left out, and the second's projected pooled state. # ([B, L, D1 + D2], [B, P])
        """
        length = self.tokenizer.model_max_length
        ids, ids_2 = input_ids[:, :length], input_ids[:, length:]
        first = self.text_encoder(ids, output_hidden_states=True)
        second = self.text_encoder_2(ids_2, output_hidden_states=True)
        layer = -2 - (self.clip_skip or 0)
        states = [first.hidden_states[layer], second.hidden_states[layer]]
        prompt_embeds = torch.cat(states, dim=-1)
        return prompt_embeds, second.text_embeds

    def embed_empty(self) -> Embeds:
        """What the unconditional branch is told. # ([1, L, D1 + D2], [1, P])"""
        empty = super().embed_empty()
        return tuple(torch.zeros_like(e) for e in empty) if self.zero_empty else empty

    def predict(self, latents: Tensor, timestep: Tensor | float, embeds: Embeds) -> Tensor:
        """The UNet's output, whatever it predicts; see `in_unit`.

        Args:
            latents: x_t. # [B, C, H, W]
            timestep: t
            embeds: Of `encode`. # ([B, L, D1 + D2], [B, P])

        Returns:
            # [B, C, H, W]
        """
        prompt_embeds, pooled = embeds
        height, width = (self.pixels * size for size in latents.shape[2:])
        # original size, top left corner of the crop, target size
        # filled in on the device: a tensor that is made of a list comes from the host, which keeps
        # a compiled UNet from CUDA graphs
        sizes = (height, width, 0, 0, height, width)
        times = torch.stack([pooled.new_full((), size) for size in sizes])
        added = {
            # the UNet joins it to float32, and an exported Concat does not convert as torch does
            "text_embeds": pooled.float(),
            "time_ids": times.expand(pooled.shape[0], -1),
        }
        given = self.unet_input(latents)
        output: Tensor = self.unet(given, timestep, prompt_embeds, added_cond_kwargs=added).sample
        return output

    def on_bank(self, noises: Tensor, timestep: int) -> OnBank:
        """The pooled embedding is part of the time embedding, so that nothing folds."""
        return Model.on_bank(self, noises, timestep)

    def assembled(self, vae: Any = None) -> Any:
        """See `Model.assembled`."""
        pipeline = super().assembled(vae)
        pipeline.register_to_config(force_zeros_for_empty_prompt=self.force_zeros_for_empty_prompt)
        pipeline.vae_scale_factor = self.pixels
        return pipeline

    def call_options(self, told: Embeds, empty: Embeds, size: tuple[int, int]) -> dict[str, Any]:
        """See `Model.call_options`."""
        return {
            **super().call_options(told, empty, size),
            "pooled_prompt_embeds": told[1],
            "negative_pooled_prompt_embeds": empty[1],
            "original_size": size,
            "target_size": size,
        }
