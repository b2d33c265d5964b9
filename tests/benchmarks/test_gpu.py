"""The plumbing of benchmarks/gpu, on the CPU; there is no GPU in CI."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_gpu
import pytest
from fake_cuda import FakeRuntime
from repository import ROOT

from benchmarks.gpu import copies, engines, guard, pytorch, training
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.running import follow, here, in_a_process
from benchmarks.gpu.setting import Part, Setting, parts
from benchmarks.gpu.table import page
from mnemoscope_runtime import BackendError, BackendUnavailable, InputError
from mnemoscope_runtime.backends.nvidia import gpu
from mnemoscope_runtime.backends.nvidia.cuda import Cuda
from mnemoscope_runtime.backends.nvidia.gpu import Gpu

HEAD = {"name": "one", "when": "now", "gpu": "a", "driver": "b", "cuda": "c"}
REHEARSAL = Setting("cpu", "toy", "float32", "eager", rounds=2, warmup=0, prompts=3, steps=2)
REHEARSE = ["--name", "try", "--device", "cpu", "--family", "toy", "--in-process"]

pytestmark = pytest.mark.slow


def part(name: str, seconds: float = 60, **told: Any) -> Part:
    return Part(name, f"gpu_parts:{name}", seconds, told)


def test_a_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*REHEARSE, "--output", str(tmp_path), "--work", str(tmp_path / "work")]
    main(arguments)
    file = tmp_path / "gpu-try.json"
    found = json.loads(file.read_text())["parts"]
    assert {name: each["status"] for name, each in found.items()} == dict.fromkeys(found, "done")
    assert list(found) == [each.name for each in parts(REHEARSAL)]
    timed = [each for each in found.values() if "rows" in each]
    assert len(timed) == 4
    for each in timed:
        assert each["probe_error"] < 1e-4
        assert all(len(row["seconds"]) == 3 for row in each["rows"].values())
        values = [row["magnitude"] for row in each["rows"].values()]
        assert values == pytest.approx([values[0]] * 4, rel=1e-4)  # all measure the same
        assert not each["graph_breaks"]  # nothing leaves the compiled code on the way
    rates = [each["offline"]["seconds"] for each in timed if "offline" in each]
    assert list(map(len, rates)) == [5, 5, 5]
    assert len(found["guard"]["seconds"]["own"]) == len(found["guard"]["seconds"]["bare"]) == 5
    assert len(found["training filter"]["seconds"]["filtered"]) == 10
    flow = found["the shipped flow"]
    assert flow["guard_error"] < 1e-4
    assert max(flow["PyTorch"].values()) < 1e-4
    assert flow["onnxruntime"]["taps_error"] == 0  # that is what it is compared with
    table = (tmp_path / "gpu-try.md").read_text()
    assert table in capsys.readouterr().out
    for words in ("| PyTorch, eager |", "- Guard: ", "- Training filter: ", "shipped flow", "5 ms"):
        assert words in table

    with pytest.raises(SystemExit, match="2"):  # what took minutes of a GPU is not written over
        main(arguments)
    assert "go on with --resume" in capsys.readouterr().err
    del found["guard"]["ratio"]
    found["cuda"]["status"] = "failed"
    report = json.loads(file.read_text()) | {"parts": found}
    file.write_text(json.dumps(report))
    main([*arguments, "--resume"])  # what failed is done again, and nothing else
    again = json.loads(file.read_text())["parts"]
    assert again["cuda"]["status"] == "done"
    assert again == found | {"cuda": again["cuda"]}
    with pytest.raises(SystemExit, match="of another setting"):
        main([*arguments, "--rounds", "1", "--resume"])
    file.write_text(json.dumps(report | {"gpu": "another"}))
    with pytest.raises(SystemExit, match="of another GPU, another"):
        main([*arguments, "--resume"])


@pytest.mark.slow
def test_families_with_two_text_encoders(tmp_path: Path) -> None:
    setting = Setting(**{**REHEARSAL.record(), "family": "toy-xl", "work": str(tmp_path)})
    found: dict[str, Any] = {}
    for each in pytorch.measure(setting, way="eager"):
        found |= each
    assert found["probe_error"] < 1e-4
    [filtered] = training.measure(setting)
    assert filtered["ratio"] > 0
    with pytest.raises(BackendUnavailable, match="Choose another --family"):
        next(guard.measure(setting))
    with pytest.raises(InputError, match=r"no family 'toy-3'\. Choose one of: .*toy-xl, embedded"):
        next(training.measure(replace(setting, family="toy-3")))


@pytest.mark.slow
@pytest.mark.slow
def test_what_happens_to_a_part_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, _paths())))
    file, log = tmp_path / "gpu.json", tmp_path / "gpu.log"
    chosen = [part("crash"), part("hang", 3), part("fail"), part("work", figure=2)]
    until = time.monotonic() + 600
    report = follow(chosen, REHEARSAL, file, HEAD, until, in_a_process(log))
    assert report == json.loads(file.read_text())
    found = report["parts"]
    assert {name: each["status"] for name, each in found.items()} == {
        "crash": "failed",
        "hang": "failed",
        "fail": "failed",
        "work": "done",
    }
    assert found["crash"]["reason"] == "its process was ended by SIGABRT"
    assert found["crash"]["device"] == "cpu"  # found before it crashed
    assert _is_gone(found["crash"]["worker"])
    assert found["hang"]["reason"] == "it was ended after 3 s"
    assert found["fail"]["reason"] == "RuntimeError: an illegal address"
    assert "raise RuntimeError" in log.read_text()
    assert found["work"]["figure"] == 2
    assert "fail: failed, RuntimeError: an illegal address" in capfd.readouterr().err


@pytest.mark.slow
def test_what_there_is_is_written_after_every_part(tmp_path: Path) -> None:
    file, seen = tmp_path / "new" / "gpu.json", []

    def start(each: Part, setting: Setting, to: Path, seconds: float) -> None:
        seen.append((each.name, seconds, json.loads(file.read_text())["parts"]))
        here(each, setting, to, seconds)

    chosen = [part("work", figure=1), part("lack"), part("fail", 40), part("crash")]
    before = {
        "work": {"status": "failed", "reason": "x"},
        "lack": {"status": "not available", "reason": "x"},
        "crash": {"status": "done"},
    }
    until = time.monotonic() + 50
    report = follow(chosen, REHEARSAL, file, HEAD, until, start, before)
    assert [name for name, *_ in seen] == ["work", "lack", "fail"]  # not what is done
    assert 40 < seen[0][1] <= 50 < 60  # what is left, if that is less than the part's own
    assert seen[2][1] == 40
    assert seen[0][2]["lack"] == {"status": "not run", "reason": "not yet"}
    assert seen[1][2]["work"]["figure"] == 1
    assert seen[2][2]["lack"]["reason"] == "There is no cpu."
    assert seen[2][2]["lack"]["status"] == "not available"
    assert list(report["parts"]) == ["work", "lack", "fail", "crash"]

    late = follow(chosen, REHEARSAL, file, HEAD, time.monotonic() + 5, start)
    assert {each["reason"] for each in late["parts"].values()} == {"the time was over"}
    assert len(seen) == 3


def test_limits_fit_the_stay() -> None:
    names = [each.name for each in parts(Setting())]
    upto = names.index("onnxruntime-cuda, sd14")
    assert sum(each.seconds for each in parts(Setting())[: upto + 1]) <= 12 * 60


def test_the_table() -> None:
    row = {"p50_ms": 4.0, "ratio_p50": 5.0}
    reached = {
        "status": "done",
        "took_seconds": 60.0,
        "rows": {"paper's step": {**row, "ratio_p50": 1.0}, "Detector.screen": row},
        "ms_a_prompt": 4.0,
        "prompts_per_second": 310.0,
        "offline": {"prompts": 64},
        "probe_error": 1e-3,
    }
    others = {
        "tensorrt": {"status": "not available", "reason": "no library\nof | that name"},
        "guard": {"status": "not run", "reason": "the time was over"},
    }
    report = {**HEAD, "setting": Setting().record()}
    text = page({**report, "parts": {"PyTorch, CUDA graphs": reached, **others}})
    assert "| PyTorch, CUDA graphs | 4.00 | 5.00 | 310 | 1.0e-03 | 60 |" in text
    assert "reached (4.00 ms); of 300 prompts/s, 64 at once: reached (310)" in text
    assert r"| tensorrt: not available, no library of \| that name |" in text
    assert "| guard: not run, the time was over |" in text
    assert "rehearsal" not in text
    assert "Goals: not measured" in page({**report, "parts": others})
    slow = reached | {"ms_a_prompt": 5.1, "prompts_per_second": 299.0}
    missed = page({**report, "parts": {"PyTorch, CUDA graphs": slow}})
    assert "missed (5.10 ms); of 300 prompts/s, 64 at once: missed (299)" in missed


def test_cuda_itself(fake_cuda: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(copies.check(Cuda())["replay_seconds"]) == fake_cuda.launched == 50
    assert fake_cuda.is_empty()
    monkeypatch.setattr(Cuda, "launch", lambda *_: None)  # as if a graph replayed nothing
    with pytest.raises(BackendError, match="right: True; by a graph: False"):
        copies.check(Cuda())


@pytest.mark.slow
def test_two_threads() -> None:
    found: dict[str, Any] = {}
    for each in engines.two_threads(REHEARSAL, backend="onnxruntime"):
        found |= each
    assert found["probe_error"] < 1e-4
    assert found["prompts_per_second"] > 0


@pytest.mark.parametrize("measure", [engines.two_threads, engines.full_size])
def test_what_is_not_there_is_told_before_anything_is_exported(
    measure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hopper = Gpu("NVIDIA H100 80GB HBM3", "SM90", 80 * 2**30)
    monkeypatch.setattr(gpu, "find", lambda _: hopper)
    with pytest.raises(BackendUnavailable, match="no code for Hopper: NVIDIA H100"):
        next(measure(Setting(), backend="tensorrt-rtx"))
    with pytest.raises(BackendUnavailable, match=r"torch .* cannot use a GPU"):
        next(measure(Setting(), backend="onnxruntime-cuda"))


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "driver", fake_gpu.no_driver)
    with pytest.raises(SystemExit, match=r"error: .*no NVIDIA driver"):
        main(["--name", "none"])
    with pytest.raises(BackendUnavailable, match=r"torch .* cannot use a GPU"):
        next(pytorch.measure(Setting(), way="eager"))


@pytest.mark.slow
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


def _paths() -> list[Path]:
    folders = ("", "export", "runtime", "sdk", "tests/support")
    return [ROOT / each for each in folders]


def _is_gone(process: int) -> bool:
    """Whether it has ended; whoever inherited it may not have looked yet."""
    stat = Path(f"/proc/{process}/stat")
    for _ in range(50):
        if not stat.exists() or ") Z " in stat.read_text():
            return True
        time.sleep(0.1)
    return False
