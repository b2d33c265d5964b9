"""Running engines of TensorRT for RTX, on a GPU of numpy (see fake_gpu)."""

from __future__ import annotations

import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_gpu
import numpy as np
import pytest
from engine_support import Put, ids, screen
from fake_gpu import CARD, DRIVER, FakeTensorRt, magnitude

from mnemoscope_runtime import BackendError, BackendUnavailable, Bundle
from mnemoscope_runtime.backends.nvidia import gpu
from mnemoscope_runtime.backends.tensorrt import PlanWarning
from mnemoscope_runtime.backends.tensorrt.backend import TensorRt
from mnemoscope_runtime.backends.tensorrt.build import build_plan
from mnemoscope_runtime.backends.tensorrt.deserialize import deserialize
from mnemoscope_runtime.backends.tensorrt.library import Library

RTX = "tensorrt-rtx"


@pytest.fixture(autouse=True)
def rtx(fake_trt: FakeTensorRt, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    """The fake with what TensorRT for RTX has more."""
    fake_gpu.make_rtx(fake_trt)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", fake_trt)
    return fake_trt


def on(monkeypatch: pytest.MonkeyPatch, name: str, sm: str) -> None:
    card = replace(CARD, name=name, sm=sm)
    monkeypatch.setattr(gpu, "driver", lambda: replace(DRIVER, gpus=(card,)))


@pytest.mark.parametrize("targets", [(), ("SM86", "SM89")])
def test_it_runs_on_the_gpus_it_was_built_for(
    put: Put, tmp_path: Path, shipped: Bundle, rtx: FakeTensorRt, targets: tuple[str, ...]
) -> None:
    put("1", backend=RTX, driver=None, change=lambda key: replace(key, sm=targets))
    engine = TensorRt(RTX, engines=tmp_path).load(shipped, "screen")
    given = ids(3)
    np.testing.assert_array_equal(screen(engine, given, 2), magnitude(given, np.arange(2)))
    assert not rtx.rt.graphs  # it makes its own


def test_contexts_share_what_was_compiled(
    put: Put, tmp_path: Path, shipped: Bundle, rtx: FakeTensorRt
) -> None:
    put("1", "4", backend=RTX)
    TensorRt(RTX, engines=tmp_path, contexts=3).load(shipped, "screen")
    assert len(rtx.configs) == 6  # contexts x profiles
    config = rtx.configs[0]
    assert all(other is config for other in rtx.configs)
    assert config.cache is not None
    assert config.strategy == "on profile change"
    assert config.cuda_graph_strategy == "whole graph"
    assert config.dynamic_shapes_kernel_specialization_strategy == "eager"


def test_a_cache_that_is_refused(
    put: Put, tmp_path: Path, shipped: Bundle, rtx: FakeTensorRt
) -> None:
    put("1", backend=RTX)
    rtx.refuses_cache = True
    with pytest.raises(BackendError, match="cannot make a cache of compiled kernels"):
        TensorRt(RTX, engines=tmp_path).load(shipped, "screen")


def test_an_engine_for_another_gpu(put: Put, tmp_path: Path, shipped: Bundle) -> None:
    put("1", backend=RTX, change=lambda key: replace(key, sm=("SM86",)))
    words = r"sm is \('SM86',\), here it is \('SM89',\).*--profile 1 --target SM89`"
    with pytest.raises(BackendError, match=words):
        TensorRt(RTX, engines=tmp_path).load(shipped, "screen")


def test_a_gpu_that_the_library_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, "NVIDIA H100", "SM90")
    words = r"capabilities SM75, SM80, .*SM121, and none for NVIDIA H100, SM90.*onnxruntime-cuda"
    with pytest.raises(BackendUnavailable, match=words):
        TensorRt(RTX)


def test_turing_is_built_for_by_name_only(
    put: Put, tmp_path: Path, shipped: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, "NVIDIA T4", "SM75")
    with pytest.raises(BackendError, match=r"no plan.*--batch 4 --target SM75`"):
        TensorRt(RTX, engines=tmp_path).load(shipped, "screen")
    put("1", backend=RTX)
    with pytest.raises(BackendError, match=r"sm is \(\), here it is \('SM75',\).*--target SM75"):
        TensorRt(RTX, engines=tmp_path).load(shipped, "screen")
    put("1", backend=RTX, change=lambda key: replace(key, sm=("SM75", "SM86")))
    TensorRt(RTX, engines=tmp_path).load(shipped, "screen")


# the header


@pytest.mark.parametrize(
    ("flags", "said", "words"),
    [
        (1 | 2, None, r"version mismatch, unsupported cc\. Build it again"),
        (4, "driver 550 found", r"old cuda driver, driver 550 found\. Install a newer driver"),
        (64, None, r"cuda error\. The driver or CUDA's runtime does not work"),
        (0, "no such layer.", r"here: no such layer\. Build it again"),
        (0, "cudaError 35.", r"here: cudaError 35\. The driver or CUDA's runtime does not work"),
        (0, None, "it does not say why"),
    ],
)
def test_an_engine_that_is_invalid_here(
    put: Put,
    tmp_path: Path,
    shipped: Bundle,
    rtx: FakeTensorRt,
    flags: int,
    said: str | None,
    words: str,
) -> None:
    put("1", backend=RTX)
    rtx.validity, rtx.said = (2, flags), said
    with pytest.raises(BackendError, match=words):
        TensorRt(RTX, engines=tmp_path).load(shipped, "screen")
    assert rtx.host_code == []  # nothing was deserialised


def test_an_engine_that_is_not_at_its_best(
    put: Put, tmp_path: Path, shipped: Bundle, rtx: FakeTensorRt
) -> None:
    put("1", backend=RTX)
    rtx.validity = (1, 4)
    with pytest.warns(PlanWarning, match="not at its best: old cuda driver"):
        TensorRt(RTX, engines=tmp_path).load(shipped, "screen")


# the real library


@pytest.fixture(scope="module")
def real() -> Any:
    return pytest.importorskip("tensorrt_rtx_bindings", exc_type=ImportError)


def test_the_fake_has_nothing_that_the_real_one_lacks(real: Any, rtx: FakeTensorRt) -> None:
    """The code that runs engines is tested on the fake: so it may touch what is in the fake."""
    pairs = [
        (fake_gpu.FakeEngine, real.ICudaEngine),
        (fake_gpu.RtxEngine, real.ICudaEngine),
        (fake_gpu.FakeContext, real.IExecutionContext),
        (fake_gpu.RtxConfig, real.IRuntimeConfig),
        (rtx.Runtime, real.Runtime),
        (rtx.ILogger, real.ILogger),
    ]
    for fake, there in pairs:
        lacking = {n for n in vars(fake) if not n.startswith("_")} - set(dir(there))
        assert not lacking, there
    attributes = {"num_optimization_profiles", "num_io_tensors"}  # that the fake sets when made
    assert attributes <= set(dir(real.ICudaEngine))
    for name in (
        "CudaGraphStrategy",
        "DynamicShapesKernelSpecializationStrategy",
        "EngineInvalidityDiagnostics",
        "EngineValidity",
        "ExecutionContextAllocationStrategy",
        "TensorIOMode",
        "TensorLocation",
    ):
        fake, there = getattr(rtx, name), getattr(real, name)
        assert set(getattr(fake, "__members__", vars(fake))) <= set(there.__members__), name


def test_the_real_one_says_why_an_engine_is_invalid(
    real: Any, shipped: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # without the fake's driver
    try:
        gpu.driver()
    except BackendUnavailable:
        plan = build_plan(shipped, "text_encoder", tmp_path).read_bytes()
        words = r"cannot run this plan here: .*cudaError 35.* The driver or CUDA's runtime"
        with pytest.raises(BackendError, match=words):
            deserialize(real, RTX, plan, host_code=False)
        made: list[Any] = []
        make = Library.make
        monkeypatch.setattr(Library, "make", lambda *given: made.append(make(*given)) or made[0])
        with pytest.raises(BackendError, match=r"malformed engine\. Build it again") as kept:
            deserialize(real, RTX, b"x" * 200, host_code=False)
        runtime = weakref.ref(made.pop())
        assert runtime() is None  # the error keeps nothing: see `releasing`
        del kept
    else:
        pytest.skip("there is a GPU here")


def test_the_real_one_knows_these_gpus(real: Any, rtx: FakeTensorRt) -> None:
    assert set(rtx.ComputeCapability.__members__) == set(real.ComputeCapability.__members__)
    assert callable(real.nptype)
