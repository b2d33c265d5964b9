"""diffusers' own pipeline says the same: the witness that knows nothing of our loading.

Every other check compares graphs with PyTorch modules that we loaded, with ids that we made and
layers that we chose. Here diffusers loads the model itself, by its own rules, and draws: what its
network is told, what it answers, and where the sampler goes from there must be what we say.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mnemoscope_runtime.errors import ExportError

from ..models import Embeds, Model
from ..models.adapters import add_embeddings
from ..models.loading import local_folder
from ..models.messages import first_line
from ..models.options import LoadOptions
from ..noise import noise_bank
from ..oracle import PROMPTS
from .reference import denoise

__all__ = ["check_against_pipeline"]

_ODD = (
    "Zo\u00eb's 2,000 \u00bd-price \u6771\u4eac towers &amp; l'\u00e9t\u00e9 x_1 <|endoftext|> !!"
)
_TOLERANCE = 1e-4  # of the norm; the same operations in the same precision differ by 1e-6 at most


@dataclass(frozen=True)
class _Seen:
    """What a pipeline told its network first, and what came of it."""

    timestep: float
    output: Tensor  # [2 B, C, H, W], without and with the prompt
    latents: Tensor  # [B, C, H, W], behind the first step


@torch.no_grad()
def check_against_pipeline(model: Model, guidance: float, inference_steps: int = 50) -> None:
    """Make sure that diffusers' pipeline embeds, predicts and steps as the model does.

    A model that was loaded by us is loaded again by diffusers: text encoders first, then the
    network, so that there are never more than two of a part. Of one that was put together from
    modules in memory there is nothing else to load, and the pipeline gets those modules: then
    weights are taken as they are, and all that is done with them is compared.

    Args:
        model: In float32.
        guidance: Scale of classifier-free guidance.
        inference_steps: DDIM steps of a whole image.

    Raises:
        ExportError: something differs, or diffusers cannot run the model at all; says what.
    """
    prompts = [PROMPTS[0], _ODD]
    guidance = max(guidance, 2.0)  # at 1 or less a pipeline leaves out the unconditional branch
    with _by_diffusers(model, "load"):
        pipeline = _load(model, text=True)
    with _by_diffusers(model, "embed prompts with"):
        told = model.told_by(pipeline, prompts)
        told_empty = model.told_by(pipeline, None)
    _compare(model, "embedding of a prompt", model.embed(prompts), told)
    _compare(model, "embedding of the unconditional branch", model.embed_empty(), told_empty)
    if not _is_whole(model):
        del pipeline  # no cycle holds its text encoders
        with _by_diffusers(model, "load"):
            pipeline = _load(model, text=False)
    noise = noise_bank(1, model.latent_shape, seed=0)
    one = tuple(each[:1] for each in told)
    step = next(denoise(model, one, noise, inference_steps=inference_steps, guidance=guidance))
    both = tuple(torch.cat(pair) for pair in zip(told_empty, one, strict=True))
    twice, t = torch.cat([noise, noise]), torch.tensor(step.timestep)
    output = model.predict(twice, t, both)
    network = getattr(pipeline, model.predictor)
    if not model.draws_alike:
        with _by_diffusers(model, "run the network of"):
            wanted = model.with_network(network).predict(twice, t, both)
        _compare(model, "network's prediction", (output,), (wanted,))
        return
    with _by_diffusers(model, "draw with"):
        seen = _first_step(pipeline, model, one, told_empty, noise, guidance, inference_steps)
    if seen.timestep != step.timestep:
        raise _differ(model, "first timestep", f"{seen.timestep:g}, not {step.timestep:g}")
    _compare(model, "network's prediction", (output,), (seen.output,))
    _compare(model, "first step of sampling", (step.latents,), (seen.latents,))


def _is_whole(model: Model) -> bool:
    """One pipeline does for both: it is in memory anyway, or comes out of one file or adapters."""
    if model.source is None:
        return True
    name, options = model.source
    return Path(name).is_file() or bool(options.loras or options.embeddings)


def _load(model: Model, *, text: bool) -> Any:
    """diffusers' pipeline: of one part of a directory at a time, or the whole."""
    if model.source is None:
        pipeline = model.assembled()
    else:
        pipeline = _loaded(model, *model.source, text=text)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = model.sampler(pipeline.scheduler)
    for name, (tokenizer, _) in model.tokenizers.items():  # some do not say, or say too much
        if getattr(pipeline, name, None) is not None:
            getattr(pipeline, name).model_max_length = tokenizer.model_max_length
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):  # its own method: diffusers' warns of what it would do
            nn.Module.to(part, model.network.device, torch.float32)
    return pipeline


def _loaded(model: Model, name: str, options: LoadOptions, *, text: bool) -> Any:
    # whatever its index names (from image to image, say), it is told of a prompt alone here
    kind, common = model.pipeline_class, dict[str, Any].fromkeys((*model.unused, *model.absent))
    if Path(name).is_file():
        pipeline = kind.from_single_file(
            name, config=str(options.config), local_files_only=True, **common
        )
    else:
        folder = local_folder(name, options.variant)
        encoders = [part for part in model.parts if part != model.predictor]
        left = [] if _is_whole(model) else [model.predictor, "vae"] if text else encoders
        left += [] if (folder / "vae").is_dir() else ["vae"]
        common |= dict.fromkeys(left) | {"variant": options.variant, "use_safetensors": True}
        pipeline = kind.from_pretrained(folder, **common)
    add_embeddings(pipeline, options.embeddings)
    names = [f"lora_{i}" for i in range(len(options.loras))]
    for each, lora in zip(names, options.loras, strict=True):
        pipeline.load_lora_weights(
            str(lora.file.parent), weight_name=lora.file.name, adapter_name=each,
            local_files_only=True, use_safetensors=True,
        )  # fmt: skip
    if names:  # they stay beside the weights here, where the model has them in the weights
        pipeline.set_adapters(names, [lora.scale for lora in options.loras])
    return pipeline


def _first_step(
    pipeline: Any,
    model: Model,
    told: Embeds,
    empty: Embeds,
    noise: Tensor,
    guidance: float,
    inference_steps: int,
) -> _Seen:
    outputs: list[Tensor] = []
    seen: list[_Seen] = []

    def watch(_: object, __: object, output: Any) -> None:
        outputs.append(output[0].clone())

    def stop(own: Any, _: int, timestep: object, kwargs: dict[str, Tensor]) -> dict[str, Tensor]:
        if not seen:
            latents, both = model.unpacked(kwargs["latents"].clone()), model.both(outputs)
            seen.append(_Seen(float(torch.as_tensor(timestep)), both, latents))
        own._interrupt = True
        return kwargs

    def leave(step: int, timestep: object, latents: Tensor) -> None:
        stop(pipeline, step, timestep, {"latents": latents})
        raise _Stepped

    pixels = pipeline.vae_scale_factor
    _, height, width = model.latent_shape
    given = model.call_options(told, empty, (pixels * height, pixels * width))
    given |= {model.guidance_option(): guidance}
    knows = inspect.signature(type(pipeline).__call__).parameters
    given |= (
        {"callback_on_step_end": stop} if "callback_on_step_end" in knows else {"callback": leave}
    )
    hook = getattr(pipeline, model.predictor).register_forward_hook(watch)
    try:
        pipeline(
            **given, latents=model.packed(noise), num_inference_steps=inference_steps,
            output_type="latent",
        )  # fmt: skip
    except _Stepped:
        pass
    finally:
        hook.remove()
    return seen[0]


class _Stepped(Exception):
    """A pipeline that knows no other way to stop has made its first step."""


@contextmanager
def _by_diffusers(model: Model, what: str) -> Iterator[None]:
    """What diffusers raises, as an error that says what was asked of it; its advice is left out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    except ExportError:
        raise
    except Exception as error:  # diffusers' errors share no base class
        raise ExportError(
            f"diffusers' own pipeline cannot {what} {model.id}: {first_line(error)} Nothing shows "
            "then that a bundle of it measures what you run, so nothing was written. See that "
            "diffusers draws a picture with it, save it with `pipeline.save_pretrained(DIR)`, and "
            "export that."
        ) from error


def _compare(model: Model, what: str, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    for found, wanted in zip(ours, theirs, strict=True):
        if found.shape != wanted.shape:
            shapes = f"{tuple(found.shape)}, not {tuple(wanted.shape)}"
            raise _differ(model, what, shapes)
        if not found.isfinite().all():
            raise ExportError(
                f"The {what} of {model.id} is NaN or infinite in {found.dtype}, so nothing can be "
                "measured. Its weights are finite and yet too large or too small: give the model "
                "as it was before it was merged, trained further or converted."
            )
        off = float((found.cpu().double() - wanted.cpu().double()).norm())
        size = float(wanted.double().norm())
        if not off <= _TOLERANCE * size:  # zeros are the same as zeros
            raise _differ(model, what, f"off by {off / size if size else off:.1e} of its size")


def _differ(model: Model, what: str, how: str) -> ExportError:
    return ExportError(
        f"{model.id} is not what diffusers' own pipeline makes of it: the {what} is {how}. A "
        "bundle of it would measure another model than you run, and nothing was written. Install "
        "the versions in constraints.txt; if it stays so, this model is one that Mnemoscope does "
        "not read as diffusers does."
    )
