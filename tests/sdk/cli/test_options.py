"""Options of backends are the same on every command; results that cannot be written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from cli_support import Run, calibrate, copied, failed

from mnemoscope import Detector, InputError, embedded
from mnemoscope.detectors import DETECTORS
from mnemoscope_runtime import Screener
from mnemoscope_runtime.testing import FakeBackend

VERBS = ["screen", "audit", "calibrate", "evaluate", "explain", "mitigate", "bench", "parity"]
VERBS += ["doctor", "calibration carry"]
NOWHERE = Path("/proc")  # a folder in which nobody can write, root included


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_takes_them(run: Run, verb: str) -> None:
    out = run(*verb.split(), "--help").out
    for option in ("--threads", "--device", "--engines", "--batch", "--contexts"):
        assert f" {option} " in out
    assert "--backend" in out or "--from" in out


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What backends are asked for; all of them are fake."""
    found: list[tuple[str, dict[str, Any]]] = []

    def open_backend(name: str, **options: Any) -> FakeBackend:
        found.append((name, {k: v for k, v in options.items() if v is not None}))
        return FakeBackend()

    monkeypatch.setattr("mnemoscope_runtime.predictor.open_backend", open_backend)
    return found


def test_they_arrive(
    run: Run, opened: list[tuple[str, dict[str, Any]]], bundle_dir: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "p.txt"
    prompts.write_text("\n".join(f"a cat, number {i}" for i in range(60)))
    calibration = calibrate(bundle_dir, 9.0, tmp_path / "c.json", backend="fake")
    engines = tmp_path / "engines"
    gpu = ("--device", 1, "--engines", engines, "--contexts", 2)
    on = ("--bundle", bundle_dir, "--backend", "tensorrt", *gpu)
    known = ("--calibration", calibration)
    told = ("tensorrt", {"device": 1, "engines": engines, "contexts": 2})
    for args in (
        ("screen", "a cat", *on),
        ("explain", "a cat", *on, "--no-edits"),
        ("audit", prompts, "--output", tmp_path / "r.csv", *on, *known),
        (
            "calibrate",
            bundle_dir,
            "--benign",
            prompts,
            "--fpr",
            0.1,
            "-o",
            tmp_path / "n.json",
            "--backend",
            "tensorrt",
            *gpu,
        ),
    ):
        opened.clear()
        result = run(*args)
        assert result.code in (0, 1, 5), result
        assert opened == [told], args
    others = tmp_path / "o.txt"
    others.write_text("\n".join(f"rain, number {i}" for i in range(60)))
    opened.clear()
    run("evaluate", bundle_dir, "--positives", prompts, "--negatives", others, *on[2:])
    assert opened == [told]


def test_of_several_backends_each_gets_its_own(
    run: Run, opened: list[tuple[str, dict[str, Any]]], bundle_dir: Path, tmp_path: Path
) -> None:
    options = ("--threads", 2, "--device", 1, "--engines", tmp_path, "--contexts", 2)
    run("bench", bundle_dir, "--backends", "onnxruntime,tensorrt", "--rounds", 1, *options)
    assert opened == [
        ("onnxruntime", {"threads": 2}),
        ("tensorrt", {"device": 1, "engines": tmp_path, "contexts": 2}),
    ]
    for verb in (("bench", bundle_dir, "--backends"), ("doctor", bundle_dir, "--backend")):
        result = run(*verb, "onnxruntime,openvino", "--engines", tmp_path)
        failed(result, 2, "onnxruntime, openvino take no engines", "tensorrt, tensorrt-rtx")


@pytest.mark.parametrize("verb", [("screen", "a cat"), ("explain", "a cat")])
def test_what_a_backend_does_not_take_is_refused(
    run: Run, bundle_dir: Path, verb: tuple[str, ...]
) -> None:
    result = run(*verb, "--bundle", bundle_dir, "--device", 0)
    failed(result, 2, "onnxruntime takes no device", "onnxruntime-cuda")
    result = run(*verb, "--bundle", bundle_dir, "--backend", "torch", "--engines", "x")
    failed(result, 2, "torch runs the model itself, and takes no engines")


def test_in_python(
    opened: list[tuple[str, dict[str, Any]]], bundle_dir: Path, tmp_path: Path
) -> None:
    with Detector.load(bundle_dir, backend="tensorrt-rtx", device=2, engines=tmp_path, contexts=2):
        assert opened.pop() == ("tensorrt-rtx", {"device": 2, "engines": tmp_path, "contexts": 2})
    with Detector.load(bundle_dir, backend="onnxruntime-cuda", batch=8):
        assert opened == [("onnxruntime-cuda", {"batch": 8})]
    with pytest.raises(InputError, match="threads, device cannot be told to fake, which is open"):
        Screener.open(bundle_dir, backend=FakeBackend(), threads=1, device=0)
    for options in ({"device": "0"}, {"engines": 5}, {"device": -1}, {"threads": 0}, {"batch": 0}):
        with pytest.raises(InputError):
            Detector.load(bundle_dir, backend="auto", **options)  # type: ignore[arg-type]


# results


def refuse(_: object) -> float:
    raise AssertionError("something was measured")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that refuses everybody")
def test_nothing_is_measured_for_results_that_cannot_be_written(
    run: Run, fake: Any, bundle_dir: Path, tmp_path: Path
) -> None:
    fake(refuse)
    prompts = tmp_path / "p.txt"
    prompts.write_text("\n".join(f"a cat, number {i}" for i in range(60)))
    bundle = ("--bundle", bundle_dir)
    others = tmp_path / "o.txt"
    others.write_text("\n".join(f"rain, number {i}" for i in range(60)))
    calibration = ("--calibration", calibrate(bundle_dir, 9.0, tmp_path / "c.json", backend="fake"))
    benign = ("calibrate", bundle_dir, "--benign", prompts, "--fpr", 0.1)
    for args in (
        (*benign, "--output", NOWHERE / "c.json"),
        (*benign, "--output", tmp_path / "n.json", "--plot", NOWHERE / "c.png"),
        ("screen", "a cat", *bundle, "--output", NOWHERE / "r.csv"),
        ("explain", "a cat", *bundle, "--output", NOWHERE / "r.html"),
        ("audit", prompts, *bundle, *calibration, "--output", NOWHERE / "r.csv"),
        (
            *("audit", prompts, *bundle, *calibration, "-o", tmp_path / "r.csv"),
            *("--report", NOWHERE / "r.html"),
        ),
        (
            *("evaluate", bundle_dir, "--positives", prompts, "--negatives", others),
            *("--output", NOWHERE / "report"),
        ),
        ("bench", bundle_dir, "--output", NOWHERE / "bench"),
        ("mitigate", "--compare", "--output", NOWHERE / "comparison"),
        ("mitigate", "a cat", "--output", NOWHERE / "a.png"),
        ("generate", "a cat", "--output", NOWHERE / "a.png"),
        ("demo", "--output", NOWHERE / "demo"),
    ):
        result = run(*args)
        assert result.code == 2, (args, result)
        assert "cannot be written: " in result.err.splitlines()[-1], args
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.json", "o.txt", "p.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that refuses everybody")
def test_a_bundle_that_cannot_be_written_is_not_calibrated(
    run: Run, fake: Any, bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(refuse)
    bundle = copied(bundle_dir, tmp_path / "bundle")
    prompts = tmp_path / "p.txt"
    prompts.write_text("a\n" * 400)

    def read_only(*_: object, **__: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("mnemoscope.outputs.check_folder", read_only)
    result = run("calibrate", bundle, "--benign", prompts)
    assert result.code == 2
    assert f"{bundle / 'calibration.json'} cannot be written: Permission denied" in result.err
    assert "Nothing was measured" in result.err
    before = embedded.BUNDLE / "calibration.json"
    assert before.exists()


def test_devices_may_be_written_to(run: Run) -> None:
    result = run("screen", "a cat", "--threads", 1, "--output", "/dev/null")
    assert (result.code, result.out) == (0, "")


@pytest.mark.parametrize("verb", [("screen", "a cat"), ("explain", "a cat", "--no-edits")])
def test_what_the_choice_of_auto_does_not_take_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    monkeypatch.setattr("mnemoscope.screening.opening._fastest", lambda *_: "onnxruntime")
    args = ("--noises", 1, "--backend", "auto", "--threads", 1)
    assert "was not used" not in run(*verb, *args).err
    told = run(*verb, *args, "--device", 0).err
    assert "note: --device 0 was not used: onnxruntime takes none." in told
    assert "--threads" not in told


def test_backends_that_there_are_not(run: Run) -> None:
    known = ("torch, torch-compile, openvino:bfloat16, openvino:float16, or auto",)
    failed(run("screen", "a cat", "--backend", "foo"), 2, "There is no backend 'foo'", *known)
    failed(run("screen", "a cat", "--backend", "auto:bfloat16"), 2, "auto takes no precision")
    told = run("bench", "--backends", "onnxruntime,foo", "--device", 0)
    failed(told, 2, "There is no backend 'foo'", *known)


def test_pytorch_without_the_device(run: Run) -> None:
    result = run("screen", "a cat", "--backend", "torch", "--device", 99)
    failed(result, 3, "cannot use 'cuda:99'", ". Leave --device out (in Python device='cpu'), or")


@pytest.mark.parametrize("verb", ["screen", "explain", "bench", "calibrate", "evaluate"])
def test_help_names_every_detector(run: Run, verb: str) -> None:
    out = " ".join(run(verb, "--help").out.replace("│", " ").split())
    for name in (*DETECTORS, "taps, tap:LAYER", "copy-similarity:FILE"):
        assert name in out
    failed(run("screen", "a cat", "--detector", "no"), 2, "copy-similarity:FILE", "tap:LAYER")


def test_models_are_described_alike(run: Run) -> None:
    for verb in ("generate", "mitigate"):
        out = " ".join(run(verb, "--help").out.replace("│", " ").split())
        assert "Directory, .safetensors file, or hub id." in out
