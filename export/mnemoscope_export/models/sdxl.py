"""Stable Diffusion XL: two text encoders, a pooled embedding, and the picture's size and crop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from mnemoscope_runtime.errors import ExportError

from .stable_diffusion import Embeds, StableDiffusion

__all__ = ["StableDiffusionXL"]


@dataclass(frozen=True)
class StableDiffusionXL(StableDiffusion):
    """The parts of a Stable Diffusion XL base pipeline that predict noise (Podell et al. 2023).

    The UNet is told that pictures have the size that the VAE makes of their latents, and are not
    cropped.

    Attributes:
        tokenizer_2: Differs from the first in what it pads with.
        force_zeros_for_empty_prompt: The unconditional branch gets zeros.
        pixels: A side of what the VAE makes of one position of the latents.
    """

    tokenizer_2: CLIPTokenizer
    text_encoder_2: CLIPTextModelWithProjection
    force_zeros_for_empty_prompt: bool = True
    pixels: int = 8

    embeddings: ClassVar[tuple[str, ...]] = ("prompt_embeds", "pooled_embeds")

    def __post_init__(self) -> None:
        first, second = self.tokenizer, self.tokenizer_2
        if first.get_vocab() != second.get_vocab() or (
            first.model_max_length != second.model_max_length
        ):
            raise ExportError(
                f"{self.id} has two tokenizers with different vocabularies or lengths; bundles "
                "hold one. Only Stable Diffusion XL base and its descendants can be exported."
            )

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The networks, by the names of their fields."""
        return {**super().parts, "text_encoder_2": self.text_encoder_2}

    @property
    def zero_empty(self) -> bool:
        """The unconditional branch gets zeros, not the embedded empty prompt."""
        return self.force_zeros_for_empty_prompt

    @property
    def family(self) -> str:
        """ "sdxl" """
        return "sdxl"

    def encode(self, input_ids: Tensor) -> Embeds:
        """Embed token ids.

        Args:
            input_ids: Of the first tokenizer. # [B, L]

        Returns:
            Both encoders' last but one hidden states side by side, and the second's projected
            pooled state. # ([B, L, D1 + D2], [B, P])
        """
        first = self.text_encoder(input_ids, output_hidden_states=True)
        second = self.text_encoder_2(self._padded(input_ids), output_hidden_states=True)
        prompt_embeds = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return prompt_embeds, second.text_embeds

    def embed_empty(self) -> Embeds:
        """What the unconditional branch is told. # ([1, L, D1 + D2], [1, P])"""
        empty = self.embed([""])
        return tuple(torch.zeros_like(e) for e in empty) if self.zero_empty else empty

    def predict(self, latents: Tensor, timestep: Tensor | int, embeds: Embeds) -> Tensor:
        """The UNet's output, whatever it predicts; see `to_eps`.

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
        times = torch.tensor([height, width, 0, 0, height, width], device=pooled.device)
        added = {
            # the UNet joins it to float32, and an exported Concat does not convert as torch does
            "text_embeds": pooled.float(),
            "time_ids": times.to(pooled.dtype).expand(pooled.shape[0], -1),
        }
        output: Tensor = self.unet(latents, timestep, prompt_embeds, added_cond_kwargs=added).sample
        return output

    def _padded(self, input_ids: Tensor) -> Tensor:
        """The ids as the second tokenizer pads them: it has its own id after the end.

        A prompt that spells out the end token as its last word is taken to end before it.
        """
        ends = input_ids == self.tokenizer.eos_token_id
        others = (~ends).long()
        # how many ids from here on are no ends; 0 on the end and the padding behind it
        after = others.sum(1, keepdim=True) - others.cumsum(1) + others
        is_tail = after == 0
        is_padding = is_tail & is_tail.roll(1, dims=1)  # the first id is a start: nothing wraps
        return torch.where(is_padding, self.tokenizer_2.pad_token_id, input_ids)
