"""Clients that leave: what they asked for is not worked on any more."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.exceptions import HTTPException

__all__ = ["while_there"]

Result = TypeVar("Result")


async def while_there(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What work comes to, unless the client leaves first; then it is cancelled.

    Args:
        request: Its body has been read.
        work: What it asked for.

    Raises:
        HTTPException: it left; nobody will see the answer.
    """
    task = asyncio.current_task()
    assert task is not None
    leaving = asyncio.ensure_future(_left(request))
    works = True

    def cancel(left: asyncio.Future[None]) -> None:
        if works and not left.cancelled():
            task.cancel()

    leaving.add_done_callback(cancel)
    try:
        return await work
    except asyncio.CancelledError:
        if not leaving.done():
            raise  # somebody else cancelled it
        task.uncancel()
        leaving.result()
        raise HTTPException(499, "The client left.") from None
    finally:
        works = False  # whoever leaves now does not stop the answer halfway
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
