"""T5's tokenizer, without transformers and sentencepiece."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .errors import IntegrityError
from .reader import Reader
from .tokenizer_json import Refused
from .unigram_json import checked

__all__ = ["T5Tokenizer"]

_PAD, _END = "<pad>", "</s>"


class T5Tokenizer(Reader):
    """Turns prompts into ids exactly as transformers' T5Tokenizer does for diffusers' pipelines."""

    around = 1

    def __init__(self, definition: bytes, *, length: int = 256, origin: str) -> None:
        """Read a `tokenizer.json`, which may be hostile (`unigram_json`).

        Args:
            definition: The contents of the file.
            length: Ids per prompt.
            origin: What errors call the file.

        Raises:
            IntegrityError: it is no tokenizer of T5's kind.
        """
        try:
            tokenizer = Tokenizer.from_buffer(checked(definition))
        except Refused as error:
            raise IntegrityError(
                f"{origin} is no tokenizer of T5's kind: {error}. If the bundle is yours, export "
                "the model again with this version; if not, do not use it."
            ) from None
        except Exception as error:  # tokenizers raises bare Exception
            raise IntegrityError(
                f"{origin} is no tokenizer: {error}. Export the model again."
            ) from None
        pad, end = map(tokenizer.token_to_id, (_PAD, _END))
        if pad is None or end is None:
            raise IntegrityError(
                f"{origin} is not T5's: {_PAD} or {_END} is missing. Export the model again."
            )
        super().__init__(tokenizer, length, pad)
        self._end = end

    def bodies(self, prompts: Sequence[str]) -> list[list[int]]:
        """See `Reader.bodies`."""
        self.check(prompts)
        found = self._tokenizer.encode_batch(list(prompts), add_special_tokens=False)
        # the library fills up a batch only where the file says so, which this one no longer does
        return [encoding.ids for encoding in found]

    def fill(self, row: NDArray[np.int64], body: Sequence[int]) -> None:
        """Write what fits of a body, and the end, into a row of padding."""
        body = body[: len(row) - 1]
        row[: len(body) + 1] = [*body, self._end]
