"""What a detection says beside its verdict."""

from __future__ import annotations

from mnemoscope_runtime import Embeddings, Tokens

from .weighting import weighting

__all__ = ["notes_on"]

_SHOWN = 3  # pieces
_EMPTY = "It is empty: there is nothing to compare with the empty prompt, and so no verdict."


def notes_on(
    prompt: str,
    told: Tokens | Embeddings,
    cut: int | None,
    *,
    literal: bool,
    any_length: bool,
    empty: bool = False,
) -> tuple[str, ...]:
    """Sentences about one prompt.

    Args:
        prompt: The prompt, or what embeddings are called.
        told: What was screened.
        cut: After how many tokens it was cut off; None where it was not.
        literal: Whether the bundle's tokens were read, and not a pipeline's embeddings.
        any_length: Whether the bundle takes prompts in chunks.
        empty: Whether the model reads the empty prompt there.
    """
    notes = [_EMPTY] if empty else []
    if isinstance(told, Embeddings) and not told.as_tokens:
        notes.append(
            f"It was screened as {told.length} tokens, whose scores are on a scale of their own."
        )
    if cut is not None:
        notes.append(
            f"Only its first {cut} tokens were screened. If your pipeline reads long prompts in "
            f"chunks, {'' if any_length else 'export the bundle with --any-length and '}screen "
            "them so (--chunks)."
        )
    if literal and (pieces := weighting(prompt)):
        shown = ", ".join(pieces[:_SHOWN]) + (", ..." if len(pieces) > _SHOWN else "")
        notes.append(
            f"{shown} was read literally. If your pipeline makes weights of it, screen its "
            "embeddings (Detector.screen_embeddings)."
        )
    return tuple(notes)
