"""What every tokenizer is: prompts in, rows of ids out, all of one length."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .errors import InputError, IntegrityError

__all__ = ["LONGEST_PROMPT", "Reader", "Tokens", "check_prompt"]

LONGEST_PROMPT = 100_000  # characters; the model reads 75 tokens of them, or a few hundred


@dataclass(frozen=True)
class Tokens:
    """What a model reads of some prompts.

    Attributes:
        ids: One row for each prompt: those of the first text encoder, and behind them those of the
            others where there are more. # [B, length], with two alike [B, 2 * length]
        truncated: For each prompt, whether its end did not fit: the model never sees it.
    """

    ids: NDArray[np.int64]
    truncated: tuple[bool, ...]

    def rows(self, chosen: Sequence[int]) -> Tokens:
        """Those of some of the prompts."""
        return Tokens(self.ids[list(chosen)], tuple(self.truncated[k] for k in chosen))


class Reader(ABC):
    """What one text encoder reads.

    Attributes:
        length: Ids of a prompt.
        around: How many of them are none of the prompt's: start and end.
        known: All ids are below it.
    """

    around: int

    def __init__(self, tokenizer: Tokenizer, length: int, pad: int) -> None:
        self._tokenizer = tokenizer
        self._pad = pad
        self.length: int = length
        self.known: int = 1 + max(tokenizer.get_vocab().values())

    @abstractmethod
    def bodies(self, prompts: Sequence[str]) -> list[list[int]]:
        """All ids of each prompt, without start, end and padding.

        Raises:
            InputError: not a list of texts, too long, or with unpaired surrogates.
        """

    @abstractmethod
    def fill(self, row: NDArray[np.int64], body: Sequence[int]) -> None:
        """Write what fits of a body, and what stands around it, into a row of padding."""

    @property
    def reads(self) -> int:
        """How many ids of a prompt are read."""
        return self.length - self.around

    def read(self, prompts: Sequence[str]) -> Tokens:
        """Tokenize; what does not fit is cut off, as in pipelines.

        Raises:
            InputError: as `bodies`.
        """
        bodies = self.bodies(prompts)
        ids = np.full((len(bodies), self.length), self._pad, np.int64)
        for row, body in zip(ids, bodies, strict=True):
            self.fill(row, body)
        return Tokens(ids, tuple(len(body) > self.reads for body in bodies))

    def check(self, prompts: Sequence[str]) -> None:
        """Make sure that these are texts.

        Raises:
            InputError: as `bodies`.
        """
        if isinstance(prompts, str) or not isinstance(prompts, Collection):
            raise InputError(
                f"A list of texts is expected, not {type(prompts).__name__}. Wrap it: [prompt]."
            )
        for index, prompt in enumerate(prompts):
            check_prompt(index, prompt)

    def check_rows(self, rows: int | None, origin: str) -> None:
        """Make sure that a text encoder has an embedding for every token.

        Args:
            rows: How many embeddings it has; None where that is not known.
            origin: What errors call the tokenizer.

        Raises:
            IntegrityError: it has not.
        """
        if rows is not None and self.known > rows:
            vocabulary = self._tokenizer.get_vocab()
            beyond = {text: id for text, id in vocabulary.items() if id >= rows}
            token = min(beyond, key=beyond.__getitem__)
            raise IntegrityError(
                f"{origin} has {len(beyond)} tokens beyond the text encoder's {rows} embeddings, "
                f"{token!r} (id {beyond[token]}) the first. Save the pipeline with a text encoder "
                "resized to its tokenizer (`resize_token_embeddings`), then export it again."
            )


def check_prompt(index: int, prompt: str) -> None:
    """Make sure that it is a text.

    Raises:
        InputError: as `Reader.bodies`.
    """
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
