"""`ScreenPrompts` in front of a FastAPI app that would draw."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, closing
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from mnemoscope import Detector, InputError, NumericsError, ServiceClosed, embedded
from mnemoscope.serve import AsyncDetector, Limits
from mnemoscope.serve.middleware import ScreenPrompts
from mnemoscope_runtime.testing import FakeBackend

MEMORISED = "google icon of tokyo tower, on rings, in zagreb 2020"
DRAW = "/v1/images/generations"


class Drawing:
    """What stands behind, and what reached it."""

    def __init__(self) -> None:
        self.drawn: list[Any] = []
        self.lived: list[str] = []

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            self.lived.append("started")
            yield
            self.lived.append("ended")

        self.app = FastAPI(lifespan=lifespan)

        @self.app.post("/{path:path}")
        async def draw(request: Request) -> dict[str, Any]:
            self.drawn.append(await request.body())
            return {"data": [{"b64_json": "..."}]}

        @self.app.get("/{path:path}")
        async def show() -> str:
            return "shown"


@pytest.fixture(scope="module")
def detector() -> Iterator[AsyncDetector]:
    with Detector.load(threads=1) as opened:
        yield (found := AsyncDetector(opened))
        found.close()


@pytest.fixture
def drawing() -> Drawing:
    return Drawing()


def screened(drawing: Drawing, detector: AsyncDetector | None, **options: Any) -> ScreenPrompts:
    return ScreenPrompts(drawing.app, detector, **{"noises": 1, **options})


def post(app: Any, content: Any, path: str = DRAW, **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            if isinstance(content, dict):
                return await client.post(path, json=content, headers=headers)
            told = {"content-type": "application/json", **headers}
            return await client.post(path, content=content, headers=told)

    return asyncio.run(ask())


def code(response: httpx.Response) -> str:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert response.headers["content-type"] == "application/json"
    return str(error["code"])


def test_what_is_memorised_is_not_drawn(drawing: Drawing, detector: AsyncDetector) -> None:
    response = post(screened(drawing, detector), {"prompt": MEMORISED})
    assert (response.status_code, code(response)) == (400, "memorized_prompt")
    assert response.json()["error"]["param"] == "prompt"
    assert MEMORISED not in response.text
    assert drawing.drawn == []


def test_what_is_not_memorised_passes_byte_by_byte(
    drawing: Drawing, detector: AsyncDetector
) -> None:
    body = b'{ "prompt" : "a cat",\n  "size": "64x64" }'

    async def chunks() -> AsyncIterator[bytes]:
        for k in range(0, len(body), 7):
            yield body[k : k + 7]

    app = screened(drawing, detector)
    assert post(app, body).json() == {"data": [{"b64_json": "..."}]}
    assert post(app, chunks()).status_code == 200
    assert drawing.drawn == [body, body]


def test_one_of_a_list_is_enough(drawing: Drawing, detector: AsyncDetector) -> None:
    app = screened(drawing, detector)
    assert code(post(app, {"prompt": ["a cat", MEMORISED]})) == "memorized_prompt"
    assert post(app, {"prompt": ["a cat", "a dog in a red hat"]}).status_code == 200
    assert len(drawing.drawn) == 1


def test_other_places_pass_untouched(drawing: Drawing, detector: AsyncDetector) -> None:
    app = screened(drawing, detector)
    assert post(app, {"prompt": MEMORISED}, "/v1/completions").status_code == 200

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(DRAW)

    assert asyncio.run(ask()).json() == "shown"


@pytest.mark.parametrize("path", ["/v1/images/edits", "/v1/images/variations"])
def test_what_begins_with_a_picture_is_refused(
    drawing: Drawing, detector: AsyncDetector, path: str
) -> None:
    response = post(screened(drawing, detector), {"prompt": "a cat"}, path)
    assert (response.status_code, code(response)) == (400, "unmeasured_request")
    assert drawing.drawn == []
    let = screened(drawing, detector, unmeasured="pass")
    assert post(let, {"prompt": "a cat"}, path).status_code == 200


def test_what_may_draw_something_else_is_refused(drawing: Drawing, detector: AsyncDetector) -> None:
    body = {"prompt": "a cat", "seed": 1, "user": None, "lora": {"name": "style"}}
    response = post(screened(drawing, detector), body)
    assert (response.status_code, code(response)) == (400, "unmeasured_request")
    assert response.json()["error"]["param"] == "lora"
    assert drawing.drawn == []
    assert post(screened(drawing, detector, fields=["lora"]), body).status_code == 200
    let = screened(drawing, detector, unmeasured="pass")
    assert post(let, body).status_code == 200
    assert code(post(let, body | {"prompt": MEMORISED})) == "memorized_prompt"


@pytest.mark.parametrize(
    ("prompt", "words"), [("", "It is empty"), ("word " * 100, "Only its first 75 tokens")]
)
def test_what_has_no_whole_verdict_is_refused(
    drawing: Drawing, detector: AsyncDetector, prompt: str, words: str
) -> None:
    response = post(screened(drawing, detector), {"prompt": prompt})
    assert (response.status_code, code(response)) == (400, "unmeasured_prompt")
    assert words in response.json()["error"]["message"]
    assert drawing.drawn == []
    let = screened(drawing, detector, unmeasured="pass")
    assert post(let, {"prompt": prompt}).status_code == 200
    assert code(post(let, {"prompt": [prompt, MEMORISED]})) == "memorized_prompt"


def test_without_a_calibration_nothing_is_drawn(drawing: Drawing) -> None:
    plain = AsyncDetector(Detector.load(backend=FakeBackend(), uncalibrated="score"))
    with closing(plain):
        response = post(screened(drawing, plain), {"prompt": "a cat"})
    assert code(response) == "unmeasured_prompt"
    assert "no calibration" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b'{"prompt": "a c', 400),
        (b'{"prompt": "a cat", "prompt": "a tower"}', 400),
        (b'{"n": 1}', 400),
        (b'{"prompt": "\\ud800"}', 400),  # half a character, which no tokenizer reads
    ],
)
def test_what_cannot_be_read_is_never_drawn(
    drawing: Drawing, detector: AsyncDetector, content: bytes, status: int
) -> None:
    for unmeasured in ("refuse", "pass"):
        response = post(screened(drawing, detector, unmeasured=unmeasured), content)
        assert response.status_code == status
        assert code(response) in ("invalid_json", "invalid_prompt")
    assert drawing.drawn == []


def test_large_bodies_are_not_read_to_the_end(drawing: Drawing, detector: AsyncDetector) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'{"prompt": "'
        for _ in range(10_000):
            sent += 1
            yield b"a" * 100

    app = screened(drawing, detector, max_body=1000)
    response = post(app, chunks())
    assert (response.status_code, code(response)) == (413, "request_too_large")
    assert sent < 20
    assert post(app, {"prompt": "a" * 1000}).status_code == 413  # by its length alone
    assert post(app, {"prompt": "a" * 900}).status_code in (200, 400)


def asgi(app: Any, messages: list[Any]) -> list[Any]:
    """What an app sends, given what it receives; after the last message there is silence."""
    sent: list[Any] = []
    scope = {"type": "http", "method": "POST", "path": DRAW, "headers": [], "query_string": b""}

    async def receive() -> Any:
        if messages:
            return messages.pop(0)
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


def test_who_hangs_up_is_not_measured(drawing: Drawing) -> None:
    backend = FakeBackend()
    detector = AsyncDetector(Detector.load(backend=backend, uncalibrated="score"))
    part = {"type": "http.request", "body": b'{"prompt": "a ', "more_body": True}
    app = screened(drawing, detector)
    with closing(detector):
        assert asgi(app, [part, {"type": "http.disconnect"}]) == []
    assert (backend.calls, drawing.drawn) == (0, [])


def test_who_hangs_up_while_it_is_measured_is_forgotten(
    drawing: Drawing, detector: AsyncDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    never: list[Future[Any]] = [Future()]
    monkeypatch.setattr(detector, "submit_all", lambda *_, **__: never)
    whole = {"type": "http.request", "body": b'{"prompt": "a cat"}'}
    assert asgi(screened(drawing, detector), [whole, {"type": "http.disconnect"}]) == []
    assert never[0].cancelled()
    assert drawing.drawn == []


def test_who_dawdles_is_sent_away(drawing: Drawing, detector: AsyncDetector) -> None:
    part = {"type": "http.request", "body": b'{"prompt": "a ', "more_body": True}
    start, body = asgi(screened(drawing, detector, timeout=0.05), [part])
    assert start["status"] == 503
    assert json.loads(body["body"])["error"]["code"] == "timeout"


def test_a_full_queue_says_when_to_come_again(drawing: Drawing) -> None:
    full = AsyncDetector(Detector.load(threads=1), Limits(batch=1, queue=1))
    with closing(full):
        app = screened(drawing, full)
        found = post(app, {"prompt": [f"cat {k}" for k in range(16)]})
    assert (found.status_code, code(found)) == (429, "overloaded")
    assert int(found.headers["retry-after"]) >= 1
    assert code(post(app, {"prompt": "a cat"})) == "screening_unavailable"  # it is closed
    assert drawing.drawn == []


def test_a_failing_engine_lets_nothing_through(
    drawing: Drawing, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Any) -> float:
        raise NumericsError("prompt 'a secret cat' is NaN")

    broken = AsyncDetector(Detector.load(backend=FakeBackend(fail), uncalibrated="score"))
    with closing(broken):
        response = post(screened(drawing, broken), {"prompt": "a secret cat"})
    assert (response.status_code, code(response)) == (500, "screening_failed")
    assert drawing.drawn == []
    assert "NumericsError" in caplog.text
    assert "secret" not in caplog.text + response.text


def live(app: Any, ask: Callable[[], Any] = lambda: None) -> list[Any]:
    """What an app says of its life, during which something is asked."""
    sent: list[Any] = []

    async def main() -> None:
        told: asyncio.Queue[Any] = asyncio.Queue()
        up = asyncio.Event()

        async def send(message: Any) -> None:
            sent.append(message)
            up.set()

        task = asyncio.create_task(app({"type": "lifespan"}, told.get, send))
        await told.put({"type": "lifespan.startup"})
        await up.wait()
        await asyncio.to_thread(ask)
        await told.put({"type": "lifespan.shutdown"})
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    return sent


def test_the_lifespan_opens_and_closes_the_bundle(drawing: Drawing) -> None:
    app = screened(drawing, None, bundle=embedded.BUNDLE, threads=1)
    found: list[httpx.Response] = []
    opened: list[AsyncDetector] = []

    def ask() -> None:
        found.extend(post(app, {"prompt": each}) for each in (MEMORISED, "a cat"))
        opened.extend(filter(None, [app._detector]))

    assert code(post(app, {"prompt": "a cat"})) == "screening_unavailable"
    sent = live(app, ask)
    assert [each["type"] for each in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert [each.status_code for each in found] == [400, 200]
    assert drawing.lived == ["started", "ended"]
    with pytest.raises(ServiceClosed):
        opened[0].submit("a cat")
    assert code(post(app, {"prompt": "a cat"})) == "screening_unavailable"
    assert len(drawing.drawn) == 1


def test_a_server_that_runs_no_lifespan_is_told_once(
    drawing: Drawing, caplog: pytest.LogCaptureFixture
) -> None:
    app = screened(drawing, None, bundle=embedded.BUNDLE, threads=1)
    for _ in range(2):
        assert code(post(app, {"prompt": "a cat"})) == "screening_unavailable"
    [record] = caplog.records
    assert "--lifespan on" in record.message
    assert not drawing.drawn
    caplog.clear()
    app = screened(drawing, None, bundle=embedded.BUNDLE, threads=1)
    live(app)
    assert code(post(app, {"prompt": "a cat"})) == "screening_unavailable"  # since it ended
    assert not caplog.records


def test_fastapi_adds_it(drawing: Drawing) -> None:
    drawing.app.add_middleware(ScreenPrompts, bundle=embedded.BUNDLE, noises=1, threads=1)
    found: list[httpx.Response] = []
    live(drawing.app, lambda: found.append(post(drawing.app, {"prompt": MEMORISED})))
    assert code(found[0]) == "memorized_prompt"


@pytest.mark.parametrize(
    ("options", "words"),
    [({"bundle": "nowhere"}, "nowhere"), ({"bundle": embedded.BUNDLE, "steps": 7}, "calibrat")],
)
def test_what_cannot_screen_does_not_start(
    drawing: Drawing, options: dict[str, Any], words: str
) -> None:
    [sent] = live(screened(drawing, None, **options))
    assert sent["type"] == "lifespan.startup.failed"
    assert words in sent["message"]
    assert drawing.lived == []


def test_the_environment_names_the_bundle(
    drawing: Drawing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MNEMOSCOPE_BUNDLE", str(embedded.BUNDLE))
    found: list[httpx.Response] = []
    app = ScreenPrompts(drawing.app)
    live(app, lambda: found.append(post(app, {"prompt": MEMORISED})))
    assert code(found[0]) == "memorized_prompt"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "no bundle"),
        ({"bundle": "x", "unmeasured": "maybe"}, "unmeasured"),
        ({"bundle": "x", "fields": "lora"}, "fields"),
        ({"bundle": "x", "max_body": 0}, "max_body"),
        ({"bundle": "x", "max_body": True}, "max_body"),
        ({"bundle": "x", "timeout": 0}, "timeout"),
        ({"bundle": "x", "timeout": float("nan")}, "timeout"),
    ],
)
def test_options_are_checked(drawing: Drawing, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ScreenPrompts(drawing.app, **options)


def test_an_open_detector_has_its_own_options(drawing: Drawing, detector: AsyncDetector) -> None:
    with pytest.raises(InputError, match="leave the detector out"):
        ScreenPrompts(drawing.app, detector, threads=1)
