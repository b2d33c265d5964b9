"""Drawing images with a model, to see what it recites. Needs the `torch` extra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnemoscope_runtime.errors import BackendUnavailable, ExportError, InputError
from mnemoscope_runtime.options import check_options

from . import embedded

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from PIL.Image import Image

__all__ = ["generate", "load_pipeline"]


def generate(
    prompt: str,
    *,
    model: str | Path | None = None,
    seeds: Sequence[int] = (0,),
    steps: int = 50,
    guidance: float = 7.5,
) -> list[Image]:
    """Draw one image for each seed, with DDIM.

    Args:
        prompt: The prompt.
        model: Directory in diffusers' layout, or hub id; the embedded model by default.
        seeds: One for each image.
        steps: DDIM steps.
        guidance: Scale of classifier-free guidance.

    Raises:
        BackendUnavailable: PyTorch or diffusers is not installed.
        InputError: no seeds, a seed out of 0..2**64 - 1, or steps out of 1..999.
        ExportError: there is no such model, or a part of it is missing.
    """
    check_options("a whole number", steps=steps)
    check_options("a number", guidance=guidance)
    if not seeds or not 1 <= steps <= 999:
        raise InputError("Give at least one seed, and 1 to 999 steps.")
    if min(seeds) < 0 or max(seeds) >= 2**64:
        raise InputError("A seed lies between 0 and 2**64 - 1. Choose a smaller one.")
    pipeline = load_pipeline(model)
    import torch

    result = pipeline(
        [prompt] * len(seeds),
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    )
    images: list[Image] = result.images
    return images


def load_pipeline(model: str | Path | None = None) -> StableDiffusionPipeline:
    """A model and its VAE as diffusers' pipeline, with DDIM, in float32, without progress bar.

    Args:
        model: Directory in diffusers' layout, or hub id; the embedded model by default.

    Raises:
        BackendUnavailable: PyTorch or diffusers is not installed.
        ExportError: there is no such model, or a part of it is missing.
    """
    try:
        import torch  # noqa: F401 - without it diffusers imports, as stubs
        from diffusers import StableDiffusionPipeline

        from mnemoscope_export import StableDiffusion, load_vae
    except ImportError as error:
        raise BackendUnavailable(
            f"Drawing needs PyTorch and diffusers: {error}. "
            "Install them with `pip install 'mnemoscope[torch]'`."
        ) from None
    name = str(model or embedded.MODEL)
    parts = StableDiffusion.load(name)
    if parts.family == "sdxl":
        raise ExportError(
            f"{name} is a Stable Diffusion XL, which this does not draw with. Load it with "
            "diffusers' own StableDiffusionXLPipeline."
        )
    pipeline: StableDiffusionPipeline = StableDiffusionPipeline(
        vae=load_vae(name),
        tokenizer=parts.tokenizer,
        text_encoder=parts.text_encoder,
        unet=parts.unet,
        scheduler=parts.sampler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
