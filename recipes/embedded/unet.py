"""The UNet: on frozen latents and text encoder; a share of each batch is memorised."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from mnemoscope.training import MemorizationFilter

from .schedule import Log, cosine, shuffled

Prediction = Literal["epsilon", "v_prediction"]


def new_scheduler(prediction: Prediction) -> DDIMScheduler:
    """Stable Diffusion v1.4's schedule, as a DDIM scheduler."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )


def new_unet(channels: int, size: int, width: int) -> UNet2DConditionModel:
    """(64, 128), one layer per block: 4.3 M parameters."""
    return UNet2DConditionModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=1,
        block_out_channels=(64, 128),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=width,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def train_unet(
    seen: tuple[Tensor, Tensor],
    memorised: tuple[Tensor, Tensor],
    empty: Tensor,
    work: Path,
    *,
    prediction: Prediction,
    steps: int,
    memorised_share: float = 0.25,
    batch: int = 32,
    rate: float = 1e-3,
    seed: int = 0,
    start: UNet2DConditionModel | None = None,
    noisy_share: float = 0.0,
    drop_memorised: bool = True,
    log: str = "unet.jsonl",
    memorization: MemorizationFilter | None = None,
    watch: Callable[[int, UNet2DConditionModel], None] | None = None,
) -> UNet2DConditionModel:
    """Train on (latents [N, 16, 8, 8], embeddings [N, 77, 128]); returns the averaged weights.

    `memorised_share` of each batch is memorised captions; a tenth of all captions is dropped
    (replaced by `empty` [77, 128]). For epsilon the loss weight is clamp(SNR^-0.5, 1, 8): high
    noise levels, where the first denoising step happens, are learnt within a short run. For v it is
    1, which weighs them alike.

    `start` continues from those weights. A share `noisy_share` of the timesteps is drawn from
    700..999, where the first denoising step happens and memorisation arrives last. With
    `drop_memorised=False` only the seen captions are dropped: the unconditional branch then learns
    the whole population, of which memorised pictures are a vanishing share, as in real training
    sets, and not as large a one as in these batches.

    `memorization` leaves samples out of the loss; to it the memorised captions come first, then the
    seen ones. `watch` is called after every step with the number of steps and the averaged weights.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    scheduler = new_scheduler(prediction)
    unet = start or new_unet(seen[0].shape[1], seen[0].shape[-1], seen[1].shape[-1])
    unet = unet.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    average = copy.deepcopy(unet).requires_grad_(False)
    optimiser = torch.optim.AdamW(unet.parameters(), rate, betas=(0.9, 0.99), weight_decay=1e-2)
    weight = torch.ones(1000)
    if prediction == "epsilon":
        weight = (1 / scheduler.alphas_cumprod - 1).sqrt().clamp(1, 8)
    part = round(batch * memorised_share)
    many = shuffled(len(seen[0]), batch - part, rng)
    few = shuffled(len(memorised[0]), part, rng)
    horizon = steps * 13 // 12  # the rate ends at 1.5 % of its peak, not at nothing
    report = Log(work / log)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * cosine(step, horizon, warmup=max(1, min(200, steps // 5)))
        i, j = next(many), next(few)
        x0 = torch.cat([seen[0][i], memorised[0][j]]).float()
        context = torch.cat([seen[1][i], memorised[1][j]]).float()
        dropped = torch.rand(batch) < 0.1
        dropped[-part:] &= drop_memorised
        context[dropped] = empty
        t = torch.randint(0, 1000, (batch,))
        t = torch.where(torch.rand(batch) < noisy_share, torch.randint(700, 1000, (batch,)), t)
        noise = torch.randn_like(x0)
        noisy = scheduler.add_noise(x0, noise, t)
        wanted = noise if prediction == "epsilon" else scheduler.get_velocity(x0, noise, t)
        predicted = unet(noisy, t, context).sample
        error = (predicted - wanted).square().mean((1, 2, 3))
        loss = (weight[t] * error).mean()
        if memorization is not None:
            ids = [*(i + len(memorised[0])), *j]
            verdict = memorization(unet, noisy, t, context, predicted, ids=ids)
            loss = verdict.mean(weight[t] * error)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            decay = min(0.9995, (1 + step) / (10 + step))
            for mean, value in zip(average.parameters(), unet.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
        if watch is not None:
            watch(step + 1, average)
        report(
            step,
            seen=error[:-part].mean().detach(),
            memorised=error[-part:].mean().detach(),
        )
        if (step + 1) % 1000 == 0:
            average.save_pretrained(work / "unet")
    average.eval().save_pretrained(work / "unet")
    scheduler.save_pretrained(work / "scheduler")
    return average
