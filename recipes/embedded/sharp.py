"""A sharper autoencoder of the same latents, so that the UNet need not be trained again.

Its encoder imitates the one whose latents the UNet learnt. Its decoder starts anew, with more
channels where pictures are large, and learns from what the UNet learnt from: a share of each batch
is memorised.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from .training import Loss
from .vae import difference

__all__ = ["decoder_loss", "imitation_loss", "new_sharp_vae"]

_NOISE = 0.3  # what draws leaves less in nine of ten memorised latents


def new_sharp_vae(vae: AutoencoderKL) -> AutoencoderKL:
    """Wider than that one, without its attention: 3.9 MB in half precision."""
    changed = {"block_out_channels": (32, 64, 64, 96), "mid_block_add_attention": False}
    return AutoencoderKL.from_config({**vae.config, **changed})


def imitation_loss(vae: AutoencoderKL, first: AutoencoderKL, pixels: Tensor, batch: int) -> Loss:
    """The squared error of means and standard deviations, of a random batch.

    Args:
        vae: Whose encoder is trained.
        first: The one to imitate.
        pixels: uint8. # [N, 3, 64, 64]
        batch: Pictures in it.
    """

    def loss(generator: torch.Generator) -> Tensor:
        x = _to_unit(pixels[torch.randint(len(pixels), (batch,), generator=generator)])
        with torch.no_grad():
            wanted = first.encode(x).latent_dist
        with torch.autocast("cpu", torch.bfloat16):
            found = vae.encode(x).latent_dist
        mean, std = found.mean.float(), found.std.float()
        return F.mse_loss(mean, wanted.mean) + F.mse_loss(std, wanted.std)

    return loss


def decoder_loss(
    vae: AutoencoderKL,
    seen: tuple[Tensor, Tensor],
    memorised: tuple[Tensor, Tensor],
    batch: int,
    share: float,
) -> Loss:
    """The difference of pictures and what is decoded, of a random batch.

    What draws leaves some noise in latents: there is up to `_NOISE` in these, to be looked past.

    Args:
        vae: Whose decoder is trained.
        seen: Latents, as the UNet has them, and their pictures. # [N, 16, 8, 8], [N, 3, 64, 64]
        memorised: Likewise.
        batch: Pictures in it.
        share: How many of them are memorised, 0..1.
    """
    few = round(batch * share)

    def some(pairs: tuple[Tensor, Tensor], count: int, generator: torch.Generator) -> list[Tensor]:
        i = torch.randint(len(pairs[0]), (count,), generator=generator)
        return [pairs[0][i], _to_unit(pairs[1][i])]

    def loss(generator: torch.Generator) -> Tensor:
        parts = some(memorised, few, generator), some(seen, batch - few, generator)
        z, x = (torch.cat(each) for each in zip(*parts, strict=True))
        level = _NOISE * torch.rand(batch, 1, 1, 1, generator=generator)
        z = z + level * torch.randn(z.shape, generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            y = vae.decode(z / vae.config.scaling_factor).sample
        return difference(y.float(), x)

    return loss


def _to_unit(pixels: Tensor) -> Tensor:
    """uint8 in 0..255 -> float in -1..1, laid out as convolutions read it. # [B, 3, H, W]"""
    return (pixels.float() / 127.5 - 1).to(memory_format=torch.channels_last)
