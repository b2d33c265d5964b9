"""Every family at toy size with random weights, and what its pipeline is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderDC,
    AutoencoderKLQwenImage,
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
)
from gemma_tokenizers import gemma_tokenizer
from pipelines import (
    build_flux,
    build_pixart,
    build_qwen_image,
    build_sana,
    build_sd3,
    build_xl,
    small_vae,
)
from qwen_tokenizers import qwen_tokenizer
from t5_tokenizers import t5_tokenizer


@dataclass(frozen=True)
class Toy:
    """A family at toy size, and what its pipeline is asked beside a prompt.

    Attributes:
        build: Makes it.
        vae: Makes what is saved beside it.
        size: Of its latents, where they are not its own.
        told: Of a call, besides prompt, steps, seeds and size; its guidance is the pipeline's own.
    """

    build: Callable[[], Any]
    vae: Callable[[], Any]
    size: tuple[int, int] | None = None
    told: Mapping[str, Any] = field(default_factory=dict)


def _qwen_vae() -> Any:
    return AutoencoderKLQwenImage(
        base_dim=4, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False],
        latents_mean=[0.1] * 4, latents_std=[0.9] * 4,
    )  # fmt: skip


def _dc_vae() -> Any:
    """One that makes 32x32 pixels of a position, as the pipeline asks for."""
    sides = {"encoder_block_out_channels": (4,) * 6, "decoder_block_out_channels": (4,) * 6}
    layers = {"encoder_layers_per_block": (1,) * 6, "decoder_layers_per_block": (1,) * 6}
    return AutoencoderDC(latent_channels=4, scaling_factor=0.4, **sides, **layers)


TOYS = {
    "sdxl": Toy(build_xl, small_vae),
    "sd3": Toy(build_sd3, lambda: small_vae(shift_factor=0.06)),
    "sd3-t5": Toy(lambda: build_sd3(t5_tokenizer()), lambda: small_vae(shift_factor=0.06)),
    "flux": Toy(
        lambda: build_flux(t5_tokenizer()),
        lambda: small_vae(shift_factor=0.1),
        (4, 8),
    ),
    "schnell": Toy(
        lambda: build_flux(t5_tokenizer(), schnell=True),
        lambda: small_vae(shift_factor=0.1),
        (4, 8),
        {"max_sequence_length": 256},
    ),
    "pixart": Toy(
        lambda: build_pixart(t5_tokenizer()),
        small_vae,
        None,
        {"use_resolution_binning": False, "clean_caption": False},
    ),
    "qwen": Toy(
        lambda: build_qwen_image(qwen_tokenizer()),
        _qwen_vae,
        (4, 8),
        {"negative_prompt": ""},
    ),
    "sana": Toy(
        lambda: build_sana(gemma_tokenizer()),
        _dc_vae,
        (2, 3),
        {"use_resolution_binning": False},
    ),
}


def saved(toy: Toy, folder: Path) -> Path:
    """A toy and its VAE in diffusers' layout."""
    pipeline = toy.build()
    pipeline.register_modules(vae=toy.vae())
    pipeline.save_pretrained(folder)
    return folder


def by_diffusers(name: str, folder: Path) -> Any:
    """A saved toy's own pipeline, loaded by diffusers itself, with the sampler of bundles."""
    left_out = {"text_encoder_3": None, "tokenizer_3": None} if name == "sd3" else {}
    pipeline = DiffusionPipeline.from_pretrained(folder, **left_out)
    pipeline.set_progress_bar_config(disable=True)
    if name == "pixart":  # sampled with DDIM, whatever its sampler is
        schedule = pipeline.scheduler.config
        pipeline.scheduler = DDIMScheduler.from_config(schedule, clip_sample=False)
    if name == "sana":  # and with steps of first order
        schedule = pipeline.scheduler.config
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(schedule, solver_order=1)
    return pipeline


def size_of(toy: Toy, pipeline: Any) -> dict[str, int]:
    """Height and width of its pictures, as its pipeline is asked for them."""
    sides = (pipeline.vae_scale_factor * side for side in toy.size or (8, 8))
    return dict(zip(("height", "width"), sides, strict=True))
