"""What a guard's scores depend on: two requests that differ in it say nothing of each other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mnemoscope_runtime.errors import CalibrationError, InputError

from ..calibration import AGAIN, Calibration, CalibrationFile, Setting, digest
from ..calibration.written import WROTE
from ..prompts.printable import counted
from .identity import Identity
from .other_model import why, written

__all__ = [
    "GuardSetting",
    "find",
    "fits",
    "known",
    "load",
    "options",
]

DETECTOR = "guard"
_MADE_OF = "made of"
# arguments of a call that change what is predicted at the first step already ...
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
    "joint_attention_kwargs",
    "attention_kwargs",
    "max_sequence_length",
    "clean_caption",
    "complex_human_instruction",
)
# ... and those that change where the later steps go
_LATER = ("guidance_scale", "true_cfg_scale", "guidance_rescale", "guider", "eta")
_LONG = ("complex_human_instruction",)  # told by their digest
_MAKES = "A guard's is made by `calibrate_guard`, and written by `CalibrationFile((...,)).write`."
_AGAIN = "`calibrate_guard` with the arguments of this request makes one."


@dataclass(frozen=True)
class GuardSetting:
    """A way of watching.

    Attributes:
        model: `Identity.model` of the pipeline.
        state: `Identity.state` of it.
        pipeline: Name of its class.
        scheduler: Its class, a digest of its configuration, and what differs from those.
        dtype: Of the predictions.
        latents: Their (C, H, W).
        timesteps: Those looked at.
        tokens: How many embeddings the network was told of a prompt; None where each prompt has
            its own number.
        negative: Digest of the negative prompt that magnitudes are relative to; "none" for none.
        options: Other arguments that scores depend on.
        made_of: What `model` is a hash of, so that a refusal can say what is another one.
    """

    model: str
    state: str
    pipeline: str
    scheduler: str
    dtype: str
    latents: tuple[int, ...]
    timesteps: tuple[float, ...]
    tokens: int | None
    negative: str
    options: str
    made_of: str = field(default="", compare=False)

    @property
    def parts(self) -> dict[str, str]:
        """In words; of the model what it is made of, in short hashes."""
        return {
            "state": self.state,
            "pipeline": self.pipeline,
            "scheduler": self.scheduler,
            "dtype": self.dtype,
            "latents": "x".join(map(str, self.latents)),
            "timesteps": " ".join(f"{t:g}" for t in self.timesteps),
            "tokens": "any" if self.tokens is None else str(self.tokens),
            "negative prompt": self.negative,
            "options": self.options,
            _MADE_OF: self.made_of,
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
        tells_scale: Whether the network is told the guidance scale (LCM, FLUX.1 dev).
    """
    names = _ALWAYS + _LATER * (steps > 1) + ("guidance_scale", "guider") * tells_scale
    found = {name: repr(told[name]) for name in names if told.get(name) is not None}
    found |= {name: digest(found[name]) for name in _LONG if name in found}
    return ", ".join(f"{name}={value}" for name, value in sorted(found.items())) or "none"


def load(
    calibration: Calibration | CalibrationFile | str | Path | None,
    now: Identity,
    steps: int | None,
    trust: str | Path | None,
) -> list[Calibration] | None:
    """The calibrations that a guard is given; see `known`.

    Raises:
        CalibrationError: the file cannot be read, or none is of the pipeline as it is.
        SignatureError: the file is not signed by the key that is trusted.
        InputError: it is not said at how many steps to look, or the pipeline's predictions cannot
            be told; or there is a key, and no file.
    """
    if trust is not None and not isinstance(calibration, str | Path):
        raise InputError(
            "A key is trusted to have signed the file of a calibration, and none is given. Name "
            "the file, or leave trust out."
        )
    if calibration is None:
        return None
    if isinstance(calibration, str | Path):
        calibration = _read(Path(calibration), trust)
    if isinstance(calibration, Calibration):
        calibration = CalibrationFile((calibration,))
    now.require()
    return known(calibration, now, steps)


def _read(path: Path, trust: str | Path | None) -> CalibrationFile:
    """A guard's calibration file.

    Raises:
        CalibrationError: it cannot be read; and what makes one for a guard.
    """
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise CalibrationError(f"The calibration {path} {what}. {_MAKES}")
    try:
        return CalibrationFile.read(path, trust=trust)
    except CalibrationError as error:
        reason = str(error).removesuffix(AGAIN).removesuffix(WROTE).rstrip()
        raise CalibrationError(f"{reason} {_MAKES}") from None


def known(file: CalibrationFile, now: Identity, steps: int | None) -> list[Calibration]:
    """The calibrations of guards that look at as many steps, at any one number if it is open.

    Those of other models and states are among them: a pipeline's adapters may be exchanged.

    Raises:
        CalibrationError: none is of the pipeline as it is.
        InputError: the number is open, and they have several.
    """
    guards = [each for each in file.calibrations if each.setting.detector == DETECTOR]
    if not guards:
        raise CalibrationError(
            f"{file.origin} is not of a guard: a bundle's scores are of a fixed noise bank and "
            "of graphs, and mean nothing here. Make one with `calibrate_guard`."
        )
    current = [each for each in guards if "state" in _parts(each)]
    if not current:
        raise CalibrationError(
            f"{file.origin} was made by an earlier version of Mnemoscope, which did not note the "
            "pipeline's adapters and what else changes its predictions, so that it may be of "
            "another state than it says. Calibrate again with `calibrate_guard`."
        )
    mine = [each for each in current if fits(each, now)]
    if not mine:
        raise CalibrationError(_other(file.origin, current, now))
    has = sorted({each.setting.steps for each in mine})
    if steps is None and len(has) > 1:
        raise InputError(
            f"{file.origin} is of {', '.join(map(str, has))} steps. Say at how many the guard "
            "is to look: steps=..."
        )
    steps = has[0] if steps is None else steps
    if steps not in has:
        raise CalibrationError(
            f"There is no calibration of {counted(steps, 'step')}, only of "
            f"{', '.join(map(str, has))}. Make one with "
            f"`calibrate_guard(..., steps={steps})`, or look at as many."
        )
    return [each for each in current if each.setting.steps == steps]


def fits(calibration: Calibration, now: Identity) -> bool:
    """Whether a calibration is of a pipeline as it is now."""
    parts = _parts(calibration)
    alike = calibration.setting.bundle == now.model and parts.get("pipeline") == now.pipeline
    return alike and parts.get("state") == now.state


def _other(origin: str, calibrations: Sequence[Calibration], now: Identity) -> str:
    """Why none of these is of a pipeline as it is now."""
    calibrated = [_parts(each) for each in calibrations]
    whole = zip(calibrations, calibrated, strict=True)
    alike = [has for each, has in whole if each.setting.bundle == now.model]
    alike = [has for has in alike if has.get("pipeline") == now.pipeline]
    if alike:
        states = sorted({has["state"] for has in alike})
        were = " or ".join(map(repr, states))
        return (
            f"The pipeline's state is {now.state!r}, calibrated was {were}: its thresholds "
            "mean nothing here. Put it into the state that was calibrated, or calibrate this one "
            "with `calibrate_guard`."
        )
    reason = why(now.pipeline, written(now.weights, now.dtypes), calibrated)
    return (
        f"{origin} is not of this pipeline: {reason}. Its "
        "thresholds mean nothing here. Calibrate this pipeline with `calibrate_guard`."
    )


def _parts(calibration: Calibration) -> dict[str, str]:
    """What a guard's calibration says of the pipeline.

    Raises:
        CalibrationError: it says nothing.
    """
    if parts := calibration.setting.parts:
        return parts
    raise CalibrationError(
        "This calibration does not say which pipeline it is of. Make one with `calibrate_guard`."
    )


def find(calibrations: list[Calibration], wanted: GuardSetting) -> Calibration:
    """The calibration of a setting.

    Raises:
        CalibrationError: there is none; the message says in what the nearest one differs.
    """
    mine = [each for each in calibrations if each.setting.bundle == wanted.model]
    found = [(_differences(each, wanted), each) for each in mine]
    nearest, calibration = min(found, key=lambda each: len(each[0]))
    if not nearest:
        return calibration
    raise CalibrationError(
        f"The guard is not calibrated for this request: {'; '.join(nearest)}. {_AGAIN}"
    )


def _differences(calibration: Calibration, wanted: GuardSetting) -> list[str]:
    has = _parts(calibration)
    return [
        f"{name} is {value}, calibrated was {has.get(name)}"
        for name, value in wanted.parts.items()
        if name != _MADE_OF and has.get(name) != value
    ]
