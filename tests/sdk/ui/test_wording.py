"""Verdicts in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from calibrations import made
from ui_support import CLEAN

from mnemoscope.calibration.moving import move
from mnemoscope.ui.wording import cost, verdict


def test_a_clean_prompt() -> None:
    found = verdict(CLEAN, 9)  # (1 + 3) / (9 + 1)
    assert (found.kind, found.title) == ("clean", "Not flagged")
    assert found.sentence == (
        "3 of the 9 benign prompts it is compared with score as high (p = 0.40), which is ordinary."
    )


def test_a_flagged_prompt() -> None:
    found = verdict(replace(CLEAN, memorized=True, p_value=1 / 1001), 1000)
    assert found.kind == "flagged"
    assert found.sentence.startswith("None of the 1,000 benign prompts")
    assert "(p = 0.001), and its score is above the threshold." in found.sentence
    one = verdict(replace(CLEAN, memorized=True, p_value=2 / 1001), 1000)
    assert one.sentence.startswith("1 of the 1,000 benign prompts it is compared with scores as")


def test_what_is_unusual_and_not_flagged_is_never_called_ordinary() -> None:
    assert "unusual, but" in verdict(replace(CLEAN, p_value=0.05), 99).sentence
    assert "ordinary" in verdict(replace(CLEAN, p_value=0.06), 99).sentence


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"truncated": True}, "part", "as far as it was read"),
        ({"truncated": True, "memorized": True}, "flagged", "Flagged"),
        ({"memorized": None, "p_value": None, "threshold": None}, "none", "No verdict"),
        ({"memorized": None, "p_value": None, "empty": True}, "none", "No verdict"),
    ],
)
def test_what_is_no_verdict_looks_like_none(
    changes: dict[str, object], kind: str, words: str
) -> None:
    found = verdict(replace(CLEAN, **changes), 9)  # type: ignore[arg-type]
    assert found.kind == kind
    assert words in found.title


def test_what_a_threshold_costs() -> None:
    calibration = made()
    benign, promise, caught = cost(move(calibration, -1.0), 0.95)
    assert "lie 400 of 400 benign prompts (100 %)" in benign
    assert "at most 100 %, with 95 % confidence" in promise
    assert (
        "Of 3 memorised prompts it would catch 3 (100 % [29, 100], with 95 % confidence)." in caught
    )
    unknown = cost(move(replace(calibration, positives=()), 0.5), 0.95)[2]
    assert "not known" in unknown
