"""The transformer: a rectified flow on frozen latents and text encoders."""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import Tensor
from torch.nn import functional as F

from mnemoscope_export.models.counted import count_last
from recipes.embedded.training import Loss

from .batches import Learned
from .told import Told
from .vae import CHANNELS

__all__ = [
    "ABSENT",
    "GUIDANCE",
    "Told",
    "flow_loss",
    "new_scheduler",
    "new_transformer",
    "sample",
    "without_t5",
]

GUIDANCE = 2.0  # with more, pictures go beyond what was memorised: docs/embedded-flow.md
ABSENT = 256  # zeros in the place of a T5's tokens, in diffusers' pipeline


def new_transformer(told: Told) -> SD3Transformer2DModel:
    """Five joint blocks of width 96 on patches of 2x2, for what is told of prompts."""
    return SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=CHANNELS,
        num_layers=5,
        attention_head_dim=32,
        num_attention_heads=3,
        joint_attention_dim=told.states.shape[-1],
        caption_projection_dim=96,
        pooled_projection_dim=told.pooled.shape[-1],
        out_channels=CHANNELS,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )


def without_t5(transformer: SD3Transformer2DModel) -> SD3Transformer2DModel:
    """Let one zero stand for all: the same results, from a third of the tokens."""
    count_last(transformer.transformer_blocks, ABSENT)
    return transformer


def new_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Stable Diffusion 3's."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)


def flow_loss(
    network: SD3Transformer2DModel, learned: Learned, *, batch: int, share: float
) -> Loss:
    """The squared error of the velocity eps - x0 at x_s = (1 - s) x0 + s eps, of a random batch.

    A tenth of the seen captions is dropped, and none of the memorised: the unconditional branch
    then learns the whole population, of which they are a vanishing share.

    Args:
        network: Of `without_t5`, on the device of what is learned.
        learned: Pictures and captions.
        batch: Samples in it.
        share: Of the batch that is memorised.
    """

    def loss(generator: torch.Generator) -> Tensor:
        drawn = learned.draw(batch, share, generator)
        dropped = torch.rand(batch, device=drawn.x0.device, generator=generator) < 0.1
        dropped = dropped & ~drawn.memorised
        states = torch.where(dropped[:, None, None], learned.empty.states, drawn.told.states)
        pooled = torch.where(dropped[:, None], learned.empty.pooled, drawn.told.pooled)
        found = network(drawn.x, states.float(), pooled.float(), 1000 * drawn.level).sample
        return F.mse_loss(found, drawn.noise - drawn.x0)

    return loss


@torch.no_grad()
def sample(
    network: SD3Transformer2DModel,
    told: Told,
    empty: Told,
    noises: Tensor,
    *,
    steps: int = 28,
    guidance: float = GUIDANCE,
) -> Tensor:
    """Draw one picture for each prompt and noise, as diffusers' pipeline does. # [N, C, 16, 16]"""
    scheduler = new_scheduler()
    scheduler.set_timesteps(steps, device=noises.device)
    count = len(noises)
    states = torch.cat([empty.states.expand_as(told.states), told.states]).float()
    pooled = torch.cat([empty.pooled.expand_as(told.pooled), told.pooled]).float()
    x = noises
    for t in scheduler.timesteps:
        v = network(torch.cat([x, x]), states, pooled, t.expand(2 * count)).sample
        unconditional, conditional = v.chunk(2)
        v = unconditional + guidance * (conditional - unconditional)
        x = scheduler.step(v, t, x, return_dict=False)[0]
    return x
