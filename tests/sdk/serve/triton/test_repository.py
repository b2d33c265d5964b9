from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_support import Run, calibrate, copied, damaged, failed, foreign

from mnemoscope import Detector, embedded
from mnemoscope.screening.opening import own_calibration
from mnemoscope.serve.triton import ModelOptions, write_model
from mnemoscope.serve.triton.config import Scheduling
from mnemoscope.signing import make_keys, private_key, sign
from mnemoscope_runtime import Bundle, CalibrationError, ExportError, InputError, IntegrityError


def test_it_holds_the_bundle_as_it_was_verified(tmp_path: Path) -> None:
    out = write_model(tmp_path / "models")
    assert out == tmp_path / "models" / "mnemoscope"
    bundle = out / "1" / "bundle"
    assert Bundle.open(bundle).id == Bundle.open(embedded.BUNDLE).id
    own, given = (each / "calibration.json" for each in (bundle, embedded.BUNDLE))
    assert own.read_bytes() == given.read_bytes()
    assert {each.name for each in out.iterdir()} == {"1", "config.pbtxt", "warmup"}
    assert (out / "warmup" / "prompt").read_bytes() == b"\x05\0\0\0a cat"
    assert list((tmp_path / "models").iterdir()) == [out]  # and nothing staged is left


def test_another_calibration_takes_the_place_of_its_own(tmp_path: Path) -> None:
    file = calibrate(embedded.BUNDLE, 0.25, tmp_path / "mine.json")
    out = write_model(tmp_path, calibration=file)
    with Detector.load(out / "1" / "bundle") as detector:
        found = detector.calibrated()
        assert found is not None
        assert found.threshold == pytest.approx(0.25)


def test_what_ships_goes_by_its_name(tmp_path: Path) -> None:
    written = write_model(tmp_path, "embedded-flow")
    assert Bundle.open(written / "1/bundle").id == Bundle.open(embedded.FLOW_BUNDLE).id
    with pytest.raises(InputError, match="Did you mean embedded-flow"):
        write_model(tmp_path, "embeded-flow", name="other")
    with pytest.raises(CalibrationError, match=f"which {re.escape(str(embedded.BUNDLE))} is"):
        write_model(tmp_path, calibration=own_calibration(embedded.FLOW_BUNDLE), name="other")


def test_only_a_model_of_tritons_is_replaced(tmp_path: Path) -> None:
    out = write_model(tmp_path)
    with pytest.raises(ExportError, match="exists already"):
        write_model(tmp_path)
    (out / "1" / "old").touch()
    write_model(tmp_path, options=ModelOptions(steps=10), overwrite=True)
    assert not (out / "1" / "old").exists()
    assert 'string_value: "10"' in (out / "config.pbtxt").read_text()
    (tmp_path / "photos").mkdir()
    with pytest.raises(ExportError, match="no model of Triton's"):
        write_model(tmp_path, name="photos", overwrite=True)


def test_nothing_is_left_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("mnemoscope_export.publish._sync", fail)
    with pytest.raises(ExportError, match="no space left"):
        write_model(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_trusted_is_not_copied(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError):
        write_model(tmp_path / "models", damaged(embedded.BUNDLE, tmp_path / "bundle"))
    with pytest.raises(CalibrationError):
        write_model(tmp_path / "models", calibration=foreign(tmp_path / "foreign.json"))
    assert not (tmp_path / "models").exists()


def test_signatures_are_copied_with_what_they_are_of(tmp_path: Path) -> None:
    bundle = copied(embedded.BUNDLE, tmp_path / "bundle")
    make_keys(tmp_path / "key")
    signer = private_key(tmp_path / "key")
    for name in ("manifest.json", "calibration.json"):
        sign(bundle / name, (bundle / name).read_bytes(), signer)
    public = str(tmp_path / "key.pub")
    out = write_model(tmp_path / "models", bundle, ModelOptions(trust=public))
    Detector.load(out / "1" / "bundle", trust=public).close()


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b", "a b"])
def test_a_name_is_one_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be called"):
        write_model(tmp_path, name=name)


def test_what_will_not_be_loaded_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    write_model(tmp_path, options=ModelOptions(steps=10), tell=told.append)
    assert not told
    write_model(tmp_path, name="other", options=ModelOptions(steps=3), tell=told.append)
    [note] = told
    assert str(tmp_path / "other") in note
    assert "mnemoscope calibrate" in note


def test_the_command(tmp_path: Path, run: Run) -> None:
    options = ["--threads", 2, "--instances", 2, "--max-batch", 4, "--environment", '/opt/"e"']
    result = run("triton", tmp_path, embedded.BUNDLE, "--name", "mine", *options)
    assert result.code == 0, result.err
    assert result.out == f"{tmp_path / 'mine'}\n"
    text = (tmp_path / "mine" / "config.pbtxt").read_text()
    for part in ('name: "mine"', "max_batch_size: 4", "count: 2", r'string_value: "/opt/\"e\""'):
        assert part in text
    failed(run("triton", tmp_path, "--name", "mine"), 2, "--overwrite")
    failed(run("triton", tmp_path, "--backend", "auto"), 2, "auto")


def test_scheduling_stands_in_the_config(tmp_path: Path) -> None:
    out = write_model(tmp_path, scheduling=Scheduling(instances=5))
    assert "count: 5" in (out / "config.pbtxt").read_text()


def test_export_writes_one_as_well(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(_: object, out: Path, *__: object, **___: object) -> Bundle:
        copied(embedded.BUNDLE, out)
        (out / "calibration.json").unlink()  # which a new bundle has not
        return Bundle.open(out)

    monkeypatch.setattr("mnemoscope_export.export_bundle", export)
    bundle, models = tmp_path / "bundle", tmp_path / "models"
    result = run("export", "model", bundle, "--triton", models)
    assert result.code == 0, result.err
    assert result.out.splitlines()[-1] == str(models / "mnemoscope")
    inner = models / "mnemoscope" / "1" / "bundle"
    assert f"before {inner} is calibrated" in result.err
    assert f"`mnemoscope calibrate {inner} --benign FILE" in result.err
    assert Bundle.open(inner).id == Bundle.open(bundle).id
    failed(run("export", "model", tmp_path / "other", "--triton", models), 2, "--overwrite")
    assert not (tmp_path / "other").exists()  # nothing was done in vain
