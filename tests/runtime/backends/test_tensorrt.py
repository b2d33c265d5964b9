"""Running engines, on a GPU of numpy (see fake_gpu)."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_gpu
import numpy as np
import pytest
from engine_support import Put, ids, screen
from fake_gpu import FakeRuntime, FakeTensorRt, magnitude, step

from mnemoscope_runtime import (
    BackendError,
    BackendUnavailable,
    Bundle,
    IntegrityError,
)
from mnemoscope_runtime.backends.cover import Profile
from mnemoscope_runtime.backends.tensorrt import PlanWarning
from mnemoscope_runtime.backends.tensorrt.backend import TensorRt

pytestmark = pytest.mark.usefixtures("fake_trt")


@pytest.fixture
def backend(tmp_path: Path, fake_trt: FakeTensorRt) -> Iterator[TensorRt]:
    backend = TensorRt(engines=tmp_path)
    yield backend
    backend.close()
    assert fake_trt.rt.is_empty(), "something on the GPU was not given back"


ONE_TO_FOUR = Profile((1, 4), (1, 3))


@pytest.mark.parametrize(
    "sizes",
    [("1",), ("4",), ("1x3",), ("1", "4", "1x3"), ("3", "2x2"), (ONE_TO_FOUR,)],
    ids=str,
)
@pytest.mark.parametrize("prompts", [1, 3, 4, 9])
@pytest.mark.parametrize("noises", [1, 3])
def test_every_call_is_cut_to_what_the_engine_takes(
    put: Put, backend: TensorRt, shipped: Bundle, sizes: tuple[str], prompts: int, noises: int
) -> None:
    put(*sizes)
    engine = backend.load(shipped, "screen")
    for seed in range(2):  # the second time with other values in the same buffers
        given = ids(prompts, seed)
        found = screen(engine, given, noises)
        np.testing.assert_array_equal(found, magnitude(given, np.arange(noises)))
        assert found.dtype == np.float32


def test_a_large_call_takes_few_runs(
    put: Put, backend: TensorRt, shipped: Bundle, fake_trt: FakeTensorRt
) -> None:
    put("1", "8", "1x3")
    engine = backend.load(shipped, "screen")
    fake_trt.calls.clear()
    screen(engine, ids(17), 1)
    screen(engine, ids(1), 3)
    assert [tuple(s["magnitude"]) for _, s in fake_trt.calls] == [(8, 1), (8, 1), (1, 1), (1, 3)]


def test_step(put: Put, backend: TensorRt, shipped: Bundle) -> None:
    put("1", "2", graph="step")
    engine = backend.load(shipped, "step")
    rng = np.random.default_rng(0)
    inputs = {
        "prompt_embeds": rng.normal(size=(5, 77, 32)).astype(np.float32),
        "empty_embeds": rng.normal(size=(1, 77, 32)).astype(np.float32),
        "latents": rng.normal(size=(5, 4, 8, 8)).astype(np.float32),
        "timestep": np.asarray(981, np.int64),
    }
    expected = step(**inputs)
    names = ("eps_uncond", "magnitude", "eps_cond")
    for name, found in zip(names, engine(inputs, names), strict=True):
        np.testing.assert_array_equal(found, expected[name])


@pytest.mark.parametrize("contexts", [1, 3])
@pytest.mark.parametrize("sizes", [("1", "2"), (ONE_TO_FOUR,)], ids=["static", "range"])
def test_threads_share_an_engine(
    put: Put,
    tmp_path: Path,
    shipped: Bundle,
    fake_trt: FakeTensorRt,
    contexts: int,
    sizes: tuple[str],
) -> None:
    put(*sizes)
    backend = TensorRt(engines=tmp_path, contexts=contexts)
    engine = backend.load(shipped, "screen")
    given = [ids(1 + seed % 5, seed) for seed in range(64)]
    with ThreadPoolExecutor(64) as pool:
        found = list(pool.map(lambda prompts: screen(engine, prompts, 3), given))
    for prompts, values in zip(given, found, strict=True):
        np.testing.assert_array_equal(values, magnitude(prompts, np.arange(3)))
    backend.close()
    assert fake_trt.rt.is_empty()


def test_sizes_that_stay_are_replayed(
    put: Put, backend: TensorRt, shipped: Bundle, fake_cuda: FakeRuntime
) -> None:
    put("1", "4")
    engine = backend.load(shipped, "screen")
    assert len(fake_cuda.graphs) == 2  # captured before the first request
    assert fake_cuda.launched == 0
    screen(engine, ids(5), 1)
    assert fake_cuda.launched == 2


def test_ranges_are_not_captured(
    put: Put, backend: TensorRt, shipped: Bundle, fake_cuda: FakeRuntime
) -> None:
    put(ONE_TO_FOUR)
    screen(backend.load(shipped, "screen"), ids(3), 2)
    assert not fake_cuda.graphs


def test_what_cannot_be_captured_runs_all_the_same(
    put: Put, backend: TensorRt, shipped: Bundle, fake_trt: FakeTensorRt
) -> None:
    put("1")
    fake_trt.cannot_capture = True
    with pytest.warns(PlanWarning, match="runs without a CUDA graph"):
        engine = backend.load(shipped, "screen")
    given = ids(2)
    np.testing.assert_array_equal(screen(engine, given, 2), magnitude(given, np.arange(2)))


def test_inputs_that_the_host_reads_are_not_captured(
    put: Put, backend: TensorRt, shipped: Bundle, fake_trt: FakeTensorRt
) -> None:
    """They are read when a graph is captured, so it would replay old ones."""
    fake_trt.locations = {"noise_index": "host"}
    put("1")
    engine, given = backend.load(shipped, "screen"), ids(1)
    assert not fake_trt.rt.graphs
    np.testing.assert_array_equal(screen(engine, given, 3), magnitude(given, np.arange(3)))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "takes input_ids, noise_index, not nothing"),
        ({"input_ids": ids(1)}, "takes input_ids, noise_index, not input_ids"),
        ({"input_ids": ids(1).astype(np.int32), "noise_index": np.array([0])}, "is int32"),
        ({"input_ids": ids(1)[:, :5], "noise_index": np.array([0])}, r"is int64 \(1, 5\)"),
    ],
)
def test_inputs_that_do_not_fit(
    put: Put, backend: TensorRt, shipped: Bundle, inputs: dict[str, np.ndarray], words: str
) -> None:
    put("1")
    engine = backend.load(shipped, "screen")
    with pytest.raises(BackendError, match=words):
        engine(inputs, ("magnitude",))
    assert screen(engine, ids(1), 1).shape == (1, 1)  # the worker is still there


def test_unknown_output(put: Put, backend: TensorRt, shipped: Bundle) -> None:
    put("1")
    engine = backend.load(shipped, "screen")
    with pytest.raises(BackendError, match="no output eps_cond"):
        engine({"input_ids": ids(1), "noise_index": np.array([0])}, ("eps_cond",))


# which engine


def test_there_is_none(backend: TensorRt, shipped: Bundle) -> None:
    with pytest.raises(BackendError, match=r"no plan of screen.*mnemoscope build.*never builds"):
        backend.load(shipped, "screen")


def test_the_one_for_the_largest_calls(
    put: Put, backend: TensorRt, shipped: Bundle, fake_trt: FakeTensorRt
) -> None:
    for sizes in (("2",), ("1", "8"), ("4",)):
        put(*sizes)
    put("16", change=lambda key: replace(key, version="10.2.0"))  # does not fit
    screen(backend.load(shipped, "screen"), ids(8), 1)
    assert fake_trt.calls[-1][1]["magnitude"] == (8, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": "10.2.0"}, r"version is 10\.2\.0, here it is 10\.3\.0"),
        ({"cuda": 12}, "cuda is 12, here it is"),
        ({"bundle": "00" * 32}, "bundle is 000000000000…"),
        ({"graph_sha256": "00" * 32}, "graph_sha256 is"),
        ({"weights_sha256": ("00" * 32,)}, "weights_sha256 is"),
        ({"platform": "windows-amd64"}, "platform is windows-amd64"),
        ({"gpu": "NVIDIA A100"}, "gpu is NVIDIA A100, here it is NVIDIA Fake 4090"),
        ({"sm": ("SM80",)}, r"sm is \('SM80',\), here it is \('SM89',\)"),
    ],
)
def test_an_engine_for_something_else(
    put: Put, backend: TensorRt, shipped: Bundle, change: dict[str, object], words: str
) -> None:
    put("1", content=b"must not be looked at", change=lambda key: replace(key, **change))
    with pytest.raises(BackendError, match=f"{words}.*mnemoscope build BUNDLE --backend tensorrt"):
        backend.load(shipped, "screen")


def test_a_damaged_engine(put: Put, backend: TensorRt, shipped: Bundle) -> None:
    put("1").write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match="sha256"):
        backend.load(shipped, "screen")


@pytest.mark.parametrize("profiles", ["[]", '[{"prompts": [0, 0]}]', '[{"prompts": [2, 1]}]'])
def test_a_sidecar_with_impossible_sizes(
    put: Put, backend: TensorRt, shipped: Bundle, profiles: str
) -> None:
    sidecar = put("1").with_suffix(".engine.json")
    fields = json.loads(sidecar.read_text())
    fields["key"]["profiles"] = json.loads(profiles)
    sidecar.write_text(json.dumps(fields))
    with pytest.raises(IntegrityError, match="is damaged"):
        backend.load(shipped, "screen")


def test_an_engine_that_the_library_refuses(put: Put, backend: TensorRt, shipped: Bundle) -> None:
    put("1", content=b"not an engine")
    with pytest.raises(BackendError, match="cannot load the plan: magic tag does not match"):
        backend.load(shipped, "screen")


def test_another_driver_warns(put: Put, backend: TensorRt, shipped: Bundle) -> None:
    put("1", driver="570.1")
    with pytest.warns(PlanWarning, match=r"driver 570\.1, here it is 580\.65\.06"):
        backend.load(shipped, "screen")


def test_the_same_driver_does_not(put: Put, backend: TensorRt, shipped: Bundle) -> None:
    put("1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend.load(shipped, "screen")


@pytest.mark.parametrize(
    ("built", "fits"), [("10.1.0", True), ("10.3.0", True), ("10.9.0", False), ("9.3.0", False)]
)
def test_version_compatible_engines(
    put: Put, backend: TensorRt, shipped: Bundle, fake_trt: FakeTensorRt, built: str, fits: bool
) -> None:
    put("1", change=lambda k: replace(k, version=built, flags=("version-compatible",)))
    if fits:
        backend.load(shipped, "screen")
        assert fake_trt.host_code == [True]  # such an engine brings CPU code of its own
    else:
        with pytest.raises(BackendError, match="version is"):
            backend.load(shipped, "screen")


def test_others_may_not_run_code_on_the_host(
    put: Put, backend: TensorRt, shipped: Bundle, fake_trt: FakeTensorRt
) -> None:
    put("1")
    backend.load(shipped, "screen")
    assert fake_trt.host_code == [False]


# what goes wrong on the GPU


def test_memory_runs_out(
    put: Put, backend: TensorRt, shipped: Bundle, fake_cuda: FakeRuntime
) -> None:
    put("8")
    fake_cuda.memory = 4930
    with pytest.raises(BackendError, match=r"out of memory.*--profile 1"):
        backend.load(shipped, "screen")
    assert fake_cuda.is_empty()


def test_no_context(put: Put, backend: TensorRt, shipped: Bundle, fake_trt: FakeTensorRt) -> None:
    put("8")
    fake_trt.no_contexts = True
    with pytest.raises(BackendError, match=r"cannot make an execution context.*smaller calls"):
        backend.load(shipped, "screen")


@pytest.mark.parametrize("said", [None, "CUDA initialization failure with error: 35."])
def test_the_library_does_not_start(
    put: Put, backend: TensorRt, shipped: Bundle, fake_trt: FakeTensorRt, said: str | None
) -> None:
    """pybind has a TypeError for what is null."""

    def runtime(logger: Any) -> None:
        if said:
            logger.log(fake_trt.ILogger.Severity.ERROR, said)
        raise TypeError("pybind11::init(): factory function returned nullptr")

    put("1")
    fake_trt.Runtime = runtime
    words = r"10\.3\.0 cannot start its Runtime: .*(error: 35|nullptr)\. `mnemoscope doctor`"
    with pytest.raises(BackendUnavailable, match=words):
        backend.load(shipped, "screen")


def test_a_profile_that_cannot_be_selected(
    put: Put, backend: TensorRt, shipped: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("1")
    monkeypatch.setattr(fake_gpu.FakeContext, "set_optimization_profile_async", lambda *_: False)
    with pytest.raises(BackendError, match="cannot select profile 0"):
        backend.load(shipped, "screen")


def test_a_run_fails(put: Put, backend: TensorRt, shipped: Bundle, fake_trt: FakeTensorRt) -> None:
    put(ONE_TO_FOUR)
    engine = backend.load(shipped, "screen")
    fake_trt.fails = True
    with pytest.raises(BackendError, match="cannot run the plan: the kernel went wrong"):
        screen(engine, ids(1), 1)
    fake_trt.fails = False
    assert screen(engine, ids(1), 1).shape == (1, 1)


def test_a_closed_engine(put: Put, backend: TensorRt, shipped: Bundle) -> None:
    put("1")
    engine = backend.load(shipped, "screen")
    assert backend.load(shipped, "screen") is engine
    backend.close()
    for _ in range(2):
        with pytest.raises(BackendError, match="closed"):
            screen(engine, ids(1), 1)
