"""Which prompts are one to a pipeline: those of which its tokenizers make the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from .conditioning import Arguments
from .networks import tokenizers

__all__ = ["digests"]

_LONGEST = 10**6  # ids


def digests(pipe: Any, told: Arguments, prompts: Sequence[str], *, whole: bool) -> list[bytes]:
    """sha256 of what a pipeline's tokenizers make of each prompt.

    Args:
        pipe: The pipeline.
        told: Arguments of a call of it.
        prompts: Texts.
        whole: Whether the end of long ones counts too, since the pipeline is not what reads them.
    """
    texts = list(prompts)
    if not texts:
        return []
    if (cleaned := getattr(pipe, "_text_preprocessing", None)) is not None:  # PixArt's and Sana's
        texts = cleaned(texts, clean_caption=told.get("clean_caption", False))
    read: list[list[Any]] = []
    for tokenizer in tokenizers(pipe).values():
        longest = tokenizer.model_max_length  # 10^30 where it has no limit
        if "CLIP" not in type(tokenizer).__name__:  # CLIP reads 77, whatever a call asks for
            longest = told.get("max_sequence_length") or longest
        cut = {} if whole or longest > _LONGEST else {"truncation": True, "max_length": longest}
        read.append(tokenizer(texts, return_attention_mask=False, **cut)["input_ids"])
    rows = zip(*(read or [texts]), strict=True)  # one without tokenizers is given embeddings
    return [hashlib.sha256(json.dumps(row).encode()).digest() for row in rows]
