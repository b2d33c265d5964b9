"""Padding that knows nothing of the prompt (for Stable Diffusion 1.x)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from mnemoscope_export import Model
from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.families import family_named

from .sampling import Plan, Task

__all__ = ["Padding", "prompt_lengths"]


@dataclass(frozen=True)
class Padding:
    """Padding embeddings that carry no memory: the empty prompt's, or zeros.

    CLIP pads with its end token and reads from left to right, so every padding position has read
    the whole prompt. Stable Diffusion XL and 2.x were not found to keep memories there.

    Attributes:
        fill: The empty prompt's embeddings at the same positions, or zeros.
        end: Whether the end token's own embedding goes too.
    """

    fill: Literal["empty", "zero"] = "empty"
    end: bool = False
    name: str = "padding"

    def __post_init__(self) -> None:
        if self.fill not in ("empty", "zero"):
            raise InputError(f"Padding is filled with 'empty' or 'zero', not {self.fill!r}.")

    def plan(self, task: Task) -> Plan:
        """See `Strategy`."""
        model = task.model
        if model.family != "sd1":
            raise InputError(
                f"{model.id} is of the family {family_named(model.family).name}, and `padding` is "
                "for Stable Diffusion 1.x. Choose another strategy."
            )
        plan = task.plan()
        (embeds,), (empty,) = plan.embeds, model.embed_empty()
        fill = empty if self.fill == "empty" else torch.zeros_like(empty)
        first = prompt_lengths(model, task.prompts) + (0 if self.end else 1)
        positions = torch.arange(embeds.shape[1], device=embeds.device)
        padded = positions >= first.to(embeds.device)[:, None]
        return replace(plan, embeds=(torch.where(padded[..., None], fill, embeds),))


def prompt_lengths(model: Model, prompts: Sequence[str]) -> Tensor:
    """Position of each prompt's end token: start token and prompt come before it. # [B]"""
    tokenizer, _ = model.tokenizers["tokenizer"]
    ids = tokenizer(
        model.written_out(prompts, tokenizer),
        truncation=True,
        max_length=tokenizer.model_max_length,
    ).input_ids
    return torch.tensor([len(row) - 1 for row in ids])
