"""What a guard decides of an image, and the record of it."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
from torch import Tensor

from mnemoscope_runtime.errors import CalibrationError, InputError, MnemoscopeError

from ..calibration import digest

__all__ = [
    "ACTIONS",
    "Action",
    "Decision",
    "MemorizationBlocked",
    "MemorizationWarning",
    "append",
    "check_same",
    "named_prompts",
    "number",
    "texts_of",
    "warning",
]

Action = Literal["pass", "warn", "block", "mitigate"]
"""What a policy does with an image."""
ACTIONS: tuple[Action, ...] = ("pass", "warn", "block", "mitigate")

_FLAGGED = "flagged as about to reproduce a training image"


@dataclass(frozen=True)
class Decision:
    """What was measured of one image, and what was done.

    Attributes:
        index: Of the image in what the pipeline returns.
        prompt_id: `calibration.digest` of the prompt, the same whatever the seed; for
            `prompt_embeds` one of their bytes.
        score: Mean magnitude over the steps looked at, in eps units, of flows in x0 units, >= 0.
        p_value: Share of benign requests, counting this one, that score as high; None without a
            calibration, or where nothing was compared. Not the probability that the prompt is
            benign.
        threshold: Above it the image counts as memorised; None without a calibration.
        memorized: score > threshold; None without a calibration, or where nothing was compared.
        compared: False for an empty prompt, or one that is the negative prompt: the network is told
            the same on both sides, so that the score says nothing.
        timesteps: What was looked at.
        policy: "warn", "block", "mitigate" or "callback".
        action: What was done with the image. "mitigate" at attempt 0 announces it; at attempt 1 it
            stands for an image that was drawn so, and "block" for one that was still flagged.
        attempt: 0 for the request as it came, 1 for the image drawn anew with a mitigation: score
            and verdict are then those of after.
        extra_pass: Whether the empty prompt's prediction took a pass of its own.
        seconds: What the guard itself took on the host until the decision, for the whole batch:
            looking at the steps and judging, not the pipeline's own time, nor mitigation.
        prompt: Its text, if the guard was asked to keep it.
    """

    index: int
    prompt_id: str
    score: float
    p_value: float | None
    threshold: float | None
    memorized: bool | None
    compared: bool
    timesteps: tuple[float, ...]
    policy: str
    action: Action
    attempt: int
    extra_pass: bool
    seconds: float
    prompt: str | None = None


class MemorizationWarning(UserWarning):
    """A request is about to recite; policy "warn" draws it all the same."""


class MemorizationBlocked(MnemoscopeError):
    """Every image of a request was flagged, or blocked by a function, and none was drawn.

    Attributes:
        decisions: One for each image.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self.decisions = tuple(decisions)
        top = max(self.decisions, key=lambda each: each.score)
        flagged = all(each.memorized for each in self.decisions)
        super().__init__(
            f"Nothing was drawn: {_all(len(self.decisions))} "
            f"{_FLAGGED if flagged else 'blocked by the policy'} (highest score {top.score:.4g}, "
            f"threshold {number(top.threshold)}). Change the prompt, or see `decisions` of this "
            "error."
        )


def _all(count: int) -> str:
    return "the image was" if count == 1 else f"all {count:,} images were"


def append(path: Path, decisions: Sequence[Decision]) -> None:
    """Add decisions to a JSONL file; the prompt's text only if it was kept.

    A log, which grows in place. A line that a crash tore is ended, so that it spoils no other.

    Raises:
        InputError: the file cannot be written.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    rows = [{"time": now, **asdict(each)} for each in decisions]
    for row in rows:
        if row["prompt"] is None:
            del row["prompt"]
    try:
        with path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(msgspec.json.Encoder().encode_lines(rows))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}. Choose another file.") from None


def number(value: float | None) -> str:
    """A score or a threshold in a message."""
    return "none" if value is None else f"{value:.4g}"


def named_prompts(told: Mapping[str, Any], images: int) -> tuple[list[str], list[str | None]]:
    """Id and text of the prompt of every image."""
    prompt, embeds = told.get("prompt"), told.get("prompt_embeds")
    texts: list[str | None]
    if prompt is not None:
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        for name in ("prompt_2", "prompt_3"):
            if (more := told.get(name)) is not None:
                others = [more] if isinstance(more, str) else more
                texts = [f"{a}\n{b}" for a, b in zip(texts, others, strict=True)]
        names = [digest(text) for text in texts if text is not None]
    else:
        assert embeds is not None  # the pipeline has checked that there is one of them
        texts = [None] * len(embeds)
        names = [hashlib.sha256(_bytes(each)).hexdigest()[:12] for each in embeds]
    each = images // len(names)
    return [n for n in names for _ in range(each)], [t for t in texts for _ in range(each)]


def texts_of(told: Mapping[str, Any]) -> Iterator[str]:
    """Every text that a request has encoded."""
    for name in (f"{side}prompt{n}" for side in ("", "negative_") for n in ("", "_2", "_3")):
        given = told.get(name)
        found = [given] if isinstance(given, str) else given
        yield from (each for each in (found or ()) if isinstance(each, str))


def _bytes(value: Tensor) -> bytes:
    return value.detach().float().cpu().numpy().tobytes()


def warning(decision: Decision) -> str:
    """What to warn of an image that is drawn all the same."""
    if not decision.compared:
        return (
            f"The policy warns of image {decision.index}, whose prompt is empty or the negative "
            "one, so that nothing was compared. It was drawn; action 'block' would not."
        )
    score, limit = f"score {decision.score:.4g}", number(decision.threshold)
    if not decision.memorized:
        return (
            f"The policy warns of image {decision.index}: {score}, threshold {limit}, so that the "
            "guard itself has not flagged it. It was drawn; action 'block' would not."
        )
    return (
        f"Image {decision.index} is about to reproduce a training image: {score}, threshold "
        f"{limit}. It was drawn all the same; policy 'block' or 'mitigate' would not."
    )


def check_same(before: Sequence[Decision], now: Sequence[Decision]) -> None:
    """Check that what is drawn anew and was not mitigated is what was decided.

    Raises:
        CalibrationError: it comes from another noise.
    """
    for old, new in zip(before, now, strict=True):
        if old.action != "mitigate" and not math.isclose(old.score, new.score, rel_tol=1e-3):
            raise CalibrationError(
                f"Image {old.index} scored {old.score:.4g}, and {new.score:.4g} when the request "
                "was drawn anew: it did not come from the same noise, since something else draws "
                "from torch's generator meanwhile. Give requests a `generator` of their own."
            )
