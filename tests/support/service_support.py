"""What the tests of the service share: models without engines, apps without sockets, and both."""

from __future__ import annotations

import asyncio
import re
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import numpy as np
from cli_support import calibration, command

from mnemoscope import CalibrationFile, Detector, Setting, embedded
from mnemoscope.serve.listening import listen
from mnemoscope.serve.service.app import make_app
from mnemoscope.serve.service.asking import Request, Service
from mnemoscope.serve.service.models import Models
from mnemoscope.serve.service.options import ServiceOptions, Source
from mnemoscope.serve.service.running import _config, _Server, serve
from mnemoscope_runtime import Screener
from mnemoscope_runtime.testing import FakeBackend

MEMORISED = "google icon of tokyo tower, on rings, in zagreb 2020"
BREAKS = "break"  # no number comes of it


def length(ids: Any) -> float:
    """The score of a prompt: how many tokens it has, or NaN if it breaks."""
    return float("nan") if list(ids) == BREAK else float((ids != ids[-1]).sum())


def fake_detector(magnitude: Callable[[Any], float] = length, threshold: float = 6.0) -> Detector:
    """On the embedded bundle, without an engine: what is longer than the threshold is memorised."""
    screener = Screener.open(embedded.BUNDLE, backend=FakeBackend(magnitude))
    noises = screener.bundle.manifest.noise_bank.shape[0]
    setting = Setting(screener.bundle.id, "fake", "magnitude", 1, noises)
    return Detector(screener, CalibrationFile((calibration(setting, threshold),)))


with Screener.open(embedded.BUNDLE, backend=FakeBackend()) as _screener:
    BREAK = list(_screener.tokenizer([BREAKS])[0])


class Gate:
    """A magnitude that waits until it may answer."""

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        self.seen = 0

    def __call__(self, ids: np.ndarray) -> float:
        self.begun.set()
        assert self.go.wait(20)
        self.seen += 1
        return length(ids)


@asynccontextmanager
async def serving(
    options: ServiceOptions | None = None,
    opens: Callable[[Source, ServiceOptions], Detector] = lambda _, __: fake_detector(),
    **settings: Any,
) -> AsyncIterator[tuple[Service, list[Request]]]:
    """A service whose models are open, and what is told of its requests."""
    told: list[Request] = []
    service = Service(Models(options or ServiceOptions(**settings), opens=opens), [told.append])
    await service.models.start()
    try:
        yield service, told
    finally:
        await service.models.close(10)


@asynccontextmanager
async def asking(service: Service, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of its app, without sockets; what the app raises is not the client's to see."""
    transport = httpx.ASGITransport(make_app(service, **options), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        yield client


@asynccontextmanager
async def listening(service: Service) -> AsyncIterator[str]:
    """A service's app on a socket, in the loop that its models are in."""
    listener = listen("127.0.0.1", 0)
    server = _Server(_config(make_app(service), service.options))
    answering = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await answering


@contextmanager
def running(**settings: Any) -> Iterator[tuple[str, str]]:
    """The real thing, on the embedded bundle, in a thread: the addresses of HTTP and gRPC."""
    options = ServiceOptions(**{"port": 0, "grpc_port": 0, "linger": 0, **settings})
    said: list[str] = []
    ready = threading.Event()
    stop = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    wrong: list[BaseException] = []

    def say(text: str) -> None:
        said.append(text)
        ready.set()

    def run() -> None:
        async def main() -> None:
            loops.append(asyncio.get_running_loop())
            await serve(options, say, stop)

        try:
            asyncio.run(main())
        except BaseException as error:
            wrong.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(60)
        assert not wrong, wrong
        *_, http, grpc = said[0].split()
        yield http, grpc.removeprefix("grpc://")
    finally:
        if loops and thread.is_alive():
            loops[0].call_soon_threadsafe(stop.set)
        thread.join(60)
        assert not thread.is_alive()


@contextmanager
def process(*args: object) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """`mnemoscope serve` on one thread, and its addresses of HTTP and gRPC, as it says them."""
    told = command("serve", "--port", 0, "--grpc-port", 0, "--threads", 1, *args)
    with subprocess.Popen(told, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as made:
        try:
            assert made.stderr is not None
            line = made.stderr.readline()
            found = re.fullmatch(r"serving .* at (http://127\.0\.0\.1:\d+) grpc://(.*)\n", line)
            assert found, line + made.stderr.read()
            yield made, found[1], found[2]
        finally:
            made.kill()
