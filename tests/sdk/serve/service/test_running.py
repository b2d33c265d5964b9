"""A service from its start to its end, and as a process."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cli_support import Run, command, failed
from service_support import (
    MEMORISED,
    listening,
    process,
    running,
    serving,
)
from socket_support import INFER, answered, body, connect, read_all
from wire import fields, message

from benchmarks.serving.servers import free_port
from mnemoscope import BackendError, CalibrationError, embedded
from mnemoscope.serve.service.assembling import Assembled, assemble
from mnemoscope.serve.service.options import ServiceOptions
from mnemoscope.serve.service.running import serve
from mnemoscope_runtime import BackendOptions

_ONE_THREAD = BackendOptions(threads=1)


def test_it_answers_on_both_ports() -> None:
    with running(backend_options=_ONE_THREAD) as (http, rpc):
        answered(http)
        with grpc.insecure_channel(rpc) as channel:
            ready = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
            assert ready(b"", timeout=10) == b"\x08\1"
        assert "mnemoscope_requests_total" in httpx.get(f"{http}/metrics").text
    with pytest.raises(httpx.ConnectError):
        httpx.get(http)


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
    failed(result, 4, f"--model x={tmp_path / 'none'}:OWN.json")
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
    with (
        process("--linger", 2, "--noises", 1) as (made, address, rpc),
        grpc.insecure_channel(rpc) as channel,
    ):
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
    answered_late = re.search(r": stopped; answered (\d+) requests, (\d+) of them since", stopped)
    assert answered_late
    assert 0 < int(answered_late[2]) <= 60
    assert int(answered_late[1]) > int(answered_late[2])
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
