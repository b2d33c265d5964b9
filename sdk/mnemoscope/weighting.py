"""Prompts that some pipelines read otherwise than letter by letter."""

from __future__ import annotations

import re

__all__ = ["weighting"]

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)"  # one way to match, so that long ones take no longer
_FORMS = re.compile(
    "|".join(
        (
            rf"\([^()]*:\s*{_NUMBER}\s*\)",  # (word:1.3), A1111 and ComfyUI
            r"\(\([^()]+\)\)|\[\[[^\[\]]+\]\]",  # ((word)), [[word]]
            rf"\[[^\[\]:]*(?::[^\[\]:]*)?:\s*{_NUMBER}\s*\]",  # [from:to:0.5], [to:10]
            r"\[[^\[\]|]+(?:\|[^\[\]|]+)+\]",  # [a|b], taken in turn
            rf"\([^()]+\)(?:[-+]+(?!\w)|{_NUMBER}(?!\w))",  # (word)++, (word)1.3, compel
            r"(?<!\w)[^\W\d]\w+(?:\+{2,}|-{2,})(?!\w|-)",  # word++; C++ is a word of one letter
            r"\)\.(?:blend|and)\(",  # ("a", "b").blend(0.5, 0.5)
            r"<(?:lora|lyco|hypernet):[^<>]+>",
            r"(?<!\w)embedding:[^\s,()]+",
            r"\{[^{}|]*(?:\|[^{}|]*)+\}",  # {a|b}, drawn from
        )
    )
)
_BREAK = re.compile(r"(?<!\w)BREAK(?!\w)")


def weighting(prompt: str) -> tuple[str, ...]:
    """What in a prompt looks like weights, schedules, adapters or breaks.

    The bundle's tokens spell it out, as a pipeline of diffusers does by itself; A1111, ComfyUI,
    compel and others make embeddings of it that are not those of its letters. Single parentheses
    and brackets, which some of them take for weights too, are not looked for: prose has them.

    Returns:
        The pieces, in order.
    """
    found = [(match.start(), match.group()) for match in _FORMS.finditer(prompt)]
    if prompt != prompt.upper():  # or it shouts
        found += [(match.start(), match.group()) for match in _BREAK.finditer(prompt)]
    return tuple(piece for _, piece in sorted(found))
