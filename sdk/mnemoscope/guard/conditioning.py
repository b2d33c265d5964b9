"""What a network is told, of one side of guidance or of both, and what it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from .refusing import no_length
from .snapshot import version

__all__ = [
    "EMBEDS",
    "MASK",
    "POOLED",
    "QWEN_MASK",
    "XL_POOLED",
    "Arguments",
    "Baseline",
    "Began",
    "Branch",
    "Lengths",
    "Told",
    "at",
    "rows_of",
]

Arguments = Mapping[str, Any]  # of a pipeline's call, by name
Told = dict[str, Any]  # arguments of the network, by name
Lengths = Literal["chunks", "one", "any"]
EMBEDS = "encoder_hidden_states"
POOLED = "pooled_projections"
MASK = "encoder_attention_mask"
QWEN_MASK = "encoder_hidden_states_mask"
XL_POOLED = "added_cond_kwargs.text_embeds"
_PLACES = ("img_ids", "txt_ids")  # of tokens, the same for all samples


@dataclass(frozen=True)
class Branch:
    """One side of guidance at one step.

    Attributes:
        told: What the network was told, of this side or of both.
        rows: Which of its samples are this side's.
        prediction: Its answer for them. # [B, C, H, W], or [B, N, D] of patches
    """

    told: Told
    rows: slice
    prediction: Tensor

    @property
    def call(self) -> Told:
        """What it was told of this side alone."""
        return rows_of(self.told, self.rows)


class _Expected:
    """Embeddings that calls are compared with."""

    def __init__(self, embeds: Tensor) -> None:  # [1, (L,) D]
        self._values = embeds.float()
        self._largest = self._values.abs().amax(-1)  # of every token
        self._accepted: Tensor | None = None

    def is_near(self, found: Tensor) -> bool:
        """Whether all are equal but for rounding, token by token. # [B, (L,) D]"""
        last = self._accepted  # requests mostly tell the very same: one pass over it shows that
        alike = last is not None and (last.dtype, last.device) == (found.dtype, found.device)
        if last is not None and alike and torch.equal(last, found):
            return True
        near = bool(self.near(found).all())
        if near:
            self._accepted = found.clone()
        return near

    def near(self, found: Tensor) -> Tensor:
        """The same for each. # [B, (L,) D] to [B]"""
        if found.shape[1:] != self._values.shape[1:]:
            return torch.zeros(len(found), dtype=torch.bool)
        values, largest = self._values.to(found.device), self._largest.to(found.device)
        tolerance = 1e-4 if found.dtype == torch.float32 else 1e-2
        away = (found.float() - values).abs_().amax(-1)
        return (away <= tolerance * largest).reshape(len(found), -1).all(1)


@dataclass(frozen=True)
class Baseline:
    """What magnitudes are relative to: what the network is told without a prompt.

    Attributes:
        embeds: # [1, L, D]
        beside: What it is told beside them, by path; None for no mask. # [1, ...] each
        empty: What follows in longer embeddings, where that is something else. # [1, L, D]
        lengths: How many embeddings a prompt has: as many as the empty one, of several chunks as
            often as that, or any number.
    """

    embeds: Tensor
    beside: Mapping[str, Tensor | None] = field(default_factory=dict)
    empty: Tensor | None = None
    lengths: Lengths = "chunks"

    @property
    def reads(self) -> int:
        """How many embeddings a prompt has."""
        return self.embeds.shape[1]

    def of(self, tokens: int) -> Baseline:
        """The same for embeddings of so many tokens, as tools make them that read chunk by chunk.

        Raises:
            InputError: no prompt has so many.
        """
        if tokens == self.reads or self.lengths == "any":
            return self
        if tokens not in self._longer:
            if tokens % self.reads or not tokens or self.lengths == "one":
                raise no_length(tokens, self.reads, chunks=self.lengths == "chunks")
            more = self.embeds if self.empty is None else self.empty
            chunks = [self.embeds] + [more] * (tokens // self.reads - 1)
            self._longer[tokens] = replace(self, embeds=torch.cat(chunks, 1))
        return self._longer[tokens]

    @cached_property
    def _longer(self) -> dict[int, Baseline]:
        return {}

    @cached_property
    def _told(self) -> dict[str, Tensor | None]:
        """By path."""
        return {EMBEDS: self.embeds, **self.beside}

    @cached_property
    def _expected(self) -> dict[str, _Expected | None]:
        return {
            path: None if each is None else _Expected(each) for path, each in self._told.items()
        }

    def is_told(self, branch: Branch) -> bool:
        """Whether the network was told just that, but for rounding.

        Raises:
            InputError: what it was told has no such length.
        """
        for expected, now in self._pairs(branch):
            if now is None or expected is None:
                if now is not None or expected is not None:
                    return False
            elif not expected.is_near(now):
                return False
        return True

    def told_of(self, branch: Branch) -> list[bool]:
        """The same of each image.

        Raises:
            InputError: what it was told has no such length.
        """
        if self.lengths == "any":
            return self._unpadded(branch)
        found = torch.ones(len(branch.prediction), dtype=torch.bool)
        for expected, now in self._pairs(branch):
            if now is not None and expected is not None:
                found &= expected.near(now).cpu()
        alike: list[bool] = found.tolist()
        return alike

    def _unpadded(self, branch: Branch) -> list[bool]:
        """`told_of`, where prompts of a batch are filled up to the longest."""
        embeds, mask = branch.told[EMBEDS][branch.rows], at(branch.told, QWEN_MASK)
        counts = [embeds.shape[1]] * len(embeds)
        if mask is not None:
            counts = mask[branch.rows].sum(1).int().tolist()
        expected = _Expected(self.embeds)
        rows = zip(embeds, counts, strict=True)
        return [bool(expected.near(each[None, :count]).all()) for each, count in rows]

    def _pairs(self, branch: Branch) -> list[tuple[_Expected | None, Tensor | None]]:
        expected = self.of(branch.told[EMBEDS].shape[1])._expected
        told = ((path, at(branch.told, path)) for path in expected)
        return [(expected[path], None if now is None else now[branch.rows]) for path, now in told]

    def instead(self, told: Told) -> Told:
        """The same call, told that.

        Raises:
            InputError: what it was told has no such length.
        """
        now = told[EMBEDS]
        for path, value in self.of(now.shape[1])._told.items():
            if value is not None:
                dtype = getattr(at(told, path), "dtype", value.dtype)
                value = value.to(now.device, dtype).expand(len(now), *value.shape[1:])
            told = put(told, path, value)
        return told


def at(told: Told, path: str) -> Any:
    """An argument of a network, also of arguments in a dictionary ("added.text"); None if none."""
    first, _, rest = path.partition(".")
    found = told.get(first)
    return found if not rest or found is None else found.get(rest)


def put(told: Told, path: str, value: Any) -> Told:
    """The same arguments but for one."""
    first, _, rest = path.partition(".")
    return {**told, first: {**told[first], rest: value} if rest else value}


class Began:
    """Embeddings at the first step: of the prompts, and of what guidance compares them with."""

    def __init__(self, embeds: Tensor, first: int) -> None:
        self._rows, self._others = embeds[first:].clone(), embeds[:first].clone()
        self._last, self._version, self._both = embeds, version(embeds), True

    def is_still(self, embeds: Tensor, first: int, both: bool) -> bool:
        """Whether they are the same; read only if they may be others.

        Args:
            embeds: What the network is told now.
            first: Row of the first image; 0 where there is no guidance any more.
            both: Whether those before it have to be the same too.
        """
        counts = not embeds.is_inference() and (self._both or not both)
        if counts and embeds is self._last and version(embeds) == self._version:
            return True
        self._last, self._version, self._both = embeds, version(embeds), both
        others = not both or first == 0 or torch.equal(embeds[:first], self._others)
        return others and torch.equal(embeds[first:], self._rows)


def rows_of(told: Told, rows: slice | list[int]) -> Told:
    """The same call for some of its samples."""
    count = len(told[EMBEDS])

    def take(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: take(each) for name, each in value.items()}
        batched = isinstance(value, Tensor) and value.ndim > 0 and len(value) == count
        return value[rows] if batched else value

    return {name: value if name in _PLACES else take(value) for name, value in told.items()}
