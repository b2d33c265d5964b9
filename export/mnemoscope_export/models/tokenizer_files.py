"""The files of a pipeline's tokenizers: whether they are there, and what transformers reads."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from transformers import PreTrainedTokenizerBase

from mnemoscope_runtime.errors import ExportError

from .contents import lfs_pointer
from .messages import first_line

__all__ = ["check_bpe", "read"]

Kind = TypeVar("Kind", bound=PreTrainedTokenizerBase)
_LAYOUTS = (("tokenizer.json",), ("vocab.json", "merges.txt"))


def check_bpe(where: Path) -> None:
    """Make sure that a directory holds a tokenizer of byte pairs: transformers would make one up.

    Raises:
        ExportError: files are missing, empty or left at Git LFS.
    """
    if not any(all(_holds(where / file) for file in layout) for layout in _LAYOUTS):
        raise ExportError(
            f"{where} has neither vocab.json and merges.txt nor tokenizer.json, so there is no "
            "tokenizer. Copy it from the model, or save the pipeline again with "
            "`pipeline.save_pretrained(DIR)`."
        )
    for file in {file for layout in _LAYOUTS for file in layout}:
        lfs_pointer(where / file)


def _holds(file: Path) -> bool:
    """Whether a file is there with anything in it: without merges words fall into letters."""
    return file.is_file() and file.stat().st_size > 0


def read(kind: type[Kind], folder: Path, name: str) -> Kind:
    """A tokenizer of a pipeline.

    Args:
        kind: Its class.
        folder: The pipeline's.
        name: Of the tokenizer's directory.

    Raises:
        ExportError: its files are damaged.
    """
    try:
        found: Kind = kind.from_pretrained(folder, subfolder=name)
    except Exception as error:  # of its files' contents: those errors share no base class
        raise ExportError(
            f"The files of {folder / name} are no tokenizer's: {type(error).__name__}, "
            f"{first_line(error)} Copy them again."
        ) from error
    return found
