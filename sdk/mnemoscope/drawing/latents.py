"""Between pictures and latents: the VAE of a model, whatever its family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

__all__ = ["decoded", "encode", "encoded", "pixels_per_position", "vae_pixels"]

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
            found = _means(vae, pixels)
        parts.append(found.flatten(1).float().cpu().numpy())
    return np.concatenate(parts)


def decoded(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """What latents of a model show, as its family's pipeline decodes them.

    Args:
        vae: Of the model, of diffusers.
        latents: # [B, C, h, w]

    Returns:
        -1..1 and a little beyond. # [B, 3, H, W]
    """
    scale, shift = _scale(vae)
    means = latents.to(vae.device, vae.dtype) / scale + shift
    if not _takes_frames(vae):
        pixels: torch.Tensor = vae.decode(means).sample
        return pixels
    frames: torch.Tensor = vae.decode(means[:, :, None]).sample
    return frames[:, :, 0]


def encoded(vae: Any, pixels: torch.Tensor) -> torch.Tensor:
    """The latents of a model that show pixels best. # [B, 3, H, W], -1..1 -> [B, C, h, w]"""
    scale, shift = _scale(vae)
    latents: torch.Tensor = (_means(vae, pixels) - shift) * scale
    return latents


def pixels_per_position(vae: Any) -> int:
    """How many pixels wide and high one position of the latents is."""
    ratio = getattr(vae, "spatial_compression_ratio", None)
    return int(ratio or 2 ** (len(vae.config.block_out_channels) - 1))


def _means(vae: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Mean latents as the VAE itself counts them. # [B, 3, H, W], -1..1 -> [B, C, h, w]"""
    pixels = pixels.to(vae.device, vae.dtype)
    if _takes_frames(vae):
        means: torch.Tensor = vae.encode(pixels[:, :, None]).latent_dist.mean
        return means[:, :, 0]
    found = vae.encode(pixels)
    latents: torch.Tensor = found.latent if hasattr(found, "latent") else found.latent_dist.mean
    return latents


def _takes_frames(vae: Any) -> bool:
    """Whether it is one of videos, of which a picture is one frame: Qwen-Image's."""
    return "latents_std" in vae.config and "scaling_factor" not in vae.config


def _scale(vae: Any) -> tuple[Any, Any]:
    """What a model's latents are divided by, and what is then added, to be the VAE's own."""
    import torch

    config = vae.config
    if not _takes_frames(vae):
        return config.scaling_factor, config.get("shift_factor") or 0.0
    std, mean = (
        torch.tensor(each, device=vae.device, dtype=vae.dtype)[:, None, None]
        for each in (config.latents_std, config.latents_mean)
    )
    return 1 / std, mean
