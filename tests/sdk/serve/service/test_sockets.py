"""What comes over real sockets: slow, hostile, and gone before it is answered."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from service_support import (
    Gate,
    fake_detector,
    listening,
    running,
    serving,
)
from socket_support import INFER, answered, body, connect, memorized, read_all
from uvicorn.protocols.http.h11_impl import H11Protocol

from mnemoscope import BackendError
from mnemoscope.serve.service.options import ServiceOptions
from mnemoscope.serve.service.running import serve
from mnemoscope_runtime import BackendOptions

_ONE_THREAD = BackendOptions(threads=1)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of one with a second for everything, and bodies of 20,000 bytes."""
    with running(timeout=1, body=20_000, backend_options=_ONE_THREAD) as (http, _):
        yield http


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /v2 HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\nGE",
    ],
    ids=["nothing", "half a header", "one request and a half"],
)
def test_sockets_that_say_nothing_more_are_closed_and_block_nobody(
    address: str, sent: bytes
) -> None:
    silent = [connect(address) for _ in range(20)]
    try:
        for each in silent:
            each.sendall(sent)
        answered(address)
        for each in silent:
            each.settimeout(10)
            told = b""
            with suppress(ConnectionResetError):
                told = read_all(each)
            assert told.startswith(b"HTTP/1.1 200") == sent.startswith(b"GET")
    finally:
        for each in silent:
            each.close()


def test_bodies_that_trickle_are_refused_and_block_nobody(address: str) -> None:
    with connect(address) as slow:
        slow.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode())
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            slow.sendall(b" ")
            answered(address)
        told = read_all(slow)
    assert told.startswith(b"HTTP/1.1 408")
    assert b"within 1 s." in told


@pytest.mark.parametrize(
    "headers",
    [
        f"X-Huge: {'x' * 200_000}",
        "\r\n".join(f"X-{number}: {'x' * 100}" for number in range(2000)),
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "no header",
    ],
    ids=["one huge", "two thousand", "two lengths", "too long", "two ways", "none"],
)
def test_headers_that_are_too_much(address: str, headers: str) -> None:
    with connect(address) as hostile:
        try:
            hostile.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n".encode())
            told = read_all(hostile)
        except ConnectionError:
            told = b"HTTP/1.1 400"  # it was closed before all was sent
    assert re.match(rb"HTTP/1\.1 4(00|13|08|31)", told), told[:200]
    answered(address)


@pytest.mark.parametrize("part", [b"X-Huge: ", b"X: y\r\n"], ids=["one", "many"])
def test_headers_without_an_end_are_cut_off(address: str, part: bytes) -> None:
    told = b""
    with connect(address) as hostile, suppress(ConnectionError):
        hostile.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\n".encode() + part)
        for _ in range(100):  # a megabyte, all within the time that headers have
            hostile.sendall((part * 10_000)[:10_000] if b"\n" in part else b"y" * 10_000)
            time.sleep(0.001)
        told = read_all(hostile)
    assert not told or told.startswith(b"HTTP/1.1 400"), told[:200]
    answered(address)


def test_who_would_rather_speak_another_version_is_answered_in_this_one(address: str) -> None:
    """Java's client asks for HTTP/2 with its first request, and takes either."""
    content = json.dumps(body("a cat")).encode()
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n"
    upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
    with connect(address) as client:
        for headers in (upgrade, "", "Connection: close\r\n"):
            client.sendall(f"{head}{headers}\r\n".encode() + content)
            told = client.recv(65_536)
            while b"}" not in told:
                told += client.recv(65_536)
            assert told.startswith(b"HTTP/1.1 200"), told


def test_a_chunked_body_without_an_end_is_cut_off(address: str) -> None:
    with connect(address) as hostile:
        hostile.sendall(
            f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
        for _ in range(5):
            hostile.sendall(chunk)
        told = read_all(hostile)
    assert told.startswith(b"HTTP/1.1 413")
    assert json.loads(told.partition(b"\r\n\r\n")[2])["error"].startswith("The body has more than")
    answered(address)


def test_who_hangs_up_is_not_measured() -> None:
    gate = Gate()
    gate.go.set()

    async def main() -> None:
        async with serving(opens=lambda _, __: fake_detector(gate)) as (service, told):
            gate.go.clear()
            gate.begun.clear()
            async with listening(service) as address:
                first = asyncio.create_task(asyncio.to_thread(answered_by, address))
                await asyncio.to_thread(gate.begun.wait, 10)
                content = json.dumps(body("a cat")).encode()
                head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
                with connect(address) as leaving:
                    leaving.sendall(head.encode() + content)
                    while not service.models.waiting["mnemoscope"]:
                        await asyncio.sleep(0.001)
                while not told:
                    await asyncio.sleep(0.001)
                assert [each.errors for each in told] == [("CancelledError",)]
                seen = gate.seen
                gate.go.set()
                assert await first == [False]
                assert gate.seen - seen == 1

    asyncio.run(main())


def answered_by(address: str) -> list[bool]:
    return memorized(httpx.post(address + INFER, json=body("a cat")))


def test_answers_are_sent_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body behind its headers would otherwise wait for the client to acknowledge those: 40 ms."""
    options: list[int] = []
    made = H11Protocol.connection_made

    def noting(self: Any, transport: asyncio.Transport) -> None:
        made(self, transport)
        found = transport.get_extra_info("socket")
        options.append(found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(H11Protocol, "connection_made", noting)
    with running(backend_options=_ONE_THREAD) as (http, _):
        answered(http)
    assert options == [1]


def test_a_port_that_is_taken(address: str) -> None:
    port = int(address.rpartition(":")[2])
    with pytest.raises(BackendError, match=f"port {port} cannot be listened at"):
        asyncio.run(serve(ServiceOptions(port=port, grpc_port=None), lambda _: None))
