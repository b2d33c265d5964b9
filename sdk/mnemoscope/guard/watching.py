"""Reading the predictions that guidance computes anyway."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from mnemoscope_runtime.errors import CalibrationError, InputError, NumericsError

from ..prompts.printable import counted
from .conditioning import EMBEDS, Arguments, Baseline, Began, Branch, Told, at, rows_of
from .dtypes import explained
from .families import Family
from .networks import plain
from .refusing import no_baseline, outside, through
from .units import unit_scale

__all__ = ["Magnitude", "Measured", "Source", "Steer", "Watch"]

Magnitude = Callable[[Tensor], Tensor]  # embeddings [b, L, D] to magnitudes [b], with their graph
# timestep, embeddings [b, L, D], their magnitudes [b], those of others -> others, None for the same
Steer = Callable[[float, Tensor, Tensor, Magnitude], Tensor | None]


@dataclass(frozen=True)
class Measured:
    """What was seen of a request until it is decided.

    Attributes:
        scores: Mean magnitude of every image, in the family's unit: eps, or x0 of flows.
        magnitudes: Of every step looked at and every image.
        timesteps: Those looked at.
        dtype: Of the predictions.
        latents: Their (C, H, W).
        compared: Of every image: whether its prompt is something else than the baseline.
        extra_pass: Whether the empty prompt took a pass of its own.
        seconds: What this took on the host.
        tokens: How many embeddings a prompt has; None where each has its own number.
        embeds: What the network was told of the prompts. # [B, L, D]
        magnitude: Rows and other embeddings [b, L, D] to magnitudes [b] at the first step, with
            their graph.
    """

    scores: tuple[float, ...]
    magnitudes: tuple[tuple[float, ...], ...]
    timesteps: tuple[float, ...]
    dtype: str
    latents: tuple[int, ...]
    compared: tuple[bool, ...]
    extra_pass: bool
    seconds: float
    tokens: int | None
    embeds: Tensor
    magnitude: Callable[[list[int], Tensor], Tensor]


class Source(Protocol):
    """Where predictions come from."""

    @property
    def pipe(self) -> Any:
        """The pipeline."""

    @property
    def family(self) -> Family:
        """How it tells its network of a prompt."""

    def predictions(self, watch: Watch) -> AbstractContextManager[None]:
        """Show every step's predictions to a watch while this lasts, and do as it says."""


@dataclass
class Watch:
    """Looks at the first steps of guidance, and can change what it is told and what it combines.

    Attributes:
        source: Where predictions come from.
        baseline: What magnitudes are relative to.
        steps: Steps to look at.
        extra_pass: Whether it may run the network where guidance does not compute the baseline.
        decide: Told of the measurement once; may raise, or fill `silenced`.
        embeds: Embeddings of images, instead of what the pipeline made of their prompts.
        silenced: Images that are drawn without their prompts from here on.
        steer: Changes `embeds` on the way; asked before a step is looked at.
        until: Not asked at timesteps below it.
        check: Called before every step but the first; may raise.
        told: Arguments of the pipeline's call.
    """

    source: Source
    baseline: Baseline
    steps: int
    extra_pass: bool
    decide: Callable[[Measured], None]
    embeds: Mapping[int, Tensor] = field(default_factory=dict)  # index: [L, D]
    silenced: set[int] = field(default_factory=set)
    steer: Steer | None = None
    until: float = 0.0
    check: Callable[[], None] = lambda: None
    told: Arguments = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._norms: list[Tensor] = []
        self._timesteps: list[float] = []
        self._began: dict[str, Began] = {}
        self._ran_extra = False
        self._seconds = 0.0
        self._first: tuple[Branch, Tensor, float] | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at what the pipeline does meanwhile.

        Raises:
            CalibrationError: the pipeline ended before it could be decided.
            InputError: as `explained`.
        """
        source = self.source
        with explained(source.pipe, source.family), outside(), source.predictions(self):
            yield
        if len(self._norms) < self.steps:
            raise CalibrationError(
                f"The pipeline made {counted(len(self._norms), 'step')}, and the guard looks at "
                f"{self.steps}: nothing was decided. Draw with more steps, or calibrate a guard "
                "that looks at fewer."
            )

    @property
    def idle(self) -> bool:
        """Whether nothing is left to look at or to change in predictions."""
        return len(self._norms) >= self.steps and not self.silenced and self.steer is None

    def keep(self, told: Told, first: int, side: str = "") -> None:
        """Check that a request goes on with the embeddings that it began with.

        Where an image is silenced, those without prompts too: its predictions are of them alone.

        Args:
            told: What the pipeline tells the network.
            first: Row of the first image.
            side: What these embeddings are, where guidance is of two calls.

        Raises:
            InputError: embeddings are others than at the first step.
            MnemoscopeError: as `check` raises.
        """
        if self._began:
            self.check()
        for what, path in {"embeddings": EMBEDS, **self.source.family.beside}.items():
            name, now = f"{side}{what}", at(told, path)
            if now is None:
                continue
            began = self._began.setdefault(name, Began(now, first))
            if not began.is_still(now, first, bool(self.silenced)):
                raise InputError(
                    f"The {name} of this request were changed after its first step, by a "
                    "callback of its own, so that the guard's decision would not be of what is "
                    "drawn. Draw without that callback, or detach the guard for this request."
                )

    def changed(self, embeds: Tensor, first: int) -> Tensor:
        """What the network is told, with `embeds` in it.

        Args:
            embeds: What the pipeline would tell it. # [n, L, D]
            first: Row of the first image.
        """
        changed = embeds.clone()
        for index, found in self.embeds.items():
            changed[first + index] = found.to(changed)
        return changed

    @through()
    def see(self, cond: Branch, uncond: Branch | None) -> Tensor | None:
        """Be shown a step.

        Args:
            cond: The side of the prompts.
            uncond: The other one; None where there is no guidance.

        Returns:
            What guidance is to take for the prompts' predictions; None for what it has.
        """
        given = cond.prediction
        if self.steer is not None and self._timestep(cond) >= self.until:
            cond = self._steered(self.steer, cond, uncond)
        if len(self._norms) < self.steps:
            start = time.perf_counter()
            self._measure(cond, uncond)
            self._seconds += time.perf_counter() - start
            if len(self._norms) == self.steps:
                self.decide(self._measured(cond.prediction))
        if not self.silenced:
            return None if cond.prediction is given else cond.prediction
        rows = sorted(self.silenced)
        found = cond.prediction.clone()
        found[rows] = 0 if uncond is None else uncond.prediction[rows]
        return found

    def _steered(self, steer: Steer, cond: Branch, uncond: Branch | None) -> Branch:
        """The side of the prompts as it is with the embeddings that are found at this step."""
        rows = sorted(self.embeds)
        against, scale = self._against(cond, uncond)
        told = rows_of(cond.call, rows)
        found = steer(
            self._timestep(cond),
            told[EMBEDS],
            scale * _norm(cond.prediction[rows], against[rows]),
            functools.partial(self._magnitude, cond, against, scale, rows),
        )
        if found is None:
            return cond
        self.embeds = {**self.embeds, **dict(zip(rows, found, strict=True))}
        prediction = cond.prediction.clone()
        prediction[rows] = self._predict({**told, EMBEDS: found.to(told[EMBEDS])})
        return replace(cond, prediction=prediction)

    def _measure(self, cond: Branch, uncond: Branch | None) -> None:
        against, scale = self._against(cond, uncond)
        if self._first is None:
            self._first = cond, against, scale
        self._norms.append(scale * _norm(cond.prediction, against))
        self._timesteps.append(self._timestep(cond))

    def _timestep(self, branch: Branch) -> float:
        return self.source.family.timestep(self.source.pipe, branch.told)

    def _against(self, cond: Branch, uncond: Branch | None) -> tuple[Tensor, float]:
        """The prediction that magnitudes are relative to, and what gives them in the unit."""
        scheduler = self.source.pipe.scheduler
        scale = unit_scale(self.source.family.unit, scheduler, self._timestep(cond))
        if uncond is not None and self.baseline.is_told(uncond):
            return uncond.prediction, scale
        return self._extra(cond, uncond), scale

    def _extra(self, cond: Branch, uncond: Branch | None) -> Tensor:
        guided = uncond is not None
        if not self.extra_pass or (self.steps > 1 and guided):
            tokens = (uncond or cond).told[EMBEDS].shape[1]
            raise no_baseline(self.steps, guided, tokens, self.baseline.reads)
        self._ran_extra = True
        return self._predict(self.baseline.instead(cond.call))

    def _predict(self, told: Told) -> Tensor:
        """The network itself: no hooks of this guard, nothing compiled."""
        family, pipe = self.source.family, self.source.pipe
        return family.prediction(pipe, plain(family.of(pipe)).forward(**told)[0])

    def _measured(self, prediction: Tensor) -> Measured:
        assert self._first is not None
        start = time.perf_counter()
        magnitudes = tuple(tuple(each.tolist()) for each in self._norms)
        values = zip(*magnitudes, strict=True)
        scores = tuple(sum(each) / self.steps for each in values)  # numpy would take longer
        for image, score in enumerate(scores):
            if not math.isfinite(score):
                raise NumericsError(
                    f"The magnitude of image {image} is NaN or infinite in {prediction.dtype}: "
                    "that is no verdict, and nothing was drawn. Use float32 or bfloat16."
                )
        cond, against, scale = self._first
        return Measured(
            scores=scores,
            magnitudes=magnitudes,
            timesteps=tuple(self._timesteps),
            dtype=str(prediction.dtype).removeprefix("torch."),
            latents=self.source.family.latents(cond.told, prediction),
            compared=tuple(not each for each in self.baseline.told_of(cond)),
            extra_pass=self._ran_extra,
            seconds=self._seconds + time.perf_counter() - start,
            tokens=None if self.baseline.lengths == "any" else cond.told[EMBEDS].shape[1],
            embeds=cond.told[EMBEDS][cond.rows],
            magnitude=functools.partial(self._magnitude, cond, against, scale),
        )

    def _magnitude(
        self, cond: Branch, against: Tensor, scale: float, rows: list[int], embeds: Tensor
    ) -> Tensor:
        told = _cloned(rows_of(cond.call, rows))
        told[EMBEDS] = embeds.to(told[EMBEDS])
        return scale * _norm(self._predict(told), against[rows].clone())


def _norm(cond: Tensor, uncond: Tensor) -> Tensor:
    """`mnemoscope_export.magnitude` in fewer operations. # [B, ...] each, to [B]"""
    difference = cond.float() - uncond.float()
    found: Tensor = torch.linalg.vector_norm(difference, dim=tuple(range(1, difference.ndim)))
    return found


def _cloned(told: Told) -> Told:
    """Tensors that autograd may keep, also those made under `torch.inference_mode`."""

    def clone(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: clone(each) for name, each in value.items()}
        return value.clone() if isinstance(value, Tensor) else value

    return {name: clone(value) for name, value in told.items()}
