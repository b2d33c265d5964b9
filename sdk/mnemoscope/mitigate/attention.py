"""Attention away from the summary of the prompt, towards its beginning (Ren et al., ECCV 2024)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.models.attention_processor import Attention as Layer
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from mnemoscope_export import StableDiffusion
from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.families import family_named

from .padding import prompt_lengths
from .sampling import Plan, Task

__all__ = ["Attention"]


@dataclass(frozen=True)
class Attention:
    """Cross-attention that does not see padding, and sees the start token more.

    Attributes:
        scale: What the start token's logit is multiplied by, > 0.
        mask: Whether padding behind the end token is hidden.
        end: Whether the end token is hidden too.
    """

    scale: float = 1.25
    mask: bool = True
    end: bool = False
    name: str = "attention"

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf"):
            raise InputError(
                f"The start token's logit is multiplied by more than 0, not {self.scale}."
            )

    def plan(self, task: Task) -> Plan:
        """See `Strategy`."""
        model, plan = task.model, task.plan()
        if not isinstance(model, StableDiffusion):
            raise InputError(
                f"{model.id} is of the family {family_named(model.family).name}, and `attention` "
                "changes how a UNet attends to CLIP's start token and padding: it is for Stable "
                "Diffusion 1.x, 2.x and XL. Choose another strategy."
            )
        embeds = plan.embeds[0]
        hidden = torch.zeros(embeds.shape[:2], dtype=torch.bool)
        if self.mask:
            first = prompt_lengths(model, task.prompts) + (0 if self.end else 1)
            hidden = torch.arange(embeds.shape[1]) >= first[:, None]
        return replace(plan, model=_watching(model, hidden.to(embeds.device), self.scale))


def _watching(model: StableDiffusion, hidden: Tensor, scale: float) -> StableDiffusion:
    """The model with other cross-attention; weights are shared, the model stays as it is."""
    watching = model.traceable()
    for name, module in watching.unet.named_modules():
        if isinstance(module, Layer) and name.endswith("attn2"):
            module.set_processor(_Rescaled(hidden, scale))
    return watching


class _Rescaled(AttnProcessor):  # type: ignore[misc]
    """diffusers' plain attention with other logits, for the conditional rows, which come last."""

    def __init__(self, hidden: Tensor, scale: float) -> None:
        self._hidden = hidden  # [B, L]
        self._scale = scale

    def __call__(self, attn: Layer, *args: Any, **options: Any) -> Tensor:
        plain = attn.get_attention_scores
        rows = len(self._hidden) * attn.heads
        bias = torch.zeros(self._hidden.shape, device=self._hidden.device)
        bias = bias.masked_fill(self._hidden, -1e4).repeat_interleave(attn.heads, 0)[:, None]

        def rescaled(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
            key = key.clone()
            key[-rows:, 0] *= self._scale  # so is the logit, which is linear in the key
            added = torch.zeros(len(key), 1, key.shape[1], device=key.device, dtype=key.dtype)
            added[-rows:] = bias.to(key.dtype)
            whole = added.expand(-1, query.shape[1], -1)
            scores: Tensor = plain(query, key, whole if mask is None else mask + whole)
            return scores

        attn.get_attention_scores = rescaled
        try:
            found: Tensor = super().__call__(attn, *args, **options)
        finally:
            del attn.get_attention_scores
        return found
