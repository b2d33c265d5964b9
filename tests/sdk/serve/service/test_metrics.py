"""/metrics, as Prometheus' own parser reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from documented import named_in_table
from prometheus_client.parser import text_string_to_metric_families
from served import MEMORISED, Served, served

from mnemoscope import CalibrationError, LoadFailed, Overloaded, embedded
from mnemoscope.calibration import CalibrationFile
from mnemoscope.serve.service.metrics import outcome

KEY = "0123456789abcdef"
Sample = tuple[str, frozenset[tuple[str, str]]]


@pytest.fixture
def service() -> Iterator[Served]:
    with served() as found:
        yield found


def scraped(service: Served, **told: Any) -> dict[Sample, float]:
    answer = service.ask("GET", "/metrics", **told)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (each.name.removeprefix("mnemoscope_"), frozenset(each.labels.items())): each.value
        for family in text_string_to_metric_families(answer.text)
        for each in family.samples
    }


def value(found: dict[Sample, float], name: str, **labels: str) -> float:
    """The sum of all samples that have these labels."""
    return sum(v for (n, has), v in found.items() if n == name and has >= set(labels.items()))


def test_keys_are_counted_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.touch(0o600)
    path.write_text(f"{KEY}x\nstudio:{KEY}")
    shown = {"headers": {"authorization": f"Bearer {KEY}"}}
    with served(keys=path) as service:
        for place, told in (("/v2", shown), ("/v2", {}), ("/v2/health/live", {})):
            service.ask("GET", place, **told)
        other = {"headers": {"authorization": f"Bearer {KEY}x"}}
        found = scraped(service, **other)
    counted = {(labels, n) for (name, labels), n in found.items() if name == "keys_total"}
    assert {(*sorted(dict(labels).values()), n) for labels, n in counted} == {
        ("accepted", "http", "studio", 1),
        ("", "accepted", "http", 1),
        ("", "http", "refused", 1),
    }


def test_requests_and_prompts_are_counted(service: Served) -> None:
    service.post("/v1/screen", {"prompts": [MEMORISED, "a cat", "", "a" * 100_001]})
    service.post("/v1/screen", {"prompt": "a cat"})
    service.post("/v1/guard/litellm", {"texts": ["a cat"]})
    service.post("/v1/screen", {"prompt": "a cat", "model": "../../etc"})
    found = scraped(service)
    assert value(found, "requests_total", protocol="v1", outcome="answered") == 1
    assert value(found, "requests_total", protocol="v1", outcome="refused") == 2
    assert value(found, "requests_total", protocol="litellm", outcome="answered") == 1
    assert value(found, "prompts_screened_total", model="mnemoscope") == 5
    assert value(found, "prompts_flagged_total", model="mnemoscope") == 1
    assert value(found, "prompts_refused_total", model="mnemoscope") == 2
    assert value(found, "errors_total", type="NoVerdict") == 1
    assert value(found, "errors_total", type="InputError", model="mnemoscope") == 1
    assert value(found, "errors_total", type="UnknownModel", model="") == 1
    assert value(found, "queue_seconds_count", model="mnemoscope") == 5
    assert value(found, "engine_seconds_count", model="mnemoscope") <= 5
    assert value(found, "request_seconds_count", protocol="v1") == 3
    assert 0 < value(found, "request_seconds_sum", model="mnemoscope", protocol="v1") < 60


def test_answers_are_counted_that_never_came_so_far(service: Served) -> None:
    service.post("/v1/screen", {})
    service.post("/v1/screen", {"prompt": "a cat"})
    service.post("/v2/models/a-secret-name/infer", {})
    service.get("/v2/health/live")
    service.get("/a-secret-place")
    found = scraped(service)
    assert value(found, "http_answers_total", route="/v1/screen", code="400") == 1
    assert value(found, "http_answers_total", route="/v1/screen", code="200") == 1
    assert value(found, "http_answers_total", route="/v2/health/live", code="200") == 1
    assert value(found, "http_answers_total", route="/v2/models/{name}/infer") == 1
    assert value(found, "http_answers_total", route="", code="404") == 1
    assert "a-secret" not in service.get("/metrics").text


def test_loads_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Any:
        raise CalibrationError("It has none.")

    with served(control=True) as service:
        models = service.whole.models
        service.run(models.load("mnemoscope"))
        found = scraped(service)
        assert value(found, "loads_total", model="mnemoscope", outcome="loaded") == 2
        assert ("loads_total", frozenset({("model", "mnemoscope"), ("outcome", "failed")})) in found
        monkeypatch.setattr(models, "_opens", fail)
        with pytest.raises(LoadFailed):
            service.run(models.load("mnemoscope"))
        assert value(scraped(service), "model_ready", model="mnemoscope") == 1
        service.run(models.unload("mnemoscope"))
        with pytest.raises(LoadFailed):
            service.run(models.load("mnemoscope"))
        found = scraped(service)
        assert value(found, "loads_total", model="mnemoscope", outcome="failed") == 2
        assert value(found, "loads_total", model="mnemoscope", outcome="unloaded") == 1
        assert not [name for name, _ in found if name == "model_ready"]  # nobody is to be woken


def test_the_page_names_them_all(service: Served) -> None:
    service.post("/v1/screen", {"prompts": [MEMORISED, ""]})
    families = text_string_to_metric_families(service.get("/metrics").text)
    told = {
        f"{each.name}_total" if each.type == "counter" else each.name
        for each in families
        if each.name.startswith("mnemoscope_") and not each.name.endswith("_created")
    }
    named = {each for each in named_in_table("serving.md") if each.startswith("mnemoscope_")}
    assert told == named


def test_histograms_tell_half_a_millisecond(service: Served) -> None:
    found = scraped(service)
    service.post("/v1/screen", {"prompt": "a cat"})
    found = scraped(service)
    for name in ("queue", "engine", "request"):
        edges = {
            float(dict(has)["le"]) for (n, has), _ in found.items() if n == f"{name}_seconds_bucket"
        }
        assert min(edges) == 0.0005


def test_no_label_is_the_callers(service: Served) -> None:
    for k in range(20):
        service.post("/v1/screen", {"prompt": f"a secret cat {k}", "model": f"nosuch{k}"})
        service.post("/v1/screen", {"prompt": f"a secret cat {k}"})
        service.post(
            f"/v1/guard/litellm/nosuch{k}/beta/litellm_basic_guardrail_api", {"texts": ["a"]}
        )
    text = service.get("/metrics").text
    assert "secret" not in text
    assert "nosuch" not in text


def test_it_tells_what_measures(service: Served) -> None:
    found = scraped(service)
    detector = service.whole.models.get("mnemoscope").detector
    assert value(found, "bundle_info", bundle=detector.bundle_id, backend="onnxruntime") == 1
    assert value(found, "bundle_info", detector="magnitude", steps="1", noises="1") == 1
    assert value(found, "calibration_info", fpr="0.01", prompts="1000") == 1
    assert value(found, "model_ready", model="mnemoscope") == 1
    assert value(found, "build_info") == 1
    assert ("queue_length", frozenset({("model", "mnemoscope")})) in found
    assert value(found, "queue_length") == 0
    service.run(service.whole.models.close(5))
    found = scraped(service)
    assert value(found, "model_ready", model="mnemoscope") == 0
    assert not [name for name, _ in found if name in ("bundle_info", "calibration_info")]


def test_the_queue_has_a_length(service: Served) -> None:
    detector = service.whole.models.get("mnemoscope")

    async def main() -> float:
        held, go = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def hold() -> None:
            loop.call_soon_threadsafe(held.set)
            asyncio.run_coroutine_threadsafe(go.wait(), loop).result(10)

        holding = asyncio.ensure_future(detector._call(hold))
        await held.wait()
        asked = [asyncio.wrap_future(detector.submit(each, noises=1)) for each in "abc"]
        found = list(service.whole.models.waiting.values())
        go.set()
        await asyncio.gather(holding, *asked)
        return sum(found)

    assert service.run(main()) == 3


def test_drift_is_told_of_what_scores_higher(service: Served) -> None:
    assert not [name for name, _ in scraped(service) if name == "drift_p_value"]
    benign = [each.prompt for each in embedded.read_prompts("held_out")[:30]]
    service.post("/v1/screen", {"prompts": benign})
    found = scraped(service)
    assert value(found, "drift_prompts", model="mnemoscope") == 30
    assert value(found, "drift_p_value", model="mnemoscope") > 0.001
    memorised = [each.prompt for each in embedded.read_prompts("memorized")[:60]]
    service.post("/v1/screen", {"prompts": [*memorised, "", ""]})  # empty ones have no score
    assert value(scraped(service), "drift_prompts", model="mnemoscope") == 90
    assert value(scraped(service), "drift_p_value", model="mnemoscope") < 1e-6


def test_another_calibration_starts_anew(service: Served) -> None:
    service.post("/v1/screen", {"prompts": [f"cat {k}" for k in range(25)]})
    assert value(scraped(service), "drift_prompts") == 25
    again = CalibrationFile.read(embedded.BUNDLE / "calibration.json")
    service.run(service.whole.models.get("mnemoscope").recalibrate(again))
    service.post("/v1/screen", {"prompts": [f"dog {k}" for k in range(21)]})
    assert value(scraped(service), "drift_prompts") == 21


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ((), "answered"),
        (("InputError", "NoVerdict"), "refused"),
        (("Overloaded",), "refused"),
        (("InputError", "NumericsError"), "failed"),
        (("SomethingNew",), "failed"),
        (("CancelledError",), "abandoned"),
    ],
)
def test_outcomes(errors: tuple[str, ...], expected: str) -> None:
    assert outcome(errors) == expected


def test_overload_is_a_refusal(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> Any:
        raise Overloaded(256, 2.3)

    monkeypatch.setattr(service.whole.models.get("mnemoscope"), "submit_all", full)
    service.post("/v1/screen", {"prompts": ["a cat", "a dog"]})
    found = scraped(service)
    assert value(found, "requests_total", outcome="refused") == 1
    assert value(found, "errors_total", type="Overloaded") == 1
    assert value(found, "prompts_refused_total") == 2
