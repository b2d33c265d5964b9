"""Attempts to change what decides verdicts outside the bundle's hashes."""

from __future__ import annotations

import json
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from calibrations import SETTING, again, forge, made
from cli_support import Run, failed
from hypothesis import given, settings
from hypothesis import strategies as st

from mnemoscope import Calibration, CalibrationError, CalibrationFile, First, Gate, embedded
from mnemoscope.calibration import Carried
from mnemoscope.calibration.written import encode
from mnemoscope.detectors import Fit
from mnemoscope.screening.opening import CALIBRATION

from .flips import opened, tried


def several() -> tuple[Calibration, ...]:
    """A plain one, one that learned, a cascade, and one that was carried over."""
    fit, first = Fit(((0.5,),), ((1.0,),), (1.0,)), First("taps")
    return (
        made(count=320),
        again(made(count=310), setting=_other(detector="taps"), fit=fit),
        again(made(count=300), setting=_other(first=first), gate=Gate(0.1, made().scores[7], fit)),
        again(made(count=300), setting=_other(backend="x"), carried=Carried("y", 10, 1e-7)),
    )


def _other(**parts: Any) -> Any:
    return type(SETTING)(**{**vars(SETTING), **parts})


def test_flipped_bits_of_a_calibration() -> None:
    dice, text = random.Random(0), encode(several())
    read = CalibrationFile.from_json
    assert read(text, "c.json").calibrations == several()
    for place in (0, len(text) - 1, *(dice.randrange(len(text)) for _ in range(200))):
        changed = bytearray(text)
        changed[place] ^= 1 << dice.randrange(8)
        with pytest.raises(CalibrationError):
            read(bytes(changed), "c.json")


@pytest.mark.slow
def test_flipped_bits_of_a_bundle_and_its_calibration(tmp_path: Path) -> None:
    path = shutil.copytree(embedded.BUNDLE, tmp_path / "bundle")
    before, dice = opened(path), random.Random(1)
    for name in (CALIBRATION, "manifest.json", "noise_bank.npy"):
        assert tried(path, path / name, 20, dice) == (0, 0)
    assert opened(path) == before


@pytest.mark.parametrize("name", ["threshold", "weight"])
def test_a_changed_calibration_gives_no_verdict(run: Run, tmp_path: Path, name: str) -> None:
    path = shutil.copytree(embedded.BUNDLE, tmp_path / "bundle")
    content = (path / CALIBRATION).read_text()
    changed, count = re.subn(rf'("{name}":\[?)1', r"\g<1>3", content)  # one bit of each
    assert count >= 8
    (path / CALIBRATION).write_text(changed)
    result = run("screen", "--bundle", path, "a cat")
    failed(result, 4, CALIBRATION, "is not what was written (sha256)", "Calibrate the bundle again")


def test_what_was_learned_of_other_features(run: Run, tmp_path: Path) -> None:
    """One feature would be compared with each of the eight taps."""
    path = shutil.copytree(embedded.BUNDLE, tmp_path / "bundle")
    known, fit = CalibrationFile.read(path / CALIBRATION), Fit(((3.0,),), ((1.0,),), (1.0,))
    setting = replace(known.calibrations[0].setting, detector="taps")
    known.with_([again(known.require(setting), fit=fit)]).write(path / CALIBRATION)
    result = run("screen", "a cat", "--bundle", path, "--detector", "taps", "--noises", 1)
    failed(result, 4, "learned is of 1 feature at 1 step, and it measured 8 at 1")


@pytest.mark.parametrize("text", ["onnxruntime", "[]", '{"state": 7}', "[" * 10_000])
def test_a_guards_calibration_that_says_nothing_of_the_pipeline(text: str) -> None:
    from mnemoscope.guard.identity import Identity
    from mnemoscope.guard.setting import known

    forged = made(_other(detector="guard", backend=text))
    with pytest.raises(CalibrationError, match="does not say which pipeline it is of"):
        known(CalibrationFile((forged,)), Identity({}, {}), None)


VALUES = st.one_of(
    st.sampled_from([0, -1, 1, 2**63, 10**40, 1e308, -1e308, 5e-324, True, None, "", "x", [], {}]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=3),
    st.lists(st.floats(-1, 1), max_size=3),
)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), VALUES, st.integers(0, 3))
def test_forged_calibrations(tmp_path_factory: Any, place: int, value: Any, which: int) -> None:
    """Any value in place of any other, with a true digest: refused, or what it says is consistent.

    What follows from nothing else (names, the level of a gate, what was learned) is the forger's
    to choose: that takes a signature.
    """
    path = tmp_path_factory.getbasetemp() / "forged.json"
    path.write_bytes(encode((several()[which],)))

    def change(text: str) -> str:
        parts = json.loads(text)
        holders = list(_places(parts))
        holder, key = holders[place % len(holders)]
        holder[key] = value if holder[key] != value or type(holder[key]) is bool else "other"
        return json.dumps(parts)

    forge(path, change)
    try:
        [found] = CalibrationFile.read(path).calibrations
    except CalibrationError:
        return
    assert again(found).threshold == found.threshold


def _places(value: Any) -> Any:
    """Every place in JSON that holds something: who holds it, and where."""
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(each, dict | list):
            yield from _places(each)
