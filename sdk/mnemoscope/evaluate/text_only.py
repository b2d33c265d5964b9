"""What the text alone gives away: telling the two lists apart without the model.

Public lists of memorised prompts are headlines and product titles, public negatives often captions
or questions. Where text alone separates them, a detector's figures may owe as much to style.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .intervals import Interval, bootstrap
from .metrics import auc
from .prompt_lists import PromptLists

__all__ = ["STYLE_LIMITS", "differs", "style_aucs"]

STYLE_LIMITS = (0.35, 0.65)
"""An AUC by text alone between these two is of no account."""
_FOLDS = 5
Scores = NDArray[np.float64]


def style_aucs(lists: PromptLists) -> dict[str, Interval]:
    """AUC of the lists by capitals, length, signs and words, with intervals over groups.

    Below a half, the negatives have more of it. The bag of words is a logistic regression that
    judges each prompt after learning from other groups of near duplicates only; without two groups
    of each list there is none.

    Raises:
        BackendUnavailable: scikit-learn is not installed.
    """
    counted: dict[str, Callable[[str], float]] = {
        "capitalised words": _capitals,
        "number of words": lambda prompt: len(prompt.split()),
        "share of non-letters": _signs,
    }
    scores = {
        name: np.array([measure(prompt) for prompt in lists.prompts], np.float64)
        for name, measure in counted.items()
    }
    if min(lists.group_counts) > 1:
        scores["bag of words"] = _bag_of_words(lists)
    known, groups = lists.memorized, lists.groups_of_each
    return {
        name: bootstrap(auc, found[known], found[~known], groups=groups)
        for name, found in scores.items()
    }


def differs(found: Interval) -> bool:
    """Whether an AUC is outside `STYLE_LIMITS`, and not by chance."""
    low, high = STYLE_LIMITS
    return not low <= found.value <= high and not found.low <= 0.5 <= found.high


def _capitals(prompt: str) -> float:
    words = prompt.split()
    return sum(word[0].isupper() for word in words) / len(words)


def _signs(prompt: str) -> float:
    return sum(not (c.isalpha() or c.isspace()) for c in prompt) / len(prompt)


def _bag_of_words(lists: PromptLists) -> Scores:
    """Log-odds of each prompt by its words, learned from other groups."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline

    known, prompts = lists.memorized, np.array(lists.prompts, object)
    parts = StratifiedGroupKFold(min(_FOLDS, *lists.group_counts), shuffle=True, random_state=0)
    scores = np.zeros(len(prompts))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a list of few prompts: some part has none
        splits = list(parts.split(prompts, known, lists.groups))
    for train, test in splits:
        if known[train].all() or not known[train].any():
            continue
        model = make_pipeline(
            CountVectorizer(token_pattern=r"\w+|[^\w\s]", binary=True),
            LogisticRegression(class_weight="balanced", max_iter=1000),
        )
        scores[test] = model.fit(prompts[train], known[train]).decision_function(prompts[test])
    return scores
