"""Readers whose prompts stand in a template, and are read together with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer as Library

from .errors import InputError
from .tokenizer import Piece, Reader, Tokens
from .triggers import Written, lowered

__all__ = ["TemplateReader"]


class TemplateReader(Reader):
    """Prompts in a template.

    What stands before a prompt and the prompt's own beginning may be one token.
    """

    def __init__(
        self,
        library: Library,
        length: int,
        *,
        pad: int,
        template: tuple[str, str],
        start: Sequence[int],
        first: Sequence[int] = (),
        lowercase: bool = False,
    ) -> None:
        """Take over a library.

        Args:
            library: Of what was checked.
            length: Ids per prompt, its template with it.
            pad: What fills up short prompts.
            template: What stands before a prompt, and behind it.
            start: The ids in front that say nothing of a prompt.
            first: Those of them that are no text's.
            lowercase: Put prompts in lower case first, without space around them.
        """
        super().__init__(library, length, pad=pad, start=tuple(start))
        self._before, self._behind = template
        self._first = list(first)
        self._after = len(library.encode(self._behind, add_special_tokens=False).ids)
        self._lowercase = lowercase

    def written(self, prompt: str) -> Written:
        """See `Reader.written`."""
        return lowered(prompt) if self._lowercase else super().written(prompt)

    def encode(self, prompts: Sequence[str]) -> Tokens:
        """See `Reader.encode`.

        Raises:
            InputError: also where what is read of a prompt ends in what stands for nothing.
        """
        found = self._all(prompts)
        ids = np.full((len(found), self.length), self._pad, np.int64)
        for k, (row, each) in enumerate(zip(ids, found, strict=True)):
            read = each[: self.length]
            row[: len(read)] = read
            # padding is told from a prompt by where the last token is that is none
            if read[-1:] == [self._pad]:
                raise InputError(
                    f"Prompt {k} ends, as far as it is read, where it spells the token that stands "
                    f"for nothing, {self._library.id_to_token(self._pad)!r}. Leave that out, or "
                    "cut the prompt."
                )
        return Tokens(ids, tuple(len(each) - self._after > self.length for each in found))

    def bodies(self, prompts: Sequence[str]) -> list[list[int]]:
        """All ids that say something of a prompt, those of the template behind it with them.

        Raises:
            InputError: as `encode`.
        """
        return [each[len(self.start) :] for each in self._all(prompts)]

    def pieces(self, prompt: str) -> tuple[Piece, ...]:
        """See `Reader.pieces`; the template's tokens have no span."""
        self.check([prompt])
        written = self.written(prompt)
        first, last = len(self._before), len(self._before) + len(written.text)
        found = self._read_text(f"{self._before}{written.text}{self._behind}")
        pieces = [self._spelled(id) for id in self._first]
        for token, (start, end) in zip(found.tokens, found.offsets, strict=True):
            inside = max(start, first) - first, min(end, last) - first
            is_its = inside[0] < inside[1]
            pieces.append(Piece(token, written.span(*inside) if is_its else None))
        padding = [self._spelled(self._pad)] * (self.length - len(pieces))
        return *pieces[: self.length], *padding

    def _all(self, prompts: Sequence[str]) -> list[list[int]]:
        """All ids of each prompt in the template."""
        self.check(prompts)
        texts = [f"{self._before}{self.written(each).text}{self._behind}" for each in prompts]
        found = self._library.encode_batch(texts, add_special_tokens=False)
        return [[*self._first, *encoding.ids] for encoding in found]

    def _spelled(self, id: int) -> Piece:
        return Piece(str(self._library.id_to_token(id)), None)
