from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from cli_support import Run, copied, failed, in_steps
from PIL import Image

from mnemoscope import Detector, InputError, embedded
from mnemoscope.benchmark import latency as bench
from mnemoscope.benchmark.gemm import gemm_rate
from mnemoscope_runtime import BackendUnavailable, Bundle
from mnemoscope_runtime.testing import FakeBackend

PROMPTS = ["a cat", "a dog", "rain"]


def sleepy(
    bundle: Path, seconds: float, asked: list[str] | None = None, name: str = ""
) -> Detector:
    def magnitude(_: np.ndarray) -> float:
        if asked is not None:
            asked.append(name)
        time.sleep(seconds)
        return 0.5

    return Detector.load(bundle, backend=FakeBackend(magnitude), uncalibrated="score")


def test_percentiles() -> None:
    row = bench.Latency("a", tuple(float(i) for i in range(101)), prompts=10)
    assert row.percentiles == {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100}
    assert row.throughput == 10 / 50


def test_backends_take_turns(bundle_dir: Path) -> None:
    asked: list[str] = []
    pair = {name: sleepy(bundle_dir, s, asked, name) for name, s in (("a", 0.03), ("b", 0.003))}
    first, second = bench.single_stream(pair, PROMPTS, rounds=5, warmup=1)
    assert asked == ["a", "b"] * 6
    assert (first.name, second.name, first.ratio) == ("a", "b", 1.0)
    assert len(first.seconds) == len(second.seconds) == 5
    assert min(first.seconds) >= 0.03
    assert second.ratio is not None
    assert second.ratio > 2


def test_offline_counts_prompts(bundle_dir: Path) -> None:
    (row,) = bench.offline({"a": sleepy(bundle_dir, 0.001)}, PROMPTS * 4, rounds=2)
    assert (row.prompts, len(row.seconds)) == (12, 2)
    assert 0 < row.throughput < 1000


def test_server_counts_waiting(bundle_dir: Path) -> None:
    detector = sleepy(bundle_dir, 0.02)
    calm = bench.server(detector, "a", PROMPTS, rate=5, seconds=1, workers=1)
    rushed = bench.server(detector, "a", PROMPTS, rate=200, seconds=0.5, workers=1)
    assert len(calm.seconds) == 5
    assert len(rushed.seconds) == 100
    assert min(calm.seconds) >= 0.02
    assert max(rushed.seconds) > 0.5  # 100 prompts of 20 ms that arrived within half a second


@pytest.mark.parametrize("wrong", [{"rate": 0.0}, {"seconds": -1.0}, {"workers": 0}])
def test_server_runs_that_cannot_be(bundle_dir: Path, wrong: dict[str, float]) -> None:
    settings = {"rate": 1.0, "seconds": 1.0, "workers": 1, **wrong}
    with pytest.raises(InputError, match="above 0"):
        bench.server(sleepy(bundle_dir, 0), "a", PROMPTS, **settings)  # type: ignore[arg-type]


def test_stages(bundle_dir: Path) -> None:
    with Detector.load(bundle_dir, threads=1, uncalibrated="score") as detector:
        taken = bench.stages(detector, PROMPTS, rounds=5)
    whole = taken.pop("whole")
    for larger in (whole, taken["network and magnitude"]):  # by far, on a busy machine too
        assert larger > taken["tokenizer"] > 0
    assert all(seconds >= 0 for seconds in taken.values())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gemm_rate(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setattr("mnemoscope.benchmark.gemm._SIZE", 512)
    try:
        rate = gemm_rate(precision, threads=1)  # type: ignore[arg-type]
    except BackendUnavailable:
        pytest.skip("not to be measured here")
    assert 1e9 < rate < 1e14


@pytest.mark.parametrize("scenario", bench.SCENARIOS)
def test_command(
    run: Run, bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenario: str
) -> None:
    prompts = embedded.read_prompts("held_out")[:12]
    monkeypatch.setattr("mnemoscope.cli.bench.embedded.read_prompts", lambda _: prompts)
    monkeypatch.setattr("mnemoscope.benchmark.gemm._SIZE", 256)
    served = ("--rate", 20, "--seconds", 0.2) if scenario == "server" else ("--rounds", 2)
    args = (*served, "--threads", 1)
    result = run(
        "bench", bundle_dir, "--backends", "onnxruntime,openvino", "--scenario", scenario,
        *args, "--output", tmp_path / "out",
    )  # fmt: skip
    assert result.code == 0, result.err
    report = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert report["scenario"] == scenario
    assert report["bundle"] == Bundle.open(bundle_dir).id
    assert report["precision"] == "float32"
    assert ("rate" in report) == (scenario == "server")
    assert ("rounds" in report) == ("x faster" in result.out) == (scenario != "server")
    assert ("tokenizer" in result.out) == (scenario == "single-stream")
    assert [row["name"] for row in report["backends"]] == ["onnxruntime", "openvino"]
    assert report["environment"]["threads"] == "1"
    for row in report["backends"]:
        assert row["p50"] <= row["p99"] <= row["max"]
        assert row["floor"] < row["stages"]["whole"]
    with Image.open(tmp_path / "out" / "bench.png") as picture:
        assert picture.format == "PNG"


def test_command_that_cannot_be(run: Run, bundle_dir: Path) -> None:
    failed(run("bench", bundle_dir, "--backends", ", "), 2, "No backend to measure")
    failed(run("bench", bundle_dir, "--rounds", 0), 2, "0 rounds measure nothing")
    failed(run("bench", bundle_dir, "--backends", "nothing"), 2, "There is no backend 'nothing'")


@pytest.mark.parametrize("scenario", ["single-stream", "offline"])
def test_options_of_the_server(run: Run, scenario: str) -> None:
    args = ("bench", "--scenario", scenario)
    failed(run(*args, "--rate", 5), 2, "--rate belongs to --scenario server. Leave it out")
    failed(run(*args, "--seconds", 1, "--workers", 2), 2, "--seconds, --workers belong to")


def test_the_server_takes_no_rounds(run: Run) -> None:
    failed(
        run("bench", "--scenario", "server", "--rounds", 5), 2, "--rounds is not for", "--seconds"
    )


def test_what_auto_became_is_shown(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = embedded.read_prompts("held_out")[:2]
    monkeypatch.setattr("mnemoscope.cli.bench.embedded.read_prompts", lambda _: prompts)
    monkeypatch.setattr("mnemoscope.benchmark.gemm._SIZE", 256)
    monkeypatch.setattr("mnemoscope.screening.opening._fastest", lambda *_: "onnxruntime")
    args = ("--backends", "auto,onnxruntime", "--rounds", 1, "--threads", 1, "--device", 0)
    result = run("bench", *args, "--output", tmp_path)
    assert result.code == 0, result.err
    rows = json.loads((tmp_path / "bench.json").read_text())["backends"]
    assert [row["name"] for row in rows] == ["auto (onnxruntime)", "onnxruntime"]
    assert "--device 0 was not used: onnxruntime takes none" in result.err


def test_any_detector(run: Run, bundle_dir: Path, model_dir: Path, tmp_path: Path) -> None:
    """One that learns is timed without a verdict; stages and floor are the magnitude's alone."""
    short = in_steps(copied(bundle_dir, tmp_path / "bundle"), 5)
    args = ("bench", short, "--rounds", 1, "--threads", 1, "--output", tmp_path)
    for name, steps, noises in (("latent-update", 2, 1), ("tiled-l2", 5, 2), ("magnitude", 2, 1)):
        settings = ("--detector", name, "--steps", steps, "--noises", noises)
        model = ("--model", model_dir) if name == "tiled-l2" else ()
        result = run(*args, *settings, *model)
        assert result.code == 0, result.err
        assert "tokenizer" not in result.out
        report = json.loads((tmp_path / "bench.json").read_text())
        assert (report["detector"], report["steps"], report["noises"]) == (name, steps, noises)
        (row,) = report["backends"]
        assert row["stages"] is row["floor"] is report["flops_per_noise"] is None
        assert row["p50"] > 0


def test_what_is_timed(bundle_dir: Path) -> None:
    with Detector.load(
        bundle_dir, detector="latent-update", threads=1, uncalibrated="score"
    ) as detector:
        assert isinstance(bench.asking(detector)(PROMPTS), np.ndarray)
        with pytest.raises(InputError, match="has 3 noises"):
            bench.asking(detector, noises=9)
    with Detector.load(bundle_dir, threads=1, uncalibrated="score") as detector:
        found = bench.asking(detector, steps=2, noises=2)(PROMPTS)
        assert isinstance(found, list)
        assert (found[0].steps, len(found[0].scores)) == (2, 2)


def test_detectors_that_cannot_be_timed(run: Run, bundle_dir: Path) -> None:
    args = ("bench", bundle_dir, "--detector")
    failed(run(*args, "magic"), 2, "no detector 'magic'")
    failed(run(*args, "tiled-l2"), 2, "--model")
    failed(run(*args, "sharpness", "--steps", 2), 2, "first step alone")
    failed(run(*args, "attention-entropy"), 3, "--backend torch")
