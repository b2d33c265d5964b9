"""Options that say who does the work of a long command: this process, or a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from mnemoscope_runtime import BACKENDS, BackendOptions, InputError

from ..audit import RayWorkers
from ..prompts.printable import counted
from ._options import gathers, say
from ._supervised import supervised

__all__ = ["OnRay", "takes_ray"]

_OPTIONS: dict[str, object] = {
    "ray": Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            help="Measure on a Ray cluster: local starts one on this machine, auto joins the one "
            "that it is part of, or HOST:PORT.",
            show_default="this process measures",
        ),
    ],
    "workers": Annotated[
        int | None,
        typer.Option(help="Of --ray.", show_default="as many as it has room for"),
    ],
}

_ENDED = (
    "Ray ended the command, as it does when its own process on this machine is gone: by `ray "
    "stop`, or because memory ran out. What was measured is kept beside --output, and the same "
    "command goes on."
)


@dataclass(frozen=True)
class OnRay:
    """A Ray cluster to work on.

    Attributes:
        address: As of `RayWorkers.start`.
        workers: How many; None for as many as there is room for.
        over: Says that Ray is done with, and cannot end this process any more.
    """

    address: str
    workers: int | None
    over: Callable[[], None] = lambda: None

    def options(self, backend: str, options: BackendOptions) -> BackendOptions:
        """What a worker's backend is told: to leave the other cores to other workers.

        Raises:
            InputError: each node may choose another backend, or it is to run on a certain GPU.
        """
        if backend == "auto":
            raise InputError(
                "--backend auto may choose another one on each node of a Ray cluster. Name one: "
                "`mnemoscope screen --backend auto` on a node says which it takes."
            )
        if options.device:
            raise InputError(
                f"Ray gives each worker a GPU, and shows it no other: --device {options.device} "
                "would not be there. Leave it out."
            )
        spec = BACKENDS.get(backend.partition(":")[0])
        alone = spec is None or "threads" not in spec.takes or _on_gpu(backend, options)
        return options if alone else replace(options, threads=options.threads or 1)

    @contextmanager
    def running(self, backend: str, options: BackendOptions) -> Iterator[RayWorkers]:
        """Workers that have room for a backend: its threads, and a GPU if it runs on one.

        Raises:
            InputError, BackendUnavailable: as `RayWorkers.start`.
        """
        with (
            Path(os.devnull).open("w") as unread,
            redirect_stdout(unread),  # where Ray says what died; results alone go there
            RayWorkers.start(
                self.address,
                count=self.workers,
                cpus=options.threads or 1,
                gpus=int(_on_gpu(backend, options)),
                tell=say,
            ) as workers,
        ):
            found = f"{workers.cluster}; {counted(workers.count, 'worker')}"
            say(f"the Ray cluster {self.address} is there, with {found} to start.")
            yield workers
        self.over()


def _on_gpu(backend: str, options: BackendOptions) -> bool:
    spec = BACKENDS.get(backend.partition(":")[0])
    return options.device is not None if spec is None else "device" in spec.takes


def _on_ray(ray: str | None, workers: int | None) -> OnRay | None:
    if ray is not None:
        return OnRay(ray, workers, supervised(_ENDED))
    if workers is not None:
        raise InputError(
            f"--workers {workers} are those of a Ray cluster. Say which: --ray local, or leave it "
            "out."
        )
    return None


takes_ray = gathers("on_ray", _OPTIONS, _on_ray)
