"""A service from its start to its end: HTTP and gRPC in one loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from mnemoscope_runtime.errors import BackendError
from mnemoscope_runtime.wording import pip_install

from ...prompts.printable import counted
from ..listening import listen
from .assembling import assemble
from .connections import impatient
from .drift import is_watched
from .keys import Keys
from .models import Models
from .options import ServiceOptions
from .v2.serving import start_grpc

__all__ = ["new_loop", "serve"]

_LOOK = 1.0  # seconds between two looks at engines
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_log = logging.getLogger(__name__)


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, where it is installed, which takes less of the processor; or Python's own."""
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def serve(
    options: ServiceOptions,
    say: Callable[[str], None],
    stop: asyncio.Event | None = None,
) -> None:
    """Answer until SIGTERM or SIGINT: then take nothing on any more, and answer what was taken on.

    Probes of health are answered while models are opened. A second signal ends the process.

    Args:
        options: What is served.
        say: Told where, once all is ready.
        stop: Set, it does what a signal does.

    Raises:
        MnemoscopeError: a model cannot be opened, or keys or an address cannot be had.
        BackendError: an engine's thread ended; whatever else was taken on is answered.
    """
    stop = stop or asyncio.Event()
    keys = None if options.keys is None else Keys.read(options.keys)
    whole = assemble(options, keys)
    models = whole.models
    listener = listen(options.host, options.port)
    places = [f"http://{_address(listener)}"]
    server = _Server(_config(whole.app, options))
    with _on_signals(stop):
        answering = asyncio.create_task(server.serve(sockets=[listener]))
        answering.add_done_callback(lambda _: stop.set())
        rpc, answered = None, 0
        try:
            if options.grpc_port is not None:
                rpc, port = await start_grpc(
                    whole.service, options.host, options.grpc_port, whole.lock
                )
                places.append(f"grpc://{_at(options.host, port)}")
            if await _unless(stop, models.start()):
                names = ", ".join(each.source.name for each in models)
                say(f"serving {names} at {' '.join(places)}")
                if not is_watched():
                    _log.warning(
                        "drift is not watched: SciPy is not installed. Install it with "
                        f"{pip_install('calibrate')}."
                    )
                if await _unless(stop, _until_an_engine_ends(models)):
                    raise BackendError(
                        "An engine's thread has ended, which no request should bring about. Start "
                        "the service again, and report what it logged."
                    )
                models.stop()
                answered = models.answered
                _log.info("taking requests on for %g more seconds", options.linger)
                # gRPC cancels calls that have arrived and were not looked at yet
                await asyncio.sleep(options.linger)
        finally:
            models.stop()
            server.should_exit = True
            if rpc is not None:
                await rpc.stop(options.timeout)
            await answering
            await models.close(options.timeout)
        _log.info(
            "stopped; answered %s, %d of them since it was told to stop",
            counted(models.answered, "request"),
            models.answered - answered,
        )


class _Server(uvicorn.Server):
    """Leaves signals to `serve`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: FastAPI, options: ServiceOptions) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=impatient(options.timeout),
        ws="none",
        lifespan="off",
        log_config=None,
        proxy_headers=False,  # nothing depends on who asks
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,  # longer than what proxies in front keep a connection for
        timeout_graceful_shutdown=round(options.timeout) + 1,
    )


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether work came to its end before it was to stop."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    return False


async def _until_an_engine_ends(models: Models) -> None:
    while models.live:
        await asyncio.sleep(_LOOK)


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return _at(host, port)


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def _on_signals(stop: asyncio.Event) -> Iterator[None]:
    """Set an event at the first signal; the second does what signals do by themselves."""
    if threading.current_thread() is not threading.main_thread():
        yield  # where Python hears no signals
        return
    loop = asyncio.get_running_loop()

    def begin(number: int) -> None:
        _log.info("received %s", signal.Signals(number).name)
        stop.set()

    def once(number: int, _: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        loop.call_soon_threadsafe(begin, number)

    before = {each: signal.signal(each, once) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
