"""`Watch` of gRPC's health protocol: read as bytes, and by the balancer in gRPC's own client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from service_support import serving
from wire import fields, message

from mnemoscope.serve.batches import Batches
from mnemoscope.serve.service.asking import Service
from mnemoscope.serve.service.keys import Keys
from mnemoscope.serve.service.locks import Lock
from mnemoscope.serve.service.v2 import health
from mnemoscope.serve.service.v2.serving import start_grpc

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
BALANCED = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}
Work = Callable[[Service, str], Awaitable[None]]


def run(work: Work, lock: Lock | None = None, grace: float | None = None) -> None:
    async def main() -> None:
        async with serving() as (service, _):
            server, port = await start_grpc(service, "127.0.0.1", 0, lock)
            try:
                await asyncio.wait_for(work(service, f"127.0.0.1:{port}"), 60)
            finally:
                await server.stop(grace)

    asyncio.run(main())


@asynccontextmanager
async def watching(place: str, name: str = "") -> AsyncIterator[Any]:
    """Gives what comes next: a status, or EOF."""
    async with grpc.aio.insecure_channel(place) as channel:
        call = channel.unary_stream(health.WATCH)(message((1, name)))

        async def heard() -> Any:
            answer = await call.read()
            return answer if answer is grpc.aio.EOF else fields(answer)[1][0]

        yield heard
        call.cancel()  # before 1.83 the end of a channel does not end its calls at once


def test_a_status_comes_at_once_and_on_every_change(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(service: Service, place: str) -> None:
        async with watching(place) as ready, watching(place, "liveness") as live:
            assert (await ready(), await live()) == (SERVING, SERVING)
            with monkeypatch.context() as patched:
                patched.setattr(Batches, "alive", False)
                assert (await ready(), await live()) == (NOT_SERVING, NOT_SERVING)
            assert (await ready(), await live()) == (SERVING, SERVING)
            service.models.stop()
            assert (await ready(), await ready()) == (NOT_SERVING, grpc.aio.EOF)
            assert await live() is grpc.aio.EOF  # nothing changed for it

    run(work, grace=50)  # which nobody has to wait for


def test_what_has_no_health_is_watched_in_vain() -> None:
    async def work(service: Service, place: str) -> None:
        async with watching(place, "mnemoscope") as heard:
            assert await heard() == SERVICE_UNKNOWN
            service.models.stop()
            assert await heard() is grpc.aio.EOF

    run(work)


def test_it_needs_no_key_and_takes_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_MOST", 1)
    path = tmp_path / "keys"
    path.write_text("0123456789abcdef")
    path.chmod(0o600)

    async def work(_: Service, place: str) -> None:
        async with watching(place) as first:
            assert await first() == SERVING
            async with watching(place) as second:
                with pytest.raises(grpc.aio.AioRpcError, match="clients watch already"):
                    await second()
        await asyncio.sleep(0.3)  # until the one that has gone is missed
        async with watching(place) as third:
            assert await third() == SERVING

    run(work, Lock(Keys.read(path), lambda *_: None))


def test_grpcs_own_balancer_goes_by_it() -> None:
    async def work(service: Service, place: str) -> None:
        options = [("grpc.service_config", json.dumps(BALANCED))]
        async with grpc.aio.insecure_channel(place, options=options) as channel:
            await channel.channel_ready()
            state = channel.get_state()
            assert state is grpc.ChannelConnectivity.READY
            service.models.stop()
            await channel.wait_for_state_change(state)
            assert channel.get_state() is not grpc.ChannelConnectivity.READY

    run(work)
