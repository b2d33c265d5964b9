"""What Triton calls, with a stand-in for its module; the real one is in tests/interop."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cli_support import calibrate
from numpy.typing import NDArray

from mnemoscope import CalibrationError, CalibrationFile, Detector, embedded
from mnemoscope.serve.triton import Model, ModelOptions, write_model
from mnemoscope_runtime import (
    BackendUnavailable,
    InputError,
    IntegrityError,
    NumericsError,
    Screener,
)
from mnemoscope_runtime.testing import FakeBackend

MEMORISED = "google icon of tokyo tower, on rings, in zagreb 2020"


@dataclass
class Tensor:
    name: str
    value: NDArray[Any]

    def as_numpy(self) -> NDArray[Any]:
        return self.value


class TritonError(Exception):
    INVALID_ARG, INTERNAL = "invalid", "internal"


@dataclass
class Response:
    output_tensors: list[Tensor] | None = None
    error: TritonError | None = None

    def __getitem__(self, name: str) -> list[Any]:
        assert self.output_tensors is not None, self.error
        [found] = [each.value for each in self.output_tensors if each.name == name]
        assert found.shape[1:] == (1,)
        return found.ravel().tolist()


TRITON = SimpleNamespace(
    get_input_tensor_by_name=lambda request, name: {"prompt": request}[name],
    Tensor=Tensor,
    TritonError=TritonError,
    InferenceResponse=Response,
)


def request(*prompts: str | bytes) -> Tensor:
    texts = [each if isinstance(each, bytes) else each.encode() for each in prompts]
    return Tensor("prompt", np.array(texts, np.object_).reshape(-1, 1))


def model(**options: Any) -> Model:
    return Model(Detector.load(threads=1), ModelOptions(noises=1, **options), TRITON)


def told(out: Path, **config: str) -> dict[str, str]:
    """What Triton tells `initialize`."""
    parameters = {key: {"string_value": value} for key, value in config.items()}
    return {
        "model_config": json.dumps({"parameters": parameters}),
        "model_repository": str(out),
        "model_version": "1",
        "model_instance_kind": "CPU",
        "model_instance_device_id": "0",
    }


@pytest.fixture
def old_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Says that numpy is one that Triton goes with; no text comes from Triton's memory here."""
    monkeypatch.setattr(np, "__version__", "1.26.4")


def test_each_request_gets_its_own() -> None:
    with model(show_scores=True) as opened:
        first, second = opened.execute([request("a cat", MEMORISED), request("a dog")])
        expected = opened.detector.screen(["a cat", MEMORISED, "a dog"], noises=1)
    assert first["memorized"] + second["memorized"] == [False, True, False]
    scores = np.array(first["score"] + second["score"], np.float32)
    assert scores.tobytes() == np.array([e.score for e in expected], np.float32).tobytes()
    assert first["truncated"] == [False, False]


def test_scores_are_hidden_unless_told() -> None:
    with model() as opened:
        [found] = opened.execute([request("a cat", MEMORISED)])
    assert found["memorized"] == [False, True]
    assert np.isnan(found["score"] + found["p_value"]).all()


@pytest.mark.parametrize(
    ("bad", "words"),
    [("", "empty"), ("x" * 100_001, "100,001"), (b"\xff", "no UTF-8")],
    ids=["empty", "long", "utf-8"],
)
def test_a_bad_prompt_fails_alone(bad: str | bytes, words: str) -> None:
    with model() as opened:
        found = opened.execute([request("a cat"), request("a dog", bad), request(MEMORISED)])
    assert found[0]["memorized"] == [False]
    assert found[1].output_tensors is None
    assert words in str(found[1].error)
    assert " 1 " in str(found[1].error)
    assert found[1].error.args[1] == TritonError.INVALID_ARG
    assert found[2]["memorized"] == [True]


def test_what_the_engine_finds_out_fails_alone(tmp_path: Path) -> None:
    with Detector.load() as known:
        [bad] = known.screener.tokenizer(["a dog"])
    backend = FakeBackend(lambda ids: np.nan if np.array_equal(ids, bad) else 0.5)
    calibration = calibrate(embedded.BUNDLE, 0.6, tmp_path / "fake.json", backend="fake")
    detector = Detector.load(backend=backend, calibration=calibration)
    with Model(detector, ModelOptions(), TRITON) as opened:
        found = opened.execute([request("a cat"), request("a dog"), request("a cow")])
    assert found[0]["memorized"] == found[2]["memorized"] == [False]
    assert found[1].output_tensors is None
    assert found[1].error.args[1] == TritonError.INTERNAL


@pytest.mark.usefixtures("old_numpy")
def test_it_opens_what_was_written(tmp_path: Path) -> None:
    out = write_model(tmp_path)
    with Model.open(told(out, threads="1", EXECUTION_ENV_PATH="/venv"), TRITON) as opened:
        assert opened.options.threads == 1
        assert opened.execute([request(MEMORISED)])[0]["memorized"] == [True]


@pytest.mark.usefixtures("old_numpy")
def test_what_it_cannot_answer_for_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write_model(tmp_path)
    with pytest.raises(CalibrationError):
        Model.open(told(out, steps="3"), TRITON)
    with pytest.raises(InputError, match="threds"):
        Model.open(told(out, threds="1"), TRITON)
    with monkeypatch.context() as patch:
        patch.setattr("mnemoscope_runtime.screener.Screener.probe", lambda _: 0.5)
        with pytest.raises(NumericsError, match="from PyTorch"):
            Model.open(told(out), TRITON)
    graph = out / "1" / "bundle" / "screen.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    with pytest.raises(IntegrityError):
        Model.open(told(out), TRITON)


def test_numpy_2_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "__version__", "2.4.6")
    with pytest.raises(BackendUnavailable, match="numpy<2"):
        Model.open(told(write_model(tmp_path)), TRITON)


@pytest.mark.usefixtures("old_numpy")
def test_each_instance_has_the_gpu_that_triton_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def load(*_: object, **options: Any) -> Detector:
        given.append((options["backend"], options["device"]))
        return Detector(Screener.open(embedded.BUNDLE), known)

    known = CalibrationFile.read(embedded.BUNDLE / "calibration.json")
    monkeypatch.setattr(Detector, "load", load)
    args = told(write_model(tmp_path), backend="onnxruntime-cuda", device="0")
    args |= {"model_instance_kind": "GPU", "model_instance_device_id": "3"}
    Model.open(args, TRITON).close()
    assert given == [("onnxruntime-cuda", 3)]
