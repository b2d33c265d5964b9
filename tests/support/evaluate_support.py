"""What the tests of evaluations share: made-up lists and scores of them."""

from __future__ import annotations

import numpy as np

from mnemoscope.evaluate import PromptLists, Scored, judge, style_aucs
from mnemoscope.evaluate.report import Evaluation

WORDS = [a + b for a in "bcdfghklmnprstvz" for b in ("ado", "ilo", "usk", "ern", "omby")]
HOSTILE = [
    "<script>alert(1)</script> & <img src=x onerror=alert(2)>",
    "[click](http://example.org) ![x](http://example.org/x.png) | a | b",
    "\x1b[31mred\x1b[0m \u202e backwards \x00 \r\n## heading",
    "[bold]rich markup[/bold] `code` *stars* _lines_",
]


def nonsense(count: int, seed: int, words: int = 6) -> list[str]:
    """Prompts of words that mean nothing, no two of them alike."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, words, replace=False)) for _ in range(count)]


def silent(_: str) -> None:
    pass


def lists_of(positives: int = 20, negatives: int = 30, seed: int = 0) -> PromptLists:
    return PromptLists.of(nonsense(positives, seed), nonsense(negatives, seed + 1000), tell=silent)


def scored(lists: PromptLists, shift: float = 2.0, seed: int = 0, **fields: object) -> Scored:
    """Normal scores, those of positives `shift` higher."""
    noise = np.random.default_rng(seed).normal(0, 1, len(lists.prompts))
    options = {"detector": "magnitude", "steps": 1, "noises": 1, "passes": 1, "seconds": 0.01}
    return Scored(
        **{**options, "cross_fitted": False, **fields},  # type: ignore[arg-type]
        scores=noise + shift * lists.memorized,
    )


def evaluation(lists: PromptLists) -> Evaluation:
    every = [scored(lists), scored(lists, 1.0, 1, detector="anisotropy", cross_fitted=True)]
    return Evaluation(
        subject={"model": "<b>model</b>"},
        environment={"python": "3"},
        lists=lists,
        scored=every,
        rows=judge(every, lists, repetitions=20),
        style=style_aucs(lists),
    )
