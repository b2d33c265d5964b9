"""Files of JSON with one value changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["put"]


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """What puts a value at "a.0.b"."""

    def change(fields: dict[str, Any]) -> None:
        *places, last = path.split(".")
        inside: Any = fields
        for name in places:
            inside = inside[int(name) if isinstance(inside, list) else name]
        inside[int(last) if isinstance(inside, list) else last] = value

    return change
