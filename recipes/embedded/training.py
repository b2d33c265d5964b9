"""Training for so long, on a GPU with every step replayed as one CUDA graph."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from .schedule import Log

__all__ = ["Loss", "Until", "train", "training"]

Network = TypeVar("Network", bound=nn.Module)
Loss = Callable[[torch.Generator], Tensor]
_WARMUPS = 3
_RISE = 300  # steps
_EVERY = 25  # steps after which the device is waited for, and the rate set anew


@dataclass(frozen=True)
class Until:
    """When a training ends: after so many seconds, for a GPU that is lent, or steps."""

    seconds: float = math.inf
    steps: float = math.inf

    def done(self, steps: int, seconds: float) -> float:
        """The share that is done."""
        return max(steps / self.steps, seconds / self.seconds)


def train(
    network: Network,
    loss: Loss,
    log: Path,
    *,
    rate: float,
    until: Until,
    decay: float = 0.999,
) -> Network:
    """All steps of `training`; the averaged weights."""
    average = copy.deepcopy(network).requires_grad_(False)
    for _ in training(network, average, loss, log, rate=rate, until=until, decay=decay):
        pass
    return average.eval()


def training(
    network: nn.Module,
    average: nn.Module,
    loss: Loss,
    log: Path,
    *,
    rate: float,
    until: Until,
    decay: float = 0.999,
) -> Iterator[int]:
    """One step each time it is asked, so that several trainings share a GPU; AdamW.

    Args:
        network: On the device where it is trained.
        average: Gets the moving average of its weights.
        loss: Draws a batch, on the device and by the generator alone, and judges the network by it.
        log: A line for every hundred steps, with the last one's loss.
        rate: Learning rate, after a warm-up; falls as a cosine to 1.5 % of it.
        until: When it ends.
        decay: Of the average, a step.

    Yields:
        Steps done.
    """
    device = next(network.parameters()).device
    own, averaged = list(network.parameters()), list(average.parameters())
    now = torch.tensor(0.0, device=device)
    optimiser = torch.optim.AdamW(
        own, now, betas=(0.9, 0.99), weight_decay=1e-2, capturable=device.type == "cuda"
    )
    last = torch.zeros((), device=device)
    generator = torch.Generator(device).manual_seed(torch.initial_seed())

    def step() -> None:
        optimiser.zero_grad()
        value = loss(generator)
        value.backward()
        nn.utils.clip_grad_norm_(own, 1.0)
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, own, 1 - decay)
            last.copy_(value)

    run, wait = (_replayed if device.type == "cuda" else _as_it_is)(step, generator)
    report, start, count = Log(log), time.monotonic(), 0
    while (done := until.done(count, time.monotonic() - start)) < 1:
        now.fill_(rate * min(1, (count + 1) / _RISE) * _falling(done))
        wait()
        for _ in range(_EVERY):
            run()
            count += 1
            yield count
        wait()
        if count % 100 == 0:
            report.write(count, {"loss": float(last)})
    report.write(count, {"loss": float(last)})


def _falling(share: float) -> float:
    """A cosine that ends at 1.5 % of its peak, not at nothing."""
    return 0.5 * (1 + math.cos(math.pi * share * 12 / 13))


def _as_it_is(
    step: Callable[[], None], _: torch.Generator
) -> tuple[Callable[[], None], Callable[[], None]]:
    return step, lambda: None


def _replayed(
    step: Callable[[], None], generator: torch.Generator
) -> tuple[Callable[[], None], Callable[[], None]]:
    """A step, recorded and replayed on a stream of its own; and what waits for all that is done."""
    stream = torch.cuda.Stream(generator.device)  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for _ in range(_WARMUPS):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph, stream=stream):
        step()

    def replay() -> None:
        with torch.cuda.stream(stream):
            graph.replay()

    def wait() -> None:
        stream.synchronize()
        torch.cuda.current_stream().synchronize()

    return replay, wait
