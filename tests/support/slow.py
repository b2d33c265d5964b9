"""Which tests `make quick` leaves out: those marked `slow`, by hand or by what they ask for.

None can be forgotten: a test that is not marked fails where it exports or starts Python.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Generator
from multiprocessing.process import BaseProcess

import pytest

# fixtures that export, build a model of torch's or draw; all that ask for one of them are slow
_SLOW_FIXTURES = frozenset({"shared", "model_dir", "bundle_path", "painter", "pipe"})


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, object, object]:
    for item in items:
        if _SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    result = yield  # pytest deselects, and puts tests of the same model together
    # workers that are done take over half of what another has left: small things, if they are last
    items.sort(key=_turn)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported stays: searching it for garbage takes a quarter of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Nor is it later.

    Nor need what an export makes, hundreds of thousands of objects that live until its end.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(250_000)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    with pytest.MonkeyPatch.context() as patch:
        if not is_slow(item):
            patch.setattr(subprocess.Popen, "__init__", _no_python(subprocess.Popen.__init__))
            patch.setattr(BaseProcess, "start", _refuse("starts another Python"))
            if "torch" in sys.modules:
                patch.setattr("torch.onnx.export", _refuse("exports a graph"))
        result = yield
    if nextitem is not None and nextitem.path != item.path and "export" in nextitem.path.parts:
        gc.collect()  # exports do so too, and would look at all that others left
        gc.freeze()
    return result


def _turn(item: pytest.Item) -> int:
    """Those that take long by themselves first, then the slow ones, then all others."""
    slow = item.get_closest_marker("slow")
    return 2 if slow is None else not slow.kwargs.get("first", False)


def is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


def _no_python(start: Callable[..., None]) -> Callable[..., None]:
    """What else the product starts, as nvidia-smi, is quick or not there at all."""

    def init(self: object, args: object, *others: object, **named: object) -> None:
        if isinstance(args, list) and args[0] == sys.executable:
            _refuse("starts another Python")()
        start(self, args, *others, **named)

    return init


def _refuse(what: str) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail(f"This test {what}: mark it with @pytest.mark.slow.")

    return refuse
