"""Words that several errors are made of."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["first_line", "shown"]

_SHOWN = 4
# what diffusers, or PyTorch below it, says of weights of other shapes, and how to load them anyway
_SHAPES = (
    re.compile(r"because (?P<key>\S+) expected shape (?P<wanted>.*?), but got (?P<found>.*?)\. "),
    re.compile(
        r"size mismatch for (?P<key>\S+): copying a param with shape (?P<found>.*?) from "
        r"checkpoint, the shape in current model is (?P<wanted>.*?)\.(\s|$)"
    ),
)


def shown(names: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def first_line(error: Exception) -> str:
    """Of an error of another library, as a sentence."""
    for pattern in _SHAPES:
        if told := pattern.search(str(error)):
            found, wanted = (
                told[n].removeprefix("torch.Size").strip("()") for n in ("found", "wanted")
            )
            return f"{told['key']} has the shape {found}, not {wanted}."
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".") + "."
