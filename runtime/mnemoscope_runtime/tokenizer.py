"""What reads prompts: a reader for each text encoder, and all of a bundle's side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding
from tokenizers import Tokenizer as Library

from .errors import InputError, IntegrityError
from .triggers import Written, write_out
from .wording import counted

__all__ = ["LONGEST_PROMPT", "MOST_CHUNKS", "Piece", "Reader", "Tokenizer", "Tokens"]

LONGEST_PROMPT = 100_000  # characters; the model reads 75 tokens of them, or a few hundred
MOST_CHUNKS = 32  # of a prompt: the network's attention holds all their tokens at once
_BATCH = 1024  # prompts that are told apart at a time, which bounds memory


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

    def digests(self) -> tuple[bytes, ...]:
        """sha256 of what is read of each prompt: those with the same are one prompt to the model.

        So are prompts that differ in what a tokenizer folds (CLIP's case and spaces, which T5's
        keeps), or behind the last token that is read.
        """
        read = np.ascontiguousarray(self.ids, "<i8")  # wherever it is hashed
        return tuple(hashlib.sha256(row).digest() for row in read)


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


class Reader:
    """What one text encoder reads: prompts in, rows of ids out, all of one length.

    Attributes:
        kind: What errors call tokenizers like it.
        length: Ids of a prompt.
        start: Those that stand before every prompt.
        end: Those that stand behind it.
        known: All ids are below it.
    """

    kind: str

    def __init__(
        self,
        library: Library,
        length: int,
        *,
        pad: int,
        start: tuple[int, ...] = (),
        end: tuple[int, ...] = (),
        triggers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._library = library
        self._pad = pad
        self.length: int = length
        self.start, self.end = start, end
        self._triggers = dict(triggers)
        self.known: int = 1 + max(library.get_vocab().values())

    def written(self, prompt: str) -> Written:
        """A prompt as it is tokenized: with the triggers of textual inversion written out."""
        if not self._triggers:
            return Written(prompt)
        return write_out(prompt, self._triggers, lambda text: self._read_text(text).tokens)

    @property
    def reads(self) -> int:
        """How many ids of a prompt are read."""
        return self.length - len(self.start) - len(self.end)

    def __call__(self, prompts: Sequence[str]) -> NDArray[np.int64]:
        """The ids of `encode`. # [B, length]"""
        return self.encode(prompts).ids

    def encode(self, prompts: Sequence[str]) -> Tokens:
        """Tokenize; what does not fit is cut off, as in pipelines.

        Raises:
            InputError: not a list of texts, too long, or with unpaired surrogates.
        """
        bodies = self.bodies(prompts)
        return Tokens(
            self.filled(bodies, len(bodies)), tuple(len(body) > self.reads for body in bodies)
        )

    def bodies(self, prompts: Sequence[str]) -> list[list[int]]:
        """All ids of each prompt, without start, end and padding.

        Raises:
            InputError: as `encode`.
        """
        self.check(prompts)
        texts = [self.written(each).text for each in prompts]
        found = self._library.encode_batch(texts, add_special_tokens=False)
        # the library fills up a batch only where a file says so, which those that are read never do
        return [encoding.ids for encoding in found]

    def filled(self, bodies: Sequence[Sequence[int]], rows: int) -> NDArray[np.int64]:
        """What fits of each body between start and end, in `rows` rows of padding."""
        ids = np.full((rows, self.length), self._pad, np.int64)
        for row in range(rows):
            body = bodies[row][: self.reads] if row < len(bodies) else ()
            read = [*self.start, *body, *self.end]
            ids[row, : len(read)] = read
        return ids

    def pieces(self, prompt: str) -> tuple[Piece, ...]:
        """What each of the `length` ids of a prompt stands for; what does not fit has no piece.

        Raises:
            InputError: as `encode`.
        """
        _check_prompt(0, prompt)
        written = self.written(prompt)
        found = self._read_text(written.text)
        read = zip(found.tokens, found.offsets, strict=True)
        body = [Piece(token, written.span(*span)) for token, span in read][: self.reads]
        padding = [self._pad] * (self.reads - len(body))
        before, behind = (
            [Piece(str(self._library.id_to_token(id)), None) for id in ids]
            for ids in (self.start, (*self.end, *padding))
        )
        return *before, *body, *behind

    def check(self, prompts: Sequence[str]) -> None:
        """Make sure that these are texts.

        Raises:
            InputError: as `encode`.
        """
        if isinstance(prompts, str) or not isinstance(prompts, Collection):
            raise InputError(
                f"A list of texts is expected, not {type(prompts).__name__}. Wrap it: [prompt]."
            )
        for index, prompt in enumerate(prompts):
            _check_prompt(index, prompt)

    def check_rows(self, rows: int | None, origin: str) -> None:
        """Make sure that a text encoder has an embedding for every token.

        Args:
            rows: How many embeddings it has; None where that is not known.
            origin: What errors call the tokenizer.

        Raises:
            IntegrityError: it has not.
        """
        if rows is not None and self.known > rows:
            vocabulary = self._library.get_vocab()
            beyond = {text: id for text, id in vocabulary.items() if id >= rows}
            token = min(beyond, key=beyond.__getitem__)
            raise IntegrityError(
                f"{origin} has {counted(len(beyond), 'token')} beyond the text encoder's "
                f"{counted(rows, 'embedding')}, {token!r} (id {beyond[token]}) the first. Save "
                "the pipeline with a text encoder resized to its tokenizer "
                "(`resize_token_embeddings`), then export it again."
            )

    def _read_text(self, text: str) -> Encoding:
        return self._library.encode(text, add_special_tokens=False)


class Tokenizer:
    """What a bundle reads prompts with: its readers side by side, the first of them the first.

    Attributes:
        readers: One for each text encoder that reads ids of its own.
    """

    def __init__(self, readers: Sequence[Reader]) -> None:
        self.readers = tuple(readers)
        self.first = self.readers[0]

    @property
    def length(self) -> int:
        """Ids of a prompt that the first text encoder reads."""
        return self.first.length

    @property
    def cut_at(self) -> int:
        """How many ids of a prompt are read by who reads most of it."""
        return max(reader.reads for reader in self.readers)

    @cached_property
    def empty(self) -> NDArray[np.int64]:
        """The ids of the empty prompt. # [1, length] or of all readers side by side"""
        return self.encode([""]).ids

    def __call__(self, prompts: Sequence[str] | Tokens | NDArray[np.int64]) -> NDArray[np.int64]:
        """The ids of prompts: of texts those of `encode`, and what is ids already once `checked`.

        Returns:
            # [B, length] or of all readers side by side

        Raises:
            InputError: as `encode` and `checked`.
        """
        if isinstance(prompts, np.ndarray):
            return self.checked(prompts)
        return (
            self.checked(prompts.ids) if isinstance(prompts, Tokens) else self.encode(prompts).ids
        )

    def encode(self, prompts: Sequence[str]) -> Tokens:
        """Tokenize; what does not fit is cut off, as in pipelines.

        A prompt is truncated if one of those who read most of it does not read all: what a T5 reads
        and CLIP does not, the model reads.

        Raises:
            InputError: not a list of texts, too long, or with unpaired surrogates.
        """
        found = [reader.encode(prompts) for reader in self.readers]
        longest = [
            tokens.truncated
            for reader, tokens in zip(self.readers, found, strict=True)
            if reader.reads == self.cut_at
        ]
        ids = np.concatenate([tokens.ids for tokens in found], axis=1)
        return Tokens(ids, tuple(map(any, zip(*longest, strict=True))))

    def digests(self, prompts: Sequence[str]) -> list[bytes]:
        """What tells prompts apart: `Tokens.digests`, of however many prompts.

        Raises:
            InputError: as `encode`.
        """
        parts = (prompts[k : k + _BATCH] for k in range(0, len(prompts), _BATCH))
        return [each for part in parts for each in self.encode(part).digests()]

    def distinct(self, prompts: Sequence[str]) -> list[str]:
        """Each prompt once, as it is written where it first stands.

        Raises:
            InputError: as `encode`.
        """
        found: dict[bytes, str] = {}
        for read, prompt in zip(self.digests(prompts), prompts, strict=True):
            found.setdefault(read, prompt)
        return [*found.values()]

    def check(self, prompts: Sequence[str]) -> None:
        """Make sure that these are texts.

        Raises:
            InputError: as `encode`.
        """
        self.first.check(prompts)

    def checked(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ids that somebody brought, if the text encoders can read them.

        Of what it cannot read some libraries make zeros, and so a verdict.

        Raises:
            InputError: they are of another type or shape, or one is unknown.
        """
        lengths = [reader.length for reader in self.readers]
        if ids.dtype != np.int64 or ids.ndim != 2 or ids.shape[1] != sum(lengths):
            raise InputError(
                f"Tokens come as int64 [prompts, {sum(lengths)}], not as {ids.dtype} {ids.shape}. "
                "Let `screener.tokenizer.encode` make them."
            )
        parts = np.split(ids, np.cumsum(lengths)[:-1], axis=1)
        for reader, part in zip(self.readers, parts, strict=True):
            # as unsigned ones those below 0 are the largest
            if part.size and part.view(np.uint64).max() >= reader.known:
                raise InputError(
                    f"There are tokens below 0, or beyond the {reader.known} that a text encoder "
                    "knows. Let `screener.tokenizer.encode` make them."
                )
        return ids

    def pieces(self, prompt: str) -> tuple[Piece, ...]:
        """The first reader's; see `Reader.pieces`."""
        return self.first.pieces(prompt)

    def chunks(self, prompt: str, index: int = 0) -> NDArray[np.int64]:
        """All of a prompt, as pipelines read long ones: cut where a reader has read what it reads.

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
        cut = []
        for reader in self.readers:
            [body] = reader.bodies([prompt])
            cut.append([body[k : k + reader.reads] for k in range(0, len(body), reader.reads)])
        count = max(1, *map(len, cut))
        if count > MOST_CHUNKS:
            raise InputError(
                f"Prompt {index} is read in {count} chunks of {self.first.reads} tokens; "
                f"{MOST_CHUNKS} are accepted. Cut the prompt."
            )
        filled = [
            reader.filled(bodies, count) for reader, bodies in zip(self.readers, cut, strict=True)
        ]
        return np.concatenate(filled, axis=1)


def _check_prompt(index: int, prompt: str) -> None:
    """Make sure that it is a text.

    Raises:
        InputError: as `Reader.encode`.
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
