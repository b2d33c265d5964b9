"""Drawing images with a model, to see what it recites. Needs the `torch` extra."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnemoscope_runtime.errors import BackendUnavailable, ExportError, InputError
from mnemoscope_runtime.options import check_options
from mnemoscope_runtime.wording import counted, pip_install

from ..shipped import model_at

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image

    from mnemoscope_export import LoadOptions, Model

__all__ = ["generate", "load_pipeline", "require_torch"]


def generate(
    prompt: str,
    *,
    model: str | Path | None = None,
    seeds: Sequence[int] = (0,),
    steps: int | None = None,
    guidance: float | None = None,
    options: LoadOptions | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Image]:
    """Draw one image for each seed, by diffusers' own pipeline of the model's family.

    Samplers are those of bundles: DDIM, or Euler's steps along a flow.

    Args:
        prompt: The prompt.
        model: Directory in diffusers' layout, single-file checkpoint, or hub id; the embedded
            model by default.
        seeds: One for each image.
        steps: Steps of the sampler; by default as many as diffusers' pipeline of the family takes,
            50 for Stable Diffusion.
        guidance: Scale of classifier-free guidance; by default that pipeline's, 7.5 for Stable
            Diffusion. Of FLUX.1 dev what the transformer is told, and schnell takes none.
        options: How the model is loaded: adapters, negative prompt and the like.
        progress: Told what is done, as it begins.

    Raises:
        BackendUnavailable: PyTorch or diffusers is not installed.
        InputError: no seeds, a seed out of 0..2**64 - 1, steps out of 1..999, or a guidance that
            the model is not told.
        ExportError: there is no such model, or a part of it is missing.
    """
    check_options("a whole number or None", steps=steps)
    check_options("a number or None", guidance=guidance)
    if not seeds or (steps is not None and not 1 <= steps <= 999):
        raise InputError("Give at least one seed, and 1 to 999 steps.")
    if min(seeds) < 0 or max(seeds) >= 2**64:
        raise InputError("A seed lies between 0 and 2**64 - 1. Choose a smaller one.")
    progress(f"loading {model_at(model)}")
    loaded, pipeline = _load(model, options)
    steps = steps or loaded.usual_steps
    import torch

    parts, scale = loaded.guided(guidance)
    told, empty = (
        tuple(each.expand(len(seeds), *each.shape[1:]) for each in embeds)
        for embeds in (parts.embed([prompt]), parts.embed_empty())
    )
    _, height, width = parts.latent_shape
    pixels = pipeline.vae_scale_factor
    progress(f"drawing {counted(len(seeds), 'picture')} in {counted(steps, 'step')}")
    result = pipeline(
        **parts.call_options(told, empty, (pixels * height, pixels * width)),
        **{parts.guidance_option(): scale},
        num_inference_steps=steps,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    )
    images: list[Image] = result.images
    return images


def load_pipeline(
    model: str | Path | None = None, options: LoadOptions | None = None
) -> DiffusionPipeline:
    """A model and its VAE as its family's pipeline of diffusers, in float32, no progress bar.

    Its sampler is that of bundles: DDIM, or Euler's steps along a flow.

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
            f"Install them with {pip_install('torch')}."
        ) from None


def _load(model: str | Path | None, options: LoadOptions | None) -> tuple[Model, DiffusionPipeline]:
    require_torch()
    from mnemoscope_export import load_model, load_vae

    name = model_at(model)
    parts = load_model(name, options=options)
    if not parts.draws_alike:
        raise ExportError(
            f"{name} inpaints: it takes a picture and a mask, which this does not. Load it with "
            "diffusers' own StableDiffusionInpaintPipeline."
        )
    pipeline = parts.assembled(load_vae(name, options))
    pipeline.set_progress_bar_config(disable=True)
    return parts, pipeline
