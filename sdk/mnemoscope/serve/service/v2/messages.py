"""The protobuf messages of `inference.GRPCInferenceService` as the public protocol has them, and of
gRPC's health protocol.

Field names and numbers are those of KServe's and Triton's `grpc_service.proto`, and of the part of
`model_config.proto` that says something here. They live in a pool of their own, so that clients'
stubs of the same names can be in the same process.
"""

from __future__ import annotations

from types import SimpleNamespace

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["METHODS", "SERVICE", "make_messages"]

SERVICE = "inference.GRPCInferenceService"
METHODS = (
    *("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer"),
    *("ModelConfig", "ModelStatistics"),
    *("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"),
)
_VERSIONED = ("string name = 1", "string version = 2")
_TENSOR = ("string name = 1", "string datatype = 2", "repeated int64 shape = 3")
_PARAMETERS = "map InferParameter parameters = 4"
_COMPUTE = (
    "StatisticDuration compute_input = 2",
    "StatisticDuration compute_infer = 3",
    "StatisticDuration compute_output = 4",
)
# fields by message; the messages within one come after it
_MESSAGES: dict[str, tuple[str, ...]] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": ("bool live = 1",),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ("bool ready = 1",),
    "ModelReadyRequest": _VERSIONED,
    "ModelReadyResponse": ("bool ready = 1",),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": (*_VERSIONED, "repeated string extensions = 3"),
    "ModelMetadataRequest": _VERSIONED,
    "ModelMetadataResponse": (
        "string name = 1",
        "repeated string versions = 2",
        "string platform = 3",
        "repeated ModelMetadataResponse.TensorMetadata inputs = 4",
        "repeated ModelMetadataResponse.TensorMetadata outputs = 5",
    ),
    "ModelMetadataResponse.TensorMetadata": _TENSOR,
    "InferParameter": (
        "parameter_choice bool bool_param = 1",
        "parameter_choice int64 int64_param = 2",
        "parameter_choice string string_param = 3",
        "parameter_choice double double_param = 4",
        "parameter_choice uint64 uint64_param = 5",
    ),
    "InferTensorContents": (
        "repeated bool bool_contents = 1",
        "repeated int32 int_contents = 2",
        "repeated int64 int64_contents = 3",
        "repeated uint32 uint_contents = 4",
        "repeated uint64 uint64_contents = 5",
        "repeated float fp32_contents = 6",
        "repeated double fp64_contents = 7",
        "repeated bytes bytes_contents = 8",
    ),
    "ModelInferRequest": (
        "string model_name = 1",
        "string model_version = 2",
        "string id = 3",
        _PARAMETERS,
        "repeated ModelInferRequest.InferInputTensor inputs = 5",
        "repeated ModelInferRequest.InferRequestedOutputTensor outputs = 6",
        "repeated bytes raw_input_contents = 7",
    ),
    "ModelInferRequest.InferInputTensor": (
        *_TENSOR,
        _PARAMETERS,
        "InferTensorContents contents = 5",
    ),
    "ModelInferRequest.InferRequestedOutputTensor": (
        "string name = 1",
        "map InferParameter parameters = 2",
    ),
    "ModelInferResponse": (
        "string model_name = 1",
        "string model_version = 2",
        "string id = 3",
        _PARAMETERS,
        "repeated ModelInferResponse.InferOutputTensor outputs = 5",
        "repeated bytes raw_output_contents = 6",
    ),
    "ModelInferResponse.InferOutputTensor": (
        *_TENSOR,
        _PARAMETERS,
        "InferTensorContents contents = 5",
    ),
    "ModelConfigRequest": _VERSIONED,
    "ModelInput": ("string name = 1", "DataType data_type = 2", "repeated int64 dims = 4"),
    "ModelOutput": ("string name = 1", "DataType data_type = 2", "repeated int64 dims = 3"),
    "ModelConfig": (
        "string name = 1",
        "string platform = 2",
        "string backend = 17",
        "int32 max_batch_size = 4",
        "repeated ModelInput input = 5",
        "repeated ModelOutput output = 6",
    ),
    "ModelConfigResponse": ("ModelConfig config = 1",),
    "ModelStatisticsRequest": _VERSIONED,
    "StatisticDuration": ("uint64 count = 1", "uint64 ns = 2"),
    "InferStatistics": (
        "StatisticDuration success = 1",
        "StatisticDuration fail = 2",
        "StatisticDuration queue = 3",
        "StatisticDuration compute_input = 4",
        "StatisticDuration compute_infer = 5",
        "StatisticDuration compute_output = 6",
    ),
    "InferBatchStatistics": ("uint64 batch_size = 1", *_COMPUTE),
    "ModelStatistics": (
        *_VERSIONED,
        "uint64 last_inference = 3",
        "uint64 inference_count = 4",
        "uint64 execution_count = 5",
        "InferStatistics inference_stats = 6",
        "repeated InferBatchStatistics batch_stats = 7",
    ),
    "ModelStatisticsResponse": ("repeated ModelStatistics model_stats = 1",),
    "RepositoryIndexRequest": ("string repository_name = 1", "bool ready = 2"),
    "RepositoryIndexResponse": ("repeated RepositoryIndexResponse.ModelIndex models = 1",),
    "RepositoryIndexResponse.ModelIndex": (
        *_VERSIONED,
        "string state = 3",
        "string reason = 4",
    ),
    "ModelRepositoryParameter": (
        "parameter_choice bool bool_param = 1",
        "parameter_choice int64 int64_param = 2",
        "parameter_choice string string_param = 3",
        "parameter_choice bytes bytes_param = 4",
    ),
    "RepositoryModelLoadRequest": (
        "string repository_name = 1",
        "string model_name = 2",
        "map ModelRepositoryParameter parameters = 3",
    ),
    "RepositoryModelLoadResponse": (),
    "RepositoryModelUnloadRequest": (
        "string repository_name = 1",
        "string model_name = 2",
        "map ModelRepositoryParameter parameters = 3",
    ),
    "RepositoryModelUnloadResponse": (),
    "HealthCheckRequest": ("string service = 1",),
    "HealthCheckResponse": ("int32 status = 1",),  # an enum there, which is the same in bytes
}
_OUTER = [path for path in _MESSAGES if "." not in path]
_DATA_TYPES = {"INVALID": 0, "BOOL": 1, "INT32": 8, "INT64": 9, "FP32": 11, "STRING": 13}
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    name: getattr(_Field, f"TYPE_{name.upper()}")
    for name in ("bool", "int32", "int64", "uint32", "uint64", "float", "double", "string", "bytes")
}


def make_messages() -> SimpleNamespace:
    """Their classes, by name."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_file())
    found = {name: pool.FindMessageTypeByName(f"inference.{name}") for name in _OUTER}
    return SimpleNamespace(
        **{name: message_factory.GetMessageClass(each) for name, each in found.items()}
    )


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="grpc_service.proto", package="inference", syntax="proto3"
    )
    data_types = file.enum_type.add(name="DataType")
    for name, number in _DATA_TYPES.items():
        data_types.value.add(name=f"TYPE_{name}", number=number)
    made: dict[str, descriptor_pb2.DescriptorProto] = {}
    for path, fields in _MESSAGES.items():
        outer, _, name = path.rpartition(".")
        message = (made[outer].nested_type if outer else file.message_type).add(name=name)
        made[path] = message
        for field in fields:
            _add_field(message, path, field)
    return file


def _add_field(message: descriptor_pb2.DescriptorProto, path: str, text: str) -> None:
    """A field from "[repeated | map | ONEOF] TYPE NAME = NUMBER"."""
    told, _, number = text.partition(" = ")
    *kind, type_name, name = told.split()
    field = message.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
    if kind == ["map"]:
        entry = message.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        _add_field(entry, f"{path}.{entry.name}", "string key = 1")
        _add_field(entry, f"{path}.{entry.name}", f"{type_name} value = 2")
        field.type_name, field.label = f".inference.{path}.{entry.name}", _Field.LABEL_REPEATED
    elif type_name in _SCALARS:
        field.type = _SCALARS[type_name]
    else:
        field.type_name = f".inference.{type_name}"
    if kind == ["repeated"]:
        field.label = _Field.LABEL_REPEATED
    elif kind and kind != ["map"]:
        if not message.oneof_decl:
            message.oneof_decl.add(name=kind[0])
        field.oneof_index = 0
