"""The paper's metric in plain PyTorch: the oracle every graph is compared with.

Wen et al., "Detecting, Explaining, and Mitigating Memorization in Diffusion Models", ICLR 2024:
the magnitude of the text-conditional noise prediction,

    m_t = || eps(x_t, t, e_prompt) - eps(x_t, t, e_empty) ||_2,

measured while DDIM samples with classifier-free guidance. It is large for memorised prompts. Of
flows it is measured of the predicted picture: see `mnemoscope_runtime.units`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mnemoscope_runtime.errors import NumericsError

from .taps import Recorder

if TYPE_CHECKING:  # diffusers and transformers take seconds; `magnitude` needs neither
    from ..models import Embeds, Model

__all__ = ["Step", "denoise", "magnitude", "magnitudes", "measure", "measure_at", "tap_norms"]


def magnitude(cond: Tensor, uncond: Tensor) -> Tensor:
    """|| cond - uncond ||_2 per sample, in fp32.

    Args:
        cond: # [B, C, H, W]
        uncond: # [B, C, H, W], or [1, C, H, W]

    Returns:
        # [B]
    """
    return (cond.float() - uncond.float()).flatten(1).square().sum(1).sqrt()


@dataclass(frozen=True)
class Step:
    """One step of sampling.

    Attributes:
        timestep: t
        cond: eps(x_t, t, e_prompt), in the model's unit, fp32. # [B, C, H, W]
        uncond: eps(x_t, t, e_empty), likewise. # [B, C, H, W]
        latents: x at the next timestep. # [B, C, H, W]
        taps: || h_l(x_t, t, e_prompt) - h_l(x_t, t, e_empty) ||_2 of every tapped layer. # [B, K]
    """

    timestep: float
    cond: Tensor
    uncond: Tensor
    latents: Tensor
    taps: Tensor


@torch.no_grad()
def denoise(
    model: Model,
    embeds: Embeds,  # of `model.embed`, [B, ...] each
    latents: Tensor,  # [B, C, H, W]
    *,
    inference_steps: int | None = None,
    guidance: float | None = None,
    taps: Sequence[str] = (),
) -> Iterator[Step]:
    """Sample with the family's sampler and classifier-free guidance, step by step.

    One call per step on the concatenated [uncond; cond] batch, as a serving stack does it.

    Args:
        model: A model, in any dtype, on any device.
        embeds: Of `model.embed`. # ([B, L, D],)
        latents: Initial noise x_T. # [B, C, H, W]
        inference_steps: Steps of a whole image; None for as many as the family's pipeline takes.
        guidance: Scale of classifier-free guidance; None for that pipeline's.
        taps: Layers of the network; see `Model.tappable`.
    """
    both = _both(model, embeds)
    sampler = model.started(model.usual_steps if inference_steps is None else inference_steps)
    scale = model.guided(None)[1] if guidance is None else guidance
    latents = latents.to(model.network.device, model.network.dtype)
    for t in sampler.timesteps:
        uncond, cond, norms = _predict(model, latents, t, both, taps)
        found, without = (model.in_unit(part, latents, t) for part in (cond, uncond))
        guided = model.guide(uncond, cond, scale)
        latents = sampler.step(guided, t, latents).prev_sample
        yield Step(t.item(), found, without, latents, norms)


@torch.no_grad()
def magnitudes(
    model: Model,
    prompts: Sequence[str],
    noises: Tensor,  # [n, C, H, W]
    *,
    steps: int = 1,
    inference_steps: int | None = None,
    guidance: float | None = None,
) -> Tensor:
    """Magnitudes along the first `steps` steps of sampling; their mean is the prompt's score.

    Args:
        model: A model, in any dtype, on any device.
        prompts: The prompts.
        noises: Initial noises x_T, shared by the prompts; see `noise_bank`.
        steps: 1 for the first step, `inference_steps` for all of them.
        inference_steps: Steps of a whole image; None for as many as the family's pipeline takes.
        guidance: Scale of classifier-free guidance; None for that pipeline's.

    Returns:
        # [prompt, noise, step], fp32, on the CPU

    Raises:
        NumericsError: a magnitude is NaN or infinite.
    """
    options: dict[str, Any] = {"inference_steps": inference_steps, "guidance": guidance}
    return measure(model, prompts, noises, steps=steps, **options)[..., 0]


@torch.no_grad()
def measure(
    model: Model,
    prompts: Sequence[str],
    noises: Tensor,  # [n, C, H, W]
    *,
    steps: int,
    taps: Sequence[str] = (),
    **options: Any,
) -> Tensor:
    """Magnitudes, and behind them the norms of every tap; see `magnitudes` and `denoise`.

    Returns:
        # [prompt, noise, step, 1 + K], fp32, on the CPU

    Raises:
        NumericsError: one of them is NaN or infinite.
    """
    values = torch.empty(len(prompts), len(noises), steps, 1 + len(taps))
    for row, prompt in enumerate(prompts):
        walk = denoise(model, _embed(model, prompt, noises), noises, taps=taps, **options)
        for column, step in enumerate(itertools.islice(walk, steps)):
            values[row, :, column, 0] = magnitude(step.cond, step.uncond).cpu()
            values[row, :, column, 1:] = step.taps.cpu()
    return _finite(values, model, taps)


@torch.no_grad()
def measure_at(
    model: Model,
    prompts: Sequence[str],
    noises: Tensor,  # [n, C, H, W]
    timestep: int,
    *,
    taps: Sequence[str] = (),
) -> Tensor:
    """The magnitude, and behind it the norms of every tap, of pure noise at any timestep.

    At the sampler's first timestep that is the first step of `measure`.

    Returns:
        # [prompt, noise, 1 + K], fp32, on the CPU

    Raises:
        NumericsError: one of them is NaN or infinite.
    """
    values = torch.empty(len(prompts), len(noises), 1 + len(taps))
    latents = noises.to(model.network.device, model.network.dtype)
    t = torch.tensor(timestep, device=model.network.device)
    for row, prompt in enumerate(prompts):
        both = _both(model, _embed(model, prompt, noises))
        uncond, cond, norms = _predict(model, latents, t, both, taps)
        found, without = (model.in_unit(part, latents, t) for part in (cond, uncond))
        values[row, :, 0] = magnitude(found, without).cpu()
        values[row, :, 1:] = norms.cpu()
    return _finite(values, model, taps)


@torch.no_grad()
def tap_norms(model: Model, noise: Tensor, timestep: int, taps: Sequence[str]) -> list[float]:
    """|| h_l(x_t, t, e_empty) ||_2 of every tap on one noise [1, C, H, W]."""
    if not taps:
        return []
    recorder = Recorder(model, model.network, taps)
    try:
        latents = noise.to(model.network.device, model.network.dtype)
        t = torch.tensor(timestep, device=model.network.device)
        _, features = recorder.run(lambda: model.predict(latents, t, model.embed_empty()))
    finally:
        recorder.close()
    return [float(each.float().norm()) for each in features]


def _embed(model: Model, prompt: str, noises: Tensor) -> Embeds:
    """A prompt for every noise. # [n, ...] each"""
    return tuple(e.expand(len(noises), *e.shape[1:]) for e in model.embed([prompt]))


def _both(model: Model, embeds: Embeds) -> Embeds:
    """[B, ...] -> [uncond; cond], [2 B, ...] each."""
    return tuple(
        torch.cat([empty.expand_as(each), each])
        for empty, each in zip(model.embed_empty(), embeds, strict=True)
    )


def _finite(values: Tensor, model: Model, taps: Sequence[str]) -> Tensor:
    if not values.isfinite().all():
        row, *_, which = (~values.isfinite()).nonzero()[0].tolist()
        what = f"tap {taps[which - 1]}" if which else "magnitude"
        raise NumericsError(
            f"The {what} of prompt {row} is NaN or infinite in {model.network.dtype}. "
            + (
                "Its weights or its layers are damaged: give the model as it was before it was "
                "merged, trained further or converted."
                if model.network.dtype == torch.float32
                else "Use float32."
            )
        )
    return values


def _predict(
    model: Model, latents: Tensor, t: Tensor, both: Embeds, taps: Sequence[str]
) -> tuple[Tensor, Tensor, Tensor]:
    """The network's output without and with the prompt, [B, C, H, W], and norms of taps, [B, K]."""
    recorder = Recorder(model, model.network, taps)
    twice = torch.cat([latents, latents])
    try:
        output, features = recorder.run(lambda: model.predict(twice, t, both))
    finally:
        recorder.close()
    assert output is not None
    uncond, cond = output.chunk(2)
    norms = [magnitude(*reversed(each.chunk(2))) for each in features]
    return uncond, cond, torch.stack(norms, 1) if norms else latents.new_empty(len(latents), 0)
