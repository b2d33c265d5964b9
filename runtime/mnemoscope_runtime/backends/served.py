"""The graph of the first step where a server runs it, as Triton does with backends of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BackendUnavailable
from .base import Arrays, Backend, Engine, OwnProcess
from .cover import NOISES, Profile, run_covered

__all__ = ["Ask", "Served"]

Ask = Callable[[Arrays, tuple[str, ...]], list[NDArray[np.float32]]]


class Served(Backend):
    """Asks a server that has the graph `screen` of the bundle, and nothing else.

    Nobody here sees which graph that is: measure the bundle's probes before you believe it.

    Args:
        name: The backend that the server has of those in `BACKENDS`, whose calibrations apply.
        most: Prompts that it takes in one call.
        ask: Given inputs and names of outputs; raises BackendError.
    """

    cuts_calls = True

    def __init__(self, name: str, most: int, ask: Ask) -> None:
        super().__init__()
        self.name, self._most, self._ask = name, most, ask

    def make_engine(self, bundle: Bundle, graph: str) -> Engine:
        """An engine for "screen".

        Raises:
            BackendUnavailable: another graph is wanted.
        """
        if graph != "screen":
            raise BackendUnavailable(
                f"The server has the graph screen alone, and {graph} is wanted. Ask for the "
                "magnitude at one step, or run the bundle without the server."
            )
        return _Calls(self._ask, self._most, bundle.manifest.noise_bank.shape[0], self.process)


class _Calls:
    def __init__(self, ask: Ask, most: int, noises: int, process: OwnProcess) -> None:
        self._ask, self._process = ask, process
        self._profile = Profile((1, most), (1, noises))
        self._leading = {"input_ids": most, NOISES: noises}

    def __call__(self, inputs: Arrays, outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
        self._process.check()
        return run_covered(
            lambda _, part, names: self._ask(part, names),
            inputs,
            outputs,
            [self._profile],
            self._leading,
        )
