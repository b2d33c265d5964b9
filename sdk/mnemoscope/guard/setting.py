"""What a guard's scores depend on: two requests that differ in it say nothing of each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import align_module_device  # type: ignore[import-untyped]
from torch import Tensor, nn

from mnemoscope_runtime.errors import CalibrationError, InputError

from ..calibration import Calibration, CalibrationFile, Setting

__all__ = [
    "GuardSetting",
    "find",
    "known",
    "model_id",
    "networks",
    "options",
    "plain",
]

DETECTOR = "guard"
# arguments of a call that change what the UNet predicts at the first step already ...
_ALWAYS = (
    "clip_skip",
    "cross_attention_kwargs",
    "original_size",
    "crops_coords_top_left",
    "target_size",
    "negative_original_size",
    "negative_crops_coords_top_left",
    "negative_target_size",
    "aesthetic_score",
    "negative_aesthetic_score",
)
# ... and those that change where the later steps go
_LATER = ("guidance_scale", "guidance_rescale", "guider", "eta")
_AGAIN = "`calibrate_guard` with the arguments of this request makes one."


@dataclass(frozen=True)
class GuardSetting:
    """A way of watching.

    Attributes:
        model: `model_id` of the pipeline.
        pipeline: Name of its class.
        scheduler: Name of its class and a digest of its configuration.
        dtype: Of the predictions.
        latents: Their (C, H, W).
        timesteps: Those looked at.
        negative: Digest of the negative prompt that magnitudes are relative to; "none" for none.
        options: Other arguments that scores depend on.
    """

    model: str
    pipeline: str
    scheduler: str
    dtype: str
    latents: tuple[int, ...]
    timesteps: tuple[float, ...]
    negative: str
    options: str

    @property
    def parts(self) -> dict[str, str]:
        """All but the model, in words."""
        return {
            "pipeline": self.pipeline,
            "scheduler": self.scheduler,
            "dtype": self.dtype,
            "latents": "x".join(map(str, self.latents)),
            "timesteps": " ".join(f"{t:g}" for t in self.timesteps),
            "negative prompt": self.negative,
            "options": self.options,
        }

    @property
    def setting(self) -> Setting:
        """The same in a calibration's terms."""
        text = json.dumps(self.parts)
        return Setting(self.model, text, DETECTOR, steps=len(self.timesteps), noises=1)


def options(told: Mapping[str, Any], steps: int, tells_scale: bool) -> str:
    """The arguments of a request that scores of the first `steps` steps depend on, as text.

    Args:
        told: Arguments of the call.
        steps: How many are looked at.
        tells_scale: Whether the UNet is told the guidance scale (LCM).
    """
    names = _ALWAYS + _LATER * (steps > 1) + ("guidance_scale", "guider") * tells_scale
    found = {name: told[name] for name in names if told.get(name) is not None}
    return ", ".join(f"{name}={value!r}" for name, value in sorted(found.items())) or "none"


def known(file: CalibrationFile, model: str, steps: int | None) -> list[Calibration]:
    """The calibrations of guards that look at as many steps of that model, or at any one number.

    Raises:
        CalibrationError: there are none.
        InputError: the number is open, and they have several.
    """
    guards = [each for each in file.calibrations if each.setting.detector == DETECTOR]
    if not guards:
        raise CalibrationError(
            "This calibration is not of a guard: a bundle's scores are of a fixed noise bank and "
            "another engine, and mean nothing here. Make one with `calibrate_guard`."
        )
    mine = [each for each in guards if each.setting.bundle == model]
    if not mine:
        raise CalibrationError(
            f"This calibration was made on weights {guards[0].setting.bundle[:12]}, the pipeline "
            f"has {model[:12]} (another model, dtype or LoRA): its thresholds mean nothing here. "
            "Calibrate this pipeline with `calibrate_guard`."
        )
    has = sorted({each.setting.steps for each in mine})
    if steps is None and len(has) > 1:
        raise InputError(
            f"This calibration is of {', '.join(map(str, has))} steps. Say at how many the guard "
            "is to look: steps=..."
        )
    found = [each for each in mine if steps is None or each.setting.steps == steps]
    if not found:
        raise CalibrationError(
            f"There is no calibration of {steps} step(s), only of {', '.join(map(str, has))}. Make "
            f"one with `calibrate_guard(..., steps={steps})`, or look at as many."
        )
    return found


def find(calibrations: list[Calibration], wanted: GuardSetting) -> Calibration:
    """The calibration of a setting.

    Raises:
        CalibrationError: there is none; the message says in what the nearest one differs.
    """
    setting = wanted.setting
    for each in calibrations:
        if each.setting == setting:
            return each
    nearest = min((_differences(each, wanted) for each in calibrations), key=len)
    raise CalibrationError(
        f"The guard is not calibrated for this request: {'; '.join(nearest)}. {_AGAIN}"
    )


def _differences(calibration: Calibration, wanted: GuardSetting) -> list[str]:
    has = json.loads(calibration.setting.backend)
    return [
        f"{name} is {value}, calibrated was {has.get(name)}"
        for name, value in wanted.parts.items()
        if has.get(name) != value
    ]


def plain(module: nn.Module) -> nn.Module:
    """The module that `torch.compile` wrapped, or itself."""
    found: nn.Module = getattr(module, "_orig_mod", module)
    return found


def model_id(pipe: Any) -> str:
    """A hash over names, types and values of what predicts noise: text encoders and UNet.

    Weights that accelerate has offloaded are read where they are.
    """
    found = hashlib.sha256()
    for part, module in networks(pipe).items():
        for name, value in _weights(module):
            found.update(f"{part}.{name} {value.dtype} {tuple(value.shape)}\n".encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            found.update(flat.view(torch.uint8).numpy().data)
    return found.hexdigest()


def networks(pipe: Any) -> dict[str, nn.Module]:
    """What predicts noise, by name; not what `torch.compile` made of it."""
    parts = ("text_encoder", "text_encoder_2", "unet")
    found = {part: getattr(pipe, part, None) for part in parts}
    return {part: plain(module) for part, module in found.items() if module is not None}


def _weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for prefix, part in module.named_modules():
        own = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
        offloaded = any(value.is_meta for _, value in own)
        with align_module_device(part, "cpu") if offloaded else nullcontext():
            for name, _ in own:
                yield f"{prefix}.{name}", getattr(part, name)
