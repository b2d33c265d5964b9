"""Calibrations made up of numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from mnemoscope import Calibration, Setting
from mnemoscope.calibration.conformal import MARGIN, just_above

__all__ = ["SETTING", "again", "forge", "made", "scores_of", "setting_threshold"]

SETTING = Setting("b" * 64, "onnxruntime", "magnitude", 1, 4)


def scores_of(*values: float) -> dict[str, float]:
    return {f"{i:012x}": value for i, value in enumerate(values)}


def made(setting: Setting = SETTING, count: int = 400, first: int = 0) -> Calibration:
    values = np.random.default_rng(0).random(first + count)[first:].tolist()
    scores = {f"{first + i:012x}": value for i, value in enumerate(values)}
    return Calibration.of(setting, scores, positives=(2.0, 0.1, 3.0))


def again(calibration: Calibration, **changes: Any) -> Calibration:
    """A calibration with other parts, and the threshold that they set."""
    parts = {each.name: getattr(calibration, each.name) for each in fields(calibration)} | changes
    del parts["threshold"]
    scores = dict(zip(parts.pop("prompts"), parts.pop("scores"), strict=True))
    return Calibration.of(parts.pop("setting"), scores, **parts)


def forge(path: Path, change: Callable[[str], str]) -> None:
    """Change the text of a file's only calibration, and make its digest anew."""
    head, _, rest = path.read_text().partition('"calibration":')
    old = rest.removesuffix("}]}\n")
    new = change(old)
    assert new != old
    digests = [hashlib.sha256(each.encode()).hexdigest() for each in (old, new)]
    assert digests[0] in head  # which is thus the digest of these very bytes
    path.write_text(f'{head.replace(*digests)}"calibration":{new}}}]}}\n')


def setting_threshold(threshold: float) -> float:
    """A benign score that sets a threshold."""
    score = threshold / (1 + MARGIN) if threshold > 0 else threshold / (1 - MARGIN)
    near = (score, np.nextafter(score, -np.inf), np.nextafter(score, np.inf))
    return next(float(each) for each in near if just_above(float(each)) == threshold)
