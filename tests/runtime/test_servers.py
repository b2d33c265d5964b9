"""Real prefork servers: gunicorn forks its workers, uvicorn spawns them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from documented import code

SERVICE = """
import json, os
from contextlib import asynccontextmanager
from functools import cache
from urllib.parse import unquote
from mnemoscope import BackendError, Detector

def load():
    return Detector.load(backend=os.environ["BACKEND"], threads=int(os.environ["THREADS"]))

early = load() if "EARLY" in os.environ else None

@cache
def detector():
    return early or load()

def answer(prompt):
    try:
        [found] = detector().screen([prompt], noises=1)
    except BackendError as error:
        return json.dumps({"error": str(error)}).encode()
    return json.dumps({"memorized": found.memorized, "pid": os.getpid()}).encode()

def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [answer(unquote(environ["QUERY_STRING"]))]

opened = {}

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        with load() as opened["detector"]:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    [found] = opened["detector"].screen([unquote(scope["query_string"].decode())], noises=1)
    body = json.dumps({"memorized": found.memorized, "pid": os.getpid()}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""
TOWER = "google icon of tokyo tower, on rings, in zagreb 2020"


@contextmanager
def serving(folder: Path, command: list[str], **environment: str) -> Iterator[Path]:
    """A server on a socket; stopped as a supervisor does, and it has to be gone soon."""
    (folder / "service.py").write_text(SERVICE)
    place = folder / "socket"
    kept = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=folder, env={**kept, **environment},
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        end = time.monotonic() + 120
        while not _listens(place):
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.1)
        yield place
        server.send_signal(signal.SIGTERM)
        server.wait(20)  # both give a worker that hangs 30 seconds before they kill it
        assert "SIGKILL" not in (folder / "log").read_text()
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _listens(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as found:
        return found.connect_ex(str(place)) == 0


def ask(place: Path, prompt: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(60)
    connection.sock.connect(str(place))
    connection.request("GET", f"/?{quote(prompt)}")
    found: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return found


def gunicorn(folder: Path, *options: str) -> list[str]:
    return ["gunicorn", "-w", "2", "-b", f"unix:{folder / 'socket'}", *options, "service:wsgi"]


def uvicorn(folder: Path) -> list[str]:
    return ["uvicorn", "--workers", "2", "--uds", str(folder / "socket"), "service:asgi"]


@pytest.mark.parametrize(
    ("preload", "backend"),
    [(True, "onnxruntime"), (True, "openvino"), (False, "onnxruntime")],  # not yet loaded: any
)
@pytest.mark.slow
def test_workers_of_gunicorn_open_their_own(tmp_path: Path, backend: str, preload: bool) -> None:
    command = gunicorn(tmp_path, *(["--preload"] if preload else []))
    with serving(tmp_path, command, BACKEND=backend, THREADS="4") as place:
        assert ask(place, TOWER)["memorized"] is True
        assert ask(place, "a cat")["memorized"] is False


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.slow
def test_what_was_opened_before_the_fork_says_so(tmp_path: Path, backend: str) -> None:
    command = gunicorn(tmp_path, "--preload")
    with serving(tmp_path, command, BACKEND=backend, THREADS="4", EARLY="1") as place:
        for _ in range(2):
            assert "Open it after the fork, in every worker" in ask(place, TOWER)["error"]


@pytest.mark.slow
def test_workers_of_uvicorn_open_their_own_and_one_that_is_killed_is_replaced(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, uvicorn(tmp_path), BACKEND="onnxruntime", THREADS="1") as place:
        seen = {ask(place, "a cat")["pid"]}
        end = time.monotonic() + 60
        while len(seen) < 2:
            found = ask(place, "a cat")
            assert found["memorized"] is False
            seen.add(found["pid"])
            assert time.monotonic() < end
        killed = seen.pop()
        os.kill(killed, signal.SIGKILL)
        seen.add(killed)
        while len(seen) < 3:  # the other answers meanwhile
            found = ask(place, TOWER)
            assert found["memorized"] is True
            seen.add(found["pid"])
            assert time.monotonic() < end


def test_the_printed_recipe_reads_queries_as_browsers_write_them() -> None:
    service: dict[str, Any] = {}
    exec(code("backends.md", "def app(").replace('"my-bundle", ', ""), service)

    def status(query: str) -> str:
        told: list[str] = []
        service["app"]({"QUERY_STRING": query}, lambda line, _: told.append(line))
        return told[0][:3]

    try:
        for query in (f"prompt={quote(TOWER)}", f"x=1&prompt={quote_plus(TOWER)}"):
            assert status(query) == "403"
        assert status(f"prompt=a+cat&prompt={quote(TOWER)}") == "403"
        assert status("prompt=a+cat") == status("prompt=a%20cat") == "200"
        for empty in ("", "prompt=", "prompt=+", "a%20cat"):
            assert status(empty) == "403"
    finally:
        service["detector"]().close()
