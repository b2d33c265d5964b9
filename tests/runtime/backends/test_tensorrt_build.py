from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from cli_support import Run, failed
from fake_gpu import CARD, DRIVER, FakeRuntime, no_driver

from mnemoscope_runtime import BackendError, BackendUnavailable, Bundle, InputError
from mnemoscope_runtime.backends.cover import Profile
from mnemoscope_runtime.backends.nvidia import gpu
from mnemoscope_runtime.backends.tensorrt import build as tensorrt
from mnemoscope_runtime.backends.tensorrt.build import BuildOptions, build_plan, check_plan
from mnemoscope_runtime.backends.tensorrt.network import optimization_profile

# options


@pytest.mark.parametrize(
    "wrong", [{"batch": 0}, {"batch": 1000}, {"workspace": 100}, {"level": 6}, {"level": -1}]
)
def test_options_that_cannot_be(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError):
        BuildOptions(**wrong)  # type: ignore[arg-type]


def test_no_such_builder(bundle_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'openvino' builds no plans"):
        build_plan(Bundle.open(bundle_dir), "screen", tmp_path, backend="openvino")


def test_tensorrt_is_not_installed(
    bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    with pytest.raises(
        BackendUnavailable, match=r"pip install -c constraints.txt '\.\[tensorrt-rtx\]'"
    ):
        build_plan(Bundle.open(bundle_dir), "screen", tmp_path)


# TensorRT for RTX builds without a GPU


@pytest.fixture
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx_bindings", exc_type=ImportError)


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("graph", ["screen", "step", "text_encoder"])
def test_every_graph_builds(bundle_dir: Path, tmp_path: Path, graph: str) -> None:
    phases = []
    path = build_plan(
        Bundle.open(bundle_dir), graph, tmp_path, progress=lambda *step: phases.append(step)
    )
    sidecar = json.loads(path.with_name(path.name + ".json").read_text())
    assert sidecar["key"]["graph"] == graph
    assert sidecar["key"]["bundle"] == Bundle.open(bundle_dir).id
    assert path.stat().st_size == sidecar["file"]["bytes"] > 10_000
    assert phases
    assert all(0 < done <= total for _, done, total in phases)


@pytest.mark.usefixtures("rtx")
def test_an_engine_that_fits_is_not_built_again(
    bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, built = Bundle.open(bundle_dir), []
    monkeypatch.setattr(tensorrt, "_plan", lambda *_: built.append(1) or b"engine")
    for _ in range(2):
        path = build_plan(bundle, "screen", tmp_path)
    assert len(built) == 1
    path.write_bytes(b"damaged")
    build_plan(bundle, "screen", tmp_path)
    build_plan(bundle, "screen", tmp_path, options=BuildOptions(level=1))
    assert len(built) == 3


@pytest.mark.usefixtures("rtx")
def test_builders_wait_for_each_other(
    bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, built = Bundle.open(bundle_dir), []
    monkeypatch.setattr(tensorrt, "_plan", lambda *_: built.append(1) or b"engine")
    threads = [Thread(target=build_plan, args=(bundle, "step", tmp_path)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(built) == 1


@pytest.mark.usefixtures("rtx")
def test_targets(bundle_dir: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(bundle_dir)
    path = build_plan(bundle, "text_encoder", tmp_path, options=BuildOptions(targets=("SM89",)))
    assert json.loads(path.with_name(path.name + ".json").read_text())["key"]["sm"] == ["SM89"]
    with pytest.raises(InputError, match=r"no target SM10\. Choose from.*SM86"):
        build_plan(bundle, "text_encoder", tmp_path, options=BuildOptions(targets=("SM10",)))


@pytest.mark.usefixtures("rtx")
def test_a_graph_that_does_not_parse(bundle_dir: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(bundle_dir)
    import onnx

    model = onnx.load_model_from_string(bundle.read("text_encoder.onnx"))
    model.graph.node[-1].op_type = "Det"
    bundle._verified["text_encoder.onnx"] = model.SerializeToString()
    with pytest.raises(BackendError, match=r"for RTX [\d.]+ cannot parse text_encoder: .*Det"):
        build_plan(bundle, "text_encoder", tmp_path)


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("stop", [KeyboardInterrupt, ZeroDivisionError])
def test_a_build_that_is_stopped_leaves_nothing(
    bundle_dir: Path, tmp_path: Path, stop: type[BaseException]
) -> None:
    steps = []

    def progress(*step: object) -> None:
        steps.append(step)
        if len(steps) == 3:
            raise stop

    bundle = Bundle.open(bundle_dir)
    with pytest.raises(stop):
        build_plan(bundle, "text_encoder", tmp_path, progress=progress)
    assert len(steps) == 3  # the builder heard of it
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    assert build_plan(bundle, "text_encoder", tmp_path).stat().st_size > 10_000


@pytest.mark.usefixtures("rtx")
def test_ctrl_c_stops_the_builder(bundle_dir: Path, tmp_path: Path) -> None:
    """In a process of its own, as on a command line: signals and native threads mix badly."""
    program = """
import signal, sys, time
from pathlib import Path
from mnemoscope_runtime import Bundle
from mnemoscope_runtime.backends.tensorrt.build import build_plan

steps = []

def progress(*step):
    steps.append(step)
    if len(steps) == 3:
        print("building", flush=True)
        time.sleep(1)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
try:
    build_plan(Bundle.open(sys.argv[1]), "text_encoder", Path(sys.argv[2]), progress=progress)
except KeyboardInterrupt:
    print("stopped after", len(steps), flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, bundle_dir, tmp_path], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "building\n"
        child.send_signal(signal.SIGINT)
        said, _ = child.communicate(timeout=60)
    assert said.startswith("stopped after ")
    assert int(said.split()[-1]) < 10
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.usefixtures("rtx")
def test_sizes_of_call(bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(bundle_dir)
    options = BuildOptions(profiles=tuple(map(Profile.parse, ("4", "1", "1x3"))))
    path = build_plan(bundle, "text_encoder", tmp_path, options=options)
    assert path.name == "tensorrt-rtx.text_encoder.float32.1+4.engine"
    assert path.stat().st_size > 10_000
    monkeypatch.setattr(tensorrt, "_plan", lambda *_: b"engine")
    path = build_plan(bundle, "screen", tmp_path, options=options)
    assert path.name == "tensorrt-rtx.screen.float32.1+1x3+4.engine"
    with pytest.raises(InputError, match="has 3 noises, so there is no 1x4"):
        build_plan(bundle, "step", tmp_path, options=BuildOptions(profiles=(Profile.parse("1x4"),)))


@pytest.mark.usefixtures("rtx")
def test_checking_writes_nothing(bundle_dir: Path) -> None:
    before = sorted(bundle_dir.rglob("*"))
    product = check_plan(Bundle.open(bundle_dir), "text_encoder")
    assert product.startswith("TensorRT for RTX 1.")
    assert sorted(bundle_dir.rglob("*")) == before


# the path of TensorRT, with TensorRT for RTX in its place and a GPU of numpy


@pytest.fixture
def as_tensorrt(rtx: None, fake_cuda: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:  # noqa: ARG001
    import tensorrt_rtx_bindings

    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_rtx_bindings)
    monkeypatch.setattr(tensorrt_rtx_bindings, "__version__", "10.3.0")
    return fake_cuda


@pytest.mark.usefixtures("as_tensorrt")
def test_tensorrt_builds_for_the_gpu_that_is_here(bundle_dir: Path, tmp_path: Path) -> None:
    options = BuildOptions(profiles=(Profile.parse("1"),))
    path = build_plan(
        Bundle.open(bundle_dir), "text_encoder", tmp_path, backend="tensorrt", options=options
    )
    sidecar = json.loads(path.with_name(path.name + ".json").read_text())
    assert sidecar["key"]["gpu"] == CARD.name
    assert sidecar["key"]["sm"] == [CARD.sm]
    assert sidecar["driver"] == DRIVER.version


@pytest.mark.usefixtures("as_tensorrt")
def test_parsers_that_find_weights_by_path_only(
    bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT before 10.13, which JetPack 6.2 has."""
    monkeypatch.delattr("tensorrt_rtx_bindings.OnnxParser.load_model_proto")
    bundle = Bundle.open(bundle_dir)
    path = build_plan(bundle, "text_encoder", tmp_path, backend="tensorrt")
    assert path.stat().st_size > 10_000


@pytest.mark.usefixtures("as_tensorrt")
def test_no_gpu_to_build_on(
    bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "driver", no_driver)
    with pytest.raises(BackendUnavailable, match="no NVIDIA driver"):
        build_plan(Bundle.open(bundle_dir), "screen", tmp_path, backend="tensorrt")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("as_tensorrt")
@pytest.mark.parametrize(
    ("backend", "options", "words"),
    [
        ("tensorrt", BuildOptions(targets=("SM89",)), "--target is for tensorrt-rtx"),
        ("tensorrt-rtx", BuildOptions(version_compatible=True), "are for tensorrt"),
        ("tensorrt-rtx", BuildOptions(timing_cache=Path("x")), "are for tensorrt"),
        ("tensorrt-rtx", BuildOptions(device=0), "--device is for tensorrt"),
    ],
)
def test_options_of_the_other_library(
    bundle_dir: Path, tmp_path: Path, backend: str, options: BuildOptions, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        build_plan(Bundle.open(bundle_dir), "screen", tmp_path, backend=backend, options=options)


@pytest.mark.usefixtures("rtx")
def test_by_default_every_graph_is_built(
    run: Run, open_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a graph stops at the last tap, too: what opens the bundle asks for that one."""
    monkeypatch.setattr(tensorrt, "_plan", lambda *_: b"engine")
    result = run("build", open_dir, "--engines", tmp_path)
    assert result.code == 0, result.err
    built = {path.name.split(".")[1] for path in tmp_path.glob("*.engine")}
    assert built == {"screen", "taps", "step", "text_encoder"}


@pytest.mark.usefixtures("rtx")
def test_the_graph_that_stops_at_a_tap_builds(open_dir: Path) -> None:
    assert check_plan(Bundle.open(open_dir), "taps").startswith("TensorRT for RTX ")


@pytest.mark.usefixtures("rtx")
def test_command(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    for state in ("built", "there already"):
        result = run("build", bundle_dir, "--graphs", "text_encoder", "--engines", tmp_path / "e")
        assert result.code == 0, result.err
        assert "tensorrt-rtx.text_encoder.float32.1-4.engine" in result.out
        assert result.out.endswith(f" bytes, {state}\n")
        assert result.err == ("text_encoder ...\n" if state == "built" else "")
    failed(run("build", bundle_dir, "--graphs", "vae"), 2, "no graph 'vae'", "screen")


def test_an_input_of_any_number_of_tokens_is_refused() -> None:
    class Network:
        num_inputs = 1

        def get_input(self, _: int) -> object:
            return SimpleNamespace(name="prompt_embeds", shape=(-1, -1, 32))

    library = SimpleNamespace(got=lambda value, _: value)
    builder = SimpleNamespace(create_optimization_profile=lambda: None)
    with pytest.raises(BackendError, match=r"prompt_embeds takes any number of tokens.*any-length"):
        optimization_profile(library, builder, Network(), Profile((1, 2)))  # type: ignore[arg-type]
