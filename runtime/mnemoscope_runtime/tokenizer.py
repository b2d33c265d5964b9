"""CLIP's tokenizer, without transformers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from .bundle import Bundle
from .errors import InputError, IntegrityError
from .manifest import TokenizerRecord
from .tokenizer_json import Refused, checked
from .triggers import Written, triggers, write_out

__all__ = ["LONGEST_PROMPT", "MOST_CHUNKS", "ClipTokenizer", "Piece", "Tokens"]

LONGEST_PROMPT = 100_000  # characters; the model reads 75 tokens of them
MOST_CHUNKS = 32  # of a prompt: the UNet's attention holds all their tokens at once
_FILE = "tokenizer/tokenizer.json"
_FILE_2 = "tokenizer_2/tokenizer.json"
_START, _END = "<|startoftext|>", "<|endoftext|>"


@dataclass(frozen=True)
class Tokens:
    """What a model reads of some prompts.

    Attributes:
        ids: One row for each prompt: those of the first text encoder, and behind them those of the
            second where there are two. # [B, length] or [B, 2 * length]
        truncated: For each prompt, whether its end did not fit: the model never sees it.
    """

    ids: NDArray[np.int64]
    truncated: tuple[bool, ...]

    def rows(self, chosen: Sequence[int]) -> Tokens:
        """Those of some of the prompts."""
        return Tokens(self.ids[list(chosen)], tuple(self.truncated[k] for k in chosen))


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
    """Turns prompts into ids exactly as transformers' CLIPTokenizer does for Stable Diffusion.

    Triggers of textual inversion that stand for several vectors are written out as diffusers does.
    """

    def __init__(
        self,
        definition: bytes,
        *,
        length: int = 77,
        pad_token: str = _END,
        second: ClipTokenizer | None = None,
        origin: str = _FILE,
    ) -> None:
        """Read a `tokenizer.json`, which may be hostile (`tokenizer_json`).

        Args:
            definition: The contents of the file.
            length: Ids per prompt: the text encoder's context length.
            pad_token: What fills up short prompts; "!" in Stable Diffusion 2.
            second: What a second text encoder reads, of the same length.
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
        self._tokenizer = tokenizer
        self._start, self._end = tokenizer.encode("").ids
        self._pad = pad
        self._triggers = triggers(
            {token.content for token in tokenizer.get_added_tokens_decoder().values()}
        )
        self.length: int = length
        self.second = second
        self._ids = 1 + max(tokenizer.get_vocab().values())  # all are below it

    @classmethod
    def of(cls, bundle: Bundle) -> ClipTokenizer:
        """The tokenizer of a bundle, or its two.

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
        return cls._read(bundle, _FILE, manifest.tokenizer, second)

    @classmethod
    def _read(
        cls,
        bundle: Bundle,
        file: str,
        record: TokenizerRecord,
        second: ClipTokenizer | None = None,
    ) -> ClipTokenizer:
        found = cls(
            bundle.read(file),
            length=record.length,
            pad_token=record.pad_token,
            second=second,
            origin=file,
        )
        found.check_rows(record.rows, f"{bundle.path / file}")
        return found

    def check_rows(self, rows: int | None, origin: str) -> None:
        """Make sure that a text encoder has an embedding for every token.

        Args:
            rows: How many embeddings it has; None where that is not known.
            origin: What errors call the tokenizer.

        Raises:
            IntegrityError: it has not.
        """
        if rows is not None and self._ids > rows:
            vocabulary = self._tokenizer.get_vocab()
            beyond = {text: id for text, id in vocabulary.items() if id >= rows}
            token = min(beyond, key=beyond.__getitem__)
            raise IntegrityError(
                f"{origin} has {len(beyond)} tokens beyond the text encoder's {rows} embeddings, "
                f"{token!r} (id {beyond[token]}) the first. Save the pipeline with a text encoder "
                "resized to its tokenizer (`resize_token_embeddings`), then export it again."
            )

    def checked(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ids that somebody brought, if the text encoder can read them.

        Of what it cannot read some libraries make zeros, and so a verdict.

        Raises:
            InputError: they are of another type or shape, or one is unknown.
        """
        own = self.length if self.second is None else self.length + self.second.length
        if ids.dtype != np.int64 or ids.ndim != 2 or ids.shape[1] != own:
            raise InputError(
                f"Tokens come as int64 [prompts, {own}], not as {ids.dtype} {ids.shape}. "
                "Let `screener.tokenizer.encode` make them."
            )
        for reader, part in ((self, ids[:, : self.length]), (self.second, ids[:, self.length :])):
            # as unsigned ones those below 0 are the largest
            if reader is not None and part.size and part.view(np.uint64).max() >= reader._ids:
                raise InputError(
                    f"There are tokens below 0, or beyond the {reader._ids} that a text encoder "
                    "knows. Let `screener.tokenizer.encode` make them."
                )
        return ids

    @cached_property
    def empty(self) -> NDArray[np.int64]:
        """The ids of the empty prompt. # [1, length] or [1, 2 * length]"""
        return self.encode([""]).ids

    def __call__(self, prompts: Sequence[str]) -> NDArray[np.int64]:
        """The ids of `encode`: # [B, length] or [B, 2 * length]."""
        return self.encode(prompts).ids

    def encode(self, prompts: Sequence[str]) -> Tokens:
        """Tokenize; what does not fit is cut off, as in Stable Diffusion.

        Raises:
            InputError: not a list of texts, too long, or with unpaired surrogates.
        """
        bodies = self.bodies(prompts)
        ids = np.full((len(bodies), self.length), self._pad, np.int64)
        for row, body in zip(ids, bodies, strict=True):
            self._fill(row, body)
        truncated = tuple(len(body) > self.length - 2 for body in bodies)
        if self.second is None:
            return Tokens(ids, truncated)
        second = self.second.encode(prompts)
        either = tuple(a or b for a, b in zip(truncated, second.truncated, strict=True))
        return Tokens(np.concatenate([ids, second.ids], axis=1), either)

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
            _check(index, prompt)

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
                reader._fill(row, body[k * size : (k + 1) * size])
            halves.append(rows)
        return np.concatenate(halves, axis=1)

    def pieces(self, prompt: str) -> tuple[Piece, ...]:
        """What each of the `length` ids of a prompt stands for; what does not fit has no piece.

        Of two tokenizers this is the first's.

        Raises:
            InputError: as `encode`.
        """
        _check(0, prompt)
        written = self._written(prompt)
        found = self._read_text(written.text)
        read = zip(found.tokens, found.offsets, strict=True)
        body = [Piece(token, written.span(*span)) for token, span in read][: self.length - 2]
        around = [Piece(self._text(id), None) for id in (self._start, self._end, self._pad)]
        padding = [around[2]] * (self.length - 2 - len(body))
        return around[0], *body, around[1], *padding

    def _fill(self, row: NDArray[np.int64], body: Sequence[int]) -> None:
        """Write start, what fits of a body, and end into a row of padding."""
        body = body[: len(row) - 2]
        row[: len(body) + 2] = [self._start, *body, self._end]

    def _written(self, prompt: str) -> Written:
        return write_out(prompt, self._triggers, lambda text: self._read_text(text).tokens)

    def _read_text(self, text: str) -> Encoding:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _text(self, id: int) -> str:
        return str(self._tokenizer.id_to_token(id))


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
