"""Long prompts as pipelines read them that cut nothing off: chunk by chunk.

compel (`truncate_long_prompts=False`) and, but for where they prefer to cut, A1111 and ComfyUI
embed every 75 tokens with a start and an end of their own, and tell the network all of it side by
side. The baseline is the embedded empty prompt as often. Stable Diffusion XL's pooled embedding is
that of the first chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mnemoscope_runtime import Embeddings, InputError, Screener, Tokens
from mnemoscope_runtime.families import family_named

__all__ = ["by_chunks", "check_chunks", "embed_chunks"]


def check_chunks(screener: Screener) -> None:
    """Make sure that a bundle takes prompts of several chunks, before one comes.

    Raises:
        InputError: it does not.
    """
    manifest, length = screener.bundle.manifest, screener.tokens
    if manifest.any_length:
        return
    family = family_named(manifest.model.family)
    if family.any_length:
        why = "it was exported without --any-length"
        advice = "Export the PyTorch model with --any-length, or screen without chunks (--chunks)"
    else:
        why = f"{family.name} is told of no other number"
        advice = "Screen without chunks (--chunks)"
    raise InputError(
        f"{screener.bundle.path} takes {length} tokens and no more, so that it cannot read longer "
        f"prompts in chunks of {length}: {why}. {advice}; then what is longer is cut."
    )


def by_chunks(
    screener: Screener, prompts: Sequence[str], tokens: Tokens
) -> Iterator[tuple[list[int], Tokens | Embeddings]]:
    """Prompts of as many chunks together: which ones, and what the network is to be told of them.

    Args:
        screener: Of a bundle that takes embeddings of any length.
        prompts: They may be of different numbers of chunks.
        tokens: Of the same prompts; those of one chunk are screened as they are.

    Raises:
        InputError: a prompt cannot be used.
    """
    counts = [len(screener.tokenizer.chunks(prompt, k)) for k, prompt in enumerate(prompts)]
    for count in sorted(set(counts)):
        rows = [k for k, each in enumerate(counts) if each == count]
        group = [prompts[k] for k in rows]
        yield rows, tokens.rows(rows) if count == 1 else embed_chunks(screener, group)


def embed_chunks(screener: Screener, prompts: Sequence[str]) -> Embeddings:
    """Embed prompts of as many chunks each.

    Args:
        screener: Of a bundle that takes embeddings of any length, unless one chunk is all.
        prompts: They are embedded together, so that they must be of as many chunks.

    Raises:
        InputError: they are not, a prompt cannot be used, or the bundle takes one chunk.
    """
    ids = [screener.tokenizer.chunks(prompt) for prompt in prompts]
    counts = {len(each) for each in ids}
    if len(counts) != 1:
        raise InputError(
            f"These prompts are of {' and '.join(map(str, sorted(counts)))} chunks. Embed those of "
            "as many chunks together."
        )
    (count,) = counts
    tokens, *pooled = screener.embed(np.concatenate(ids))
    return screener.embeddings(
        tokens.reshape(len(prompts), count * tokens.shape[1], -1),
        *(each.reshape(len(prompts), count, -1)[:, 0] for each in pooled),
    )
