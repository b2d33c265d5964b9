"""What our reader sees is what `onnx` sees, and graphs of our exports pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message as Proto
from onnx import helper

from mnemoscope import embedded
from mnemoscope_runtime import Bundle
from mnemoscope_runtime.graphs import messages
from mnemoscope_runtime.graphs.operators import OPERATORS
from mnemoscope_runtime.graphs.walk import check_graph
from mnemoscope_runtime.graphs.wire import FOUR_BYTES, VARINT, Message, Reader

KINDS = {
    kind.name: kind
    for name in messages.__all__
    if isinstance(kind := getattr(messages, name), Message)
}
WIRE = {FieldDescriptor.CPPTYPE_STRING: 2, FieldDescriptor.CPPTYPE_MESSAGE: 2}
WIRE |= {FieldDescriptor.CPPTYPE_FLOAT: FOUR_BYTES, FieldDescriptor.CPPTYPE_DOUBLE: 1}


def descriptors(top: Descriptor) -> Iterator[Descriptor]:
    """Of a message and of all that it can hold, however deep."""
    found, left = set(), [top]
    while left:
        each = left.pop()
        if each.full_name not in found:
            found.add(each.full_name)
            yield each
            left += [field.message_type for field in each.fields if field.message_type]


def test_messages_are_those_of_onnx() -> None:
    known = {each.name: each for each in descriptors(onnx.ModelProto.DESCRIPTOR)}
    for kind in KINDS.values():
        theirs = {
            field.number << 3 | (2 if field.is_packed else WIRE.get(field.cpp_type, VARINT)): field
            for field in known[kind.name].fields
        }
        for tag, (name, wire, is_repeated) in kind.tags.items():
            field = theirs.pop(tag)
            # what is packed comes at once
            assert (name, wire) == (field.name, tag & 7)
            assert is_repeated == (field.is_repeated and not field.is_packed)
        assert {field.number for field in theirs.values()} == set(kind.refused)


def same(reader: Reader, content: memoryview, proto: Proto) -> int:
    """Whether our reader sees in a message what `onnx` does, all the way down; how many fields."""
    found, seen = reader.fields(content, KINDS[proto.DESCRIPTOR.name]), 0
    theirs = {field.name: (field, value) for field, value in proto.ListFields()}
    assert found.keys() >= theirs.keys()
    for name in found.keys() - theirs.keys():  # nothing in a list that is packed
        assert proto.DESCRIPTOR.fields_by_name[name].is_packed
        assert not found[name]
    for name, (field, value) in theirs.items():
        seen += 1
        if field.is_packed:
            assert unpacked(field, found[name]) == list(value)
            continue
        ours, values = (found[name], value) if field.is_repeated else ([found[name]], [value])
        assert len(ours) == len(values)
        for mine, each in zip(ours, values, strict=True):
            if field.message_type:
                seen += same(reader, mine, each)
            else:
                assert plain(field, mine) == each
    return seen


def unpacked(field: FieldDescriptor, value: memoryview) -> list[object]:
    """Numbers of a tensor that has no more than a few of them."""
    content = bytes([field.number << 3 | 2, len(value)]) + value
    return list(getattr(onnx.TensorProto.FromString(content), field.name))


def plain(field: FieldDescriptor, value: Any) -> object:
    if field.type == FieldDescriptor.TYPE_STRING:
        return str(value, "utf-8")
    if field.type == FieldDescriptor.TYPE_BYTES:
        return bytes(value)
    if field.type == FieldDescriptor.TYPE_FLOAT:
        return np.frombuffer(value, "<f4")[0]
    return value - 2**64 if value >= 2**63 else value


def passes(path: Path) -> None:
    """Graphs of a bundle pass, and every field of them is read as `onnx` reads it."""
    bundle = Bundle.open(path)
    sizes = {name: bundle.manifest.files[name].bytes for name in bundle.data_files()}
    for file in bundle.manifest.graphs.values():
        content = bundle.read(file)
        check_graph(content, sizes.get)
        proto = onnx.load_model_from_string(content)
        assert same(Reader(2**20), memoryview(content), proto) > 1000
        assert {node.op_type for node in proto.graph.node} <= OPERATORS.keys()
        for tensor in proto.graph.initializer:
            place = {each.key: each.value for each in tensor.external_data}
            if place:
                assert set(place) == {"location", "offset", "length"}
                assert int(place["offset"]) + int(place["length"]) <= sizes[place["location"]]


def test_the_embedded_bundle() -> None:
    passes(embedded.BUNDLE)


def test_tensors_are_read_as_onnx_reads_them() -> None:
    tensors = [helper.make_tensor("w", kind, [3], [0, 1, 2]) for kind in (1, 7, 9, 11, 12)]
    graph = helper.make_graph([], "g", [], [], tensors)
    proto = helper.make_model(graph)
    assert same(Reader(1000), memoryview(proto.SerializeToString()), proto) > 20


def test_other_bundles(bundle_dir: Path, open_dir: Path, float16_dir: Path) -> None:
    for path in (bundle_dir, open_dir, float16_dir):
        passes(path)
