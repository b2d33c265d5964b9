"""How a guard reaches a pipeline: its arguments, what guidance is about to combine, its images."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Any

from mnemoscope_runtime.errors import InputError

from ..calibration import digest
from .callbacks import overseen
from .conditioning import Arguments, Baseline
from .families import Family
from .identity import Identity
from .other_model import written
from .schedulers import Scheduled
from .setting import GuardSetting, options
from .watching import Measured, Watch

__all__ = ["Access"]


class Access(ABC):
    """One kind of pipeline; what does not change from request to request is made once.

    Attributes:
        pipe: The pipeline, not guarded.
        family: How it tells its network of a prompt.
        names: What a call of it takes.
    """

    def __init__(self, pipe: Any, family: Family) -> None:
        self.pipe, self.family = pipe, family
        parameters = [*inspect.signature(type(pipe).__call__).parameters.values()][1:]
        self._names = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD]
        self.names = frozenset(self._names)
        self._defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        self._scheduled = Scheduled()

    def arguments(self, args: tuple[Any, ...], kwargs: Arguments) -> Arguments:
        """Arguments of a call by name, defaults filled in.

        Raises:
            InputError: no calibration covers one of them.
        """
        told = {**self._defaults, **dict(zip(self._names, args, strict=False)), **kwargs}
        self.refuse(told)
        return told

    def overseen(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any], bool]:
        """The same call, what its callbacks do looked at (`overseen`), and whether it has some."""
        named = {**dict(zip(self._names, args, strict=False)), **kwargs}
        if not (found := overseen(self.pipe, named)):
            return args, kwargs, False
        return (), named | found, True

    def refuse(self, told: Arguments) -> None:
        """Refuse a request that gives what the family's are refused with.

        Raises:
            InputError: it does.
        """
        for name, what in self.family.refused.items():
            if told.get(name) is not None:
                raise InputError(
                    f"This request gives {name}: {what}. No calibration covers that. Draw without "
                    "it, or detach the guard for this request."
                )

    def setting(
        self, now: Identity, told: Arguments, negative: str | None, measured: Measured
    ) -> GuardSetting:
        """The setting of a request.

        Raises:
            InputError: a guard cannot tell where the scheduler leads.
        """
        steps = len(measured.timesteps)
        return GuardSetting(
            model=now.model,
            state=now.state,
            pipeline=type(self.pipe).__name__,
            scheduler=self._scheduled.name(self.pipe.scheduler),
            dtype=measured.dtype,
            latents=measured.latents,
            timesteps=measured.timesteps,
            tokens=measured.tokens,
            negative="none" if negative is None else digest(negative),
            options=options(told, steps, self.family.tells_scale(self.pipe)),
            made_of=written(now.weights, now.dtypes),
        )

    def free(self) -> None:
        """What the pipeline does at its end, for one that did not get there."""
        self.pipe.maybe_free_model_hooks()

    @abstractmethod
    def blank(self, output: Any, indices: Collection[int], told: Arguments) -> Any:
        """What a request returned, with these images black."""

    @abstractmethod
    def negative(self, negative: str | None, told: Arguments) -> Baseline:
        """What the network is told for a negative prompt, or for none, in such a call."""

    @abstractmethod
    def predictions(self, watch: Watch) -> AbstractContextManager[None]:
        """Show every step's predictions to a watch while this lasts, and do as it says."""
