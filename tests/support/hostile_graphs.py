"""Graphs that do harm where they are let in, each with the inputs and outputs of "screen"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

__all__ = ["ADDRESS", "HIDING", "HOSTILE", "as_constant", "as_weight", "harmless", "model"]
__all__ += ["outside", "value"]

ADDRESS = "*/_ORT_MEM_ADDR_/*"  # where OpenVINO takes the offset for one in memory
Change = Callable[[ModelProto], object]


def outside(location: str, *, offset: int = 0, length: int = 256) -> TensorProto:
    """A tensor "w" of 64 floats that lie in a file."""
    tensor = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[64], data_location=TensorProto.EXTERNAL
    )
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def proto(nodes: list[NodeProto], *weights: TensorProto, functions: Any = ()) -> ModelProto:
    """A graph with the inputs and outputs of "screen" whose magnitude is the sum of "w"."""
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", 77])
    index = helper.make_tensor_value_info("noise_index", TensorProto.INT64, ["m"])
    out = helper.make_tensor_value_info("magnitude", TensorProto.FLOAT, None)
    nodes = [*nodes, helper.make_node("ReduceSum", ["w"], ["magnitude"], keepdims=0)]
    graph = helper.make_graph(nodes, "g", [ids, index], [out], list(weights))
    opsets = [helper.make_opsetid("", 18)]
    if functions or any(node.domain for node in nodes):
        opsets.append(helper.make_opsetid("local", 1))
    made: ModelProto = helper.make_model(
        graph, opset_imports=opsets, functions=list(functions), ir_version=10
    )
    return made


def model(nodes: list[NodeProto], *weights: TensorProto, functions: Any = ()) -> bytes:
    return proto(nodes, *weights, functions=functions).SerializeToString()


def as_weight(tensor: TensorProto) -> bytes:
    return model([], tensor)


def as_constant(tensor: TensorProto) -> bytes:
    return model([helper.make_node("Constant", [], ["w"], value=tensor)])


def within_a_branch(tensor: TensorProto) -> bytes:
    out = helper.make_tensor_value_info("v", TensorProto.FLOAT, [64])
    node = helper.make_node("Identity", ["w"], ["v"])
    branch = helper.make_graph([node], "branch", [], [out], [tensor])
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    chosen = helper.make_node("If", ["yes"], ["w"], then_branch=branch, else_branch=branch)
    return model([chosen], yes)


def within_a_function(tensor: TensorProto) -> bytes:
    node = helper.make_node("Constant", [], ["v"], value=tensor)
    opsets = [helper.make_opsetid("", 18)]
    function = helper.make_function("local", "Read", [], ["v"], [node], opsets)
    return model([helper.make_node("Read", [], ["w"], domain="local")], functions=[function])


def within_an_attribute(tensor: TensorProto) -> bytes:
    one = TensorProto.FromString(tensor.SerializeToString())
    one.dims[:] = [1]
    one.external_data[2].value = "4"
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [64])
    return model([helper.make_node("ConstantOfShape", ["shape"], ["w"], value=one)], shape)


HIDING = [as_weight, as_constant, within_a_branch, within_a_function, within_an_attribute]


ELSEWHERE = {
    **{name: (name, 0) for name in ("secret", "./secret", "../secret", "model.weights/../secret")},
    "a file of the bundle": ("noise_bank.npy", 0),
    "a listed file, spelt otherwise": ("./model.weights", 0),
    "memory": (ADDRESS, 2**40),
    "memory, of this machine's byte order": ("*/_ORT_NATIVE_ENDIAN_MEM_ADDR_/*", 2**40),
    "beyond the end": ("model.weights", 4096 - 128),
    "far beyond the end": ("model.weights", 10**9),
    "before the beginning": ("model.weights", -256),
    "an overflow": ("model.weights", 2**63 - 128),
    "a larger overflow": ("model.weights", 2**64),
}


def value(array: NDArray[Any], name: str = "w") -> TensorProto:
    made: TensorProto = helper.make_tensor(
        name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, array.ravel().tolist()
    )
    return made


W = value(np.ones(64, np.float32))


def harmless(change: Change = lambda _: None) -> bytes:
    """A graph whose magnitude is 64, changed or not."""
    made = proto([], W)
    change(made)
    return made.SerializeToString()


def endless_loop() -> bytes:
    names = [("i", TensorProto.INT64), ("go", TensorProto.BOOL), ("x", TensorProto.FLOAT)]
    given = [helper.make_tensor_value_info(name, kind, []) for name, kind in names]
    made = [
        helper.make_tensor_value_info("on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, []),
    ]
    nodes = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Sin", ["x"], ["y"])]
    body = helper.make_graph(nodes, "body", given, made)
    trips, x = value(np.array(2**62), "trips"), value(np.array(1, np.float32), "x0")
    loop = helper.make_node("Loop", ["trips", "", "x0"], ["w"], body=body)
    return model([loop], trips, x)


def deep(levels: int = 5000) -> bytes:
    """Branches within branches: what recurses runs out of stack."""
    content = b""
    for _ in range(levels):  # attribute {type: GRAPH, g: {node: {attribute: ...}}}
        for tag in (b"\x2a", b"\x0a", b"\x32"):
            content = tag + _length(content) + content
    node = helper.make_node("If", ["w"], ["x"]).SerializeToString()
    node += b"\x2a" + _length(content) + content
    return spliced(b"\x0a" + _length(node) + node)


def spliced(extra: bytes, within: str = "graph") -> bytes:
    """A harmless graph with bytes behind it, or behind what the model holds."""
    made = proto([], W)
    if within == "model":
        return made.SerializeToString() + extra
    graph = made.graph.SerializeToString() + extra
    made.ClearField("graph")
    return made.SerializeToString() + b"\x3a" + _length(graph) + graph


def _length(content: bytes) -> bytes:
    size, found = len(content), []
    while size > 127:
        found.append(size & 127 | 128)
        size >>= 7
    return bytes([*found, size])


def typed(nesting: int) -> bytes:
    """A value whose type is a sequence of sequences of ..."""
    content = b""
    for _ in range(nesting):  # type {sequence_type: {elem_type: ...}}
        for tag in (b"\x0a", b"\x22"):
            content = tag + _length(content) + content
    content = b"\x0a\x01v\x12" + _length(content) + content
    return spliced(b"\x6a" + _length(content) + content)


def operator(name: str, domain: str = "", **attributes: Any) -> bytes:
    return model([helper.make_node(name, ["x"], ["w"], domain=domain, **attributes)], value_x())


def value_x() -> TensorProto:
    return value(np.ones(64, np.float32), "x")


def twice(field: bytes) -> Callable[[], bytes]:
    return lambda: spliced(field, within="model")


def without_length(tensor: TensorProto) -> TensorProto:
    del tensor.external_data[2]
    return tensor


def located_twice(tensor: TensorProto) -> TensorProto:
    tensor.external_data.add(key="location", value=ADDRESS)
    return tensor


W_AGAIN = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], raw_data=bytes(4))
SPARSE = helper.make_sparse_tensor(
    value(np.ones(1, np.float32)), value(np.zeros(1, int), "i"), [64]
)

HOSTILE: dict[str, Callable[[], bytes]] = {
    **{
        f"{hide.__name__}: {where}": lambda hide=hide, at=at: hide(outside(at[0], offset=at[1]))
        for where, at in ELSEWHERE.items()
        for hide in (HIDING if where in ("secret", "memory") else [as_weight])
    },
    "weights too short": lambda: as_weight(outside("model.weights", length=4)),
    "weights too long": lambda: as_weight(outside("model.weights", length=2**40)),
    "a length below 0": lambda: as_weight(outside("model.weights", length=-1)),
    "a listed file, in an attribute": lambda: as_constant(outside("model.weights")),
    "no length": lambda: as_weight(without_length(outside("model.weights"))),
    "two locations": lambda: as_weight(located_twice(outside("model.weights"))),
    "in a file without saying so": lambda: harmless(
        lambda m: m.graph.initializer[0].external_data.add(key="location", value="model.weights")
    ),
    "in a file and not": lambda: harmless(
        lambda m: m.graph.initializer[0].MergeFrom(outside("model.weights"))
    ),
    "a shape that overflows": lambda: harmless(
        lambda m: m.graph.initializer[0].dims.extend([2**32, 2**32, 0])
    ),
    "a shape below 0": lambda: harmless(lambda m: m.graph.initializer[0].dims.extend([-1, -1])),
    "more data than its shape": lambda: harmless(
        lambda m: m.graph.initializer[0].dims.__setitem__(0, 63)
    ),
    "data of another type": lambda: harmless(
        lambda m: m.graph.initializer[0].__setattr__("data_type", TensorProto.INT64)
    ),
    "an empty matrix": lambda: harmless(
        lambda m: m.graph.initializer.append(value(np.ones((0, 3), np.float32), "e"))
    ),
    "strings": lambda: harmless(
        lambda m: m.graph.initializer.append(helper.make_tensor("t", 8, [1], [b"text"]))
    ),
    "a sparse weight": lambda: harmless(lambda m: m.graph.sparse_initializer.append(SPARSE)),
    "2^62 trips": endless_loop,
    "Scan": lambda: operator("Scan"),
    "SequenceMap": lambda: operator("SequenceMap"),
    "RandomNormalLike": lambda: operator("RandomNormalLike"),
    "Bernoulli": lambda: operator("Bernoulli"),
    "Multinomial": lambda: operator("Multinomial"),
    "Dropout": lambda: operator("Dropout"),
    "a custom domain": lambda: operator("Identity", "local"),
    "ONNX Runtime's own domain": lambda: operator("QuickGelu", "com.microsoft"),
    "a plugin of TensorRT": lambda: operator("EfficientNMS_TRT"),
    "PyOp": lambda: operator("PyOp"),
    "no operator": lambda: operator(""),
    "an input too few": lambda: operator("Pad"),  # OpenVINO crashes
    "an input too many": lambda: model([helper.make_node("Abs", ["x", "x"], ["w"])], value_x()),
    "an input left out": lambda: model([helper.make_node("Add", ["x", ""], ["w"])], value_x()),
    "an output left out": lambda: model([helper.make_node("Abs", ["x"], [""])], value_x(), W),
    "no attribute that it needs": lambda: operator("Cast"),
    "another's attribute": lambda: operator("Abs", axis=1),
    "a name that is no UTF-8": lambda: harmless().replace(b"noise_index", b"noise_inde\xff"),
    "a name that clears the screen": lambda: harmless().replace(b"noise_index", b"noise\x1b[2Jxx"),
    "prose that is no UTF-8": twice(b"\x32\x01\xff"),
    "2^62 outputs": lambda: operator("Split", num_outputs=2**62),
    "Trilu": lambda: operator("Trilu"),  # OpenVINO writes outside its memory at an odd k
    "no heads": lambda: model(
        [helper.make_node("Attention", ["x", "x", "x"], ["w"], q_num_heads=0)], value_x()
    ),  # ONNX Runtime divides by it
    "a graph in an attribute of something else": lambda: operator(
        "Identity", body=helper.make_graph([], "g", [], [])
    ),
    "an attribute of another type": lambda: harmless(
        lambda m: m.graph.node[0].attribute[0].__setattr__("type", AttributeProto.FLOAT)
    ),
    "an attribute twice": lambda: harmless(
        lambda m: m.graph.node[0].attribute.append(m.graph.node[0].attribute[0])
    ),
    "branches within branches": deep,
    "sequences of sequences": lambda: typed(5000),
    "two weights of one name": lambda: harmless(lambda m: m.graph.initializer.append(W_AGAIN)),
    "a weight that is computed, too": lambda: harmless(
        lambda m: m.graph.node.insert(0, helper.make_node("Identity", ["w"], ["w"]))
    ),
    "two opsets": lambda: harmless(
        lambda m: m.opset_import.extend([helper.make_opsetid("ai.onnx", 14)])
    ),
    "an old opset": lambda: harmless(lambda m: m.opset_import[0].__setattr__("version", 6)),
    "an opset to come": lambda: harmless(lambda m: m.opset_import[0].__setattr__("version", 10**6)),
    "an IR version to come": lambda: harmless(lambda m: m.__setattr__("ir_version", 10**6)),
    "two graphs": twice(b"\x3a\x02\x12\x00"),
    "two IR versions": twice(b"\x08\x0a"),
    "an unknown field": twice(b"\xf8\x07\x01"),
    "a group": twice(b"\xfb\x07\xfc\x07"),
    "a number that is longer than it need be": twice(b"\x28\x80\x00"),
    "bytes that claim to be terabytes": twice(b"\x32" + b"\xff" * 5 + b"\x01"),
    "a training graph": lambda: harmless(lambda m: m.training_info.add()),
    "a million nodes": lambda: spliced(b"\x0a\x00" * 10**6),
    "more fields than fit in memory": lambda: spliced(b"\x82\x01\x00" * 2 * 10**6),
    "a file of ONNX Runtime's own": lambda: b"\x08\x0a\x12\x04ORTM" + model([], W)[2:],
    "nothing": lambda: b"",
}
