"""Pictures in the latents of a model's VAE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

__all__ = ["encode", "vae_pixels"]

_BATCH = 16


def vae_pixels(images: Sequence[Image], side: int) -> torch.Tensor:
    """Pictures squeezed into squares, as a VAE takes them, -1..1. # [N, 3, side, side]"""
    import torch

    squeezed = [each.convert("RGB").resize((side, side)) for each in images]
    pixels = np.stack([np.asarray(each, np.float32) for each in squeezed]) / 127.5 - 1
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def encode(vae: Any, images: Sequence[Image], side: int) -> NDArray[np.float32]:
    """The mean latents of pictures, squeezed into squares, flat. # [N, C * h * w]"""
    import torch

    parts = []
    for i in range(0, len(images), _BATCH):
        pixels = vae_pixels(images[i : i + _BATCH], side)
        with torch.inference_mode():
            found = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.mean
        parts.append(found.flatten(1).float().cpu().numpy())
    return np.concatenate(parts)
