"""How far a magnitude is from what it should be."""

from __future__ import annotations

import numpy as np
import pytest

from mnemoscope_runtime.agreement import UNIT, noise_norm, relative_error, smallest

pytestmark = pytest.mark.numeric


def test_where_it_matters_it_is_the_relative_error() -> None:
    floor = smallest(noise_norm(4 * 64 * 64))
    wanted = np.array([1.0, 3.0, floor])
    np.testing.assert_allclose(relative_error(wanted * 1.0003, wanted, floor), 3e-4, rtol=1e-6)


@pytest.mark.parametrize("elements", [256, 4 * 64 * 64, 4 * 128 * 128])
def test_where_it_does_not_one_unit_of_the_predictions_is_allowed(elements: int) -> None:
    norm = noise_norm(elements)
    floor = smallest(norm)
    for wanted in (0.0, floor / 1000, floor / 2):
        assert relative_error(wanted + UNIT * norm, wanted, floor) == pytest.approx(1e-4)
        assert relative_error(wanted + 3 * UNIT * norm, wanted, floor) > 2e-4


def test_float32_does_no_better() -> None:
    """Vectors of noise that differ by little, rounded as predictions are."""
    rng = np.random.default_rng(0)
    eps = rng.standard_normal((200, 4096))
    close = eps + rng.standard_normal(eps.shape) * 1e-6
    wanted = np.linalg.norm(close - eps, axis=1)
    rounded = close.astype(np.float32) - eps.astype(np.float32)
    found = np.linalg.norm(rounded, axis=1)
    assert (np.abs(found - wanted) / wanted).max() > 1e-4
    assert relative_error(found, wanted, smallest(noise_norm(4096))).max() < 1e-4


def test_nan_is_no_agreement() -> None:
    assert np.isnan(relative_error(np.nan, 1.0, 0.1))
