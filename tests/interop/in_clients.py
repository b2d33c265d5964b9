"""`python in_clients.py HTTP GRPC [KEY]`, where tritonclient is: how a service answers it.

Prints, as JSON, what each of its five clients was told of the same prompts; what they were told of
requests that cannot be answered; and where our messages differ from its own, in one process.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from mnemoscope.serve.service.v2.messages import METHODS, make_messages

HTTP, GRPC, *KEYS = sys.argv[1:]
PROMPTS = ["a cat", "google icon of tokyo tower, on rings, in zagreb 2020", "猫 " * 60]
BAD = {"empty": ["a cat", ""], "long": ["x" * 100_001], "bytes": [b"\xff"]}
OUTPUTS = ["score", "p_value", "memorized", "truncated", "bundle", "notes", "noises"]


def shown() -> dict[str, Any]:
    """The key, in headers that the client may write to: it does."""
    return {"headers": {"authorization": f"Bearer {KEYS[0]}"}} if KEYS else {}


def given(module: Any, texts: list[Any], **options: Any) -> list[Any]:
    encoded = np.array([each if isinstance(each, bytes) else each.encode() for each in texts], "O")
    tensor = module.InferInput("prompt", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(encoded, **options)
    return [tensor]


def wanted(module: Any, names: list[str], **options: Any) -> list[Any]:
    return [module.InferRequestedOutput(name, **options) for name in names]


def told(result: Any) -> dict[str, Any]:
    """Every output as it is, floats by their bits; texts of JSON and of bytes alike."""
    found = {}
    for name in OUTPUTS:
        values = result.as_numpy(name)
        if values is None:
            continue
        assert values.shape == (len(PROMPTS),)
        if values.dtype == np.float32:
            found[name] = ["null" if np.isnan(each) else each.tobytes().hex() for each in values]
        else:
            found[name] = [e.decode() if isinstance(e, bytes) else e for e in values.tolist()]
    return found


def answers() -> dict[str, Any]:
    """What the clients are told, sync and not, by how they ask."""
    http, grpc = tritonclient.http, tritonclient.grpc
    clients = {"http": http.InferenceServerClient(HTTP), "grpc": grpc.InferenceServerClient(GRPC)}

    def over_http(binary: bool, texts: list[Any], names: list[str] = OUTPUTS) -> Any:
        return clients["http"].infer(
            "mnemoscope",
            given(http, texts, binary_data=binary),
            outputs=wanted(http, names, binary_data=binary),
            **shown(),
        )

    def over_grpc(texts: list[Any], names: list[str] = OUTPUTS) -> Any:
        return clients["grpc"].infer(
            "mnemoscope",
            given(grpc, texts),
            outputs=wanted(grpc, names),
            client_timeout=20,
            timeout=10_000_000,
            request_id="seven",
            **shown(),
        )

    ways: dict[str, Any] = {
        "json": lambda *args: over_http(False, *args),
        "binary": lambda *args: over_http(True, *args),
        "grpc": over_grpc,
    }
    found: dict[str, Any] = {way: told(ask(PROMPTS)) for way, ask in ways.items()}
    found |= asyncio.run(answers_of_coroutines())
    mixed = [
        *wanted(http, ["score"], binary_data=False),
        *wanted(http, ["memorized", "bundle"], binary_data=True),
    ]
    result = clients["http"].infer("mnemoscope", given(http, PROMPTS), outputs=mixed, **shown())
    found["mixed"] = told(result)
    plain = clients["grpc"].infer("mnemoscope", given(grpc, PROMPTS), **shown())
    found["unnamed"] = [each.name for each in plain.get_response().outputs]
    found["id"] = ways["grpc"](PROMPTS).get_response().id
    errors: dict[str, Any] = {}
    for case, texts in BAD.items():
        for way in ("binary", "grpc"):
            errors[f"{case}, {way}"] = error_of(ways[way], texts)
    errors["output, json"] = error_of(ways["json"], PROMPTS, ["nothing"])
    errors["output, grpc"] = error_of(ways["grpc"], PROMPTS, ["nothing"])
    for name, module in (("http", http), ("grpc", grpc)):
        errors[f"model, {name}"] = error_of(
            clients[name].infer, "nothing", given(module, PROMPTS), **shown()
        )
        errors[f"override, {name}"] = error_of(
            clients[name].load_model, "mnemoscope", config="{}", **shown()
        )
        errors[f"key, {name}"] = error_of(clients[name].infer, "mnemoscope", given(module, PROMPTS))
    packed = given(http, PROMPTS)
    errors["packed, http"] = error_of(
        clients["http"].infer, "mnemoscope", packed, request_compression_algorithm="gzip", **shown()
    )
    return {"answers": found, "errors": errors, "about": about(clients)}


async def answers_of_coroutines() -> dict[str, Any]:
    found = {}
    for name, module, place in (
        ("aio http", tritonclient.http, HTTP),
        ("aio grpc", tritonclient.grpc, GRPC),
    ):
        async with module.aio.InferenceServerClient(place) as client:
            asked = [
                client.infer(
                    "mnemoscope", given(module, PROMPTS), outputs=wanted(module, OUTPUTS), **shown()
                )
                for _ in range(4)
            ]
            first, *others = [told(each) for each in await asyncio.gather(*asked)]
            assert all(each["memorized"] == first["memorized"] for each in others)
            found[name] = first
    return found


def about(clients: dict[str, Any]) -> dict[str, Any]:
    """What else a client may ask, and perf_analyzer does."""
    found: dict[str, Any] = {}
    for name, client in clients.items():
        plain = {"as_json": True} if name == "grpc" else {}
        config = client.get_model_config("mnemoscope", **shown(), **plain)
        statistics = client.get_inference_statistics("mnemoscope", **shown(), **plain)
        if KEYS:
            client.load_model("mnemoscope", **shown())
            client.unload_model("other", **shown())
            assert not client.is_model_ready("other", **shown())
            client.load_model("other", **shown())
        found[name] = {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model": client.is_model_ready("mnemoscope", "1", **shown()),
            "server": client.get_server_metadata(**shown(), **plain),
            "metadata": client.get_model_metadata("mnemoscope", **shown(), **plain),
            "config": config.get("config", config),
            "statistics": statistics["model_stats"][0],
            "index": client.get_model_repository_index(**shown(), **plain),
        }
    return found


def error_of(call: Any, *args: Any, **options: Any) -> str:
    try:
        call(*args, **options)
    except InferenceServerException as error:
        return f"{error.status()}: {error.message()}"
    return "no error"


def differences() -> Iterator[str]:
    """Where our messages are not tritonclient's, among the fields that ours have."""
    ours = make_messages()
    pool = service_pb2.DESCRIPTOR.pool
    names = [f"{method}{kind}" for method in METHODS for kind in ("Request", "Response")]
    waiting, seen = [getattr(ours, name).DESCRIPTOR for name in names], set()
    while waiting:
        message = waiting.pop()
        if message.full_name in seen:
            continue
        seen.add(message.full_name)
        theirs = pool.FindMessageTypeByName(message.full_name)
        assert theirs is not message
        if message.GetOptions().map_entry != theirs.GetOptions().map_entry:
            yield f"{message.full_name} is a map in one of them"
        for field in message.fields:
            if described(field) != described(theirs.fields_by_name.get(field.name)):
                yield f"{message.full_name}.{field.name}"
            if field.message_type is not None:
                waiting.append(field.message_type)
            if field.enum_type is not None:
                numbers = {each.name: each.number for each in field.enum_type.values}
                enum = pool.FindEnumTypeByName(field.enum_type.full_name)
                if not numbers.items() <= {e.name: e.number for e in enum.values}.items():
                    yield field.enum_type.full_name
    if len(seen) < 30:
        yield f"only {len(seen)} messages were compared"
    service = pool.FindServiceByName("inference.GRPCInferenceService")
    for name in METHODS:
        method = service.methods_by_name[name]
        if (method.input_type.name, method.output_type.name) != (
            f"{name}Request",
            f"{name}Response",
        ):
            yield name


def described(field: Any) -> Any:
    if field is None:
        return None
    inner = field.message_type or field.enum_type
    oneof = field.containing_oneof
    return (
        field.number,
        field.type,
        field.is_repeated,
        None if inner is None else inner.full_name,
        None if oneof is None else oneof.name,
    )


print(json.dumps(answers() | {"differences": list(differences())}))
