from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnemoscope import BackendUnavailable, InputError
from mnemoscope.prompts.near_duplicates import near_duplicates


def test_prompts_with_the_same_words_are_one_group() -> None:
    prompts = ["A cat, sitting", "a dog", "sitting a CAT!", "a cat sitting down", "a dog"]
    assert near_duplicates(prompts).tolist() == [0, 1, 0, 0, 1]


def test_groups_chain() -> None:
    prompts = ["a b c", "b c d", "c d e", "x"]  # two in common of four: 0.5
    assert near_duplicates(prompts, 0.4).tolist() == [0, 0, 0, 1]
    assert near_duplicates(prompts, 0.5).tolist() == [0, 1, 2, 3]


def test_prompts_without_words() -> None:
    assert near_duplicates(["", "a", "!!", ""]).tolist() == [0, 1, 0, 0]
    assert near_duplicates([]).tolist() == []


@given(
    st.lists(st.lists(st.sampled_from("abcdef"), max_size=5).map(" ".join), max_size=12),
    st.floats(0, 0.99),
)
def test_groups_are_the_components_of_jaccards_graph(prompts: list[str], limit: float) -> None:
    sets = [set(prompt.split()) or {""} for prompt in prompts]
    groups = list(range(len(prompts)))
    for i, a in enumerate(sets):
        for j, b in enumerate(sets[:i]):
            if len(a & b) > limit * len(a | b):
                old, new = groups[i], groups[j]
                groups = [new if group == old else group for group in groups]
    order = list(dict.fromkeys(groups))
    expected = [order.index(group) for group in groups]
    assert near_duplicates(prompts, limit).tolist() == expected


def test_a_similarity_that_is_none() -> None:
    for bad in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match="between 0 and 1"):
            near_duplicates(["a"], bad)


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(BackendUnavailable, match=r"'\.\[calibrate\]"):
        near_duplicates(["a", "b"])
