"""What goes wrong when an engine is built, or will when it is to run."""

from __future__ import annotations

import gc
import re
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fake_gpu import DRIVER

from mnemoscope_runtime import BackendError, BackendUnavailable, Bundle
from mnemoscope_runtime.backends.nvidia import gpu
from mnemoscope_runtime.backends.tensorrt import build as tensorrt
from mnemoscope_runtime.backends.tensorrt.build import BuildOptions, build_plan
from mnemoscope_runtime.backends.tensorrt.library import Library


@pytest.fixture
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx_bindings", exc_type=ImportError)


@pytest.mark.usefixtures("rtx")
def test_memory_runs_out(bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def config(library: Library, builder: object, *_: object) -> object:
        trt = library.trt
        builder.logger.log(trt.ILogger.Severity.ERROR, "Cuda Runtime (out of memory)")
        builder.logger.log(trt.ILogger.Severity.ERROR, "Skipping tactic")
        made = builder.create_builder_config()
        made.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1)
        return made

    monkeypatch.setattr(tensorrt, "_config", config)
    monkeypatch.setattr(tensorrt, "optimization_profile", lambda *_: None)
    monkeypatch.setattr("tensorrt_rtx_bindings.Builder.build_serialized_network", lambda *_: None)
    monkeypatch.setattr(
        "tensorrt_rtx_bindings.IBuilderConfig.add_optimization_profile", lambda *_: 0
    )
    words = r"\(out of memory\)\. .*two remedies: smaller calls.*--profile 1.*--workspace"
    with pytest.raises(BackendError, match=words):
        build_plan(Bundle.open(bundle_dir), "screen", tmp_path)


def test_a_timing_cache_is_kept(tmp_path: Path) -> None:
    class Config:
        given: bytes

        def create_timing_cache(self, content: bytes) -> Config:
            self.given = content
            return self

        def set_timing_cache(self, cache: Config, ignore_mismatch: bool) -> bool:
            assert (cache, ignore_mismatch) == (self, False)
            return fits

        def serialize(self) -> bytes:
            return self.given + b"measured"

    class Logger:
        reason = "of another GPU"

    trt = ModuleType("tensorrt")
    trt.__version__ = "10.3.0"  # type: ignore[attr-defined]
    library, fits = Library("tensorrt", trt, Logger()), True
    path = tmp_path / "new" / "cache"
    for before in (b"", b"measured"):
        config = Config()
        with tensorrt._timing_cache(library, config, path):
            assert config.given == before
        assert path.read_bytes() == before + b"measured"
    with (
        pytest.raises(BackendError, match="--timing-cache"),
        tensorrt._timing_cache(library, Config(), tmp_path),
    ):
        pass
    fits = False
    with (
        pytest.raises(BackendError, match=r"10\.3\.0 cannot use the timing cache .*of another GPU"),
        tensorrt._timing_cache(library, Config(), path),
    ):
        pass
    assert path.read_bytes() == b"measured" * 2  # as it was


@contextmanager
def _made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[weakref.ref[object]]]:
    """References to the builders that are made, while no garbage is collected."""
    make, found = Library.make, []

    def recorded(self: Library, kind: str) -> object:
        made = make(self, kind)
        found.append(weakref.ref(made))
        return made

    monkeypatch.setattr(Library, "make", recorded)
    gc.disable()
    try:
        yield found
    finally:
        gc.enable()


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(
    ("where", "name", "failure", "words"),
    [
        ("Builder", "create_network", None, "cannot make a network"),
        ("Builder", "create_builder_config", None, "cannot make a builder's configuration"),
        ("Builder", "create_optimization_profile", None, "cannot make the profile 1-4"),
        ("IBuilderConfig", "add_optimization_profile", -1, "cannot add the profile 1-4"),
        ("IBuilderConfig", "set_compute_capability", False, "cannot build for SM89"),
        ("OnnxParser", "load_initializer", False, "cannot parse text_encoder"),
        ("OnnxParser", "parse_model_proto", False, "cannot parse text_encoder"),
        ("Builder", "build_serialized_network", None, "cannot build text_encoder"),
    ],
)
def test_what_the_library_returns_when_it_fails(
    bundle_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    name: str,
    failure: object,
    words: str,
) -> None:
    """The error keeps nothing of the library's: see `releasing`."""
    monkeypatch.setattr(f"tensorrt_rtx_bindings.{where}.{name}", lambda *_: failure)
    options = BuildOptions(targets=("SM89",))
    with (
        _made(monkeypatch) as made,
        pytest.raises(BackendError, match=rf"TensorRT for RTX [\d.]+ {words}: no reason given"),
    ):
        build_plan(Bundle.open(bundle_dir), "text_encoder", tmp_path, options=options)
    assert [each() for each in made] == [None]


@pytest.mark.usefixtures("rtx")
def test_a_builder_that_does_not_start(
    bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pybind has a TypeError for what is null."""
    import tensorrt_rtx_bindings as trt

    def builder(logger: Any) -> None:
        logger.log(trt.ILogger.Severity.ERROR, "CUDA initialization failure with error: 35.")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(trt, "Builder", builder)
    with pytest.raises(BackendUnavailable, match=r"cannot start its Builder: .*error: 35\. `mnem"):
        build_plan(Bundle.open(bundle_dir), "text_encoder", tmp_path)


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(
    ("sm", "targets", "words"),
    [
        ("SM90", (), "will not run here.*none for NVIDIA X, SM90"),
        ("SM75", (), "For this one, build with --target SM75"),
        ("SM89", ("SM86",), "For this one, build with --target SM89"),
        ("SM89", (), None),
        ("SM75", ("SM75", "SM86"), None),
    ],
)
def test_the_gpu_that_is_here_will_not_run_it(
    bundle_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sm: str,
    targets: tuple[str, ...],
    words: str | None,
) -> None:
    card = gpu.Gpu("NVIDIA X", sm, 2**30)
    monkeypatch.setattr(gpu, "driver", lambda: replace(DRIVER, gpus=(card,)))
    monkeypatch.setattr(tensorrt, "_plan", lambda *_: b"engine")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        options = BuildOptions(targets=targets)
        build_plan(Bundle.open(bundle_dir), "screen", tmp_path, options=options)
    said = [str(warning.message) for warning in caught]
    assert len(said) == (words is not None)
    assert all(re.search(words or "", text) for text in said)
