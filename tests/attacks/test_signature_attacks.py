"""Attempts to have verdicts come from what the trusted key did not sign."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from signature_support import FILES, flip, load, signs

from mnemoscope import CalibrationFile, Detector
from mnemoscope.calibration import Calibration
from mnemoscope.screening.opening import CALIBRATION
from mnemoscope.signing import make_keys
from mnemoscope_runtime import Bundle, SignatureError
from mnemoscope_runtime.bundle import MANIFEST
from mnemoscope_runtime.selection import try_backends
from mnemoscope_runtime.signatures import check_signature
from mnemoscope_runtime.testing import FakeBackend


def test_what_is_signed_is_loaded(signed: Path, keys: tuple[Path, Path]) -> None:
    load(signed, keys[1])
    load(signed, str(keys[1]))  # type: ignore[arg-type]  # as users write it


def cut(place: Path) -> None:
    place.write_bytes(place.read_bytes()[:-1])


def of_another_key(place: Path) -> None:
    other = place.with_name("other")
    make_keys(other)
    signs(place.with_suffix(""), other)


def of_the_other_file(place: Path) -> None:
    other = {MANIFEST: CALIBRATION, CALIBRATION: MANIFEST}[place.stem]
    shutil.copy(place.with_name(f"{other}.sig"), place)


def pipe(place: Path) -> None:
    place.unlink()
    os.mkfifo(place)


def endless(place: Path) -> None:
    place.unlink()
    place.symlink_to("/dev/zero")


def folder(place: Path) -> None:
    place.unlink()
    place.mkdir()


def long(place: Path) -> None:
    place.write_bytes(place.read_bytes() + b"\n")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (Path.unlink, "is not signed"),
        (cut, "is not .* signature"),
        (flip, "is not .* signature"),
        (of_another_key, "is not .* signature"),
        (of_the_other_file, "is not .* signature"),
        (long, "cannot be read: it has more than 64 bytes"),
        (pipe, "cannot be read: it is a device or a pipe"),
        (endless, "cannot be read: it is a device or a pipe"),
        (folder, "cannot be read"),
    ],
)
def test_signatures_that_are_none(
    signed: Path, keys: tuple[Path, Path], name: str, attack: Callable[[Path], None], words: str
) -> None:
    attack(signed / f"{name}.sig")
    with pytest.raises(SignatureError, match=words):
        load(signed, keys[1])


def forged(calibration: Calibration) -> Calibration:
    """Consistent in itself: nothing that it says but what was measured tells it from a true one."""
    scores = dict.fromkeys(calibration.prompts, 1e6)
    return Calibration.of(calibration.setting, scores, fit=calibration.fit)


def test_a_forger_who_makes_true_digests(signed: Path, keys: tuple[Path, Path]) -> None:
    known = CalibrationFile.read(signed / CALIBRATION)
    replace(known, calibrations=tuple(map(forged, known.calibrations))).write(signed / CALIBRATION)
    with Detector.load(signed, backend=FakeBackend(), uncalibrated="score"):
        pass  # which a digest does not stop
    with pytest.raises(SignatureError, match=rf"signature of .*{CALIBRATION}"):
        load(signed, keys[1])


def test_a_forger_who_makes_true_hashes(signed: Path, keys: tuple[Path, Path]) -> None:
    content = (signed / MANIFEST).read_text()
    (signed / MANIFEST).write_text(content.replace('"guidance": 7.5', '"guidance": 7.6'))
    assert Bundle.open(signed).manifest.guidance == 7.6
    for backend in (FakeBackend(), "auto"):
        with pytest.raises(SignatureError, match=rf"signature of .*{MANIFEST}"):
            Detector.load(signed, backend=backend, trust=keys[1])


def test_no_backend_is_tried_on_what_is_not_signed(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (signed / f"{MANIFEST}.sig").unlink()
    with pytest.raises(SignatureError, match="is not signed"):
        next(try_backends(signed, trust=keys[1]))
    tried = "mnemoscope.screening.opening.try_backends"
    monkeypatch.setattr(tried, lambda *_: pytest.fail("one was tried"))
    with pytest.raises(SignatureError, match="is not signed"):
        Detector.load(signed, backend="auto", trust=keys[1])


def test_a_calibration_elsewhere(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    file = Path(shutil.copy(signed / CALIBRATION, tmp_path / "mine.json"))
    with pytest.raises(SignatureError, match=r"mine\.json is not signed"):
        Detector.load(signed, backend=FakeBackend(), trust=keys[1], calibration=file)
    signs(file, keys[0])
    Detector.load(signed, backend=FakeBackend(), trust=keys[1], calibration=file).close()


def test_what_is_parsed_is_what_was_checked(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that change between the check and the use."""
    before = Bundle.open(signed).id, CalibrationFile.read(signed / CALIBRATION)

    def swap(file: Path, content: bytes, trust: Path) -> None:
        check_signature(file, content, trust)
        file.unlink()
        file.symlink_to("/dev/zero")

    for module in ("mnemoscope_runtime.bundle", "mnemoscope.calibration.file"):
        monkeypatch.setattr(f"{module}.check_signature", swap)
    found = CalibrationFile.read(signed / CALIBRATION, trust=keys[1])
    assert (Bundle.open(signed, trust=keys[1]).id, found) == before
