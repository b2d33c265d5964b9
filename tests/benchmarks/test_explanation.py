"""What the study of explanations computes."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.explanation import agreement, curve, interval


def test_agreement_with_leaving_words_out() -> None:
    drops = [np.array([0.1, 0.9, 0.3]), np.array([0.5, 0.2])]
    same = agreement([2 * each for each in drops], drops)
    assert same["spearman"].value == pytest.approx(1)
    assert same["top_word_is_the_best"].value == 1
    assert same["drop_of_top_word"].value == pytest.approx(0.7)
    other = agreement([-each for each in drops], drops)
    assert other["spearman"].value == pytest.approx(-1)
    assert other["top_word_is_the_best"].value == 0
    assert other["drop_of_top_word"].value == pytest.approx(0.15)


def test_means_over_captions() -> None:
    found = interval([0.0, 1.0] * 50)
    assert (found.value, found.low < 0.45, found.high > 0.55) == (0.5, True, True)

    def lengths(texts: list[str], row: int) -> list[float]:
        return [len(text) + 10.0 * row for text in texts]

    # each caption counts once, however many texts it has
    assert curve([["a", "abc"], ["unused"], ["ab"]], [0, 2], lengths).value == (2 + 22) / 2
