"""Workers on a Ray cluster: actors that open what a stage needs, and are given batches.

Ray starts them, places them and starts them again. What was done it need not remember: results go
to the driver's journal as they come, under the numbers of their batches. So the death of a worker
costs what it had, which others do again, and the death of the driver what was on its way.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from mnemoscope_runtime import (
    BackendError,
    BackendUnavailable,
    InputError,
    MnemoscopeError,
    __version__,
)
from mnemoscope_runtime.closing import Closing
from mnemoscope_runtime.options import check_options
from mnemoscope_runtime.wording import counted

from .ray_actor import Actor
from .ray_cluster import LOCAL, connect, resources, room
from .stages import Stage

__all__ = ["RayWorkers"]

Item = TypeVar("Item")
Result = TypeVar("Result")
Batch = tuple[int, list[Any]]

_AHEAD = 2  # batches that a worker has: one that it does and one that waits
_DEATHS = 3  # workers that a batch may cost; another one ends the audit
_PATIENCE = 60.0  # seconds without a worker, after which the user is told


@dataclass
class _Running:
    """A stage and its workers.

    Attributes:
        stage: What is done.
        number: Of the stage, among those that these workers did.
        opens: Where `Stage.open` lies, pickled.
        starting: Actors that were told to begin, by what Ray calls the answer.
        idle: Those that may be given a batch, once for each batch.
        doing: Which does which batch, by what Ray calls the results.
        again: Batches whose worker died.
        deaths: How many workers each has cost, by its number.
    """

    stage: Stage[Any, Any]
    number: int
    opens: Any
    starting: dict[Any, Any] = field(default_factory=dict)
    idle: deque[Any] = field(default_factory=deque)
    doing: dict[Any, tuple[Any, Batch]] = field(default_factory=dict)
    again: list[Batch] = field(default_factory=list)
    deaths: Counter[int] = field(default_factory=Counter)

    def begin(self, actor: Any) -> None:
        """Have an actor that starts say when it is there; it may be given a batch then."""
        told = actor.begin.options(max_task_retries=-1)
        self.starting[told.remote(__version__, self.number, self.opens)] = actor

    def give(self, batches: Iterator[Batch]) -> None:
        """Give batches to those that are idle, as long as there are both."""
        while self.idle:
            batch = self.again.pop() if self.again else next(batches, None)
            if batch is None:
                return
            actor = self.idle.popleft()
            number, items = batch
            first = number * self.stage.size
            done = actor.do.remote(self.number, items, self.stage.unit, first)
            self.doing[done] = actor, batch

    def lose(self, actor: Any) -> Batch:
        """Have done again what an actor had that died, and ask it whether it is there again.

        Returns:
            The batch that it was at: the first that it was given.
        """
        had = [each for each, (who, _) in self.doing.items() if who is actor]
        batches = [self.doing.pop(each)[1] for each in had]
        self.again += batches
        for _ in range(len(had) + self.idle.count(actor)):
            self.begin(actor)
        self.idle = deque(each for each in self.idle if each is not actor)
        return batches[0]


class RayWorkers(Closing):
    """Does stages on a Ray cluster. A context manager; what `start` says is over with it.

    Args:
        ray: The library, connected to a cluster.
        count: How many workers.
        cpus: That each takes.
        gpus: Likewise; Ray shows a worker its own alone, as device 0.
        tell: Told what the user should know.
        closing: What ends with it.
    """

    def __init__(
        self,
        ray: Any,
        count: int,
        cpus: float,
        gpus: float,
        tell: Callable[[str], None],
        closing: ExitStack,
    ) -> None:
        self.count = count
        self._ray = ray
        self._tell = tell
        self._closing = closing
        self._actors: list[Any] = []
        self._stages = 0
        self._make = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=-1, max_task_retries=0)(
            Actor
        )

    @classmethod
    def start(
        cls,
        address: str = LOCAL,
        *,
        count: int | None = None,
        cpus: float = 1,
        gpus: float = 0,
        tell: Callable[[str], None] = warnings.warn,
    ) -> Self:
        """Workers on a cluster of this machine, which ends with them, or on one that runs.

        A cluster of this machine is heard by no other: it has the loopback address, a token of its
        own, no dashboard, and reports its use to nobody.

        Args:
            address: "local"; "auto" for the cluster that this machine is part of, or that this
                process is connected to; or HOST:PORT of one.
            count: How many; by default as many as the cluster has room for.
            cpus: That each takes, more than 0.
            gpus: Likewise, or 0.
            tell: Told what the user should know.

        Raises:
            InputError: an option cannot be used.
            BackendUnavailable: Ray is not installed, or there is no such cluster, or no room in it.
        """
        check_options("text", address=address)
        check_options("a whole number or None", count=count)
        check_options("a number", cpus=cpus, gpus=gpus)
        if (count is not None and count < 1) or not cpus > 0 or not gpus >= 0:
            raise InputError(
                f"{count} workers of {cpus} CPUs and {gpus} GPUs each cannot do anything. Give 1 "
                "or more workers, with more than 0 CPUs each."
            )
        if "://" in address:
            raise InputError(
                f"{address} is Ray's client for machines outside of a cluster, with which audits "
                "are not tried. Run this on a node of the cluster, with the address auto."
            )
        with ExitStack() as closing:
            ray = connect(address, cpus * (count or 1), closing)
            most = room(ray.cluster_resources(), cpus, gpus)
            if not (count or most):
                raise BackendUnavailable(
                    f"The Ray cluster {address} has no room for a worker, which takes {cpus:g} "
                    f"CPUs and {gpus:g} GPUs: it has {resources(ray)}. Ask for less (--threads), "
                    "or say how many --workers to wait for if it grows by itself."
                )
            return cls(ray, count or most, cpus, gpus, tell, closing.pop_all())

    @property
    def cluster(self) -> str:
        """What the cluster has, in words."""
        return resources(self._ray)

    def map(
        self, stage: Stage[Item, Result], batches: Iterator[tuple[int, list[Item]]]
    ) -> Iterator[tuple[int, list[Result]]]:
        """See `Workers`.

        Raises:
            BackendError: a batch ended worker after worker.
            BackendUnavailable: what is to be done cannot be sent to another process, or workers
                cannot start.
        """
        self._stages += 1
        now = _Running(stage, self._stages, self._ray.put(self._pickled(stage)))
        count = min(self.count, math.ceil(stage.count / stage.size))
        self._actors += (self._make.remote() for _ in range(count - len(self._actors)))
        try:
            for actor in self._actors[:count] * _AHEAD:
                now.begin(actor)
            while True:
                now.give(batches)
                if not now.doing and (now.idle or not now.starting):
                    return
                for reference in self._wait([*now.doing, *now.starting], patient=bool(now.doing)):
                    if reference in now.starting:
                        self._started(now, reference)
                    elif reference in now.doing:  # or it was lost with the one before it
                        yield from self._done(now, reference)
        except BaseException:  # they may be at work
            self._kill()
            raise

    def close(self) -> None:
        """End the workers, and the cluster if `start` started it."""
        self._kill()
        self._closing.close()

    def _pickled(self, stage: Stage[Any, Any]) -> bytes:
        try:
            opens: bytes = self._ray.cloudpickle.dumps(stage.open)  # also what a script defines
        except Exception as error:  # whatever objects raise
            raise InputError(
                f"What other processes are to do cannot be sent to them: {error}. Give what opens "
                'it in each of them: partial(Detector.load, "my-bundle").'
            ) from None
        return opens

    def _kill(self) -> None:
        if self._ray.is_initialized():  # or all of them are gone
            for actor in self._actors:
                self._ray.kill(actor)
        self._actors.clear()

    def _wait(self, waiting: list[Any], *, patient: bool) -> list[Any]:
        """What has come meanwhile, one at least."""
        done, _ = self._ray.wait(waiting, timeout=None if patient else _PATIENCE)
        if not done:
            self._tell(
                f"no worker has started on the Ray cluster for {_PATIENCE:.0f} seconds: it has "
                f"{resources(self._ray)}, and others may be using them. Waiting; `ray status` "
                "shows why."
            )
            self._ray.wait(waiting)
        done, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        return list(done)

    def _started(self, now: _Running, reference: Any) -> None:
        actor = now.starting.pop(reference)
        try:
            error = self._ray.get(reference)
        except self._ray.exceptions.RayError as lost:
            raise BackendUnavailable(
                f"A worker cannot start on the Ray cluster: {_why(lost)} Every node needs "
                f"Mnemoscope {__version__}, and what it takes to open what the audit measures with."
            ) from None
        if error is not None:
            raise error
        now.idle.append(actor)

    def _done(self, now: _Running, reference: Any) -> Iterator[tuple[int, list[Any]]]:
        """The results of a batch, if its worker lived to give them."""
        actor, (number, _) = now.doing[reference]
        try:
            found = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError:
            raise  # a defect of what it was to do
        except self._ray.exceptions.RayError as error:
            self._lost(now, actor, error)
            return
        if isinstance(found, MnemoscopeError):
            raise found
        if found is None:
            now.lose(actor)
        else:
            del now.doing[reference]
            now.idle.append(actor)
            yield number, found

    def _lost(self, now: _Running, actor: Any, error: Exception) -> None:
        number, _ = now.lose(actor)
        now.deaths[number] += 1
        first = f"{now.stage.unit} {number * now.stage.size:,}"
        if now.deaths[number] > _DEATHS:
            raise BackendError(
                f"{counted(now.deaths[number], 'worker')} died one after the other, with the "
                f"batch from {first} on; the last: {_why(error)} If memory ran out, start fewer "
                "--workers, or give the nodes more."
            ) from None
        self._tell(f"a worker died, and the batch from {first} on is done again: {_why(error)}")


def _why(error: Exception) -> str:
    """The first of what Ray says, in one line."""
    return " ".join(str(error).split())[:1000]
