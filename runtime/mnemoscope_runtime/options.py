"""Options from Python, where nothing else looks at their types."""

from __future__ import annotations

import os
from numbers import Integral, Real
from types import NoneType
from typing import Literal

from .errors import InputError

__all__ = ["check_options"]

Kind = Literal[
    "a whole number",
    "a whole number or None",
    "a number",
    "a number or None",
    "text",
    "a path",
    "a path or None",
    "True or False",
]

_TYPES: dict[Kind, tuple[type, ...]] = {
    "a whole number": (Integral,),  # numpy's too
    "a whole number or None": (Integral, NoneType),
    "a number": (Real,),
    "a number or None": (Real, NoneType),
    "text": (str,),
    "a path": (str, os.PathLike),
    "a path or None": (str, os.PathLike, NoneType),
    "True or False": (bool,),
}


def check_options(kind: Kind, /, **options: object) -> None:
    """Refuse an option of a wrong type; True and False are no numbers.

    Raises:
        InputError: says which option, what was given and what is expected.
    """
    for name, value in options.items():
        if not isinstance(value, _TYPES[kind]) or (
            isinstance(value, bool) and kind != "True or False"
        ):
            raise InputError(
                f"{name} is {value!r:.80} ({type(value).__name__}), not {kind}. Give {kind}."
            )
