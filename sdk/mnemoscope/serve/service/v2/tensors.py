"""Tensors of the Open Inference Protocol, version 2, in JSON and in its binary extension.

A request is one tensor of texts, `prompt`, of shape [n] or [n, 1]; outputs have the same shape.
Nothing here measures anything, or waits.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from mnemoscope_runtime.errors import InputError
from mnemoscope_runtime.wording import counted

from ..answer import DEFAULT, Column
from ..json_bodies import read_json
from .parameters import seconds_to_wait

__all__ = [
    "INPUT",
    "Asked",
    "decode_contents",
    "decode_request",
    "decode_texts",
    "encode_response",
    "encode_texts",
    "require_input",
    "require_shape",
    "to_raw",
]

INPUT = "prompt"
T = TypeVar("T")
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Asked:
    """A request.

    Attributes:
        prompts: What to screen.
        shape: Of the tensor: [n] or [n, 1].
        outputs: What is to be told, by name.
        binary: Which of them as bytes behind the JSON.
        id: What the client calls the request; empty if it does not.
        timeout: Seconds that the client waits; None: as long as it takes.
    """

    prompts: tuple[str, ...]
    shape: tuple[int, ...]
    outputs: tuple[str, ...] = DEFAULT
    binary: frozenset[str] = field(default_factory=frozenset)
    id: str = ""
    timeout: float | None = None


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Request(msgspec.Struct):
    inputs: list[_Tensor]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[_Output] = []


_REQUEST = msgspec.json.Decoder(_Request)
_DATA = msgspec.json.Decoder(list[str | list[str]])


def decode_request(body: bytes, header: str | None, most: int) -> Asked:
    """What a body says.

    Args:
        body: JSON, and behind it the bytes of its tensors.
        header: The header Inference-Header-Content-Length, how many bytes of it are JSON; None:
            all.
        most: Prompts that it may have.

    Raises:
        InputError: anything else than a request for this service.
    """
    length = len(body) if header is None else _count(header, "Inference-Header-Content-Length")
    if length > len(body):
        raise InputError(
            f"Inference-Header-Content-Length is {length}, and the body has "
            f"{counted(len(body), 'byte')}. Send how many of them are JSON."
        )
    try:
        told = _REQUEST.decode(body[:length])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"The request is not what the Open Inference Protocol says: {_first_line(error)}. Send "
            '{"inputs": [{"name": "prompt", "shape": [1], "datatype": "BYTES", "data": [...]}]}.'
        ) from None
    read_json(body[:length])  # refuses a key that comes twice, of which msgspec takes the last
    tensor = require_input([(each.name, each) for each in told.inputs])
    shape = require_shape(tensor.shape, tensor.datatype, most)
    raw = body[length:]
    size = tensor.parameters.get("binary_data_size")
    if size is not None:
        if type(size) is not int or size != len(raw):
            raise InputError(
                f"binary_data_size of {INPUT} is {size!r:.40}, and the JSON is followed by "
                f"{counted(len(raw), 'byte')}. Send as many as that."
            )
        prompts = decode_texts(raw, shape[0])
    else:
        if raw:
            raise InputError(
                f"The JSON is followed by {counted(len(raw), 'byte')}, and {INPUT} has no "
                "binary_data_size. Give it."
            )
        prompts = _texts(tensor.data, shape[0])
    every = told.parameters.get("binary_data_output") is True
    return Asked(
        prompts=prompts,
        shape=shape,
        outputs=tuple(each.name for each in told.outputs) or DEFAULT,
        binary=frozenset(
            each.name
            for each in told.outputs or map(_Output, DEFAULT)
            if each.parameters.get("binary_data", every) is True
        ),
        id=told.id,
        timeout=seconds_to_wait(told.parameters),
    )


def require_input(tensors: Sequence[tuple[str, T]]) -> T:
    """The one input that there is, of inputs by name.

    Raises:
        InputError: others are there, or it is not.
    """
    if [name for name, _ in tensors] != [INPUT]:
        names = ", ".join(f"{name!r:.80}" for name, _ in tensors[:4]) or "none"
        raise InputError(f"The inputs are {names}. Send one, called {INPUT!r}.")
    return tensors[0][1]


def require_shape(shape: Sequence[int], datatype: str, most: int) -> tuple[int, ...]:
    """The shape of the input, if it can be used.

    Args:
        shape: As sent.
        datatype: Likewise.
        most: Prompts that it may have.

    Raises:
        InputError: it is no column of texts, or has too many.
    """
    if datatype != "BYTES":
        raise InputError(f"{INPUT} is of datatype {datatype!r:.40}. Send texts: BYTES.")
    if len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise InputError(f"The shape of {INPUT} is {list(shape)!s:.80}. Send [n] or [n, 1].")
    if not 1 <= shape[0] <= most:
        raise InputError(f"{INPUT} has {counted(shape[0], 'text')}. Send 1 to {most} at a time.")
    return tuple(shape)


def decode_texts(raw: bytes, count: int) -> tuple[str, ...]:
    """Texts out of bytes: each behind its length in four bytes, little-endian.

    Raises:
        InputError: there are more or fewer, or one is no UTF-8.
    """
    found: list[str] = []
    place = 0
    for index in range(count):
        start = place + _LENGTH.size
        if start > len(raw):
            raise InputError(
                f"The bytes of {INPUT} end before text {index}. Send {counted(count, 'text')}."
            )
        place = start + _LENGTH.unpack_from(raw, place)[0]
        if place > len(raw):
            raise InputError(f"The bytes of {INPUT} end within text {index}. Send all of it.")
        found.append(_utf8(raw[start:place], index))
    if place != len(raw):
        raise InputError(
            f"Behind the {counted(count, 'text')} of {INPUT} there is more, by "
            f"{counted(len(raw) - place, 'byte')}. Send the shape that it has."
        )
    return tuple(found)


def decode_contents(contents: Iterable[bytes], count: int) -> tuple[str, ...]:
    """Texts that came each by itself, as gRPC's bytes_contents.

    Raises:
        InputError: there are more or fewer, or one is no UTF-8.
    """
    found = tuple(_utf8(each, index) for index, each in enumerate(contents))
    _require_count(len(found), count)
    return found


def encode_texts(texts: Iterable[bytes]) -> bytes:
    """Texts as bytes: each behind its length in four bytes, little-endian."""
    return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))


def to_raw(column: Column) -> bytes:
    """An output as bytes: numbers little-endian, truth one byte each."""
    array = column.array()
    return encode_texts(array) if column.output.datatype == "BYTES" else array.tobytes()


def encode_response(
    asked: Asked, columns: Sequence[Column], model: str, version: str
) -> tuple[bytes, int | None]:
    """The body of an answer, and how many bytes of it are JSON; None: all, and none are binary.

    Numbers that are not there or not shown are null in JSON, and NaN in bytes.
    """
    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for column in columns:
        output = column.output
        told: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": asked.shape,
        }
        if output.name in asked.binary:
            tail.append(to_raw(column))
            told["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            told["data"] = _plain(column)
        outputs.append(told)
    answer: dict[str, Any] = {"model_name": model, "model_version": version}
    if asked.id:
        answer["id"] = asked.id
    answer["outputs"] = outputs
    text = msgspec.json.encode(answer)
    return (b"".join((text, *tail)), len(text)) if tail else (text, None)


def _plain(column: Column) -> list[Any]:
    if column.output.datatype == "BYTES":
        return list(column.values)
    return [
        None if isinstance(each, float) and math.isnan(each) else each
        for each in column.array().tolist()
    ]


def _texts(data: msgspec.Raw, count: int) -> tuple[str, ...]:
    try:
        found = _DATA.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"The data of {INPUT} are not texts: {_first_line(error)}. Send a list of them."
        ) from None
    flat = [text for each in found for text in ([each] if isinstance(each, str) else each)]
    _require_count(len(flat), count)
    return tuple(flat)


def _require_count(found: int, count: int) -> None:
    if found != count:
        raise InputError(
            f"{INPUT} has {counted(found, 'text')}, and its shape says {count}. Send as many as "
            "it says."
        )


def _utf8(text: bytes, index: int) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"Text {index} of {INPUT} is no UTF-8 ({error.reason} at byte {error.start}). Encode "
            "it so."
        ) from None


def _count(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise InputError(f"{name} is {text!r:.40}. Send a whole number of bytes.")
    return int(text)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
