from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attack_support import edit, plant
from onnx import ModelProto, TensorProto, helper

from mnemoscope_runtime import BackendError, IntegrityError, NumericsError, Screener


def outside(location: str, *, offset: int = 0, length: int = 256) -> TensorProto:
    """A tensor "w" of 64 floats that lie in a file."""
    tensor = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[64], data_location=TensorProto.EXTERNAL
    )
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def model(nodes: list[Any], *initializers: TensorProto, functions: Any = ()) -> bytes:
    """A graph with the inputs and outputs of "screen" whose magnitude is the sum of "w"."""
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", 77])
    index = helper.make_tensor_value_info("noise_index", TensorProto.INT64, ["m"])
    out = helper.make_tensor_value_info("magnitude", TensorProto.FLOAT, None)
    nodes = [*nodes, helper.make_node("ReduceSum", ["w"], ["magnitude"], keepdims=0)]
    graph = helper.make_graph(nodes, "g", [ids, index], [out], list(initializers))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    made: ModelProto = helper.make_model(
        graph, opset_imports=opsets, functions=list(functions), ir_version=10
    )
    return made.SerializeToString()


def as_weight(tensor: TensorProto) -> bytes:
    return model([], tensor)


def as_constant(tensor: TensorProto) -> bytes:
    return model([helper.make_node("Constant", [], ["w"], value=tensor)])


def within_a_branch(tensor: TensorProto) -> bytes:
    out = helper.make_tensor_value_info("v", TensorProto.FLOAT, [64])
    node = helper.make_node("Identity", ["w"], ["v"])
    branch = helper.make_graph([node], "branch", [], [out], [tensor])
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    chosen = helper.make_node("If", ["yes"], ["w"], then_branch=branch, else_branch=branch)
    return model([chosen], yes)


def within_a_function(tensor: TensorProto) -> bytes:
    node = helper.make_node("Constant", [], ["v"], value=tensor)
    opsets = [helper.make_opsetid("", 18)]
    function = helper.make_function("local", "Read", [], ["v"], [node], opsets)
    return model([helper.make_node("Read", [], ["w"], domain="local")], functions=[function])


def within_an_attribute(tensor: TensorProto) -> bytes:
    one = TensorProto.FromString(tensor.SerializeToString())
    one.dims[:] = [1]
    one.external_data[2].value = "4"
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [64])
    return model([helper.make_node("ConstantOfShape", ["shape"], ["w"], value=one)], shape)


HIDING = [as_weight, as_constant, within_a_branch, within_a_function, within_an_attribute]


@pytest.mark.parametrize("hide", HIDING, ids=lambda hide: hide.__name__)
def test_the_planted_graphs_do_read(
    hide: Callable[[TensorProto], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Mnemoscope in between, ONNX Runtime reads the file that the graph names."""
    import onnxruntime

    monkeypatch.chdir(tmp_path)
    Path("secret").write_bytes(np.full(64, 1000, np.float32).tobytes())
    session = onnxruntime.InferenceSession(
        hide(outside("secret")), providers=["CPUExecutionProvider"]
    )
    inputs = {"input_ids": np.zeros((1, 77), np.int64), "noise_index": np.zeros(1, np.int64)}
    assert session.run(["magnitude"], inputs)[0] == 64_000


@pytest.mark.parametrize("hide", HIDING, ids=lambda hide: hide.__name__)
@pytest.mark.parametrize("location", ["secret", "./secret", "../secret", "absolute", "inside"])
@pytest.mark.parametrize("weights", [True, False], ids=["weights", "no-weights"])
def test_weights_outside(
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    hide: Callable[[TensorProto], bytes],
    location: str,
    weights: bool,
) -> None:
    folder = bundle.parent / "cwd"
    folder.mkdir()
    for path in (folder / "secret", bundle.parent / "secret", bundle / "secret"):
        path.write_bytes(np.full(64, 1000, np.float32).tobytes())
    monkeypatch.chdir(bundle if location == "inside" else folder)
    named = {"absolute": str(folder / "secret"), "inside": "secret"}.get(location, location)
    if not weights:
        edit(bundle, lambda fields: fields["files"].pop("model.weights"))
    plant(bundle, "screen.onnx", hide(outside(named)))
    with pytest.raises(BackendError, match="cannot load"):
        Screener.open(bundle)


@pytest.mark.parametrize(
    ("offset", "length"),
    [(10**9, 256), (-256, 256), (2**63 - 128, 256), (0, 2**40), (0, 4), (0, -1), ("end", 256)],
)
def test_weights_beyond_the_end(bundle: Path, offset: int | str, length: int) -> None:
    size = (bundle / "model.weights").stat().st_size
    offset = size - 128 if isinstance(offset, str) else offset
    plant(bundle, "screen.onnx", as_weight(outside("model.weights", offset=offset, length=length)))
    with pytest.raises(BackendError, match="cannot load"):
        Screener.open(bundle)


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
    with pytest.raises(BackendError, match="cannot load"):
        open_and_walk(bundle)


def test_swapped_graphs(bundle: Path) -> None:
    plant(bundle, "screen.onnx", (bundle / "text_encoder.onnx").read_bytes())
    with Screener.open(bundle) as screener, pytest.raises(BackendError, match="failed"):
        screener.first_step(["a cat"])


def test_graph_with_an_output_of_another_shape(bundle: Path) -> None:
    w = helper.make_tensor("w", TensorProto.FLOAT, [2], [0.25, 0.25])
    plant(bundle, "screen.onnx", as_weight(w))
    with (
        Screener.open(bundle) as screener,
        pytest.raises(BackendError, match=r"returned \(\), expected \(1, 3\)"),
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
    with pytest.raises(IntegrityError, match="is not CLIP's"):
        Screener.open(bundle)
