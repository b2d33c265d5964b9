"""A whole service in this process, asked over HTTP without a port."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from mnemoscope.serve.service.assembling import Assembled, assemble
from mnemoscope.serve.service.keys import Keys
from mnemoscope.serve.service.options import ServiceOptions

__all__ = ["MEMORISED", "Served", "served"]

MEMORISED = "google icon of tokyo tower, on rings, in zagreb 2020"


@dataclass(frozen=True)
class Served:
    """Its models are ready.

    Attributes:
        whole: The service.
        run: Runs coroutines in its loop.
    """

    whole: Assembled
    run: Any

    def get(self, path: str) -> httpx.Response:
        return self.ask("GET", path)

    def post(self, path: str, body: object = None, **told: Any) -> httpx.Response:
        return self.ask("POST", path, **({"json": body} if body is not None else {}), **told)

    def ask(self, method: str, path: str, **told: Any) -> httpx.Response:
        async def main() -> httpx.Response:
            transport = httpx.ASGITransport(self.whole.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **told)

        found: httpx.Response = self.run(main())
        return found


@contextmanager
def served(**options: Any) -> Iterator[Served]:
    """A service of the embedded bundle on one noise, unless told otherwise."""
    wanted = ServiceOptions(**{"noises": 1, **options})
    whole = assemble(wanted, None if wanted.keys is None else Keys.read(wanted.keys))
    with asyncio.Runner() as runner:
        runner.run(whole.models.start())
        try:
            yield Served(whole, runner.run)
        finally:
            runner.run(whole.models.close(5))
