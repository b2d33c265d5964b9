"""What ships, by name, wherever a command takes a bundle or a model."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import embedded
from ..shipped import shipped_as

__all__ = ["place_of", "takes_names"]


def takes_names(command: Callable[..., None]) -> Callable[..., None]:
    """For a command whose `bundle` and `model`, if it has them, may be the name of one that ships.

    The default's name is the default, unless a model or a bundle of another one stands beside it.
    What cannot be told apart, or is misspelt, is refused as `shipped_as` says.
    """
    parameters = inspect.signature(command).parameters

    def has_default(parameter: str) -> bool:
        return parameter in parameters and parameters[parameter].default is None

    @functools.wraps(command)
    def run(**options: Any) -> None:
        bundle, model = options.get("bundle"), options.get("model")
        found = (
            shipped_as(str(bundle)) if isinstance(bundle, Path) else None,
            shipped_as(model) if isinstance(model, str) else None,
        )
        own = embedded.SHIPPED["embedded"]
        alone = (bundle is None or found[0] is own) and (model is None or found[1] is own)
        if found[0] is not None:
            default = alone and has_default("bundle")
            options["bundle"] = None if default else found[0].bundle
        if found[1] is not None:
            default = alone and has_default("model")
            options["model"] = None if default else str(found[1].model)
        command(**options)

    return run


def place_of(source: str) -> str:
    """NAME=BUNDLE, or with :CALIBRATION behind it, where BUNDLE may be the name of one that ships.

    Raises:
        InputError: as `shipped_as`.
    """
    name, equals, place = source.partition("=")
    whole = Path(place).exists()  # a directory may have a colon in its name
    bundle, colon, calibration = (place, "", "") if whole else place.partition(":")
    shipped = shipped_as(bundle)
    return source if shipped is None else f"{name}{equals}{shipped.bundle}{colon}{calibration}"
