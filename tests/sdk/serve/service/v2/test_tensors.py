from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mnemoscope import InputError
from mnemoscope.serve.service.answer import DEFAULT, OUTPUTS, Column
from mnemoscope.serve.service.v2.tensors import (
    Asked,
    decode_contents,
    decode_request,
    decode_texts,
    encode_response,
    encode_texts,
    to_raw,
)

texts = st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=8)


def length_prefixed(prompts: list[str]) -> bytes:
    """By another way than ours."""
    encoded = [prompt.encode() for prompt in prompts]
    return b"".join(struct.pack("<I", len(each)) + each for each in encoded)


def request(prompts: list[str], **changes: Any) -> dict[str, Any]:
    tensor = {"name": "prompt", "shape": [len(prompts)], "datatype": "BYTES", "data": prompts}
    return {"inputs": [tensor | changes]}


def decoded(told: object, tail: bytes = b"", most: int = 8) -> Asked:
    text = json.dumps(told).encode()
    return decode_request(text + tail, str(len(text)) if tail else None, most)


@given(texts, st.booleans(), st.booleans())
def test_prompts_come_out_as_they_went_in(prompts: list[str], column: bool, nested: bool) -> None:
    shape = [len(prompts), 1] if column else [len(prompts)]
    data: list[Any] = [[each] for each in prompts] if nested else prompts
    asked = decoded(request(prompts, shape=shape, data=data))
    assert asked == Asked(tuple(prompts), tuple(shape))


@given(texts, st.booleans())
def test_bytes_come_out_as_they_went_in(prompts: list[str], column: bool) -> None:
    tail = length_prefixed(prompts)
    shape = [len(prompts), 1] if column else [len(prompts)]
    told = request(prompts, shape=shape, parameters={"binary_data_size": len(tail)})
    del told["inputs"][0]["data"]
    assert decoded(told, tail).prompts == tuple(prompts)
    assert encode_texts(each.encode() for each in prompts) == tail
    assert decode_contents([each.encode() for each in prompts], len(prompts)) == tuple(prompts)


@given(st.binary(max_size=200), st.integers(0, 9))
@example(b"\xff\xff\xff\xff", 1)
@example(b"\x01\0\0\0\xff", 1)
def test_any_bytes_are_texts_or_an_input_error(raw: bytes, count: int) -> None:
    try:
        found = decode_texts(raw, count)
    except InputError:
        return
    assert len(found) == count
    assert length_prefixed(list(found)) == raw


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\1\0\0", "end before text 0"),
        (b"\1\0\0\0a\2\0\0\0b", "end within text 1"),
        (b"\1\0\0\0a\1\0\0\0b!", "Behind the 2 texts of prompt there is more, by 1 byte"),
        (b"\1\0\0\0a\1\0\0\0\xff", "Text 1 of prompt is no UTF-8"),
    ],
)
def test_bytes_that_are_no_texts(raw: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        decode_texts(raw, 2)


@given(st.binary(max_size=300), st.none() | st.text(max_size=5) | st.integers(-9, 400).map(str))
@example(b"[" * 100_000, None)
@example(b'{"inputs": ' * 10_000, None)
@example(b'{"inputs": [{"name": "\\ud800", "shape": [1], "datatype": "BYTES"}]}', None)
def test_any_body_is_an_input_error(body: bytes, header: str | None) -> None:
    with pytest.raises(InputError):
        decode_request(body, header, 8)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
changes = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["prompt", "text"]) | json_values,
        "shape": st.lists(st.integers(-1, 9), max_size=3) | json_values,
        "datatype": st.sampled_from(["BYTES", "FP32"]) | json_values,
        "data": st.lists(st.text(max_size=3) | st.lists(st.text(max_size=3))) | json_values,
        "parameters": st.dictionaries(st.sampled_from(["binary_data_size", "x"]), json_values),
    },
)


@given(
    changes,
    st.dictionaries(st.sampled_from(["timeout", "binary_data_output", "steps"]), json_values),
)
def test_any_request_is_read_or_an_input_error(tensor: Any, parameters: Any) -> None:
    told = request(["a", "b"], **tensor) | {"parameters": parameters}
    try:
        asked = decoded(told)
    except InputError:
        return
    shape = tensor.get("shape", [2])
    assert asked.shape == tuple(shape)
    assert 1 <= len(asked.prompts) == shape[0] <= 8
    assert all(type(each) is str for each in asked.prompts)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"inputs": []}, "The inputs are none. Send one, called 'prompt'"),
        (request(["a"], name="text"), "The inputs are 'text'"),
        ({"inputs": request(["a"])["inputs"] * 2}, "The inputs are 'prompt', 'prompt'"),
        (request(["a"], datatype="FP32", data=[1.0]), "datatype 'FP32'. Send texts: BYTES"),
        (request(["a"], shape=[]), r"\[n\] or \[n, 1\]"),
        (request(["a", "b"], shape=[1, 2]), r"\[n\] or \[n, 1\]"),
        (request([]), "Send 1 to 8 at a time"),
        (request(["a"] * 9), "Send 1 to 8 at a time"),
        (request(["a"], shape=[2**70]), "Open Inference Protocol says|Send 1 to 8"),
        (request(["a"], shape=[2]), "has 1 text, and its shape says 2"),
        (request(["a"], data=[1]), r"are not texts.*\$\[0\]"),
        (request(["a"], data="a"), "are not texts"),
        (request(["a"], data=None), "are not texts"),
        (request(["a"], parameters={"binary_data_size": 5}), "binary_data_size of prompt is 5"),
        (request(["a"], parameters={"binary_data_size": True}), "binary_data_size of prompt is T"),
        (request(["a"]) | {"parameters": {"steps": 10}}, "steps is settled by whoever runs"),
        (request(["a"]) | {"parameters": {"timeout": -1}}, "timeout is -1"),
        (request(["a"]) | {"parameters": {"timeout": "1"}}, "timeout is '1'"),
        ({"inputs": "a secret prompt"}, "Open Inference Protocol says"),
        ([], "Open Inference Protocol says"),
    ],
)
def test_what_is_wrong_is_said_without_the_prompt(told: object, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        decoded(told)
    assert "secret" not in str(caught.value)


def test_lengths_that_do_not_fit() -> None:
    body = json.dumps(request(["a"])).encode()
    for header in (str(len(body) + 1), "-1", "1e3", "", "٣", "9" * 30):
        with pytest.raises(InputError, match="Inference-Header-Content-Length is"):
            decode_request(body, header, 8)
    with pytest.raises(InputError, match="followed by 3 bytes, and prompt has no binary_data"):
        decode_request(body + b"abc", str(len(body)), 8)


def test_what_is_to_be_told() -> None:
    plain = decoded(request(["a"]))
    assert (plain.outputs, plain.binary, plain.id, plain.timeout) == (
        DEFAULT,
        frozenset(),
        "",
        None,
    )
    told = request(["a"]) | {"parameters": {"binary_data_output": True, "timeout": 1_500_000}}
    assert decoded(told).binary == set(DEFAULT)
    assert decoded(told).timeout == 1.5
    named = [
        {"name": "score", "parameters": {"binary_data": False}},
        {"name": "notes"},
        {"name": "p_value", "parameters": {"binary_data": True}},
    ]
    asked = decoded(told | {"outputs": named, "id": "x"})
    assert (asked.outputs, asked.id) == (("score", "notes", "p_value"), "x")
    assert asked.binary == {"notes", "p_value"}
    assert decoded(request(["a"]) | {"outputs": named}).binary == {"p_value"}


COLUMNS = [
    Column(OUTPUTS["score"], (1.5, float("nan"))),
    Column(OUTPUTS["memorized"], (True, False)),
    Column(OUTPUTS["steps"], (1, 300)),
    Column(OUTPUTS["notes"], ("猫", "")),
]


def test_answers_in_json() -> None:
    body, length = encode_response(Asked(("a", "b"), (2, 1), id="x"), COLUMNS, "m", "1")
    assert length is None
    told = json.loads(body, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (told["model_name"], told["model_version"], told["id"]) == ("m", "1", "x")
    assert [each["data"] for each in told["outputs"]] == [
        *([1.5, None], [True, False], [1, 300], ["猫", ""])
    ]
    assert [each["shape"] for each in told["outputs"]] == [[2, 1]] * 4
    datatypes = [each["datatype"] for each in told["outputs"]]
    assert datatypes == ["FP32", "BOOL", "INT32", "BYTES"]


def test_answers_in_bytes() -> None:
    binary = frozenset({"score", "steps", "notes"})
    body, length = encode_response(Asked(("a", "b"), (2,), binary=binary), COLUMNS, "m", "1")
    assert length is not None
    told, tail = json.loads(body[:length]), body[length:]
    sizes = [each.get("parameters", {}).get("binary_data_size") for each in told["outputs"]]
    assert sizes == [8, None, 8, 11]
    assert np.array_equal(np.frombuffer(tail[:8], "<f4"), [1.5, np.nan], equal_nan=True)
    assert np.frombuffer(tail[8:16], "<i4").tolist() == [1, 300]
    assert tail[16:] == length_prefixed(["猫", ""])
    assert told["outputs"][1]["data"] == [True, False]
    assert to_raw(COLUMNS[1]) == b"\1\0"
    assert "id" not in told
