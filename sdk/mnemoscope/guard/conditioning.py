"""What a UNet is told, of one side of guidance or of both, and what it is compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .refusing import no_length
from .snapshot import version

__all__ = ["EMBEDS", "Baseline", "Began", "Branch", "Told", "named", "rows_of"]

Told = dict[str, Any]  # arguments of the UNet, by name
EMBEDS = "encoder_hidden_states"


@dataclass(frozen=True)
class Branch:
    """One side of guidance at one step.

    Attributes:
        told: What the UNet was told, of this side or of both.
        rows: Which of its samples are this side's.
        prediction: Its answer for them. # [B, C, H, W]
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
        away = (found - values).abs_().amax(-1)  # in fp32, whatever is found
        return (away <= tolerance * largest).reshape(len(found), -1).all(1)


@dataclass(frozen=True)
class Baseline:
    """What magnitudes are relative to: what the UNet is told without a prompt.

    Attributes:
        embeds: # [1, L, D]
        pooled: Stable Diffusion XL's. # [1, P]
        empty: What follows in longer embeddings, where that is something else. # [1, L, D]
    """

    embeds: Tensor
    pooled: Tensor | None
    empty: Tensor | None = None

    @property
    def reads(self) -> int:
        """How many embeddings a prompt has."""
        return self.embeds.shape[1]

    def of(self, tokens: int) -> Baseline:
        """The same for embeddings of so many tokens, as tools make them that read chunk by chunk.

        Raises:
            InputError: they are no whole number of chunks.
        """
        if tokens == self.reads:
            return self
        if tokens not in self._longer:
            if tokens % self.reads or not tokens:
                raise no_length(tokens, self.reads)
            more = self.embeds if self.empty is None else self.empty
            chunks = [self.embeds] + [more] * (tokens // self.reads - 1)
            self._longer[tokens] = replace(self, embeds=torch.cat(chunks, 1))
        return self._longer[tokens]

    @cached_property
    def _longer(self) -> dict[int, Baseline]:
        return {}

    @cached_property
    def _expected(self) -> tuple[_Expected, ...]:
        return tuple(_Expected(each) for each in (self.embeds, self.pooled) if each is not None)

    def is_told(self, branch: Branch) -> bool:
        """Whether the UNet was told just that, but for rounding.

        Raises:
            InputError: what it was told has no such length.
        """
        return all(expected.is_near(each) for expected, each in self._pairs(branch))

    def told_of(self, branch: Branch) -> list[bool]:
        """The same of each image.

        Raises:
            InputError: what it was told has no such length.
        """
        near = [expected.near(each).tolist() for expected, each in self._pairs(branch)]
        return [all(each) for each in zip(*near, strict=True)]

    def _pairs(self, branch: Branch) -> list[tuple[_Expected, Tensor]]:
        found = [branch.told[EMBEDS]]
        if self.pooled is not None:
            found.append(branch.told["added_cond_kwargs"]["text_embeds"])
        rows = (each[branch.rows] for each in found)
        return [*zip(self.of(found[0].shape[1])._expected, rows, strict=True)]

    def instead(self, told: Told) -> Told:
        """The same call, told that.

        Raises:
            InputError: what it was told has no such length.
        """
        embeds = self.of(told[EMBEDS].shape[1]).embeds
        told = told | {EMBEDS: embeds.to(told[EMBEDS]).expand_as(told[EMBEDS])}
        if self.pooled is not None:
            added = told["added_cond_kwargs"]
            pooled = self.pooled.to(added["text_embeds"]).expand_as(added["text_embeds"])
            told["added_cond_kwargs"] = {**added, "text_embeds": pooled}
        return told


class Began:
    """Embeddings at the first step: of the prompts, and of what guidance compares them with."""

    def __init__(self, embeds: Tensor, first: int) -> None:
        self._rows, self._others = embeds[first:].clone(), embeds[:first].clone()
        self._last, self._version, self._both = embeds, version(embeds), True

    def is_still(self, embeds: Tensor, first: int, both: bool) -> bool:
        """Whether they are the same; read only if they may be others.

        Args:
            embeds: What the UNet is told now.
            first: Row of the first image; 0 where there is no guidance any more.
            both: Whether those before it have to be the same too.
        """
        counts = not embeds.is_inference() and (self._both or not both)
        if counts and embeds is self._last and version(embeds) == self._version:
            return True
        self._last, self._version, self._both = embeds, version(embeds), both
        others = not both or first == 0 or torch.equal(embeds[:first], self._others)
        return others and torch.equal(embeds[first:], self._rows)


def named(args: tuple[Any, ...], kwargs: Told) -> Told:
    """Arguments of a UNet by name."""
    names = ("sample", "timestep", EMBEDS)
    return {**dict(zip(names, args, strict=False)), **kwargs}


def rows_of(told: Told, rows: slice | list[int]) -> Told:
    """The same call for some of its samples."""
    count = len(told["sample"])

    def take(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: take(each) for name, each in value.items()}
        batched = isinstance(value, Tensor) and value.ndim > 0 and len(value) == count
        return value[rows] if batched else value

    return {name: take(value) for name, value in told.items()}
