"""CLIP's tokenizer, without transformers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .bundle import Bundle
from .errors import InputError, IntegrityError

__all__ = ["LONGEST_PROMPT", "ClipTokenizer", "Piece", "Tokens"]

LONGEST_PROMPT = 100_000  # characters; the model reads 75 tokens of them
_FILE = "tokenizer/tokenizer.json"
_START, _END = "<|startoftext|>", "<|endoftext|>"


@dataclass(frozen=True)
class Tokens:
    """What a model reads of some prompts.

    Attributes:
        ids: One row for each prompt. # [B, length]
        truncated: For each prompt, whether its end did not fit: the model never sees it.
    """

    ids: NDArray[np.int64]
    truncated: tuple[bool, ...]


@dataclass(frozen=True)
class Piece:
    """A token of one prompt.

    Attributes:
        text: As the vocabulary spells it.
        span: The characters of the prompt that it stands for, from and to; None for the start, the
            end and the padding that the tokenizer adds.
    """

    text: str
    span: tuple[int, int] | None


class ClipTokenizer:
    """Turns prompts into ids exactly as transformers' CLIPTokenizer does for Stable Diffusion."""

    def __init__(self, definition: bytes, *, length: int = 77, pad_token: str = _END) -> None:
        """Read a `tokenizer.json`.

        Args:
            definition: The contents of the file.
            length: Ids per prompt: the text encoder's context length.
            pad_token: What fills up short prompts; "!" in Stable Diffusion 2.
        """
        try:
            tokenizer = Tokenizer.from_buffer(definition)
        except Exception as error:  # tokenizers raises bare Exception
            raise IntegrityError(
                f"{_FILE} is no tokenizer: {error}. Export the model again."
            ) from None
        pad_id = tokenizer.token_to_id(pad_token)
        if pad_id is None or tokenizer.token_to_id(_START) is None:
            raise IntegrityError(f"{_FILE} is not CLIP's: {_START} or {pad_token} is missing.")
        tokenizer.enable_truncation(length)
        tokenizer.enable_padding(length=length, pad_id=pad_id, pad_token=pad_token)
        self._tokenizer = tokenizer
        self.length = length

    @classmethod
    def of(cls, bundle: Bundle) -> ClipTokenizer:
        """The tokenizer of a bundle."""
        tokenizer = bundle.manifest.tokenizer
        return cls(bundle.read(_FILE), length=tokenizer.length, pad_token=tokenizer.pad_token)

    def __call__(self, prompts: Sequence[str]) -> NDArray[np.int64]:
        """The ids of `encode`: # [B, length]."""
        return self.encode(prompts).ids

    def encode(self, prompts: Sequence[str]) -> Tokens:
        """Tokenize; what does not fit is cut off, as in Stable Diffusion.

        Raises:
            InputError: not a list of texts, too long, or with unpaired surrogates.
        """
        if isinstance(prompts, str) or not isinstance(prompts, Collection):
            raise InputError(
                f"A list of texts is expected, not {type(prompts).__name__}. Wrap it: [prompt]."
            )
        for index, prompt in enumerate(prompts):
            _check(index, prompt)
        encodings = self._tokenizer.encode_batch(list(prompts))
        ids = np.array([encoding.ids for encoding in encodings], np.int64)
        truncated = tuple(bool(encoding.overflowing) for encoding in encodings)
        return Tokens(ids.reshape(len(prompts), self.length), truncated)

    def pieces(self, prompt: str) -> tuple[Piece, ...]:
        """What each of the `length` ids of a prompt stands for; what does not fit has no piece.

        Raises:
            InputError: as `encode`.
        """
        _check(0, prompt)
        found = self._tokenizer.encode(prompt)
        return tuple(
            Piece(token, None if added else span)
            for token, span, added in zip(
                found.tokens, found.offsets, found.special_tokens_mask, strict=True
            )
        )


def _check(index: int, prompt: str) -> None:
    if not isinstance(prompt, str):
        raise InputError(f"Prompt {index} is {type(prompt).__name__}, not str. Give text.")
    if len(prompt) > LONGEST_PROMPT:
        raise InputError(
            f"Prompt {index} has {len(prompt):,} characters; {LONGEST_PROMPT:,} are accepted, and "
            "the model reads 75 tokens. Cut the prompt."
        )
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"Prompt {index} is not valid Unicode ({error.reason} at character {error.start}). "
            "Decode it as UTF-8 before passing it on."
        ) from None
