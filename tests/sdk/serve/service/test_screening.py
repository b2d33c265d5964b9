"""/v1/screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from served import MEMORISED, Served, served

from mnemoscope import Detector, NumericsError, Overloaded
from mnemoscope.serve.service.options import Source


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    with served(prompts=4) as found:
        yield found


def results(service: Served, body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = service.post("/v1/screen", body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == "mnemoscope"
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


def test_verdicts_come_in_order_and_without_scores(service: Served) -> None:
    found = results(service, {"prompts": [MEMORISED, "a cat"]})
    assert [each["memorized"] for each in found] == [True, False]
    assert [each["scores"] for each in found] == [None, None]
    assert results(service, {"prompt": MEMORISED}) == found[:1]


def test_what_has_no_verdict_is_null_and_says_why(service: Served) -> None:
    good, empty, long, odd = results(
        service, {"prompts": ["a cat", "", "a" * 100_001, "word " * 100]}
    )
    assert good == {
        "memorized": False,
        "why": None,
        "truncated": False,
        "notes": [],
        "scores": None,
    }
    assert (empty["memorized"], long["memorized"]) == (None, None)
    assert "It is empty" in empty["why"]
    assert "100,001" in long["why"]
    assert "prompt 2 of the request" in long["why"]
    assert odd["truncated"]
    assert "Only its first 75 tokens" in odd["notes"][0]


def test_half_an_all_clear_is_none_where_the_operator_says_so(service: Served) -> None:
    prompts = ["word " * 100 + MEMORISED, ", ".join([MEMORISED] * 6), "a cat"]
    plain = results(service, {"prompts": prompts})
    with served(refuse_truncated=True) as other:
        strict = results(other, {"prompts": prompts})
    shown = [(each["memorized"], each["truncated"]) for each in plain]
    assert shown[0] == (False, True)
    assert strict[0]["memorized"] is None
    assert strict[0]["truncated"]
    assert "no all-clear: send a shorter prompt" in strict[0]["why"]
    assert strict[1:] == plain[1:]
    assert shown[1:] == [(True, True), (False, False)]


def test_half_a_character_fails_alone(service: Served) -> None:
    answer = service.post(
        "/v1/screen",
        content=b'{"prompts": ["\\ud800", "a cat"]}',
        headers={"content-type": "application/json"},
    )
    assert [each["memorized"] for each in answer.json()["results"]] == [None, False]


def test_scores_are_shown_where_the_operator_says_so() -> None:
    with served(show_scores=True) as service, Detector.load(threads=1) as plain:
        [found] = results(service, {"prompt": MEMORISED})
        [expected] = plain.screen([MEMORISED], noises=1)
    assert found["scores"] == {
        "score": pytest.approx(expected.score, rel=1e-5),
        "p_value": expected.p_value,
        "threshold": expected.threshold,
    }


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "either prompt or prompts"),
        ({"prompt": "a", "prompts": ["b"]}, 400, "either prompt or prompts"),
        ({"prompt": 1}, 400, "prompt"),
        ({"prompt": "a", "steps": 50}, 400, "steps"),
        ({"prompts": []}, 400, "0 prompts"),
        ({"prompts": ["a"] * 5}, 400, "5 prompts"),
        ({"prompt": "a", "model": "other"}, 404, "no model 'other'"),
    ],
)
def test_errors_say_what_to_do(
    service: Served, body: dict[str, Any], status: int, words: str
) -> None:
    answer = service.post("/v1/screen", body)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert words in answer.json()["error"]


def test_several_models_are_asked_by_name() -> None:
    with served(models=(Source("one"), Source("two"))) as service:
        answer = service.post("/v1/screen", {"prompt": MEMORISED})
        assert answer.status_code == 400
        assert "one, two" in answer.json()["error"]
        answer = service.post("/v1/screen", {"prompt": MEMORISED, "model": "two"})
        assert answer.json()["model"] == "two"
        assert answer.json()["results"][0]["memorized"] is True


def test_a_full_queue_says_when_to_come_again(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise Overloaded(256, 2.3)

    monkeypatch.setattr(service.whole.models.get("mnemoscope"), "submit_all", full)
    answer = service.post("/v1/screen", {"prompts": ["a cat", "a dog"]})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert "256 prompts are waiting" in answer.json()["error"]


def test_a_defect_of_the_engine_is_not_the_callers(
    service: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise NumericsError("/secret/place: 'a cat' is NaN")

    monkeypatch.setattr(service.whole.models.get("mnemoscope").detector, "screen", fail)
    [found] = results(service, {"prompt": "a cat"})
    assert found["memorized"] is None
    assert "Nothing is known" in found["why"]
    assert "NumericsError" in caplog.text
    assert "secret" not in caplog.text + found["why"]


def test_openapi_has_examples_that_are_answered(service: Served) -> None:
    schema = service.get("/openapi.json").json()
    body = schema["paths"]["/v1/screen"]["post"]["requestBody"]["content"]["application/json"]
    for example in body["examples"].values():
        assert service.post("/v1/screen", example["value"]).status_code == 200
