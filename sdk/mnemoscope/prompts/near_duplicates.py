"""Prompts that are nearly the same: public lists repeat one picture's caption dozens of times."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import BackendUnavailable, InputError
from mnemoscope_runtime.wording import pip_install

__all__ = ["near_duplicates", "words_of"]

_PAIRS = 2**22  # of prompts that are compared at a time, which bounds memory


def near_duplicates(prompts: Sequence[str], similarity: float = 0.5) -> NDArray[np.int64]:
    """Group prompts whose words overlap: single linkage on Jaccard's index of their word sets.

    Time grows with the pairs of prompts that share a word: for thousands, not for millions.

    Args:
        prompts: Texts; case and punctuation do not count.
        similarity: Words in both over words in either above which two prompts are one group, in
            0..1.

    Returns:
        The group of each prompt, numbered from 0 in order of appearance. # [prompt]

    Raises:
        InputError: similarity is no such number.
        BackendUnavailable: scikit-learn is not installed.
    """
    if not 0 <= similarity < 1:
        raise InputError(f"Similarity lies between 0 and 1, {similarity} does not.")
    if not prompts:
        return np.zeros(0, np.int64)
    try:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components
        from sklearn.feature_extraction.text import CountVectorizer
    except ImportError as error:
        raise BackendUnavailable(
            f"Grouping prompts needs scikit-learn: {error}. Install it with "
            f"{pip_install('calibrate')}."
        ) from None
    sets = CountVectorizer(analyzer=words_of, binary=True).fit_transform(prompts).astype(np.int64)
    sizes = np.asarray(sets.sum(1)).ravel()
    count, rows = len(prompts), max(1, _PAIRS // len(prompts))
    leader = np.arange(count)  # the first of each prompt's group, as far as it is known
    for top in range(0, count, rows):
        shared = (sets[top : top + rows] @ sets.T).tocoo()  # words in both, where there are some
        row, column = shared.row + top, shared.col
        alike = shared.data > similarity * (sizes[row] + sizes[column] - shared.data)
        ends = np.append(row[alike], np.arange(count)), np.append(column[alike], leader)
        edges = coo_array((np.ones(len(ends[0])), ends), shape=(count, count))
        _, labels = connected_components(edges, directed=False)
        _, first = np.unique(labels, return_index=True)
        leader = first[labels]
    return np.unique(leader, return_inverse=True)[1]


def words_of(text: str) -> list[str]:
    """Words of a text, in lower case, without punctuation; an empty one if there are none."""
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    return words or [""]  # those without any are alike
