from __future__ import annotations

import pytest

from mnemoscope_runtime.strict_json import parse, unknown


def test_what_an_object_says() -> None:
    text = '{"a": [1, 2.5, {"b": null}], "ü": "x", "c": {"a": true}}'
    expected = {"a": [1, 2.5, {"b": None}], "ü": "x", "c": {"a": True}}
    assert parse(text.encode()) == expected
    assert parse(b" {} ") == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"b": 2, "a": 1, "a": 1}', "it says 'a' twice"),
        (b'{"b": [{"a": 1, "\\u0061": 2}]}', "it says 'a' twice"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b"[]", "it is no object"),
        (b"7", "it is no object"),
        (b"", "Expecting value"),
        (b'{"a": 1}}', "Extra data"),
        (b"\xff\xfe{\x00}\x00", "decode"),
        (b'\xef\xbb\xbf{"a": 1}', "BOM"),
        (b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "nested too deep"),
        (b'{"a": [' + b"{}," * 70_000 + b"{}]}", "more than 65,536 brackets"),
    ],
)
def test_what_says_nothing_or_more_than_one_thing(text: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(text)


def test_as_many_brackets_as_there_may_be() -> None:
    most = 2**16 - 2  # less those around them
    assert len(parse(b'{"a": [' + b",".join([b"[]"] * most) + b"]}")["a"]) == most
    with pytest.raises(ValueError, match="brackets"):
        parse(b'{"a": [' + b",".join([b"[]"] * (most + 1)) + b"]}")


def test_where_fields_are_unknown() -> None:
    known = {"a": 1, "b": [{"c": 2}, {"c": 3}], "d": {"e": [4]}}
    assert unknown(known, known) == []
    assert unknown({"d": {"e": [9]}}, known) == []
    raw = {"x": 1, "b": [{"c": 2}, {"c": 3, "y": [1]}], "d": {"e": [4], "z": None}}
    assert unknown(raw, known) == ["x", "b.1.y", "d.z"]
    assert unknown([{"c": 1, "x": 2}], [{"c": 1}]) == ["0.x"]
