"""Drawing images with a model, to see what it recites. Needs the `torch` extra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnemoscope_runtime.errors import BackendUnavailable, ExportError, InputError
from mnemoscope_runtime.options import check_options

from .. import embedded

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from PIL.Image import Image

    from mnemoscope_export import LoadOptions, StableDiffusion

__all__ = ["generate", "load_pipeline", "require_torch"]


def generate(
    prompt: str,
    *,
    model: str | Path | None = None,
    seeds: Sequence[int] = (0,),
    steps: int = 50,
    guidance: float = 7.5,
    options: LoadOptions | None = None,
) -> list[Image]:
    """Draw one image for each seed, with DDIM.

    Args:
        prompt: The prompt.
        model: Directory in diffusers' layout, single-file checkpoint, or hub id; the embedded
            model by default.
        seeds: One for each image.
        steps: DDIM steps.
        guidance: Scale of classifier-free guidance.
        options: How the model is loaded: adapters, negative prompt and the like.

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
    parts, pipeline = _load(model, options)
    import torch

    told: dict[str, Any] = {"prompt": [prompt] * len(seeds)}
    if parts.clip_skip is not None or parts.negative is not None:
        (prompt_embeds,), (negative,) = parts.embed([prompt]), parts.embed_empty()
        told = {
            "prompt_embeds": prompt_embeds.repeat(len(seeds), 1, 1),
            "negative_prompt_embeds": negative.repeat(len(seeds), 1, 1),
        }
    _, height, width = parts.latent_shape
    result = pipeline(
        **told,
        height=height * pipeline.vae_scale_factor,
        width=width * pipeline.vae_scale_factor,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    )
    images: list[Image] = result.images
    return images


def load_pipeline(
    model: str | Path | None = None, options: LoadOptions | None = None
) -> StableDiffusionPipeline:
    """A model and its VAE as diffusers' pipeline, with DDIM, in float32, without progress bar.

    Args:
        model: Directory in diffusers' layout, single-file checkpoint, or hub id; the embedded
            model by default.
        options: How it is loaded. What a pipeline is told at every call, its negative prompt and
            layers to leave out, is not part of it.

    Raises:
        BackendUnavailable: PyTorch or diffusers is not installed.
        ExportError: there is no such model, or a part of it is missing.
    """
    return _load(model, options)[1]


def require_torch() -> None:
    """Make sure that models can be loaded.

    Raises:
        BackendUnavailable: PyTorch or diffusers is not installed.
    """
    try:
        import diffusers  # noqa: F401 - without torch it imports, as stubs
        import torch  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable(
            f"Drawing needs PyTorch and diffusers: {error}. "
            "Install them with `pip install 'mnemoscope[torch]'`."
        ) from None


def _load(
    model: str | Path | None, options: LoadOptions | None
) -> tuple[StableDiffusion, StableDiffusionPipeline]:
    require_torch()
    from diffusers import StableDiffusionPipeline

    from mnemoscope_export import StableDiffusion, load_vae

    name = str(model or embedded.MODEL)
    parts = StableDiffusion.load(name, options=options)
    if parts.family == "sdxl":
        raise ExportError(
            f"{name} is a Stable Diffusion XL, which this does not draw with. Load it with "
            "diffusers' own StableDiffusionXLPipeline."
        )
    if parts.masked is not None:
        raise ExportError(
            f"{name} inpaints: it takes a picture and a mask, which this does not. Load it with "
            "diffusers' own StableDiffusionInpaintPipeline."
        )
    pipeline: StableDiffusionPipeline = StableDiffusionPipeline(
        vae=load_vae(name, options),
        tokenizer=parts.tokenizer,
        text_encoder=parts.text_encoder,
        unet=parts.unet,
        scheduler=parts.sampler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return parts, pipeline
