"""T5's tokenizer, without transformers and sentencepiece."""

from __future__ import annotations

from .definitions import parsed
from .errors import IntegrityError
from .tokenizer import Reader
from .triggers import Written, lowered
from .unigram_json import checked

__all__ = ["T5Tokenizer"]

_PAD, _END = "<pad>", "</s>"


class T5Tokenizer(Reader):
    """Turns prompts into ids exactly as transformers' T5Tokenizer does for diffusers' pipelines."""

    kind = "T5"

    def __init__(
        self, definition: bytes, *, length: int = 256, lowercase: bool = False, origin: str
    ) -> None:
        """Read a `tokenizer.json`, which may be hostile (`unigram_json`).

        Args:
            definition: The contents of the file.
            length: Ids per prompt.
            lowercase: Put prompts in lower case first, without space around them.
            origin: What errors call the file.

        Raises:
            IntegrityError: it is no tokenizer of T5's kind.
        """
        library = parsed(definition, checked, kind=self.kind, origin=origin)
        pad, end = map(library.token_to_id, (_PAD, _END))
        if pad is None or end is None:
            raise IntegrityError(
                f"{origin} is not T5's: {_PAD} or {_END} is missing. Export the model again."
            )
        super().__init__(library, length, pad=pad, end=(end,))
        self._lowercase = lowercase

    def written(self, prompt: str) -> Written:
        """See `Reader.written`."""
        return lowered(prompt) if self._lowercase else super().written(prompt)
