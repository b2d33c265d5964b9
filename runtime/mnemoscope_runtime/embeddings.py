"""What a pipeline tells its network of prompts, where that is not of the bundle's own tokens.

Prompt weighting, long prompts in chunks, mixed prompts: whatever a pipeline does to embeddings, the
network sees them and a baseline of the same length, and so does the magnitude.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .errors import InputError
from .families import family_named
from .manifest import EMPTY, Manifest
from .predictions import Array, Embeds
from .tokenizer import Tokens

__all__ = ["Embeddings", "Prompts", "checked"]


_MASKS = ("prompt_mask", EMPTY["prompt_mask"])
_SAME = 5e-3  # relative: what a pipeline in half precision makes of the same baseline


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Prompts as a pipeline embeds them. Made by `Screener.embeddings`, which checks them.

    Attributes:
        embeds: What the network is told of prompts, in the order of the manifest's `embeddings`.
            # ([B, L, D],), for Stable Diffusion XL ([B, L, D], [B, P])
        empty: The baseline, of the same length: what the unconditional branch is told. # [1, ...]
        as_tokens: Whether length and baseline are those of the bundle's tokens, so that magnitudes
            are on the scale of theirs.
    """

    embeds: Embeds
    empty: Embeds
    as_tokens: bool

    def __len__(self) -> int:
        return len(self.embeds[0])

    def __getitem__(self, rows: slice) -> Embeddings:
        return replace(self, embeds=tuple(each[rows] for each in self.embeds))

    @property
    def length(self) -> int:
        """How many tokens the network is told of: L."""
        return int(self.embeds[0].shape[1])


Prompts = Sequence[str] | Tokens | Embeddings
"""What a screener measures: texts, what a tokenizer made of them, or embeddings."""


def checked(
    manifest: Manifest,
    nothing: Embeds,
    filling: Embeds,
    given: Mapping[str, object],
    baseline: Mapping[str, object],
) -> Embeddings:
    """See `Screener.embeddings`.

    Args:
        manifest: Of the bundle.
        nothing: The bundle's baseline, of one chunk. # [1, ...] each
        filling: What fills it up where prompts are of more: the embedded empty prompt, whatever the
            baseline is. # [1, ...] each
        given: Embeddings of prompts by their names in the manifest, or None.
        baseline: Those of the baseline, likewise.
    """
    names = manifest.embeddings
    for name, value in given.items():
        if (value is None) == (name in names):
            raise InputError(
                f"{name} is {'missing' if value is None else 'given'}, but this model's network is "
                f"told {' and '.join(names)}."
            )
    known: dict[str, Array] = dict(zip(names, nothing, strict=True))
    embeds: dict[str, Array] = {name: _array(name, given[name], known[name].ndim) for name in names}
    rows = [len(each) for each in embeds.values()]
    if not rows[0] or len(set(rows)) > 1:
        raise InputError(
            f"There are {' and '.join(map(str, rows))} rows of embeddings. Give as many of each, "
            "one for every prompt."
        )
    length, read = embeds[names[0]].shape[1], nothing[0].shape[1]
    if length != read and not (manifest.any_length and length):
        family = family_named(manifest.model.family)
        raise InputError(
            f"The embeddings are of {length} tokens, and the bundle takes {read}. "
            + (
                "Export the PyTorch model with --any-length."
                if family.any_length
                else f"{family.name} is told of no other number: give embeddings of {read}."
            )
        )
    empty = _baseline(known, filling[0], embeds, baseline)
    empty = {name: _one(name, each, rows[0]) for name, each in empty.items()}
    for name, some in embeds.items():
        wanted = (1, *some.shape[1:])
        if some.shape[-1] != known[name].shape[-1] or empty[name].shape != wanted:
            raise InputError(
                f"{name} has the shape {some.shape} and its baseline {empty[name].shape}; the "
                f"network takes a width of {known[name].shape[-1]}, and one baseline {wanted} for "
                "all."
            )
    own = length == read and all(_same(empty[name], known[name]) for name in names)
    return Embeddings(tuple(embeds.values()), tuple(empty.values()), own)


def _baseline(
    known: Mapping[str, Array],
    filling: Array,
    embeds: Mapping[str, Array],
    given: Mapping[str, object],
) -> dict[str, Array]:
    if all(value is None for value in given.values()):
        # pipelines that embed prompts in chunks fill up the shorter one with chunks of nothing
        first = next(iter(known))
        length, read = embeds[first].shape[1], known[first].shape[1]
        if length % read:
            raise InputError(
                f"The embeddings are of {length} tokens, no multiple of {read}, so which baseline "
                "they have is not known. Give the pipeline's negative_prompt_embeds as "
                "empty_embeds."
            )
        chunks = [known[first], *[filling] * (length // read - 1)]
        return {**known, first: np.concatenate(chunks, axis=1)}
    missing = [EMPTY[name] for name in known if given[name] is None]
    if missing or any(given[name] is not None for name in given if name not in known):
        raise InputError(
            f"The baseline of {' and '.join(known)} goes together"
            f"{f': {missing[0]} is missing' if missing else ', and there is more'}. Give it "
            "whole, or leave it out for the empty prompt."
        )
    return {name: _array(EMPTY[name], given[name], known[name].ndim) for name in known}


def _same(some: Array, other: Array) -> bool:
    return bool(np.linalg.norm(some - other) <= _SAME * np.linalg.norm(other))


def _one(name: str, rows: Array, prompts: int) -> Array:
    """The row that pipelines repeat for every prompt. # [1, ...], or as given"""
    if len(rows) == 1 or len(rows) != prompts:
        return rows
    for k, row in enumerate(rows):
        if not _same(row, rows[0]):
            raise InputError(
                f"Row {k} of {EMPTY[name]} is not row 0, and all prompts of a call have one "
                "baseline. Screen those of each negative prompt by themselves."
            )
    return rows[:1]


def _array(name: str, value: Any, dimensions: int) -> Array:
    """An array of numpy, torch or whatever converts to one, in float32."""
    try:
        if hasattr(value, "detach"):  # torch's own, also where numpy has no such dtype
            value = value.detach().to("cpu")
            value = value.float() if value.is_floating_point() else value
        found = np.asarray(value)
    except Exception as error:  # whatever the object raises
        raise InputError(f"{name} is no array: {error}. Give the pipeline's own tensor.") from None
    if name in _MASKS:
        if found.dtype.kind not in "fiub" or not np.isin(found, (0, 1)).all():
            raise InputError(f"{name} is no mask: it holds more than 0 and 1. Give the pipeline's.")
    elif found.dtype.kind != "f":
        raise InputError(
            f"{name} holds {found.dtype}, not floating point. Give embeddings, not tokens or text."
        )
    if found.ndim != dimensions:
        width = "tokens" if name in _MASKS else "width"
        form = "[batch, tokens, width]" if dimensions == 3 else f"[batch, {width}]"
        raise InputError(f"{name} has the shape {found.shape}; give {form}.")
    found = found.astype(np.float32)
    finite = np.isfinite(found)
    if not finite.all():
        bad = int(np.argwhere(~finite)[0, 0])
        raise InputError(
            f"{name} is NaN or infinite in row {bad}. Embed in float32: half precision overflows."
        )
    return found
