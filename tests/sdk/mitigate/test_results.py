"""When a picture may go out, and which of several is taken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mnemoscope import InputError
from mnemoscope.mitigate import Judged, Rule

RULE = Rule(0.9, level=0.05, tolerance=0.1)
BEFORE = Judged(2.0, 0.001, 0.99, 0.7)


@pytest.mark.parametrize(
    ("p_value", "similarity", "alignment", "passes", "settles"),
    [
        (0.2, 0.5, 0.7, True, True),
        (0.2, 0.5, 0.61, True, True),
        (0.2, 0.5, 0.59, True, False),
        (0.05, 0.5, 0.7, False, False),
        (0.2, 0.91, 0.7, False, False),
        (None, 0.5, 0.7, True, True),
        (0.2, None, 0.7, True, True),
    ],
)
def test_the_rule(
    p_value: float | None, similarity: float | None, alignment: float, passes: bool, settles: bool
) -> None:
    judged = Judged(1.0, p_value, similarity, alignment)
    assert RULE.passes(judged) is passes
    assert RULE.settles(judged, BEFORE) is settles


def test_the_best_of_several() -> None:
    copy = Judged(2.0, 0.5, 0.99, 0.9)
    suspicious = Judged(2.0, 0.01, 0.2, 0.8)
    astray = Judged(0.5, 0.5, 0.2, 0.1)
    less_astray = Judged(0.5, 0.5, 0.2, 0.2)
    good, better = Judged(0.5, 0.5, 0.2, 0.65), Judged(0.5, 0.5, 0.2, 0.75)
    tried = [copy, suspicious, astray, less_astray, good, better]
    # the first that settles, then by alignment among those that pass, are no copies, all
    assert [RULE.best(tried[:k], BEFORE) for k in range(1, 7)] == [0, 1, 2, 3, 4, 4]


def test_rules_that_mean_nothing() -> None:
    for options in ({"level": 0.0}, {"level": 1.0}, {"tolerance": -0.1}):
        with pytest.raises(InputError, match="level lies between"):
            Rule(0.9, **options)


@pytest.mark.parametrize(
    ("copied_above", "judged", "verified", "why"),
    [
        (0.9, [(0.2, 0.5), (0.2, 0.6)], True, None),
        (0.9, [(None, 0.5)], True, None),  # by its pictures alone
        (0.9, [(0.2, 0.5), (0.2, 0.95)], False, "cosine above 0.9"),
        (0.9, [(0.2, 0.5), (0.05, 0.5)], False, "few benign prompts have"),
        (0.9, [(0.2, 0.5), (0.2, None)], None, "no copy descriptor"),
        (None, [(0.2, 0.5)], None, "no copy descriptor"),
        (None, [(0.2, 1.0)], None, "no copy descriptor"),
        (None, [(0.01, 0.5)], False, "few benign prompts have"),
    ],
)
def test_nothing_is_verified_that_was_not_compared(
    copied_above: float | None,
    judged: list[tuple[float | None, float | None]],
    verified: bool | None,
    why: str | None,
) -> None:
    rule = replace(RULE, copied_above=copied_above)
    found, because = rule.verdict([Judged(1.0, p, like, None) for p, like in judged])
    assert found is verified
    assert (because is None) is (why is None)
    assert why is None or why in str(because)


@pytest.mark.parametrize(
    ("reference", "unmitigated", "p_value", "flagged", "verified", "why"),
    [
        (0.2, 0.95, 0.5, True, False, "copy of what the prompt draws unmitigated"),
        (0.2, 0.95, None, None, False, "copy of what the prompt draws unmitigated"),
        (0.2, 0.95, 0.5, False, None, "was not flagged"),
        (None, 0.2, 0.5, False, None, "was not flagged"),
        (0.95, 0.2, 0.5, False, False, "copy of a reference"),
        (0.95, 0.95, 0.5, True, False, "copy of a reference"),
        (0.2, 0.95, 0.01, False, False, "few benign prompts have"),
        (None, 0.2, None, None, True, ""),
    ],
)
def test_what_is_like_the_unmitigated_is_no_copy_where_nothing_was_flagged(
    reference: float | None, unmitigated: float, p_value: float | None, flagged: bool | None,
    verified: bool | None, why: str,
) -> None:  # fmt: skip
    judged = Judged(1.0, p_value, reference, None, unmitigated)
    found, because = RULE.verdict([judged], flagged=flagged)
    assert found is verified
    assert why in (because or "")


def test_where_no_threshold_is_known_what_is_usual_counts() -> None:
    usual = replace(RULE, copied_above=None, alike_above=0.8)
    like, unlike = (Judged(1.0, 0.2, None, 0.7, each) for each in (0.85, 0.75))
    assert (usual.settles(like, BEFORE), usual.settles(unlike, BEFORE)) == (False, True)
    verified, why = usual.verdict([like, unlike])
    assert verified is False
    assert "than two pictures of one benign prompt are alike, with a cosine above 0.8" in str(why)
    assert usual.verdict([unlike])[0] is None  # nothing unusual, and no proof
    assert not replace(usual, copied_above=0.9).copied(like)  # a known threshold goes first


def test_without_a_clip_the_first_that_passes_is_taken() -> None:
    tried = [Judged(2.0, 0.01, 0.2, None), Judged(0.5, 0.5, 0.2, None), Judged(0.4, 0.6, 0.1, None)]
    assert RULE.best(tried, replace(BEFORE, alignment=None)) == 1
