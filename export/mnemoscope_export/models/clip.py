"""CLIP tokenizers from the directory of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from ..records import check_vocabulary
from .tokenizer_files import check_bpe, read

__all__ = ["read_tokenizers"]


def read_tokenizers(
    folder: Path, encoders: Mapping[str, Mapping[str, Any]]
) -> dict[str, CLIPTokenizer]:
    """The tokenizers of a pipeline.

    Args:
        folder: The pipeline's.
        encoders: The config of the text encoder that reads its ids, for each tokenizer's name.

    Raises:
        ExportError: one is missing or damaged, or another text encoder's.
    """
    return {name: _read(folder, name, config) for name, config in encoders.items()}


def _read(folder: Path, name: str, encoder: Mapping[str, Any]) -> CLIPTokenizer:
    where = folder / name
    check_bpe(where)
    tokenizer = read(CLIPTokenizer, folder, name)
    ends = tokenizer.bos_token_id, tokenizer.eos_token_id
    check_vocabulary(len(tokenizer), ends, encoder, str(where))
    # a config that does not say how many tokens are read leaves it to the text encoder
    longest = int(encoder.get("max_position_embeddings", 77))
    tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
    return tokenizer
