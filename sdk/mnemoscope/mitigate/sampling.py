"""Drawing with a family's sampler and guidance, and with whatever a strategy changes on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor

from mnemoscope_export import (
    Embeds,
    LoadOptions,
    Model,
    load_model,
    load_vae,
    magnitude,
    magnitude_of,
    unconditional,
)
from mnemoscope_runtime import Manifest
from mnemoscope_runtime.errors import InputError, NumericsError
from mnemoscope_runtime.families import family_named

from ..drawing.latents import decoded, encoded, pixels_per_position, vae_pixels
from ..shipped import model_at

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "Drawn",
    "Limit",
    "Painter",
    "Plan",
    "Sampling",
    "Schedule",
    "Steer",
    "Steered",
    "Task",
    "Watch",
    "draw_benign",
    "first_magnitudes",
    "sample",
]

Schedule = Callable[[float, Tensor], Tensor]  # timestep, magnitudes so far [step, B] -> scales [B]
Limit = Callable[[int, Tensor], Tensor]  # step, update of x [B, C, H, W] -> update
Watch = Callable[[int, int], None]  # steps that are done, of how many; what it raises ends drawing

_BATCH = 20


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn.

    Attributes:
        steps: Steps of the sampler: DDIM, or Euler's of a flow.
        guidance: Scale of classifier-free guidance; of FLUX.1 dev what the transformer is told, and
            None of schnell, which takes none.
    """

    steps: int = 50
    guidance: float | None = 7.5

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 999:
            raise InputError(f"A picture takes 1 to 999 steps, not {self.steps}.")

    @classmethod
    def of(cls, manifest: Manifest) -> Sampling:
        """As a bundle's model was sampled when it was exported."""
        model = manifest.model
        distilled = family_named(model.family).distilled
        guidance = model.told_guidance if distilled else manifest.guidance
        return cls(manifest.scheduler.inference_steps, guidance)

    def but(self, steps: int | None, guidance: float | None) -> Sampling:
        """With other steps or another guidance, where one is asked for."""
        return Sampling(
            self.steps if steps is None else steps, self.guidance if guidance is None else guidance
        )


@dataclass(frozen=True)
class Task:
    """What is to be drawn: one sample for each prompt and noise.

    Attributes:
        model: What draws.
        prompts: One for each sample. # [B]
        seeds: Likewise, for strategies that draw lots. # [B]
        noises: x_T. # [B, C, H, W]
        sampling: How.
    """

    model: Model
    prompts: Sequence[str]
    seeds: Sequence[int]
    noises: Tensor
    sampling: Sampling

    @property
    def scale(self) -> float:
        """Of the guidance between the two predictions of a step: 1 takes that with the prompt."""
        return self.model.guided(self.sampling.guidance)[1]

    def timesteps(self) -> Tensor:
        """The timesteps of the sampler, descending. # [steps]"""
        found: Tensor = self.model.started(self.sampling.steps).timesteps
        return found

    def plan(self) -> Plan:
        """What draws it as it is."""
        return Plan(self.model, self.model.embed(self.prompts), self.noises)


@dataclass(frozen=True)
class Steered:
    """What the conditional branch is told from a step on.

    Attributes:
        embeds: # [B, ...] each
        passes: Network passes per sample that finding it took, counted as in `Plan`.
    """

    embeds: Embeds
    passes: float


# step, x [B, C, H, W], embeds, unconditional eps [B, C, H, W], magnitudes [B] -> None for no change
Steer = Callable[[int, Tensor, Embeds, Tensor, Tensor], Steered | None]


@dataclass(frozen=True)
class Plan:
    """What a strategy wants sampled.

    Attributes:
        model: The model, or one with other attention, whose last B of 2 B rows are conditional.
        embeds: What the conditional branch is told. # [B, ...] each
        latents: x_T. # [B, C, H, W]
        schedule: Guidance at every step; None for the same at all.
        limit: What becomes of every update of x; None for nothing.
        steer: Other embeddings on the way; None for the same at every step.
        passes: Network passes per sample that planning took beyond drawing's; a backward pass,
            about twice as long, counts as two.
        prompts: What is drawn in place of the prompts, where that is text. # [B]
    """

    model: Model
    embeds: Embeds
    latents: Tensor
    schedule: Schedule | None = None
    limit: Limit | None = None
    steer: Steer | None = None
    passes: float = 0
    prompts: Sequence[str] | None = None


@dataclass(frozen=True)
class Drawn:
    """What came of sampling.

    Attributes:
        latents: x_0. # [B, C, H, W]
        magnitudes: || eps(x_t, t, e) - eps(x_t, t, e_empty) ||_2 on the way, of flows of the
            predicted pictures. # [B, steps]
        updates: || x_{t-1} - x_t ||_2 before any limit. # [B, steps]
        passes: Network passes per sample beyond drawing's, of planning and of steering.
        maps: (eps(x_t, t, e) - eps(x_t, t, e_empty))^2 at the last step, mean over channels: large
            where the prompt decides the pixels (`score_difference_maps`). # [B, H, W]
    """

    latents: Tensor
    magnitudes: Tensor
    updates: Tensor
    passes: float
    maps: Tensor


def _unwatched(_done: int, _steps: int) -> None:
    """Nobody looks on."""


@torch.no_grad()
def sample(plan: Plan, sampling: Sampling, watch: Watch = _unwatched) -> Drawn:
    """Draw.

    Args:
        plan: What.
        sampling: How.
        watch: Told after every step; what it raises ends drawing.

    Raises:
        NumericsError: something became NaN or infinite.
    """
    model, embeds, passes = plan.model, plan.embeds, plan.passes
    _, usual = model.guided(sampling.guidance)
    both = _with_empty(model, embeds)
    sampler = model.started(sampling.steps)
    x = plan.latents.to(model.network.device, model.network.dtype)
    magnitudes, updates = [], []
    for step, t in enumerate(sampler.timesteps):
        uncond, cond = model.predict(torch.cat([x, x]), t, both).chunk(2)
        eps, eps_uncond = model.in_unit(cond, x, t), model.in_unit(uncond, x, t)
        found = magnitude(eps, eps_uncond)
        steered = None if plan.steer is None else plan.steer(step, x, embeds, eps_uncond, found)
        if steered is not None:
            embeds, passes = steered.embeds, passes + steered.passes + 1
            both = _with_empty(model, embeds)
            cond = model.predict(x, t, embeds)
            eps = model.in_unit(cond, x, t)
            found = magnitude(eps, eps_uncond)
        magnitudes.append(found)
        scale: float | Tensor = usual
        if plan.schedule is not None:
            scale = plan.schedule(t.item(), torch.stack(magnitudes)).to(x)[:, None, None, None]
        following = sampler.step(model.guide(uncond, cond, scale), t, x).prev_sample
        update = following - x
        updates.append(update.float().flatten(1).norm(dim=1))
        x = following if plan.limit is None else x + plan.limit(step, update)
        watch(step + 1, sampling.steps)
    maps = (eps - eps_uncond).float().square().mean(1)
    drawn = Drawn(x, torch.stack(magnitudes, 1), torch.stack(updates, 1), passes, maps)
    if not (drawn.latents.isfinite().all() and drawn.magnitudes.isfinite().all()):
        raise NumericsError(
            f"Drawing became NaN or infinite in {model.network.dtype}. Use float32, or a weaker "
            "setting of the strategy."
        )
    return drawn


def _with_empty(model: Model, embeds: Embeds) -> Embeds:
    """The empty prompt's before these. # [B, ...] -> [2 B, ...] each"""
    return tuple(
        torch.cat([empty.expand_as(each), each])
        for empty, each in zip(model.embed_empty(), embeds, strict=True)
    )


@dataclass(frozen=True)
class Painter:
    """A model and what makes pictures of its latents.

    Attributes:
        model: The model.
        vae: What makes pictures.
        watch: Told after every step of whatever it draws, to learn what is usual or for a result;
            what it raises ends drawing.
    """

    model: Model
    vae: Any
    watch: Watch = _unwatched

    @classmethod
    def load(
        cls, name: str | None = None, *, device: str = "cpu", options: LoadOptions | None = None
    ) -> Painter:
        """Load both in float32.

        Args:
            name: Directory in diffusers' layout, single-file checkpoint, or hub id; the embedded
                model by default.
            device: What PyTorch runs on.
            options: How the model is loaded.

        Raises:
            ExportError: there is no such model, or a part of it is missing.
        """
        name = model_at(name)
        model = load_model(name, device=device, options=options)
        return cls(model, load_vae(name, options).to(device))

    @property
    def side(self) -> int:
        """How many pixels wide and high its pictures are."""
        return self.model.latent_shape[-1] * pixels_per_position(self.vae)

    def sampling(self, steps: int | None = None, guidance: float | None = None) -> Sampling:
        """Drawing as is asked for, and else as diffusers' pipeline of the family does."""
        return Sampling(self.model.usual_steps, self.model.usual_guidance).but(steps, guidance)

    def task(
        self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling | None = None
    ) -> Task:
        """What diffusers' pipeline draws of these prompts with generators of these seeds.

        Args:
            prompts: # [B]
            seeds: # [B]
            sampling: How; None as `sampling()` has it.

        Raises:
            InputError: prompts or seeds cannot be used, or the model is told no guidance.
        """
        if not prompts or len(prompts) != len(seeds):
            raise InputError("Give one seed for each prompt, and at least one prompt.")
        if min(seeds) < 0 or max(seeds) >= 2**64:
            raise InputError("A seed lies between 0 and 2**64 - 1. Choose a smaller one.")
        shape = self.model.latent_shape
        noises = torch.stack(
            [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        )
        sampling = sampling or self.sampling()
        model, _ = self.model.guided(sampling.guidance)
        return Task(model, tuple(prompts), tuple(seeds), noises, sampling)

    @torch.no_grad()
    def pictures(self, latents: Tensor) -> list[Image]:
        """What latents show. # [B, C, H, W]"""
        pixels = decoded(self.vae, latents)
        found: list[Image] = VaeImageProcessor().postprocess(pixels, output_type="pil")
        return found

    @torch.no_grad()
    def rendered(self, images: Sequence[Image]) -> list[Image]:
        """Pictures as this model would show them if it knew each pixel: through its VAE and back.

        A small VAE blurs so much that SSCD takes a perfect reproduction for another picture.
        """
        found: list[Image] = []
        for i in range(0, len(images), _BATCH):
            pixels = vae_pixels(images[i : i + _BATCH], self.side)
            found += self.pictures(encoded(self.vae, pixels))
        return found


def draw_benign(
    painter: Painter, prompts: Sequence[str], sampling: Sampling | None = None
) -> Drawn:
    """Draw prompts that are not memorised, each from a noise of its own, to see what is usual.

    Raises:
        InputError: fewer than two prompts.
    """
    if len(prompts) < 2:
        raise InputError(
            "What is usual on the way of benign prompts takes two of them or more to tell; 50 are "
            "better."
        )
    parts = []
    for i in range(0, len(prompts), _BATCH):
        batch = prompts[i : i + _BATCH]
        task = painter.task(batch, range(i, i + len(batch)), sampling)
        parts.append(sample(task.plan(), task.sampling, painter.watch))
    return Drawn(
        torch.cat([each.latents for each in parts]),
        torch.cat([each.magnitudes for each in parts]),
        torch.cat([each.updates for each in parts]),
        0,
        torch.cat([each.maps for each in parts]),
    )


@torch.no_grad()
def first_magnitudes(
    painter: Painter, prompts: Sequence[str], sampling: Sampling | None = None
) -> list[float]:
    """The magnitude of each prompt at the first step, on a noise of its own."""
    found: list[float] = []
    for i in range(0, len(prompts), _BATCH):
        batch = prompts[i : i + _BATCH]
        task = painter.task(batch, range(i, i + len(batch)), sampling)
        t = task.timesteps()[0].item()
        x = task.noises.to(task.model.network.device)
        uncond = unconditional(task.model, x, t)
        found += magnitude_of(task.model, task.plan().embeds, x, t, uncond).tolist()
    return found
