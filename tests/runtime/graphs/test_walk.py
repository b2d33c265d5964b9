"""What graphs may hold, and where the limits are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import onnx
import pytest
from hostile_graphs import HOSTILE, W, as_constant, as_weight, harmless, outside
from hostile_graphs import model as graph_of
from onnx import TensorProto, helper, numpy_helper

from mnemoscope_runtime.graphs.operators import DESCRIPTORS, ELSEWHERE, OPERATORS, OPSETS
from mnemoscope_runtime.graphs.walk import Refused, check_graph


def schemas(name: str) -> list[onnx.defs.OpSchema]:
    """What ONNX says of an operator in each of the opsets."""
    oldest, newest = OPSETS
    assert newest == onnx.defs.onnx_opset_version()
    found = {}
    for opset in range(oldest, newest + 1):
        with suppress(onnx.defs.SchemaError):  # younger than that
            schema = onnx.defs.get_schema(name, opset, "")
            found[schema.since_version] = schema
    return list(found.values())


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_operators_are_as_onnx_defines_them(name: str) -> None:
    ours, theirs, many = DESCRIPTORS[name], schemas(name), 2**12
    for schema in theirs:
        assert schema.node_determinism == onnx.defs.OpSchema.NodeDeterminism.Deterministic
    least, most = min(s.min_input for s in theirs), max(s.max_input for s in theirs)
    assert ours.inputs == (least, min(most, many))
    least, most = min(s.min_output for s in theirs), max(s.max_output for s in theirs)
    assert ours.outputs == (least, min(most, many))
    named = [each for schema in theirs for each in schema.attributes.values()]
    kinds = {each.name: each.type.name.lower() for each in named}
    taken = {"int", "ints", "float", "floats", "string", "tensor"}
    extra = {"value_string"}  # of a Constant that is text
    assert ours.attributes == {n: k for n, k in kinds.items() if k in taken and n not in extra}
    always = [{n for n, a in schema.attributes.items() if a.required} for schema in theirs]
    assert ours.required == frozenset.intersection(*map(frozenset, always))


def model(*weights: TensorProto, **changes: Any) -> onnx.ModelProto:
    """The sum of "w"."""
    node = helper.make_node("ReduceSum", ["w"], ["y"], keepdims=0)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [])
    graph = helper.make_graph([node], "g", [], [out], list(weights))
    opsets = [helper.make_opsetid("", 18)]
    made: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=10, **changes)
    return made


def inside(kind: int, count: int = 3, *, raw: bool = False) -> TensorProto:
    array = np.arange(count).astype(helper.tensor_dtype_to_np_dtype(kind))
    if raw:
        return numpy_helper.from_array(array, "w")
    return helper.make_tensor("w", kind, array.shape, array)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_graphs(name: str) -> None:
    content = HOSTILE[name]()
    with pytest.raises(Refused, match={"a million nodes": "than 65,536 nodes"}.get(name)):
        check_graph(content, {"model.weights": 4096}.get)


@pytest.mark.parametrize("name", ["DequantizeLinear", "QuantizeLinear"])
def test_only_descriptors_are_quantised(name: str) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["v", "scale"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]),
    ]
    weights = [helper.make_tensor(n, TensorProto.FLOAT, [], [0.5]) for n in ("v", "scale")]
    content = graph_of(nodes if name[0] == "Q" else nodes[1:], *weights)
    check_graph(content, {}.get, DESCRIPTORS, is_ours=False)
    for allowed in (OPERATORS, ELSEWHERE):
        with pytest.raises(Refused, match=f"'{name}'.*not one that such graphs need"):
            check_graph(content, {}.get, allowed, is_ours=False)


@pytest.mark.parametrize("name", [each for each in HOSTILE if each not in ELSEWHERE])
def test_hostile_descriptors(name: str) -> None:
    with pytest.raises(Refused):
        check_graph(HOSTILE[name](), {"model.weights": 4096}.get, DESCRIPTORS)


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16])
def test_tensors_of_every_type(kind: int, count: int) -> None:
    for raw in (False, True):
        tensor = inside(kind, count, raw=raw)
        check_graph(model(tensor).SerializeToString(), {}.get)
        tensor.dims[0] += 1
        with pytest.raises(Refused, match="tensor 'w': its data does not fill its shape of"):
            check_graph(model(tensor).SerializeToString(), {}.get)


@pytest.mark.parametrize(
    ("packed", "count"),
    [
        (b"\x01\xff" + b"\xff" * 8 + b"\x01", 2),
        (b"", -1),
        (b"\x80\x00", -1),  # longer than it need be
        (b"\x01\x80", -1),  # cut short
        (b"\xff" * 9 + b"\x02", -1),  # beyond 64 bits
        (b"\x80" * 10 + b"\x01", -1),
    ],
)
def test_numbers_that_are_packed(packed: bytes, count: int) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.INT64, dims=[max(count, 1)])
    content = tensor.SerializeToString() + b"\x3a" + bytes([len(packed)]) + packed
    whole = model()
    graph = whole.graph.SerializeToString() + b"\x2a" + bytes([len(content)]) + content
    whole.ClearField("graph")
    content = whole.SerializeToString() + b"\x3a" + bytes([len(graph)]) + graph
    if count > 0:
        check_graph(content, {}.get)
    else:
        with pytest.raises(Refused, match="does not fill its shape"):
            check_graph(content, {}.get)


def test_weights_may_fill_their_file_to_the_end() -> None:
    for offset, size in ((0, 256), (4096 - 256, 4096)):
        check_graph(as_weight(outside("model.weights", offset=offset)), {"model.weights": size}.get)
        with pytest.raises(Refused, match="which holds"):
            check_graph(
                as_weight(outside("model.weights", offset=offset)), {"model.weights": size - 1}.get
            )


def test_what_graphs_of_others_may_leave_to_defaults() -> None:
    content = harmless(lambda made: made.graph.initializer[0].CopyFrom(located()))
    check_graph(content, {"data": 256}.get, is_ours=False)
    with pytest.raises(Refused, match=r"its place in a file is told by 'location'$"):
        check_graph(content, {"data": 256}.get)
    with pytest.raises(
        Refused, match="it needs 256 bytes, and has 256 at 0 of 'data', which holds"
    ):
        check_graph(content, {"data": 255}.get, is_ours=False)


def test_whatever_files_there_are_names_are_plain() -> None:
    for name in ("../data", "a/../data", "/data", "*/data", "a\\data", "C:data", ""):
        with pytest.raises(Refused, match="which is no plain name of a file"):
            check_graph(as_weight(outside(name)), lambda _: 4096, is_ours=False)
    check_graph(as_weight(outside("a/.data..b")), lambda _: 4096, is_ours=False)


def test_what_is_in_attributes_is_in_the_graph() -> None:
    content = as_constant(outside("data"))
    check_graph(content, {"data": 256}.get, is_ours=False)
    with pytest.raises(Refused, match="its data is in a file, and only weights may be"):
        check_graph(content, {"data": 256}.get)


def located() -> TensorProto:
    tensor = outside("data")
    del tensor.external_data[1:]
    return tensor


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        (lambda m: m.__setattr__("ir_version", 3), True),
        (lambda m: m.__setattr__("ir_version", 14), True),
        (lambda m: m.__setattr__("ir_version", 2), False),
        (lambda m: m.__setattr__("ir_version", 15), False),
        (lambda m: m.opset_import[0].__setattr__("version", 14), True),
        (lambda m: m.opset_import[0].__setattr__("version", 28), True),
        (lambda m: m.opset_import[0].__setattr__("version", 13), False),
        (lambda m: m.opset_import[0].__setattr__("version", 29), False),
        (lambda m: m.opset_import[0].__setattr__("domain", "ai.onnx"), True),
        (lambda m: m.opset_import[0].__setattr__("domain", "other"), False),
        (lambda m: m.graph.node[0].__setattr__("domain", "ai.onnx"), True),
        (lambda m: m.graph.initializer[0].dims.insert(0, 1), True),
        (lambda m: m.graph.initializer[0].dims.extend([1] * 15), True),
        (lambda m: m.graph.initializer[0].dims.extend([1] * 16), False),
        (lambda m: m.graph.node[0].output.__setitem__(0, "x"), True),
        (lambda m: m.graph.initializer[0].__setattr__("data_type", 99), False),
        (lambda m: m.graph.input.append(m.graph.input[0]), False),
        (lambda m: m.graph.output.append(m.graph.output[0]), False),
        (lambda m: m.metadata_props.add(key="k", value="v"), True),
        (lambda m: m.graph.input[0].type.tensor_type.shape.dim.add(dim_value=2**31), True),
        (lambda m: m.graph.input[0].type.tensor_type.shape.dim.add(dim_value=2**31 + 1), False),
    ],
)
def test_limits(change: Callable[[onnx.ModelProto], object], passes: bool) -> None:
    content = harmless(change)
    if passes:
        check_graph(content, {}.get)
    else:
        with pytest.raises(Refused):
            check_graph(content, {}.get)


def test_attributes_of_every_type() -> None:
    held = [
        {"value": helper.make_tensor("t", TensorProto.FLOAT, [1], [1])},
        {"value_float": 1.0},
        {"value_floats": [1.0, 2.0]},
        {"value_int": 1},
        {"value_ints": [1, -2]},
    ]
    nodes = [helper.make_node("Constant", [], [f"c{k}"], **each) for k, each in enumerate(held)]
    nodes.append(helper.make_node("Gelu", ["w"], ["g"], approximate="tanh"))
    empty = helper.make_node("Transpose", ["w"], ["e"], perm=[0])
    del empty.attribute[0].ints[:]
    check_graph(graph_of([*nodes, empty], W), {}.get)
    for node in nodes:
        for wrong in (0, 8):
            node.attribute[0].type = wrong
            with pytest.raises(Refused, match=f"of type {wrong}$"):
                check_graph(graph_of([node], W), {}.get)


@pytest.mark.parametrize(
    ("operator", "change", "words"),
    [
        ("Swish", lambda a: a.ClearField("type"), "of type None"),
        ("Swish", lambda a: a.ClearField("f"), "is not what it says"),
        ("Swish", lambda a: a.floats.append(1.0), "is not what it says"),
        ("Transpose", lambda a: (a.ClearField("ints"), a.floats.append(1.0)), "is not what it"),
    ],
)
def test_attributes_that_hold_something_else(
    operator: str, change: Callable[[onnx.AttributeProto], object], words: str
) -> None:
    told: dict[str, Any] = {"perm": [0]} if operator == "Transpose" else {"alpha": 1.0}
    node = helper.make_node(operator, ["w"], ["c"], **told)
    check_graph(graph_of([node], W), {}.get)
    change(node.attribute[0])
    with pytest.raises(Refused, match=words):
        check_graph(graph_of([node], W), {}.get)


def test_a_dimension_has_a_size_or_a_name() -> None:
    content = harmless(
        lambda made: made.graph.input[0].type.tensor_type.shape.dim.add(dim_param="MARK")
    )
    check_graph(content, {}.get)
    both = b"\x08\x01" + b"\x12\x02MA"  # as long as the name was
    assert content.count(b"\x12\x04MARK") == 1
    with pytest.raises(Refused, match="both a size and a name"):
        check_graph(content.replace(b"\x12\x04MARK", both), {}.get)


@pytest.mark.parametrize(("groups", "passes"), [(0, False), (1, True), (2**16, True)])
def test_what_is_divided_by(groups: int, passes: bool) -> None:
    content = graph_of([helper.make_node("Conv", ["w", "w"], ["c"], group=groups)], W)
    if passes:
        check_graph(content, {}.get)
    else:
        with pytest.raises(Refused, match="its group is 0"):
            check_graph(content, {}.get)


@pytest.mark.parametrize("where", ["model", "graph", "node", "input"])
def test_prose_is_text_wherever_it_stands(where: str) -> None:
    def change(made: onnx.ModelProto) -> None:
        graph = made.graph
        held = {"model": made, "graph": graph, "node": graph.node[0], "input": graph.input[0]}
        held[where].doc_string = "MARK"
        held[where].metadata_props.add(key="key", value="MORE")

    content = harmless(change)
    check_graph(content, {}.get)
    for word in (b"MARK", b"MORE"):
        with pytest.raises(Refused, match="is no text"):
            check_graph(content.replace(word, b"\xff\xfe\xfd\xfc"), {}.get)
