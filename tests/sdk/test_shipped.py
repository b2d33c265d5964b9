"""Models that ship, by name in Python."""

from pathlib import Path

import pytest

from mnemoscope import Detector, InputError, embedded
from mnemoscope.calibration.file import CalibrationFile
from mnemoscope.shipped import bundle_at, model_at, model_of

FLOW = embedded.SHIPPED["embedded-flow"]


def test_names_paths_and_the_default(tmp_path: Path) -> None:
    assert bundle_at("embedded-flow") == bundle_at(Path("embedded-flow")) == FLOW.bundle
    assert model_at("embedded-flow") == str(FLOW.model)
    assert bundle_at(None) == bundle_at("embedded") == embedded.BUNDLE
    assert model_at(None) == model_at("embedded") == str(embedded.MODEL)
    assert bundle_at(tmp_path) == bundle_at(str(tmp_path)) == tmp_path
    assert model_at("owner/embedded-flow") == "owner/embedded-flow"  # of the hub


def test_the_model_of_a_bundle_that_ships_is_known(tmp_path: Path) -> None:
    assert model_of(FLOW.bundle, None) == str(FLOW.model)
    assert model_of(embedded.BUNDLE, None) == str(embedded.MODEL)
    assert model_of(FLOW.bundle, "mine") == "mine"
    assert (model_of(tmp_path, None), model_of(None, None), model_of(None, "m")) == (
        None,
        None,
        "m",
    )


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("embeded-flow", "embedded-flow"),
        ("embedded_flow", "embedded-flow"),
        ("Embedded Flow", "embedded-flow"),
        ("flow", "embedded-flow"),
        ("Embedded", "embedded"),
        ("embeded", "embedded"),
    ],
)
def test_what_is_nearly_a_name_is_asked_about(
    text: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place_of in (bundle_at, model_at):
        with pytest.raises(InputError, match=f"no {text} here. Did you mean {meant}, which ships"):
            place_of(text)
    (tmp_path / text).mkdir()
    assert bundle_at(text) == Path(text)


@pytest.mark.parametrize("text", ["bundle", "my-bundle", "model", "flux", "sd", "", "x" * 5000])
def test_other_names_are_left_alone(text: str) -> None:
    assert model_at(text) == text


def test_what_else_has_that_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "embedded").mkdir()
    with pytest.raises(InputError, match="and of what is here too"):
        bundle_at("embedded")
    assert bundle_at("./embedded") == Path("embedded")


def test_entry_points_know_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mnemoscope.calibration.carrying import carry
    from mnemoscope.detectors import open_statistic
    from mnemoscope.drawing.generate import generate
    from mnemoscope.drawing.pictures import Decoder
    from mnemoscope.explain import load_model
    from mnemoscope.mitigate import Painter

    with Detector.load("embedded-flow", uncalibrated="score") as detector:
        assert detector.screener.bundle.path == FLOW.bundle
    monkeypatch.chdir(tmp_path)
    file = CalibrationFile.read(embedded.BUNDLE / "calibration.json")
    for opened in (
        Detector.load,
        Decoder.load,
        load_model,
        Painter.load,
        lambda name: generate("a cat", model=name),
        lambda name: open_statistic("copy-similarity", name),
        lambda name: carry(file, name, source="onnxruntime", target="openvino"),
    ):
        with pytest.raises(InputError, match="Did you mean embedded-flow"):
            opened("embeded-flow")
