"""What ships, by name, wherever a command takes a bundle or a model."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import embedded
from ..embedded import Shipped
from ..shipped import shipped_as

__all__ = ["place_of", "takes_names"]


def takes_names(command: Callable[..., None]) -> Callable[..., None]:
    """For a command whose `bundle` and `model`, if it has them, may be the name of one that ships.

    The default's name is the default; of a model only where no other bundle stands beside it. What
    cannot be told apart, or is misspelt, is refused as `shipped_as` says.
    """
    parameters = inspect.signature(command).parameters

    def is_default(parameter: str, shipped: Shipped) -> bool:
        return shipped.bundle == embedded.BUNDLE and parameters[parameter].default is None

    @functools.wraps(command)
    def run(**options: Any) -> None:
        bundle, model = options.get("bundle"), options.get("model")
        if isinstance(bundle, Path) and (shipped := shipped_as(str(bundle))) is not None:
            bundle = None if is_default("bundle", shipped) else shipped.bundle
            options["bundle"] = bundle
        if isinstance(model, str) and (shipped := shipped_as(model)) is not None:
            alone = bundle is None and is_default("model", shipped)
            options["model"] = None if alone else str(shipped.model)
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
