"""The protocol over HTTP, asked by httpx without a port; by tritonclient in tests/interop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from service_support import BREAKS, MEMORISED, Gate, asking, fake_detector, serving

from mnemoscope import Detector, IntegrityError, embedded
from mnemoscope.serve import Limits
from mnemoscope.serve.batches import Batches
from mnemoscope.serve.service.answer import outputs as outputs_of
from mnemoscope.serve.service.asking import Service
from mnemoscope.serve.service.options import ServiceOptions, Source
from mnemoscope_runtime import Bundle

INFER = "/v2/models/mnemoscope/infer"
Work = Callable[[httpx.AsyncClient, Service], Awaitable[None]]


def run(work: Work, **settings: Any) -> None:
    async def main() -> None:
        async with serving(**settings) as (service, _), asking(service) as client:
            await work(client, service)

    asyncio.run(main())


def body(prompts: list[Any], **more: Any) -> dict[str, Any]:
    tensor = {"name": "prompt", "shape": [len(prompts)], "datatype": "BYTES", "data": prompts}
    return {"inputs": [tensor], **more}


def outputs(answer: httpx.Response) -> dict[str, list[Any]]:
    assert answer.status_code == 200, answer.text
    return {each["name"]: each["data"] for each in answer.json()["outputs"]}


def failed(answer: httpx.Response, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    for word in words:
        assert word in answer.json()["error"]


def test_verdicts_are_told_and_scores_are_not() -> None:
    async def work(client: httpx.AsyncClient, _: Service) -> None:
        prompts = ["a cat", MEMORISED, "word " * 100]
        answer = await client.post(INFER, json=body(prompts, id="7"))
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["model_name"] == "mnemoscope"
        assert answer.json()["id"] == "7"
        assert outputs(answer) == {
            "score": [None] * 3,
            "p_value": [None] * 3,
            "memorized": [False, True, True],
            "truncated": [False, False, True],
        }

    run(work)


def test_scores_are_told_where_they_may_be() -> None:
    async def work(client: httpx.AsyncClient, _: Service) -> None:
        told = {"outputs": [{"name": name} for name in ("score", "bundle", "threshold")]}
        found = outputs(await client.post(INFER, json=body(["a cat", MEMORISED]) | told))
        with fake_detector() as detector:
            expected = detector.screen(["a cat", MEMORISED])
        assert found["score"] == [each.score for each in expected]
        assert found["bundle"] == [Bundle.open(embedded.BUNDLE).id] * 2
        assert list(found) == ["score", "bundle", "threshold"]

    run(work, show_scores=True)


@pytest.mark.parametrize(
    ("prompts", "status", "words"),
    [
        (["a cat", ""], 400, "Prompt 1 (counted from 0) has no verdict. It is empty"),
        ([""], 400, "Prompt 0 (counted from 0) has no verdict"),
        (["a cat", "x" * 100_001], 400, "100,001 characters"),
        (["a cat", BREAKS, MEMORISED], 500, "(Counted from prompt 1 of the request.)"),
        (["a"] * 65, 400, "Send 1 to 64 at a time"),
    ],
)
def test_what_has_no_verdict_fails_the_request(
    caplog: pytest.LogCaptureFixture, prompts: list[str], status: int, words: str
) -> None:
    async def work(client: httpx.AsyncClient, _: Service) -> None:
        answer = await client.post(INFER, json=body(prompts))
        failed(answer, status, words)
        assert "memorized" not in answer.text
        assert ("NumericsError at " in caplog.text) == (status == 500)
        assert "break" not in caplog.text
        # and nobody else's
        assert outputs(await client.post(INFER, json=body(["a cat"])))["memorized"] == [False]

    run(work)


def test_half_an_all_clear_is_an_error_where_the_operator_says_so() -> None:
    long = ["a cat", "a " * 100]

    async def plain(client: httpx.AsyncClient, _: Service) -> None:
        assert outputs(await client.post(INFER, json=body(long)))["truncated"] == [False, True]

    async def strict(client: httpx.AsyncClient, _: Service) -> None:
        failed(
            await client.post(INFER, json=body(long)),
            400,
            "Prompt 1 (counted from 0) has no verdict",
            "shorter",
        )
        assert outputs(await client.post(INFER, json=body(["a cat"])))["memorized"] == [False]

    def opens(*_: object) -> Detector:
        return fake_detector(threshold=80)

    run(plain, opens=opens)
    run(strict, opens=opens, refuse_truncated=True)


def test_requests_that_are_none() -> None:
    async def work(client: httpx.AsyncClient, _: Service) -> None:
        for content in (b"", b"{", b"[]", b"\xff", b'{"inputs": 1}'):
            failed(await client.post(INFER, content=content), 400, "Open Inference Protocol says")
        for once, twice in (
            (b'"data"', b'"data": ["a dog"], "data"'),
            (b'"inputs"', b'"inputs": [], "inputs"'),
            (b'"inputs"', b'"parameters": {"a": 1, "a": 2}, "inputs"'),
        ):
            content = json.dumps(body(["a cat"])).encode()
            assert (await client.post(INFER, content=content)).status_code == 200
            answer = await client.post(INFER, content=content.replace(once, twice))
            failed(answer, 400, "twice")
        nan = content.replace(b'"inputs"', b'"parameters": {"a": NaN}, "inputs"')
        failed(await client.post(INFER, content=nan), 400)
        unknown = body(["a cat"], outputs=[{"name": "secret"}])
        failed(await client.post(INFER, json=unknown), 400, "no output 'secret'")
        packed = {"content-encoding": "gzip"}
        failed(await client.post(INFER, content=b"x", headers=packed), 415, "Compressed")
        failed(await client.get("/nowhere"), 404, "There is nothing at this path")
        failed(await client.get(INFER), 405, "takes POST alone", "/openapi.json")

    run(work)


def test_models_and_versions() -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        for place in ("/v2/models/a", "/v2/models/a/versions/1"):
            assert outputs(await client.post(f"{place}/infer", json=body(["a cat"])))
            for end in ("", "/ready", "/config", "/stats"):
                assert (await client.get(place + end)).status_code == 200
        for place in ("/v2/models/c", "/v2/models/a/versions/2"):
            failed(await client.post(f"{place}/infer", json=body(["a cat"])), 404, "Ask for")
            for end in ("", "/ready", "/config", "/stats"):
                failed(await client.get(place + end), 404, "Ask for")
        await service.models.unload("b")
        failed(await client.get("/v2/models/b/ready"), 503, "it was unloaded")
        failed(await client.post("/v2/models/b/infer", json=body(["a cat"])), 503, "not ready")
        assert (await client.get("/v2/health/ready")).status_code == 200

    run(work, models=(Source("a"), Source("b")), control=True)


def test_health(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with serving() as (service, _), asking(service) as client:
            for place in ("/v2/health/live", "/v2/health/ready", "/v2/models/mnemoscope/ready"):
                assert (await client.get(place)).status_code == 200
            service.models.stop()
            assert (await client.get("/v2/health/live")).status_code == 200
            assert (await client.get("/v2/health/ready")).status_code == 503
            monkeypatch.setattr(Batches, "alive", False)
            assert (await client.get("/v2/health/live")).status_code == 503
            assert (await client.get("/v2/models/mnemoscope/ready")).status_code == 503
            failed(await client.post(INFER, json=body(["a cat"])), 503, "its engine has ended")
            monkeypatch.undo()

    asyncio.run(main())


def test_what_a_client_may_read_of_a_model() -> None:
    async def work(client: httpx.AsyncClient, _: Service) -> None:
        about = (await client.get("/v2")).json()
        assert about["name"] == "mnemoscope"
        assert "binary_tensor_data" in about["extensions"]
        metadata = (await client.get("/v2/models/mnemoscope")).json()
        assert metadata["inputs"] == [{"name": "prompt", "datatype": "BYTES", "shape": [-1]}]
        assert [each["name"] for each in metadata["outputs"]] == list(outputs_of(show_scores=False))
        config = (await client.get("/v2/models/mnemoscope/config")).json()
        assert config["input"] == [{"name": "prompt", "data_type": "TYPE_STRING", "dims": [-1]}]
        kinds = {each["datatype"] for each in metadata["outputs"]}
        types = {each["data_type"] for each in config["output"]}
        assert len(kinds) == len(types) == 4
        named = body(["a cat"], outputs=[{"name": each["name"]} for each in metadata["outputs"]])
        answer = await client.post(INFER, json=named)
        told = [(each["name"], each["datatype"]) for each in answer.json()["outputs"]]
        assert told == [(each["name"], each["datatype"]) for each in metadata["outputs"]]

    run(work)


def test_statistics_count_what_was_done() -> None:
    async def work(client: httpx.AsyncClient, _: Service) -> None:
        for prompts in (["a cat"], ["a dog", MEMORISED], [""]):
            await client.post(INFER, json=body(prompts))
        for place in ("/v2/models/mnemoscope/stats", "/v2/models/stats"):
            [told] = (await client.get(place)).json()["model_stats"]
            assert (told["name"], told["version"]) == ("mnemoscope", "1")
            assert (told["inference_count"], told["execution_count"]) == (4, 3)
            stats = told["inference_stats"]
            assert (stats["success"]["count"], stats["fail"]["count"]) == (2, 1)
            assert stats["queue"]["count"] == stats["compute_infer"]["count"] == 4
            assert stats["success"]["ns"] > 0
            assert [each["batch_size"] for each in told["batch_stats"]] == [1, 2]
            for each in (stats, *told["batch_stats"]):  # or perf_analyzer refuses them
                names = ("compute_input", "compute_infer", "compute_output")
                assert len({each[name]["count"] for name in names}) == 1
            assert told["last_inference"] > 1.7e12

    run(work)


def test_loading_and_unloading() -> None:
    async def work(client: httpx.AsyncClient, service: Service) -> None:
        place = "/v2/repository/models/mnemoscope"
        index = {"name": "mnemoscope", "version": "1", "state": "READY", "reason": ""}
        assert (await client.post("/v2/repository/index")).json() == [index]
        before = service.models.get("mnemoscope").detector
        for content in (b"", b"{}", b'{"parameters": {}}'):
            assert (await client.post(f"{place}/load", content=content)).status_code == 200
        assert service.models.get("mnemoscope").detector is not before
        for override in ({"config": "{}"}, {"file:1/model.onnx": "AAAA"}):
            answer = await client.post(f"{place}/load", json={"parameters": override})
            failed(answer, 400, "as it lies there")
        failed(await client.post(f"{place}/load", content=b"x"), 400, "Send one JSON object")
        twice = b'{"parameters": {"config": "{}"}, "parameters": {}}'
        failed(await client.post(f"{place}/load", content=twice), 400, "'parameters' twice")
        failed(await client.post(f"{place}/load", json={"parameters": 1}), 400, "no JSON object")
        answer = await client.post(f"{place}/unload", json={"parameters": {"unload_dependents": 0}})
        assert answer.status_code == 200
        found = (await client.post("/v2/repository/index")).json()
        assert found == [index | {"state": "UNAVAILABLE", "reason": "it was unloaded"}]
        failed(await client.post("/v2/repository/models/x%2F../load"), 404)
        failed(await client.post("/v2/repository/models/nope/load"), 404, "no model 'nope'")

    run(work, control=True)


def test_whoever_loads_is_told_what_is_wrong() -> None:
    opened: list[str] = []

    def opens(source: Source, _: ServiceOptions) -> Detector:
        opened.append(source.name)
        if len(opened) > 1:
            raise IntegrityError("/srv/sd15/step.onnx was changed. Export the bundle again.")
        return fake_detector()

    async def main() -> None:
        async with serving(control=True, opens=opens) as (service, _), asking(service) as client:
            answer = await client.post("/v2/repository/models/mnemoscope/load")
            failed(answer, 409, "could not be loaded: /srv/sd15/step.onnx was changed. Export")
            [listed] = (await client.post("/v2/repository/index")).json()
            assert listed["state"] == "READY"
            assert listed["reason"].startswith("reloading failed: /srv/sd15")
            assert (await client.get("/v2/health/ready")).status_code == 200

    asyncio.run(main())


def test_nobody_may_load_unless_told() -> None:
    async def work(client: httpx.AsyncClient, _: Service) -> None:
        for change in ("load", "unload"):
            answer = await client.post(f"/v2/repository/models/mnemoscope/{change}")
            failed(answer, 403, "--control")
        assert (await client.get("/v2/models/mnemoscope/ready")).status_code == 200

    run(work)


def test_overload_says_when_to_come_again() -> None:
    gate = Gate()
    gate.go.set()

    async def work(client: httpx.AsyncClient, service: Service) -> None:
        gate.go.clear()
        gate.begun.clear()
        first = asyncio.create_task(client.post(INFER, json=body(["a cat"])))
        await asyncio.to_thread(gate.begun.wait, 10)
        second = asyncio.create_task(client.post(INFER, json=body(["a cat"] * 2)))
        while service.models.waiting != {"mnemoscope": 2}:
            await asyncio.sleep(0.001)
        answer = await client.post(INFER, json=body(["a cat"]))
        failed(answer, 429, "2 prompts are waiting")
        assert int(answer.headers["retry-after"]) >= 1
        gate.go.set()
        for each in (first, second):
            assert set(outputs(await each)["memorized"]) == {False}

    run(work, opens=lambda _, __: fake_detector(gate), limits=Limits(queue=2), prompts=2)


def test_time_is_limited_by_whoever_waits_less() -> None:
    gate = Gate()
    gate.go.set()

    async def work(client: httpx.AsyncClient, _: Service) -> None:
        gate.go.clear()
        asked = body(["a cat"], parameters={"timeout": 10_000})
        failed(await client.post(INFER, json=asked), 504, "within 0.01 s.", "Nothing is known")
        failed(await client.post(INFER, json=body(["a cat"])), 504, "within 0.05 s.")
        gate.go.set()

    run(work, opens=lambda _, __: fake_detector(gate), timeout=0.05)


def test_the_page_of_the_api_tells_of_every_route() -> None:
    async def work(client: httpx.AsyncClient, _: Service) -> None:
        paths = (await client.get("/openapi.json")).json()["paths"]
        assert {"/v2", "/v2/models/{name}/infer", "/v2/repository/index"} <= paths.keys()
        assert json.dumps(paths).count('"operationId"') == len(
            {m["operationId"] for each in paths.values() for m in each.values()}
        )

    run(work)
