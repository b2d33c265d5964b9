"""What a magnitude is measured in: one definition for every model, and what converts them.

With x_t = a x0 + s eps, what a network says of x_t stands for a noise and for a picture:

| it predicts | eps | x0 | || d eps || / || d out || | || d x0 || / || d out || |
|---|---|---|---|---|
| epsilon: the noise | out | (x_t - s out) / a | 1 | s / a |
| v_prediction: a eps - s x0, with a^2 + s^2 = 1 | s x_t + a out | a x_t - s out | a | s |
| flow_prediction: eps - x0, with a + s = 1 | x_t + a out | x_t - s out | a | s |

Two predictions for one x_t differ by the distances on the right. Of pure noise (a = 0) those of a
flow never differ in eps, whatever the prompt, so flows are measured in x0; the paper's score is in
eps. From eps to x0 a distance is multiplied by s / a.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Level", "PredictionType", "Unit", "unit_per_output", "x0_per_unit"]

PredictionType = Literal["epsilon", "v_prediction", "flow_prediction"]
Unit = Literal["eps", "x0"]


@dataclass(frozen=True)
class Level:
    """x_t = signal x0 + noise eps.

    Attributes:
        signal: a, 0 to 1.
        noise: s, 0 to 1.
    """

    signal: float
    noise: float


def unit_per_output(kind: PredictionType, unit: Unit, level: Level) -> float:
    """What the distance of two outputs for the same x_t is multiplied by to be in a unit."""
    if unit == "x0":
        return level.noise / level.signal if kind == "epsilon" else level.noise
    return 1.0 if kind == "epsilon" else level.signal


def x0_per_unit(unit: Unit, level: Level) -> float:
    """What a distance in a unit is multiplied by to be one of predicted pictures."""
    return 1.0 if unit == "x0" else level.noise / level.signal
