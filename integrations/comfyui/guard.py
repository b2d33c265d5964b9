"""A guard on a model of ComfyUI: judges every sampling by a calibration, and acts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mnemoscope.calibration import Calibration
from mnemoscope.prompts.printable import counted
from mnemoscope_runtime.errors import InputError

from .decision import MODES, Blocked, Decision, Mode, Sampled
from .session import Measured
from .setting import find
from .watch import Ruling, Watch

__all__ = ["decided", "guarded"]


def guarded(
    patcher: Any,
    clip: Any,
    *,
    mode: Mode,
    calibrations: Sequence[Calibration],
    negative: str = "",
    steps: int = 1,
    extra_pass: bool = False,
) -> Watch:
    """A guard for a model of ComfyUI; `attach` it.

    Args:
        patcher: ComfyUI's MODEL.
        clip: Its CLIP.
        mode: What becomes of flagged images. "block" raises, also where one of a batch is flagged;
            "black" leaves their latents empty and draws the others; "report" only says. What
            cannot be measured is an error, and in "report" said and drawn.
        calibrations: Those that may apply; for "report" there need be none.
        negative: The negative prompt of requests.
        steps: Calls of the model to look at.
        extra_pass: Whether the prediction without the prompt is computed at cfg 1.0 too.

    Raises:
        InputError: a guard cannot tell what the model predicts, there is no such mode, or it takes
            a calibration.
    """
    if mode not in MODES:
        raise InputError(f"There is no mode {mode!r}. Choose one of {', '.join(MODES)}.")
    if mode != "report" and not calibrations:
        raise InputError(
            f"Mode {mode} takes a calibration, which holds the threshold. Make one with the node "
            "Calibrate Memorization Guard, or set the mode to report, which then gives scores "
            "without verdicts."
        )

    def decide(measured: Measured) -> Ruling:
        sampled = Sampled(decided(measured, calibrations))
        if not sampled.flagged or mode == "report":
            return Ruling(sampled)
        if mode == "block":
            raise _blocked(sampled)
        hidden = replace(sampled, hidden=sampled.flagged)
        return Ruling(hidden, stop=len(hidden.hidden) == len(hidden.decisions))

    return Watch(
        patcher,
        clip,
        negative=negative,
        steps=steps,
        decide=decide,
        extra_pass=extra_pass,
        lenient=mode == "report",
    )


def decided(measured: Measured, calibrations: Sequence[Calibration]) -> tuple[Decision, ...]:
    """A decision for each image.

    Raises:
        CalibrationError: there are calibrations, and none is of this request.
    """
    calibration = find(calibrations, measured.request) if calibrations else None
    rows = zip(measured.scores, measured.compared, strict=True)
    return tuple(_judged(index, *row, calibration) for index, row in enumerate(rows))


def _judged(index: int, score: float, compared: bool, calibration: Calibration | None) -> Decision:
    if calibration is None or not compared:
        return Decision(index, score, None, None, None, compared)
    return Decision(
        index=index,
        score=score,
        p_value=calibration.p_value(score),
        threshold=calibration.threshold,
        memorized=score > calibration.threshold,
        compared=True,
    )


def _blocked(sampled: Sampled) -> Blocked:
    top = max(sampled.decisions, key=lambda each: each.score)
    return Blocked(
        f"Nothing was drawn: {len(sampled.flagged)} of "
        f"{counted(len(sampled.decisions), 'image')} would reproduce a training image "
        f"(highest score {top.score:.4g}, threshold "
        f"{top.threshold:.4g}). Change the prompt; or set the guard to black, which draws the "
        "others of a batch, or to report.",
        sampled.decisions,
    )
