"""Ways to have a prompt screened, all asked alike: a coroutine that takes a prompt.

Runs in the environment of tritonclient (`make .venv/clients/installed`).
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import numpy as np
import tritonclient.grpc.aio as triton_grpc
import tritonclient.http.aio as triton_http
from tritonclient.utils import InferenceServerException

from mnemoscope import Detector, Overloaded
from mnemoscope.serve import AsyncDetector, Limits

__all__ = ["ARMS", "Ask", "Refused"]

Ask = Callable[[str], Awaitable[bool]]  # whether the prompt is memorised


class Refused(Exception):
    """The server has too much to do, and says so."""


@asynccontextmanager
async def bare(_: str) -> AsyncIterator[Ask]:
    """One after the other in a thread, from a queue without a limit: nothing less would do."""
    loop = asyncio.get_running_loop()
    waiting: queue.SimpleQueue[tuple[str, asyncio.Future[bool]] | None] = queue.SimpleQueue()

    def work(detector: Detector) -> None:
        while (given := waiting.get()) is not None:
            prompt, future = given
            [found] = detector.screen([prompt], noises=1)
            loop.call_soon_threadsafe(future.set_result, bool(found.memorized))

    def ask(prompt: str) -> asyncio.Future[bool]:
        future: asyncio.Future[bool] = loop.create_future()
        waiting.put((prompt, future))
        return future

    with Detector.load(threads=1) as detector:
        thread = threading.Thread(target=work, args=[detector])
        thread.start()
        try:
            yield ask
        finally:
            waiting.put(None)
            thread.join()


@asynccontextmanager
async def embedded(limits: str) -> AsyncIterator[Ask]:
    """`AsyncDetector`, in the process that asks."""
    async with AsyncDetector.load(limits=Limits(**json.loads(limits)), threads=1) as detector:

        async def ask(prompt: str) -> bool:
            try:
                return bool((await detector.screen(prompt, noises=1)).memorized)
            except Overloaded:
                raise Refused from None

        yield ask


@asynccontextmanager
async def naive(place: str) -> AsyncIterator[Ask]:
    """The naive endpoint."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask(prompt: str) -> bool:
            async with session.post(f"http://{place}/screen", json={"prompt": prompt}) as answer:
                answer.raise_for_status()
                return bool((await answer.json())["memorized"])

        yield ask


@asynccontextmanager
async def http(place: str) -> AsyncIterator[Ask]:
    """tritonclient over HTTP, in JSON."""
    async with triton_http.InferenceServerClient(place, conn_limit=0) as client:
        output = triton_http.InferRequestedOutput("memorized", binary_data=False)

        async def ask(prompt: str) -> bool:
            given = triton_http.InferInput("prompt", [1, 1], "BYTES")
            given.set_data_from_numpy(np.array([[prompt]], np.object_), binary_data=False)
            return await _answered(client.infer("mnemoscope", [given], outputs=[output]))

        yield ask


@asynccontextmanager
async def http_binary(place: str) -> AsyncIterator[Ask]:
    """tritonclient over HTTP, its tensors in bytes, as it does by itself."""
    async with triton_http.InferenceServerClient(place, conn_limit=0) as client:
        output = triton_http.InferRequestedOutput("memorized")

        async def ask(prompt: str) -> bool:
            given = triton_http.InferInput("prompt", [1, 1], "BYTES")
            given.set_data_from_numpy(np.array([[prompt.encode()]], np.object_))
            return await _answered(client.infer("mnemoscope", [given], outputs=[output]))

        yield ask


@asynccontextmanager
async def grpc(place: str) -> AsyncIterator[Ask]:
    """tritonclient over gRPC."""
    async with triton_grpc.InferenceServerClient(place) as client:
        output = triton_grpc.InferRequestedOutput("memorized")

        async def ask(prompt: str) -> bool:
            given = triton_grpc.InferInput("prompt", [1, 1], "BYTES")
            given.set_data_from_numpy(np.array([[prompt.encode()]], np.object_))
            return await _answered(client.infer("mnemoscope", [given], outputs=[output]))

        yield ask


async def _answered(asked: Awaitable[triton_http.InferResult | triton_grpc.InferResult]) -> bool:
    try:
        result = await asked
    except InferenceServerException as error:
        if error.status() in ("429", "StatusCode.RESOURCE_EXHAUSTED"):
            raise Refused from None
        raise
    return bool(result.as_numpy("memorized").item())


# what each is told: nothing, how requests are gathered, or where the server is
ARMS = {
    "bare engine": bare,
    "AsyncDetector": embedded,
    "naive endpoint": naive,
    "serve, HTTP JSON": http,
    "serve, HTTP binary": http_binary,
    "serve, gRPC": grpc,
    "Triton, HTTP binary": http_binary,
    "Triton, gRPC": grpc,
}
