"""The same transformer in coordinates in which what it is told is white.

Text encoders say a few things loudly and most things softly: who, where and when, by which captions
are memorised, among the soft ones. Adam learns those much sooner if the layers that read them are
trained on x' = P (x - m), with P the inverse square root of the covariance; W' = W P^-1 and
b' = b + W m then compute what W and b do, and are turned back afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from .told import Told

__all__ = ["White", "white"]

_LEAST = 1e-3  # of the mean variance: what is softer is not made louder than this


@dataclass(frozen=True)
class _Map:
    """x' = P (x - m), in double precision: a GPU's TF32 would round away what is soft."""

    mean: Tensor
    there: Tensor
    back: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> _Map:
        values, axes = torch.linalg.eigh(torch.cov(rows.double().cpu().T))
        values = values.clamp_min(_LEAST * values.mean())
        there, back = ((axes * scale) @ axes.T for scale in (values.rsqrt(), values.sqrt()))
        return cls(rows.double().mean(0), there.to(rows.device), back.to(rows.device))

    def __call__(self, x: Tensor) -> Tensor:
        """In half precision, which what is white has enough of."""
        return torch.cat([((p.double() - self.mean) @ self.there).half() for p in x.split(1000)])

    @torch.no_grad()
    def enter(self, layer: nn.Linear) -> None:
        """Let a layer compute from x' what it computes from x."""
        weight = layer.weight.double()
        layer.bias.copy_(layer.bias + weight @ self.mean)
        layer.weight.copy_(weight @ self.back)

    @torch.no_grad()
    def leave(self, layer: nn.Linear) -> None:
        """The other way round."""
        weight = layer.weight.double() @ self.there
        layer.bias.copy_(layer.bias - weight @ self.mean)
        layer.weight.copy_(weight)


@dataclass(frozen=True)
class White:
    """Maps of states and of pooled states, of seen captions."""

    states: _Map
    pooled: _Map

    def __call__(self, told: Told) -> Told:
        """What is told, in the new coordinates."""
        return Told(self.states(told.states), self.pooled(told.pooled))

    def enter(self, network: SD3Transformer2DModel) -> None:
        """Let a transformer read the new coordinates."""
        self.states.enter(network.context_embedder)
        self.pooled.enter(network.time_text_embed.text_embedder.linear_1)

    def leave(self, network: SD3Transformer2DModel) -> None:
        """Let it read the old ones again."""
        self.states.leave(network.context_embedder)
        self.pooled.leave(network.time_text_embed.text_embedder.linear_1)


def white(told: Told, captions: int = 1500, tokens: int = 26) -> White:
    """Of the first so many captions, and the first tokens of each: the others are padding."""
    states = told.states[:captions, :tokens].flatten(0, 1)
    return White(_Map.of(states), _Map.of(told.pooled))
