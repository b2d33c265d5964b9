"""JSON that says one thing: parsers differ in what they make of a name that an object has twice."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["parse", "unknown"]

_CONTAINERS = 2**16  # a few bytes each in a file, a hundred in memory


def parse(text: bytes) -> dict[str, Any]:
    """The object that a file holds.

    Raises:
        ValueError: it is no JSON object in UTF-8, names something twice, or nests without end.
    """
    if text.count(b"[") + text.count(b"{") > _CONTAINERS:
        raise ValueError(f"it has more than {_CONTAINERS:,} brackets")
    try:
        found = json.loads(
            text.decode(), object_pairs_hook=_distinct, parse_constant=_refuse_constant
        )
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    return found


def unknown(raw: Any, known: Any, place: str = "") -> list[str]:
    """Where JSON has fields that its record does not, in dotted names.

    Args:
        raw: As parsed: an object or a list.
        known: The record in builtins.
        place: Where in a file both are.
    """
    if isinstance(raw, list):
        if raw and not isinstance(raw[0], dict | list):  # thousands of numbers, all alike
            return []
        raw, known = dict(enumerate(raw)), dict(enumerate(known))
    found = []
    for name, said in raw.items():
        if name not in known:
            found.append(f"{place}{name}")
        elif isinstance(said, dict | list):
            found += unknown(said, known[name], f"{place}{name}.")
    return found


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it says {twice!r:.80} twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
