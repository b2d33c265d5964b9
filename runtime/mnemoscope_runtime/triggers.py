"""Triggers of textual inversion that stand for several vectors: `<x>` for `<x> <x>_1 <x>_2`.

diffusers writes them out before it tokenizes (`TextualInversionLoaderMixin.maybe_convert_prompt`),
so that a prompt names all of them although the user wrote one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from .errors import InputError

__all__ = ["LONGEST", "Written", "lowered", "triggers", "write_out"]

LONGEST = 1_000_000  # characters of a prompt when all is written out


@dataclass(frozen=True)
class Written:
    """A prompt as it is tokenized: with its triggers written out, or in lower case.

    Attributes:
        text: What is tokenized.
        origins: For each character of it, the characters of the prompt that it stands for, from and
            to; None where nothing was written out.
    """

    text: str
    origins: tuple[tuple[int, int], ...] | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Characters of the prompt, for characters of the text."""
        if self.origins is None or start >= end:
            return start, end
        return self.origins[start][0], self.origins[end - 1][1]


def lowered(prompt: str) -> Written:
    """A prompt in lower case, without space around it, as Python's str.lower and str.strip do."""
    lower = prompt.lower()
    first = len(lower) - len(lower.lstrip())
    # a character may have several in lower case
    origins = [(k, k + 1) for k, each in enumerate(prompt) for _ in each.lower()]
    text = lower.strip()
    return Written(text, tuple(origins[first : first + len(text)]))


def triggers(added: Collection[str]) -> dict[str, str]:
    """What each added token of several vectors is written out as.

    Args:
        added: The tokens that were added to a vocabulary.
    """
    found = {}
    for token in sorted(added):
        parts = [token]
        while f"{token}_{len(parts)}" in added:
            parts.append(f"{token}_{len(parts)}")
        if len(parts) > 1:
            found[token] = " ".join(parts)
    return found


def write_out(
    prompt: str, known: dict[str, str], tokens_of: Callable[[str], Collection[str]]
) -> Written:
    """Write out the triggers of a prompt, as diffusers does.

    A trigger counts where the tokenizer reads it as one token, and is then replaced wherever its
    characters stand. Where triggers contain each other diffusers replaces them in no certain order;
    here it is that of their names.

    Args:
        prompt: The prompt.
        known: `triggers` of the vocabulary.
        tokens_of: What the tokenizer reads of a text, untruncated.

    Raises:
        InputError: it becomes longer than `LONGEST`.
    """
    if not any(token in prompt for token in known):
        return Written(prompt)
    text, origins = prompt, [(k, k + 1) for k in range(len(prompt))]
    read = set(tokens_of(prompt))
    for token, written in known.items():
        if token not in read:
            continue
        if len(text) + text.count(token) * (len(written) - len(token)) > LONGEST:
            raise InputError(
                f"A prompt has more than {LONGEST:,} characters when its textual inversions are "
                "written out. Name them less often."
            )
        parts, places, last = [], [], 0
        while (at := text.find(token, last)) >= 0:
            end = at + len(token)
            parts += [text[last:at], written]
            places += origins[last:at]
            places += [(origins[at][0], origins[end - 1][1])] * len(written)
            last = end
        text, origins = "".join([*parts, text[last:]]), [*places, *origins[last:]]
    return Written(text, tuple(origins))
