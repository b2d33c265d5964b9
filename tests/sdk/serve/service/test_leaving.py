"""Whoever leaves is worked for no longer, and whoever left too late is answered all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from mnemoscope.serve.service.leaving import while_there

Play = Callable[["asyncio.Future[Any]", "asyncio.Future[int]"], object]
LEAVES = {"type": "http.disconnect"}


async def answered(play: Play) -> int:
    """What a client is answered for whom all this happens in one turn of the loop."""
    loop = asyncio.get_running_loop()
    messages, work = loop.create_future(), loop.create_future()

    async def receive() -> Any:
        return await messages

    async def wait() -> int:
        return await asyncio.shield(work)

    async def answer() -> int:
        found = await while_there(Request({"type": "http"}, receive), wait())
        for _ in range(3):
            await asyncio.sleep(0)  # it is being sent
        return found

    task = asyncio.create_task(answer())
    await asyncio.sleep(0.01)
    play(messages, work)
    return await task


def test_who_stays_is_answered() -> None:
    assert asyncio.run(answered(lambda _, work: work.set_result(7))) == 7


def test_who_leaves_is_worked_for_no_longer() -> None:
    with pytest.raises(HTTPException, match="left"):
        asyncio.run(answered(lambda messages, _: messages.set_result(LEAVES)))


@pytest.mark.parametrize("first", [True, False])
def test_who_leaves_while_it_is_done_stops_nothing_halfway(first: bool) -> None:
    def play(messages: asyncio.Future[Any], work: asyncio.Future[int]) -> None:
        ends = [lambda: messages.set_result(LEAVES), lambda: work.set_result(7)]
        for end in ends if first else reversed(ends):
            end()

    with suppress(HTTPException):  # it was noticed in time
        assert asyncio.run(answered(play)) == 7


def test_errors_of_work_and_of_others_arrive() -> None:
    with pytest.raises(ValueError, match="work"):
        asyncio.run(answered(lambda _, work: work.set_exception(ValueError("work"))))

    async def cancelled() -> int:
        async with asyncio.timeout(0.02):
            return await answered(lambda *_: None)

    with pytest.raises(TimeoutError):
        asyncio.run(cancelled())
