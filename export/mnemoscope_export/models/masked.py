"""What an inpainting UNet is given beside noise, when all of the picture is to be drawn anew."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from .contents import content

__all__ = ["Masked", "mask_all"]


@dataclass(frozen=True, eq=False)
class Masked:
    """The mask, and the latents of the picture behind it.

    Attributes:
        inputs: Ones, where something is to be drawn: everywhere; then the VAE's latents of a
            picture that is masked everywhere, which is grey. # [1, 1 + C, H, W]
        vae_sha256: Of the VAE's weights.
    """

    inputs: Tensor
    vae_sha256: str

    def beside(self, latents: Tensor) -> Tensor:
        """What the UNet takes. # [B, C, H, W] -> [B, 2 C + 1, H, W]"""
        fixed = self.inputs.to(latents.device, latents.dtype)
        return torch.cat([latents, fixed.expand(latents.shape[0], -1, -1, -1)], dim=1)


@torch.no_grad()
def mask_all(vae: AutoencoderKL, size: tuple[int, int]) -> Masked:
    """Mask a whole picture, as diffusers' inpainting pipelines do.

    They sample the latents from what the VAE says of them; here it is their mean.

    Args:
        vae: In float32.
        size: (H, W) of the latents.
    """
    pixels = 2 ** (len(vae.config.block_out_channels) - 1)
    picture = torch.zeros(1, vae.config.in_channels, *(pixels * side for side in size))
    latents = vae.encode(picture).latent_dist.mode() * vae.config.scaling_factor
    digest = hashlib.sha256()
    for name, value in sorted(vae.state_dict().items()):
        digest.update(f"{name} {content(value)}\n".encode())
    return Masked(torch.cat([torch.ones_like(latents[:, :1]), latents], 1), digest.hexdigest())
