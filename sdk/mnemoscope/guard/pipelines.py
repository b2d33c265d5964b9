"""Which pipelines a guard knows."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

from mnemoscope_runtime.errors import InputError

from .access import Access
from .families import FAMILIES, MODULAR, family_of, is_known
from .interposing import Interposed
from .modular import Modular
from .standard import Apart, Together

__all__ = ["Guarded", "accessed", "guarded"]


class Guarded(Interposed):
    """Marks the class of a pipeline that is guarded, and of no other one.

    Attributes:
        guarded: Gives the pipeline.
    """

    guarded: Callable[[], Any]

    def __copy__(self) -> Any:
        found = object.__new__(type(self))
        vars(found).update(vars(self))
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        memo[id(self)] = found = object.__new__(type(self))
        vars(found).update(copy.deepcopy(vars(self), memo))
        return found

    def __reduce_ex__(self, _: object) -> Any:
        """What pickles a pipeline.

        Raises:
            InputError: always; and what to do.
        """
        raise InputError(
            "A guarded pipeline cannot be pickled: its guard is of this process. Pickle it before "
            "it is guarded or after `detach`, and guard it where it is read; for another thread "
            "make one with `mnemoscope.guard.replicate(pipe)`."
        )


def guarded(
    original: type, pipe: Any, draw: Callable[[tuple[Any, ...], dict[str, Any]], Any]
) -> type:
    """The pipeline's class, but that calls go through a guard.

    Python looks `__call__` up on the class, so that no attribute of the pipeline can do this.
    """

    @functools.wraps(original.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self is not pipe:
            raise _copied(self)
        return draw(args, kwargs)

    body = {
        "__call__": call,
        "__module__": original.__module__,
        "__doc__": original.__doc__,
        "guarded": staticmethod(lambda: pipe),
    }
    return type(original.__name__, (Guarded, original), body)


def _copied(pipe: Any) -> InputError:
    """What to say of a pipeline that has a guarded one's class, and no guard."""
    name = type(pipe).__name__
    return InputError(
        "This pipeline is a copy of a guarded one, or was made with its class (`type(pipe)(...)`), "
        f"and has no guard of its own. Make it with `diffusers.{name}(**pipe.components)`, or with "
        "`mnemoscope.guard.replicate(pipe)`, so that both can draw at the same time; then guard it."
    )


def _unknown(kind: type) -> InputError:
    """What to say of a pipeline that a guard does not know, by its class."""
    name = kind.__name__
    bases = [each.__name__ for each in kind.__mro__ if is_known(each)]
    if bases and (base := bases[0]) != MODULAR:
        return InputError(
            f"A guard cannot watch {kind.__module__}.{name}: it is a {base} with something of its "
            f"own, of which a guard does not know what it does. `diffusers.{base}"
            "(**pipe.components)` draws with the same parts, and can be guarded. Or screen prompts "
            "before they are drawn, with `Detector`."
        )
    advice = "Screen prompts before they are drawn, with `Detector`"
    alike = [each for each in FAMILIES if name.startswith(each.removesuffix("Pipeline"))]
    if alike and "Modular" not in name:
        nearest = max(alike, key=len)  # StableDiffusion3Pipeline, not StableDiffusionPipeline
        advice += (
            f". What is drawn of text alone, {nearest} draws of the same parts (`from_pipe`), and "
            "that can be guarded"
        )
    return InputError(f"A guard cannot watch {name}: it knows {', '.join(FAMILIES)}. {advice}.")


def accessed(pipe: Any) -> Access:
    """How to reach a pipeline; checks that a guard knows what its network is told.

    Raises:
        InputError: it does not, or another guard is there; and what to do.
    """
    if isinstance(pipe, Guarded):
        if pipe.guarded() is pipe:
            raise InputError("This pipeline is guarded already. `detach` the other guard first.")
        raise _copied(pipe)
    name = type(pipe).__name__
    family = family_of(pipe)
    if family is None:
        raise _unknown(type(pipe))
    if family.of(pipe) is None:
        raise InputError(f"This pipeline has no {family.network} yet. Load its components first.")
    if all(getattr(pipe, part, None) is None for part in ("text_encoder", "text_encoder_2")):
        raise InputError(
            "This pipeline has no text encoder, so that a guard cannot tell whether its negative "
            "embeddings are those of the empty prompt. Load it with its text encoders."
        )
    if family.pads is not None:  # or the first request would be one of a tokenizer that changes
        pipe.tokenizer.padding_side = family.pads
    if name == MODULAR:
        return Modular(pipe, family)
    return (Apart if family.apart else Together)(pipe, family)
