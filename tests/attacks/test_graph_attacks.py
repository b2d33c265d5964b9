from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from attack_support import edit, plant
from hostile_graphs import (
    ADDRESS,
    HIDING,
    HOSTILE,
    as_constant,
    as_weight,
    harmless,
    outside,
)
from onnx import TensorProto

from mnemoscope import Detector, embedded
from mnemoscope_runtime import BackendError, Bundle, IntegrityError, NumericsError, Screener
from mnemoscope_runtime.backends.onnxruntime import make_session
from mnemoscope_runtime.backends.tensorrt.build import check_plan

BACKENDS = ["onnxruntime", "openvino"]
INPUTS = {"input_ids": np.zeros((1, 77), np.int64), "noise_index": np.zeros(1, np.int64)}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy to do as one likes with."""
    return shutil.copytree(embedded.BUNDLE, tmp_path / "bundle")


@pytest.mark.parametrize("hide", HIDING, ids=lambda hide: hide.__name__)
def test_onnxruntime_reads_what_planted_graphs_name(
    hide: Callable[[TensorProto], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Mnemoscope in between."""
    import onnxruntime

    monkeypatch.chdir(tmp_path)
    Path("secret").write_bytes(np.full(64, 1000, np.float32).tobytes())
    session = onnxruntime.InferenceSession(
        hide(outside("secret")), providers=["CPUExecutionProvider"]
    )
    assert session.run(["magnitude"], INPUTS)[0] == 64_000


@pytest.mark.parametrize("hide", [as_weight, as_constant], ids=lambda hide: hide.__name__)
def test_openvino_reads_memory_that_planted_graphs_name(
    hide: Callable[[TensorProto], bytes], tmp_path: Path
) -> None:
    """Without Mnemoscope in between."""
    import openvino

    secret = np.full(64, 1000, np.float32)
    path = tmp_path / "graph.onnx"
    path.write_bytes(hide(outside(ADDRESS, offset=secret.ctypes.data)))
    compiled = openvino.Core().compile_model(path, "CPU")
    assert compiled(INPUTS)["magnitude"] == 64_000


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_hostile_graphs(light: Path, backend: str) -> None:
    plant(light, "screen.onnx", harmless())
    Screener.open(light, backend=backend)
    said = {}
    for name, make in HOSTILE.items():
        plant(light, "screen.onnx", make())
        try:
            Screener.open(light, backend=backend).close()
            said[name] = "it was opened"
        except IntegrityError as error:
            said[name] = str(error)
    wanted = r".*/screen\.onnx is no graph that may run: [ -~]*\. If the bundle is yours, .*"
    assert {name: text for name, text in said.items() if not re.fullmatch(wanted, text)} == {}


def test_a_detector_opens_no_hostile_graph(light: Path) -> None:
    plant(light, "screen.onnx", HOSTILE["2^62 trips"]())
    for backend in (*BACKENDS, "auto"):
        with pytest.raises(
            IntegrityError, match=r"node 0 \('Loop', named ''\): its operator is not"
        ):
            Detector.load(light, backend=backend, uncalibrated="score")


def test_a_backend_of_ones_own_reads_no_hostile_graph(light: Path) -> None:
    plant(light, "screen.onnx", as_constant(outside(ADDRESS)))
    found = Bundle.open(light)
    for _ in range(2):  # also when it asks again
        with pytest.raises(IntegrityError, match="tensor 'w': its data is in a file"):
            found.read("screen.onnx")
    found.release()
    with pytest.raises(IntegrityError, match="tensor 'w': its data is in a file"):
        found.read("screen.onnx")


@pytest.mark.slow
def test_no_engine_is_built_of_a_hostile_graph(light: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", exc_type=ImportError)
    for name in ("as_weight: memory", "2^62 trips", "a plugin of TensorRT", "two graphs"):
        plant(light, "screen.onnx", HOSTILE[name]())
        with pytest.raises(IntegrityError, match="is no graph that may run"):
            check_plan(Bundle.open(light), "screen")


@pytest.mark.parametrize("suffix", ["xml", "tflite", "ort", "prototxt"])
def test_a_graph_that_another_parser_would_take(light: Path, suffix: str) -> None:
    plant(light, f"screen.{suffix}", harmless())
    edit(light, lambda fields: fields["graphs"].__setitem__("screen", f"screen.{suffix}"))
    for backend in BACKENDS:
        with pytest.raises(IntegrityError, match=r"its name does not end in \.onnx"):
            Screener.open(light, backend=backend)


def test_onnxruntime_is_told_what_format_it_reads() -> None:
    """It would take a file with these letters for one of its own."""
    import onnxruntime

    content = HOSTILE["a file of ONNX Runtime's own"]()
    options = onnxruntime.SessionOptions()
    with pytest.raises(Exception, match="ORT model verification failed"):
        onnxruntime.InferenceSession(content, options)
    bundle = SimpleNamespace(
        path=Path("bundle"),
        manifest=SimpleNamespace(graphs={"screen": "screen.onnx"}),
        data_files=list,
        read=lambda _: content,
    )
    session = make_session(onnxruntime, bundle, "screen", ["CPUExecutionProvider"])  # type: ignore[arg-type]
    assert session.run(["magnitude"], INPUTS)[0] == 64


def open_and_walk(bundle: Path) -> None:
    with Screener.open(bundle) as screener:
        screener.trajectory(["a cat"], steps=1)


@pytest.mark.parametrize("graph", ["screen", "step", "text_encoder"])
@pytest.mark.parametrize("share", [None, 0.0, 0.5, 0.99])
def test_garbage_graph(bundle: Path, graph: str, share: float | None) -> None:
    name = f"{graph}.onnx"
    content = (bundle / name).read_bytes()
    garbage = random.Random(0).randbytes(1000)
    plant(bundle, name, garbage if share is None else content[: int(share * len(content))])
    with pytest.raises(IntegrityError, match=f"{graph}.onnx is no graph that may run"):
        open_and_walk(bundle)


def test_swapped_graphs(bundle: Path) -> None:
    plant(bundle, "screen.onnx", (bundle / "text_encoder.onnx").read_bytes())
    with Screener.open(bundle) as screener, pytest.raises(BackendError, match="failed"):
        screener.first_step(["a cat"])


def test_graph_with_an_output_of_another_shape(bundle: Path) -> None:
    plant(bundle, "screen.onnx", harmless())
    with (
        Screener.open(bundle) as screener,
        pytest.raises(BackendError, match=r"expected float32 \(1, 4\)"),
    ):
        screener.first_step(["a cat"])


def test_nan_weights(bundle: Path) -> None:
    size = (bundle / "model.weights").stat().st_size
    plant(bundle, "model.weights", b"\xff" * size)  # NaN as float32 and as float16
    with Screener.open(bundle) as screener:
        with pytest.raises(NumericsError, match="prompt 0"):
            screener.first_step(["a cat", "a dog"])
        with pytest.raises(NumericsError, match="prompt 0"):
            screener.trajectory(["a cat", "a dog"], steps=1)


# tokenizers with their true hash


@pytest.mark.parametrize("content", [b"", b"{}", b"garbage", b"\xff", b"[" * 10**5])
def test_garbage_tokenizer(bundle: Path, content: bytes) -> None:
    plant(bundle, "tokenizer/tokenizer.json", content)
    with pytest.raises(IntegrityError, match="is no tokenizer"):
        Screener.open(bundle)


def test_tokenizer_without_its_special_tokens(bundle: Path) -> None:
    content = (bundle / "tokenizer/tokenizer.json").read_bytes()
    plant(bundle, "tokenizer/tokenizer.json", content.replace(b"startoftext", b"startofpage"))
    with pytest.raises(IntegrityError, match="CLIP's"):
        Screener.open(bundle)
