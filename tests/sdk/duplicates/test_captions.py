"""Captions with nearly the same words, against the sets of words themselves."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest

from mnemoscope import BackendUnavailable, InputError
from mnemoscope.duplicates import captions, kept_captions

WORDS = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("ana", "elo", "iru", "otu", "ume")]


def cosine(one: str, other: str) -> float:
    a, b = set(one.split()), set(other.split())
    return len(a & b) / (len(a) * len(b)) ** 0.5


def test_case_punctuation_order_and_repetition_do_not_count() -> None:
    texts = ["A cat, sitting", "a dog", "sitting a CAT!", "a cat a cat sitting", "", "?!", "a dog"]
    assert kept_captions(texts).tolist() == [0, 1, 0, 0, 4, 4, 1]
    assert kept_captions(iter(texts), exact=0).tolist() == [0, 1, 0, 0, 4, 4, 1]


def test_nearly_the_same_words() -> None:
    """A thousand captions of 8 to 16 words, each again with 0 to 4 words exchanged, shuffled."""
    dice = random.Random(0)
    texts = [" ".join(dice.sample(WORDS, dice.randint(8, 16))) for _ in range(1000)]
    for text in list(texts):
        words = text.split()
        for _ in range(dice.randint(0, 4)):
            words[dice.randrange(len(words))] = dice.choice(WORDS)
        texts.append(" ".join(dice.sample(words, len(words))))
    kept = kept_captions(texts, 0.8)
    own = np.array([cosine(texts[i], texts[1000 + i]) for i in range(1000)])
    dropped = kept[1000:] != np.arange(1000, 2000)
    assert dropped[own > 0.9].all()
    assert not dropped[own < 0.6].any()
    wrong = [i for i, k in enumerate(kept) if i != k and cosine(texts[i], texts[k]) < 0.7]
    assert not wrong


def test_long_captions_of_other_words_are_not_alike() -> None:
    dice = random.Random(1)
    texts = [" ".join(f"{dice.randrange(10**6)}" for _ in range(300)) for _ in range(40)]
    assert kept_captions(texts).tolist() == list(range(40))


def test_words_that_cancel_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "WIDTH", 1)
    texts = [f"{a} {b}" for a in WORDS[:6] for b in WORDS[6:12]]
    kept = kept_captions(texts, 0.5)  # one number: 0 for half of them
    assert (kept == np.arange(36)).sum() > 10


def test_nothing() -> None:
    assert kept_captions([]).tolist() == []


def test_a_similarity_that_is_none() -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        kept_captions(["a"], 1.0)


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(BackendUnavailable, match=r"'\.\[calibrate\]"):
        kept_captions(["a", "b"])
