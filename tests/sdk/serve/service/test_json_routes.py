"""JSON that is read in one way, on every route that takes it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from served import MEMORISED, Served, served

PLACES = ["/v1/screen", "/v1/explain", "/beta/litellm_basic_guardrail_api"]
BODIES = dict(
    zip(
        PLACES,
        [b'{"prompt": "a cat"}', b'{"prompt": "a cat"}', b'{"texts": ["a cat"]}'],
        strict=True,
    )
)


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    with served(show_scores=True) as found:
        yield found


def sent(service: Served, place: str, content: bytes, kind: str | None) -> httpx.Response:
    headers = {} if kind is None else {"content-type": kind}
    return service.post(place, content=content, headers=headers)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/x-www-form-urlencoded", "text/plain; charset=latin-1", None],
)
def test_it_is_json_whatever_it_is_called(service: Served, place: str, kind: str | None) -> None:
    answer = sent(service, place, BODIES[place], kind)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"prompt": "%b", "prompt": "a cat"}' % MEMORISED.encode(), "it says 'prompt' twice"),
        (b'{"texts": ["%b"], "texts": ["a cat"]}' % MEMORISED.encode(), "'texts' twice"),
        (b'{"prompt": "a cat", "texts": ["a cat"], "a": NaN}', "NaN is no number"),
        (b'{"prompt": "a cat", "texts": ["a cat"], "a": -Infinity}', "-Infinity is no number"),
        (b'{"prompt": "caf\xe9", "texts": ["caf\xe9"]}', "no UTF-8 (invalid continuation byte"),
        (b'{"prompt": "a cat"', "Send one JSON object"),
        (b'["a cat"]', "it is no object"),
        (b"[" * 20_000, "nested too deep"),
        (b"prompt=a+cat", "Send one JSON object"),
    ],
)
def test_what_says_two_things_or_none_is_refused(
    service: Served, place: str, content: bytes, words: str
) -> None:
    answer = sent(service, place, content, "application/json")
    assert answer.status_code == 400
    assert words in answer.json()["error"]


@pytest.mark.parametrize("path", ["/", "/health", "/docs", "/v1"])
def test_a_path_that_leads_nowhere_is_told_of_those_that_lead_somewhere(
    service: Served, path: str
) -> None:
    answer = service.get(path)
    assert answer.status_code == 404
    told = re.findall(r"(?<= )/[\w/.]+", answer.json()["error"].replace("NAME", "mnemoscope"))
    assert len(told) == 5
    for place in told:
        assert service.get(place).status_code in (200, 405), place


def test_a_method_that_a_path_does_not_take_is_told_of_the_one_that_it_does(
    service: Served,
) -> None:
    answer = service.get("/v1/screen")
    assert answer.status_code == 405
    assert answer.json()["error"].startswith("This path takes POST alone.")


def test_what_is_missing_is_told_with_where_to_look(service: Served) -> None:
    answer = service.post("/v1/screen", {"prompt": 1})
    assert answer.status_code == 400
    assert "/openapi.json" in answer.json()["error"]
    assert service.post("/v1/screen").status_code == 400
