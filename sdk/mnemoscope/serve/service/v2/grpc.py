"""The Open Inference Protocol, version 2, over gRPC."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict

from mnemoscope_runtime.errors import (
    InputError,
    ModelNotReady,
    Overloaded,
)

from ..answer import DEFAULT, columns, judged
from ..asking import Service
from ..models import VERSION
from ..statuses import log_fault, retry_after, status_of, told
from ..tracing import continued
from . import described
from .messages import METHODS, SERVICE
from .parameters import refuse_overrides, seconds_to_wait
from .tensors import (
    Asked,
    decode_contents,
    decode_texts,
    require_input,
    require_shape,
    to_raw,
)

__all__ = ["v2_handler"]

Method = Callable[[Any, Any], Awaitable[Any]]


def v2_handler(service: Service, messages: SimpleNamespace) -> grpc.GenericRpcHandler:
    """What answers the calls of `inference.GRPCInferenceService`."""
    methods = _methods(service, messages)
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            name: grpc.unary_unary_rpc_method_handler(
                _answering(methods[name]),
                request_deserializer=getattr(messages, f"{name}Request").FromString,
                response_serializer=getattr(messages, f"{name}Response").SerializeToString,
            )
            for name in METHODS
        },
    )


def _methods(service: Service, messages: SimpleNamespace) -> Mapping[str, Method]:
    models, options = service.models, service.options

    async def server_live(_: Any, __: Any) -> Any:
        return messages.ServerLiveResponse(live=models.live)

    async def server_ready(_: Any, __: Any) -> Any:
        return messages.ServerReadyResponse(ready=models.ready)

    async def model_ready(request: Any, _: Any) -> Any:
        try:
            models.get(request.name, request.version)
        except ModelNotReady:
            return messages.ModelReadyResponse(ready=False)
        return messages.ModelReadyResponse(ready=True)

    async def server_metadata(_: Any, __: Any) -> Any:
        return ParseDict(described.server(), messages.ServerMetadataResponse())

    async def model_metadata(request: Any, _: Any) -> Any:
        models.get(request.name, request.version)
        return ParseDict(
            described.metadata(request.name, options), messages.ModelMetadataResponse()
        )

    async def model_config(request: Any, _: Any) -> Any:
        models.get(request.name, request.version)
        told = {"config": described.config(request.name, options)}
        return ParseDict(told, messages.ModelConfigResponse())

    async def model_statistics(request: Any, _: Any) -> Any:
        wanted = [models.find(request.name, request.version)] if request.name else models
        told = {"model_stats": [described.statistics(each) for each in wanted]}
        return ParseDict(told, messages.ModelStatisticsResponse())

    async def model_infer(request: Any, context: Any) -> Any:
        models.find(request.model_name, request.model_version)  # or refuse, whatever is asked
        asked = _asked(request, options.prompts)
        columns((), asked.outputs, show_scores=options.show_scores)  # or refuse before measuring
        waits = [each for each in (asked.timeout, context.time_remaining()) if each is not None]
        found = judged(
            await service.screen(
                request.model_name,
                asked.prompts,
                protocol="grpc",
                version=request.model_version,
                timeout=min(waits, default=None),
            )
        )
        told = columns(found, asked.outputs, show_scores=options.show_scores)
        answer = messages.ModelInferResponse(
            model_name=request.model_name, model_version=VERSION, id=request.id
        )
        for column in told:
            output = column.output
            answer.outputs.add(name=output.name, datatype=output.datatype, shape=asked.shape)
            answer.raw_output_contents.append(to_raw(column))
        return answer

    async def repository_index(request: Any, _: Any) -> Any:
        told = [each for each in models.listed() if each.state == "READY" or not request.ready]
        return messages.RepositoryIndexResponse(
            models=[
                {"name": each.name, "version": VERSION, "state": each.state, "reason": each.why}
                for each in told
            ]
        )

    async def load(request: Any, _: Any) -> Any:
        refuse_overrides(_plain(request.parameters))
        await models.load(request.model_name)
        return messages.RepositoryModelLoadResponse()

    async def unload(request: Any, _: Any) -> Any:
        await models.unload(request.model_name)
        return messages.RepositoryModelUnloadResponse()

    return {
        "ServerLive": server_live,
        "ServerReady": server_ready,
        "ModelReady": model_ready,
        "ServerMetadata": server_metadata,
        "ModelMetadata": model_metadata,
        "ModelInfer": model_infer,
        "ModelConfig": model_config,
        "ModelStatistics": model_statistics,
        "RepositoryIndex": repository_index,
        "RepositoryModelLoad": load,
        "RepositoryModelUnload": unload,
    }


def _asked(request: Any, most: int) -> Asked:
    """What a message says.

    Raises:
        InputError: anything else than a request for this service.
    """
    tensor = require_input([(each.name, each) for each in request.inputs])
    shape = require_shape(tensor.shape, tensor.datatype, most)
    raw, contents = request.raw_input_contents, tensor.contents.bytes_contents
    if len(raw) > 1 or (raw and contents):
        raise InputError(
            "The input comes twice. Send it once: in raw_input_contents, or in bytes_contents."
        )
    return Asked(
        prompts=decode_texts(raw[0], shape[0]) if raw else decode_contents(contents, shape[0]),
        shape=shape,
        outputs=tuple(each.name for each in request.outputs) or DEFAULT,
        id=request.id,
        timeout=seconds_to_wait(_plain(request.parameters)),
    )


def _plain(parameters: Mapping[str, Any]) -> dict[str, object]:
    """Parameters as Python has them."""
    kinds = {name: each.WhichOneof("parameter_choice") for name, each in parameters.items()}
    return {name: kind and getattr(parameters[name], kind) for name, kind in kinds.items()}


def _answering(method: Method) -> Method:
    """A method whose errors are answered with the status that fits."""

    async def answer(request: Any, context: Any) -> Any:
        try:
            with continued(dict(context.invocation_metadata())):
                return await method(request, context)
        except Exception as error:
            wrong = error
        status, code = status_of(wrong)
        if status == 500:
            log_fault(wrong)
        wait = (("retry-after", retry_after(wrong)),) if isinstance(wrong, Overloaded) else ()
        return await context.abort(grpc.StatusCode[code], told(wrong), wait)

    return answer
