"""What a request to draw holds, read as whoever stands behind will read it, or not at all."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnemoscope.serve.images import (
    KNOWN,
    MOST_PROMPTS,
    Refusal,
    Refused,
    draws_from_a_picture,
    draws_text,
    read_request,
)

JSON = [(b"content-type", b"application/json")]


def refused(body: bytes, headers: list[tuple[bytes, bytes]] = JSON) -> Refusal:
    with pytest.raises(Refused) as caught:
        read_request(headers, body)
    return caught.value.refusal


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_prompt_is_what_the_client_wrote(prompt: str) -> None:
    for ascii_only in (True, False):
        body = json.dumps({"n": 1, "prompt": prompt}, ensure_ascii=ascii_only).encode()
        assert read_request(JSON, body).prompts == [prompt]


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(body: bytes) -> None:
    assert refused(body).status == 400  # of 200 random bytes none are a request


def test_a_list_holds_several() -> None:
    assert read_request(JSON, b'{"prompt": ["a cat", "a dog"]}').prompts == ["a cat", "a dog"]
    assert refused(json.dumps({"prompt": ["a"] * (MOST_PROMPTS + 1)}).encode()).param == "prompt"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "cannot be read"),
        (b'{"prompt": "a cat"', "cannot be read"),
        (b'["a cat"]', "no object"),
        (b'{"prompt": "a cat", "prompt": "a tower"}', "twice"),
        (b'{"prompt": "a cat", "n": NaN}', "NaN"),
        ('{"prompt": "a cat"}'.encode("utf-16"), "UTF-8"),  # which json.loads would read
        (b'{"prompt": "a \xff"}', "UTF-8"),
        (b"[" * 100_000, "brackets"),
        (b'{"n": 1}', '"prompt"'),
        (b'{"Prompt": "a cat"}', '"prompt"'),
        (b'{"prompt": "a cat", "PROMPT": "a tower"}', '"prompt"'),  # Go's parser takes either
        (b'{"prompt": null}', '"prompt"'),
        (b'{"prompt": 1}', '"prompt"'),
        (b'{"prompt": []}', '"prompt"'),
        (b'{"prompt": ["a cat", null]}', '"prompt"'),
        (b'{"prompt": {"text": "a cat"}}', '"prompt"'),
    ],
)
def test_what_says_no_one_thing_is_refused(body: bytes, words: str) -> None:
    found = refused(body)
    assert found.status == 400
    assert words in found.message


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-type", b"multipart/form-data; boundary=x")],
        [(b"content-type", b"application/x-www-form-urlencoded")],
        [(b"content-type", b"application/json; charset=utf-16")],
        [(b"Content-Type", b"application/json"), (b"content-type", b"text/plain")],
        [*JSON, (b"content-encoding", b"gzip")],
    ],
)
def test_what_may_be_read_otherwise_behind_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    assert refused(b'{"prompt": "a cat"}', headers).status == 415


@pytest.mark.parametrize(
    "kind", [b"application/json", b"Application/JSON; charset=UTF-8", b"application/x+json"]
)
def test_json_by_other_names_is_read(kind: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-encoding", b"identity")]
    assert read_request(headers, b'{"prompt": "a cat"}').prompts == ["a cat"]
    assert read_request([], b'{"prompt": "a cat"}').prompts == ["a cat"]


def test_what_else_is_asked_for_is_told() -> None:
    body = {"prompt": "a cat", "n": 2, "seed": 7, "lora": {"name": "style"}, "extra": None}
    assert read_request(JSON, json.dumps(body).encode()).others == {"lora"}


def test_what_openais_client_may_send_is_known() -> None:
    offered = {"background", "model", "moderation", "n", "output_compression", "output_format"}
    offered |= {"partial_images", "prompt", "quality", "response_format", "size", "stream"}
    assert offered | {"style", "user"} <= KNOWN


def test_places() -> None:
    assert draws_text("/v1/images/generations")
    assert draws_text("/openai/deployments/x/images/generations/")
    assert draws_text("//v1/images//Generations")  # there are routers that take it
    assert not draws_text("/v1/images/generations/7")
    assert not draws_text("/")
    assert draws_from_a_picture("/v1/images/edits")
    assert draws_from_a_picture("/v1/images/variations")
    assert not draws_from_a_picture("/v1/images/generations")


def test_a_refusal_has_openais_shape() -> None:
    found = Refusal(429, "overloaded", "Come again.", "rate_limit_error", None, 0.2)
    assert json.loads(found.body) == {
        "error": {
            "message": "Come again.",
            "type": "rate_limit_error",
            "param": None,
            "code": "overloaded",
        }
    }
    assert dict(found.headers)[b"retry-after"] == b"1"  # of a second there are no parts
    assert dict(found.headers)[b"content-length"] == str(len(found.body)).encode()
