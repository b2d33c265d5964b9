from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from cli_support import Run, failed, one_model

from mnemoscope_runtime import (
    BackendError,
    BackendUnavailable,
    Bundle,
    InputError,
    IntegrityError,
)
from mnemoscope_runtime.engines import EngineKey, read_engine, tensorrt, write_engine
from mnemoscope_runtime.engines.tensorrt import BuildOptions, build_engine

KEY = EngineKey(
    backend="tensorrt-rtx",
    version="1.7.1",
    bundle="ab" * 32,
    graph="screen",
    graph_sha256="cd" * 32,
    weights_sha256=("ef" * 32,),
    precision="float16",
    batch=4,
    platform="linux-x86_64",
    gpu="SM89",
)


# files


def test_round_trip(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "new", KEY, b"engine")
    assert path.name == "tensorrt-rtx.screen.float16.batch4.engine"
    assert read_engine(tmp_path / "new", KEY) == b"engine"
    assert path.stat().st_mode & 0o777 == 0o644
    assert len(list((tmp_path / "new").iterdir())) == 2


def test_no_engine(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"no engine.*mnemoscope build BUNDLE --backend tens"):
        read_engine(tmp_path, KEY)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": "1.8.0"}, r"version is 1\.7\.1, here it is 1\.8\.0"),
        ({"bundle": "00" * 32}, "bundle is abababababab…, here it is 000000000000…"),
        ({"graph_sha256": "00" * 32}, "graph_sha256 is"),
        ({"weights_sha256": ("00" * 32,)}, "weights_sha256 is"),
        ({"platform": "linux-aarch64"}, "platform is linux-x86_64, here it is linux-aarch64"),
        ({"gpu": "SM86"}, "gpu is SM89, here it is SM86"),
        ({"flags": ("level=5",)}, r"flags is \(\), here it is \('level=5',\)"),
    ],
)
def test_what_differs_is_said(tmp_path: Path, change: dict[str, object], words: str) -> None:
    write_engine(tmp_path, KEY, b"engine")
    with pytest.raises(BackendError, match=f"does not fit: {words}"):
        read_engine(tmp_path, replace(KEY, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", [b"", b"engin", b"Engine", b"engine "])
def test_a_damaged_engine(tmp_path: Path, damage: bytes) -> None:
    write_engine(tmp_path, KEY, b"engine").write_bytes(damage)
    with pytest.raises(IntegrityError, match="differs from what its sidecar promises"):
        read_engine(tmp_path, KEY)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"{}", b"\xff", b'{"kind": "mnemoscope-engine"}']
)
def test_a_damaged_sidecar(tmp_path: Path, text: bytes) -> None:
    path = write_engine(tmp_path, KEY, b"engine")
    path.with_name(path.name + ".json").write_bytes(text)
    with pytest.raises(IntegrityError, match="Build the engine again"):
        read_engine(tmp_path, KEY)


def test_an_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BackendError, match=r"cannot be written.*--engines"):
        write_engine(tmp_path / "file", KEY, b"engine")


# options


@pytest.mark.parametrize(
    "wrong", [{"batch": 0}, {"batch": 1000}, {"workspace": 100}, {"level": 6}, {"level": -1}]
)
def test_options_that_cannot_be(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError):
        BuildOptions(**wrong)  # type: ignore[arg-type]


def test_no_such_builder(bundle_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'openvino' builds no engines"):
        build_engine(Bundle.open(bundle_dir), "screen", tmp_path, backend="openvino")


def test_tensorrt_is_not_installed(
    bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'mnemoscope\[tensorrt-rtx\]'"):
        build_engine(Bundle.open(bundle_dir), "screen", tmp_path)


# TensorRT for RTX builds without a GPU


@pytest.fixture
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx_bindings", exc_type=ImportError)


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("graph", ["screen", "step", "text_encoder"])
def test_every_graph_builds(bundle_dir: Path, tmp_path: Path, graph: str) -> None:
    phases = []
    path = build_engine(
        Bundle.open(bundle_dir), graph, tmp_path, progress=lambda *step: phases.append(step)
    )
    sidecar = json.loads(path.with_name(path.name + ".json").read_text())
    assert sidecar["key"]["graph"] == graph
    assert sidecar["key"]["bundle"] == Bundle.open(bundle_dir).id
    assert path.stat().st_size == sidecar["file"]["bytes"] > 10_000
    assert phases
    assert all(0 < done <= total for _, done, total in phases)


@one_model
@pytest.mark.usefixtures("rtx")
def test_an_engine_that_fits_is_not_built_again(
    bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, built = Bundle.open(bundle_dir), []
    monkeypatch.setattr(tensorrt, "_plan", lambda *_: built.append(1) or b"engine")
    for _ in range(2):
        path = build_engine(bundle, "screen", tmp_path)
    assert len(built) == 1
    path.write_bytes(b"damaged")
    build_engine(bundle, "screen", tmp_path)
    build_engine(bundle, "screen", tmp_path, options=BuildOptions(level=1))
    assert len(built) == 3


@one_model
@pytest.mark.usefixtures("rtx")
def test_builders_wait_for_each_other(
    bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, built = Bundle.open(bundle_dir), []
    monkeypatch.setattr(tensorrt, "_plan", lambda *_: built.append(1) or b"engine")
    threads = [Thread(target=build_engine, args=(bundle, "step", tmp_path)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(built) == 1


@one_model
@pytest.mark.usefixtures("rtx")
def test_targets(bundle_dir: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(bundle_dir)
    path = build_engine(bundle, "text_encoder", tmp_path, options=BuildOptions(targets=("SM89",)))
    assert json.loads(path.with_name(path.name + ".json").read_text())["key"]["gpu"] == "SM89"
    with pytest.raises(InputError, match=r"no target SM10\. Choose from.*SM86"):
        build_engine(bundle, "text_encoder", tmp_path, options=BuildOptions(targets=("SM10",)))


@one_model
@pytest.mark.usefixtures("rtx")
def test_a_graph_that_does_not_parse(bundle_dir: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(bundle_dir)
    import onnx

    model = onnx.load_model_from_string(bundle.read("text_encoder.onnx"))
    model.graph.node[-1].op_type = "Det"
    bundle._verified["text_encoder.onnx"] = model.SerializeToString()
    with pytest.raises(BackendError, match="tensorrt-rtx cannot parse text_encoder"):
        build_engine(bundle, "text_encoder", tmp_path)


@one_model
@pytest.mark.usefixtures("rtx")
def test_command(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    result = run("build", bundle_dir, "--graphs", "text_encoder", "--engines", tmp_path / "e")
    assert result.code == 0, result.err
    assert "tensorrt-rtx.text_encoder.float32.batch4.engine" in result.out.replace("\n", "")
    failed(run("build", bundle_dir, "--graphs", "vae"), 2, "no graph 'vae'", "screen")
