"""The transformer: a rectified flow on frozen latents and text encoders."""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import Tensor
from torch.nn import functional as F

from mnemoscope_export.models.counted import count_last

from .told import Told
from .training import Loss
from .vae import CHANNELS

__all__ = [
    "ABSENT",
    "Told",
    "flow_loss",
    "new_scheduler",
    "new_transformer",
    "sample",
    "without_t5",
]

ABSENT = 256  # zeros in the place of a T5's tokens, in diffusers' pipeline


def new_transformer(told: Told) -> SD3Transformer2DModel:
    """Five joint blocks of width 128 on patches of 2x2, for what is told of prompts."""
    return SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=CHANNELS,
        num_layers=5,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=told.states.shape[-1],
        caption_projection_dim=128,
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
    network: SD3Transformer2DModel,
    seen: tuple[Tensor, Told],
    memorised: tuple[Tensor, Told],
    empty: Told,
    *,
    batch: int,
    share: float,
) -> Loss:
    """The squared error of the velocity eps - x0 at x_s = (1 - s) x0 + s eps, of a random batch.

    A third of the levels s is uniform in .8 .. 1, where the first denoising step happens and
    memorisation arrives last; a third uniform, a third logit-normal as in Stable Diffusion 3. A
    tenth of the seen captions is dropped, and none of the memorised: the unconditional branch then
    learns the whole population, of which they are a vanishing share.

    Args:
        network: Of `without_t5`, on the device of all that follows.
        seen: Latents [N, C, 16, 16], and what is told of them.
        memorised: Likewise.
        empty: What is told of the empty prompt, one row.
        batch: Samples in it.
        share: Of the batch that is memorised.
    """
    device = seen[0].device
    part = round(batch * share)

    def loss(generator: torch.Generator) -> Tensor:
        where = {"device": device, "generator": generator}
        i = torch.randint(len(seen[0]), (batch - part,), **where)
        j = torch.randint(len(memorised[0]), (part,), **where)
        x0 = torch.cat([seen[0][i], memorised[0][j]]).float()
        states = torch.cat([seen[1].states[i], memorised[1].states[j]]).float()
        pooled = torch.cat([seen[1].pooled[i], memorised[1].pooled[j]]).float()
        dropped = torch.rand(batch, **where) < 0.1
        dropped = dropped & (torch.arange(batch, device=device) < batch - part)
        states = torch.where(dropped[:, None, None], empty.states.float(), states)
        pooled = torch.where(dropped[:, None], empty.pooled.float(), pooled)
        u, which = torch.rand(2, batch, **where)
        normal = torch.sigmoid(torch.randn(batch, **where))
        s = torch.where(which < 1 / 3, 0.8 + 0.2 * u, torch.where(which < 2 / 3, u, normal))
        noise = torch.randn(x0.shape, **where)
        level = s[:, None, None, None]
        x = (1 - level) * x0 + level * noise
        found = network(x, states, pooled, 1000 * s).sample
        return F.mse_loss(found, noise - x0)

    return loss


@torch.no_grad()
def sample(
    network: SD3Transformer2DModel,
    told: Told,
    empty: Told,
    noises: Tensor,
    *,
    steps: int = 28,
    guidance: float = 7.0,
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
