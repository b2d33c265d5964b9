"""Reading the predictions that guidance computes anyway."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnemoscope_export import magnitude
from mnemoscope_runtime.errors import CalibrationError, InputError, NumericsError

from .setting import plain
from .units import eps_scale

__all__ = ["Baseline", "Measured", "Watch", "embed_negative"]

Told = dict[str, Any]  # arguments of the UNet, by name
_EMBEDS = "encoder_hidden_states"


@dataclass(frozen=True)
class Baseline:
    """What magnitudes are relative to: what the UNet is told without a prompt.

    Attributes:
        embeds: # [1, L, D]
        pooled: Stable Diffusion XL's. # [1, P]
    """

    embeds: Tensor
    pooled: Tensor | None

    def is_told(self, told: Told, rows: slice) -> bool:
        """Whether these rows of a call are told just that, but for rounding."""
        found = _near(told[_EMBEDS][rows], self.embeds)
        if self.pooled is not None:
            found &= _near(told["added_cond_kwargs"]["text_embeds"][rows], self.pooled)
        return found

    def instead(self, told: Told) -> Told:
        """The same call, told that."""
        embeds = self.embeds.to(told[_EMBEDS]).expand_as(told[_EMBEDS])
        told = told | {_EMBEDS: embeds}
        if self.pooled is not None:
            added = told["added_cond_kwargs"]
            pooled = self.pooled.to(added["text_embeds"]).expand_as(added["text_embeds"])
            told["added_cond_kwargs"] = {**added, "text_embeds": pooled}
        return told


@dataclass(frozen=True)
class Measured:
    """What was seen of a request until it is decided.

    Attributes:
        scores: Mean magnitude of every image, in eps units, fp64. # [B]
        timesteps: Those looked at.
        dtype: Of the predictions.
        latents: Their (C, H, W).
        extra_pass: Whether the empty prompt took a pass of its own.
        seconds: What this took on the host.
        embeds: What the UNet was told of the prompts. # [B, L, D]
        magnitude: Rows and other embeddings [b, L, D] to magnitudes [b] at the first step, with
            their graph.
    """

    scores: NDArray[np.float64]
    timesteps: tuple[float, ...]
    dtype: str
    latents: tuple[int, ...]
    extra_pass: bool
    seconds: float
    embeds: Tensor
    magnitude: Callable[[list[int], Tensor], Tensor]


@dataclass
class Watch:
    """Looks at the first calls of a UNet, and can change what it is told and what it answers.

    Attributes:
        pipe: The pipeline.
        baseline: What magnitudes are relative to.
        steps: UNet calls to look at.
        extra_pass: Whether it may run the UNet where guidance does not compute the baseline.
        decide: Told of the measurement once; may raise, or fill `silenced`.
        embeds: Embeddings of images, instead of what the pipeline made of their prompts.
        silenced: Images that are drawn without their prompts from here on.
    """

    pipe: Any
    baseline: Baseline
    steps: int
    extra_pass: bool
    decide: Callable[[Measured], None]
    embeds: Mapping[int, Tensor] = field(default_factory=dict)  # index: [L, D]
    silenced: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._norms: list[Tensor] = []
        self._timesteps: list[float] = []
        self._ran_extra = False
        self._seconds = 0.0
        self._first: tuple[Told, Tensor, float] | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hook the UNet; everything is as before when this ends, however it ends.

        Raises:
            CalibrationError: the pipeline ended before it could be decided.
        """
        unet = self.pipe.unet
        compiled = getattr(unet, "_compiled_call_impl", None)
        if compiled is not None:  # by `unet.compile()`: hooks would be traced, or not be seen

            def call(*args: Any, **kwargs: Any) -> Any:
                args, kwargs = self._before(unet, args, kwargs) or (args, kwargs)
                output = compiled(*args, **kwargs)
                return self._after(unet, args, kwargs, output) or output

            unet._compiled_call_impl = call
            try:
                yield
            finally:
                unet._compiled_call_impl = compiled
        else:
            before = unet.register_forward_pre_hook(self._before, with_kwargs=True)
            after = unet.register_forward_hook(self._after, with_kwargs=True)
            try:
                yield
            finally:
                before.remove()
                after.remove()
        if len(self._norms) < self.steps:
            raise CalibrationError(
                f"The pipeline called its UNet {len(self._norms)} time(s), and the guard looks at "
                f"{self.steps}: nothing was decided. Draw with more steps, or calibrate a guard "
                "that looks at fewer."
            )

    def _before(self, _: nn.Module, args: tuple[Any, ...], kwargs: Told) -> Any:
        if not self.embeds:
            return None
        told = _told(args, kwargs)
        embeds = told[_EMBEDS].clone()
        first = len(embeds) // 2 if self._guided else 0
        for index, found in self.embeds.items():
            embeds[first + index] = found.to(embeds)
        return args[:2], {**kwargs, _EMBEDS: embeds}

    def _after(self, _: nn.Module, args: tuple[Any, ...], kwargs: Told, output: Any) -> Any:
        if len(self._norms) < self.steps:
            start = time.perf_counter()
            self._measure(_told(args, kwargs), output[0])
            self._seconds += time.perf_counter() - start
            if len(self._norms) == self.steps:
                self.decide(self._measured(output[0]))
        if not self.silenced:
            return None
        return (self._silence(output[0]), *output[1:])

    @property
    def _guided(self) -> bool:
        return bool(self.pipe.do_classifier_free_guidance)

    def _measure(self, told: Told, prediction: Tensor) -> None:
        if self._guided:
            uncond, cond = prediction.chunk(2)
            count = len(cond)
            mine = _rows(told, slice(count, None))
            if not self.baseline.is_told(told, slice(count)):
                uncond = self._extra(mine, _NEGATIVE)
        else:
            cond, mine = prediction, told
            uncond = self._extra(told, _UNGUIDED)
        timestep = float(told["timestep"])
        scale = eps_scale(self.pipe.scheduler, timestep)
        if self._first is None:
            self._first = mine, uncond, scale
        self._norms.append(scale * magnitude(cond, uncond))
        self._timesteps.append(timestep)

    def _extra(self, told: Told, why: str) -> Tensor:
        if not self.extra_pass:
            raise InputError(why)
        if self.steps > 1 and self._guided:
            raise CalibrationError(
                "Past the first step a negative prompt changes what the guard looks at, and this "
                "one is not what it was calibrated with. Look at one step, or calibrate with "
                "`calibrate_guard(..., negative_prompt=...)`."
            )
        self._ran_extra = True
        return self._predict(self.baseline.instead(told))

    def _predict(self, told: Told) -> Tensor:
        """The UNet itself: no hooks of this guard, nothing compiled."""
        output: Tensor = plain(self.pipe.unet).forward(**told)[0]
        return output

    def _measured(self, prediction: Tensor) -> Measured:
        assert self._first is not None
        start = time.perf_counter()
        scores = torch.stack(self._norms).double().mean(0).cpu().numpy()
        if not np.isfinite(scores).all():
            raise NumericsError(
                f"The magnitude of image {int(np.argmin(np.isfinite(scores)))} is NaN or infinite "
                f"in {prediction.dtype}: that is no verdict, and nothing was drawn. Use float32 or "
                "bfloat16."
            )
        return Measured(
            scores=scores,
            timesteps=tuple(self._timesteps),
            dtype=str(prediction.dtype).removeprefix("torch."),
            latents=tuple(prediction.shape[1:]),
            extra_pass=self._ran_extra,
            seconds=self._seconds + time.perf_counter() - start,
            embeds=self._first[0][_EMBEDS],
            magnitude=self._magnitude,
        )

    def _magnitude(self, rows: list[int], embeds: Tensor) -> Tensor:
        assert self._first is not None
        told, uncond, scale = self._first
        mine = _rows(told, rows)
        mine = _cloned(mine) | {_EMBEDS: embeds.to(mine[_EMBEDS])}
        return scale * magnitude(self._predict(mine), uncond[rows].clone())

    def _silence(self, prediction: Tensor) -> Tensor:
        """Predictions that know nothing of the prompts of silenced images."""
        rows = sorted(self.silenced)
        parts = list(prediction.chunk(2) if self._guided else (prediction,))
        cond = parts[-1].clone()
        cond[rows] = parts[0][rows] if self._guided else torch.zeros_like(cond[rows])
        return torch.cat([*parts[:-1], cond])


def embed_negative(pipe: Any, negative: str | None) -> Baseline:
    """What the pipeline tells its UNet for a negative prompt, or for none."""
    with torch.no_grad():
        found = pipe.encode_prompt(
            prompt="",
            device=pipe._execution_device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=True,
            negative_prompt=negative,
        )
    return Baseline(found[1], found[3] if len(found) > 2 else None)


def _told(args: tuple[Any, ...], kwargs: Told) -> Told:
    """Arguments of a UNet by name."""
    names = ("sample", "timestep", _EMBEDS)
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _rows(told: Told, rows: slice | list[int]) -> Told:
    """The same call for some of its samples."""
    count = len(told["sample"])

    def take(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: take(each) for name, each in value.items()}
        batched = isinstance(value, Tensor) and value.ndim > 0 and len(value) == count
        return value[rows] if batched else value

    return {name: take(value) for name, value in told.items()}


def _cloned(told: Told) -> Told:
    """Tensors that autograd may keep, also those made under `torch.inference_mode`."""

    def clone(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: clone(each) for name, each in value.items()}
        return value.clone() if isinstance(value, Tensor) else value

    return {name: clone(value) for name, value in told.items()}


def _near(found: Tensor, expected: Tensor) -> bool:
    """Equal but for rounding, token by token."""
    if found.shape[1:] != expected.shape[1:]:
        return False
    tolerance = 1e-4 if found.dtype == torch.float32 else 1e-2
    expected = expected.to(found.device).float()
    away = (found.float() - expected).abs().amax(-1)
    return bool((away <= tolerance * expected.abs().amax(-1)).all())


_ALTERNATIVE = (
    "Give `Guard(..., extra_pass=True)`, which runs the UNet once more on the empty prompt at "
    "every step it looks at"
)
_NEGATIVE = (
    "The negative prompt of this request is not the one that the guard is calibrated for, so that "
    "its predictions are relative to something else and no threshold applies. "
    f"{_ALTERNATIVE}; or calibrate with it: `calibrate_guard(..., negative_prompt=...)`."
)
_UNGUIDED = (
    "This request has no unconditional branch (guidance_scale <= 1, or a guidance-distilled model "
    f"such as LCM or Turbo), so that there is nothing to compare the prompt with. {_ALTERNATIVE}; "
    "or draw with guidance."
)
