"""The autoencoder: 64x64 pixels <-> 16x16 latents of 8 channels, sharper than the first one's."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from recipes.embedded.training import Loss
from recipes.embedded.vae import difference

__all__ = [
    "CHANNELS",
    "decoder_loss",
    "encode",
    "new_vae",
    "psnr",
    "reconstruction_loss",
    "scale",
    "to_unit",
]


CHANNELS = 8


def new_vae() -> AutoencoderKL:
    """A quarter of the sides, in latents of eight channels; no attention."""
    vae = AutoencoderKL(
        block_out_channels=(32, 48, 80),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=CHANNELS,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        use_quant_conv=True,
        use_post_quant_conv=False,
    )
    # start with a narrow posterior: with the default the KL term wins and training gets stuck
    assert isinstance(vae.quant_conv, nn.Conv2d)
    with torch.no_grad():
        vae.quant_conv.weight[CHANNELS:].zero_()
        assert vae.quant_conv.bias is not None
        vae.quant_conv.bias[CHANNELS:].fill_(-5)
    return vae


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] in 0..255 -> float [B, 3, H, W] in -1..1, where it is."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def reconstruction_loss(vae: AutoencoderKL, pixels: Tensor, batch: int) -> Loss:
    """The difference of pictures and their round trip + 1e-5 KL, of a random batch.

    Args:
        vae: On the device of `pixels`.
        pixels: uint8. # [N, 64, 64, 3]
        batch: Pictures in it.
    """

    def loss(generator: torch.Generator) -> Tensor:
        where = {"device": pixels.device, "generator": generator}
        x = to_unit(pixels[torch.randint(len(pixels), (batch,), **where)])
        posterior = vae.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, **where)
        y = vae.decode(posterior.mean + posterior.std * noise).sample
        return difference(y, x) + 1e-5 * posterior.kl().mean() / 64

    return loss


def decoder_loss(vae: AutoencoderKL, latents: Tensor, pixels: Tensor, batch: int) -> Loss:
    """The same difference, of pictures from latents with up to .08 of noise in them.

    What draws leaves some noise in latents: the decoder learns to look past it.

    Args:
        vae: Whose decoder is trained.
        latents: Shifted and scaled. # [N, C, 16, 16]
        pixels: uint8, of the same pictures. # [N, 64, 64, 3]
        batch: Pictures in it.
    """
    shift, scaling = vae.config.shift_factor, vae.config.scaling_factor

    def loss(generator: torch.Generator) -> Tensor:
        where = {"device": pixels.device, "generator": generator}
        i = torch.randint(len(pixels), (batch,), **where)
        z, level = latents[i].float(), 0.08 * torch.rand(batch, 1, 1, 1, **where)
        z = z + level * torch.randn(z.shape, **where)
        return difference(vae.decode(z / scaling + shift).sample, to_unit(pixels[i]))

    return loss


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: Tensor, batch: int = 500) -> Tensor:
    """Posterior means, neither shifted nor scaled. # [N, C, 16, 16]"""
    return torch.cat([vae.encode(to_unit(each)).latent_dist.mode() for each in pixels.split(batch)])


def scale(vae: AutoencoderKL, latents: Tensor) -> None:
    """Write into its config what makes these latents of mean zero and variance one."""
    vae.register_to_config(
        shift_factor=float(latents.mean()), scaling_factor=1 / float(latents.std())
    )


@torch.no_grad()
def psnr(vae: AutoencoderKL, pixels: Tensor, batch: int = 500) -> float:
    """Mean over pictures of the PSNR of a round trip, in dB."""
    values = []
    for each in pixels.split(batch):
        x = to_unit(each)
        y = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
        values.append(10 * torch.log10(4 / (y - x).square().mean((1, 2, 3))))
    return float(torch.cat(values).mean())
