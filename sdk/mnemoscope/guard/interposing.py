"""Standing between a pipeline and its UNet, so that nobody else who calls the UNet is concerned."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .conditioning import Told
from .refusing import PipelineBusy

__all__ = ["After", "Before", "Interposed", "around"]

Before = Callable[[tuple[Any, ...], Told], tuple[tuple[Any, ...], Told] | None]
After = Callable[[tuple[Any, ...], Told, Any], Any]
_BETWEEN = "_mnemoscope_between"


class _Between:
    """A UNet as its pipeline finds it: calls of it go through a watch, all else goes to it."""

    def __init__(self, unet: Any, before: Before, after: After) -> None:
        vars(self).update(_unet=unet, _before=before, _after=after, _thread=threading.get_ident())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = self._before(args, kwargs) or (args, kwargs)
        output = self._unet(*args, **kwargs)
        found = self._after(args, kwargs, output)
        return output if found is None else found

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_unet"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._unet, name, value)

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # for `isinstance`
        return type(self._unet)


class Interposed:
    """Comes before a pipeline's own class; its UNet is what stands between for whoever draws."""

    @property
    def unet(self) -> Any:
        """The UNet, or what stands before it."""
        own = vars(self)
        between = own.get(_BETWEEN)
        mine = between is not None and vars(between)["_thread"] == threading.get_ident()
        return between if mine else own["unet"]

    @unet.setter
    def unet(self, value: Any) -> None:
        vars(self)["unet"] = value

    @property
    def components(self) -> dict[str, Any]:
        """The pipeline's parts, nothing before them."""
        found: dict[str, Any] = super().components  # type: ignore[misc]
        return {**found, "unet": vars(self)["unet"]}


@contextmanager
def around(pipe: Any, before: Before, after: After) -> Iterator[None]:
    """Be called before and after a pipeline's calls of its UNet, in place of what is told and said.

    The UNet itself is left alone: other pipelines that share it, in this thread or another one, are
    not seen. Everything is as before when this ends, however it ends.

    Raises:
        PipelineBusy: somebody stands there already.
    """
    if _BETWEEN in vars(pipe):
        raise PipelineBusy()
    kind = type(pipe)
    vars(pipe)[_BETWEEN] = _Between(pipe.unet, before, after)
    if not isinstance(pipe, Interposed):
        body = {"__module__": kind.__module__, "__doc__": kind.__doc__}
        pipe.__class__ = type(kind.__name__, (Interposed, kind), body)
    try:
        yield
    finally:
        pipe.__class__ = kind
        del vars(pipe)[_BETWEEN]
