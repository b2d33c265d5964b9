"""Screens prompts in front of any ASGI app that draws pictures as OpenAI's images API does.

    app.add_middleware(ScreenPrompts, bundle="my-bundle")    # of FastAPI or Starlette
    app = ScreenPrompts(app, bundle="my-bundle")             # any other

Servers that take the name of a class (`--middleware module.Class`) are told the bundle by the
environment, MNEMOSCOPE_BUNDLE, or name a class of yours:

    class Screened(ScreenPrompts):
        def __init__(self, app):
            super().__init__(app, bundle="my-bundle", noises=1)
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Coroutine, MutableMapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from mnemoscope_runtime.errors import InputError, MnemoscopeError, Overloaded, ServiceClosed
from mnemoscope_runtime.wording import counted

from ..screening.detection import Detection
from .async_detector import AsyncDetector
from .batches import Limits
from .images import Asked, Refusal, Refused, draws_from_a_picture, draws_text, read_request

__all__ = ["ScreenPrompts", "Unmeasured"]

Unmeasured = Literal["refuse", "pass"]
"""What becomes of a request that has no whole verdict."""
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
Result = TypeVar("Result")
_log = logging.getLogger(__name__)

_MEMORIZED = Refusal(
    400,
    "memorized_prompt",
    "This prompt makes the model reproduce a picture that it was trained on, so nothing was drawn. "
    "Ask for it in other words.",
    param="prompt",
)
_PICTURE = Refusal(
    400,
    "unmeasured_request",
    "What begins with a picture cannot be screened, so nothing was drawn. Ask for a picture by a "
    "prompt alone: /images/generations.",
)
_CLOSED = Refusal(
    503,
    "screening_unavailable",
    "Prompts cannot be screened at the moment, so nothing was drawn. Come again later.",
    type="server_error",
    retry_after=1,
)
_NO_LIFESPAN = (
    "ScreenPrompts opens its bundle in the app's lifespan, which this server did not run, so that "
    "nothing is drawn (503). Have it run: `uvicorn --lifespan on`, and around the app itself where "
    "that is mounted in another; or give ScreenPrompts an AsyncDetector that is open."
)
_FAILED = Refusal(
    500,
    "screening_failed",
    "The prompt could not be screened, so nothing was drawn. Tell whoever runs this service.",
    type="server_error",
)


class _Gone(Exception):
    """Nobody waits for an answer any more."""


class ScreenPrompts:
    """Lets a request to draw through once its prompt was measured and is not memorised.

    Of what is posted to `.../images/generations` the body is read once, screened and passed on as
    it came. Requests to other places pass untouched, except `.../images/edits` and `/variations`:
    what begins with a picture is not measured. Answers that refuse have the shape of OpenAI's
    errors. A prompt that nobody could measure is never drawn, unless you say so.
    """

    def __init__(
        self,
        app: App,
        detector: AsyncDetector | None = None,
        *,
        bundle: str | Path | None = None,
        limits: Limits | None = None,
        steps: int = 1,
        noises: int | None = None,
        unmeasured: Unmeasured = "refuse",
        fields: Collection[str] = (),
        max_body: int = 2**20,
        timeout: float = 30.0,
        **options: Any,
    ) -> None:
        """Stand in front of an app.

        Args:
            app: What draws.
            detector: An open one, which stays yours to close. Without it the app's lifespan opens
                the bundle and closes it.
            bundle: That of the model which draws; by default the one that the environment names,
                MNEMOSCOPE_BUNDLE.
            limits: How requests are gathered, as in `AsyncDetector`.
            steps: As in `Detector.screen`.
            noises: Likewise.
            unmeasured: What becomes of a request that can be read and gets no whole verdict: its
                prompt is empty, or longer than what the bundle reads, or has no calibration, or
                it begins with a picture, or has a field that may change what is drawn by more than
                the sampler's settings. "refuse", or "pass" to have it drawn all the same.
            fields: Names of more fields that may be there, as they change nothing of what is
                measured; see `mnemoscope.serve.images.KNOWN`.
            max_body: The most bytes of a request that is screened.
            timeout: Seconds to read and screen it in.
            options: What else `Detector.load` takes.

        Raises:
            InputError: an option cannot be used, or nothing says which bundle.
        """
        bundle = bundle or os.environ.get("MNEMOSCOPE_BUNDLE")
        if detector is None and bundle is None:
            raise InputError(
                "There is no bundle to screen with, and another model's says nothing of yours. "
                "Export the model that draws, and give it: ScreenPrompts(app, bundle=...), or "
                "MNEMOSCOPE_BUNDLE in the environment."
            )
        if detector is not None and (limits is not None or options):
            raise InputError(
                "limits and options are for the bundle that ScreenPrompts opens itself. Give them "
                "to the AsyncDetector, or leave the detector out."
            )
        if unmeasured not in get_args(Unmeasured):
            raise InputError(f"unmeasured is {unmeasured!r:.40}. Give 'refuse' or 'pass'.")
        if isinstance(fields, str) or not isinstance(fields, Collection):
            raise InputError(f"fields is {fields!r:.40}. Give a list of names.")
        if type(max_body) is not int or max_body < 1:
            raise InputError(f"max_body is {max_body!r:.40}. Give a number of bytes, from 1.")
        if not (isinstance(timeout, (int, float)) and 0 < timeout <= 3600):
            raise InputError(f"timeout is {timeout!r:.40}. Give seconds, at most 3600.")
        self.app = app
        self._detector = detector
        self._unborn = detector is None  # no lifespan has begun yet
        self._load = lambda: AsyncDetector.load(bundle, limits, **options)
        self._steps, self._noises = steps, noises
        self._unmeasured, self._fields = unmeasured, frozenset(fields)
        self._max_body, self._timeout = max_body, timeout

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve what a server calls an app with."""
        if scope["type"] == "lifespan" and self._detector is None:
            await self._live(scope, receive, send)
            return
        posted = scope["path"] if scope["type"] == "http" and scope["method"] == "POST" else ""
        try:
            if draws_from_a_picture(posted) and self._unmeasured == "refuse":
                raise Refused(_PICTURE)
            if draws_text(posted):
                receive = await self._screened(scope, receive)
        except _Gone:
            return
        except Refused as refused:
            await _answer(refused.refusal, send)
            return
        await self.app(scope, receive, send)

    async def _screened(self, scope: MutableMapping[str, Any], receive: Receive) -> Receive:
        """What the app receives in place of a request that may pass.

        Raises:
            Refused: it may not.
            _Gone: nobody waits for it.
        """
        if self._detector is None:
            if self._unborn:
                self._unborn = False  # it is said once
                _log.error(_NO_LIFESPAN)
            raise Refused(_CLOSED)
        try:
            async with asyncio.timeout(self._timeout):
                body = await self._body(scope, receive)
                asked = read_request(scope["headers"], body)
                self._check(asked)
                found = await _unless_gone(receive, self._screen(self._detector, asked.prompts))
        except TimeoutError:
            raise Refused(
                Refusal(
                    503,
                    "timeout",
                    f"The request was not read and screened within {self._timeout:g} s, so "
                    "nothing was drawn. Come again later.",
                    type="server_error",
                    retry_after=self._timeout,
                )
            ) from None
        self._judge(found)
        return _replayed(body, receive)

    async def _body(self, scope: MutableMapping[str, Any], receive: Receive) -> bytes:
        too_large = Refused(
            Refusal(
                413,
                "request_too_large",
                f"The request has more than {counted(self._max_body, 'byte')}, the most that are "
                "screened. Send a shorter one.",
            )
        )
        for name, value in scope["headers"]:
            if name.lower() == b"content-length" and int(value) > self._max_body:
                raise too_large
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_body:
                raise too_large
        return bytes(body)

    async def _screen(self, detector: AsyncDetector, prompts: list[str]) -> list[Detection]:
        """Raises Refused where something cannot be measured."""
        asked: list[asyncio.Future[Detection]] = []
        try:
            queued = detector.submit_all(prompts, steps=self._steps, noises=self._noises)
            asked += map(asyncio.wrap_future, queued)
            return await asyncio.gather(*asked)
        except Overloaded as error:
            raise Refused(
                Refusal(429, "overloaded", str(error), "rate_limit_error", None, error.retry_after)
            ) from None
        except ServiceClosed:
            raise Refused(_CLOSED) from None
        except InputError as error:
            raise Refused(Refusal(400, "invalid_prompt", str(error), param="prompt")) from None
        except MnemoscopeError as error:
            _log.error("A prompt could not be screened: %s", type(error).__name__)
            raise Refused(_FAILED) from None
        finally:
            for each in asked:
                each.cancel()

    def _check(self, asked: Asked) -> None:
        """Raises Refused where something else than the prompt decides what is drawn."""
        unknown = sorted(asked.others - self._fields)
        if unknown and self._unmeasured == "refuse":
            raise Refused(
                Refusal(
                    400,
                    "unmeasured_request",
                    f"{unknown[0]!r:.80} may change what is drawn in a way that nobody measured, "
                    "so nothing was. Leave it out.",
                    param=unknown[0],
                )
            )

    def _judge(self, found: list[Detection]) -> None:
        """Raises Refused unless all may be drawn."""
        if any(each.memorized for each in found):
            raise Refused(_MEMORIZED)
        if self._unmeasured == "pass":
            return
        for each in found:
            if each.memorized is None or each.truncated:
                why = each.notes[0] if each.notes else "There is no calibration, and no verdict."
                raise Refused(
                    Refusal(
                        400,
                        "unmeasured_prompt",
                        f"The prompt was not screened as a whole, so nothing was drawn. {why}",
                        param="prompt",
                    )
                )

    async def _live(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Open the bundle before the app starts up, and close it after it shut down."""

        async def opening() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    self._detector = await self._open()
                except MnemoscopeError as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    raise
            return message

        self._unborn = False
        try:
            await self.app(scope, opening, send)
        finally:
            if self._detector is not None:
                closed, self._detector = self._detector, None
                await asyncio.to_thread(closed.close)

    async def _open(self) -> AsyncDetector:
        """Raises what no request could be answered with."""
        detector = await asyncio.to_thread(self._load)
        try:
            detector.detector.calibrated(steps=self._steps, noises=self._noises)
            await detector.warm_up()
        except BaseException:
            detector.close()
            raise
        return detector


async def _answer(refusal: Refusal, send: Send) -> None:
    start = {"type": "http.response.start", "status": refusal.status, "headers": refusal.headers}
    await send(start)
    await send({"type": "http.response.body", "body": refusal.body})


async def _unless_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of some work, which is given up once nobody waits for it.

    Raises:
        _Gone: nobody does.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(receive())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise _Gone
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Receives a body that was read, and then what comes after it."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return left.pop() if left else await receive()

    return replay
