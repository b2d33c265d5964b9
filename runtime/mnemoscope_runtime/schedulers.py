"""Samplers in numpy: DDIM (Song et al. 2021), of the paper's protocol, and two for flows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .units import Level, Unit

__all__ = [
    "Ddim",
    "FlowDpm",
    "FlowEuler",
    "Scheduler",
    "advance",
    "alphas_cumprod",
    "as_input",
    "ddim_step",
    "decoded",
    "guide",
    "is_trained",
    "kept_length",
    "level",
    "sigmas",
    "timesteps",
]

Array = NDArray[np.float32]
_Count = Annotated[int, msgspec.Meta(ge=1, le=2**16)]
_Beta = Annotated[float, msgspec.Meta(gt=0, lt=1)]


class Scheduler:
    """How a whole image is sampled: one of the classes below, told apart by `kind`.

    Attributes:
        kind: Which.
        num_train_timesteps: How many there are.
        inference_steps: Steps of a whole image.
        unit: What magnitudes of its models are measured in.
    """

    kind: str
    num_train_timesteps: int
    inference_steps: int
    unit: ClassVar[Unit]


@dataclass(frozen=True)
class Ddim(Scheduler):
    """A noise schedule in diffusers' terms, and the number of DDIM steps of a whole image."""

    unit = "eps"

    beta_schedule: Literal["linear", "scaled_linear"]
    beta_start: _Beta
    beta_end: _Beta
    num_train_timesteps: _Count
    steps_offset: Annotated[int, msgspec.Meta(ge=-(2**16), le=2**16)]
    set_alpha_to_one: bool
    timestep_spacing: Literal["leading", "trailing", "linspace"]
    inference_steps: _Count
    kind: Literal["ddim"] = "ddim"


class Flow(Scheduler):
    """A sampler along a rectified flow, from noise (s = 1) to a picture (s = 0)."""

    unit = "x0"


@dataclass(frozen=True)
class FlowEuler(Flow):
    """Euler's steps along a rectified flow.

    Timesteps are s times `num_train_timesteps`. A shift that depends on the size of the latents is
    worked out at export, for the bundle's.

    Attributes:
        shift: s becomes shift s / (1 + (shift - 1) s).
        last: s of the last step before that. The first is 1, and between them steps are even.
        terminal: s of the last step after that, to which all are stretched; None leaves them.
    """

    num_train_timesteps: _Count
    shift: Annotated[float, msgspec.Meta(gt=0, le=2**16)]
    last: Annotated[float, msgspec.Meta(gt=0, le=1)]
    inference_steps: _Count
    terminal: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None
    kind: Literal["flow-euler"] = "flow-euler"


@dataclass(frozen=True)
class FlowDpm(Flow):
    """DPM-Solver++ of first order (Lu et al. 2022) along a rectified flow: steps are Euler's.

    The first level is that of the last training timestep, and timesteps are whole numbers: s times
    `num_train_timesteps`, rounded down.

    Attributes:
        shift: s becomes shift s / (1 + (shift - 1) s).
    """

    num_train_timesteps: _Count
    shift: Annotated[float, msgspec.Meta(gt=0, le=2**16)]
    inference_steps: _Count
    kind: Literal["flow-dpm"] = "flow-dpm"


_KINDS: Mapping[str, type[Scheduler]] = {
    "ddim": Ddim,
    "flow-euler": FlowEuler,
    "flow-dpm": FlowDpm,
}


def decoded(wanted: type, value: Any) -> Any:
    """msgspec's hook for `Scheduler`, in builtins, since it takes dataclasses one by one.

    Raises:
        ValueError: it is none.
    """
    assert wanted is Scheduler
    if not isinstance(value, dict):
        raise ValueError(f"Expected `object`, got `{type(value).__name__}`")
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"Invalid kind {kind!r:.80}")
    try:
        return msgspec.convert(value, _KINDS[kind])
    except msgspec.ValidationError as error:  # who called adds where
        raise ValueError(f"{error}") from None


def alphas_cumprod(scheduler: Ddim) -> NDArray[np.float64]:
    """Signal kept at each training timestep, alpha-bar in the paper.

    Returns:
        # [num_train_timesteps], falling from nearly 1 to nearly 0
    """
    count, start, end = scheduler.num_train_timesteps, scheduler.beta_start, scheduler.beta_end
    if scheduler.beta_schedule == "scaled_linear":
        betas = np.linspace(start**0.5, end**0.5, count) ** 2
    else:
        betas = np.linspace(start, end, count)
    return np.cumprod(1 - betas)


def sigmas(scheduler: FlowEuler | FlowDpm) -> Array:
    """The noise levels s of a whole image, as diffusers' scheduler of that name has them.

    Returns:
        # [inference_steps + 1], falling from 1, or nearly 1, to 0
    """
    return np.append(_levels(scheduler), 0).astype(np.float32)


def _levels(scheduler: FlowEuler | FlowDpm) -> NDArray[np.float64]:
    """Those that a step begins at. # [inference_steps]"""
    count = scheduler.inference_steps
    if isinstance(scheduler, FlowDpm):  # 1 - alpha, and in that order: timesteps are rounded down
        even = 1 - np.linspace(1, 1 / scheduler.num_train_timesteps, count + 1)[:0:-1]
        return _shifted(even, scheduler.shift)
    levels = _shifted(np.linspace(1, scheduler.last, count), scheduler.shift)
    if scheduler.terminal is not None and levels[-1] < 1:
        levels = 1 - (1 - levels) * (1 - scheduler.terminal) / (1 - levels[-1])
    return levels


def _shifted(even: NDArray[np.float64], shift: float) -> NDArray[np.float64]:
    """Esser et al. 2024, equation 23."""
    return shift * even / (1 + (shift - 1) * even)


def timesteps(scheduler: Scheduler) -> NDArray[np.int64] | Array:
    """The timesteps of a whole image, from the noisiest down.

    Returns:
        # [inference_steps], whole numbers, but of `FlowEuler` float32
    """
    total, count = scheduler.num_train_timesteps, scheduler.inference_steps
    if isinstance(scheduler, FlowDpm):
        return (_levels(scheduler) * total).astype(np.int64)
    if isinstance(scheduler, FlowEuler):
        return sigmas(scheduler)[:-1] * np.float32(total)
    assert isinstance(scheduler, Ddim)
    if scheduler.timestep_spacing == "trailing":
        trailing = np.round(np.arange(total, 0, -total / count)).astype(np.int64) - 1
        return trailing[:count]  # for some counts arange rounds to one more
    if scheduler.timestep_spacing == "linspace":
        return np.linspace(0, total - 1, count).round()[::-1].astype(np.int64)
    leading = np.arange(count)[::-1] * (total // count) + scheduler.steps_offset
    return np.asarray(leading, np.int64)


def as_input(scheduler: Scheduler, timestep: float) -> NDArray[np.generic]:
    """A timestep as the graph `step` takes it. # []"""
    return np.asarray(timestep, np.float32 if isinstance(scheduler, FlowEuler) else np.int64)


def is_trained(scheduler: Scheduler, timestep: float) -> bool:
    """Whether a model was trained on a timestep: DDIM's begin at 0, and those of flows above it."""
    if isinstance(scheduler, Flow):
        return 0 < timestep <= scheduler.num_train_timesteps
    return 0 <= timestep < scheduler.num_train_timesteps


def level(scheduler: Scheduler, timestep: float) -> Level:
    """How much signal and noise there is in x_t.

    Args:
        scheduler: The sampler.
        timestep: t, one that `is_trained`.
    """
    if isinstance(scheduler, Flow):
        noise = timestep / scheduler.num_train_timesteps
        return Level(1 - noise, noise)
    assert isinstance(scheduler, Ddim)
    abar = float(alphas_cumprod(scheduler)[int(timestep)])
    return Level(abar**0.5, (1 - abar) ** 0.5)


def guide(uncond: Array, cond: Array, guidance: float) -> Array:
    """Classifier-free guidance (Ho & Salimans 2022), u + g (c - u), in any unit."""
    return np.asarray(uncond + np.float32(guidance) * (cond - uncond), np.float32)


def kept_length(guided: Array, cond: Array, latents: Array, side: int) -> Array:
    """Guidance that leaves the velocity of each patch as long as it is for the prompt alone.

    Args:
        guided: The predicted picture x - s v, guided. # [..., C, H, W]
        cond: That for the prompt. # [..., C, H, W]
        latents: x. # [..., C, H, W]
        side: Positions of a patch.

    Returns:
        # [..., C, H, W]
    """
    *_, height, width = latents.shape

    def length(picture: Array) -> Array:  # of each patch's velocity # [..., 1, H, W]
        squares = np.square(latents - picture).sum(-3, keepdims=True)
        cut = squares.reshape(*squares.shape[:-2], height // side, side, width // side, side)
        lengths = np.sqrt(cut.sum((-3, -1)))
        return np.asarray(lengths.repeat(side, -2).repeat(side, -1))

    own = length(guided)
    share = np.divide(length(cond), own, out=np.ones_like(own), where=own != 0)
    return np.asarray(latents - share * (latents - guided), np.float32)


def advance(latents: Array, prediction: Array, timestep: float, scheduler: Scheduler) -> Array:
    """One step of sampling.

    Args:
        latents: x_t. # [B, C, H, W]
        prediction: In the sampler's `unit`. # [B, C, H, W]
        timestep: t, one of `timesteps`.
        scheduler: The sampler.

    Returns:
        x at the next timestep. # [B, C, H, W]

    Raises:
        InputError: it is none of them.
    """
    if isinstance(scheduler, FlowEuler | FlowDpm):
        return _flow_step(latents, prediction, timestep, scheduler)
    assert isinstance(scheduler, Ddim)
    return ddim_step(latents, prediction, int(timestep), scheduler)


def ddim_step(latents: Array, eps: Array, timestep: int, scheduler: Ddim) -> Array:
    """One deterministic step (eta = 0), equation 12 of the DDIM paper.

    Args:
        latents: x_t. # [B, C, H, W]
        eps: The predicted noise, also for v-prediction models. # [B, C, H, W]
        timestep: t, one of `timesteps`.
        scheduler: The noise schedule.

    Returns:
        x at the next timestep. # [B, C, H, W]
    """
    abar = alphas_cumprod(scheduler)
    before = timestep - scheduler.num_train_timesteps // scheduler.inference_steps
    final = 1.0 if scheduler.set_alpha_to_one else abar[0]
    abar_t, abar_next = abar[timestep], abar[before] if before >= 0 else final
    x0 = (latents - (1 - abar_t) ** 0.5 * eps) / abar_t**0.5
    return np.asarray(abar_next**0.5 * x0 + (1 - abar_next) ** 0.5 * eps, np.float32)


def _flow_step(latents: Array, x0: Array, timestep: float, scheduler: FlowEuler | FlowDpm) -> Array:
    """x + (s' - s) v, of an x0 that is x - t v for the level t that the network was told."""
    schedule, levels = timesteps(scheduler), sigmas(scheduler)
    places = np.flatnonzero(schedule == np.float32(timestep))
    if not len(places):
        raise InputError(
            f"Sampling has no timestep {timestep}, so that there is none after it. Give one of "
            "`screener.timesteps`."
        )
    here, after = levels[places[0]], levels[places[0] + 1]
    if isinstance(scheduler, FlowEuler):  # t is s
        return np.asarray(x0 + after / here * (latents - x0), np.float32)
    told = np.float32(timestep / scheduler.num_train_timesteps)
    return np.asarray(latents + (after - here) / told * (latents - x0), np.float32)
