"""What a guard's scores depend on in ComfyUI: two requests that differ in it are not comparable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mnemoscope.calibration import AGAIN, Calibration, CalibrationFile, Setting
from mnemoscope_runtime.errors import CalibrationError

__all__ = ["Request", "find", "read"]

_DETECTOR = "guard"
_FRONTEND = "ComfyUI"
_MAKES = "The node Calibrate Memorization Guard makes one."


@dataclass(frozen=True)
class Request:
    """A way of drawing and watching.

    Attributes:
        model: `Identity.model`.
        state: `Identity.state`.
        family: Class of the model.
        sampling: What it predicts, and a hash of its noise levels.
        dtype: Of the computation.
        latents: Their (C, H, W).
        sigmas: Noise levels looked at.
        tokens: How many embeddings the model was told of the prompt.
        negative: Digest of the negative prompt that magnitudes are relative to.
        options: Other things that scores depend on, in words.
    """

    model: str
    state: str
    family: str
    sampling: str
    dtype: str
    latents: tuple[int, ...]
    sigmas: tuple[float, ...]
    tokens: int
    negative: str
    options: str

    @property
    def parts(self) -> dict[str, str]:
        """All but the model, in words."""
        return {
            "state": self.state,
            "pipeline": f"{_FRONTEND} {self.family}",
            "sampling": self.sampling,
            "dtype": self.dtype,
            "latents": "x".join(map(str, self.latents)),
            "sigmas": " ".join(f"{sigma:.4g}" for sigma in self.sigmas),
            "tokens": str(self.tokens),
            "negative prompt": self.negative,
            "options": self.options,
        }

    @property
    def setting(self) -> Setting:
        """The same in a calibration's terms."""
        return Setting(
            self.model, json.dumps(self.parts), _DETECTOR, steps=len(self.sigmas), noises=1
        )


def read(path: Path, steps: int) -> tuple[Calibration, ...]:
    """A file's calibrations of ComfyUI, of guards that look at so many steps.

    Raises:
        CalibrationError: it cannot be read, or has none.
    """
    if not path.is_file():
        raise CalibrationError(f"There is no calibration {path}. {_MAKES}")
    try:
        file = CalibrationFile.read(path)
    except CalibrationError as error:
        raise CalibrationError(f"{str(error).removesuffix(AGAIN).rstrip()} {_MAKES}") from None
    found = [each for each in file.calibrations if _is_ours(each)]
    if not found:
        raise CalibrationError(
            f"{path} was not made in ComfyUI: scores of a bundle or of a diffusers pipeline are of "
            f"other noises and sampling, and mean nothing here. {_MAKES}"
        )
    alike = tuple(each for each in found if each.setting.steps == steps)
    if not alike:
        has = ", ".join(map(str, sorted({each.setting.steps for each in found})))
        raise CalibrationError(
            f"{path} holds calibrations that look at as many steps as {has}, and the guard is to "
            f"look at {steps}. Set the guard to one of those, or calibrate again."
        )
    return alike


def find(calibrations: Sequence[Calibration], wanted: Request) -> Calibration:
    """The calibration of a request.

    Raises:
        CalibrationError: there is none; the message says in what the nearest one differs.
    """
    setting = wanted.setting
    for each in calibrations:
        if each.setting == setting:
            return each
    mine = [each for each in calibrations if each.setting.bundle == wanted.model]
    if not mine:
        raise CalibrationError(
            f"The calibration was made on weights {calibrations[0].setting.bundle[:12]}, and this "
            f"model with its text encoder has {wanted.model[:12]}: its threshold means nothing "
            f"here. {_MAKES}"
        )
    nearest = min((_differences(each, wanted) for each in mine), key=len)
    raise CalibrationError(
        f"The guard is not calibrated for this request: {'; '.join(nearest)}. Draw as it was "
        f"calibrated, or calibrate for this. {_MAKES}"
    )


def _differences(calibration: Calibration, wanted: Request) -> list[str]:
    has = calibration.setting.parts
    return [
        f"{name} is {value}, calibrated was {has.get(name)}"
        for name, value in wanted.parts.items()
        if has.get(name) != value
    ]


def _is_ours(calibration: Calibration) -> bool:
    if calibration.setting.detector != _DETECTOR:
        return False
    return calibration.setting.parts.get("pipeline", "").startswith(f"{_FRONTEND} ")
