"""What every backend has from its base, and a backend of one's own."""

from __future__ import annotations

import importlib
import pkgutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from documented import named_in_table, run_code
from numpy.typing import NDArray

from mnemoscope import Detector, embedded
from mnemoscope_runtime import (
    BACKENDS,
    Backend,
    BackendError,
    BackendOptions,
    Bundle,
    Engine,
    InputError,
    Screener,
    backends,
)
from mnemoscope_runtime.backends import Arrays
from mnemoscope_runtime.backends.served import Served


class Own(Backend):
    """Engines that answer with zeros; keeps what was made and what was let go of."""

    name = "own"

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []
        self.freed: list[str] = []
        self.broken = False

    def make_engine(self, bundle: Bundle, graph: str) -> Engine:
        assert bundle.read(bundle.manifest.graphs[graph])
        if self.broken:
            raise BackendError("out of memory")
        self.made.append(graph)
        self.closing.callback(self.freed.append, graph)

        def run(inputs: Arrays, outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
            size = len(inputs["input_ids"]), len(inputs["noise_index"])
            return [np.zeros(size, np.float32) for _ in outputs]

        return run


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(embedded.BUNDLE)


def test_an_engine_is_made_once_however_many_ask(bundle: Bundle) -> None:
    backend = Own()
    with ThreadPoolExecutor(8) as pool:
        engines = list(pool.map(lambda _: backend.load(bundle, "screen"), range(64)))
    assert len(set(map(id, engines))) == 1
    assert backend.load(bundle, "step") is not engines[0]
    assert backend.made == ["screen", "step"]


def test_the_bundle_keeps_no_bytes_of_what_was_made(bundle: Bundle) -> None:
    bundle.read(bundle.manifest.graphs["screen"])
    assert bundle._verified
    Own().load(bundle, "screen")
    assert not bundle._verified


def test_what_could_not_be_made_is_tried_again(bundle: Bundle) -> None:
    backend = Own()
    backend.broken = True
    with pytest.raises(BackendError, match="out of memory"):
        backend.load(bundle, "screen")
    backend.broken = False
    assert backend.load(bundle, "screen") is backend.load(bundle, "screen")


def test_closing_lets_go_of_everything_once_the_last_first(bundle: Bundle) -> None:
    with Own() as backend:
        engine = backend.load(bundle, "screen")
        backend.load(bundle, "step")
        assert backend.freed == []
    assert backend.freed == ["step", "screen"]
    backend.close()
    assert backend.freed == ["step", "screen"]
    assert backend.load(bundle, "screen") is not engine  # it may be used again
    backend.close()
    assert backend.freed == ["step", "screen", "screen"]


def test_one_that_cannot_be_let_go_of_keeps_nothing_else(bundle: Bundle) -> None:
    def fail() -> None:
        raise BackendError("the GPU is gone")

    backend = Own()
    backend.load(bundle, "screen")
    backend.closing.callback(fail)
    with pytest.raises(BackendError, match="the GPU is gone"):
        backend.close()
    assert backend.freed == ["screen"]


def test_in_a_fork_nothing_is_used_or_let_go_of(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Own()
    engine = backend.load(bundle, "screen")
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: -1)
        with pytest.raises(BackendError, match="a fork of it"):
            backend.load(bundle, "screen")
        backend.close()
    assert backend.freed == []
    assert backend.load(bundle, "screen") is engine


def test_a_screener_asks_its_backend_and_keeps_no_engines() -> None:
    backend = Own()
    with Screener.open(embedded.BUNDLE, backend=backend) as screener:
        for _ in range(2):
            assert not screener.first_step(["a cat"], noises=2).any()
        assert backend.made == ["screen"]
    assert backend.freed == ["screen"]
    with pytest.raises(BackendError, match="closed"):
        screener.first_step(["a cat"])


class Alike:
    """Has what a backend has, and is none."""

    name = "alike"

    def load(self, _: Bundle, __: str) -> Engine:
        raise AssertionError("something was loaded")

    def close(self) -> None: ...


@pytest.mark.parametrize("backend", [Alike(), Own, 5, None], ids=["alike", "class", "5", "None"])
def test_what_is_no_backend_is_refused_with_a_way_out(backend: Any, bundle: Bundle) -> None:
    words = r"neither a name nor a Backend\. Name one of: onnxruntime, .* derive yours from mnemo"
    for use in (
        lambda: Detector.load(backend=backend),
        lambda: Screener.open(embedded.BUNDLE, backend=backend),
        lambda: Screener(bundle, backend),
    ):
        with pytest.raises(InputError, match=words):
            use()


def test_a_backend_says_how_to_make_an_engine() -> None:
    with pytest.raises(TypeError, match="make_engine"):
        type("Nothing", (Backend,), {"name": "nothing"})()


def test_one_of_your_own(capsys: pytest.CaptureFixture[str]) -> None:
    """The example of docs/backends.md."""
    names = run_code("backends.md", "class OtherProvider")
    with Detector.load(uncalibrated="score") as detector:
        expected = detector.screen(["a cat"])[0].score
    assert float(capsys.readouterr().out) == pytest.approx(expected, rel=1e-4)
    with names["OtherProvider"]("CPUExecutionProvider") as backend:
        engine = backend.load(Bundle.open(embedded.BUNDLE), "screen")
        with pytest.raises(BackendError, match="onnxruntime/CPUExecutionProvider failed"):
            engine({}, ("magnitude",))


def test_no_backend_is_missing_in_the_table() -> None:
    for found in pkgutil.walk_packages(backends.__path__, f"{backends.__name__}."):
        importlib.import_module(found.name)
    ours = {
        each for each in Backend.__subclasses__() if each.__module__.startswith(backends.__name__)
    }
    # what a server runs for us has the name of the backend that the server has
    assert ours - {Served} == {spec.load() for spec in BACKENDS.values()}
    assert len(ours) > 3


def test_every_backend_and_option_is_told_of_in_the_docs() -> None:
    told = named_in_table("backends.md")
    assert set(BACKENDS) <= told
    lower = {f"{name}:{each}" for name, spec in BACKENDS.items() for each in spec.lower}
    assert lower <= told
    options = {name.split()[0] for name in told if name.startswith("--")}
    assert options == {f"--{field.name}" for field in fields(BackendOptions)}


def test_a_name_of_the_table_is_refused() -> None:
    """Its calibrations would be taken for those of another, and zeros for clean."""
    own = Own()
    for name in ("onnxruntime", "openvino:bfloat16"):
        own.name = name
        with pytest.raises(InputError, match="calibrations would be taken for its own"):
            Screener.open(embedded.BUNDLE, backend=own)
        with pytest.raises(InputError, match="Give it another name"):
            Screener(Bundle.open(embedded.BUNDLE), own)
    own.name = "onnxruntime/mine"
    Screener.open(embedded.BUNDLE, backend=own).close()


def test_what_is_missing_is_said() -> None:
    class Nameless(Own):
        name = None  # type: ignore[assignment]

    class NotBegun(Own):
        def __init__(self) -> None:
            self.made = []

    for backend in (Nameless(), NotBegun()):
        with pytest.raises(InputError, match=r"super\(\).__init__\(\)"):
            Screener.open(embedded.BUNDLE, backend=backend)
