"""CLIP tokenizers from the directory of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from mnemoscope_runtime.errors import ExportError

from ..records import check_vocabulary
from .contents import lfs_pointer
from .messages import first_line

__all__ = ["read_tokenizers"]

_LAYOUTS = (("tokenizer.json",), ("vocab.json", "merges.txt"))


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
    if not any(all(_holds(where / file) for file in layout) for layout in _LAYOUTS):
        raise ExportError(  # transformers would make up one of two tokens
            f"{where} has neither vocab.json and merges.txt nor tokenizer.json, so there is no "
            "tokenizer. Copy it from the model, or save the pipeline again with "
            "`pipeline.save_pretrained(DIR)`."
        )
    for file in {file for layout in _LAYOUTS for file in layout}:
        lfs_pointer(where / file)
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder=name)
    except Exception as error:  # of its files' contents: those errors share no base class
        raise ExportError(
            f"The files of {where} are no tokenizer's: {type(error).__name__}, "
            f"{first_line(error)} Copy them again."
        ) from error
    ends = tokenizer.bos_token_id, tokenizer.eos_token_id
    check_vocabulary(len(tokenizer), ends, encoder, str(where))
    # a config that does not say how many tokens are read leaves it to the text encoder
    longest = int(encoder.get("max_position_embeddings", 77))
    tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
    return tokenizer


def _holds(file: Path) -> bool:
    """Whether a file is there with anything in it: without merges words fall into letters."""
    return file.is_file() and file.stat().st_size > 0
