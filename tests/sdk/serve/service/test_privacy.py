"""What a client sends is told to that client alone: not to logs, metrics or spans."""

from __future__ import annotations

import json
import logging
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from service_support import running

from mnemoscope import Detector, NumericsError
from mnemoscope.serve.service.v2.messages import SERVICE, make_messages

SECRET = "xyzzy"
FAILS = f"{SECRET} fails"
KEY = "a-key-of-sixteen-characters"
MESSAGES = make_messages()


def infer(prompt: str) -> dict[str, Any]:
    tensor = {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": [prompt]}
    return {"inputs": [tensor]}


def ask_all(http: str, rpc: str) -> None:
    """A request of every kind, good ones and bad ones, with the secret in them."""
    long, half = SECRET * 30_000, f'{{"prompt": "{SECRET} \\ud800"}}'
    prompts = [f"a {SECRET}", FAILS, long, "word " * 80 + SECRET]
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    with httpx.Client(base_url=http, headers=headers, timeout=60) as client:
        for prompt in prompts:
            client.post("/v1/screen", json={"prompt": prompt})
            client.post("/v1/explain", json={"prompt": prompt})
            client.post("/v1/guard/litellm", json={"texts": [prompt]})
            client.post("/v2/models/mnemoscope/infer", json=infer(prompt))
        for body in (half, f'{{"prompt": {SECRET}', json.dumps({SECRET: 1}), SECRET * 300_000):
            for place in ("/v1/screen", "/v1/guard/litellm", "/v2/models/mnemoscope/infer"):
                client.post(place, content=body.encode())
        client.post("/v1/screen", json={"prompt": "a cat", "model": SECRET})
        client.post(f"/v2/models/{SECRET}/infer", json=infer("a cat"))
        client.get(f"/v1/screen?prompt={SECRET}")
        client.post("/v1/screen", json={"prompt": SECRET}, headers={"authorization": SECRET})
        assert client.get("/metrics").status_code == 200
        assert SECRET not in client.get("/metrics").text
    place = urlsplit(http)
    with socket.create_connection((place.hostname or "", place.port or 0)) as raw:
        raw.sendall(f"POST {SECRET} {SECRET}\r\n\r\n".encode())
        raw.recv(1000)
    with grpc.insecure_channel(rpc) as channel:
        call = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        for prompt in prompts:
            request = MESSAGES.ModelInferRequest(model_name="mnemoscope")
            told = request.inputs.add(name="prompt", datatype="BYTES", shape=[1])
            told.contents.bytes_contents.append(prompt.encode())
            with suppress(grpc.RpcError):
                call(request.SerializeToString(), metadata=[("authorization", f"Bearer {KEY}")])


@pytest.mark.slow
def test_prompts_are_told_to_nobody_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    measured = Detector.screen

    def screen(detector: Detector, prompts: list[str], **told: Any) -> Any:
        if FAILS in prompts:
            raise NumericsError(f"{FAILS!r} is NaN")
        if any(len(each) < 100 and each.startswith("word") for each in prompts):
            raise ValueError(prompts)  # a defect of ours
        return measured(detector, prompts, **told)

    monkeypatch.setattr(Detector, "screen", screen)
    keys = tmp_path / "keys"
    keys.touch(0o600)
    keys.write_text(KEY)
    with (
        caplog.at_level(logging.DEBUG),
        caplog.at_level(logging.WARNING, "httpx"),  # the client
        caplog.at_level(logging.WARNING, "httpcore"),
        running(noises=1, keys=keys, show_scores=True) as (http, rpc),
    ):
        ask_all(http, rpc)
    spans = exporter.get_finished_spans()
    assert {each.name for each in spans} == {
        "mnemoscope.screen",
        "mnemoscope.queue",
        "mnemoscope.engine",
    }
    everything = caplog.text + "".join(capfd.readouterr())
    assert "NumericsError" in everything
    for text in (everything, "".join(each.to_json() for each in spans)):
        assert SECRET not in text
        assert KEY not in text
