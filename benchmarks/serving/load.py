"""Asks all arms in turns, with the same arrivals: `python -m benchmarks.serving.load TASK RESULT`.

Open loop: prompts arrive as a Poisson process, whether or not those before are answered. Latency is
from arrival to answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from mnemoscope import embedded

from .arms import ARMS, Ask, Refused
from .task import Task

__all__ = ["Turn", "closed_loop", "open_loop"]

_WARM = 20  # prompts that each arm answers before any are timed
_CLIENTS = 8  # of the closed loop
_GOES = 3  # for each round, in which the rate of the bare engine is measured


@dataclass
class Turn:
    """What became of the arrivals of one turn.

    Attributes:
        seconds: From arrival to answer, of those that were answered.
        refused: How many were not taken on.
        failed: How many ended in another error; with `error`, the first of them.
        cpu: Seconds of processor time of the arm's processes; of this one too, if it runs here.
        late: Seconds that arrivals came late, the 99th percentile: whether the figures hold.
    """

    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0
    error: str = ""
    cpu: float = 0.0
    late: float = 0.0


async def open_loop(ask: Ask, prompts: Sequence[str], arrivals: Sequence[float]) -> Turn:
    """A task for every prompt, at its time."""
    turn, late = Turn(), []

    async def one(prompt: str, due: float) -> None:
        try:
            await ask(prompt)
        except Refused:
            turn.refused += 1
        except Exception as error:  # whatever a client raises: it counts, and the first is told
            turn.failed += 1
            turn.error = turn.error or repr(error)
        else:
            turn.seconds.append(time.perf_counter() - due)

    start, tasks = time.perf_counter(), []
    for prompt, arrival in zip(prompts, arrivals, strict=True):
        due = start + arrival
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        late.append(time.perf_counter() - due)
        tasks.append(asyncio.create_task(one(prompt, due)))
    await asyncio.gather(*tasks)
    turn.late = float(np.percentile(late, 99))
    return turn


async def closed_loop(ask: Ask, prompts: Sequence[str], seconds: float) -> float:
    """Prompts a second of some clients, each of which asks again once it is answered."""
    source, done, until = cycle(prompts), 0, time.perf_counter() + seconds

    async def client() -> None:
        nonlocal done
        while time.perf_counter() < until:
            try:
                await ask(next(source))
                done += 1
            except Refused:
                await asyncio.sleep(0.01)

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    return done / (time.perf_counter() - start)


async def follow(task: Task) -> dict[str, Any]:
    """All of it."""
    texts = [row.prompt for row in embedded.read_prompts("memorized", "held_out")]
    async with AsyncExitStack() as stack:
        asks = {
            name: await stack.enter_async_context(ARMS[name](place))
            for name, place in task.places.items()
        }
        for ask in asks.values():
            for prompt in texts[:_WARM]:
                await ask(prompt)
        rate = await _rate(asks["bare engine"], texts, _GOES * task.rounds)
        rows, throughput = [], dict[str, list[float]]()
        for load in task.loads:
            for number in range(task.rounds):
                rng = np.random.default_rng(number)
                count = max(2, int(load * rate * task.seconds))
                arrivals = np.cumsum(rng.exponential(1 / (load * rate), count)).tolist()
                prompts = list(islice(cycle(texts), count))
                for name in _in_turns(list(asks), number):
                    before = cpu_seconds(task.pids.get(name))
                    turn = await open_loop(asks[name], prompts, arrivals)
                    turn.cpu = (cpu_seconds(task.pids.get(name)) - before) / count
                    rows.append({"arm": name, "load": load, "round": number} | asdict(turn))
        for number in range(task.rounds):
            for name in _in_turns(list(asks), number):
                found = await closed_loop(asks[name], texts, task.seconds / 2)
                throughput.setdefault(name, []).append(found)
    return {"capacity": rate, "rows": rows, "clients": _CLIENTS, "throughput": throughput}


async def _rate(ask: Ask, texts: Sequence[str], goes: int) -> float:
    """Prompts a second, one after the other: the median of some goes, as others still start."""
    found = []
    for _ in range(goes):
        start = time.perf_counter()
        for prompt in texts[:100]:
            await ask(prompt)
        found.append(100 / (time.perf_counter() - start))
    return float(np.median(found))


def _in_turns(names: list[str], number: int) -> list[str]:
    first = number % len(names)
    return names[first:] + names[:first]


def cpu_seconds(pid: int | None) -> float:
    """Processor time so far of a process and of those that it started; None: of this one."""
    if pid is None:
        return time.process_time()
    return sum(map(_cpu_of, _family(pid))) / 100  # Linux counts in hundredths


def _family(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _family(int(child))


def _cpu_of(pid: int) -> int:
    told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(told[11]) + int(told[12])


def main() -> None:
    task, result = map(Path, sys.argv[1:])
    told = Task(**json.loads(task.read_text()))
    result.write_text(json.dumps(asyncio.run(follow(told))))


if __name__ == "__main__":
    main()
