"""A service on real sockets, and as a process."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cli_support import Run, command, failed
from service_support import (
    MEMORISED,
    Gate,
    fake_detector,
    listening,
    process,
    running,
    serving,
)
from uvicorn.protocols.http.h11_impl import H11Protocol
from wire import fields, message

from benchmarks.serving.servers import free_port
from mnemoscope import BackendError, CalibrationError, embedded
from mnemoscope.serve.service.assembling import Assembled, assemble
from mnemoscope.serve.service.options import ServiceOptions
from mnemoscope.serve.service.running import serve
from mnemoscope_runtime import BackendOptions

_ONE_THREAD = BackendOptions(threads=1)
INFER = "/v2/models/mnemoscope/infer"


def body(*prompts: str) -> dict[str, Any]:
    tensor = {"name": "prompt", "shape": [len(prompts)], "datatype": "BYTES", "data": prompts}
    return {"inputs": [tensor]}


def memorized(answer: httpx.Response) -> list[bool]:
    assert answer.status_code == 200, answer.text
    [found] = [each for each in answer.json()["outputs"] if each["name"] == "memorized"]
    values: list[bool] = found["data"]
    return values


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of one with a second for everything, and bodies of 20,000 bytes."""
    with running(timeout=1, body=20_000, backend_options=_ONE_THREAD) as (http, _):
        yield http


def connect(address: str) -> socket.socket:
    host, _, port = address.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def answered(address: str) -> None:
    assert memorized(httpx.post(address + INFER, json=body("a cat", MEMORISED))) == [False, True]


def read_all(connection: socket.socket) -> bytes:
    found = b""
    while part := connection.recv(65536):
        found += part
    return found


def test_it_answers_on_both_ports() -> None:
    with running(backend_options=_ONE_THREAD) as (http, rpc):
        answered(http)
        with grpc.insecure_channel(rpc) as channel:
            ready = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
            assert ready(b"", timeout=10) == b"\x08\1"
        assert "mnemoscope_requests_total" in httpx.get(f"{http}/metrics").text
    with pytest.raises(httpx.ConnectError):
        httpx.get(http)


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


def test_a_model_that_cannot_be_opened_ends_it() -> None:
    options = ServiceOptions(port=0, grpc_port=0, steps=3, backend_options=_ONE_THREAD)
    with pytest.raises(CalibrationError):
        asyncio.run(serve(options, lambda _: pytest.fail("it was ready")))


def test_an_engine_that_ended_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Assembled] = []

    def noting(*args: Any) -> Assembled:
        opened.append(assemble(*args))
        return opened[0]

    def say(_: str) -> None:
        detector = opened[0].models.get("mnemoscope")
        detector._batches._gather = lambda: 1 / 0  # type: ignore[assignment,return-value]
        detector.submit("a cat")

    monkeypatch.setattr("mnemoscope.serve.service.running.assemble", noting)
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    options = ServiceOptions(port=0, grpc_port=0, backend_options=_ONE_THREAD)
    with pytest.raises(BackendError, match="An engine's thread has ended"):
        asyncio.run(serve(options, say))


def test_a_port_that_is_taken(address: str) -> None:
    port = int(address.rpartition(":")[2])
    with pytest.raises(BackendError, match=f"port {port} cannot be listened at"):
        asyncio.run(serve(ServiceOptions(port=port, grpc_port=None), lambda _: None))


def test_one_that_is_stopped_while_it_opens_is_not_ready() -> None:
    async def main() -> None:
        stop = asyncio.Event()
        stop.set()
        options = ServiceOptions(port=0, grpc_port=None, backend_options=_ONE_THREAD)
        await serve(options, lambda _: pytest.fail("it was ready"), stop)

    asyncio.run(main())


def test_the_command_needs_its_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mnemoscope.serve.service.running", None)
    failed(run("serve"), 3, "pip install -c constraints.txt '.[serve]'")


@pytest.mark.slow
def test_without_the_extra_all_else_works() -> None:
    blocked = ("fastapi", "starlette", "uvicorn", "grpc", "google.protobuf")
    code = f"""if True:
        import sys
        for name in {(*blocked, "prometheus_client", "opentelemetry")!r}:
            sys.modules[name] = None
        import mnemoscope.serve, mnemoscope.serve.triton, mnemoscope.serve.middleware
        from mnemoscope.serve.service import answer, keys, models, options, statuses
        from mnemoscope.serve.service.v2 import described, tensors
        from mnemoscope.cli import main
        sys.argv = ["mnemoscope", "serve"]
        main()
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 3
    assert run.stderr.startswith("error: A service cannot be run: ")
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--model", "x"], 2, "NAME=BUNDLE"),
        (["--port", 70000], 2, "port is 70000"),
        (["--host", "0.0.0.0", "--control"], 2, "--keys"),
        (["--keys", "nowhere"], 2, "cannot be read"),
        (["--backend", "nonsense", "--port", 0, "--grpc-port", 0], 2, "no backend 'nonsense'"),
        (["--model", "a=nowhere", "--port", 0, "--grpc-port", 0], 4, "nowhere"),
        (["--host", "256.0.0.1"], 3, "cannot be listened at"),
    ],
)
def test_the_command_says_what_is_wrong(run: Run, args: list[Any], code: int, words: str) -> None:
    failed(run("serve", *args), code, words)


@pytest.mark.parametrize("option", ["--max-batch", "--queue", "--max-body", "--max-prompts"])
def test_what_is_too_little_is_called_as_it_was_given(run: Run, option: str) -> None:
    result = run("serve", option, 0)
    assert result.code == 2
    assert f"'{option}'" in result.err


def test_a_model_without_a_calibration_is_told_where_one_is_named(run: Run, tmp_path: Path) -> None:
    shutil.copytree(embedded.BUNDLE, tmp_path / "none")
    (tmp_path / "none" / "calibration.json").unlink()
    result = run("serve", "--model", f"x={tmp_path / 'none'}", "--port", 0, "--grpc-port", 0)
    failed(result, 4, "--model NAME=BUNDLE:CALIBRATION")
    assert "--calibration" not in result.err


def send_forty(address: str) -> tuple[list[threading.Thread], list[Any]]:
    """Forty requests on connections of their own, all sent before this returns."""
    answers: list[Any] = []
    sent = threading.Barrier(41)

    def ask(number: int) -> None:
        content = json.dumps(body(f"a cat, {number}", MEMORISED)).encode()
        with connect(address) as connection:
            connection.settimeout(60)
            head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n"
            connection.sendall(f"{head}Connection: close\r\n\r\n".encode() + content)
            sent.wait(30)
            answers.append(read_all(connection))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    sent.wait(30)
    return threads, answers


def said(made: subprocess.Popen[str]) -> tuple[str, str]:
    """All that it said, when it has ended; `communicate` would lose what was read with a line."""
    made.wait(60)
    assert made.stdout is not None
    assert made.stderr is not None
    return made.stdout.read(), made.stderr.read()


def logged(err: str) -> list[str]:
    """What was logged, each with the time at which it was."""
    lines = [
        re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\S+ INFO (.*)", each) for each in err.splitlines()
    ]
    assert all(lines), err
    return [each[1] for each in lines if each]


def test_answers_while_it_stops_close_their_connections() -> None:
    async def main() -> None:
        async with serving() as (service, _), listening(service) as address:
            async with httpx.AsyncClient(base_url=address) as client:
                asked = [client.post(INFER, json=body("a cat")), client.get("/nowhere")]
                for answer in [await each for each in asked]:
                    assert "connection" not in answer.headers
                service.models.stop()
                asked = [client.post(INFER, json=body("a cat")), client.get("/nowhere")]
                for answer in [await each for each in asked]:
                    assert answer.headers["connection"] == "close"
            with connect(address) as kept:
                kept.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await asyncio.to_thread(read_all, kept)).startswith(b"HTTP/1.1 200")

    asyncio.run(main())


@pytest.mark.parametrize("installed", [True, False])
def test_it_says_whether_drift_is_watched(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, installed: bool
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *args: None if (name == "scipy" and not installed) else found(name, *args),
    )
    with running(backend_options=_ONE_THREAD):
        pass
    told = [each for each in caplog.messages if "drift is not watched" in each]
    assert len(told) == (not installed)
    assert all("'.[calibrate]" in each for each in told)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_loses_nothing_that_was_sent(sign: signal.Signals) -> None:
    text = MEMORISED.encode()
    tensor = message((1, "prompt"), (2, "BYTES"), (3, 1), (5, message((8, text))))
    asked = message((1, "mnemoscope"), (5, tensor), (6, message((1, "memorized"))))
    with process("--linger", 2) as (made, address, rpc), grpc.insecure_channel(rpc) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        answered(address)
        assert fields(infer(asked, timeout=20))[6] == [b"\1"]
        threads, answers = send_forty(address)
        calls = [infer.future(asked, timeout=60) for _ in range(20)]
        time.sleep(0.05)  # until the last of them was accepted
        made.send_signal(sign)
        for thread in threads:
            thread.join(60)
        assert [fields(each.result())[6] for each in calls] == [[b"\1"]] * 20
        out, err = said(made)
    assert (made.returncode, out) == (0, "")
    opened, received, lingers, stopped = logged(err)
    assert opened.startswith("mnemoscope.serve.service.models: opened mnemoscope: bundle ")
    assert re.search("on onnxruntime, .* from PyTorch; calibrated on 1000 prompts for 0.01", opened)
    assert received.endswith(f": received {sign.name}")
    assert lingers.endswith(": taking requests on for 2 more seconds")
    answered_late = re.search(r": stopped; answered since: (\d+) requests?$", stopped)
    assert answered_late
    assert 0 < int(answered_late[1]) <= 60
    assert len(answers) == 40
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 200"), answer[:300]
        [found] = re.findall(rb'"name":"memorized".*?"data":(\[.*?\])', answer)
        assert found == b"[false,true]"


@pytest.mark.slow
def test_one_that_is_killed_is_noticed_and_started_again() -> None:
    """kill -9 under what systemd and Kubernetes do: start again what did not end with 0."""
    port = free_port()
    told = command("serve", "--port", port, "--no-grpc", "--threads", 1, "--noises", 1)
    ready = queue.Queue[subprocess.Popen[str]]()

    def supervise() -> None:
        ended = None
        while ended != 0:
            with subprocess.Popen(told, stderr=subprocess.PIPE, text=True) as made:
                assert made.stderr is not None
                assert made.stderr.readline().startswith("serving mnemoscope at ")
                ready.put(made)
                ended = made.wait()

    address = f"http://127.0.0.1:{port}"
    supervisor = threading.Thread(target=supervise)
    supervisor.start()
    first = last = ready.get(timeout=60)
    try:
        answered(address)
        with connect(address) as waits:
            waits.sendall(b"POST /v1/screen HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
            answered(address)
            first.kill()
            with suppress(ConnectionResetError):
                assert waits.recv(1) == b""  # who waits for an answer learns of it
        last = ready.get(timeout=60)
        answered(address)
    finally:
        last.terminate()
        supervisor.join(60)
    assert (first.returncode, last.returncode) == (-signal.SIGKILL, 0)


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once() -> None:
    with process("--timeout", 60) as (made, address, _), connect(address) as slow:  # is waited for
        slow.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n".encode())
        answered(address)
        made.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            made.wait(1)
        begun = time.monotonic()
        made.send_signal(signal.SIGTERM)
        assert made.wait(10) == -signal.SIGTERM
        assert time.monotonic() - begun < 5


@pytest.mark.slow
def test_prompts_are_said_nowhere() -> None:
    with process() as (made, address, _):
        answered(address)
        for wrong in (body(MEMORISED, ""), {"inputs": MEMORISED}, body("tokyo" * 30_000)):
            assert httpx.post(address + INFER, json=wrong).status_code == 400
        httpx.post(f"{address}/v1/screen", json={"prompt": [MEMORISED, 3]})
        httpx.get(f"{address}/{MEMORISED}")
        assert "tokyo" not in httpx.get(f"{address}/metrics").text
        made.send_signal(signal.SIGTERM)
        out, err = said(made)
    assert (made.returncode, out) == (0, "")
    assert len(logged(err)) == 4
    assert "tokyo" not in err
