from __future__ import annotations

import numpy as np
import pytest

from mnemoscope import CalibrationError
from mnemoscope.audit.deciding import group, least, limitation, limits, needed
from mnemoscope.calibration.conformal import p_values, rejected
from mnemoscope.prompts import near_duplicates as clusters

# ascending .004 .012 .029 .038 .6; limits at 0.05: .01 .02 .03 .04 .05, or those over 137 / 60
BY_HAND = np.array([0.012, 0.6, 0.004, 0.038, 0.029])


def test_benjamini_and_hochberg_by_hand() -> None:
    assert limits(5, 0.05, False) == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05])
    assert rejected(BY_HAND, 0.05).tolist() == [True, False, True, True, True]
    assert rejected(BY_HAND, 0.04).tolist() == [True, False, True, False, False]


def test_benjamini_and_yekutieli_by_hand() -> None:
    assert limits(5, 0.05, True) == pytest.approx(np.array([1, 2, 3, 4, 5]) * 0.01 * 60 / 137)
    assert rejected(BY_HAND, 0.05, dependent=True).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("dependent", [False, True])
def test_the_procedure_flags_what_lies_below_the_limits(dependent: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        p = rng.uniform(0, 1, 40) ** 4
        below = np.flatnonzero(np.sort(p) <= limits(40, 0.1, dependent))
        assert rejected(p, 0.1, dependent=dependent).sum() == (below[-1] + 1 if len(below) else 0)


@pytest.mark.parametrize("dependent", [False, True])
@pytest.mark.parametrize(("benign", "fdr"), [(19, 0.05), (99, 0.05), (200, 0.1), (9, 0.1)])
def test_the_fewest_that_can_be_flagged(benign: int, fdr: float, dependent: bool) -> None:
    for count in (1, 7, 20, 100):

        def flagged(hits: int, count: int = count) -> int:
            p = np.ones(count)
            p[:hits] = 1 / (benign + 1)
            return int(rejected(p, fdr, dependent=dependent).sum())

        found = [hits for hits in range(1, count + 1) if flagged(hits)]
        fewest = least(count, benign, fdr, dependent)
        assert fewest == found[0] if found else fewest > count


@pytest.mark.parametrize("dependent", [False, True])
@pytest.mark.parametrize("hits", [1, 3, 50])
def test_as_many_benign_prompts_as_are_needed_are_enough(dependent: bool, hits: int) -> None:
    enough = needed(1000, 0.05, dependent, hits)
    assert least(1000, enough, 0.05, dependent) == hits
    assert least(1000, enough - 1, 0.05, dependent) == hits + 1


def test_needed_by_hand() -> None:
    assert needed(400, 0.05, False, 1) == 7999  # 1 / 8000 = 0.05 * 1 / 400
    assert least(400, 1000, 0.05, False) == 8  # 1 / 1001 <= 0.05 * 8 / 400


def test_a_calibration_that_can_never_flag_anything_is_refused() -> None:
    with pytest.raises(CalibrationError) as caught:
        limitation(1000, 18, 0.05, False)
    for word in (
        "18 benign",
        "nothing would ever be flagged",
        "on 19 benign",
        "on 1,999 to flag as few as 10",
    ):
        assert word in str(caught.value)


def test_a_calibration_that_can_only_flag_all_of_them_is_not_refused() -> None:
    told = limitation(1000, 19, 0.05, False)
    assert told is not None
    assert "flags come 1,000 or more at a time" in told
    with pytest.raises(CalibrationError, match="to flag as few as 1;"):
        limitation(50, 18, 0.05, False)


def test_what_a_small_calibration_cannot_tell_is_told() -> None:
    told = limitation(400, 1000, 0.05, False)
    assert told is not None
    for word in ("1,000 benign", "8 or more at a time", "none is flagged", "7,999 benign prompts"):
        assert word in told
    assert limitation(400, 7999, 0.05, False) is None


def test_the_realised_false_discovery_rate() -> None:
    """On exchangeable scores it is pi0 fdr: not above, by more than chance, nor far below."""
    rng = np.random.default_rng(1)
    fdr, count, memorised, runs = 0.2, 200, 20, 1500
    false, found = [], []
    for _ in range(runs):
        benign = np.sort(rng.normal(size=999))
        scores = rng.normal(size=count)
        scores[:memorised] += 4
        flagged = rejected(p_values(scores, benign), fdr)
        false.append(flagged[memorised:].sum() / max(1, flagged.sum()))
        found.append(flagged[:memorised].mean())
    expected = fdr * (1 - memorised / count)
    error = 3 * np.std(false) / runs**0.5
    assert np.mean(false) <= expected + error
    assert np.mean(false) >= 0.9 * expected - error
    assert np.mean(found) > 0.8


def test_flags_among_benign_prompts_alone_are_as_rare_as_promised() -> None:
    """Every flag is false then, so that the rate is the chance of any: a binomial."""
    rng = np.random.default_rng(2)
    runs, fdr = 2000, 0.1
    hits = 0
    for _ in range(runs):
        p = p_values(rng.exponential(size=50), np.sort(rng.exponential(size=999)))
        hits += bool(rejected(p, fdr).any())
    assert hits <= runs * fdr + 3 * (runs * fdr * (1 - fdr)) ** 0.5


def test_groups_are_numbered_from_one_in_order_of_appearance() -> None:
    assert group(["a red cat", "rain", "A red, cat!", "", "rain"]).tolist() == [1, 2, 1, 3, 2]


def test_groups_do_not_depend_on_how_many_pairs_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(3)
    words = [f"w{i}" for i in range(60)]
    prompts = [" ".join(rng.choice(words, 4)) for _ in range(300)]
    whole = group(prompts)
    assert 10 < len(set(whole)) < 290
    for pairs in (1, 300 * 7):
        monkeypatch.setattr(clusters, "_PAIRS", pairs)
        assert (group(prompts) == whole).all()


def test_the_end_of_a_very_long_prompt_does_not_count() -> None:
    assert group(["a" * 1000 + " b" * 9, "a" * 1000 + " c" * 9]).tolist() == [1, 1]
