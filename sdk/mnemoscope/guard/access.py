"""How a guard reaches a pipeline: its arguments, what guidance is about to combine, its images."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch

from mnemoscope_runtime.errors import InputError

from ..calibration import digest
from .conditioning import EMBEDS, Baseline, Branch, Told, named
from .drawing import blank
from .identity import Identity
from .interposing import around
from .schedulers import Scheduled
from .setting import GuardSetting, options
from .watching import Measured, Watch

__all__ = ["Access", "Arguments", "Standard", "refuse_ip_adapter"]

Arguments = Mapping[str, Any]


class Access(ABC):
    """One kind of pipeline; what does not change from request to request is made once.

    Attributes:
        pipe: The pipeline, not guarded.
        names: What a call of it takes.
    """

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
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
        return {**self._defaults, **dict(zip(self._names, args, strict=False)), **kwargs}

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
            tokens=measured.embeds.shape[1],
            negative="none" if negative is None else digest(negative),
            options=options(told, steps, self.pipe.unet.config.time_cond_proj_dim is not None),
        )

    def free(self) -> None:
        """What the pipeline does at its end, for one that did not get there."""
        self.pipe.maybe_free_model_hooks()

    @abstractmethod
    def blank(self, output: Any, indices: Collection[int], told: Arguments) -> Any:
        """What a request returned, with these images black."""

    @abstractmethod
    def negative(self, negative: str | None) -> Baseline:
        """What the UNet is told for a negative prompt, or for none."""

    @abstractmethod
    def predictions(self, watch: Watch) -> AbstractContextManager[None]:
        """Show every step's predictions to a watch while this lasts, and do as it says."""


class Standard(Access):
    """Stable Diffusion 1.x, 2.x and XL: guidance is of one UNet call on [unconditional; prompt]."""

    def arguments(self, args: tuple[Any, ...], kwargs: Arguments) -> Arguments:
        """See `Access`."""
        told = super().arguments(args, kwargs)
        refuse_ip_adapter(told, "ip_adapter_image", "ip_adapter_image_embeds")
        return told

    def blank(self, output: Any, indices: Collection[int], _: Arguments) -> Any:
        """See `Access`."""
        return blank(output, indices)

    def negative(self, negative: str | None) -> Baseline:
        """See `Access`."""
        found = self._encoded(negative)
        empty = self._encoded("")[1] if negative else None
        return Baseline(found[1], found[3] if len(found) > 2 else None, empty)

    def _encoded(self, negative: str | None) -> Any:
        with torch.no_grad():
            return self.pipe.encode_prompt(
                prompt="",
                device=self.pipe._execution_device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=True,
                negative_prompt=negative,
            )

    def predictions(self, watch: Watch) -> AbstractContextManager[None]:
        """See `Access`."""

        def before(args: tuple[Any, ...], kwargs: Told) -> tuple[tuple[Any, ...], Told] | None:
            told = named(args, kwargs)
            embeds = told[EMBEDS]
            first = len(embeds) // 2 if self._guided else 0
            watch.keep(told, first)
            if not watch.embeds:
                return None
            return args[:2], {**kwargs, EMBEDS: watch.changed(embeds, first)}

        def after(args: tuple[Any, ...], kwargs: Told, output: Any) -> Any:
            if watch.idle:
                return None
            told, prediction = named(args, kwargs), output[0]
            half = len(prediction) // 2 if self._guided else 0
            cond = Branch(told, slice(half, None), prediction[half:])
            uncond = Branch(told, slice(half), prediction[:half]) if half else None
            found = watch.see(cond, uncond)
            if found is None:
                return None
            return (torch.cat([prediction[:half], found]), *output[1:])

        return around(self.pipe, before, after)

    @property
    def _guided(self) -> bool:
        return bool(self.pipe.do_classifier_free_guidance)


def refuse_ip_adapter(told: Arguments, *names: str) -> None:
    """Refuse a request that gives one of these arguments.

    Raises:
        InputError: it does.
    """
    if any(told.get(name) is not None for name in names):
        raise InputError(
            "With an IP-Adapter the magnitude is of the picture as much as of the prompt, and no "
            "calibration covers that. Draw without it, or detach the guard for this request."
        )
