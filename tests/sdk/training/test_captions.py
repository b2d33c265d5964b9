"""Random tokens in captions."""

from __future__ import annotations

import random

from transformers import CLIPTokenizer

from mnemoscope import embedded
from mnemoscope.training import add_random_tokens

CAPTION = "google icon of tokyo tower, on rings, in zagreb 2020"


def test_the_caption_stays_in_its_order() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer")
    rng = random.Random(0)
    drawn = [add_random_tokens(CAPTION, tokenizer, rng) for _ in range(50)]
    assert len(set(drawn)) == 50
    for text in drawn:
        words = text.split()
        assert len(words) == len(CAPTION.split()) + 4
        rest = iter(words)
        assert all(word in rest for word in CAPTION.split())  # a subsequence
        assert not set(tokenizer(text).input_ids[1:-1]) & set(tokenizer.all_special_ids)
    places = {text.split().index("google") for text in drawn}
    assert {0, 1, 2} <= places
    assert add_random_tokens(CAPTION, tokenizer, random.Random(1)) == add_random_tokens(
        CAPTION, tokenizer, random.Random(1)
    )


def test_how_many() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer")
    assert add_random_tokens(CAPTION, tokenizer, random.Random(0), count=0) == CAPTION
    assert len(add_random_tokens("", tokenizer, random.Random(0), count=2).split()) == 2
