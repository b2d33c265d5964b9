"""The page from its start to its end, on a server of its own."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from mnemoscope_runtime import BackendUnavailable
from mnemoscope_runtime.wording import pip_install

from ..serve.listening import listen
from .desk import Desk
from .options import UiOptions

__all__ = ["Page", "opened", "run"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LARGEST = 5 * 1024 * 1024  # bytes of a file
# Gradio's own scripts stand in its page; nothing comes from elsewhere, nothing goes elsewhere
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


@dataclass(frozen=True)
class Page:
    """A page that can be served.

    Attributes:
        server: Uvicorn's.
        listener: Where it listens.
        address: What a browser is told.
    """

    server: Any
    listener: socket.socket
    address: str


def run(options: UiOptions, say: Callable[[str], None]) -> None:
    """Serve the page until SIGINT or SIGTERM, and then delete what it kept.

    Args:
        options: What the page is about, and where it is.
        say: Told where it is.

    Raises:
        MnemoscopeError: as `opened`.
    """
    with opened(options) as page, _ended_by_signals(page.server):
        say(f"page {page.address}")
        if options.host not in _LOOPBACK:
            say("note: whoever reaches that address can use the page: it asks for no password.")
        page.server.run(sockets=[page.listener])


@contextmanager
def opened(options: UiOptions) -> Iterator[Page]:
    """A page whose `server` is still to run; at the end all that it kept is deleted.

    Raises:
        BackendUnavailable: Gradio is not installed.
        BackendError: the address cannot be listened at.
        MnemoscopeError: the bundle, its calibration, the backend or the detector cannot be used.
    """
    with (
        tempfile.TemporaryDirectory(prefix="mnemoscope-ui-") as folder,
        _quiet(folder),
        Desk(options) as desk,
    ):
        try:
            import uvicorn

            app = _app(desk, options)
        except ImportError as error:
            raise BackendUnavailable(
                f"The page needs Gradio: {error}. Install it with {pip_install('ui')}, "
                "in an environment of its own."
            ) from None
        listener = listen(options.host, options.port)
        host, port = listener.getsockname()[:2]
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=2
        )
        try:
            shown = f"[{host}]" if ":" in host else host
            yield Page(uvicorn.Server(config), listener, f"http://{shown}:{port}/")
        finally:
            listener.close()


@contextmanager
def _ended_by_signals(server: Any) -> Iterator[None]:
    """Signals end the server and not the process, which has something to delete yet."""

    def end(*_: object) -> None:
        server.should_exit = True

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, end) for number in numbers]
    server.capture_signals = nullcontext  # which would send them again afterwards
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _quiet(folder: str) -> Iterator[None]:
    """What Gradio reads, at its import or later: to report nothing, and where its files are."""
    wanted = {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": folder,
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _app(desk: Desk, options: UiOptions) -> Any:
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from .page import STYLE, build, theme

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_Guarded)
    if options.host in _LOOPBACK:  # or any web site could reach it by a name that it resolves so
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]"])
    gr.mount_gradio_app(
        app,
        build(desk),
        "/",
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        max_file_size=_LARGEST,
        theme=theme(),
        css_paths=[STYLE],
    )
    return app


class _Guarded:
    """Middleware that refuses what pages from elsewhere send here, and keeps this one from them."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        given = dict(scope.get("headers", ()))
        origin = given.get(b"origin")
        if origin is not None and origin.partition(b"://")[2] != given.get(b"host"):
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"Open the page itself."})
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        await self._app(scope, receive, guarded)
