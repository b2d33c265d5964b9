"""What stands in config.pbtxt; tests/interop/test_triton.py has Triton itself read it."""

from __future__ import annotations

import re

import pytest

from mnemoscope.serve.triton import ModelOptions
from mnemoscope.serve.triton.config import Scheduling, config_text
from mnemoscope_runtime import InputError


def test_nothing_waits_for_a_queue_policy() -> None:
    text = config_text("m", ModelOptions(), Scheduling())
    assert "\ndynamic_batching { }\n" in text
    assert "policy" not in text
    assert "delay" not in text


@pytest.mark.parametrize(
    ("options", "kind", "batch"),
    [
        (ModelOptions(), "KIND_CPU", 8),
        (ModelOptions("openvino"), "KIND_CPU", 8),
        (ModelOptions("tensorrt"), "KIND_GPU gpus: [ 0 ]", 32),
        (ModelOptions("onnxruntime-cuda", device=2), "KIND_GPU gpus: [ 2 ]", 32),
    ],
)
def test_the_backend_says_where_it_runs(options: ModelOptions, kind: str, batch: int) -> None:
    text = config_text("m", options, Scheduling(instances=3))
    assert f"instance_group {{ count: 3 kind: {kind} }}" in text
    assert f"max_batch_size: {batch}\n" in text
    assert re.findall(r"batch_size: (\d+) inputs", text) == ["1", str(batch)]


def test_a_batch_of_one_is_warmed_up_once() -> None:
    text = config_text("m", ModelOptions(), Scheduling(batch=1))
    assert text.count("model_warmup") == 1


@pytest.mark.parametrize(
    "given", [{"batch": 0}, {"instances": 0}, {"batch": True}, {"batch": 5000}]
)
def test_what_cannot_be_used_is_refused(given: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(given))):
        Scheduling(**given)
