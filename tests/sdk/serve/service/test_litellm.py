"""The guardrail as LiteLLM asks for it; a real proxy is in tests/interop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from served import MEMORISED, Served, served

from mnemoscope.serve.service.options import Source

PLACE = "/beta/litellm_basic_guardrail_api"


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    with served() as found:
        yield found


def asked(service: Served, body: dict[str, Any], place: str = PLACE) -> tuple[str, str]:
    answer = service.post(place, body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert set(found) == {"action", "blocked_reason"}
    return found["action"], found["blocked_reason"] or ""


@pytest.mark.parametrize("base", ["", "/v1/guard/litellm", "/v1/guard/litellm/mnemoscope"])
def test_memorised_prompts_are_blocked(service: Served, base: str) -> None:
    action, reason = asked(service, {"texts": ["a cat", MEMORISED]}, base + PLACE)
    assert action == "BLOCKED"
    assert "trained on" in reason
    assert MEMORISED not in reason
    assert asked(service, {"texts": ["a cat"]}, base + PLACE) == ("NONE", "")


def test_what_else_litellm_sends_is_not_read(service: Served) -> None:
    body = {
        "texts": ["a cat"],
        "input_type": "request",
        "images": None,
        "request_headers": {"content-type": "application/json; charset=utf-8", "cookie": "..."},
        "request_data": {"user_api_key_hash": "..."},
        "litellm_version": "1.0",
        "additional_provider_specific_params": {"model": "other"},
    }
    assert asked(service, body) == ("NONE", "")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"texts": [""]}, "It is empty"),
        ({"texts": ["word " * 100]}, "Only its first 75 tokens"),
        ({"texts": ["a" * 100_001]}, "100,001"),
        ({"texts": []}, "no prompt"),
        ({}, "no prompt"),
        ({"texts": ["a cat"], "input_type": "response"}, "mode: pre_call"),
        ({"texts": ["a cat"], "images": ["data:image/png;base64,"]}, "begins with a picture"),
        *(
            ({"texts": ["a cat"], "request_headers": {name: kind}}, "/images/generations")
            for name, kind in (
                ("content-type", "multipart/form-data; boundary=7d"),
                ("Content-Type", "Multipart/Form-Data"),
                ("content-type", "application/x-www-form-urlencoded"),
                ("content-type", ""),
            )
        ),
    ],
)
def test_what_nobody_could_measure_is_blocked(
    service: Served, body: dict[str, Any], words: str
) -> None:
    action, reason = asked(service, body)
    assert action == "BLOCKED"
    assert words in reason


def test_the_address_names_the_model() -> None:
    with served(models=(Source("one"), Source("two"))) as service:
        assert service.post(PLACE, {"texts": ["a cat"]}).status_code == 400
        assert asked(service, {"texts": [MEMORISED]}, f"/v1/guard/litellm/two{PLACE}")[0] == (
            "BLOCKED"
        )
        unknown = service.post(f"/v1/guard/litellm/three{PLACE}", {"texts": ["a cat"]})
        assert unknown.status_code == 404
