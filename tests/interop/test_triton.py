"""The model that we write for Triton, in a real one, asked by its own client.

Both are in an environment of their own (`make .venv/clients/installed`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service_support import running
from shared import made_once
from triton_server import CLIENTS, home, serving

from mnemoscope import Detection, Detector, embedded
from mnemoscope.serve.triton import ModelOptions, write_model
from mnemoscope.serve.triton.config import Scheduling, config_text
from mnemoscope.serve.triton.graph import graph_config
from mnemoscope_runtime import BackendOptions, Bundle

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        home() is None, reason="Triton has an environment of its own: make .venv/clients/installed"
    ),
]

MEMORISED = "google icon of tokyo tower, on rings, in zagreb 2020"
GOOD = {
    "memorised": [MEMORISED],
    "clean": ["a cat"],
    "cut": ["cat " * 100],
    "any script": ["eine Katze — 猫 \U0001f408"],
    "both": ["a cat", MEMORISED, "sheep, tilted", "a dog in a red hat"],
}
BAD = {
    "empty": ([""], "Prompt 0 (counted from 0) has no verdict"),
    "too long": (["x" * 100_001], "100,001 characters"),
    "one of them": (["a cat", "", MEMORISED], "Prompt 1 (counted from 0) has no verdict"),
    "no text": (["a \udcff"], "no UTF-8"),
}
TOO_MANY = {"more than a batch": ["a cat"] * 9}
WAYS = ["json", "http", "grpc"]


# Triton's backends for ONNX and plans are in no wheel: this one stands in for them, and runs the
# same file, with the same config but for the name of the backend
STAND_IN = """
import pathlib
import onnxruntime
import triton_python_backend_utils as triton

class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = pathlib.Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(path), options)

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        given = {each.name(): each.as_numpy() for each in request.inputs()}
        names = list(request.requested_output_names())
        found = self.session.run(names, given)
        return triton.InferenceResponse([triton.Tensor(*each) for each in zip(names, found)])
"""


def write_by_triton(models: Path, name: str, scheduling: Scheduling) -> Path:
    """A model whose graph a stand-in runs; its folder."""
    options = ModelOptions(show_scores=True)
    write_model(models, options=options, scheduling=scheduling, name=name, by_triton=True)
    inner = models / f"{name}_screen"
    (inner / "1" / "model.py").write_text(STAND_IN)
    config = (inner / "config.pbtxt").read_text()
    assert 'backend: "onnxruntime"\n' in config
    place = f'key: "EXECUTION_ENV_PATH" value {{ string_value: "{scheduling.environment}" }}'
    (inner / "config.pbtxt").write_text(
        config.replace('backend: "onnxruntime"', 'backend: "python"') + f"parameters {{ {place} }}"
    )
    return inner


def write_models(models: Path) -> None:
    """One that hides scores, one that shows them, two with a second model, and three no good."""
    shown = ModelOptions(threads=1, show_scores=True)
    scheduling = Scheduling(environment=str(CLIENTS.parent.parent))
    write_model(models, options=ModelOptions(threads=1), scheduling=scheduling)
    write_model(models, options=shown, scheduling=scheduling, name="shown")
    write_model(models, options=ModelOptions(steps=3), scheduling=scheduling, name="uncalibrated")
    here = Scheduling(environment=sys.prefix)  # whose numpy is another
    write_model(models, options=shown, scheduling=here, name="numpy_2")
    out = write_model(models, options=shown, scheduling=scheduling, name="changed")
    graph = out / "1" / "bundle" / "screen.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    write_by_triton(models, "by_triton", scheduling)
    model = write_by_triton(models, "unlike", scheduling) / "1" / "model.py"
    doubled = "zip(names, [2 * each for each in found])"
    model.write_text(model.read_text().replace("zip(names, found)", doubled))


def ask_all(folder: Path) -> None:
    """Ask Triton and our own service, and write down what they answer."""
    folder.mkdir()
    write_models(folder / "models")
    found: dict[str, Any] = {}
    with serving(folder / "models", folder) as triton:
        models = ("mnemoscope", "by_triton", "unlike", "shown")
        found["triton"] = golden(folder, triton.http, triton.grpc, *models)
        index = urllib.request.Request(f"http://{triton.http}/v2/repository/index", method="POST")
        with urllib.request.urlopen(index) as response:
            found["states"] = {each["name"]: each["state"] for each in json.load(response)}
    found["log"] = triton.log.read_text()
    for name, shown in (("mnemoscope", False), ("shown", True)):
        with running(show_scores=shown, backend_options=BackendOptions(1)) as (http, grpc):
            address = http.removeprefix("http://")
            found[f"our {name}"] = golden(folder, address, grpc, "mnemoscope")["mnemoscope"]
    (folder / "found.json").write_text(json.dumps(found))


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What came of it: once in a run, whatever the number of workers."""
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    return json.loads((made_once(place, "triton", ask_all) / "found.json").read_text())


@pytest.fixture(scope="session")
def answers(found: Any) -> Any:
    return found["triton"]


def golden(folder: Path, http: str, grpc: str, *models: str) -> Any:
    """What models answer to the golden requests."""
    cases = folder / "cases.json"
    cases.write_text(json.dumps(GOOD | {case: each for case, (each, _) in BAD.items()} | TOO_MANY))
    run = subprocess.run(
        [CLIENTS, Path(__file__).with_name("golden.py"), http, grpc, cases, *models],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="session")
def expected() -> dict[str, list[Detection]]:
    with Detector.load(threads=1) as detector:
        return {case: detector.screen(prompts) for case, prompts in GOOD.items()}


def values(answer: list[dict[str, Any]], name: str, kind: type) -> Any:
    """An output, of whatever protocol. # [n]"""
    [found] = [each for each in answer if each["name"] == name]
    assert found["datatype"] == {np.float32: "FP32", np.bool_: "BOOL"}[kind]
    raw = found["data"]
    data = np.array(raw, kind) if isinstance(raw, list) else np.frombuffer(bytes.fromhex(raw), kind)
    assert found["shape"] == [len(data), 1]
    return data


@pytest.mark.parametrize("case", GOOD)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", ["shown", "by_triton"])
def test_answers_are_those_of_the_detector(
    answers: Any, expected: dict[str, list[Detection]], model: str, way: str, case: str
) -> None:
    answer, told = answers[model][way][case], expected[case]
    for name in ("score", "p_value"):
        wanted = np.array([getattr(each, name) for each in told], np.float32)
        assert values(answer, name, np.float32).tobytes() == wanted.tobytes()  # the same bits
    for name in ("memorized", "truncated"):
        assert values(answer, name, np.bool_).tolist() == [getattr(each, name) for each in told]


@pytest.mark.parametrize("case", GOOD)
@pytest.mark.parametrize("way", WAYS)
def test_scores_are_hidden_unless_told(
    answers: Any, expected: dict[str, list[Detection]], way: str, case: str
) -> None:
    answer = answers["mnemoscope"][way][case]
    for name in ("score", "p_value"):
        assert np.isnan(values(answer, name, np.float32)).all()
    found = values(answer, "memorized", np.bool_).tolist()
    assert found == [each.memorized for each in expected[case]]


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("way", ["http", "grpc"])
@pytest.mark.parametrize("model", ["mnemoscope", "shown", "by_triton"])
def test_what_has_no_verdict_is_an_error(answers: Any, model: str, way: str, case: str) -> None:
    status = "400" if way == "http" else "StatusCode.INVALID_ARGUMENT"
    answer = answers[model][way][case]
    assert answer.startswith(f"{status}: ")
    assert BAD[case][1] in answer


@pytest.mark.parametrize("case", [*GOOD, *BAD])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", ["mnemoscope", "shown"])
def test_our_own_service_answers_the_same(found: Any, model: str, way: str, case: str) -> None:
    """The same bytes; of several prompts, which it may gather otherwise, within rounding."""
    mine, theirs = found[f"our {model}"][way][case], found["triton"][model][way][case]
    if isinstance(mine, list) and (way == "json" or len(GOOD[case]) > 1):
        for name in ("score", "p_value"):
            numbers = (values(each, name, np.float32) for each in (mine, theirs))
            np.testing.assert_allclose(*numbers, rtol=1e-6)
        mine, theirs = mine[2:], theirs[2:]
    assert mine == theirs


@pytest.mark.parametrize("case", GOOD)
def test_a_graph_that_is_another_gives_no_verdicts(answers: Any, case: str) -> None:
    for way in WAYS:
        assert "from PyTorch on this machine" in answers["unlike"][way][case]


def test_more_than_a_batch_is_refused(answers: Any) -> None:
    for way in WAYS:
        assert "must be <= 8" in answers["shown"][way]["more than a batch"]


def test_who_comes_together_is_measured_together(answers: Any) -> None:
    """Forty at once, some of them bad: each gets its own, and there were fewer calls."""
    together = answers["together"]
    assert together["answers"] == together["alone"]
    assert together["calls"] < together["requests"]


def test_what_cannot_be_answered_for_is_not_loaded(found: Any) -> None:
    assert "IntegrityError: " in found["log"]
    assert "CalibrationError: " in found["log"]
    assert (
        "BackendUnavailable: Triton's Python backend garbles prompts with numpy 2" in found["log"]
    )
    assert found["states"] == {
        **dict.fromkeys(["mnemoscope", "shown"], "READY"),
        **dict.fromkeys(["by_triton", "by_triton_screen", "unlike", "unlike_screen"], "READY"),
        **dict.fromkeys(["changed", "numpy_2", "uncalibrated"], "UNAVAILABLE"),
    }


def test_prompts_are_not_in_its_log(found: Any) -> None:
    assert "mnemoscope" in found["log"]
    for prompt in ("tokyo", "red hat", "cat cat"):
        assert prompt not in found["log"]


def test_tritons_schema_takes_every_config(tmp_path: Path) -> None:
    """Also of hosts with GPUs, which there are none of here."""
    for number, (options, scheduling) in enumerate(
        [
            (ModelOptions(), Scheduling()),
            (
                ModelOptions("tensorrt", device=1, engines='/pl"a\\ns', contexts=2),
                Scheduling(16, 2),
            ),
            (ModelOptions("onnxruntime-cuda", batch=4, trust="/ключ"), Scheduling(1, 1, "/venv")),
        ]
    ):
        (tmp_path / f"{number}.pbtxt").write_text(config_text(f"m{number}", options, scheduling))
    bundle = Bundle.open(embedded.BUNDLE)
    for backend in ("tensorrt", "onnxruntime-cuda"):
        text = graph_config(backend, bundle, ModelOptions(backend, device=3))
        (tmp_path / f"{backend}.pbtxt").write_text(text)
    code = """if True:
        import json, pathlib, sys
        from google.protobuf import json_format, text_format
        from tritonclient.grpc.model_config_pb2 import ModelConfig
        for path in sorted(pathlib.Path(sys.argv[1]).glob("*.pbtxt")):
            config = text_format.Parse(path.read_text(), ModelConfig())
            print(json_format.MessageToJson(config, indent=None, preserving_proto_field_name=True))
    """
    run = subprocess.run(
        [CLIENTS, "-c", code, tmp_path], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    plain, rt, cuda, *graphs = map(json.loads, run.stdout.splitlines())
    assert plain["dynamic_batching"] == {}
    assert rt["instance_group"] == [{"count": 2, "kind": "KIND_GPU", "gpus": [1]}]
    assert rt["parameters"]["engines"] == {"string_value": '/pl"a\\ns'}
    assert cuda["parameters"]["trust"] == {"string_value": "/ключ"}
    assert cuda["parameters"]["EXECUTION_ENV_PATH"] == {"string_value": "/venv"}
    for graph, backend in zip(graphs, ("onnxruntime", "tensorrt"), strict=True):
        assert graph["backend"] == backend
        assert graph["instance_group"] == [{"count": 1, "kind": "KIND_GPU", "gpus": [3]}]
        assert [each["dims"] for each in graph["input"]] == [["-1", "77"], ["-1"]]
