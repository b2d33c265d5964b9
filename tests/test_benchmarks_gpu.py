"""The plumbing of benchmarks/gpu.py, on the CPU; there is no GPU in CI."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import fake_gpu
import pytest
import torch
from fake_cuda import FakeRuntime
from rich.console import Console

from benchmarks import gpu as benchmark
from mnemoscope import embedded
from mnemoscope_export import StableDiffusion
from mnemoscope_runtime import BackendError, BackendUnavailable, gpu
from mnemoscope_runtime.cuda import Cuda

ROOT = Path(__file__).parent.parent


def test_rows_and_report() -> None:
    console = Console(record=True, width=120)
    report = benchmark.run(
        StableDiffusion.load(embedded.MODEL),
        {"float32": embedded.BUNDLE},
        console,
        device="cpu",
        backends=("onnxruntime", "onnxruntime-cuda", "tensorrt"),
        rounds=3,
        warmup=0,
        offline=2,
        dtype=torch.float32,
        compiles=False,
    )
    rows = report["rows"]
    assert list(rows) == [
        "PyTorch float32, paper's step [uncond; cond]",
        "PyTorch float32, cached uncond",
        "screen.onnx, onnxruntime",
        "Detector.screen, onnxruntime",
    ]
    values = [row["magnitude"] for row in rows.values()]
    assert values == pytest.approx([values[0]] * 4, rel=1e-4)  # all measure the same
    assert all(len(row["seconds"]) == 3 for row in rows.values())
    assert report["offline_prompts_per_second"]["onnxruntime"] > 0
    missing = report["not_measured"]
    assert [name.split()[0] for name in missing] == ["onnxruntime-cuda", "tensorrt"]
    assert "not measured: tensorrt" in console.export_text()


def test_what_there_is_is_written_after_every_part(tmp_path: Path) -> None:
    file, written = tmp_path / "new" / "gpu.json", []

    def fail() -> dict[str, object]:
        written.append(json.loads(file.read_text()))
        raise RuntimeError("an illegal address")

    def wait() -> dict[str, object]:
        time.sleep(0.3)
        return {"figure": 2}

    parts = {"good": lambda: {"figure": 1}, "bad": fail, "long": wait, "late": fail}
    benchmark.follow(parts, file, {"gpu": "one"}, time.monotonic() + 0.2)
    (at_the_second,) = written
    assert at_the_second["gpu"] == "one"
    assert at_the_second["parts"]["good"]["figure"] == 1
    found = json.loads(file.read_text())["parts"]
    assert found["bad"] == {"failed": "RuntimeError: an illegal address"}
    assert found["long"]["figure"] == 2  # what has begun is finished
    assert found["late"] == {"not_run": "the time was over"}


def test_cuda_itself(fake_cuda: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    assert benchmark.check_cuda(Cuda()) == {"bytes": 2**20}
    assert fake_cuda.launched == 1
    assert fake_cuda.is_empty()
    monkeypatch.setattr(Cuda, "launch", lambda *_: None)  # as if a graph replayed nothing
    with pytest.raises(BackendError, match="right: True; by a graph: False"):
        benchmark.check_cuda(Cuda())


def test_two_threads() -> None:
    found = benchmark.check_threads("onnxruntime")
    assert found["probe_error"] < 1e-4
    assert found["prompts_per_second"] > 0
    with pytest.raises(BackendUnavailable):
        benchmark.check_threads("onnxruntime-cuda")


def test_a_row_that_fails_does_not_end_the_run() -> None:
    def fail() -> None:
        raise RuntimeError("no compiler")

    rows, broken = benchmark.working({"good": lambda: 1.0, "bad": fail})
    assert list(rows) == ["good"]
    assert broken == {"bad": "RuntimeError: no compiler"}


@pytest.mark.parametrize(
    ("driver", "words"),
    [(fake_gpu.no_driver, "no NVIDIA driver"), (lambda: fake_gpu.DRIVER, r"torch .* cannot use")],
)
def test_no_gpu(monkeypatch: pytest.MonkeyPatch, driver: object, words: str) -> None:
    monkeypatch.setattr(gpu, "driver", driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu", "--name", "none"])
    with pytest.raises(SystemExit, match=f"error: .*{words}"):
        benchmark.main()


def test_script_refuses(tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "gpu.sh"
    (tmp_path / "dirname").symlink_to("/usr/bin/dirname")
    for arguments, code, words in (([], 2, "usage:"), (["name"], 3, "no NVIDIA driver")):
        done = subprocess.run(
            ["/bin/sh", str(script), *arguments],
            env={**os.environ, "PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr
