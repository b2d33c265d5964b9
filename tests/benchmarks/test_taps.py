"""What the study of taps makes of norms: nothing is judged on what it was learned from."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import taps
from mnemoscope.calibration.making import learn

MEMORIZED = np.arange(60) < 20


@pytest.fixture
def norms() -> taps.Norms:
    """Three layers, the last of which tells memorised prompts from others."""
    rng = np.random.default_rng(0)
    found = np.exp(rng.normal(size=(60, 2, 1, 3)))
    found[MEMORIZED, ..., 2] *= 1e3
    return found


def test_halves() -> None:
    half = taps.halves(MEMORIZED, seed=0)
    assert (half & MEMORIZED).sum() == 10
    assert half.sum() == 30
    assert (half != taps.halves(MEMORIZED, seed=1)).any()


@pytest.mark.parametrize("learner", [taps.benign_only, taps.best_layer, learn])
def test_a_half_is_judged_by_what_the_other_taught(
    norms: taps.Norms, learner: taps.Learner
) -> None:
    half = taps.halves(MEMORIZED, seed=0)
    _, before = taps.cross_fitted(norms, MEMORIZED, learner, seed=0)
    norms[~half] **= 2
    _, after = taps.cross_fitted(norms, MEMORIZED, learner, seed=0)
    assert before[0] == after[0]  # learned on `half`
    assert before[1] != after[1]


def test_the_best_layer_is_found(norms: taps.Norms) -> None:
    scores, fits = taps.cross_fitted(norms, MEMORIZED, taps.best_layer, seed=0)
    assert [fit.weight for fit in fits] == [(0.0, 0.0, 1.0)] * 2
    assert scores[MEMORIZED].min() > scores[~MEMORIZED].max()


def test_differences_are_between_the_same_prompts(norms: taps.Norms) -> None:
    scores = np.log(norms[..., [2, 2]]).mean((1, 2))
    assert {str(each) for each in taps.judge(scores, MEMORIZED).values()} == {
        "0.000 [0.000, 0.000]"
    }
    better = np.stack([scores[:, 0], -scores[:, 0]], 1)
    gained = [taps.judge(columns, MEMORIZED)["auc"] for columns in (better, better[:, ::-1])]
    assert [each.value for each in gained] == [1, -1]
    assert gained[0].low > 0 > gained[1].high
    alone = taps.judge(scores[:, 0], MEMORIZED)
    assert (alone["auc"].value, alone["tpr_at_1_percent_fpr"].value) == (1, 1)
