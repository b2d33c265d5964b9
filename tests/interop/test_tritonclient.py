"""Our own service, asked by the real tritonclient (`make .venv/clients/installed`)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from documented import code
from repository import ROOT
from service_support import MEMORISED, process
from triton_server import CLIENTS

from mnemoscope import Detection, Detector, embedded
from mnemoscope.serve.service.answer import DEFAULT, OUTPUTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not CLIENTS.exists() and "CLIENTS_PYTHON" not in os.environ,
        reason="tritonclient has an environment of its own: make .venv/clients/installed",
    ),
]

KEY = "0123456789abcdef"
PROMPTS = ["a cat", MEMORISED, "猫 " * 60]
WAYS = ["json", "binary", "grpc", "aio http", "aio grpc"]


@contextmanager
def asked(*args: object, key: str = "") -> Iterator[Any]:
    with process("--noises", 4, *args) as (_, http, grpc):
        run = subprocess.run(
            [CLIENTS, Path(__file__).with_name("in_clients.py"), http.removeprefix("http://"), grpc]
            + ([key] if key else []),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": f"{ROOT}/runtime:{ROOT}/export:{ROOT}/sdk"},
        )
        assert run.returncode == 0, run.stderr
        yield json.loads(run.stdout)


@pytest.fixture(scope="module")
def hidden() -> Iterator[Any]:
    """As it is served unless told otherwise."""
    with asked() as found:
        yield found


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """With scores, a key, and clients who may load what is there."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEY)
    keys.chmod(0o600)
    models = [f"--model=mnemoscope={embedded.BUNDLE}", f"--model=other={embedded.BUNDLE}"]
    with asked("--show-scores", "--control", "--keys", keys, *models, key=KEY) as found:
        yield found


@pytest.fixture(scope="module")
def expected() -> list[Detection]:
    with Detector.load(threads=1) as detector:
        return detector.screen(PROMPTS)  # in one batch, as a request's prompts are


@pytest.mark.parametrize("way", WAYS)
def test_scores_are_those_of_the_detector(shown: Any, expected: list[Detection], way: str) -> None:
    told = shown["answers"][way]
    for name in ("score", "p_value"):
        values = np.array([getattr(each, name) for each in expected], "<f4")
        found = np.frombuffer(bytes.fromhex("".join(told[name])), "<f4")
        if way.startswith("aio"):  # several requests share a batch, which rounds otherwise
            np.testing.assert_allclose(found, values, rtol=1e-5)
        else:
            assert found.tobytes() == values.tobytes()
    assert told["memorized"] == [each.memorized for each in expected] == [False, True, False]
    assert told["truncated"] == [each.truncated for each in expected]
    assert told["bundle"] == [each.bundle for each in expected]
    assert told["notes"] == [" ".join(each.notes) for each in expected]
    assert told["noises"] == [4] * 3


@pytest.mark.parametrize("way", WAYS)
def test_scores_are_hidden_unless_told(hidden: Any, expected: list[Detection], way: str) -> None:
    told = hidden["answers"][way]
    assert told["score"] == told["p_value"] == ["null"] * 3
    assert told["memorized"] == [each.memorized for each in expected]


def test_one_answer_in_json_and_bytes(shown: Any) -> None:
    answers = shown["answers"]
    assert answers["mixed"] == {
        name: answers["binary"][name] for name in ("score", "memorized", "bundle")
    }
    assert answers["unnamed"] == list(DEFAULT)
    assert answers["id"] == "seven"


ERRORS = {
    "empty": (400, "INVALID_ARGUMENT", "Prompt 1 (counted from 0) has no verdict. It is empty"),
    "long": (400, "INVALID_ARGUMENT", "100,001 characters"),
    "bytes": (400, "INVALID_ARGUMENT", "no UTF-8"),
    "output": (400, "INVALID_ARGUMENT", "no output 'nothing'"),
    "model": (404, "NOT_FOUND", "no model 'nothing'"),
    "override": (400, "INVALID_ARGUMENT", "as it lies there"),
    "key": (401, "UNAUTHENTICATED", "A key is needed"),
    "packed": (415, "", "Compressed bodies are not read"),
}


def test_errors_are_told_with_their_status(shown: Any) -> None:
    assert len(shown["errors"]) == 15
    for case, text in shown["errors"].items():
        kind, _, way = case.partition(", ")
        http, grpc, words = ERRORS[kind]
        status = f"StatusCode.{grpc}" if way == "grpc" else str(http)
        assert text.startswith(f"{status}: "), (case, text)
        assert words in text, (case, text)


def test_whoever_needs_no_key_may_load_nothing(hidden: Any) -> None:
    errors = hidden["errors"]
    assert errors["key, http"] == errors["key, grpc"] == "no error"
    assert errors["override, http"].startswith("400: ")


@pytest.mark.parametrize("way", ["http", "grpc"])
def test_what_else_a_client_may_ask(shown: Any, way: str) -> None:
    about = shown["about"][way]
    assert about["live"]
    assert about["ready"]
    assert about["model"]
    assert about["server"]["name"] == about["metadata"]["platform"] == "mnemoscope"
    outputs = about["metadata"]["outputs"]
    assert [each["name"] for each in outputs] == list(OUTPUTS)
    assert [each["datatype"] for each in outputs] == [each.datatype for each in OUTPUTS.values()]
    config = about["config"]
    assert config["input"][0]["data_type"] == "TYPE_STRING"
    assert [int(each) for each in config["input"][0]["dims"]] == [-1]
    assert int(about["statistics"]["inference_stats"]["success"]["count"]) > 0
    index = about["index"]
    models = index["models"] if way == "grpc" else index
    assert {each["name"]: each["state"] for each in models} == {
        "mnemoscope": "READY",
        "other": "READY",
    }


def test_messages_are_those_of_the_client(shown: Any) -> None:
    assert shown["differences"] == []


def test_the_lines_of_the_page_and_the_example() -> None:
    lines = code("serving.md", "import tritonclient")
    assert "localhost:8000" in lines
    example = ROOT / "examples" / "triton_client.py"
    with process() as (_, http, _):
        address = http.removeprefix("http://")
        told = [
            subprocess.run([CLIENTS, *each], capture_output=True, text=True, check=False)
            for each in (
                ["-c", lines.replace("localhost:8000", address)],
                [example, address, *PROMPTS],
                [example, address, "a cat", ""],
            )
        ]
    page, verdicts, none = told
    assert (page.returncode, page.stdout) == (0, "[False  True]\n"), page.stderr
    assert [line[:9].rstrip() for line in verdicts.stdout.splitlines()] == [
        "clean",
        "memorized",
        "in part",
    ], verdicts.stderr
    assert none.returncode == 1
    assert "Prompt 1 (counted from 0) has no verdict" in none.stderr
