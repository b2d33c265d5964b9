"""What a scheduler is, apart from what every request sets anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch

from mnemoscope_runtime.errors import InputError

from ..calibration import digest
from .traits import Strange, text

__all__ = ["Scheduled"]

_STEPS = 4
_SAMPLE = (1, 4, 8, 8)  # of a trial request
_CONFIG = "_internal_dict"
_FAILURES = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


class Scheduled:
    """What a pipeline's scheduler is: its class, its configuration, and what differs from those.

    Every attribute is compared with that of a scheduler which is made anew of the same
    configuration, except for those that a trial request of that one has set or changed.
    """

    def __init__(self) -> None:
        self._kind: type | None = None
        self._config: Any = None
        self._name = ""
        self._expected: Mapping[str, str] = {}
        self._passing: frozenset[str] = frozenset()

    def name(self, scheduler: Any) -> str:
        """A scheduler in words that two processes agree on.

        Raises:
            InputError: its methods are not its own, or what it does cannot be told.
        """
        kind = type(scheduler)
        methods = [name for name in vars(scheduler) if callable(getattr(kind, name, 0))]
        if methods:
            raise InputError(
                f"{', '.join(methods)} of this scheduler was replaced, so that a guard cannot tell "
                "where it leads. Make a scheduler from its configuration (`from_config`)."
            )
        try:
            if kind is not self._kind or scheduler.config is not self._config:
                self._learn(scheduler)
            has = _texts(scheduler, self._passing)
        except Strange as strange:
            raise InputError(
                f"A guard cannot tell where this {kind.__name__} leads: {strange}. Make a "
                "scheduler of diffusers from its configuration (`from_config`)."
            ) from None
        others = {
            name: has.get(name, "missing")
            for name in has.keys() | self._expected.keys()
            if has.get(name) != self._expected.get(name)
        }
        return "".join([self._name, *(f", {name} {others[name]}" for name in sorted(others))])

    def _learn(self, scheduler: Any) -> None:
        """Make it anew, and see what a request does to it."""
        kind, config = type(scheduler), scheduler.config
        try:
            fresh = kind.from_config(config)
            told = {k: v for k, v in config.items() if not k.startswith("_")}
            levels = getattr(fresh, "alphas_cumprod", None)
            values = "" if levels is None else levels.detach().double().numpy().tobytes().hex()
            made = json.dumps(told, sort_keys=True, default=repr)
            before = dict(vars(fresh))
            lists = {name: [*value] for name, value in before.items() if isinstance(value, list)}
            passing = _written(fresh) | {_CONFIG}
            passing |= {name for name, value in lists.items() if vars(fresh)[name] != value}
            self._expected = _texts(kind.from_config(config), passing)
        except _FAILURES as error:
            raise Strange(f"a trial of it failed: {error}") from None
        own = kind.__module__.startswith("diffusers.")  # another one may be called the same
        name = kind.__name__ if own else f"{kind.__module__}.{kind.__qualname__}"
        self._name = f"{name} {digest(made + values)}"
        self._kind, self._config, self._passing = kind, config, frozenset(passing)


def _texts(scheduler: Any, passing: frozenset[str] | set[str]) -> dict[str, str]:
    """Attributes that outlast a request.

    Raises:
        Strange: one of them is of an unknown kind.
    """
    own = {name: value for name, value in vars(scheduler).items() if name not in passing}
    return {name: text(value, name) for name, value in own.items()}


def _written(scheduler: Any) -> set[str]:
    """Attributes that a request sets, whatever it asks for."""
    kind: Any = type(scheduler)
    found: set[str] = set()

    class Noting(kind):  # type: ignore[misc]
        def __setattr__(self, name: str, value: Any) -> None:
            found.add(name)
            super().__setattr__(name, value)

    scheduler.__class__ = Noting
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        shifts = scheduler.config.get("use_dynamic_shifting", False)
        scheduler.set_timesteps(_STEPS, **({"mu": 1.0} if shifts else {}))
        sample = torch.zeros(_SAMPLE)
        is_flow = not hasattr(scheduler, "scale_model_input")
        for t in scheduler.timesteps:
            scaled = sample if is_flow else scheduler.scale_model_input(sample, t)
            prediction = torch.zeros_like(scaled)
            sample = scheduler.step(prediction, t, sample, return_dict=False)[0]
        if is_flow:  # of those a request gives levels
            return found
        with suppress(AssertionError, TypeError, ValueError):  # not all take those of the request
            scheduler.set_timesteps(timesteps=scheduler.timesteps.long().tolist())
    return found
