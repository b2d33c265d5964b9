"""What the app does with requests before and after they are read, asked without a port."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from pydantic import BaseModel
from service_support import MEMORISED, Gate, asking, fake_detector, serving

from mnemoscope.serve.service.app import make_app
from mnemoscope.serve.service.asking import Service
from mnemoscope.serve.service.keys import Keys
from mnemoscope.serve.service.locks import Lock

INFER = "/v2/models/mnemoscope/infer"
KEY = "0123456789abcdef"
BODY = {"inputs": [{"name": "prompt", "shape": [1], "datatype": "BYTES", "data": ["a cat"]}]}
Work = Callable[[httpx.AsyncClient], Awaitable[None]]


def run(work: Work, app: Any = None, **settings: Any) -> None:
    async def main() -> None:
        async with serving(**settings) as (service, _), asking(service, **(app or {})) as client:
            await work(client)

    asyncio.run(main())


async def chunks(*parts: bytes, pause: float = 0) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
        await asyncio.sleep(pause)


def error(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    text: str = answer.json()["error"]
    return text


def test_bodies_are_bounded_whether_or_not_they_say_how_long_they_are() -> None:
    async def work(client: httpx.AsyncClient) -> None:
        assert (await client.post(INFER, content=b"x" * 1000)).status_code == 400
        for content in (b"x" * 1001, chunks(b"x" * 600, b"x" * 401)):
            answer = await client.post(INFER, content=content)
            assert "more than 1,000 bytes" in error(answer, 413)
            assert answer.headers["connection"] == "close"
        read: list[int] = []

        async def noted() -> AsyncIterator[bytes]:
            read.append(1)
            yield b"x" * 1001

        error(await client.post(INFER, content=noted(), headers={"content-length": "1001"}), 413)
        assert not read
        # who says too little is not believed, and who says nonsense is refused
        for length in ("1", "x", "-1"):
            answer = await client.post(
                INFER, content=chunks(b"x" * 2000), headers={"content-length": length}
            )
            error(answer, 413)

    run(work, body=1000)


def test_bodies_have_to_arrive_in_time() -> None:
    async def work(client: httpx.AsyncClient) -> None:
        answer = await client.post(INFER, content=chunks(b"{", b"}", b"", pause=0.2))
        assert "within 0.1 s." in error(answer, 408)
        assert answer.headers["connection"] == "close"

    run(work, timeout=0.1)


def test_compressed_bodies_are_refused_on_every_route_before_they_are_read() -> None:
    async def work(client: httpx.AsyncClient) -> None:
        places = [INFER, "/v2/repository/index", "/v2/repository/models/mnemoscope/unload"]
        for place, coding in itertools.product(places, ("gzip", "identity, gzip", "GZIP")):
            read: list[int] = []

            async def noted(read: list[int] = read) -> AsyncIterator[bytes]:
                read.append(1)
                yield b"x"

            headers = [("content-encoding", "identity"), ("content-encoding", coding)]
            answer = await client.post(place, content=noted(), headers=headers)
            assert "Compressed" in error(answer, 415)
            assert not read
        plain = {"content-encoding": "identity"}
        assert (await client.post(INFER, json=BODY, headers=plain)).status_code == 200

    run(work, control=True)


def test_no_page_loads_scripts_from_elsewhere() -> None:
    async def work(client: httpx.AsyncClient) -> None:
        for place in ("/docs", "/redoc"):
            error(await client.get(place), 404)
        assert (await client.get("/openapi.json")).json()["paths"]

    run(work)


def test_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"studio:{KEY}")
    path.chmod(0o600)

    async def work(client: httpx.AsyncClient) -> None:
        read: list[int] = []

        async def body() -> AsyncIterator[bytes]:
            read.append(1)
            yield b"{}"

        for shown in ({}, {"authorization": KEY}, {"authorization": "Bearer studio"}):
            for place in (INFER, "/v2/repository/index", "/v2/repository/models/mnemoscope/load"):
                answer = await client.post(place, json=BODY, headers=shown)
                assert "A key is needed" in error(answer, 401)
                assert answer.headers["www-authenticate"] == "Bearer"
            for place in ("/v2", "/openapi.json", "/nowhere", "/v2/health/live/"):
                error(await client.get(place, headers=shown), 401)
        error(await client.post(INFER, content=body()), 401)
        shown = {"authorization": f"Bearer {KEY}"}
        assert (await client.post(INFER, json=BODY, headers=shown)).status_code == 200
        for place in ("/v2/health/live", "/v2/health/ready"):
            assert (await client.get(place)).status_code == 200

    run(work, {"lock": Lock(Keys.read(path))})


class Drawing(BaseModel):
    prompt: str
    count: int


def other_routes() -> APIRouter:
    router = APIRouter()

    @router.post("/draw")
    async def draw(_: Drawing) -> None:
        raise ValueError(MEMORISED)

    return router


def test_errors_of_other_routes_have_the_same_shape_and_tell_no_prompt(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        answer = await client.post("/draw", json={"prompt": MEMORISED, "count": "many"})
        text = error(answer, 400)
        assert "body.count: " in text
        assert "tokyo" not in text
        answer = await client.post("/draw", json={"prompt": MEMORISED, "count": 1})
        assert error(answer, 500).startswith("The service failed")

    run(work, {"routers": [other_routes()]})
    assert "ValueError" in caplog.text
    assert "test_app.py" in caplog.text  # where
    assert "tokyo" not in caplog.text + "".join(capsys.readouterr())


def test_who_leaves_is_not_measured() -> None:
    gate = Gate()
    gate.go.set()

    async def main() -> None:
        opens = lambda _, __: fake_detector(gate)  # noqa: E731
        async with serving(opens=opens) as (service, told):
            gate.go.clear()
            gate.begun.clear()
            app = make_app(service)
            async with asking(service) as client:
                first = asyncio.create_task(client.post(INFER, json=BODY))
                await asyncio.to_thread(gate.begun.wait, 10)
                await asyncio.wait_for(leaving(app, service), 10)
                seen = gate.seen
                gate.go.set()
                assert (await first).status_code == 200
            assert [each.errors for each in told] == [("CancelledError",), ()]
            assert gate.seen - seen == 1

    asyncio.run(main())


async def leaving(app: Any, service: Service) -> None:
    """A request whose client leaves as soon as its prompt waits."""
    body = httpx.Request("POST", "http://here", json=BODY).content
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        while not service.models.waiting["mnemoscope"]:
            await asyncio.sleep(0.001)
        return {"type": "http.disconnect"}

    async def send(_: dict[str, Any]) -> None:
        pass

    scope = {"type": "http", "method": "POST", "path": INFER, "headers": [], "query_string": b""}
    await app(scope, receive, send)
