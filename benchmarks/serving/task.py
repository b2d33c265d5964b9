"""What the process of the clients is told."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Task"]


@dataclass(frozen=True)
class Task:
    """What is to be done.

    Attributes:
        places: What each arm is told, by its name in `ARMS`.
        pids: Of the first process of each arm's server; none for what runs here.
        loads: Shares of what the bare engine can do, one prompt after the other.
        rounds: Turns of every arm at every load.
        seconds: Of arrivals in each turn.
    """

    places: dict[str, str]
    pids: dict[str, int]
    loads: list[float]
    rounds: int
    seconds: float
