"""HTML pages that need nothing else and run nothing, whatever the prompts in them say.

Every text that a template shows is escaped by Jinja2, and made printable first: prompts are hostile
input. Whatever slips through finds a page (`base.html`) that is forbidden to load or run anything.
"""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..prompts.printable import printable

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render"]


def render(template: str, **values: Any) -> str:
    """A page.

    Args:
        template: Name of a file in this folder.
        values: What it shows.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {"cut": printable, "base64": lambda png: base64.b64encode(png).decode()}
    return found


def _shown(value: Any) -> Any:
    """What a template shows of a value; markup of its own is a `Markup`, and stays as it is."""
    return printable(value) if type(value) is str else value
