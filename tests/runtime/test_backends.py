from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import numpy as np
import onnxruntime
import pytest
from cli_support import copied
from one_thread import Threads
from repository import ROOT
from screening_support import CPU

from mnemoscope import Detector, embedded
from mnemoscope_runtime import (
    BACKENDS,
    Backend,
    BackendError,
    BackendOptions,
    BackendUnavailable,
    Bundle,
    Engine,
    InputError,
    open_backend,
)
from mnemoscope_runtime.backends import Spec
from mnemoscope_runtime.backends.onnxruntime import OnnxRuntime
from mnemoscope_runtime.manifest import Precision
from mnemoscope_runtime.selection import try_backends

IDS = np.full((2, 77), 5, np.int64)


@pytest.fixture
def bundle(bundle_dir: Path) -> Bundle:
    return Bundle.open(bundle_dir)


def screen(engine: Engine) -> np.ndarray:
    index = np.arange(2, dtype=np.int64)
    return engine({"input_ids": IDS, "noise_index": index}, ("magnitude",))[0]


@pytest.mark.parametrize("name", ["", "ONNXRuntime", "torch", "errors", "onnxruntime ", "../x"])
def test_unknown_backend(name: str) -> None:
    with pytest.raises(InputError, match="Choose one of: onnxruntime"):
        open_backend(name)


@pytest.mark.parametrize("name", CPU)
@pytest.mark.parametrize("device", [0, 1])
def test_the_cpu_is_no_gpu(name: str, device: int) -> None:
    with pytest.raises(InputError, match=f"{name} takes no device .*onnxruntime-cuda"):
        open_backend(name, device=device)


OPTIONS: dict[str, Any] = {
    "threads": 2,
    "device": 1,
    "engines": "engines",
    "batch": 8,
    "contexts": 3,
}
TAKES = {
    "onnxruntime": {"threads"},
    "openvino": {"threads"},
    "onnxruntime-cuda": {"threads", "device", "batch"},
    "onnxruntime-tensorrt": {"threads", "device", "engines", "batch"},
    "tensorrt": {"device", "engines", "contexts"},
    "tensorrt-rtx": {"device", "engines", "contexts"},
}


@pytest.mark.parametrize("name", BACKENDS)
def test_an_option_is_taken_or_refused_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is dropped on the way."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(Spec, "load", lambda _: lambda **options: told.append(options))
    named = {"name": name} if BACKENDS[name].named else {}
    for option, value in OPTIONS.items():
        if option in TAKES[name]:
            open_backend(name, **{option: value})
            assert told.pop() == {**named, option: value}
        else:
            with pytest.raises(InputError, match=f"{name} takes no {option} "):
                open_backend(name, **{option: value})
    assert set(BackendOptions(**OPTIONS).taken_by(name).given) == TAKES[name]


@pytest.mark.parametrize(("name", "spec"), BACKENDS.items())
def test_the_table_says_what_a_backend_takes(name: str, spec: Spec) -> None:
    """All that its constructor does, and nothing else; whatever is told to it has its type."""
    kind = spec.load()
    assert issubclass(kind, Backend)
    parameters = set(inspect.signature(kind).parameters) - {"lean"}
    if spec.named:
        assert kind.__init__.__kwdefaults__["device"] == 0
        parameters -= {"name"} | ({"engines"} if name == "onnxruntime-cuda" else set())
    assert parameters == spec.takes
    assert {field.name for field in fields(BackendOptions)} >= spec.takes - {"precision"}


def test_the_extras_of_the_table_are_those_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for spec in BACKENDS.values():
        wanted = " ".join(extras[spec.extra])
        assert all(package in wanted for package in spec.packages)
        for precision in spec.lower:
            assert precision in get_args(Precision)


@pytest.mark.parametrize("option", ["threads", "batch", "contexts"])
@pytest.mark.parametrize("value", [0, -3])
def test_a_number_that_cannot_run_anything(option: str, value: int) -> None:
    with pytest.raises(InputError, match=rf"^{value} .* cannot run anything\. Give 1 or more"):
        BackendOptions(**{option: value}).check(*BACKENDS)
    with pytest.raises(InputError, match=f"{option} is '1'"):
        BackendOptions(**{option: "1"}).check(*BACKENDS)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted({*BACKENDS} - {*CPU}))
def test_gpus_count_from_zero(name: str) -> None:
    with pytest.raises(InputError, match="Count from 0"):
        open_backend(name, device=-1)


@pytest.mark.parametrize("name", sorted({*BACKENDS} - {"openvino"}))
def test_precision_is_the_graphs(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}:float16 is not to be had"):
        open_backend(f"{name}:float16")


@pytest.mark.parametrize("threads", [0, -1])
@pytest.mark.parametrize("name", BACKENDS)
def test_no_threads(name: str, threads: int) -> None:
    with pytest.raises(InputError, match=f"{threads} threads cannot run anything"):
        open_backend(name, threads=threads)


@pytest.mark.parametrize("name", CPU)
@pytest.mark.parametrize("threads", [None, 1])
def test_backend_runs(bundle: Bundle, name: str, threads: int | None) -> None:
    backend = open_backend(name, threads=threads)
    assert backend.name == name
    values = screen(backend.load(bundle, "screen"))
    assert values.shape == (2, 2)
    assert values.dtype == np.float32
    assert (values > 0).all()


def test_bfloat16_is_not_for_onnxruntime_on_a_cpu(tmp_path: Path) -> None:
    """It has no kernels: said by name, where a bundle is opened and where backends are tried."""
    path = copied(embedded.BUNDLE, tmp_path / "bundle")
    manifest = replace(Bundle.open(path).manifest, precision="bfloat16")
    (path / "manifest.json").write_bytes(manifest.to_json())
    words = r"no bfloat16 on a CPU, and .*bundle is in it\. Use the backend openvino, or"
    with pytest.raises(BackendUnavailable, match=words):
        Detector.load(path)
    (trial,) = try_backends(path, ["onnxruntime"])
    assert re.search(words, trial.problem or "")


def test_onnxruntime_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        BackendUnavailable, match=r"pip install -c constraints.txt '\.\[onnxruntime\]'"
    ):
        open_backend("onnxruntime")


def test_onnxruntime_is_an_empty_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    with pytest.raises(BackendUnavailable, match="the package is there but empty"):
        open_backend("onnxruntime")


def test_onnxruntime_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "SessionOptions", type("SessionOptions", (), {}))
    with pytest.raises(BackendUnavailable, match=r"older than 1\.24"):
        open_backend("onnxruntime")


class Session:
    """Stands in for `onnxruntime.InferenceSession` and keeps what it was made with."""

    made: tuple[bytes, onnxruntime.SessionOptions, list[str]]

    def __init__(
        self,
        model: bytes,
        options: onnxruntime.SessionOptions,
        providers: list[str],
        disabled_optimizers: list[str],
        enable_fallback: int,
    ) -> None:
        assert disabled_optimizers == []
        assert enable_fallback == 0  # or it would try again on the CPU, and print a line
        Session.made = (model, options, providers)
        self.providers = providers

    def get_providers(self) -> list[str]:
        return self.providers


@pytest.mark.parametrize(
    "actual",
    [
        ["AzureExecutionProvider", "CPUExecutionProvider"],
        ["CUDAExecutionProvider", "CPUExecutionProvider"],
        ["CUDAExecutionProvider"],
        [],
    ],
)
def test_other_provider_than_asked_for(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, actual: list[str]
) -> None:
    monkeypatch.setattr(Session, "get_providers", lambda _: actual)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    backend = open_backend("onnxruntime")
    for _ in range(2):  # a session that was refused is not kept
        with pytest.raises(BackendUnavailable, match=r"Asked ONNX Runtime for.*it runs"):
            backend.load(bundle, "screen")


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_what_a_session_is_made_with(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, own_threads: Threads, threads: int | None
) -> None:
    defaults = OnnxRuntime.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "threads", own_threads[OnnxRuntime])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    open_backend("onnxruntime", threads=threads).load(bundle, "step")
    model, options, providers = Session.made
    assert model == bundle.read("step.onnx")
    assert options.intra_op_num_threads == (threads or 0)  # 0: ONNX Runtime decides
    assert providers == ["CPUExecutionProvider"]


def test_a_graph_is_loaded_once(bundle: Bundle) -> None:
    backend = open_backend("onnxruntime", threads=1)
    engine = backend.load(bundle, "screen")
    assert backend.load(bundle, "screen") is engine
    assert backend.load(bundle, "text_encoder") is not engine
    backend.close()
    assert backend.load(bundle, "screen") is not engine


def test_bundles_do_not_share_engines(bundle: Bundle, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle.path, tmp_path / "copy")
    fields = json.loads((copy / "manifest.json").read_bytes())
    fields["model"]["id"] = "another"
    (copy / "manifest.json").write_text(json.dumps(fields))
    backend = open_backend("onnxruntime", threads=1)
    one, other = backend.load(bundle, "screen"), backend.load(Bundle.open(copy), "screen")
    assert one is not other
    np.testing.assert_array_equal(screen(one), screen(other))


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"input_ids": IDS},
        {"input_ids": IDS, "noise_index": np.zeros((2, 2), np.int64)},
        {"input_ids": IDS, "noise_index": np.array([99])},
        {"input_ids": IDS.astype(np.float32), "noise_index": np.array([0])},
        {"input_ids": IDS[:, :5], "noise_index": np.array([0])},
        {"input_ids": IDS, "noise_index": np.array([0]), "latents": IDS},
    ],
    ids=["none", "missing", "rank", "index", "type", "length", "surplus"],
)
def test_inputs_that_do_not_fit(bundle: Bundle, inputs: dict[str, Any]) -> None:
    engine = open_backend("onnxruntime", threads=1).load(bundle, "screen")
    with pytest.raises(BackendError, match="ONNX Runtime failed"):
        engine(inputs, ("magnitude",))


def test_unknown_output(bundle: Bundle) -> None:
    engine = open_backend("onnxruntime", threads=1).load(bundle, "text_encoder")
    with pytest.raises(BackendError, match="ONNX Runtime failed"):
        engine({"input_ids": IDS}, ("magnitude",))


@pytest.mark.parametrize("name", CPU)
def test_nothing_is_reported_to_anyone(name: str, bundle_dir: Path, tmp_path: Path) -> None:
    """Importing onnxruntime or openvino alone writes an id to the home and reports usage."""
    code = (
        "from mnemoscope_runtime import Screener\n"
        f"with Screener.open({str(bundle_dir)!r}, backend={name!r}) as screener:\n"
        "    screener.first_step(['a cat'])\n"
    )
    home = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    kept = {k: v for k, v in os.environ.items() if k != "CI" and not k.startswith("XDG_")}
    subprocess.run([sys.executable, "-c", code], env=kept | home, check=True)
    assert list(tmp_path.iterdir()) == []


def test_lean_leaves_convolutions_in_their_layout(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[list[str]] = []

    def keep(*_: object, disabled_optimizers: list[str], **__: object) -> object:
        made.append(disabled_optimizers)
        raise RuntimeError("stop here")

    monkeypatch.setattr(onnxruntime, "InferenceSession", keep)
    for lean in (False, True):
        with pytest.raises(BackendError, match="stop here"):
            OnnxRuntime(lean=lean).load(bundle, "step")
    assert made == [[], ["NchwcTransformer"]]
