"""Tokenizers that were SentencePiece's, T5's and Gemma's, from the directory of a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from transformers import GemmaTokenizer, T5Tokenizer

from mnemoscope_runtime.errors import ExportError

from .contents import lfs_pointer
from .tokenizer_files import read

__all__ = ["read_sentencepiece"]

Kind = TypeVar("Kind", T5Tokenizer, GemmaTokenizer)


def read_sentencepiece(kind: type[Kind], folder: Path, name: str, length: int) -> Kind:
    """The tokenizer of a pipeline, which makes `length` ids of a prompt.

    Args:
        kind: Its class.
        folder: The pipeline's.
        name: Of the tokenizer's directory.
        length: Of prompts, whatever the tokenizer says: the pipeline decides.

    Raises:
        ExportError: it is missing or damaged.
    """
    where = folder / name
    file = where / "tokenizer.json"
    lfs_pointer(file)
    if not file.is_file():
        raise ExportError(
            f"{where} has no tokenizer.json. Where there is a spiece.model or tokenizer.model, "
            f"read it with `{kind.__name__}.from_pretrained(DIR)` (needs sentencepiece), save that "
            "with `save_pretrained(DIR)`, and export again."
        )
    tokenizer = read(kind, folder, name)
    tokenizer.model_max_length = length
    return tokenizer
