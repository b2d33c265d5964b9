from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from mnemoscope_runtime import (
    BackendError,
    Bundle,
    BundleError,
    IntegrityError,
    NumericsError,
    SchemaError,
    Screener,
)
from mnemoscope_runtime.bundle import MANIFEST

Fields = dict[str, Any]
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")
SHAPE = (3, 4, 8, 8)


@pytest.fixture
def bundle(bundle_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle_dir, tmp_path / "bundle")


def listed(bundle: Path) -> list[str]:
    """The files of an untouched bundle."""
    names = list(Bundle.open(bundle).manifest.files)
    assert len(names) >= 6
    return names


def edit(bundle: Path, change: Callable[[Fields], None]) -> None:
    fields = json.loads((bundle / MANIFEST).read_bytes())
    change(fields)
    (bundle / MANIFEST).write_text(json.dumps(fields))


def plant(bundle: Path, name: str, content: bytes) -> None:
    """Write a file and its true hash, as a forger would."""
    (bundle / name).write_bytes(content)
    record = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit(bundle, lambda fields: fields["files"].__setitem__(name, record))
    Bundle.open(bundle)


def flipped(content: bytes, position: int, bits: int = 1) -> bytes:
    changed = bytearray(content)
    changed[position] ^= bits
    return bytes(changed)


# files that differ from the manifest


def test_flipped_byte(bundle: Path) -> None:
    dice = random.Random(0)
    for name in listed(bundle):
        content = (bundle / name).read_bytes()
        places = [0, len(content) - 1, *(dice.randrange(len(content)) for _ in range(6))]
        for place in places:
            (bundle / name).write_bytes(flipped(content, place, 1 << dice.randrange(8)))
            with pytest.raises(IntegrityError, match=r"differs .* \(sha256\)"):
                Bundle.open(bundle)
        (bundle / name).write_bytes(content)
    Bundle.open(bundle)


def test_flipped_byte_of_the_manifest(bundle: Path) -> None:
    original, content = Bundle.open(bundle), (bundle / MANIFEST).read_bytes()
    refused = 0
    places = range(0, len(content), 3)
    for place in places:
        (bundle / MANIFEST).write_bytes(flipped(content, place))
        try:
            opened = Bundle.open(bundle)
        except BundleError:
            refused += 1
            continue
        assert opened.id != original.id
        assert opened.manifest.files == original.manifest.files
        assert opened.manifest.graphs == original.manifest.graphs
        assert opened.manifest.noise_bank.file == original.manifest.noise_bank.file
    assert refused > len(places) / 2


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_truncated_file(bundle: Path, share: float) -> None:
    for name in listed(bundle):
        content = (bundle / name).read_bytes()
        (bundle / name).write_bytes(content[: int(share * (len(content) - 1))])
        with pytest.raises(IntegrityError, match="bytes, the manifest promises"):
            Bundle.open(bundle)
        (bundle / name).write_bytes(content)
    Bundle.open(bundle)


def test_truncated_manifest(bundle: Path) -> None:
    content = (bundle / MANIFEST).read_bytes().rstrip()
    for length in range(0, len(content), 7):
        (bundle / MANIFEST).write_bytes(content[:length])
        with pytest.raises(SchemaError):
            Bundle.open(bundle)


def test_extended_file(bundle: Path) -> None:
    for name in listed(bundle):
        content = (bundle / name).read_bytes()
        (bundle / name).write_bytes(content + b"\0")
        with pytest.raises(IntegrityError, match="bytes, the manifest promises"):
            Bundle.open(bundle)
        (bundle / name).write_bytes(content)
    Bundle.open(bundle)


def test_missing_file(bundle: Path) -> None:
    for name in listed(bundle):
        (bundle / name).rename(bundle / "aside")
        with pytest.raises(IntegrityError, match="is missing"):
            Bundle.open(bundle)
        (bundle / "aside").rename(bundle / name)
    (bundle / MANIFEST).unlink()
    with pytest.raises(SchemaError, match=r"has no manifest\.json"):
        Bundle.open(bundle)


def test_directory_in_place_of_a_file(bundle: Path) -> None:
    (bundle / "model.weights").unlink()
    (bundle / "model.weights").mkdir()
    with pytest.raises(IntegrityError):
        Bundle.open(bundle)


# links and names


@posix_only
def test_link_outside(bundle: Path, tmp_path: Path) -> None:
    for name in listed(bundle):
        (bundle / name).rename(tmp_path / "outside")  # the very bytes that the manifest promises
        (bundle / name).symlink_to(tmp_path / "outside")
        with pytest.raises(IntegrityError, match="link that leads outside"):
            Bundle.open(bundle)
        (bundle / name).unlink()
        (tmp_path / "outside").rename(bundle / name)
    Bundle.open(bundle)


@posix_only
def test_folder_that_is_a_link_outside(bundle: Path, tmp_path: Path) -> None:
    (bundle / "tokenizer").rename(tmp_path / "outside")
    (bundle / "tokenizer").symlink_to("../outside", target_is_directory=True)
    with pytest.raises(IntegrityError, match="link that leads outside"):
        Bundle.open(bundle)


@posix_only
@pytest.mark.parametrize("target", ["nowhere", "model.weights", "../nowhere"])
def test_link_to_nowhere_or_itself(bundle: Path, target: str) -> None:
    (bundle / "model.weights").unlink()
    (bundle / "model.weights").symlink_to(target)
    with pytest.raises(IntegrityError, match="is missing"):
        Bundle.open(bundle)


@posix_only
@pytest.mark.timeout(20)
@pytest.mark.parametrize("target", ["/dev/zero", MANIFEST])
def test_manifest_that_is_a_link_without_end(bundle: Path, target: str) -> None:
    (bundle / MANIFEST).unlink()
    (bundle / MANIFEST).symlink_to(target)
    with pytest.raises(SchemaError):
        Bundle.open(bundle)


@posix_only
@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [MANIFEST, "model.weights"])
def test_pipe(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(BundleError):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    "name", ["../outside", "tokenizer/../../outside", "/outside", "..\\outside", "C:outside"]
)
@pytest.mark.parametrize("use", ["files", "graphs", "noise_bank"])
def test_name_outside(bundle: Path, name: str, use: str) -> None:
    content = (bundle / "noise_bank.npy").read_bytes()
    (bundle.parent / "outside").write_bytes(content)
    record = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    name = str(bundle.parent / "outside") if name == "/outside" else name

    def change(fields: Fields) -> None:
        fields["files"][name] = record
        if use == "graphs":
            fields["graphs"]["screen"] = name
        if use == "noise_bank":
            fields["noise_bank"]["file"] = name

    edit(bundle, change)
    with pytest.raises(IntegrityError, match="leads outside the bundle"):
        Bundle.open(bundle)


# manifests


def test_newer_schema(bundle: Path) -> None:
    edit(bundle, lambda fields: fields.__setitem__("schema", fields["schema"] + 1))
    with pytest.raises(SchemaError, match="Upgrade mnemoscope"):
        Bundle.open(bundle)


def test_manifest_of_gigabytes(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (bundle / MANIFEST).open("r+b") as file:
        file.truncate(8 * 2**30)  # sparse: it takes no room on the disk
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(SchemaError, match="larger than any manifest"):
        Bundle.open(bundle)


def test_manifest_nested_without_end(bundle: Path) -> None:
    content = (bundle / MANIFEST).read_bytes()
    deep = b'"tools": ' + b'{"a": ' * 10**6 + b"{}" + b"}" * 10**6
    (bundle / MANIFEST).write_bytes(content.replace(b'"tools": {', deep + b', "x": {'))
    with pytest.raises(SchemaError, match="is damaged"):
        Bundle.open(bundle)


@pytest.mark.parametrize("size", [-1, 0, 2**40, 2**70])
def test_file_of_another_size(bundle: Path, size: int) -> None:
    edit(bundle, lambda fields: fields["files"]["screen.onnx"].__setitem__("bytes", size))
    with pytest.raises(BundleError):
        Bundle.open(bundle)


def test_file_of_gigabytes(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = (bundle / MANIFEST).read_bytes()
    for name in listed(bundle):
        with (bundle / name).open("r+b") as file:
            file.truncate(8 * 2**30)
    read = {MANIFEST: content}
    monkeypatch.setattr(Path, "read_bytes", lambda path: read[path.name])
    with pytest.raises(IntegrityError, match="bytes, the manifest promises"):
        Bundle.open(bundle)


def test_manifest_without_the_tokenizer(bundle: Path) -> None:
    edit(bundle, lambda fields: fields["files"].pop("tokenizer/tokenizer.json"))
    with pytest.raises(IntegrityError, match=r"has no file 'tokenizer/tokenizer\.json'"):
        Screener.open(bundle)


@pytest.mark.parametrize("graph", ["screen", "step", "text_encoder"])
def test_manifest_without_a_graph(bundle: Path, graph: str) -> None:
    edit(bundle, lambda fields: fields["graphs"].pop(graph))
    with pytest.raises(IntegrityError, match=f"has no graph {graph}"):
        Bundle.open(bundle)


# noise banks with their true hash


def npy(array: NDArray[Any], *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def npy_header(header: str) -> bytes:
    text = header.ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def npy_of_shape(shape: str) -> bytes:
    return npy_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}")


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, bank=np.zeros(SHAPE, np.float32))
    return file.getvalue()


class Trap:
    """Calls `sprung` when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return sprung, ()


SPRUNG: list[int] = []


def sprung() -> None:
    SPRUNG.append(1)


def test_pickled_noise_bank(bundle: Path) -> None:
    SPRUNG.clear()
    array = np.full(SHAPE, None, object)
    array.flat[0] = Trap()
    for content in (npy(array, allow_pickle=True), pickle.dumps(Trap())):
        plant(bundle, "noise_bank.npy", content)
        with pytest.raises(IntegrityError, match="is no noise bank"):
            Bundle.open(bundle).noise_bank()
        with pytest.raises(IntegrityError, match="is no noise bank"):
            Screener.open(bundle)
    assert not SPRUNG
    pickle.loads(pickle.dumps(Trap()))
    assert SPRUNG  # the trap does work


@pytest.mark.parametrize(
    "content",
    [
        npy(np.full(SHAPE, np.nan, np.float32)),
        npy(np.where(np.arange(768).reshape(SHAPE) == 700, np.inf, 0).astype(np.float32)),
        npy(np.zeros(SHAPE, np.float64)),
        npy(np.zeros(SHAPE, np.float16)),
        npy(np.zeros(SHAPE, np.complex64)),
        npy(np.zeros(SHAPE, [("a", np.float32)])),
        npy(np.zeros((4, 4, 8, 8), np.float32)),
        npy(np.zeros((2, 4, 8, 8), np.float32)),
        npy(np.zeros(768, np.float32)),
        npy(np.float32(1)),
    ],
    ids=["nan", "inf", "f64", "f16", "complex", "record", "more", "fewer", "flat", "scalar"],
)
def test_noise_bank_of_another_kind(bundle: Path, content: bytes) -> None:
    plant(bundle, "noise_bank.npy", content)
    with pytest.raises(IntegrityError, match="the manifest promises finite float32"):
        Screener.open(bundle)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"PK\x03\x04",
        npz(),
        npy(np.zeros(SHAPE, np.float32))[:-1],
        npy_header("(" * 100),
        npy_header("__import__('os').abort()"),
        npy_of_shape("(10**14,)"),
        npy_of_shape("(100000000000000,)"),
        npy_of_shape("(99999999999999999999999999,)"),
        npy_of_shape("(-1,)"),
    ],
    ids=[
        "empty",
        "garbage",
        "zip",
        "archive",
        "truncated",
        "nested",
        "code",
        "expression",
        "terabytes",
        "overflow",
        "negative",
    ],
)
def test_noise_bank_that_is_none(bundle: Path, content: bytes) -> None:
    plant(bundle, "noise_bank.npy", content)
    with pytest.raises(IntegrityError, match="is no noise bank"):
        Screener.open(bundle)


# graphs with their true hash


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
