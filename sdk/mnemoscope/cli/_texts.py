"""Prompts on the command line that are no prompts but the names of files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mnemoscope_runtime import InputError

from ..prompts.printable import printable

__all__ = ["refuse_files"]

_ENDINGS = (".txt", ".csv", ".tsv", ".jsonl", ".json", ".parquet")


def refuse_files(prompts: Iterable[str], instead: str, on_purpose: str) -> None:
    """Refuse what names a file, which read as a prompt would be clean whatever the file holds.

    Args:
        prompts: As they were given.
        instead: What to do if the file is meant.
        on_purpose: What to do if the text itself is.

    Raises:
        InputError: one is the name of a file that is there, or one word that ends like one.
    """
    for prompt in prompts:
        there = _is_file(prompt)
        one_word = len(prompt.split()) == 1 and prompt == prompt.strip()
        if there or (one_word and prompt.lower().endswith(_ENDINGS)):
            what = "is a file" if there else "looks like the name of a file"
            raise InputError(
                f"The prompt {printable(prompt, 80)!r} {what}, and its name would be read, not "
                f"what is in it. {instead} If the text itself is meant, {on_purpose}."
            )


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long, or no path at all
        return False
