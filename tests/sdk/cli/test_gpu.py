"""What the command line says of GPUs, where there is none or one of numpy."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import fake_gpu
import pytest
from cli_support import Run, copied, failed

import mnemoscope_export
from mnemoscope import embedded
from mnemoscope_runtime import BackendError, Bundle
from mnemoscope_runtime.backends.nvidia import gpu
from mnemoscope_runtime.backends.tensorrt import PlanKey, write_plan
from mnemoscope_runtime.backends.tensorrt.build import BuildOptions, plan_key
from mnemoscope_runtime.backends.tensorrt.library import import_library
from mnemoscope_runtime.selection import Trial
from mnemoscope_runtime.user_cache import cache_folder

WORKS = Trial("onnxruntime", error=1e-6, seconds=1e-3)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return copied(embedded.BUNDLE, tmp_path / "bundle")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnemoscope.cli.doctor.try_backends", lambda *_: [WORKS])


def key(bundle: Path) -> PlanKey:
    trt = ModuleType("tensorrt")
    trt.__version__ = "10.3.0"  # type: ignore[attr-defined]
    made = plan_key(trt, "tensorrt", Bundle.open(bundle), "screen", BuildOptions())
    return replace(made, gpu=fake_gpu.CARD.name, sm=(fake_gpu.CARD.sm,))


# doctor


def test_doctor_without_a_gpu(run: Run, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "driver", fake_gpu.no_driver)
    monkeypatch.setattr(gpu, "lacking", list)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    result = run("doctor", bundle)
    assert result.code == 0
    for line in (
        "GPU: There is no NVIDIA driver here.",
        "cuDNN: not found (libcudnn.so.9)",
        "CUDA runtime: not found (libcudart.so.13, libcudart.so.12)",
        f"plans: none in {cache_folder('plans', Bundle.open(bundle).id)}; `mnemoscope build` makes "
        "them",
    ):
        assert line in result.out.splitlines(), line
    assert "TensorRT: The backend 'tensorrt' cannot be used" in result.out


@pytest.mark.usefixtures("fake_trt")
def test_doctor_with_a_gpu(run: Run, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "lacking", lambda names: [n for n in names if n.endswith(".12")])
    fits = write_plan(bundle / "engines", key(bundle), b"")
    stale = replace(key(bundle), graph="step", version="10.1.0", gpu="NVIDIA A100")
    write_plan(bundle / "engines", stale, b"")
    (bundle / "engines" / "odd.engine.json").write_text("{")
    lines = run("doctor", bundle, "--engines", bundle / "engines").out.splitlines()
    for line in (
        "driver: 580.65.06, supports CUDA up to 13.0",
        "GPU 0: NVIDIA Fake 4090, SM89, 24 GiB",
        "CUDA runtime: libcudart.so.13",
        "TensorRT: 10.3.0",
        f"plan {fits.name}: fits",
    ):
        assert line in lines, line
    said = next(line for line in lines if line.startswith("plan tensorrt.step"))
    assert "stale: version is 10.1.0, here it is 10.3.0" in said
    assert "gpu is NVIDIA A100, here it is NVIDIA Fake 4090" in said
    assert "`mnemoscope build BUNDLE --backend tensorrt --batch 4` builds it again" in said
    assert "is damaged" in next(line for line in lines if line.startswith("plan odd"))


@pytest.mark.usefixtures("fake_trt")
def test_doctor_where_others_may_write_plans(
    run: Run, bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MNEMOSCOPE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    lines = run("doctor", bundle).out.splitlines()
    assert any(line.startswith("plans: ") and "is open to others" in line for line in lines)


def test_doctor_with_a_gpu_that_the_library_does_not_know(
    run: Run, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", exc_type=ImportError)
    card = replace(fake_gpu.CARD, name="NVIDIA H100", sm="SM90")
    monkeypatch.setattr(gpu, "driver", lambda: replace(fake_gpu.DRIVER, gpus=(card,)))
    rtx = import_library("tensorrt-rtx")
    options = BuildOptions()
    made = plan_key(rtx, "tensorrt-rtx", Bundle.open(bundle), "screen", options)
    path = write_plan(bundle / "engines", made, b"")
    lines = run("doctor", bundle, "--engines", bundle / "engines").out.splitlines()
    said = next(line for line in lines if line.startswith("plan "))
    assert said.startswith(f"plan {path.name}: cannot be run: TensorRT for RTX")
    assert "none for NVIDIA H100, SM90" in said


def test_a_library_that_does_not_load(run: Run, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text("raise RuntimeError('libnvinfer.so.11: not found')")
    sys.path.insert(0, str(tmp_path))
    try:
        out = run("doctor", bundle).out
    finally:
        sys.path.remove(str(tmp_path))
    assert "'tensorrt' cannot be used: libnvinfer.so.11: not found" in out


# build


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--profile", "1,x"], "A profile is written 8 (prompts) or 1x4"),
        (["--profile", "1x9"], "has 4 noises"),
        (["--batch", "0"], "takes 1 to 256 prompts"),
        (["--backend", "openvino"], "'openvino' builds no plans"),
        (["--device", "0"], "--device is for tensorrt: TensorRT for RTX builds on no GPU"),
    ],
)
def test_what_cannot_be_built(run: Run, bundle: Path, arguments: list[str], words: str) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", exc_type=ImportError)
    failed(run("build", bundle, *arguments), 2, words)


# export --check


@pytest.fixture
def exported(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", exc_type=ImportError)
    monkeypatch.setattr(mnemoscope_export, "export_bundle", lambda *_, **__: Bundle.open(bundle))


@pytest.mark.usefixtures("exported")
def test_export_checks(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []

    def check(_: Bundle, graph: str, **__: object) -> str:
        checked.append(graph)
        return "TensorRT for RTX 1.7.1"

    monkeypatch.setattr("mnemoscope.cli.build.check_plan", check)
    result = run("export", "model", tmp_path / "out", "--check", "tensorrt")
    assert result.code == 0, result.err
    assert sorted(checked) == ["screen", "step", "text_encoder"]
    assert "screen: builds under TensorRT for RTX 1.7.1, which stands in" in result.err


@pytest.mark.usefixtures("exported")
def test_export_checks_and_fails(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(*_: object, **__: object) -> str:
        raise BackendError("cannot parse screen")

    monkeypatch.setattr("mnemoscope.cli.build.check_plan", check)
    result = run("export", "model", tmp_path / "out", "--check", "tensorrt")
    assert result.code == 3
    assert "cannot parse screen" in result.err


def test_unknown_check(run: Run, tmp_path: Path) -> None:
    failed(run("export", "model", tmp_path, "--check", "openvino"), 2, "no check 'openvino'")


def test_checking_needs_the_library_first(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    result = run("export", "no-such-model", tmp_path / "out", "--check", "tensorrt")
    failed(result, 3, "'.[tensorrt-rtx]")
