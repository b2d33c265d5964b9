"""Requests to draw, as OpenAI's images API has them: which prompts they hold, and how to refuse.

Whoever stands in front of another program must read what that one will read. So what two parsers
could read differently is refused: a key that comes twice, a prompt in a form, compressed bodies.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from email.message import Message
from typing import Any

from mnemoscope_runtime import strict_json

__all__ = [
    "KNOWN",
    "MOST_PROMPTS",
    "Asked",
    "Refusal",
    "Refused",
    "draws_from_a_picture",
    "draws_text",
    "read_request",
]

MOST_PROMPTS = 16  # of a request that holds a list of them
# fields that change nothing of what is measured: those of OpenAI, and settings of samplers
_OPENAI = {"background", "model", "moderation", "n", "output_compression", "output_format"}
_OPENAI |= {"partial_images", "prompt", "quality", "response_format", "size", "stream"}
_OPENAI |= {"style", "user"}
_SAMPLERS = {"cfg_scale", "guidance_scale", "height", "negative_prompt", "num_inference_steps"}
_SAMPLERS |= {"seed", "steps", "true_cfg_scale", "width"}
KNOWN = frozenset(_OPENAI | _SAMPLERS)
Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Refusal:
    """An answer that refuses, in the shape of OpenAI's errors.

    Attributes:
        status: Of HTTP.
        code: What programs tell it by.
        message: What people are told.
        type: What kind of error OpenAI's clients take it for.
        param: What was wrong with the request, if it was one of its fields.
        retry_after: Seconds after which it is worth coming again.
    """

    status: int
    code: str
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    retry_after: float | None = None

    @property
    def body(self) -> bytes:
        """As JSON."""
        names = ("message", "type", "param", "code")
        return json.dumps({"error": {name: getattr(self, name) for name in names}}).encode()

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """As ASGI has them."""
        told = {"content-type": "application/json", "content-length": str(len(self.body))}
        if self.retry_after is not None:
            told["retry-after"] = str(max(1, math.ceil(self.retry_after)))
        return [(name.encode(), value.encode()) for name, value in told.items()]


@dataclass(frozen=True)
class Asked:
    """What a request asks for.

    Attributes:
        prompts: The prompt, or all of a list of them.
        others: Fields that are not `KNOWN`: an adapter, or embeddings, that nobody measured.
    """

    prompts: list[str]
    others: frozenset[str]


class Refused(Exception):
    """A request that goes no further; caught where it is answered."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def draws_text(path: str) -> bool:
    """Whether what is posted there is a prompt to draw."""
    return _place(path) == "images/generations"


def draws_from_a_picture(path: str) -> bool:
    """Whether what is drawn there begins with a picture, which no bundle measures."""
    return _place(path) in ("images/edits", "images/variations")


def _place(path: str) -> str:
    """The end of a path, as the most lenient router reads it."""
    return "/".join([each for each in path.casefold().split("/") if each][-2:])


def read_request(headers: Headers, body: bytes) -> Asked:
    """What a request asks for.

    Args:
        headers: Of the request, as ASGI has them.
        body: All of it.

    Raises:
        Refused: it is not JSON that says one thing, or holds no prompt.
    """
    _check_headers(headers)
    try:
        request = strict_json.parse(body)
    except ValueError as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise Refused(
            Refusal(400, "invalid_json", f"The body cannot be read: {why}. Send one JSON object.")
        ) from None
    named = [key for key in request if key.casefold() == "prompt"]
    prompt = request["prompt"] if named == ["prompt"] else None
    prompts: list[Any] = prompt if isinstance(prompt, list) else [prompt]
    if not (0 < len(prompts) <= MOST_PROMPTS and all(isinstance(each, str) for each in prompts)):
        raise Refused(
            Refusal(
                400,
                "invalid_prompt",
                'There has to be one key "prompt", a text or a list of at most '
                f"{MOST_PROMPTS} texts: without it nothing can be screened, and nothing is drawn.",
                param="prompt",
            )
        )
    given = {key for key, value in request.items() if value is not None}
    return Asked(prompts, frozenset(given - KNOWN))


def _check_headers(headers: Headers) -> None:
    """Raises Refused where the program behind could read another text than the one screened."""
    told = Message()  # HTTP has its syntax of types and charsets from mail
    for name, value in headers:
        if name.lower() in (b"content-type", b"content-encoding"):
            told[name.decode("latin-1")] = value.decode("latin-1")
    repeated = len(told.keys()) > len({name.lower() for name in told})
    kind = told.get_content_type() if "content-type" in told else "application/json"
    json_text = kind == "application/json" or kind.endswith("+json")
    charset = told.get_content_charset("utf-8")
    plain = told.get("content-encoding", "identity").strip().lower() == "identity"
    if repeated or not (json_text and plain and charset in ("utf-8", "utf8")):
        raise Refused(
            Refusal(
                415,
                "unsupported_media_type",
                "Prompts are screened in JSON, in UTF-8 and not compressed. Send the request with "
                "the header Content-Type: application/json, once.",
            )
        )
