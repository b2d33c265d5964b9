from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnemoscope import (
    Calibration,
    CalibrationError,
    CalibrationFile,
    First,
    Gate,
    InputError,
    Setting,
)
from mnemoscope.calibration import MARGIN, Carried, digest
from mnemoscope.conformal import allowed_above
from mnemoscope.detectors import Fit
from mnemoscope.places import require_place

SETTING = Setting("b" * 64, "onnxruntime", "magnitude", 1, 4)


def scores_of(*values: float) -> dict[str, float]:
    return {f"{i:012x}": value for i, value in enumerate(values)}


def made(setting: Setting = SETTING, count: int = 400, first: int = 0) -> Calibration:
    values = np.random.default_rng(0).random(first + count)[first:].tolist()
    scores = {f"{first + i:012x}": value for i, value in enumerate(values)}
    return Calibration.of(setting, scores, positives=(2.0, 0.1, 3.0))


@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=20, max_size=60),
    st.floats(0.15, 0.6),
    st.floats(0.05, 0.4),
)
def test_the_threshold_is_the_lowest_that_keeps_the_promise(
    values: list[float], fpr: float, delta: float
) -> None:
    calibration = Calibration.of(SETTING, scores_of(*values), fpr=fpr, delta=delta)
    above = allowed_above(len(values), fpr, delta)
    scores = np.array(values)
    assert (scores > calibration.threshold).sum() <= above
    limit = np.sort(scores)[::-1][above]
    assert limit <= calibration.threshold <= limit + MARGIN * abs(limit)


def test_tied_prompts_lie_on_the_threshold_not_above_it() -> None:
    calibration = Calibration.of(SETTING, scores_of(*[1.0] * 300, *[2.0] * 100))
    assert calibration.threshold == 2 * (1 + MARGIN)


def test_a_hair_goes_up_also_where_scores_are_negative() -> None:
    assert Calibration.of(SETTING, scores_of(*[-2.0] * 400)).threshold == -2 * (1 - MARGIN)


def test_p_values() -> None:
    calibration = Calibration.of(SETTING, scores_of(*map(float, range(399, -1, -1))))
    np.testing.assert_allclose(calibration.p_values([1e9, 399, 398.5, -1]) * 401, [1, 2, 2, 401])
    scores = [1e9, 399.0, 398.5, 7.0, -1.0]
    assert [calibration.p_value(each) for each in scores] == calibration.p_values(scores).tolist()


def test_true_positives_come_with_an_exact_interval() -> None:
    rate, low, high = made().tpr() or (0, 0, 0)
    assert rate == 2 / 3
    assert (round(low, 4), round(high, 4)) == (0.0943, 0.9916)
    assert replace(made(), positives=()).tpr() is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers(bad: float) -> None:
    with pytest.raises(InputError, match="NaN or infinity"):
        Calibration.of(SETTING, scores_of(*[1.0] * 400, bad))
    with pytest.raises(InputError, match="NaN or infinity"):
        Calibration.of(SETTING, scores_of(*[1.0] * 400), positives=[bad])


# drift


def test_the_same_traffic_does_not_drift_and_higher_scores_do() -> None:
    rng = np.random.default_rng(3)
    calibration = made()
    assert not calibration.drift(rng.random(200).tolist()).drifted
    drift = calibration.drift((rng.random(200) + 0.2).tolist())
    assert drift.drifted
    assert (drift.recent, drift.level) == (200, 0.01)
    assert not calibration.drift((rng.random(200) - 0.2).tolist()).drifted  # one-sided


def test_drift_is_seldom_seen_where_there_is_none() -> None:
    rng = np.random.default_rng(4)
    alarms = 0
    for _ in range(300):
        values = rng.normal(size=350)
        calibration = Calibration.of(SETTING, scores_of(*values[:300]))
        alarms += calibration.drift(values[300:].tolist(), level=0.05).drifted
    assert alarms <= 30  # 15 are to be expected


def test_a_few_memorised_prompts_are_no_drift() -> None:
    rng = np.random.default_rng(5)
    assert not made().drift([*rng.random(200).tolist(), 9.0, 9.0, 9.0, 9.0]).drifted


@pytest.mark.parametrize("recent", [[], [0.5] * 19, [0.5] * 30 + [float("nan")]])
def test_recent_scores_that_tell_nothing(recent: list[float]) -> None:
    with pytest.raises(InputError, match="20 or more"):
        made().drift(recent)


# merging


def test_merging_pools_prompts_and_counts_shared_ones_once() -> None:
    both = made(count=400).merged(made(count=300, first=300))
    whole = made(count=600)
    assert dict(zip(both.prompts, both.scores, strict=True)) == dict(
        zip(whole.prompts, whole.scores, strict=True)
    )
    assert both.threshold == pytest.approx(whole.threshold)
    assert both.positives == made().positives  # those of both are the same
    other = replace(made(first=300), positives=(2.0, 0.7))
    assert sorted(made().merged(other).positives) == [0.1, 0.7, 2.0, 3.0]
    assert made().merged(made()) == made()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"setting": replace(SETTING, steps=10)}, "cannot become one"),
        ({"fit": Fit(((0.0,),), ((1.0,),), (1.0,))}, "cannot become one"),
        ({"fpr": 0.02}, "same --fpr"),
        ({"delta": 0.1}, "same --fpr"),
        ({"among": 3}, r"chosen among 1 setting\(s\), the other among 3"),
        ({"scores": (5.0, *made().scores[1:])}, "not measured in the same way"),
    ],
)
def test_what_cannot_be_merged(change: dict[str, Any], words: str) -> None:
    with pytest.raises(CalibrationError, match=words):
        made().merged(replace(made(), **change))


def test_files_merge_setting_by_setting() -> None:
    ten = replace(SETTING, steps=10)
    first = CalibrationFile((made(), made(ten)))
    second = CalibrationFile((made(first=300), made(replace(SETTING, backend="openvino"))))
    merged = first.merged(second)
    assert [len(each.scores) for each in merged.calibrations] == [700, 400, 400]
    with pytest.raises(CalibrationError, match="made on bundle cccccccccccc"):
        first.merged(CalibrationFile((made(replace(SETTING, bundle="c" * 64)),)))


# cascades


def cascade(**changes: Any) -> Calibration:
    setting = replace(SETTING, first=First("taps", clear=0.8))
    return replace(made(), **{"setting": setting, "gate": Gate(0.1, 0.2)} | changes)


def test_a_cascade_survives_being_written_and_read(tmp_path: Path) -> None:
    fit = Fit(((0.5,),), ((1.0,),), (1.0,))
    file = CalibrationFile((made(), replace(cascade(among=3), gate=Gate(-1.0, -2.0, fit))))
    file.write(tmp_path / "c.json")
    assert CalibrationFile.read(tmp_path / "c.json") == file


def test_files_from_before_cascades_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    CalibrationFile((made(),)).write(path)
    content = json.loads(path.read_bytes())
    [each] = content["calibrations"]
    del each["gate"], each["among"], each["setting"]["first"]
    path.write_text(json.dumps(content | {"schema": 2}))
    found = CalibrationFile.read(path)
    assert found.calibrations == (made(),)
    found.with_([cascade()]).write(path)
    assert json.loads(path.read_bytes())["schema"] == 3  # what older versions would misread


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (cascade(gate=None), "half a cascade"),
        (replace(made(), gate=Gate(0.0, 0.0)), "half a cascade"),
        (cascade(among=0), "no usable threshold"),
    ],
)
def test_half_a_cascade(tmp_path: Path, broken: Calibration, message: str) -> None:
    CalibrationFile((broken,)).write(tmp_path / "c.json")
    with pytest.raises(CalibrationError, match=message):
        CalibrationFile.read(tmp_path / "c.json")


def test_a_first_stage_is_part_of_the_setting() -> None:
    file = CalibrationFile((made(), cascade()))
    other = replace(SETTING, first=First("taps", clear=0.9))
    assert file.find(cascade().setting) == cascade()
    assert file.find(SETTING) == made()
    assert file.find(other) is None
    with pytest.raises(CalibrationError) as error:
        file.require(other)
    assert "after taps at 1 step(s) on 1 noise(s), which clears 0.8, onnx" in str(error.value)
    assert "--first taps --first-steps 1 --first-noises 1 --clear 0.9` makes" in str(error.value)
    with pytest.raises(CalibrationError, match="cannot become one"):
        cascade().merged(replace(cascade(), gate=Gate(0.1, 0.3)))


def test_intervals_of_a_chosen_setting_are_wider() -> None:
    rate, low, high = made().tpr() or (0, 0, 0)
    again, lower, higher = replace(made(), among=5).tpr() or (0, 0, 0)
    assert rate == again
    assert lower < low < high < higher


# the file


def test_a_calibration_survives_being_written_and_read(tmp_path: Path) -> None:
    fit = Fit(((0.5, 1.0),), ((1.0, 2.0),), (1.0, -0.5))
    learned = replace(made(replace(SETTING, detector="anisotropy")), fit=fit)
    file = CalibrationFile((made(), learned))
    path = tmp_path / "calibration.json"
    file.write(path)
    assert CalibrationFile.read(path) == file
    assert CalibrationFile.read(str(path)) == file
    assert list(tmp_path.iterdir()) == [path]


def test_no_prompt_is_spelt_out(tmp_path: Path) -> None:
    prompt = "a very private prompt"
    scores = {digest(prompt): 1.0} | scores_of(*[0.5] * 400)
    CalibrationFile((Calibration.of(SETTING, scores),)).write(tmp_path / "c.json")
    assert b"private" not in (tmp_path / "c.json").read_bytes()
    assert len(digest("\ud800")) == 12  # half a surrogate pair is no UTF-8


def test_writing_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        CalibrationFile((made(),)).write(tmp_path / "missing" / "calibration.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        CalibrationFile((made(),)).write(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_devices_and_pipes_are_no_calibrations(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(InputError, match="is a device or a pipe"):
            CalibrationFile.read(path)
        with pytest.raises(InputError, match="is a device or a pipe"):
            CalibrationFile((made(),)).write(path)
        with pytest.raises(InputError, match="is a device or a pipe"):
            require_place(path, "--output", replaced=True)
    assert pipe.is_fifo()


def test_reading_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(CalibrationError, match="cannot be read"):
            CalibrationFile.read(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe{}", b"\0", b'{"kind": ' + b"[" * 100_000],
    ids=["empty", "cut", "list", "utf16", "nul", "nested"],
)
def test_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "calibration.json"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=r"damaged.*Calibrate the bundle again"):
        CalibrationFile.read(path)


def changed(path: Path, change: dict[str, Any], *, inside: bool) -> Path:
    CalibrationFile((made(),)).write(path)
    content = json.loads(path.read_bytes())
    (content["calibrations"][0] if inside else content).update(change)
    path.write_text(json.dumps(content).replace('"HUGE"', "1e999"))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "something-else"}, "no calibration of this version"),
        ({"kind": None}, "no calibration of this version"),
        ({"schema": 1}, "no calibration of this version"),
        ({"schema": "2"}, "no calibration of this version"),
        ({"calibrations": 7}, "damaged"),
        ({"calibrations": [{}]}, "damaged"),
    ],
)
def test_a_file_that_is_no_calibration_of_ours(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(CalibrationError, match=message):
        CalibrationFile.read(changed(tmp_path / "c.json", change, inside=False))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fpr": "1 %"}, "damaged"),
        ({"fpr": 0.0}, "no usable threshold"),
        ({"delta": 1.0}, "no usable threshold"),
        ({"setting": {"bundle": 7}}, "damaged"),
        ({"scores": "low"}, "damaged"),
        ({"scores": [None]}, "damaged"),
        ({"scores": []}, "no usable scores"),
        ({"scores": [1.0]}, "no usable scores"),
        ({"threshold": "HUGE"}, "c.json"),
        ({"threshold": -1.0}, "below every score"),
        ({"positives": ["HUGE"]}, "c.json"),
    ],
)
def test_an_entry_that_is_no_calibration(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(CalibrationError, match=message):
        CalibrationFile.read(changed(tmp_path / "c.json", change, inside=True))


def test_two_calibrations_of_one_setting(tmp_path: Path) -> None:
    CalibrationFile((made(), made(first=1))).write(tmp_path / "c.json")
    with pytest.raises(CalibrationError, match="two calibrations of one setting"):
        CalibrationFile.read(tmp_path / "c.json")


def test_a_calibration_belongs_to_one_bundle() -> None:
    file = CalibrationFile((made(),))
    file.check("b" * 64)
    with pytest.raises(CalibrationError, match="made on bundle bbbbbbbbbbbb, not on aaaaaaaaaaaa"):
        file.check("a" * 64)


@pytest.mark.parametrize(
    "other",
    [
        replace(SETTING, backend="openvino"),
        replace(SETTING, detector="sharpness"),
        replace(SETTING, steps=2),
        replace(SETTING, noises=3),
    ],
)
def test_another_setting_is_not_found_and_the_error_says_what_makes_it(other: Setting) -> None:
    file = CalibrationFile((made(),))
    assert file.find(SETTING) == file.require(SETTING) == made()
    assert file.find(other) is None
    with pytest.raises(CalibrationError) as error:
        file.require(other)
    assert f"only of: {SETTING}" in str(error.value)
    assert (
        f"mnemoscope calibrate BUNDLE --benign FILE --backend {other.backend} --detector "
        f"{other.detector} --steps {other.steps} --noises {other.noises}" in str(error.value)
    )


@pytest.mark.parametrize(
    ("backend", "carries"),
    [
        ("openvino", True),
        ("openvino:float32", True),
        ("openvino:bfloat16", False),
        ("torch", False),
    ],
)
def test_carrying_over_is_advised_where_it_can_do(backend: str, carries: bool) -> None:
    there = replace(SETTING, backend=backend)
    for file, wanted in ((made(), there), (made(there), SETTING)):
        told = str(CalibrationFile((file,)).missing(wanted))
        assert ("calibration carry" in told) is carries
    carried = replace(made(there), carried=Carried("onnxruntime", 10, 0.0))
    assert "calibration carry" not in str(CalibrationFile((carried,)).missing(SETTING))


def test_a_new_calibration_replaces_the_old_one_of_its_setting() -> None:
    ten = made(replace(SETTING, steps=10))
    file = CalibrationFile((made(), ten)).with_([made(first=7)])
    assert file.calibrations == (made(first=7), ten)
