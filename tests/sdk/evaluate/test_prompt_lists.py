from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest
from evaluate_support import lists_of, nonsense, silent

from mnemoscope import InputError
from mnemoscope.evaluate import PromptLists
from mnemoscope.prompts.near_duplicates import near_duplicates


def test_lists_keep_their_order() -> None:
    positives, negatives = nonsense(5, 1), nonsense(7, 2)
    lists = PromptLists.of(positives, negatives, tell=silent)
    assert (list(lists.positives), list(lists.negatives)) == (positives, negatives)
    assert lists.prompts == positives + negatives
    assert lists.memorized.tolist() == [True] * 5 + [False] * 7
    np.testing.assert_array_equal(lists.groups, near_duplicates(lists.prompts))
    assert lists.group_counts == (5, 7)


def test_what_would_count_twice_is_left_out_and_told() -> None:
    told: list[str] = []
    lists = PromptLists.of(
        ["a b c", "d e f", "a b c"],
        ["g h i", "g h i", "d e f", "j k l"],
        labels=["x", "y", "z"],
        tell=told.append,
    )
    assert lists.positives == ("a b c", "d e f")
    assert lists.negatives == ("g h i", "j k l")
    assert len(lists.labels) == 2
    text = "\n".join(told)
    assert "Each memorised prompt counts once: 1 repetition left out" in text
    assert "Each other prompt counts once: 1 repetition left out" in text
    assert "1 prompt among the memorised ones, such as 'd e f'" in text
    assert lists.notes == tuple(told)


def test_a_repeated_prompt_keeps_its_first_label() -> None:
    lists = PromptLists.of(["a", "b", "a"], ["c"], labels=["x", "y", "z"], tell=silent)
    assert lists.labels == ("x", "y")


def test_groups_are_of_both_lists_together() -> None:
    told: list[str] = []
    positives = ["a red fox on the roof", "a red fox on a roof", "rain over the hills"]
    negatives = ["the red fox on the roof", "seven grey stones"]
    lists = PromptLists.of(positives, negatives, tell=told.append)
    assert lists.groups.tolist() == [0, 0, 1, 0, 2]
    assert lists.group_counts == (2, 2)
    assert any("1 of the other prompts are near duplicates of memorised" in note for note in told)


def test_few_prompts_are_remarked_on() -> None:
    notes = "\n".join(lists_of(1, 5).notes)
    assert "The memorised prompts fall into 1 group of" in notes
    assert "The other prompts fall into 5 groups of" in notes
    assert "1 % of 5 other prompts is less than one" in notes
    assert lists_of(30, 120).notes == ()


@pytest.mark.parametrize(
    ("positives", "negatives", "message"),
    [
        ([], ["a"], "no memorised prompts"),
        (["a"], [], "no other prompts"),
        (["a", ""], ["b"], "One of the memorised prompts is empty"),
        (["a"], ["b", " \t"], "One of the other prompts is empty"),
        (["a", "b"], ["b", "a"], "Every other prompt is among the memorised"),
    ],
)
def test_lists_that_say_nothing(positives: list[str], negatives: list[str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        PromptLists.of(positives, negatives, tell=silent)


def test_prompts_that_are_the_same_to_a_model_are_left_out() -> None:
    """The first is kept, with its label and group; here the model does not read case."""

    def read(prompts: Sequence[str]) -> list[bytes]:
        return [prompt.lower().encode() for prompt in prompts]

    positives, negatives = ["a fox", "A Fox", "rain"], ["RAIN", "snow", "a red hat", "Snow"]
    lists = PromptLists.of(positives, negatives, labels=["x", "y", "z"], tell=silent)
    found = lists.told_apart(read)
    assert (found.positives, found.labels) == (("a fox", "rain"), ("x", "z"))
    assert found.negatives == ("snow", "a red hat")
    assert found.groups.tolist() == [0, 1, 2, 3]
    assert "Left out: 3 prompts, to the model the same as earlier ones." in found.notes
    assert found.told_apart(read) is found
    with pytest.raises(InputError, match="to the model the same as a memorised one"):
        PromptLists.of(["a"], ["A"], tell=silent).told_apart(read)


def test_labels_that_are_no_breakdown() -> None:
    positives = nonsense(30, 1)
    with pytest.raises(InputError, match=r"30 different labels, such as '.*--label"):
        PromptLists.of(positives, ["a"], labels=positives, tell=silent)


def test_blocks_of_prompts_are_grouped_like_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [f"{a} {b}" for a in nonsense(40, 2, 6) for b in ("fox", "cat")]
    whole = near_duplicates(prompts)
    assert 30 < whole.max() < 45
    monkeypatch.setattr("mnemoscope.prompts.near_duplicates._PAIRS", 7 * len(prompts))
    np.testing.assert_array_equal(near_duplicates(prompts), whole)
