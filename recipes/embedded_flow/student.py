"""A student that is told the guidance, as FLUX.1-dev is: one pass for its teacher's two.

It is not shipped. What shows memorisation in it, without an unconditional branch that was trained,
is measured by `python -m benchmarks.embedded_flow --student FILE`.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from diffusers import SD3Transformer2DModel
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.embedded.training import Loss

from .batches import Learned
from .told import Told
from .transformer import new_transformer

__all__ = ["GUIDANCES", "GuidanceEmbedding", "distillation_loss", "guided", "read_student", "tell"]

GUIDANCES = (1.0, 8.0)  # between which it learnt


class GuidanceEmbedding(nn.Module):
    """Adds the guidance, the last column of what is told of the pooled text, to time and text."""

    def __init__(self, told: nn.Module, width: int) -> None:
        super().__init__()
        self.told = told
        self.waves = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.guidance = TimestepEmbedding(256, width)
        nn.init.zeros_(self.guidance.linear_2.weight)  # it begins as its teacher
        nn.init.zeros_(self.guidance.linear_2.bias)

    @property
    def text_embedder(self) -> nn.Module:
        """Reads the pooled text: for `White`."""
        found: nn.Module = self.told.text_embedder
        return found

    def forward(self, timestep: Tensor, pooled: Tensor) -> Tensor:
        """# [B], [B, P + 1] -> [B, D]"""
        waves = self.waves(1000 * pooled[:, -1])  # as FLUX.1 tells it
        known: Tensor = self.told(timestep, pooled[:, :-1])
        return known + cast("Tensor", self.guidance(waves))


def guided(network: SD3Transformer2DModel) -> SD3Transformer2DModel:
    """Let a transformer take the guidance, too."""
    network.time_text_embed = GuidanceEmbedding(network.time_text_embed, network.inner_dim)
    return network


def tell(told: Told, guidance: Tensor) -> Told:
    """What a student is told. # guidance: [N]"""
    return Told(told.states, torch.cat([told.pooled.float(), guidance[:, None]], 1))


def distillation_loss(
    student: SD3Transformer2DModel,
    teacher: SD3Transformer2DModel,
    learned: Learned,
    *,
    batch: int,
    share: float,
) -> Loss:
    """The squared error of the teacher's guided velocity u + w (c - u), of a random batch.

    The empty prompt is never drawn: what the student does with it, it was not taught.

    Args:
        student: Of `guided`, and of `without_t5`, as its teacher.
        teacher: Is not trained.
        learned: What both know.
        batch: Samples in it.
        share: Of the batch that is memorised.
    """

    def loss(generator: torch.Generator) -> Tensor:
        drawn = learned.draw(batch, share, generator)
        low, high = GUIDANCES
        w = low + (high - low) * torch.rand(batch, device=drawn.x0.device, generator=generator)
        x, time, empty = drawn.x, 1000 * drawn.level, learned.empty.repeated(batch)
        with torch.no_grad():
            both = drawn.told.and_then(empty)
            c, u = teacher(
                torch.cat([x, x]), both.states.float(), both.pooled.float(), torch.cat([time, time])
            ).sample.chunk(2)
            wanted = u + w[:, None, None, None] * (c - u)
        told = tell(drawn.told, w)
        found = student(x, told.states.float(), told.pooled, time).sample
        return F.mse_loss(found, wanted)

    return loss


def read_student(file: Path, empty: Told) -> SD3Transformer2DModel:
    """One that was trained here.

    Args:
        file: Its weights.
        empty: What is told of a prompt, for the sizes.
    """
    student = guided(new_transformer(empty))
    student.load_state_dict({k: v.float() for k, v in load_file(file).items()})
    return student.eval()
