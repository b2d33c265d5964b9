"""Small changes to files, drawn from dice: hypothesis's, Python's, or those that atheris seeds."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from mnemoscope_runtime.graphs.operators import OPERATORS

__all__ = ["ANY_FILE", "Mutator", "change_graph", "changed"]

Mutator = Callable[[bytes, Random], bytes]

_ODD = (
    *(None, True, False, 0, -1, 1, 0.5, -0.0, 1e308, 5e-324, float("nan"), float("inf")),
    *(2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, "", "\0", "\ud800", "../x", "/dev/zero"),
    *("a" * 10_000, [], {}, [[]], {"": None}, [0] * 1000),
)
_NUMBERS = (-(2**63), -(2**31), -1000, -2, -1, 0, 1, 2, 3, 5, 1000, 10**6, 2**31 - 1, 2**40, 2**62)
_KINDS = (*sorted(OPERATORS), *("Loop", "If", "RandomNormalLike", "", "Abs2") * 4)
_BYTES = (
    b"\0",
    b"\xff",
    b"\xff" * 8,
    b'"',
    b"{",
    b"[" * 300,
    b"\r\n",
    b",",
    b"9" * 30,
    b"\x80\x01",
)


def changed(content: bytes, dice: Random, mutators: tuple[Mutator, ...]) -> bytes:
    """The content after a few changes, most often after one."""
    for _ in range(dice.choice((1, 1, 1, 2, 5))):
        content = dice.choice(mutators)(content, dice)
    return content


def flip(content: bytes, dice: Random) -> bytes:
    if not content:
        return b"\x01"
    found = bytearray(content)
    found[dice.randrange(len(found))] ^= 1 << dice.randrange(8)
    return bytes(found)


def cut(content: bytes, dice: Random) -> bytes:
    return content[: dice.randrange(len(content) + 1)]


def remove(content: bytes, dice: Random) -> bytes:
    start, end = _span(content, dice)
    return content[:start] + content[end:]


def repeat(content: bytes, dice: Random) -> bytes:
    start, end = _span(content, dice)
    return content[:end] * dice.randrange(1, 4) + content[start:]


def splice(content: bytes, dice: Random) -> bytes:
    """A piece of it elsewhere in it."""
    start, end = _span(content, dice)
    place = dice.randrange(len(content) + 1)
    over = dice.choice((0, end - start))
    return content[:place] + content[start:end] + content[place + over :]


def insert(content: bytes, dice: Random) -> bytes:
    place, piece = dice.randrange(len(content) + 1), dice.choice(_BYTES)
    return content[:place] + piece + content[place + dice.choice((0, len(piece))) :]


def change_json(content: bytes, dice: Random) -> bytes:
    """Another value, name or order somewhere in JSON, or in one line of it; else any change."""
    lines = content.splitlines(keepends=True)
    at = dice.randrange(len(lines)) if lines and content.startswith(b'{"') else 0
    for before, text in ((b"", content), (b"".join(lines[:at]), b"".join(lines[at : at + 1]))):
        try:
            value = json.loads(text)
            found = json.dumps(_other(value, dice), separators=(",", ":")).encode()
        except (ValueError, RecursionError):
            continue
        return before + found + content[len(before) + len(text.rstrip()) :]
    return flip(content, dice)


def change_graph(content: bytes, dice: Random) -> bytes:
    """Another operator, edge, number or size in an ONNX file; else any change."""
    try:
        model = onnx.load_model_from_string(content)
        dice.choice((_operator, _edge, _attribute, _constant, _size, _node))(model.graph, dice)
        return model.SerializeToString()
    except (DecodeError, ValueError, IndexError):  # garbage; or it has none of that
        return flip(content, dice)


ANY_FILE: tuple[Mutator, ...] = (
    *(flip, flip, cut, remove, repeat, splice, insert),
    *(change_json, change_json, change_json),
)


def _span(content: bytes, dice: Random) -> tuple[int, int]:
    start = dice.randrange(len(content) + 1)
    return start, min(len(content), start + dice.choice((1, 2, 8, 64, 1000)))


def _other(value: Any, dice: Random) -> Any:
    if not (isinstance(value, dict | list) and value) or dice.random() < 0.15:
        return _near(value, dice) if dice.randrange(2) else dice.choice(_ODD)
    names = list(value) if isinstance(value, dict) else range(len(value))
    name = names[dice.randrange(len(names))]
    what = dice.randrange(8)
    if what == 0:
        del value[name]
    elif what == 1:
        value[name] = value[names[dice.randrange(len(names))]]
    elif what == 2 and isinstance(value, dict):
        value[dice.choice(("", "x", name.upper(), f"{name} "))] = value.pop(name)
    elif what == 2:
        value.append(value[name])
    else:
        value[name] = _other(value[name], dice)
    return value


def _near(value: Any, dice: Random) -> Any:
    """What the same writer could have written."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return dice.choice((value + 1, value * 2, value - 1, -value))
    if isinstance(value, str):
        return dice.choice((value[1:], value + value, value.swapcase(), value[::-1]))
    return value


def _operator(graph: onnx.GraphProto, dice: Random) -> None:
    graph.node[dice.randrange(len(graph.node))].op_type = dice.choice(_KINDS)


def _edge(graph: onnx.GraphProto, dice: Random) -> None:
    node = graph.node[dice.randrange(len(graph.node))]
    names = [*(each.name for each in graph.initializer), *(o for n in graph.node for o in n.output)]
    node.input[dice.randrange(len(node.input))] = dice.choice((*names, "", "nowhere"))


def _attribute(graph: onnx.GraphProto, dice: Random) -> None:
    attributes = [each for node in graph.node for each in node.attribute]
    chosen = attributes[dice.randrange(len(attributes))]
    value = dice.choice(_NUMBERS)
    if chosen.ints:
        chosen.ints[dice.randrange(len(chosen.ints))] = value
    elif chosen.type == onnx.AttributeProto.FLOAT:
        chosen.f = dice.choice((0.0, -1.0, float("nan"), float("inf"), 1e38))
    else:
        chosen.i = value


def _constant(graph: onnx.GraphProto, dice: Random) -> None:
    whole = [each for each in graph.initializer if each.data_type == onnx.TensorProto.INT64]
    here = [each for each in whole if not each.external_data]
    chosen = here[dice.randrange(len(here))]
    numbers = onnx.numpy_helper.to_array(chosen).copy()
    numbers.reshape(-1)[dice.randrange(numbers.size)] = dice.choice(_NUMBERS)
    chosen.CopyFrom(onnx.numpy_helper.from_array(numbers, chosen.name))


def _size(graph: onnx.GraphProto, dice: Random) -> None:
    weights = [each for each in graph.initializer if each.dims]
    dims = weights[dice.randrange(len(weights))].dims
    dims[dice.randrange(len(dims))] = dice.choice((0, 1, 2, 3, -1, 2**31, 2**62))


def _node(graph: onnx.GraphProto, dice: Random) -> None:
    del graph.node[dice.randrange(len(graph.node))]
