from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from service_support import MEMORISED, fake_detector

from mnemoscope import Detection, InputError, NumericsError, ServiceClosed
from mnemoscope.serve.service.answer import DEFAULT, OUTPUTS, columns, judged, outputs


@pytest.fixture(scope="module")
def found() -> list[Detection]:
    with fake_detector() as detector:
        return detector.screen(["a cat", MEMORISED, "word " * 100])


def test_every_output_is_what_a_detection_calls_so(found: list[Detection]) -> None:
    told = columns(found, OUTPUTS, show_scores=True)
    assert [each.output.name for each in told] == list(OUTPUTS)
    assert {*OUTPUTS} < {each.name for each in fields(Detection)}
    for column in told:
        for value, detection in zip(column.array().tolist(), found, strict=True):
            expected = getattr(detection, column.output.name)
            if column.output.datatype == "FP32":
                assert value == np.float32(expected)
            elif column.output.name == "notes":
                assert value.decode() == " ".join(expected)
            elif column.output.datatype == "BYTES":
                assert value.decode() == (expected or "")
            else:
                assert value == expected


def test_datatypes(found: list[Detection]) -> None:
    dtypes = {"FP32": "<f4", "INT32": "<i4", "BOOL": "|b1", "BYTES": "|O"}
    for column in columns(found, OUTPUTS, show_scores=True):
        assert column.array().dtype.str == dtypes[column.output.datatype]
        assert column.array().shape == (3,)


def test_scores_are_hidden_unless_told(found: list[Detection]) -> None:
    names = outputs(show_scores=False)
    told = {each.output.name: each for each in columns(found, names, show_scores=False)}
    hidden = {name for name, each in told.items() if all(v != v for v in each.values)}
    assert hidden == {"score", "p_value", "threshold", "rms"}
    assert told["memorized"].values == (False, True, True)
    # nothing of a detection from which a score could be worked out is told by another name
    for name in names.keys() - hidden:
        other = {"score": 9.0, "scores": (9.0,), "rms": 9.0, "p_value": 0.9, "threshold": 8.0}
        changed = [replace(each, **other, seconds=9.0, passes=9, cleared=True) for each in found]
        [column] = columns(changed, [name], show_scores=False)
        assert column.values == told[name].values


@pytest.mark.parametrize("name", ["cleared", "passes"])  # which tell of the first stage's score
def test_what_cannot_be_hidden_is_not_there(name: str) -> None:
    assert OUTPUTS.keys() - outputs(show_scores=False).keys() == {"cleared", "passes"}
    with pytest.raises(InputError, match=f"no output '{name}'"):
        columns((), [name], show_scores=False)


def test_what_a_detection_does_not_have_is_no_number(found: list[Detection]) -> None:
    [column] = columns([replace(found[0], rms=None)], ["rms"], show_scores=True)
    assert math.isnan(column.array()[0])


def test_outputs_without_names(found: list[Detection]) -> None:
    assert tuple(each.output.name for each in columns(found, show_scores=False)) == DEFAULT


@pytest.mark.parametrize(
    ("names", "words"),
    [(["scores"], "no output 'scores'"), (["score", "score"], "Two outputs are called 'score'")],
)
def test_outputs_that_there_are_not(names: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        columns((), names, show_scores=True)


def test_what_has_no_verdict_is_an_error(found: list[Detection]) -> None:
    with fake_detector() as detector:
        [empty] = detector.screen([""])
    assert empty.memorized is None
    with pytest.raises(
        InputError, match=r"Prompt 1 \(counted from 0\) has no verdict\. It is empty"
    ):
        judged([found[0], empty])
    uncalibrated = replace(found[0], memorized=None)
    with pytest.raises(
        InputError, match=r"Prompt 0 \(counted from 0\) has no verdict\. .*without a calibration"
    ):
        judged([uncalibrated])
    assert judged(found) == found


def test_the_first_error_is_the_requests(found: list[Detection]) -> None:
    with pytest.raises(NumericsError, match=r"^no number$"):
        judged([NumericsError("no number"), InputError("bad")])
    with pytest.raises(
        NumericsError, match=r"no number \(Counted from prompt 1 of the request\.\)"
    ):
        judged([found[0], NumericsError("no number")])
    with pytest.raises(ServiceClosed):
        judged([found[0], ServiceClosed()])
