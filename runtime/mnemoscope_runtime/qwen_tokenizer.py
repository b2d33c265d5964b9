"""Qwen2's tokenizer in a chat's template, without transformers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer as Library

from .errors import InputError, IntegrityError
from .qwen_json import checked
from .tokenizer import Piece, Reader, Tokens
from .tokenizer_json import Refused

__all__ = ["QwenTokenizer"]


class QwenTokenizer(Reader):
    """Turns prompts into ids exactly as transformers' Qwen2Tokenizer does for Qwen-Image.

    A prompt is read inside a template, and together with it: a line break at its beginning and the
    template's before it are one token.
    """

    kind = "Qwen2"

    def __init__(
        self,
        definition: bytes,
        *,
        length: int,
        pad_token: str,
        template: str,
        dropped: int,
        origin: str,
    ) -> None:
        """Read a `tokenizer.json`, which may be hostile (`qwen_json`).

        Args:
            definition: The contents of the file.
            length: Ids per prompt, its template with it.
            pad_token: What fills up short prompts.
            template: What stands around a prompt, which takes the place of {}.
            dropped: How many ids in front the network is not told of.
            origin: What errors call the file.

        Raises:
            IntegrityError: it is no tokenizer of Qwen2's kind, or does not go with the template.
        """
        try:
            library = Library.from_buffer(checked(definition))
        except Refused as error:
            raise IntegrityError(
                f"{origin} is no tokenizer of Qwen2's kind: {error}. If the bundle is yours, "
                "export the model again with this version; if not, do not use it."
            ) from None
        except Exception as error:  # tokenizers raises bare Exception
            raise IntegrityError(
                f"{origin} is no tokenizer: {error}. Export the model again."
            ) from None
        pad = library.token_to_id(pad_token)
        before, *behind = template.split("{}")
        start = library.encode(before, add_special_tokens=False).ids
        if pad is None or len(behind) != 1 or not 0 <= dropped <= len(start) < length:
            raise IntegrityError(
                f"{origin} does not go with its template: {pad_token} is missing, or {dropped} ids "
                "are not all of what stands before a prompt. Export the model again."
            )
        super().__init__(library, length, pad=pad, start=tuple(start[:dropped]))
        self._before, self._behind = before, behind[0]
        self._after = len(library.encode(self._behind, add_special_tokens=False).ids)

    def encode(self, prompts: Sequence[str]) -> Tokens:
        """See `Reader.encode`.

        Raises:
            InputError: also where a prompt is cut behind what stands for nothing.
        """
        self.check(prompts)
        texts = [f"{self._before}{prompt}{self._behind}" for prompt in prompts]
        found = self._library.encode_batch(texts, add_special_tokens=False)
        ids = np.full((len(found), self.length), self._pad, np.int64)
        for k, (row, encoding) in enumerate(zip(ids, found, strict=True)):
            read = encoding.ids[: self.length]
            row[: len(read)] = read
            # padding is told from a prompt by where the last token is that is none
            if len(read) == self.length and read[-1] == self._pad:
                raise InputError(
                    f"Prompt {k} is cut where it spells the token that stands for nothing, "
                    f"{self._library.id_to_token(self._pad)!r}. Leave that out, or cut the prompt."
                )
        return Tokens(ids, tuple(len(each.ids) - self._after > self.length for each in found))

    def bodies(self, prompts: Sequence[str]) -> list[list[int]]:
        """All ids that the network is told of, those of the template behind the prompt with them.

        Raises:
            InputError: as `encode`.
        """
        self.check(prompts)
        texts = [f"{self._before}{prompt}{self._behind}" for prompt in prompts]
        found = self._library.encode_batch(texts, add_special_tokens=False)
        return [encoding.ids[len(self.start) :] for encoding in found]

    def pieces(self, prompt: str) -> tuple[Piece, ...]:
        """See `Reader.pieces`; the template's tokens have no span."""
        self.check([prompt])
        first, last = len(self._before), len(self._before) + len(prompt)
        found = self._read_text(f"{self._before}{prompt}{self._behind}")
        pieces = []
        for token, (start, end) in zip(found.tokens, found.offsets, strict=True):
            span = max(start, first) - first, min(end, last) - first
            pieces.append(Piece(token, span if span[0] < span[1] else None))
        padding = Piece(str(self._library.id_to_token(self._pad)), None)
        return *pieces[: self.length], *[padding] * (self.length - len(pieces))
