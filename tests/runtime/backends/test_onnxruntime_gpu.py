"""The GPU providers of ONNX Runtime: refusals as they are, runs on its CPU provider instead."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_gpu
import numpy as np
import onnxruntime
import pytest
from cuda_kernels import lacking, types_of

from mnemoscope import embedded
from mnemoscope_runtime import (
    BackendError,
    BackendUnavailable,
    Bundle,
    InputError,
    Screener,
    open_backend,
)
from mnemoscope_runtime.backends.nvidia import gpu
from mnemoscope_runtime.backends.onnxruntime_gpu import backend as onnxruntime_gpu
from mnemoscope_runtime.backends.onnxruntime_gpu.backend import OnnxRuntimeGpu
from mnemoscope_runtime.backends.onnxruntime_gpu.binding import Bound

PROMPTS = ["a cat", "rain on a window", "", "日本", "icon of rocket"]
CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
NAMES = ("onnxruntime-cuda", "onnxruntime-tensorrt")
CPU = "CPUExecutionProvider"


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU with all its libraries, as far as one is asked whether it is there."""
    monkeypatch.setattr(gpu, "driver", lambda: fake_gpu.DRIVER)
    monkeypatch.setattr(gpu, "lacking", lambda _: [])
    monkeypatch.setattr(onnxruntime, "cuda_version", "13.0")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])


class Session:
    """Keeps what it was made with; says that it runs on `actual`."""

    made: tuple[onnxruntime.SessionOptions, list[Any], int]
    actual: list[str]

    def __init__(
        self,
        _: bytes,
        options: Any,
        providers: list[Any],
        disabled_optimizers: list[str],
        enable_fallback: int,
    ) -> None:
        assert disabled_optimizers == []
        Session.made = options, providers, enable_fallback

    def get_providers(self) -> list[str]:
        return self.actual


# refusals


@pytest.mark.parametrize("name", NAMES)
def test_the_package_for_the_cpu(name: str) -> None:
    with pytest.raises(BackendUnavailable, match=r"without .*'\.\[onnxruntime-gpu\]"):
        open_backend(name)


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("name", NAMES)
def test_no_driver(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "driver", fake_gpu.no_driver)
    with pytest.raises(BackendUnavailable, match="no NVIDIA driver"):
        open_backend(name)


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("name", NAMES)
def test_a_driver_that_is_too_old(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "driver", lambda: replace(fake_gpu.DRIVER, cuda="12.8"))
    words = r"too old: it supports CUDA up to 12\.8, .* built for CUDA 13\. Install a driver"
    with pytest.raises(BackendUnavailable, match=words):
        open_backend(name)


@pytest.mark.usefixtures("card")
def test_a_gpu_that_cuda_has_no_code_for(monkeypatch: pytest.MonkeyPatch) -> None:
    card = gpu.Gpu("NVIDIA V100", "SM70", 2**34)
    monkeypatch.setattr(gpu, "driver", lambda: replace(fake_gpu.DRIVER, gpus=(card,)))
    with pytest.raises(BackendUnavailable, match=r"needs CUDA 13, .* NVIDIA V100, SM70"):
        open_backend("onnxruntime-cuda")


@pytest.mark.usefixtures("card")
def test_bfloat16_in_an_opset_that_lacks_it(bundle: Bundle) -> None:
    object.__setattr__(bundle.manifest, "precision", "bfloat16")
    with pytest.raises(BackendUnavailable, match=r"bfloat16 in ONNX's opset 18.*before 22"):
        OnnxRuntimeGpu().load(bundle, "screen")


@pytest.mark.usefixtures("card")
def test_missing_libraries(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "lacking", lambda wanted: [n for n in wanted if "cudnn" in n])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcudnn"))
    with pytest.raises(BackendUnavailable, match=r"needs CUDA 13 and cuDNN 9.*: libcudnn\.so\.9\."):
        open_backend("onnxruntime-cuda")
    assert capsys.readouterr().out == ""  # results go there


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("actual", [[], [CPU], [CUDA, CPU]])
def test_another_provider_than_asked_for(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, actual: list[str]
) -> None:
    monkeypatch.setattr(Session, "actual", actual, raising=False)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    backend = OnnxRuntimeGpu("onnxruntime-tensorrt", engines=tmp_path)
    words = (
        rf"Asked ONNX Runtime for {TENSORRT}, it would run {re.escape(str(actual))}.*TensorRT 10"
    )
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match=words):
            backend.load(bundle, "screen")


@pytest.mark.usefixtures("card")
def test_part_of_the_graph_on_the_cpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ONNX Runtime refuses it where its CUDA provider does not load: no fallback."""
    kind = onnxruntime_gpu._Provider("AzureExecutionProvider", "", "", ())
    monkeypatch.setitem(onnxruntime_gpu._PROVIDERS, "onnxruntime-cuda", kind)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [kind.name])
    with pytest.raises(BackendUnavailable, match="would run part of the graph on the CPU"):
        OnnxRuntimeGpu().load(bundle, "screen")


@pytest.mark.usefixtures("card")
def test_tensorrt_and_half_precision(bundle: Bundle, tmp_path: Path) -> None:
    object.__setattr__(bundle.manifest, "precision", "float16")
    with pytest.raises(InputError, match=r"norm of a float16 graph.*onnxruntime-cuda"):
        OnnxRuntimeGpu("onnxruntime-tensorrt", engines=tmp_path).load(bundle, "screen")


@pytest.mark.usefixtures("card")
def test_what_a_session_is_made_with(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Session, "actual", [], raising=False)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    for name in NAMES:
        with pytest.raises(BackendUnavailable):
            OnnxRuntimeGpu(name, threads=3, engines=tmp_path).load(bundle, "step")
        options, providers, fallback = Session.made
        assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        assert options.intra_op_num_threads == 3
        assert fallback == 0
        assert CPU not in dict(providers)
        assert dict(providers)[CUDA]["use_tf32"] == "0"
        assert "prefer_nhwc" not in dict(providers)[CUDA]
    cache = Path(dict(providers)[TENSORRT]["trt_engine_cache_path"])
    assert cache.parent == tmp_path / "onnxruntime-tensorrt"
    assert not cache.exists()  # nothing was made


@pytest.mark.usefixtures("card")
def test_what_a_session_in_half_precision_is_made_with(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "actual", [], raising=False)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    object.__setattr__(bundle.manifest, "precision", "float16")
    with pytest.raises(BackendUnavailable):
        OnnxRuntimeGpu().load(bundle, "screen")
    [(_, told)] = Session.made[1]
    assert (told["use_tf32"], told["prefer_nhwc"]) == ("1", "1")


def test_tf32_has_nothing_to_round_in_half_precision(float16_dir: Path) -> None:
    products = {"Conv", "Einsum", "Gemm", "MatMul"}
    assert {name for name, _ in types_of(float16_dir, products)} <= products
    assert {types["T"] for _, types in types_of(float16_dir, products)} == {"float16"}


# runs, with ONNX Runtime's CPU provider in place of CUDA's


@pytest.fixture
def bundle() -> Bundle:
    return Bundle.open(embedded.BUNDLE)


@pytest.fixture
def on_cpu(card: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    kind = onnxruntime_gpu._Provider(CPU, "", "", (), memory="cpu")
    monkeypatch.setitem(onnxruntime_gpu._PROVIDERS, "onnxruntime-cuda", kind)
    monkeypatch.setattr(onnxruntime_gpu, "_CONFIG", {})


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("batch", [1, 3])
def test_agrees_with_the_cpu_backend(batch: int) -> None:
    with (
        Screener.open(embedded.BUNDLE, threads=1) as other,
        Screener.open(embedded.BUNDLE, backend=OnnxRuntimeGpu(batch=batch, threads=1)) as screener,
    ):
        for noises in (1, 4):
            np.testing.assert_allclose(
                screener.first_step(PROMPTS, noises=noises),
                other.first_step(PROMPTS, noises=noises),
                rtol=1e-4,
                atol=1e-5,
            )
        np.testing.assert_allclose(
            screener.trajectory(PROMPTS[:2], steps=2, noises=2),
            other.trajectory(PROMPTS[:2], steps=2, noises=2),
            rtol=1e-4,
            atol=1e-5,
        )


@pytest.mark.usefixtures("on_cpu")
def test_threads_share_an_engine(bundle: Bundle) -> None:
    engine = OnnxRuntimeGpu(threads=1).load(bundle, "screen")

    def ask(seed: int) -> np.ndarray:
        ids = np.random.default_rng(seed).integers(0, 1000, (1 + seed % 2, 77))
        return engine({"input_ids": ids, "noise_index": np.array([seed % 3])}, ("magnitude",))[0]

    alone = [ask(seed) for seed in range(64)]
    with ThreadPoolExecutor(64) as pool:
        together = list(pool.map(ask, range(64)))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("on_cpu")
def test_a_session_lives_on_one_thread(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime keeps CUDA graphs by thread: every thread that runs would keep another."""
    seen = []

    def spy(method: Any) -> Any:
        def spied(*args: Any) -> Any:
            seen.append(threading.get_ident())
            return method(*args)

        return spied

    for name in ("__init__", "__call__"):
        monkeypatch.setattr(Bound, name, spy(getattr(Bound, name)))
    backend = OnnxRuntimeGpu(threads=1)
    engines = [backend.load(bundle, graph) for graph in ("screen", "text_encoder")]
    given = {"input_ids": np.zeros((1, 77), np.int64)}
    with ThreadPoolExecutor(4) as pool:
        for _ in range(8):
            pool.submit(engines[0], {**given, "noise_index": np.array([0])}, ("magnitude",))
            pool.submit(engines[1], given, ("prompt_embeds",))
    assert len(seen) == 4 + 16  # made, warmed up, called
    assert len(set(seen)) == 1
    assert threading.get_ident() not in seen
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        engines[1](given, ("prompt_embeds",))
    again = backend.load(bundle, "text_encoder")  # on a thread of its own again
    assert again(given, ("prompt_embeds",))[0].shape[:2] == (1, 77)
    backend.close()


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"input_ids": np.zeros((1, 77), np.int64)},
        {"input_ids": np.zeros((1, 77), np.int32), "noise_index": np.array([0])},
        {"input_ids": np.zeros((1, 5), np.int64), "noise_index": np.array([0])},
    ],
    ids=["none", "missing", "type", "length"],
)
def test_inputs_that_do_not_fit(bundle: Bundle, inputs: dict[str, np.ndarray]) -> None:
    engine = OnnxRuntimeGpu(threads=1).load(bundle, "screen")
    with pytest.raises(BackendError, match="takes"):
        engine(inputs, ("magnitude",))


def test_every_operator_runs_on_cuda(bundle: Bundle) -> None:
    """Of the shipped bundle; whoever exports a model in tests asks the same of it."""
    assert lacking(bundle.path) == set()


def test_a_fixed_shape_leaves_nothing_for_the_cpu(bundle: Bundle, tmp_path: Path) -> None:
    """CUDA graphs and the ban on the CPU need all shapes computed when the session is made."""
    import onnx

    for graph in bundle.manifest.graphs:
        options = onnxruntime.SessionOptions()
        for dimension in ("batch", "noises"):
            options.add_free_dimension_override_by_name(dimension, 1)
        names, data = bundle.data_files(), [bundle.read(n) for n in bundle.data_files()]
        options.add_external_initializers_from_files_in_memory(names, data, list(map(len, data)))
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(tmp_path / f"{graph}.onnx")
        onnxruntime.InferenceSession(
            bundle.read(bundle.manifest.graphs[graph]), options, providers=[CPU]
        )
        nodes = onnx.load(options.optimized_model_filepath, load_external_data=False).graph.node
        assert not {"Shape", "Size", "NonZero", "Loop", "If"} & {node.op_type for node in nodes}
