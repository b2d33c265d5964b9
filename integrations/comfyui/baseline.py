"""What magnitudes are relative to: what the model is told of the negative prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mnemoscope.calibration import digest
from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.wording import counted

__all__ = ["Baseline", "encode", "told"]

_NEAR = 1e-3  # of a token's largest value: what the same encoder makes of the same text again


def encode(clip: Any, text: str) -> Any:
    """ComfyUI's CONDITIONING of a text.

    Raises:
        InputError: the text encoder makes several of it.
    """
    found = clip.encode_from_tokens_scheduled(clip.tokenize(text))
    if len(found) != 1:
        raise InputError(
            f"The text encoder makes {counted(len(found), 'conditioning')} of one text (a "
            "schedule of hooks), and the guard knows what one is worth. Give it the CLIP without "
            "hooks."
        )
    return found


def told(cond: Any) -> tuple[Tensor, Tensor | None]:
    """What the model is told of a side of guidance: embeddings, and pooled ones if it reads those.

    Args:
        cond: One of ComfyUI's conditionings, as of sampling.

    Returns:
        # [1 or B, L, D], [1 or B, P]

    Raises:
        InputError: it is told no embeddings.
    """
    model_conds = cond.get("model_conds") or {}
    if "c_crossattn" not in model_conds:
        raise InputError(
            "The model is told no embeddings of a prompt (c_crossattn), so that there is nothing "
            "whose effect could be measured."
        )
    pooled = cond.get("pooled_output") if "y" in model_conds else None
    return model_conds["c_crossattn"].cond, pooled


@dataclass(frozen=True)
class Baseline:
    """What the model is told where the prompt is the negative one.

    Attributes:
        name: `calibration.digest` of its text.
        embeds: # [1, L, D]
        pooled: None where the text encoder makes none. # [1, P]
    """

    name: str
    embeds: Tensor
    pooled: Tensor | None

    @classmethod
    def of(cls, clip: Any, text: str) -> Baseline:
        """As a text encoder of ComfyUI makes it.

        Raises:
            InputError: as `encode`.
        """
        [[embeds, more]] = encode(clip, text)
        return cls(digest(text), embeds, more.get("pooled_output"))

    def is_told(self, cond: Any, images: int) -> list[bool]:
        """Of each image, whether a side of guidance tells the model just that, but for rounding.

        Raises:
            InputError: as `told`.
        """
        embeds, pooled = told(cond)
        near = _near(embeds, self.embeds)
        if pooled is not None:
            near &= self.pooled is not None and _near(pooled, self.pooled)
        rows = near.tolist()
        return [rows[k % len(rows)] for k in range(images)]  # one row stands for all of a batch


def _near(found: Tensor, expected: Tensor) -> Tensor:
    """Of each row. # [B, (L,) D], [1, (L,) D] to [B]"""
    if found.shape[1:] != expected.shape[1:]:
        return torch.zeros(len(found), dtype=torch.bool)
    wanted = expected.float().to(found.device)
    away = (found.float() - wanted).abs().amax(-1) <= _NEAR * wanted.abs().amax(-1)
    return away.reshape(len(found), -1).all(1).cpu()
