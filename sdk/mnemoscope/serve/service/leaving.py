"""Clients that leave: what they asked for is not worked on any more."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
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
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise HTTPException(499, "The client left.")
    finally:
        for each in (doing, leaving):
            if not each.done():
                each.cancel()
                with suppress(asyncio.CancelledError):
                    await each


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
