"""Captions that are nearly the same, among millions: those with nearly the same words."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import BackendUnavailable
from mnemoscope_runtime.wording import pip_install

from ..prompts.near_duplicates import words_of
from .grouping import EXACT, kept_rows

__all__ = ["CAPTIONS_ALIKE", "WIDTH", "kept_captions"]

CAPTIONS_ALIKE = 0.8
"""Captions whose word sets have a cosine above it count as the same."""
WIDTH = 512
_CHUNK = 10_000  # captions


def kept_captions(
    captions: Iterable[str], similarity: float = CAPTIONS_ALIKE, *, exact: int = EXACT
) -> NDArray[np.int64]:
    """The row that stands for each caption: its own, or one before it with nearly the same words.

    What is compared is the cosine of word sets: words in both over the geometric mean of their
    numbers. Words are hashed into 512 numbers with a sign (Weinberger et al. 2009), which leaves it
    right to a few hundredths. Case, punctuation, order and repetition do not count.

    Args:
        captions: Texts; they are read once and not kept.
        similarity: The cosine above which two are alike, above 0 and below 1.
        exact: As of `kept_rows`.

    Returns:
        As of `kept_rows`. # [N]

    Raises:
        InputError: similarity cannot be used.
        BackendUnavailable: faiss or scikit-learn is not installed.
    """
    vectors = _vectors(captions)
    lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)
    kept = np.arange(len(vectors))
    some = np.flatnonzero(lengths)  # words may cancel each other: such captions are alike to none
    kept[some] = some[kept_rows(vectors[some], similarity, exact=exact)]
    return kept


def _vectors(captions: Iterable[str]) -> NDArray[np.float16]:
    """Unit vectors of word sets; of length 0 where words cancel each other. # [N, WIDTH]"""
    vectorizer = _vectorizer()
    found = [np.zeros((0, WIDTH), np.float16)]
    captions = iter(captions)
    while chunk := list(itertools.islice(captions, _CHUNK)):
        found.append(vectorizer.transform(chunk).toarray().astype(np.float16))
    return np.concatenate(found)


def _vectorizer() -> Any:
    try:
        from sklearn.feature_extraction.text import HashingVectorizer
    except ImportError as error:
        raise BackendUnavailable(
            f"Comparing captions needs scikit-learn: {error}. Install it with "
            f"{pip_install('calibrate')}."
        ) from None
    return HashingVectorizer(analyzer=_distinct, n_features=WIDTH, dtype=np.float32)


def _distinct(text: str) -> list[str]:
    return sorted(set(words_of(text)))
