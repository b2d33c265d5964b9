"""Prompts that some pipelines read otherwise than letter by letter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["read_literally", "weighting"]

_SHOWN = 3  # pieces of a kind

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_FORMS = re.compile(
    "|".join(
        (
            # word+, word--, compel; C++ is a word of one letter, and addresses hold no words
            r"(?<![\w%&=/-])[^\W\d]\w+(?:\++|-+)(?!\w|-)",
            r"\)\.(?:blend|and)\(",  # ("a", "b").blend(0.5, 0.5)
            r"<(?:lora|lyco|hypernet):[^<>]+>",
            r"(?<!\w)embedding:[^\s,()]+",
            r"(?<!\w)__(?!_)[\w/*-]{1,99}?__(?!\w)",  # __animal__, drawn from a file
            r"\\[()\[\]]",  # \( is a bracket and no weight
        )
    )
)
_ANY = re.compile(r"[()\[\]{}<:\\+-]|__|AND|BREAK")  # without one of these there is nothing
_WORDS = re.compile(r"(?<!\w)(?:AND|BREAK)(?!\w)")
_SIGNS = re.compile(r"\\.|[()\[\]{}:|]", re.DOTALL)  # what is escaped is none of them
_WEIGHT = re.compile(rf"\s*{_NUMBER}(?![\w:])\s*")
_BEHIND = re.compile(rf"(?:[-+]+|{_NUMBER})(?!\w)")
_OPENS = {")": "(", "]": "[", "}": "{"}
_OTHERWISE = {  # by kinds of pieces: what others make of them, and what to do then
    "weight": "If your pipeline makes weights of it, screen its embeddings "
    "(Detector.screen_embeddings).",
    "schedule": "If your pipeline changes the prompt by it while it draws, screen each prompt that "
    "it becomes.",
    "choice": "If your tool puts one of several texts in its place, screen the texts that it "
    "makes.",
    "adapter": "If your tool loads an adapter for it, take it out of the prompt, and screen with a "
    "bundle of the model with that adapter (`mnemoscope export --lora`).",
    "word": "If your tool puts a learned word in its place, screen with a bundle that knows it "
    "(`mnemoscope export --embedding`).",
    "parts": "If your pipeline reads what stands before and behind it apart, screen its embeddings "
    "(Detector.screen_embeddings).",
    "bracket": "If your pipeline takes the backslash for no part of the text, screen the text "
    "without it.",
}


def weighting(prompt: str) -> tuple[str, ...]:
    """What in a prompt looks like weights, schedules, choices, adapters or breaks.

    The bundle's tokens spell it out, as a pipeline of diffusers does by itself; A1111, ComfyUI,
    compel and others make embeddings of it that are not those of its letters. Single parentheses
    and brackets, which some of them take for weights too, are not looked for: prose has them.

    Returns:
        The pieces, in order; of those within each other the outermost.
    """
    if _ANY.search(prompt) is None:  # as in most prompts, which need not wait for more
        return ()
    found = [*_bracketed(prompt), *(match.span() for match in _FORMS.finditer(prompt))]
    if prompt != prompt.upper():  # or it shouts
        found += [match.span() for match in _WORDS.finditer(prompt)]
    pieces, end = [], 0
    for span in sorted(found, key=lambda span: (span[0], -span[1])):
        if span[0] >= end:
            pieces.append(prompt[slice(*span)])
            end = span[1]
    return tuple(pieces)


def read_literally(prompt: str) -> str | None:
    """A note on such pieces: what each may be to others, and what to screen then; None of prose."""
    kinds: dict[str, list[str]] = {}
    for piece in weighting(prompt):
        kinds.setdefault(_kind(piece), []).append(piece)
    notes = []
    for kind, pieces in kinds.items():
        shown = ", ".join(pieces[:_SHOWN]) + (", ..." if len(pieces) > _SHOWN else "")
        notes.append(f"{shown} was read literally. {_OTHERWISE[kind]}")
    return " ".join(notes) or None


def _kind(piece: str) -> str:
    if piece.startswith("<"):
        return "adapter"
    if piece.startswith("embedding:"):
        return "word"
    if piece.startswith("\\"):
        return "bracket"
    if piece in ("AND", "BREAK"):
        return "parts"
    if piece.startswith("__") or (piece.startswith("{") and "|" in piece):
        return "choice"
    if piece.startswith("[") and (":" in piece or "|" in piece):
        return "schedule"
    return "weight"


@dataclass
class _Open:
    """A bracket that is not closed yet.

    Attributes:
        start: Where it stands.
        weight: Where the last number behind a colon in it ends.
        choice: Whether there is a | in it.
        nested: Whether there are brackets of its own kind in it.
    """

    start: int
    weight: int | None = None
    choice: bool = False
    nested: bool = False


def _bracketed(prompt: str) -> Iterator[tuple[int, int]]:
    """Where weights stand in brackets, in time that grows as the prompt: # from, to"""
    stacks: dict[str, list[_Open]] = {kind: [] for kind in _OPENS.values()}
    for match in _SIGNS.finditer(prompt):
        sign, at = match.group(), match.start()
        inner = [stack[-1] for stack in stacks.values() if stack]
        if sign in stacks:
            for each in stacks[sign][-1:]:
                each.nested = True
            stacks[sign].append(_Open(at))
        elif sign == ":":
            if number := _WEIGHT.match(prompt, at + 1):
                for each in inner:
                    each.weight = number.end()
        elif sign == "|":
            for each in inner:
                each.choice = True
        elif (kind := _OPENS.get(sign)) and stacks[kind]:
            bracket, end = stacks[kind].pop(), match.end()
            behind = _BEHIND.match(prompt, end) if kind == "(" else None
            if behind is not None:  # (word)++, (word)1.3, compel
                yield bracket.start, behind.end()
            elif (
                bracket.nested  # ((word)), [[word]]
                or (bracket.weight == at and kind != "{")  # (word:1.3), [from:to:0.5], [to:10]
                or (bracket.choice and kind != "(")  # [a|b], taken in turn; {a|b}, drawn from
            ):
                yield bracket.start, end
    for bracket in stacks["("]:  # (word:1.3, never closed
        if bracket.weight is not None:
            yield bracket.start, bracket.weight
