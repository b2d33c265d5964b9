"""For tests of what depends on what a model predicts: noise, as most do, or velocity."""

from __future__ import annotations

import pytest

both_models = pytest.mark.parametrize(
    "model_dir", ["epsilon", "v_prediction"], indirect=True, scope="session"
)
