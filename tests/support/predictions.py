"""For tests of what depends on what a model predicts: noise, as most do, or velocity."""

from __future__ import annotations

from typing import Any

import pytest

T, SIZE = 401, (4, 6)  # samplers begin at 981, the models have 8x8
TAPS = ("down_blocks.0.downsamplers.0", "up_blocks.1.resnets.1")  # early, and near the end
# an export takes long: that of velocities has more in it, since a timestep counts twice there, in
# the UNet and in what its output is turned into
VARIED: dict[str, dict[str, Any]] = {
    "epsilon": {},
    "v_prediction": {"timestep": T, "latent_size": SIZE, "taps": TAPS},
}


both_models = pytest.mark.parametrize(
    "model_dir", ["epsilon", "v_prediction"], indirect=True, scope="session"
)
# the smaller of the two: also for what could be of either
of_velocities = pytest.mark.parametrize(
    "model_dir", ["v_prediction"], indirect=True, scope="session"
)
