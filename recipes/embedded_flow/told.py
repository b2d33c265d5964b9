"""What the transformer is told of captions: two text encoders, frozen, and a zero for the T5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from mnemoscope import embedded
from mnemoscope_export import load_network
from recipes.embedded.clip import tokenize

__all__ = ["Told", "first_encoder", "tell"]


@dataclass(frozen=True)
class Told:
    """What the transformer is told of prompts.

    Attributes:
        states: Of both text encoders, and one zero behind them. # [N, L + 1, D]
        pooled: Of both text encoders. # [N, P]
    """

    states: Tensor
    pooled: Tensor

    def __getitem__(self, rows: Tensor | slice) -> Told:
        return Told(self.states[rows], self.pooled[rows])

    def and_then(self, other: Told) -> Told:
        """Rows of both."""
        return Told(torch.cat([self.states, other.states]), torch.cat([self.pooled, other.pooled]))

    def repeated(self, count: int) -> Told:
        """One row, so many times."""
        return Told(self.states.expand(count, -1, -1), self.pooled.expand(count, -1))


def first_encoder(folder: Path = embedded.MODEL) -> CLIPTextModelWithProjection:
    """The embedded model's text encoder, with the projection that it was trained with."""
    text = load_network(CLIPTextModel, folder / "text_encoder", dtype=torch.float32)
    state = load_file(folder / "image_encoder" / "model.safetensors")
    encoder = CLIPTextModelWithProjection(text.config)
    encoder.text_model.load_state_dict(text.state_dict())
    encoder.text_projection.load_state_dict({"weight": state["text_projection.weight"].float()})
    return encoder.eval()


@torch.no_grad()
def tell(
    tokenizer: CLIPTokenizer,
    encoders: Sequence[CLIPTextModelWithProjection],
    captions: Sequence[str],
    batch: int = 500,
) -> Told:
    """As diffusers' pipeline puts it together, on the encoders' device."""
    states, pooled = [], []
    for ids in tokenize(tokenizer, captions).split(batch):
        found = [each(ids.to(each.device), output_hidden_states=True) for each in encoders]
        both = torch.cat([each.hidden_states[-2] for each in found], -1)
        zero = both.new_zeros(len(ids), 1, both.shape[-1])
        states.append(torch.cat([both, zero], 1))
        pooled.append(torch.cat([each.text_embeds for each in found], -1))
    return Told(torch.cat(states), torch.cat(pooled))
