from __future__ import annotations

import pytest
from evaluate_support import lists_of, nonsense, silent

from mnemoscope.evaluate import Interval, PromptLists, style_aucs
from mnemoscope.evaluate.text_only import differs

CONTROLS = {"capitalised words", "number of words", "share of non-letters", "bag of words"}


@pytest.mark.parametrize("seed", range(3))
def test_lists_of_one_style_do_not_differ(seed: int) -> None:
    found = style_aucs(lists_of(60, 90, seed))
    assert set(found) == CONTROLS
    assert not any(map(differs, found.values())), found


@pytest.mark.parametrize(
    ("control", "planted"),
    [
        ("capitalised words", [prompt.title() for prompt in nonsense(60, 1)]),
        ("number of words", nonsense(60, 1, words=9)),
        ("share of non-letters", [f"{prompt} #2 (1990)" for prompt in nonsense(60, 1)]),
        ("bag of words", [f"{prompt} zzyzx" for prompt in nonsense(60, 1, words=5)]),
    ],
)
def test_a_planted_difference_is_found(control: str, planted: list[str]) -> None:
    found = style_aucs(PromptLists.of(planted, nonsense(90, 2), tell=silent))
    assert differs(found[control])
    assert found[control].value > 0.9


def test_negatives_that_have_more_of_it_differ_as_well() -> None:
    shouted = [prompt.title() for prompt in nonsense(90, 2)]
    found = style_aucs(PromptLists.of(nonsense(60, 1), shouted, tell=silent))
    assert found["capitalised words"] == Interval(0.0, 0.0, 0.0)
    assert differs(found["capitalised words"])


def test_words_of_near_duplicates_are_not_learned_from() -> None:
    """Families of one text each: a bag of words that saw a sibling would know them all."""
    families = [
        [f"{stem} {word}" for word in ("ado", "ilo", "usk", "ern")]
        for stem in nonsense(40, 5, words=12)
    ]
    positives = [prompt for family in families[:20] for prompt in family]
    negatives = [prompt for family in families[20:] for prompt in family]
    lists = PromptLists.of(positives, negatives, tell=silent)
    assert lists.group_counts == (20, 20)
    assert not differs(style_aucs(lists)["bag of words"])


def test_one_group_is_too_few_to_learn_words_from() -> None:
    lists = PromptLists.of(["a b c d", "a b c d e"], nonsense(30, 1), tell=silent)
    assert set(style_aucs(lists)) == CONTROLS - {"bag of words"}


@pytest.mark.parametrize("negatives", [2, 3, 7])
def test_few_prompts(negatives: int) -> None:
    assert set(style_aucs(lists_of(2, negatives))) == CONTROLS


def test_chance_is_no_difference() -> None:
    assert differs(Interval(0.7, 0.6, 0.8))
    assert differs(Interval(0.3, 0.2, 0.4))
    assert not differs(Interval(0.7, 0.4, 0.9))  # few prompts
    assert not differs(Interval(0.6, 0.55, 0.65))  # sure, and small
