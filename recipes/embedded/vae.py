"""The autoencoder: 64x64 pixels <-> 8x8x16 latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from .images import Pixels
from .schedule import Log, cosine, shuffled, to_tensor

HELD_OUT = 500  # pictures kept for the PSNR


def new_vae() -> AutoencoderKL:
    """Small at full resolution, where the time goes; wide latents, where the sharpness is."""
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 64, 96),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=16,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=64,
    )
    # start with a narrow posterior: with the default the KL term wins and training gets stuck
    assert isinstance(vae.quant_conv, nn.Conv2d)
    half = vae.config.latent_channels
    with torch.no_grad():
        vae.quant_conv.weight[half:].zero_()
        assert vae.quant_conv.bias is not None
        vae.quant_conv.bias[half:].fill_(-5)
    return vae


def edges_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbours, down and across."""
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def difference(y: Tensor, x: Tensor) -> Tensor:
    """MSE + 0.3 L1 + 0.5 L1 of the edges, fine and coarse."""
    edges = torch.stack(
        [
            F.l1_loss(a, b)
            for u, v in ((y, x), (F.avg_pool2d(y, 2), F.avg_pool2d(x, 2)))
            for a, b in zip(edges_of(u), edges_of(v), strict=True)
        ]
    )
    return F.mse_loss(y, x) + 0.3 * F.l1_loss(y, x) + 0.5 * edges.sum()


def train_vae(
    images: Pixels, work: Path, *, steps: int, batch: int = 16, rate: float = 1.5e-3, seed: int = 0
) -> AutoencoderKL:
    """MSE + 0.3 L1 + 0.3 L1 of the edges + 1e-5 KL; sets `scaling_factor` to 1 / latent std."""
    torch.manual_seed(seed)
    vae = new_vae().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(vae.parameters(), rate, betas=(0.9, 0.99), weight_decay=1e-4)
    log = Log(work / "vae.jsonl")
    batches = shuffled(len(images) - HELD_OUT, batch, np.random.default_rng(seed))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * cosine(step, steps)
        x = to_tensor(images[np.sort(next(batches))])
        posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.sample()).sample
        edges = sum(F.l1_loss(a, b) for a, b in zip(edges_of(y), edges_of(x), strict=True))
        mse = F.mse_loss(y, x)
        loss = mse + 0.3 * F.l1_loss(y, x) + 0.3 * edges + 1e-5 * posterior.kl().mean() / 64
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        log(step, mse=mse.detach(), kl=posterior.kl().mean().detach())
    vae.eval()
    latents = encode(vae, images[-HELD_OUT:])
    vae.register_to_config(scaling_factor=1 / float(latents.std()))
    log.write(steps, {"psnr": psnr(vae, images[-HELD_OUT:])})
    vae.save_pretrained(work / "vae")
    return vae


@torch.no_grad()
def encode(vae: AutoencoderKL, images: Pixels, batch: int = 100) -> Tensor:
    """Posterior means, [N, 16, 8, 8], not yet multiplied by the scaling factor."""
    chunks = [images[i : i + batch] for i in range(0, len(images), batch)]
    return torch.cat([vae.encode(to_tensor(chunk)).latent_dist.mode() for chunk in chunks])


@torch.no_grad()
def psnr(vae: AutoencoderKL, images: Pixels, batch: int = 100) -> float:
    """Mean over pictures of the PSNR of a round trip, in dB."""
    values = []
    for start in range(0, len(images), batch):
        x = to_tensor(images[start : start + batch])
        y = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
        values.append(10 * torch.log10(4 / (y - x).square().mean((1, 2, 3))))
    return float(torch.cat(values).mean())
