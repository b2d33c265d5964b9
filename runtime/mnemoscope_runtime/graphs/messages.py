"""What of ONNX's messages a graph may hold (onnx.proto, up to IR version 14).

No message can hold one of its own kind, so that there is no depth to get lost in. Numbers and
tensors may be attributes, graphs may not: what has no control flow needs none.
"""

from __future__ import annotations

from .wire import FOUR_BYTES, VARINT, many, message, one

__all__ = [
    "ATTRIBUTE",
    "DIMENSION",
    "ENTRY",
    "GRAPH",
    "MODEL",
    "NODE",
    "OPSET",
    "SHAPE",
    "TENSOR",
    "TENSOR_TYPE",
    "TYPE",
    "VALUE",
]

MODEL = message(
    "ModelProto",
    {20: "a training graph", 25: "functions", 26: "devices"},
    ir_version=one(1, VARINT),
    producer_name=one(2),
    producer_version=one(3),
    domain=one(4),
    model_version=one(5, VARINT),
    doc_string=one(6),
    graph=one(7),
    opset_import=many(8),
    metadata_props=many(14),
)
OPSET = message("OperatorSetIdProto", {}, domain=one(1), version=one(2, VARINT))
GRAPH = message(
    "GraphProto",
    {14: "quantization annotations", 15: "sparse weights"},
    node=many(1),
    name=one(2),
    initializer=many(5),
    doc_string=one(10),
    input=many(11),
    output=many(12),
    value_info=many(13),
    metadata_props=many(16),
)
NODE = message(
    "NodeProto",
    {8: "an overload", 10: "devices"},
    input=many(1),
    output=many(2),
    name=one(3),
    op_type=one(4),
    attribute=many(5),
    doc_string=one(6),
    domain=one(7),
    metadata_props=many(9),
)
ATTRIBUTE = message(
    "AttributeProto",
    {
        6: "a graph",
        9: "strings",
        10: "several tensors",
        11: "several graphs",
        14: "a type",
        15: "several types",
        21: "a reference to a function's attribute",
        22: "a sparse tensor",
        23: "several sparse tensors",
    },
    name=one(1),
    f=one(2, FOUR_BYTES),
    i=one(3, VARINT),
    s=one(4),
    t=one(5),
    floats=many(7, FOUR_BYTES),
    ints=many(8, VARINT),
    doc_string=one(13),
    type=one(20, VARINT),
)
TENSOR = message(
    "TensorProto",
    {3: "a segment", 6: "strings"},
    dims=many(1, VARINT),
    data_type=one(2, VARINT),
    float_data=one(4),
    int32_data=one(5),
    int64_data=one(7),
    name=one(8),
    raw_data=one(9),
    double_data=one(10),
    uint64_data=one(11),
    doc_string=one(12),
    external_data=many(13),
    data_location=one(14, VARINT),
    metadata_props=many(16),
)
ENTRY = message("StringStringEntryProto", {}, key=one(1), value=one(2))
VALUE = message(
    "ValueInfoProto", {}, name=one(1), type=one(2), doc_string=one(3), metadata_props=many(4)
)
TYPE = message(
    "TypeProto",
    {4: "a sequence", 5: "a map", 7: "an opaque type", 8: "a sparse tensor", 9: "an optional"},
    tensor_type=one(1),
    denotation=one(6),
)
TENSOR_TYPE = message("Tensor", {}, elem_type=one(1, VARINT), shape=one(2))
SHAPE = message("TensorShapeProto", {}, dim=many(1))
DIMENSION = message("Dimension", {}, dim_value=one(1, VARINT), dim_param=one(2), denotation=one(3))
