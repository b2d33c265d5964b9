"""The baseline that needs no detector: captions that are never twice the same."""

from __future__ import annotations

import random
from typing import Any

__all__ = ["add_random_tokens"]


def add_random_tokens(caption: str, tokenizer: Any, rng: random.Random, count: int = 4) -> str:
    """Put random tokens between the words of a caption (Somepalli et al., NeurIPS 2023).

    Call it anew every time the caption is trained on. Tokens that do not spell a word or a part of
    one are not drawn; what they push behind the tokenizer's length is cut, as always.

    Args:
        caption: The caption.
        tokenizer: Of transformers.
        rng: Where the tokens come from.
        count: How many to add; the papers' default is 4.
    """
    words = caption.split()
    for _ in range(count):
        words.insert(rng.randint(0, len(words)), _token(tokenizer, rng))
    return " ".join(words)


def _token(tokenizer: Any, rng: random.Random) -> str:
    special = set(tokenizer.all_special_ids)
    while True:
        token = rng.randrange(tokenizer.vocab_size)
        text: str = tokenizer.decode([token]).strip()
        if token not in special and text.isalnum():
            return text
