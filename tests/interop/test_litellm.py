"""A LiteLLM proxy that asks the guardrail, and OpenAI's own client in front of it.

Both are in an environment of their own (`make .venv/litellm/installed`).
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import yaml
from repository import ROOT
from service_support import MEMORISED, running

from benchmarks.serving.servers import free_port, started, wait_for
from mnemoscope import embedded
from mnemoscope.serve.middleware import ScreenPrompts

HERE = Path(__file__).parent
PYTHON = Path(os.environ.get("LITELLM_PYTHON", ROOT / ".venv" / "litellm" / "bin" / "python"))
KEY, MASTER = "a-key-of-the-service", "sk-a-key-of-the-proxy-3f8b1c"
MASTER_THERE = "sk-a-key-of-your-own"
PROMPTS = [MEMORISED, "a cat", "", "word " * 100]

pytestmark = [
    pytest.mark.slow(first=True),
    pytest.mark.skipif(
        not PYTHON.exists() and "LITELLM_PYTHON" not in os.environ,
        reason="LiteLLM has an environment of its own: make .venv/litellm/installed",
    ),
]


class Pictures(ThreadingHTTPServer):
    """Draws the same for every prompt, and remembers which reached it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Draw)
        self.drawn: list[str] = []


class _Draw(BaseHTTPRequestHandler):
    server: Pictures

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        drawn = json.loads(body)["prompt"] if self.path.endswith("/generations") else self.path
        self.server.drawn.append(drawn)
        answer = json.dumps({"created": 1, "data": [{"b64_json": "UE5H"}]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def pictures() -> Iterator[Pictures]:
    with Pictures() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def example(pictures: str, guard: str) -> Any:
    """The proxy of examples/litellm.yaml, between these two."""
    text = (ROOT / "examples" / "litellm.yaml").read_text("utf-8")
    places = {"http://127.0.0.1:9000": pictures, "http://127.0.0.1:8000": guard}
    for written, meant in {**places, "Bearer KEY": f"Bearer {KEY}", MASTER_THERE: MASTER}.items():
        assert text.count(written) == 1, written
        text = text.replace(written, meant)
    return yaml.safe_load(text)


@contextmanager
def proxy(folder: Path, pictures: Pictures, guard: str) -> Iterator[str]:
    """LiteLLM's, as its users start it; where it is."""
    config = example(f"http://127.0.0.1:{pictures.server_port}", guard)
    (folder / "config.yaml").write_text(json.dumps(config))  # which is YAML
    port = free_port()
    command = [PYTHON.with_name("litellm"), "--config", folder / "config.yaml"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
    base = f"http://127.0.0.1:{port}"
    with (
        (folder / "log").open("wb") as log,
        started(command, env={**os.environ, **quiet}, cwd=folder, stdout=log, stderr=log) as made,
    ):
        wait_for(f"{base}/health/liveliness", made, seconds=120)
        yield base


@contextmanager
def client(base: str) -> Iterator[Callable[[str | list[str]], dict[str, Any]]]:
    """What OpenAI's makes of the answer to a prompt; a process of its own."""
    command = [PYTHON, HERE / "in_litellm.py", f"{base}/v1", MASTER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as made:
        assert made.stdin is not None
        assert made.stdout is not None
        assert made.stderr is not None

        def ask(prompt: str | list[str]) -> dict[str, Any]:
            print(json.dumps(prompt), file=made.stdin, flush=True)
            line = made.stdout.readline()
            assert line, made.stderr.read()
            return json.loads(line)

        yield ask


def test_the_page_has_the_guardrail_of_the_example() -> None:
    page = (ROOT / "docs" / "serving.md").read_text("utf-8")
    [text] = re.findall(r"```yaml\n(guardrails:.*?)```", page, re.DOTALL)
    told = yaml.safe_load((ROOT / "examples" / "litellm.yaml").read_text("utf-8"))
    assert yaml.safe_load(text)["guardrails"] == told["guardrails"]


def test_a_proxy_draws_nothing_that_is_memorised(tmp_path: Path, pictures: Pictures) -> None:
    keys = tmp_path / "keys"
    keys.touch(0o600)
    keys.write_text(KEY)
    guarded = ExitStack()
    guard, _ = guarded.enter_context(running(noises=1, keys=keys))
    with guarded, proxy(tmp_path, pictures, guard) as base, client(base) as ask:
        memorised, clean, empty, long, edited = map(ask, [*PROMPTS, ["a cat"]])
        guarded.close()
        unguarded = ask("a cat")
    assert memorised["status"] == 400
    assert "reproduce a picture that it was trained on" in memorised["message"]
    assert (clean["status"], clean["picture"]) == (200, "UE5H")
    assert (empty["status"], long["status"]) == (400, 400)
    assert "Only its first 75 tokens" in long["message"]
    assert edited["status"] == 400
    assert "in JSON: /images/generations" in edited["message"]
    assert unguarded["status"] >= 400
    assert pictures.drawn == ["a cat"]  # once


def test_the_middleware_speaks_openais_errors() -> None:
    async def draw(_: Any, receive: Any, send: Any) -> None:
        assert (await receive())["body"]
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        body = b'{"created": 1, "data": [{"b64_json": "UE5H"}]}'
        await send({"type": "http.response.body", "body": body})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await draw(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    listener = socket.create_server(("127.0.0.1", 0))
    screened = ScreenPrompts(app, bundle=embedded.BUNDLE, noises=1, threads=1)
    server = uvicorn.Server(uvicorn.Config(screened, lifespan="on", log_config=None))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with client(base) as ask:
            memorised, clean, empty, long = map(ask, PROMPTS)
    finally:
        server.should_exit = True
        thread.join()
    assert (memorised["status"], memorised["kind"]) == (400, "BadRequestError")
    assert (memorised["code"], memorised["param"]) == ("memorized_prompt", "prompt")
    assert (clean["status"], clean["picture"]) == (200, "UE5H")
    assert [each["code"] for each in (empty, long)] == ["unmeasured_prompt"] * 2
