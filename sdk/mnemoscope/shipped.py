"""What ships, by name, wherever a bundle or a model is taken."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from mnemoscope_runtime import InputError

from . import embedded
from .embedded import SHIPPED, Shipped

__all__ = [
    "bundle_at",
    "bundle_option",
    "is_shipped",
    "model_at",
    "model_of",
    "name_of",
    "shipped_as",
]

_ALIKE = 0.7  # of difflib's ratio: one letter of a short name, two or three of a long one


def bundle_at(given: str | Path | None) -> Path:
    """Where a bundle is: at a path, under the name of one that ships, or None, the embedded one.

    Raises:
        InputError: as `shipped_as`.
    """
    if given is None:
        return embedded.BUNDLE
    shipped = shipped_as(str(given))
    return Path(given) if shipped is None else shipped.bundle


def model_at(given: str | Path | None) -> str:
    """The same of a model, which may be a hub id as well.

    Raises:
        InputError: as `shipped_as`.
    """
    if given is None:
        return str(embedded.MODEL)
    shipped = shipped_as(str(given))
    return str(given if shipped is None else shipped.model)


def is_shipped(bundle: Path) -> bool:
    """Whether a bundle is part of the installation, where nothing should be written."""
    return bundle in (each.bundle for each in SHIPPED.values())


def name_of(bundle: Path) -> str:
    """What to call a bundle on the command line: its name if it ships, or its path."""
    return next((name for name, each in SHIPPED.items() if each.bundle == bundle), str(bundle))


def model_of(bundle: Path | None, model: str | None) -> str | None:
    """The model that is given, or that of a bundle that ships; None if neither is known."""
    shipped = None if bundle is None or model is not None else SHIPPED.get(name_of(bundle))
    return model if shipped is None else str(shipped.model)


def bundle_option(model: str | None) -> str:
    """How to name a model's bundle on the command line: by its name if it ships."""
    names = [f" {name}" for name, each in SHIPPED.items() if str(each.model) == model]
    return f"--bundle{''.join(names)}"


def shipped_as(text: str) -> Shipped | None:
    """What ships under a name, if anything does.

    Raises:
        InputError: there is a folder or a file of that name too; or there is nothing, and a name
            of what ships is nearly the same.
    """
    shipped = SHIPPED.get(text)
    if shipped is not None and Path(text).exists():
        raise InputError(
            f"{text} is the name of a model that ships, and of what is here too. Give the path "
            f"{Path(text).absolute()} if you mean that; for what ships, run this in another folder."
        )
    if shipped is None and (near := _near(text)) is not None and not Path(text).exists():
        raise InputError(
            f"There is no {text} here. Did you mean {near}, which ships with Mnemoscope? "
            "If not, give the path of yours."
        )
    return shipped


def _near(text: str) -> str | None:
    """The name of what ships that this may have been meant for: misspelt, or a part of it."""
    if Path(text).name != text:  # a path, or a hub id
        return None
    plain = re.sub(r"[-_\s]+", "-", text.lower())
    parts = [name for name in SHIPPED if plain in name.split("-")]
    near = parts or difflib.get_close_matches(plain, SHIPPED, 1, _ALIKE)
    return near[0] if near else None
