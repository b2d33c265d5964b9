"""Requests for verdicts, past the routes and, with a query, through them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from service_support import BREAKS, MEMORISED, asking, serving

from mnemoscope.serve.service.v2.infer import Directly

PLACE = "/v2/models/mnemoscope"


def body(*prompts: str, **more: Any) -> dict[str, Any]:
    tensor = {"name": "prompt", "shape": [len(prompts)], "datatype": "BYTES", "data": prompts}
    return {"inputs": [tensor], **more}


def told(answer: httpx.Response) -> tuple[int, str, bytes]:
    return answer.status_code, answer.headers["content-type"], answer.content


@pytest.mark.parametrize(
    ("place", "asked", "status"),
    [
        (f"{PLACE}/infer", {"json": body("a cat", MEMORISED)}, 200),
        (f"{PLACE}/versions/1/infer", {"json": body("a cat", id="7")}, 200),
        (f"{PLACE}/infer", {"json": body("a cat", parameters={"binary_data_output": True})}, 200),
        (f"{PLACE}/versions/2/infer", {"json": body("a cat")}, 404),
        ("/v2/models/dall%20e/infer", {"json": body("a cat")}, 404),
        (f"{PLACE}/infer", {"json": body("")}, 400),
        (f"{PLACE}/infer", {"json": body(BREAKS)}, 500),
        (f"{PLACE}/infer", {"content": b"{"}, 400),
        (f"{PLACE}/infer", {"content": b"x" * 2000}, 413),
        (f"{PLACE}/infer", {"json": body("a cat", parameters={"timeout": 1})}, 504),
    ],
)
def test_the_short_way_says_what_the_long_one_does(
    place: str, asked: dict[str, Any], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: list[bool] = []
    direct = Directly.__call__

    async def noting(self: Directly, scope: Any, receive: Any, send: Any) -> None:
        before = self._app

        async def app(*told: Any) -> None:
            ways.append(False)
            await before(*told)

        self._app = app
        ways.append(True)
        try:
            await direct(self, scope, receive, send)
        finally:
            self._app = before

    monkeypatch.setattr(Directly, "__call__", noting)

    async def main() -> None:
        async with serving(body=1000) as (service, _), asking(service) as client:
            short = await client.post(place, **asked)
            assert ways == [True]
            long = await client.post(f"{place}?x=1", **asked)
            assert ways == [True, True, False]
        assert short.status_code == status
        assert told(short) == told(long)

    asyncio.run(main())


def test_other_requests_take_the_routes() -> None:
    async def main() -> None:
        async with serving() as (service, _), asking(service) as client:
            assert (await client.get(f"{PLACE}/infer")).status_code == 405
            assert (await client.post(f"{PLACE}/infer/")).status_code in (307, 404)
            assert (await client.get(PLACE)).status_code == 200

    asyncio.run(main())
