"""Shapes in docstrings, `# [B, C, H, W]`, which Markdown would take for headings and links."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ONE = r"\[[^\]\n]*\]"
_SHAPE = re.compile(rf"(?<!\S)# (\({_ONE}(?:, ?{_ONE})*,?\)|{_ONE}(?:{_ONE})*)", re.M)


def marked(text: str) -> str:
    """Each shape as code."""
    return _SHAPE.sub(lambda found: f"`{found[1]}`", text)


class Shapes(griffe.Extension):
    """Marks them in whatever has a docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = marked(obj.docstring.value)
