from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluate_support import lists_of, nonsense, scored, silent

from mnemoscope import DETECTORS, Detector, InputError
from mnemoscope.calibration.making import learn
from mnemoscope.detectors import Features, Fit, Scores
from mnemoscope.evaluate import PromptLists, auc, judge, score
from mnemoscope.evaluate.scoring import halves, scores_of
from mnemoscope_runtime import Screener

UNFITTED = [
    name
    for name, statistic in DETECTORS.items()
    if not (statistic.is_fitted or statistic.needs_torch)
]


class Known:
    """A detector that learns which groups it saw; a feature is the number of a prompt's group."""

    name = "known"
    reference = "none"
    only_first = False
    is_fitted = True
    needs_torch = False
    draws = False

    def passes(self, steps: int) -> int:
        return 2 * steps

    def graphs(self, _: object) -> tuple[str, ...]:
        return ()

    def measure(self, *_: object, **__: object) -> Features:
        raise AssertionError("features are given here, not measured")

    def score(self, features: Features, fit: Fit | None) -> Scores:
        assert fit is not None
        seen = np.isin(features[:, :, 0, 0], fit.weight)
        return 1000 * seen + 0.001 * features[:, :, 0, 0]


def families(count: int, seed: int) -> list[str]:
    return [f"{stem} {end}" for stem in nonsense(count, seed, 9) for end in ("ado", "ilo", "usk")]


# settings


def test_every_setting_is_what_screening_says(bundle_dir: Path) -> None:
    lists = lists_of(3, 4)
    with Screener.open(bundle_dir, threads=1) as screener:
        found = score(screener, lists, detectors=UNFITTED, steps=[3, 1, 2], noises=[3, 1])
        assert [(s.detector, s.steps, s.noises) for s in found] == [
            (name, steps, noises)
            for name in UNFITTED
            for steps in ([1] if DETECTORS[name].only_first else [1, 2, 3])
            for noises in (1, 3)
        ]
        for each in found:
            detector = Detector(screener, detector=each.detector, uncalibrated="score")
            expected = detector.screen(lists.prompts, steps=each.steps, noises=each.noises)
            np.testing.assert_allclose(each.scores, [d.score for d in expected], rtol=1e-4)
            assert each.passes == each.noises * DETECTORS[each.detector].passes(each.steps)
            assert each.seconds > 0
            assert not each.cross_fitted


def test_detectors_that_learn(bundle_dir: Path) -> None:
    lists = lists_of(4, 6)
    with Screener.open(bundle_dir, threads=1) as screener:
        found = score(screener, lists, detectors=["anisotropy", "latent-update"], steps=[2])
    assert [(s.detector, s.steps, s.noises) for s in found] == [
        ("anisotropy", 1, 3),
        ("latent-update", 2, 3),
    ]
    assert all(s.cross_fitted and np.isfinite(s.scores).all() for s in found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noises": [1, 4]}, r"has 3 noises, so --noises 1,4 cannot be measured\. Give 1 to 3"),
        ({"noises": [0]}, "has 3 noises"),
        ({"steps": [51]}, "has 50 steps, so --steps 51 cannot"),
        ({"detectors": ["magic"]}, "no detector 'magic'"),
        ({"detectors": ["anisotropy"]}, r"'anisotropy' learns .* 1 group of memorised"),
    ],
)
def test_settings_that_do_not_exist(
    bundle_dir: Path, options: dict[str, list[int]], message: str
) -> None:
    with (
        Screener.open(bundle_dir, threads=1) as screener,
        pytest.raises(InputError, match=message),
    ):
        score(screener, lists_of(1, 6), **options)  # type: ignore[arg-type]


# cross-fitting


@pytest.mark.parametrize("seed", range(5))
def test_near_duplicates_are_in_one_half(seed: int) -> None:
    lists = PromptLists.of(families(10, seed), families(15, seed + 50), tell=silent)
    assert lists.group_counts == (10, 15)
    second = halves(lists, "any")
    for group in np.unique(lists.groups):
        assert len(set(second[lists.groups == group])) == 1
    for half in (second, ~second):
        assert half[lists.memorized].sum() >= 9
        assert half[~lists.memorized].sum() >= 15


def test_no_prompt_is_judged_by_a_fit_that_saw_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    def remember(benign: Features, memorized: Features) -> Fit:
        both = np.concatenate([benign, memorized]).ravel().tolist()
        return Fit(((0.0,) * len(both),), ((1.0,) * len(both),), tuple(both))

    monkeypatch.setattr("mnemoscope.evaluate.scoring.learn", remember)
    lists = PromptLists.of(families(8, 1), families(12, 2), tell=silent)
    features = lists.groups.astype(np.float32)[:, None, None, None]
    found = scores_of(Known(), features, lists)
    # 1000 above the benign prompts that were learned from, had any been seen; 1000 below, if not
    assert (found < -1000).all()


def test_each_half_is_judged_by_the_fit_of_the_other() -> None:
    lists = lists_of(20, 40)
    rng = np.random.default_rng(0)
    features = rng.normal(3, 2, (60, 2, 1, 2)) + lists.memorized[:, None, None, None]
    statistic = DETECTORS["anisotropy"]
    found = scores_of(statistic, features, lists)
    second, known = halves(lists, "any"), lists.memorized
    fit = learn(features[~second & ~known], features[~second & known])
    raw = statistic.score(features, fit).mean(1)
    benign = raw[~second & ~known]
    np.testing.assert_allclose(found[second], ((raw - benign.mean()) / benign.std())[second])


def test_fits_of_unlike_weights_are_ranked_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One fit's weights ten times the other's: the order of all prompts does not show it."""
    scales = iter([1.0, 10.0])

    def scaled(benign: Features, memorized: Features) -> Fit:
        found, scale = learn(benign, memorized), next(scales)
        return Fit(found.mean, found.std, tuple(scale * weight for weight in found.weight))

    lists = lists_of(40, 60)
    known = lists.memorized
    features = np.random.default_rng(1).normal(0, 1, (100, 1, 1, 2)) + known[:, None, None, None]
    plain = scores_of(DETECTORS["anisotropy"], features, lists)
    monkeypatch.setattr("mnemoscope.evaluate.scoring.learn", scaled)
    np.testing.assert_allclose(scores_of(DETECTORS["anisotropy"], features, lists), plain)


@pytest.mark.parametrize("seed", range(3))
def test_learning_from_noise_finds_nothing(seed: int) -> None:
    """Had a half been judged by its own fit, noise in many features would look like a detector."""
    lists = lists_of(60, 60, seed)
    features = np.random.default_rng(seed).normal(0, 1, (120, 1, 1, 40))
    found = scores_of(DETECTORS["anisotropy"], features, lists)
    assert 0.35 < auc(found[lists.memorized], found[~lists.memorized]) < 0.65
    whole = learn(features[~lists.memorized], features[lists.memorized])
    own = DETECTORS["anisotropy"].score(features, whole)[:, 0]
    assert auc(own[lists.memorized], own[~lists.memorized]) > 0.75


# the table


def test_rows_and_labels() -> None:
    labels = ["verbatim"] * 5 + ["template"] * 15
    lists = PromptLists.of(nonsense(20, 1), nonsense(30, 2), labels=labels, tell=silent)
    each = scored(lists)
    rows = judge([each], lists, repetitions=50)
    assert [(row.label, row.positives) for row in rows] == [
        (None, 20),
        ("verbatim", 5),
        ("template", 15),
    ]
    positives, negatives = each.scores[:20], each.scores[20:]
    assert [row.auc.value for row in rows] == [
        auc(part, negatives) for part in (positives, positives[:5], positives[5:])
    ]
    for row in rows:
        for interval in (row.auc, row.tpr, row.tpr_nearest, row.accuracy):
            assert interval.low <= interval.value <= interval.high


def test_intervals_of_a_list_of_near_duplicates_are_wider() -> None:
    alone = lists_of(60, 60)
    alike = PromptLists.of(families(20, 1), families(20, 2), tell=silent)
    noise = np.repeat(np.random.default_rng(0).normal(0, 1, 40), 3)
    widths = []
    for lists in (alone, alike):
        each = scored(lists)
        row = judge([type(each)(**{**vars(each), "scores": noise + lists.memorized})], lists)[0]
        widths.append(row.auc.high - row.auc.low)
    assert widths[1] > 1.4 * widths[0]
