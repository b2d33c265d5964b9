"""A real Caddy in front of a service, with the file of deploy/caddy.

It is in the environment of tritonclient (`make .venv/clients/installed`), or on the path.
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import httpx
import pytest
from repository import ROOT
from service_support import MEMORISED, running
from triton_server import CLIENTS
from wire import fields, message

from benchmarks.serving.servers import free_port, started

FILE = ROOT / "deploy" / "caddy" / "Caddyfile"
CADDY = shutil.which("caddy") or shutil.which(CLIENTS.with_name("caddy"))
INFER = "/v2/models/mnemoscope/infer"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CADDY is None, reason="there is no Caddy: make .venv/clients/installed"),
]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Where it is, and the file of the authority that made its certificate."""
    folder, port, plain = tmp_path_factory.mktemp("caddy"), free_port(), free_port()
    with running(noises=1) as (http, rpc), (folder / "log").open("wb") as log:
        told = {
            **{"SITE": f"https://localhost:{port}", "HTTP_PORT": str(plain), "GRPC": rpc},
            **{"HTTP": http.removeprefix("http://"), "XDG_DATA_HOME": str(folder)},
        }
        command: list[object] = [CADDY, "run", "--config", FILE]
        with started(command, env={**os.environ, **told}, stdout=log, stderr=log) as made:
            root = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
            place = f"localhost:{port}"
            until_it_answers(place, root, made)
            yield place, root


def until_it_answers(place: str, root: Path, made: subprocess.Popen[bytes]) -> None:
    """It listens before it has a certificate."""
    end = time.monotonic() + 60
    while made.poll() is None and time.monotonic() < end:
        with suppress(OSError, httpx.TransportError):
            trusted = ssl.create_default_context(cafile=str(root))
            httpx.get(f"https://{place}", verify=trusted)
            return
        time.sleep(0.05)
    raise AssertionError("Caddy does not answer.")


@pytest.fixture
def client(proxy: tuple[str, Path]) -> Iterator[httpx.Client]:
    place, root = proxy
    trusted = ssl.create_default_context(cafile=str(root))
    with httpx.Client(base_url=f"https://{place}", verify=trusted) as found:
        yield found


def test_verdicts_come_through_it(client: httpx.Client, proxy: tuple[str, Path]) -> None:
    answer = client.post("/v1/screen", json={"prompts": [MEMORISED, "a cat"]})
    assert [each["memorized"] for each in answer.json()["results"]] == [True, False]
    place, root = proxy
    tensor = message((1, "prompt"), (2, "BYTES"), (3, 1), (5, message((8, MEMORISED))))
    asked = message((1, "mnemoscope"), (5, tensor), (6, message((1, "memorized"))))
    with grpc.secure_channel(place, grpc.ssl_channel_credentials(root.read_bytes())) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        assert fields(infer(asked, timeout=20))[6] == [b"\1"]


def test_it_keeps_limits(client: httpx.Client) -> None:
    assert client.get("/v2/health/ready").status_code == 200
    assert client.get("/metrics").status_code == 404
    assert client.get("/v2", headers={"x": "y" * 65_536}).status_code == 431
    # of two that refuse it the service may be first, and close before all of it was passed on
    assert client.post(INFER, content=b"x" * (2**20 + 1)).status_code in (413, 502)
