"""The protocol over gRPC, asked with messages written by hand; by tritonclient in tests/interop."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from service_support import BREAKS, MEMORISED, Gate, fake_detector, serving
from wire import fields, message

from mnemoscope import BackendError
from mnemoscope.serve import Limits
from mnemoscope.serve.batches import Batches
from mnemoscope.serve.service.answer import DEFAULT, outputs
from mnemoscope.serve.service.asking import Service
from mnemoscope.serve.service.keys import Keys
from mnemoscope.serve.service.locks import Lock
from mnemoscope.serve.service.options import Source
from mnemoscope.serve.service.v2.serving import start_grpc

KEY = "0123456789abcdef"
CHECK = "grpc.health.v1.Health/Check"
SERVING, NOT_SERVING = 1, 2
Code = grpc.StatusCode
Call = Callable[..., Awaitable[dict[int, list[Any]]]]
Work = Callable[[Call, Service], Awaitable[None]]


def run(work: Work, lock: Lock | None = None, **settings: Any) -> None:
    async def main() -> None:
        async with serving(**settings) as (service, _):
            server, port = await start_grpc(service, "127.0.0.1", 0, lock)
            try:
                async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:

                    async def call(name: str, content: bytes = b"", **how: Any) -> Any:
                        place = name if "/" in name else f"inference.GRPCInferenceService/{name}"
                        method = channel.unary_unary(f"/{place}")
                        return fields(await method(content, **{"timeout": 20, **how}))

                    await work(call, service)
            finally:
                await server.stop(None)

    asyncio.run(main())


def infer(
    prompts: list[str], *more: tuple[int, Any], raw: bool = True, shape: Any = None, **changes: str
) -> bytes:
    """A ModelInferRequest, with its texts in raw_input_contents or in bytes_contents."""
    told = {"model": "mnemoscope", "name": "prompt", "datatype": "BYTES"} | changes
    tensor = [(1, told["name"]), (2, told["datatype"])]
    tensor += [(3, size) for size in (shape or [len(prompts)])]
    encoded = [each.encode("utf-8", "surrogateescape") for each in prompts]
    if raw:
        packed = b"".join(struct.pack("<I", len(each)) + each for each in encoded)
        more = (*more, (7, packed))
    else:
        tensor.append((5, message(*((8, each) for each in encoded))))
    return message((1, told["model"]), (5, message(*tensor)), *more)


def told(answer: dict[int, list[Any]]) -> dict[str, tuple[str, list[int], bytes]]:
    """What is told by name: datatype, shape and bytes."""
    found = {}
    for output, raw in zip(answer[5], answer[6], strict=True):
        parts = fields(output)
        shape = parts[3]
        if isinstance(shape[0], bytes):  # packed
            shape = [byte for packed in shape for byte in packed]
        found[parts[1][0].decode()] = (parts[2][0].decode(), shape, raw)
    return found


async def refused(
    call: Awaitable[Any], code: grpc.StatusCode, words: str | None = None
) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError, match=words) as caught:
        await call
    assert caught.value.code() == code
    return caught.value


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_verdicts_are_told_and_scores_are_not(raw: bool, shape: list[int]) -> None:
    async def work(call: Call, _: Service) -> None:
        request = infer(["a cat", MEMORISED], (3, "seven"), raw=raw, shape=shape)
        answer = await call("ModelInfer", request)
        assert (answer[1], answer[2], answer[3]) == ([b"mnemoscope"], [b"1"], [b"seven"])
        found = told(answer)
        assert tuple(found) == DEFAULT
        assert found["memorized"] == ("BOOL", shape, b"\0\1")
        assert found["truncated"] == ("BOOL", shape, b"\0\0")
        for name in ("score", "p_value"):
            datatype, told_shape, content = found[name]
            assert (datatype, told_shape) == ("FP32", shape)
            assert np.isnan(np.frombuffer(content, "<f4")).tolist() == [True, True]

    run(work)


def test_outputs_by_name() -> None:
    async def work(call: Call, _: Service) -> None:
        names = [(6, message((1, name))) for name in ("score", "notes", "backend")]
        found = told(await call("ModelInfer", infer(["a cat", MEMORISED], *names)))
        assert list(found) == ["score", "notes", "backend"]
        with fake_detector() as detector:
            expected = [each.score for each in detector.screen(["a cat", MEMORISED])]
        assert np.frombuffer(found["score"][2], "<f4").tolist() == expected
        assert found["backend"][2] == b"\4\0\0\0fake" * 2

    run(work, show_scores=True)


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (
            infer(["a cat", ""]),
            Code.INVALID_ARGUMENT,
            r"Prompt 1 \(counted from 0\) has no verdict. It is empty",
        ),
        (infer(["x" * 100_001]), Code.INVALID_ARGUMENT, "100,001 characters"),
        (infer(["a"] * 65), Code.INVALID_ARGUMENT, "Send 1 to 64"),
        (infer(["a", BREAKS]), Code.INTERNAL, r"Counted from prompt 1"),
        (infer(["a"], shape=[3]), Code.INVALID_ARGUMENT, "end before text 1"),
        (infer(["a"], shape=[3], raw=False), Code.INVALID_ARGUMENT, "has 1 text."),
        (infer(["a"], shape=[1, 1, 1]), Code.INVALID_ARGUMENT, r"Send \[n\]"),
        (infer(["a"], shape=[-1]), Code.INVALID_ARGUMENT, "Send 1 to 64"),
        (infer(["\udcff"]), Code.INVALID_ARGUMENT, "Text 0 of prompt is no UTF-8"),
        (infer(["a"], (7, b"")), Code.INVALID_ARGUMENT, "comes twice"),
        (infer(["a"], name="text"), Code.INVALID_ARGUMENT, "The inputs are 'text'"),
        (infer(["a"], datatype="INT32"), Code.INVALID_ARGUMENT, "Send texts: BYTES"),
        (infer(["a"], (6, message((1, "x")))), Code.INVALID_ARGUMENT, "no output 'x'"),
        (infer(["a"], (2, "2")), Code.NOT_FOUND, "no version '2'"),
        (infer(["a"], model="x"), Code.NOT_FOUND, "no model 'x'"),
        (b"", Code.NOT_FOUND, "no model ''"),
        (message((1, "mnemoscope")), Code.INVALID_ARGUMENT, "The inputs are none"),
    ],
)
def test_what_cannot_be_answered_is_an_error(
    request_: bytes, code: grpc.StatusCode, words: str
) -> None:
    async def work(call: Call, _: Service) -> None:
        await refused(call("ModelInfer", request_), code, words)
        assert told(await call("ModelInfer", infer(["a cat"])))["memorized"][2] == b"\0"

    run(work)


def test_parameters() -> None:
    async def work(call: Call, _: Service) -> None:
        steps = message((1, "steps"), (2, message((2, 10))))
        wrong = call("ModelInfer", infer(["a"], (4, steps)))
        await refused(wrong, Code.INVALID_ARGUMENT, "steps is settled")
        free = message((1, "priority"), (2, message((5, 1))))
        assert told(await call("ModelInfer", infer(["a"], (4, free))))

    run(work)


def test_what_else_may_be_asked() -> None:
    async def work(call: Call, service: Service) -> None:
        assert await call("ServerLive") == {1: [1]}
        assert await call("ServerReady") == {1: [1]}
        server = await call("ServerMetadata")
        assert server[1] == [b"mnemoscope"]
        assert b"binary_tensor_data" in server[3]
        named = message((1, "mnemoscope"))
        assert await call("ModelReady", named) == {1: [1]}
        metadata = await call("ModelMetadata", named)
        assert fields(metadata[4][0])[1] == [b"prompt"]
        named_outputs = [fields(each)[1][0].decode() for each in metadata[5]]
        assert named_outputs == list(outputs(show_scores=False))
        config = fields((await call("ModelConfig", named))[1][0])
        assert (config[1], config[17]) == ([b"mnemoscope"], [b"onnxruntime"])
        assert fields(config[5][0])[2] == [13]  # TYPE_STRING
        assert [fields(each)[2] for each in config[6][:3]] == [[11], [11], [1]]
        await call("ModelInfer", infer(["a cat", "a dog"]))
        for request in (named, b""):
            [stats] = map(fields, (await call("ModelStatistics", request))[1])
            assert (stats[4], stats[5]) == ([2], [1])
            assert fields(fields(stats[6][0])[1][0])[1] == [1]  # success
        [listed] = map(fields, (await call("RepositoryIndex"))[1])
        assert listed == {1: [b"mnemoscope"], 2: [b"1"], 3: [b"READY"]}
        for name in ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"):
            await refused(call(name, message((1, "x"))), Code.NOT_FOUND, "no model 'x'")
        await refused(call("ModelStreamInfer"), Code.UNIMPLEMENTED)
        service.models.stop()
        assert await call("ServerReady") == {}
        assert await call("ServerLive") == {1: [1]}

    run(work)


def test_loading_and_unloading() -> None:
    async def work(call: Call, service: Service) -> None:
        before = service.models.get("mnemoscope").detector
        named = message((2, "mnemoscope"))
        assert await call("RepositoryModelLoad", named) == {}
        assert service.models.get("mnemoscope").detector is not before
        override = message((2, "mnemoscope"), (3, message((1, "config"), (2, message((3, "{}"))))))
        wrong = call("RepositoryModelLoad", override)
        await refused(wrong, Code.INVALID_ARGUMENT, "as it lies there")
        assert await call("RepositoryModelUnload", named) == {}
        assert await call("ModelReady", message((1, "mnemoscope"))) == {}
        gone = call("ModelInfer", infer(["a cat"]))
        await refused(gone, Code.UNAVAILABLE, "it was unloaded")
        assert await call("RepositoryIndex", message((2, 1))) == {}
        [listed] = map(fields, (await call("RepositoryIndex"))[1])
        assert (listed[3], listed[4]) == ([b"UNAVAILABLE"], [b"it was unloaded"])

    run(work, control=True)


def test_nobody_may_load_unless_told() -> None:
    async def work(call: Call, _: Service) -> None:
        for name in ("RepositoryModelLoad", "RepositoryModelUnload"):
            wanted = call(name, message((2, "mnemoscope")))
            await refused(wanted, Code.PERMISSION_DENIED, "--control")

    run(work)


def test_overload_and_deadlines() -> None:
    gate = Gate()
    gate.go.set()

    async def work(call: Call, service: Service) -> None:
        gate.go.clear()
        gate.begun.clear()
        first = asyncio.ensure_future(call("ModelInfer", infer(["a"])))
        await asyncio.to_thread(gate.begun.wait, 10)
        late = call("ModelInfer", infer(["b"]), timeout=0.05)
        await refused(late, Code.DEADLINE_EXCEEDED)
        short = message((1, "timeout"), (2, message((2, 10_000))))
        wanted = call("ModelInfer", infer(["c"], (4, short)))
        await refused(wanted, Code.DEADLINE_EXCEEDED, "Nothing is known")
        batches = service.models.get("mnemoscope")._batches
        before = batches.waiting
        left = asyncio.ensure_future(call("ModelInfer", infer(["d"])))
        while batches.waiting == before:
            await asyncio.sleep(0.001)
        left.cancel()
        while not all(each.future.cancelled() for each in batches._waiting):
            await asyncio.sleep(0.001)
        others = [asyncio.ensure_future(call("ModelInfer", infer([each]))) for each in "efg"]
        while sum(not each.future.cancelled() for each in batches._waiting) < 3:
            await asyncio.sleep(0.001)
        error = await refused(call("ModelInfer", infer(["h"])), Code.RESOURCE_EXHAUSTED, "waiting")
        assert int(dict(tuple(error.trailing_metadata()))["retry-after"]) >= 1
        seen = gate.seen
        gate.go.set()
        for each in (first, *others):
            assert told(await each)["memorized"][2] == b"\0"
        assert gate.seen - seen == 4  # whoever left, or whose time was over, was not measured

    run(work, opens=lambda _, __: fake_detector(gate), limits=Limits(queue=3), prompts=3)


def test_messages_are_bounded() -> None:
    async def work(call: Call, _: Service) -> None:
        big = call("ModelInfer", infer(["x" * 20_000]))
        await refused(big, Code.RESOURCE_EXHAUSTED, "larger than max")
        assert told(await call("ModelInfer", infer(["x" * 5_000])))

    run(work, body=10_000)


def test_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(KEY)
    path.chmod(0o600)

    async def work(call: Call, _: Service) -> None:
        request = infer(["a cat"])
        for shown in ((), (("authorization", "Bearer nonsense"),), (("authorization", KEY),)):
            wanted = call("ModelInfer", request, metadata=shown)
            await refused(wanted, Code.UNAUTHENTICATED, "A key is needed")
            await refused(call("RepositoryIndex", metadata=shown), Code.UNAUTHENTICATED)
        assert told(
            await call("ModelInfer", request, metadata=(("authorization", f"Bearer {KEY}"),))
        )
        assert await call("ServerLive") == await call("ServerReady") == {1: [1]}
        assert await call(CHECK) == {1: [SERVING]}
        assert seen == [("grpc", None)] * 6 + [("grpc", "")]

    seen: list[tuple[str, str | None]] = []
    run(work, Lock(Keys.read(path), lambda *told: seen.append(told)))


def test_grpc_probes_of_health(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(call: Call, service: Service) -> None:
        whole = ("", "readiness", "inference.GRPCInferenceService")

        async def told(name: str) -> list[int]:
            return (await call(CHECK, message((1, name))))[1]

        for name in (*whole, "liveness"):
            assert await told(name) == [SERVING]
        await refused(told("mnemoscope"), Code.NOT_FOUND, "Nothing of that name has a health")
        service.models.stop()
        for name in whole:
            assert await told(name) == [NOT_SERVING]
        assert await told("liveness") == [SERVING]
        monkeypatch.setattr(Batches, "alive", False)
        assert await told("liveness") == [NOT_SERVING]
        monkeypatch.undo()

    run(work)


def test_a_port_that_is_taken() -> None:
    async def work(_: Call, service: Service) -> None:
        server, port = await start_grpc(service, "127.0.0.1", 0)
        try:
            with pytest.raises(BackendError, match=f"port {port} cannot be listened at"):
                await start_grpc(service, "127.0.0.1", port)
        finally:
            await server.stop(None)

    run(work)


def test_a_defect_is_no_secret_of_the_caller(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("a cat")

    async def work(call: Call, service: Service) -> None:
        monkeypatch.setattr(service.models.get("mnemoscope"), "submit_all", fail)
        await refused(call("ModelInfer", infer(["a cat"])), Code.INTERNAL, "its log says where")

    run(work)
    assert "ValueError" in caplog.text
    assert "test_grpc.py" in caplog.text
    assert "a cat" not in caplog.text


def test_several_models() -> None:
    async def work(call: Call, _: Service) -> None:
        for name in ("a", "b"):
            answer = await call("ModelInfer", infer(["a cat"], model=name))
            assert answer[1] == [name.encode()]

    run(work, models=(Source("a"), Source("b")))
