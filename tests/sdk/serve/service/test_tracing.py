"""Spans, as OpenTelemetry's SDK exports them."""

from __future__ import annotations

from collections.abc import Iterator

import grpc.aio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from served import MEMORISED, Served, served

from mnemoscope.serve.service.v2.messages import SERVICE, make_messages
from mnemoscope.serve.service.v2.serving import start_grpc

MESSAGES = make_messages()
INFER = MESSAGES.ModelInferRequest(
    model_name="mnemoscope",
    inputs=[
        {
            "name": "prompt",
            "datatype": "BYTES",
            "shape": [1],
            "contents": {"bytes_contents": [b"a cat"]},
        }
    ],
).SerializeToString()
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return exporter


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    with served() as found:
        yield found


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [each for each in spans.get_finished_spans() if each.name == f"mnemoscope.{name}"]


def at(span: ReadableSpan) -> tuple[int, int]:
    """When it began and ended, in nanoseconds."""
    return span.start_time or 0, span.end_time or 0


def test_a_request_its_queue_and_its_engine(service: Served, spans: InMemorySpanExporter) -> None:
    service.post(
        "/v1/screen",
        {"prompts": [MEMORISED, "a cat"]},
        headers={"traceparent": f"00-{TRACE}-{PARENT}-01"},
    )
    [request] = named(spans, "screen")
    assert request.parent is not None
    assert (f"{request.context.trace_id:032x}", f"{request.parent.span_id:016x}") == (TRACE, PARENT)
    queues, engines = named(spans, "queue"), named(spans, "engine")
    assert (len(queues), len(engines)) == (2, 2)
    for queue, engine in zip(queues, engines, strict=True):
        assert queue.parent is not None
        assert engine.parent is not None
        assert queue.parent.span_id == engine.parent.span_id == request.context.span_id
        # clocks of two kinds: the wall's, and the one that measures
        assert at(request)[0] - 2_000_000 <= at(queue)[0] < at(queue)[1]
        assert at(queue)[1] == at(engine)[0] <= at(engine)[1] <= at(request)[1]


def test_requests_of_one_batch_keep_their_traces(
    service: Served, spans: InMemorySpanExporter
) -> None:
    for trace_id in ("a" * 32, "b" * 32):
        service.post(
            "/v1/screen", {"prompt": "a cat"}, headers={"traceparent": f"00-{trace_id}-{PARENT}-01"}
        )
    found = {f"{each.context.trace_id:032x}" for each in named(spans, "engine")}
    assert found == {"a" * 32, "b" * 32}


def test_grpc_goes_on_with_a_trace_as_well(service: Served, spans: InMemorySpanExporter) -> None:
    async def main() -> None:
        server, port = await start_grpc(service.whole.service, "127.0.0.1", 0)
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                told = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
                await channel.unary_unary(f"/{SERVICE}/ModelInfer")(INFER, metadata=told)
        finally:
            await server.stop(None)

    service.run(main())
    [request] = named(spans, "screen")
    assert f"{request.context.trace_id:032x}" == TRACE
    assert request.attributes is not None
    assert request.attributes["mnemoscope.protocol"] == "grpc"


def test_no_span_tells_prompts_or_scores(service: Served, spans: InMemorySpanExporter) -> None:
    service.post("/v1/screen", {"prompts": [MEMORISED, "\u732b", ""]})
    service.post("/v1/screen", {"prompt": MEMORISED, "model": MEMORISED})
    service.post("/v1/guard/litellm", {"texts": [MEMORISED]})
    told = {
        (key, value)
        for each in spans.get_finished_spans()
        for key, value in (each.attributes or {}).items()
    }
    assert {key for key, _ in told} == {
        "mnemoscope.protocol",
        "mnemoscope.model",
        "mnemoscope.prompts",
        "mnemoscope.batch",
        "error.type",
    }
    assert not [value for _, value in told if isinstance(value, float)]
    everything = "".join(each.to_json() for each in spans.get_finished_spans())
    assert "tokyo" not in everything
    assert not [each for each in spans.get_finished_spans() if each.events]


def test_an_error_is_named(service: Served, spans: InMemorySpanExporter) -> None:
    service.post("/v1/screen", {"prompt": "a cat", "model": "nosuch"})
    [request] = named(spans, "screen")
    assert request.attributes is not None
    assert request.attributes["error.type"] == "UnknownModel"
    assert request.attributes["mnemoscope.model"] == ""
    assert not request.status.is_ok
