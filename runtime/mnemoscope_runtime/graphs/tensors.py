"""Tensors of a graph: as much data as their shape needs, in the graph or in a listed file."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .messages import ENTRY, TENSOR
from .wire import Reader, Refused

__all__ = ["SizeOf", "check_size", "check_tensor", "text"]

SizeOf = Callable[[str], int | None]  # bytes of a file that may hold weights; None: it may not

_LARGEST = 2**31  # elements along a dimension
_DIMENSIONS = 16
_TYPES = {  # bytes of an element, and what holds it where raw_data does not
    1: (4, "float_data"),
    2: (1, "int32_data"),
    3: (1, "int32_data"),
    4: (2, "int32_data"),
    5: (2, "int32_data"),
    6: (4, "int32_data"),
    7: (8, "int64_data"),
    9: (1, "int32_data"),
    10: (2, "int32_data"),
    11: (8, "double_data"),
    12: (4, "uint64_data"),
    13: (8, "uint64_data"),
    16: (2, "int32_data"),
}
_FIXED = {"raw_data": 1, "float_data": 4, "double_data": 8}
_VARINTS = ("int32_data", "int64_data", "uint64_data")
_PLACE = ("location", "offset", "length")
_NUMBER = re.compile("[0-9]{1,19}")
_PLAIN = re.compile(r'(?!/)[^\x00-\x1f\x7f*?"<>|:\\]+')  # `*` begins names that are addresses


def check_tensor(
    reader: Reader, content: memoryview, size_of: SizeOf | None, *, is_ours: bool
) -> str:
    """Check a tensor.

    Args:
        reader: Of the graph.
        content: A TensorProto.
        size_of: Which files may hold its data; None if none may.
        is_ours: Whether data in a file must say where it begins and how long it is.

    Returns:
        Its name.

    Raises:
        Refused: it is not what a graph may hold.
    """
    tensor = reader.fields(content, TENSOR)
    name = text(tensor.get("name", b""))
    try:
        _check(reader, tensor, size_of, is_ours)
    except Refused as error:
        raise Refused(f"tensor {name!a:.80}: {error}") from None
    return name


def check_size(size: int) -> int:
    """A size along a dimension, if it is none that overflows.

    Raises:
        Refused: it is.
    """
    if size > _LARGEST:
        raise Refused(f"a dimension of {size} is larger than any here")
    return size


def text(content: memoryview | bytes) -> str:
    """A name.

    Raises:
        Refused: it is not UTF-8, which libraries take differently, or would do something to a
            terminal that prints it.
    """
    try:
        found = str(content, "utf-8")
    except UnicodeDecodeError:
        raise Refused("it has a name that is not UTF-8") from None
    if not found.isprintable():
        raise Refused(f"it has the name {found!a:.80}")
    return found


def _check(
    reader: Reader, tensor: Mapping[str, Any], size_of: SizeOf | None, is_ours: bool
) -> None:
    kind = tensor.get("data_type")
    if kind not in _TYPES:
        raise Refused(f"its data type is {kind}, which is not used here")
    size, typed = _TYPES[kind]
    dims = [check_size(each) for each in tensor.get("dims", ())]
    count = math.prod(dims)
    if len(dims) > _DIMENSIONS or (not count and len(dims) > 1):
        # none of ours is empty but in one dimension, and OpenVINO writes outside such
        raise Refused(f"its shape is {dims}")
    inside = [name for name in (*_FIXED, *_VARINTS) if name in tensor]
    where = tensor.get("data_location", 0)
    if where == 0 and "external_data" not in tensor:
        _check_inside(tensor, inside, typed, count, size)
    elif where == 1 and not inside and size_of is not None:
        entries = [reader.fields(each, ENTRY) for each in tensor.get("external_data", ())]
        _check_place(entries, count * size, size_of, is_ours)
    elif size_of is None:
        raise Refused("its data is in a file, and only weights may be")
    else:
        raise Refused("its data is both in the graph and in a file, or in neither")


def _check_inside(
    tensor: Mapping[str, Any], inside: list[str], typed: str, count: int, size: int
) -> None:
    if len(inside) > 1 or not set(inside) <= {"raw_data", typed}:
        raise Refused(f"its data is in {' and '.join(inside)}")
    found = 0
    for field in inside:
        data = tensor[field]
        if field in _VARINTS:
            found = _count_varints(data)
        else:
            width = size if field == "raw_data" else _FIXED[field]
            found, rest = divmod(len(data), width)
            found = -1 if rest else found
    if found != count:
        raise Refused(f"its data does not fill its shape of {count} elements, or is more than that")


def _check_place(
    entries: list[dict[str, Any]], needed: int, size_of: SizeOf, is_ours: bool
) -> None:
    """Whether data lies in a file that may hold it, all of it."""
    place = {text(each.get("key", b"")): text(each.get("value", b"")) for each in entries}
    wanted = set(_PLACE) if is_ours else set(_PLACE) & place.keys() | {"location"}
    if place.keys() != wanted or len(place) != len(entries):
        raise Refused(f"its place in a file is told by {', '.join(map(ascii, place))}")
    location = place.pop("location")
    if not _PLAIN.fullmatch(location) or ".." in location.split("/"):
        raise Refused(f"its data is at {location!a:.80}, which is no plain name of a file")
    size = size_of(location)
    if size is None:
        raise Refused(f"its data is in {location!a:.80}, which is not among the files of weights")
    for key, value in place.items():
        if not _NUMBER.fullmatch(value):
            raise Refused(f"its {key} in the file is {value!a:.40}")
    offset, length = int(place.get("offset", 0)), int(place.get("length", needed))
    if length != needed or offset + length > size:
        raise Refused(
            f"it needs {needed} bytes, and has {length} at {offset} of {location!a:.80}, which "
            f"holds {size}"
        )


def _count_varints(data: memoryview) -> int:
    """How many numbers are packed there; -1 if they are not well packed."""
    found = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(found < 128)
    lengths = np.diff(ends, prepend=-1)
    if not len(ends):
        return -1 if len(found) else 0
    too_long = (lengths > 10) | ((lengths > 1) & (found[ends] == 0))
    too_large = (lengths == 10) & (found[ends] > 1)
    if ends[-1] != len(found) - 1 or (too_long | too_large).any():
        return -1
    return len(ends)
