"""Standing between a pipeline and its network, so that nobody else who calls that is concerned."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .conditioning import Told
from .networks import PREDICTORS
from .refusing import PipelineBusy

__all__ = ["After", "Before", "Interposed", "around"]

Before = Callable[[tuple[Any, ...], Told], tuple[tuple[Any, ...], Told] | None]
After = Callable[[tuple[Any, ...], Told, Any], Any]
_BETWEEN = "_mnemoscope_between"


class _Between:
    """A network as its pipeline finds it: calls of it go through a watch, all else goes to it."""

    def __init__(self, name: str, network: Any, before: Before, after: After) -> None:
        vars(self).update(_name=name, _network=network, _before=before, _after=after)
        vars(self)["_thread"] = threading.get_ident()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = self._before(args, kwargs) or (args, kwargs)
        output = self._network(*args, **kwargs)
        found = self._after(args, kwargs, output)
        return output if found is None else found

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_network"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._network, name, value)

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # for `isinstance`
        return type(self._network)


def _part(name: str) -> property:
    """A part of a pipeline, or what stands before it."""

    def get(pipe: Any) -> Any:
        own = vars(pipe)
        between = own.get(_BETWEEN)
        mine = between is not None and vars(between)["_thread"] == threading.get_ident()
        if mine and vars(between)["_name"] == name:
            return between
        if name not in own:
            raise AttributeError(f"{type(pipe).__name__} has no {name}")
        return own[name]

    def put(pipe: Any, value: Any) -> None:
        vars(pipe)[name] = value

    return property(get, put)


class Interposed:
    """Comes before a pipeline's own class; its network is what stands between for who draws."""

    unet = _part("unet")
    transformer = _part("transformer")

    @property
    def components(self) -> dict[str, Any]:
        """The pipeline's parts, nothing before them."""
        found: dict[str, Any] = super().components  # type: ignore[misc]
        return found | {name: vars(self)[name] for name in PREDICTORS if name in found}


@contextmanager
def around(pipe: Any, name: str, before: Before, after: After) -> Iterator[None]:
    """Be called before and after a pipeline calls its network, to change what is told and said.

    The network itself is left alone: other pipelines that share it, in this thread or another one,
    are not seen. Everything is as before when this ends, however it ends.

    Raises:
        PipelineBusy: somebody stands there already.
    """
    if _BETWEEN in vars(pipe):
        raise PipelineBusy()
    kind = type(pipe)
    vars(pipe)[_BETWEEN] = _Between(name, getattr(pipe, name), before, after)
    if not isinstance(pipe, Interposed):
        body = {"__module__": kind.__module__, "__doc__": kind.__doc__}
        pipe.__class__ = type(kind.__name__, (Interposed, kind), body)
    try:
        yield
    finally:
        pipe.__class__ = kind
        del vars(pipe)[_BETWEEN]
