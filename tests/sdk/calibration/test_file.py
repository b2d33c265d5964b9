from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calibrations import SETTING, again, forge, made, scores_of

from mnemoscope import (
    Calibration,
    CalibrationError,
    CalibrationFile,
    First,
    Gate,
    InputError,
    Setting,
    SignatureError,
)
from mnemoscope.calibration import Carried, digest
from mnemoscope.calibration.written import text_of
from mnemoscope.detectors import Fit
from mnemoscope.outputs import require_place
from mnemoscope.signing import make_keys, private_key, sign


def test_files_merge_setting_by_setting() -> None:
    ten = replace(SETTING, steps=10)
    first = CalibrationFile((made(), made(ten)))
    second = CalibrationFile((made(first=300), made(replace(SETTING, backend="openvino"))))
    merged = first.merged(second)
    assert [len(each.scores) for each in merged.calibrations] == [700, 400, 400]
    with pytest.raises(CalibrationError, match="made on bundle cccccccccccc"):
        first.merged(CalibrationFile((made(replace(SETTING, bundle="c" * 64)),)))


# cascades


FIRST = replace(SETTING, first=First("taps", clear=0.8))


def cascade(floor: float = made().scores[7], **changes: Any) -> Calibration:
    return again(made(count=500), **{"setting": FIRST, "gate": Gate(0.1, floor)} | changes)


def test_a_cascade_survives_being_written_and_read(tmp_path: Path) -> None:
    fit = Fit(((0.5,),), ((1.0,),), (1.0,))
    gate = Gate(-1.0, made().scores[0], fit)
    file = CalibrationFile((made(), cascade(gate=gate, among=3)))
    file.write(tmp_path / "c.json")
    assert CalibrationFile.read(tmp_path / "c.json") == file


@pytest.mark.parametrize("schema", [2, 3])
def test_files_from_before_digests_are_updated(tmp_path: Path, schema: int) -> None:
    path = tmp_path / "c.json"
    CalibrationFile((made(),)).write(path)
    content = json.loads(path.read_bytes())
    [each] = (entry["calibration"] for entry in content["calibrations"])
    if schema == 2:  # which knew no cascades
        del each["gate"], each["among"], each["setting"]["first"]
    old = json.dumps(content | {"schema": schema, "calibrations": [each]}).encode()
    path.write_bytes(old)
    for read in (CalibrationFile.read, lambda _: CalibrationFile.from_json(old, str(path))):
        with pytest.raises(CalibrationError, match=rf"`mnemoscope calibration update {path}` adds"):
            read(path)
    found = CalibrationFile.read(path, older=True)
    assert found.calibrations == (made(),)
    assert text_of(found.calibrations[0]) == text_of(made())  # what an audit goes on with
    path.write_bytes(old.replace(b'"threshold": 0.9', b'"threshold": 1.9'))
    with pytest.raises(CalibrationError, match=r"a threshold of 1\.9"):
        CalibrationFile.read(path, older=True)


def test_a_first_stage_is_part_of_the_setting() -> None:
    file = CalibrationFile((made(), cascade()))
    other = replace(SETTING, first=First("taps", clear=0.9))
    assert file.find(cascade().setting) == cascade()
    assert file.find(SETTING) == made()
    assert file.find(other) is None
    with pytest.raises(CalibrationError) as error:
        file.require(other)
    assert "after taps at 1 step on 1 noise, which clears 0.8, onnx" in str(error.value)
    assert "--first taps --first-steps 1 --first-noises 1 --clear 0.9` makes" in str(error.value)
    with pytest.raises(CalibrationError, match="cannot become one"):
        cascade().merged(cascade(made().scores[8]))


def test_intervals_of_a_chosen_setting_are_wider() -> None:
    rate, low, high = made().tpr() or (0, 0, 0)
    shared, lower, higher = again(made(count=600), among=5).tpr() or (0, 0, 0)
    assert rate == shared
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


def test_scores_around_the_threshold_can_be_read(tmp_path: Path) -> None:
    values = np.random.default_rng(1).random(400)
    some_above = Calibration.of(SETTING, scores_of(*values), fpr=0.2)
    all_on_it = Calibration.of(replace(SETTING, steps=2), scores_of(*[0.0] * 400))
    assert min(values) < some_above.threshold < max(values)
    assert all_on_it.threshold == 0
    file = CalibrationFile((some_above, all_on_it))
    file.write(tmp_path / "c.json")
    assert CalibrationFile.read(tmp_path / "c.json") == file


def test_a_prompts_name_is_a_piece_of_its_hash() -> None:
    assert digest("a very private prompt") == "fb4b4d7b6eda"
    assert len(digest("\ud800")) == 12  # half a surrogate pair is no UTF-8


def test_what_others_add_meanwhile_stays(tmp_path: Path) -> None:
    path, kept = tmp_path / "c.json", tmp_path / "c.json.unfinished"
    first, second = made(), made(replace(SETTING, steps=2))
    for each in (first, second):
        CalibrationFile.extend(path, [each])
    assert CalibrationFile.read(path).calibrations == (first, second)
    before = path.read_bytes()
    with pytest.raises(CalibrationError, match=rf"made on bundle b.* measured is in {kept}"):
        CalibrationFile.extend(path, [made(replace(SETTING, bundle="c" * 64))])
    assert path.read_bytes() == before
    path.write_bytes(before[:-9])
    with pytest.raises(CalibrationError, match=rf"is damaged.* measured is in {kept}"):
        CalibrationFile.extend(path, [first])
    assert CalibrationFile.read(kept).calibrations == (first,)


def test_writing_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        CalibrationFile((made(),)).write(tmp_path / "missing" / "calibration.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        CalibrationFile((made(),)).write(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_devices_and_pipes_are_no_calibrations(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe.json", tmp_path / "link.json"
    os.mkfifo(pipe)
    link.symlink_to("/dev/zero")
    for path in (pipe, link, Path("/dev/zero")):
        with pytest.raises(CalibrationError, match="cannot be read: it is a device or a pipe"):
            CalibrationFile.read(path)
        with pytest.raises(InputError, match="is a device or a pipe"):
            CalibrationFile((made(),)).write(path)
        with pytest.raises(InputError, match="is a device or a pipe"):
            require_place(path, "--output", regular=True)
    assert pipe.is_fifo()


def test_a_file_of_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    with path.open("wb") as file:
        file.truncate(8 * 2**30)  # sparse: it takes no room on the disk
    with pytest.raises(CalibrationError, match="it has more than 67,108,864 bytes"):
        CalibrationFile.read(path)


def test_reading_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(CalibrationError, match="cannot be read"):
            CalibrationFile.read(path)


SOMETHING_ELSE = r"is no calibration, .* Name a file that"
DAMAGED = r"damaged.*Calibrate the bundle again"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", SOMETHING_ELSE),
        (b"{", SOMETHING_ELSE),
        (b"[]", SOMETHING_ELSE),
        (b"\xff\xfe{}", SOMETHING_ELSE),
        (b"\0", SOMETHING_ELSE),
        (b"prompt\na cat\n", SOMETHING_ELSE),
        (b'{"prompt": "a"}\n{"prompt": "b"}', SOMETHING_ELSE),
        (b'"mnemoscope-calibration"', DAMAGED),
        (b'{"kind": "mnemoscope-calibration", "x": ' + b"[" * 100_000, DAMAGED),
    ],
    ids=["empty", "cut", "list", "utf16", "nul", "csv", "jsonl", "text", "nested"],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=words):
        CalibrationFile.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "something-else"}, "no calibration, or the rest of one"),
        ({"kind": None}, "no calibration, or the rest of one"),
        ({"schema": 1}, "no calibration of this version"),
        ({"schema": "4"}, "no calibration of this version"),
        ({"schema": 4.0}, "damaged"),
        ({"schema": 3}, "damaged"),
        ({"calibrations": 7}, "damaged"),
        ({"calibrations": [{}]}, "damaged"),
        ({"comment": "mine"}, "damaged"),
    ],
)
def test_a_file_that_is_no_calibration_of_ours(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "c.json"
    CalibrationFile((made(),)).write(path)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    with pytest.raises(CalibrationError, match=message):
        CalibrationFile.read(path, older=True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"fpr":0.01', '"fpr":"1 %"', "damaged"),
        ('"fpr":0.01', '"fpr":0.01,"fpr":0.01', "it says 'fpr' twice"),
        ('"fpr":0.01', '"fpr":0.01,"lora":1', "it says lora, which this version does not know"),
        ('"fpr":0.01', '"fpr":0.001', "cannot promise"),
        ('"steps":1', '"steps":0', "damaged"),
        ('"threshold":0.', '"threshold":1.', "a threshold of 1."),
        ('"threshold":0.', '"threshold":NaN,"x":0.', "NaN is no number"),
        ('"positives":[2.0', '"positives":[1e999', "damaged"),
        ('"positives":[2.0', '"positives":[-2.0', "below 0"),
    ],
)
def test_an_entry_that_is_no_calibration(tmp_path: Path, old: str, new: str, message: str) -> None:
    """Whoever makes one that says so can make its digest, too."""
    path = tmp_path / "c.json"
    CalibrationFile((made(),)).write(path)
    forge(path, lambda text: text.replace(old, new))
    with pytest.raises(CalibrationError, match=message):
        CalibrationFile.read(path)


def test_two_calibrations_of_one_setting(tmp_path: Path) -> None:
    CalibrationFile((made(), made(first=1))).write(tmp_path / "c.json")
    with pytest.raises(CalibrationError, match="two calibrations of one setting"):
        CalibrationFile.read(tmp_path / "c.json")


def test_a_calibration_belongs_to_one_bundle() -> None:
    file = CalibrationFile((made(),))
    file.check("b" * 64)
    words = "made on bundle bbbbbbbbbbbb, not on aaaaaaaaaaaa"
    with pytest.raises(CalibrationError, match=f"{words}: its.*calibrate BUNDLE --benign"):
        file.check("a" * 64)
    with pytest.raises(CalibrationError, match=f"{words}, which here is: .*calibrate here --ben"):
        file.check("a" * 64, Path("here"))


def test_who_trusts_a_key_reads_what_it_signed(tmp_path: Path) -> None:
    path, public = tmp_path / "c.json", make_keys(tmp_path / "key.pem")
    CalibrationFile((made(),)).write(path)
    with pytest.raises(SignatureError):
        CalibrationFile.read(path, trust=public)
    sign(path, path.read_bytes(), private_key(tmp_path / "key.pem"))
    assert CalibrationFile.read(path, trust=public).calibrations == (made(),)


@pytest.mark.parametrize(
    ("backend", "detector", "by_command"),
    [
        ("onnxruntime", "magnitude", True),
        ("openvino:bfloat16", "tap:up_blocks.0", True),
        ("torch-compiled:float16", "taps", True),
        ("mine", "magnitude", False),
        ("mine-torch", "magnitude", False),
        ("onnxruntime", "mine", False),
        ("torch", "mine", False),
    ],
)
def test_a_command_is_advised_where_it_knows_the_names(
    backend: str, detector: str, by_command: bool
) -> None:
    told = str(CalibrationFile(()).missing(replace(SETTING, backend=backend, detector=detector)))
    assert ("`mnemoscope calibrate BUNDLE" in told) is by_command
    assert ("mnemoscope.calibrate(" in told) is not by_command


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


def test_what_is_calibrated_is_named_from_the_nearest_on_and_not_all_of_it() -> None:
    near = [replace(SETTING, steps=steps) for steps in range(1, 7)]
    far = [replace(SETTING, detector="sharpness")]

    def told(settings: list[Setting]) -> str:
        file = CalibrationFile(tuple(map(made, settings)))
        return str(file.missing(replace(SETTING, steps=50)))

    listed = "; ".join(map(str, near[:4]))
    assert f"only of: {listed}." in told([*far, *near[:4]])
    assert f"only of: {listed}; and 2 more." in told([*far, *near])
    assert f"only of: {far[0]}." in told(far)


def test_others_are_named_from_the_same_detector_and_engine_on() -> None:
    sharp, ten = replace(SETTING, detector="sharpness"), replace(SETTING, steps=10)
    engine = replace(SETTING, backend="openvino")
    sharp_engine = replace(engine, detector="sharpness")
    known = (sharp, SETTING, sharp_engine, ten, engine)
    told = str(
        CalibrationFile(tuple(map(made, known))).missing(
            replace(SETTING, backend="openvino:float32")
        )
    )
    near = "; ".join(map(str, (engine, SETTING, ten, sharp_engine)))
    assert f"only of: {near}; and 1 more." in told
    assert "carry BUNDLE --from openvino --to openvino:float32`" in told


def test_backends_on_which_a_detector_is_calibrated() -> None:
    ten, other = replace(SETTING, steps=10), replace(SETTING, backend="openvino")
    sharp = replace(SETTING, detector="sharpness", backend="torch")
    file = CalibrationFile((*map(made, (other, SETTING, ten, sharp)), cascade()))
    assert file.backends("magnitude") == ["openvino", "onnxruntime"]
    assert file.backends("sharpness") == ["torch"]
    assert file.backends("magnitude", cascade().setting.first) == ["onnxruntime"]
    assert file.backends("magnitude", First("sharpness", clear=0.8)) == []


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
