"""Decisions by themselves: names, texts and messages, without a pipeline."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from mnemoscope import CalibrationError
from mnemoscope.calibration import digest
from mnemoscope.guard import Decision, MemorizationBlocked
from mnemoscope.guard.decision import append, check_same, named_prompts, texts_of, warning


def decision(**changes: Any) -> Decision:
    told: dict[str, Any] = {
        "index": 0, "prompt_id": "0" * 12, "score": 2.0, "p_value": 0.01, "threshold": 1.0,
        "memorized": True, "compared": True, "timesteps": (981.0,), "policy": "block",
        "action": "block", "attempt": 0, "extra_pass": False, "seconds": 0.0,
    }  # fmt: skip
    return Decision(**told | changes)


def test_what_is_blocked_names_the_highest_score_and_why() -> None:
    flagged = [decision(score=2.0), decision(score=3.0)]
    assert "all 2 images were flagged" in str(MemorizationBlocked(flagged))
    assert "highest score 3, threshold 1" in str(MemorizationBlocked(flagged))
    mixed = [decision(), decision(memorized=False)]
    assert "blocked by the policy" in str(MemorizationBlocked(mixed))


def test_a_torn_line_of_the_record_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    append(path, [decision(), decision()])
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    append(path, [decision()])
    append(path, [decision()])
    lines = path.read_bytes().splitlines()
    assert [line.endswith(b"}") for line in lines] == [True, False, True, True]


def test_prompts_are_named_once_an_image() -> None:
    names, texts = named_prompts({"prompt": ["a", "b"]}, 4)
    assert names == [digest("a")] * 2 + [digest("b")] * 2
    assert texts == ["a", "a", "b", "b"]
    for second in ("x", ["x"]):
        assert named_prompts({"prompt": "a", "prompt_2": second}, 1)[1] == ["a\nx"]


def test_embeddings_are_named_by_their_bytes() -> None:
    embeds = torch.arange(12.0).reshape(2, 2, 3)
    names, texts = named_prompts({"prompt_embeds": embeds}, 4)
    expected = [hashlib.sha256(each.numpy().tobytes()).hexdigest()[:12] for each in embeds]
    assert names == [expected[0]] * 2 + [expected[1]] * 2
    assert texts == [None] * 4


def test_every_text_of_a_request() -> None:
    told = {"prompt": "a", "prompt_2": ["b", "c"], "negative_prompt": "d", "prompt_embeds": None}
    assert list(texts_of(told)) == ["a", "b", "c", "d"]


def test_a_warning_says_no_more_than_is_known() -> None:
    assert "nothing was compared" in warning(decision(compared=False, memorized=None))
    assert "has not flagged it" in warning(decision(memorized=False))
    assert "is about to reproduce" in warning(decision())


@pytest.mark.parametrize(("again", "alike"), [(2.0019, True), (2.0021, False)])
def test_what_is_drawn_anew_comes_from_the_same_noise(again: float, alike: bool) -> None:
    before, now = decision(action="pass"), decision(score=again)
    check_same([decision(action="mitigate")], [decision(score=9.0)])
    if alike:
        check_same([before], [now])
    else:
        with pytest.raises(CalibrationError, match="did not come from the same noise"):
            check_same([before], [now])
