"""One sampling, from its first step to the guard's decision."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mnemoscope_runtime.errors import InputError, NumericsError

from .baseline import Baseline, told
from .covered import Own, check_conds, check_options, one_sigma
from .identity import Identity
from .magnitude import magnitudes, prediction_type
from .setting import Request

__all__ = ["Measured", "Session"]

_SIZES = ("width", "height", "crop_w", "crop_h", "target_width", "target_height")


@dataclass(frozen=True)
class Measured:
    """What was seen.

    Attributes:
        scores: Mean magnitude of every image.
        compared: Of every image, whether its prompt is something else than the baseline.
        request: How it was drawn and watched.
    """

    scores: tuple[float, ...]
    compared: tuple[bool, ...]
    request: Request


@dataclass
class Session:
    """Reads the first steps of one sampling.

    Attributes:
        identity: The model as it is now.
        baseline: What magnitudes are relative to.
        steps: Calls of the model to look at.
        own: The guard's functions, which are no strangers in ComfyUI's options.
        about: What the request says beside its conditionings: cfg, sampler and the latent.
        decide: Told once; returns the images that are not to be drawn, and may raise.
    """

    identity: Identity
    baseline: Baseline
    steps: int
    own: Sequence[Own]
    about: str
    decide: Callable[[Measured], Sequence[int]]
    sigmas: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._magnitudes: list[Tensor] = []
        self._hidden: list[int] = []

    def see(self, args: Mapping[str, Any]) -> Any:
        """Be shown a step.

        Args:
            args: What ComfyUI tells functions that come before guidance: `conds`, `conds_out`,
                `sigma`, `model` and `model_options`.

        Returns:
            `conds_out`, in which images that are not to be drawn have the prediction without the
            prompt on either side.

        Raises:
            InputError: a guard cannot tell what this step predicts.
            NumericsError: a magnitude is NaN or infinite.
        """
        found = args["conds_out"]
        if len(self.sigmas) < self.steps:
            self._measure(args)
        if not self._hidden:
            return found
        cond = found[0].clone()
        cond[self._hidden] = found[1][self._hidden]
        return [cond, *found[1:]]

    def _measure(self, args: Mapping[str, Any]) -> None:
        check_options(args["model_options"], self.own, self.steps)
        found = args["conds_out"]
        cond, uncond = check_conds(args["conds"], found)
        if not all(self.baseline.is_told(uncond, len(found[1]))):
            raise InputError(
                "The negative prompt of this request is not the guard's, so that predictions are "
                "relative to something else and no threshold applies. Give the guard the same "
                "text, and make the negative conditioning of it by CLIP Text Encode with the same "
                "CLIP."
            )
        sampling = args["model"].model_sampling
        sigma = one_sigma(args["sigma"])
        norms = magnitudes(found[0], found[1], prediction_type(sampling), sigma)
        self._magnitudes.append(norms)
        self.sigmas.append(sigma)
        if len(self.sigmas) == self.steps:
            sizes = _sizes(cond, "") + _sizes(uncond, "negative ")
            self._hidden = sorted(self.decide(self._measured(args["model"], cond, found[0], sizes)))

    def _measured(
        self, model: Any, cond: Any, prediction: Tensor, sizes: Sequence[str]
    ) -> Measured:
        scores = tuple(torch.stack(self._magnitudes).double().mean(0).tolist())
        for image, score in enumerate(scores):
            if not math.isfinite(score):
                raise NumericsError(
                    f"The magnitude of image {image} is NaN or infinite, which is no verdict. "
                    "Start ComfyUI with --force-fp32, or use another model file."
                )
        same = self.baseline.is_told(cond, len(prediction))
        request = self._request(model, cond, prediction, sizes)
        return Measured(scores, tuple(not each for each in same), request)

    def _request(self, model: Any, cond: Any, prediction: Tensor, sizes: Sequence[str]) -> Request:
        sampling = model.model_sampling
        levels = f"sigma {float(sampling.sigma_min):.4g} to {float(sampling.sigma_max):.4g}"
        dtype = model.manual_cast_dtype or model.get_dtype()
        return Request(
            model=self.identity.model,
            state=self.identity.state,
            family=type(model).__name__,
            sampling=f"{prediction_type(sampling)}, {levels}",
            dtype=str(dtype).removeprefix("torch."),
            latents=tuple(prediction.shape[1:]),
            sigmas=tuple(self.sigmas),
            tokens=told(cond)[0].shape[1],
            negative=self.baseline.name,
            options=", ".join([self.about, *sizes]),
        )


def _sizes(cond: Any, side: str) -> list[str]:
    """What XL is told of a picture's size, in words."""
    return [f"{side}{name}={cond[name]}" for name in _SIZES if cond.get(name) is not None]
