"""Following a builder, and stopping it: libraries build for minutes in one call."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from types import ModuleType
from typing import Any, TypeVar

__all__ = ["Progress", "interruptible", "make_monitor"]

Progress = Callable[[str, int, int], None]  # phase, steps done, steps in all
Result = TypeVar("Result")


def interruptible(build: Callable[[], Result], monitor: Any) -> Result:
    """Build in a thread, so that this one hears Ctrl-C and can have the builder stop."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(build)
        try:
            while not wait([future], timeout=0.1).done:  # a signal does not always end a wait
                pass
            result = future.result()
        except BaseException as error:
            monitor.stop(error)  # leaving the pool waits until the builder has
            raise
    if monitor.stopped is not None:
        raise monitor.stopped
    return result


def make_monitor(trt: ModuleType, progress: Progress) -> Any:
    """What a builder reports to; `stop` has it give up."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc,name-defined]
        """Passes the builder's phases on, and tells it to stop."""

        def __init__(self) -> None:
            super().__init__()
            self.stopped: BaseException | None = None
            self._steps: dict[str, int] = {}

        def stop(self, error: BaseException) -> None:
            """Have the builder give up at its next step."""
            self.stopped = self.stopped or error

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:  # noqa: ARG002
            self._steps[name] = steps

        def step_complete(self, name: str, step: int) -> bool:
            if self.stopped is None:
                try:
                    progress(name, step + 1, self._steps.get(name, step + 1))
                except BaseException as error:
                    self.stop(error)
            return self.stopped is None

        def phase_finish(self, name: str) -> None:
            self._steps.pop(name, None)

    return Monitor()
