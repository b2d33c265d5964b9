"""What ships, by name, wherever a command takes a bundle or a model."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mnemoscope_runtime import InputError

from .. import embedded
from ..embedded import Shipped

__all__ = ["place_of", "takes_names"]


def takes_names(command: Callable[..., None]) -> Callable[..., None]:
    """For a command whose `bundle` and `model`, if it has them, may be the name of one that ships.

    The default's name is the default; of a model only where no other bundle stands beside it.
    """
    parameters = inspect.signature(command).parameters

    def is_default(parameter: str, shipped: Shipped) -> bool:
        return shipped.bundle == embedded.BUNDLE and parameters[parameter].default is None

    @functools.wraps(command)
    def run(**options: Any) -> None:
        bundle, model = options.get("bundle"), options.get("model")
        if isinstance(bundle, Path) and (shipped := _named(str(bundle))) is not None:
            bundle = None if is_default("bundle", shipped) else shipped.bundle
            options["bundle"] = bundle
        if isinstance(model, str) and (shipped := _named(model)) is not None:
            alone = bundle is None and is_default("model", shipped)
            options["model"] = None if alone else str(shipped.model)
        command(**options)

    return run


def place_of(source: str) -> str:
    """NAME=BUNDLE, or with :CALIBRATION behind it, where BUNDLE may be the name of one that ships.

    Raises:
        InputError: as `takes_names`.
    """
    name, equals, place = source.partition("=")
    bundle, colon, calibration = place.partition(":")
    shipped = _named(bundle)
    return source if shipped is None else f"{name}{equals}{shipped.bundle}{colon}{calibration}"


def _named(text: str) -> Shipped | None:
    """What ships under a name, if anything does.

    Raises:
        InputError: there is a folder or a file of that name too.
    """
    shipped = embedded.SHIPPED.get(text)
    if shipped is not None and Path(text).exists():
        raise InputError(
            f"{text} is the name of a model that ships, and of what is here too. Give the path "
            f"{Path(text).absolute()} if you mean that; for what ships, run this in another folder."
        )
    return shipped
