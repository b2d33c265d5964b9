from __future__ import annotations

import pytest

from mnemoscope.serve.triton import ModelOptions
from mnemoscope_runtime import InputError

ALL = ModelOptions(
    backend="onnxruntime-tensorrt",
    threads=2,
    device=1,
    engines="/plans",
    batch=4,
    trust="/key.pub",
    detector="taps",
    steps=10,
    noises=1,
    calls=4,
    show_scores=True,
)


@pytest.mark.parametrize(
    "options",
    [ModelOptions(), ModelOptions("tensorrt", contexts=2), ALL],
    ids=["none", "rt", "all"],
)
def test_options_come_back_from_texts(options: ModelOptions) -> None:
    assert all(type(each) is str for each in options.parameters.values())
    assert ModelOptions.of(options.parameters) == options


def test_names_in_capitals_are_tritons_own() -> None:
    found = ModelOptions.of({"EXECUTION_ENV_PATH": "/venv", "steps": "2"})
    assert found == ModelOptions(steps=2)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"nosies": "1"}, "nosies"),
        ({"steps": "few"}, "steps"),
        ({"steps": ""}, "steps"),
        ({"show_scores": "perhaps"}, "show_scores"),
        ({"backend": "auto"}, "auto"),
        ({"backend": "torch"}, "torch"),
        ({"device": "1"}, "device"),
        ({"backend": "tensorrt", "threads": "1"}, "threads"),
    ],
)
def test_what_cannot_be_used_is_refused(parameters: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ModelOptions.of(parameters)


def test_scores_are_hidden_unless_told() -> None:
    assert not ModelOptions().show_scores
    assert not ModelOptions.of({}).show_scores


@pytest.mark.parametrize(
    ("backend", "gpu"),
    [("onnxruntime", False), ("openvino:bfloat16", False), ("tensorrt", True)],
)
def test_which_backends_run_on_a_gpu(backend: str, gpu: bool) -> None:
    assert ModelOptions(backend).on_gpu is gpu
