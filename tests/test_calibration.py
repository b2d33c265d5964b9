from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from mnemoscope import Calibration, CalibrationError, InputError
from mnemoscope.calibration import MARGIN, prefix_means

Magnitudes = NDArray[np.float32]

magnitudes = arrays(
    np.float32,
    array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=4).map(lambda s: (9 * s[0], *s[1:])),
    elements=st.floats(0, 100, width=32),
)


def column(*scores: float) -> Magnitudes:
    """Magnitudes with one noise and one step."""
    return np.array(scores, np.float32)[:, None, None]


def fitted(bundle: str = "b" * 64) -> Calibration:
    rng = np.random.default_rng(0)
    return Calibration.fit(bundle, rng.random((200, 3, 2), np.float32), 0.05)


@given(magnitudes, st.floats(0.01, 0.99))
@example(column(*range(100)), 0.29)  # 0.29 * 100 is a little less than 29
@example(column(*range(49)), 1 / 49)  # (1 / 49) * 49 is a little less than 1
def test_the_threshold_is_the_lowest_score_that_keeps_the_rate(
    benign: Magnitudes, fpr: float
) -> None:
    count = len(benign)
    assume(1 / count <= fpr)
    calibration = Calibration.fit("b", benign, fpr)
    means = prefix_means(benign)
    for noises in range(1, benign.shape[1] + 1):
        for steps in range(1, benign.shape[2] + 1):
            scores = means[:, noises - 1, steps - 1]
            threshold = calibration.threshold(noises=noises, steps=steps)
            assert threshold is not None
            limit = threshold / (1 + MARGIN)
            assert np.isclose(scores, limit, rtol=1e-9, atol=0).any()
            assert (scores * (1 + MARGIN / 2) > threshold).sum() / count <= fpr
            lower = scores[scores < limit * (1 - 1e-9)]
            if len(lower):
                assert (scores > lower.max()).sum() / count > fpr


def test_every_rate_that_is_a_whole_number_of_prompts_allows_that_number() -> None:
    benign = column(*range(100))
    flagged = [
        int((benign > Calibration.fit("b", benign, k / 100).thresholds[0][0]).sum())
        for k in range(1, 100)
    ]
    assert flagged == list(range(1, 100))


def test_tied_prompts_lie_on_the_threshold_not_above_it() -> None:
    benign = column(*[1.0] * 90, *[2.0] * 10)
    assert Calibration.fit("b", benign, 0.05).threshold(noises=1, steps=1) == 2 * (1 + MARGIN)
    assert Calibration.fit("b", benign, 0.1).threshold(noises=1, steps=1) == 1 + MARGIN


def test_every_setting_has_a_threshold_of_its_own() -> None:
    benign = np.random.default_rng(1).random((100, 3, 2), np.float32)
    calibration = Calibration.fit("b", benign, 0.01)
    for noises in (1, 2, 3):
        for steps in (1, 2):
            scores = benign[:, :noises, :steps].astype(np.float64).mean((1, 2))
            threshold = calibration.threshold(noises=noises, steps=steps)
            assert threshold == pytest.approx((1 + MARGIN) * np.sort(scores)[-2], rel=1e-12)


def test_fit_records_what_it_was_made_from() -> None:
    calibration = fitted("c" * 64)
    assert (calibration.bundle, calibration.fpr, calibration.benign) == ("c" * 64, 0.05, 200)


@pytest.mark.parametrize("count", [0, 1, 99])
def test_too_few_prompts_for_the_rate(count: int) -> None:
    with pytest.raises(InputError, match=f"{count} benign prompts cannot set a threshold"):
        Calibration.fit("b", np.ones((count, 1, 1), np.float32), 0.01)


@pytest.mark.parametrize("fpr", [0.0, 1.0, -0.1, 2.0, float("nan"), float("inf")])
def test_a_rate_that_is_none(fpr: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        Calibration.fit("b", np.ones((500, 1, 1), np.float32), fpr)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_magnitudes_that_are_no_numbers(bad: float) -> None:
    benign = np.ones((200, 2, 2), np.float32)
    benign[17, 1, 0] = bad
    with pytest.raises(InputError, match="NaN or infinity"):
        Calibration.fit("b", benign)


@given(magnitudes)
def test_prefix_means_are_means_of_prefixes(values: Magnitudes) -> None:
    means = prefix_means(values)
    assert means.shape == values.shape
    for noises in range(1, values.shape[1] + 1):
        for steps in range(1, values.shape[2] + 1):
            for prompt in range(len(values)):
                total = 0.0
                for noise in range(noises):
                    for step in range(steps):
                        total += float(values[prompt, noise, step])
                expected = total / (noises * steps)
                assert means[prompt, noises - 1, steps - 1] == pytest.approx(expected, rel=1e-12)


def test_a_calibration_survives_being_written_and_read(tmp_path: Path) -> None:
    calibration = fitted()
    calibration.write(tmp_path / "calibration.json")
    assert Calibration.read(tmp_path / "calibration.json") == calibration
    assert Calibration.read(str(tmp_path / "calibration.json")) == calibration


def test_writing_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        fitted().write(tmp_path / "missing" / "calibration.json")


def test_reading_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="cannot be read"):
        Calibration.read(tmp_path / "none.json")
    with pytest.raises(CalibrationError, match="cannot be read"):
        Calibration.read(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe{}",
        b"\0",
        b'{"kind": ' + b"[" * 100_000,
    ],
    ids=["empty", "cut", "list", "utf16", "nul", "nested"],
)
def test_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "calibration.json"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=r"damaged.*Calibrate the bundle again"):
        Calibration.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "something-else"}, "no calibration of this version"),
        ({"kind": None}, "no calibration of this version"),
        ({"schema": 2}, "no calibration of this version"),
        ({"schema": "1"}, "no calibration of this version"),
        ({"fpr": "1 %"}, "damaged"),
        ({"bundle": 7}, "damaged"),
        ({"thresholds": "low"}, "damaged"),
        ({"thresholds": [[None]]}, "damaged"),
        ({"thresholds": []}, "no usable thresholds"),
        ({"thresholds": [[]]}, "no usable thresholds"),
        ({"thresholds": [[1.0, 2.0], [3.0]]}, "no usable thresholds"),
    ],
)
def test_a_file_that_is_no_calibration_of_ours(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "calibration.json"
    fitted().write(path)
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))
    with pytest.raises(CalibrationError, match=message):
        Calibration.read(path)


@pytest.mark.parametrize("missing", ["kind", "schema", "bundle", "fpr", "benign", "thresholds"])
def test_a_file_that_lacks_a_key(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "calibration.json"
    fitted().write(path)
    fields = json.loads(path.read_bytes())
    del fields[missing]
    path.write_text(json.dumps(fields))
    with pytest.raises(CalibrationError, match=r"calibration\.json"):
        Calibration.read(path)


def test_a_threshold_too_large_for_a_float(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    fitted().write(path)
    text = json.dumps({**json.loads(path.read_bytes()), "thresholds": [["HUGE"]]})
    path.write_text(text.replace('"HUGE"', "1e999"))
    with pytest.raises(CalibrationError, match=r"calibration\.json"):
        Calibration.read(path)


def test_a_calibration_belongs_to_one_bundle() -> None:
    calibration = fitted("a" * 64)
    calibration.check("a" * 64)
    with pytest.raises(CalibrationError, match="made on bundle aaaaaaaaaaaa, not on bbbbbbbbbbbb"):
        calibration.check("b" * 64)


def test_a_setting_that_was_not_calibrated_has_no_threshold() -> None:
    calibration = fitted()  # three noises, two steps
    assert calibration.threshold(noises=3, steps=2) is not None
    assert calibration.threshold(noises=4, steps=1) is None
    assert calibration.threshold(noises=1, steps=3) is None
