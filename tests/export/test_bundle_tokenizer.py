"""What a bundle takes over of a pipeline's tokenizer, whatever that read before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from gemma_tokenizers import gemma_tokenizer
from qwen_tokenizers import qwen_tokenizer
from t5_tokenizers import t5_tokenizer
from transformers import CLIPTokenizer

from mnemoscope import embedded
from mnemoscope_export.bundle_tokenizer import bundle_tokenizer


def clip_tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer")


@pytest.mark.parametrize("make", [clip_tokenizer, t5_tokenizer, qwen_tokenizer, gemma_tokenizer])
def test_what_a_tokenizer_read_before_changes_no_bundle(make: Callable[[], Any]) -> None:
    """A bundle's id is the hash of all that is in it; thresholds hold for that id alone."""
    tokenizer = make()
    fresh = bundle_tokenizer(tokenizer, 10**6, None)
    tokenizer(["a cat"], padding="max_length", truncation=True, max_length=7)
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 7
    assert bundle_tokenizer(tokenizer, 10**6, None) == fresh
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 7  # it is left as it was
