"""A model whose cross-attention can be looked at."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import Tensor

from ...models import Embeds, Model

__all__ = ["AttentionMaps"]


class AttentionMaps:
    """Predictions together with what every cross-attention looked at.

    The maps come from plain attention, not from the fused kernels, which keep none: slower, and
    with memory for [B * heads, pixels, tokens] at a time.
    """

    def __init__(self, model: Model) -> None:
        """Watch a copy of the model (weights shared); the model itself stays as it is."""
        self._model = model.traceable()
        self._maps: list[Tensor] = []
        for name, module in self._model.network.named_modules():
            if isinstance(module, Attention) and name.endswith("attn2"):
                module.set_processor(_Watched(self._maps))

    @torch.no_grad()
    def predict(
        self, latents: Tensor, timestep: float, embeds: Embeds
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The network's output, and the map of every cross-attention in the order they run.

        Args:
            latents: # [B, C, H, W]
            timestep: t
            embeds: Of `model.embed`. # [B, ...] each

        Returns:
            # [B, C, H, W], ([B, pixels, L], ...): means over heads, each pixel's sums to 1
        """
        self._maps.clear()
        output = self._model.predict(latents, timestep, embeds)
        return output, tuple(self._maps)


class _Watched(AttnProcessor):  # type: ignore[misc]
    """diffusers' plain attention, its probabilities kept."""

    def __init__(self, maps: list[Tensor]) -> None:
        self._maps = maps

    def __call__(self, attn: Attention, *args: Any, **options: Any) -> Tensor:
        plain = attn.get_attention_scores

        def watched(*inputs: Any) -> Tensor:
            scores: Tensor = plain(*inputs)  # [B * heads, pixels, L]
            by_head = scores.reshape(-1, attn.heads, *scores.shape[1:])
            self._maps.append(by_head.mean(1).float())
            return scores

        attn.get_attention_scores = watched
        try:
            found: Tensor = super().__call__(attn, *args, **options)
        finally:
            del attn.get_attention_scores
        return found
