"""CLIP's tokenizer, without transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from .bundle import Bundle
from .errors import InputError, IntegrityError
from .manifest import TokenizerRecord
from .reader import LONGEST_PROMPT, Reader, Tokens, check_prompt
from .t5_tokenizer import T5Tokenizer
from .tokenizer_json import Refused, checked
from .triggers import Written, triggers, write_out

__all__ = ["LONGEST_PROMPT", "MOST_CHUNKS", "ClipTokenizer", "Piece", "Tokens"]

MOST_CHUNKS = 32  # of a prompt: the UNet's attention holds all their tokens at once
_FILE = "tokenizer/tokenizer.json"
_FILE_2 = "tokenizer_2/tokenizer.json"
_FILE_3 = "tokenizer_3/tokenizer.json"
_START, _END = "<|startoftext|>", "<|endoftext|>"


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


class ClipTokenizer(Reader):
    """Turns prompts into ids exactly as transformers' CLIPTokenizer does for Stable Diffusion.

    Triggers of textual inversion that stand for several vectors are written out as diffusers does.

    Attributes:
        second: What a second text encoder reads, another CLIP.
        third: What a T5 reads.
    """

    around = 2

    def __init__(
        self,
        definition: bytes,
        *,
        length: int = 77,
        pad_token: str = _END,
        second: ClipTokenizer | None = None,
        third: T5Tokenizer | None = None,
        origin: str = _FILE,
    ) -> None:
        """Read a `tokenizer.json`, which may be hostile (`tokenizer_json`).

        Args:
            definition: The contents of the file.
            length: Ids per prompt: the text encoder's context length.
            pad_token: What fills up short prompts; "!" in Stable Diffusion 2.
            second: What a second text encoder reads, of the same length.
            third: What a T5 reads, of any length.
            origin: What errors call the file.

        Raises:
            IntegrityError: it is no tokenizer of CLIP's kind.
        """
        try:
            content = checked(definition)
            tokenizer = Tokenizer.from_buffer(content)
        except Refused as error:
            raise IntegrityError(
                f"{origin} is no tokenizer of CLIP's kind: {error}. If the bundle is yours, export "
                "the model again with this version; if not, do not use it."
            ) from None
        except Exception as error:  # tokenizers raises bare Exception
            raise IntegrityError(
                f"{origin} is no tokenizer: {error}. Export the model again."
            ) from None
        ends = [tokenizer.token_to_id(text) for text in (_START, _END)]
        pad = tokenizer.token_to_id(pad_token)
        if pad is None or None in ends or tokenizer.encode("").ids != ends:
            raise IntegrityError(
                f"{origin} is not CLIP's: {_START}, {_END} or {pad_token} is missing, or not what "
                "stands around a prompt. Export the model again."
            )
        if second is not None and second.length != length:
            raise IntegrityError(
                f"{_FILE_2} reads {second.length} tokens and {_FILE} {length}: the UNet is told "
                "both side by side. Export the model again."
            )
        super().__init__(tokenizer, length, pad)
        self._start, self._end = tokenizer.encode("").ids
        self._triggers = triggers(
            {token.content for token in tokenizer.get_added_tokens_decoder().values()}
        )
        self.second = second
        self.third = third
        self.readers: tuple[Reader, ...] = (
            self,
            *(each for each in (second, third) if each is not None),
        )

    @classmethod
    def of(cls, bundle: Bundle) -> ClipTokenizer:
        """The tokenizer of a bundle, or all that it has.

        Raises:
            IntegrityError: it is damaged, or does not fit the text encoder.
        """
        manifest = bundle.manifest
        second = None
        if manifest.tokenizer_2 is not None:
            second = cls._read(bundle, _FILE_2, manifest.tokenizer_2)
        elif "pooled_embeds" in manifest.embeddings:
            raise IntegrityError(
                f"{bundle.path} holds one tokenizer for the two text encoders of Stable Diffusion "
                "XL, whose second one reads other ids where its padding token stands in a prompt. "
                "Export the model again with this version."
            )
        third = None
        if (record := manifest.tokenizer_3) is not None:
            content = bundle.read(_FILE_3)
            third = T5Tokenizer(content, length=record.length, origin=_FILE_3)
            third.check_rows(record.rows, f"{bundle.path / _FILE_3}")
        return cls._read(bundle, _FILE, manifest.tokenizer, second, third)

    @classmethod
    def _read(
        cls,
        bundle: Bundle,
        file: str,
        record: TokenizerRecord,
        second: ClipTokenizer | None = None,
        third: T5Tokenizer | None = None,
    ) -> ClipTokenizer:
        found = cls(
            bundle.read(file),
            length=record.length,
            pad_token=record.pad_token,
            second=second,
            third=third,
            origin=file,
        )
        found.check_rows(record.rows, f"{bundle.path / file}")
        return found

    def checked(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ids that somebody brought, if the text encoder can read them.

        Of what it cannot read some libraries make zeros, and so a verdict.

        Raises:
            InputError: they are of another type or shape, or one is unknown.
        """
        own = sum(reader.length for reader in self.readers)
        if ids.dtype != np.int64 or ids.ndim != 2 or ids.shape[1] != own:
            raise InputError(
                f"Tokens come as int64 [prompts, {own}], not as {ids.dtype} {ids.shape}. "
                "Let `screener.tokenizer.encode` make them."
            )
        for reader, part in zip(self.readers, self._split(ids), strict=True):
            # as unsigned ones those below 0 are the largest
            if part.size and part.view(np.uint64).max() >= reader.known:
                raise InputError(
                    f"There are tokens below 0, or beyond the {reader.known} that a text encoder "
                    "knows. Let `screener.tokenizer.encode` make them."
                )
        return ids

    def _split(self, ids: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The ids of each reader."""
        ends = np.cumsum([reader.length for reader in self.readers])[:-1]
        return np.split(ids, ends, axis=1)

    @property
    def cut_at(self) -> int:
        """How many ids of a prompt are read by who reads most of it."""
        return max(reader.reads for reader in self.readers)

    @cached_property
    def empty(self) -> NDArray[np.int64]:
        """The ids of the empty prompt. # [1, length] or of all readers side by side"""
        return self.encode([""]).ids

    def __call__(self, prompts: Sequence[str]) -> NDArray[np.int64]:
        """The ids of `encode`: # [B, length] or of all readers side by side."""
        return self.encode(prompts).ids

    def encode(self, prompts: Sequence[str]) -> Tokens:
        """Tokenize; what does not fit is cut off, as in Stable Diffusion.

        A prompt is truncated if one of those who read most of it does not read all: what a T5 reads
        and CLIP does not, the model reads.

        Raises:
            InputError: not a list of texts, too long, or with unpaired surrogates.
        """
        if len(self.readers) == 1:
            return self.read(prompts)
        found = [reader.read(prompts) for reader in self.readers]
        longest = [
            tokens.truncated
            for reader, tokens in zip(self.readers, found, strict=True)
            if reader.reads == self.cut_at
        ]
        ids = np.concatenate([tokens.ids for tokens in found], axis=1)
        return Tokens(ids, tuple(map(any, zip(*longest, strict=True))))

    def bodies(self, prompts: Sequence[str]) -> list[list[int]]:
        """All ids of each prompt, without start, end and padding.

        Raises:
            InputError: as `encode`.
        """
        self.check(prompts)
        texts = [self._written(each).text for each in prompts] if self._triggers else list(prompts)
        found = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def chunks(self, prompt: str, index: int = 0) -> NDArray[np.int64]:
        """All of a prompt, as pipelines read long ones: cut every `length` - 2 ids.

        Each chunk has a start and an end of its own. Of two tokenizers the shorter one's ids are
        filled up with chunks of nothing.

        Args:
            prompt: The prompt.
            index: What errors call it.

        Returns:
            # [n, length] or [n, 2 * length], n >= 1

        Raises:
            InputError: as `encode`, or there are more than MOST_CHUNKS.
        """
        size = self.length - 2
        readers = [self] if self.second is None else [self, self.second]
        bodies = [reader.bodies([prompt])[0] for reader in readers]
        count = max(1, *(-(-len(body) // size) for body in bodies))
        if count > MOST_CHUNKS:
            raise InputError(
                f"Prompt {index} is read in {count} chunks of {size} tokens; {MOST_CHUNKS} are "
                "accepted. Cut the prompt."
            )
        halves = []
        for reader, body in zip(readers, bodies, strict=True):
            rows = np.full((count, self.length), reader._pad, np.int64)
            for k, row in enumerate(rows):
                reader.fill(row, body[k * size : (k + 1) * size])
            halves.append(rows)
        return np.concatenate(halves, axis=1)

    def pieces(self, prompt: str) -> tuple[Piece, ...]:
        """What each of the `length` ids of a prompt stands for; what does not fit has no piece.

        Of two tokenizers this is the first's.

        Raises:
            InputError: as `encode`.
        """
        check_prompt(0, prompt)
        written = self._written(prompt)
        found = self._read_text(written.text)
        read = zip(found.tokens, found.offsets, strict=True)
        body = [Piece(token, written.span(*span)) for token, span in read][: self.length - 2]
        around = [Piece(self._text(id), None) for id in (self._start, self._end, self._pad)]
        padding = [around[2]] * (self.length - 2 - len(body))
        return around[0], *body, around[1], *padding

    def fill(self, row: NDArray[np.int64], body: Sequence[int]) -> None:
        """Write start, what fits of a body, and end into a row of padding."""
        body = body[: len(row) - 2]
        row[: len(body) + 2] = [self._start, *body, self._end]

    def _written(self, prompt: str) -> Written:
        return write_out(prompt, self._triggers, lambda text: self._read_text(text).tokens)

    def _read_text(self, text: str) -> Encoding:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _text(self, id: int) -> str:
        return str(self._tokenizer.id_to_token(id))
