"""The screening graph as a model of its own; tests/interop/test_triton.py has Triton ask it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cli_support import Run, failed

from mnemoscope import embedded
from mnemoscope.serve.triton import ModelOptions
from mnemoscope.serve.triton.graph import graph_files
from mnemoscope_runtime import BackendError, Bundle, InputError, IntegrityError
from mnemoscope_runtime.backends.cover import Profile
from mnemoscope_runtime.backends.tensorrt.files import PlanKey, write_plan

RT = ModelOptions("tensorrt")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(embedded.BUNDLE)


def key(bundle: Bundle, *profiles: Profile) -> PlanKey:
    given = profiles or (Profile((1, 8), (1, 4)),)
    hashes = ("a", ("b",))
    return PlanKey(
        "tensorrt", "10.9", 12, bundle.id, "screen", *hashes, "float32", given, "linux", "H100"
    )


def test_a_graph_goes_with_its_weights(bundle: Bundle) -> None:
    files, calls = graph_files(bundle, ModelOptions())
    assert files == {
        "model.onnx": (embedded.BUNDLE / "screen.onnx").read_bytes(),
        "model.weights": (embedded.BUNDLE / "model.weights").read_bytes(),
    }
    assert calls == 32


def test_the_plan_is_the_one_of_the_largest_calls(bundle: Bundle, tmp_path: Path) -> None:
    write_plan(tmp_path, key(bundle, Profile((1, 4), (1, 4))), b"small")
    write_plan(tmp_path, key(bundle), b"large")
    write_plan(tmp_path, key(bundle, Profile((16, 16), (4, 4))), b"of one size")
    write_plan(tmp_path, key(bundle, Profile((1, 64))), b"of one noise")
    write_plan(tmp_path, replace(key(bundle, Profile((1, 64), (1, 4))), bundle="c"), b"other")
    found = graph_files(bundle, replace(RT, engines=str(tmp_path)))
    assert found == ({"model.plan": b"large"}, 8)


def test_a_plan_that_was_changed_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    write_plan(tmp_path, key(bundle), b"plan").write_bytes(b"spam")
    with pytest.raises(IntegrityError):
        graph_files(bundle, replace(RT, engines=str(tmp_path)))


def test_without_a_plan_it_is_told_what_builds_one(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="mnemoscope build BUNDLE --backend tensorrt"):
        graph_files(bundle, replace(RT, engines=str(tmp_path)))


@pytest.mark.parametrize(
    "options",
    [ModelOptions("openvino"), ModelOptions(detector="taps"), ModelOptions(steps=10)],
    ids=["backend", "detector", "steps"],
)
def test_what_triton_cannot_measure_is_refused(bundle: Bundle, options: ModelOptions) -> None:
    with pytest.raises(InputError, match="leave --by-triton out"):
        graph_files(bundle, options)


def test_the_command_writes_two_models(tmp_path: Path, run: Run) -> None:
    result = run("triton", tmp_path, "--by-triton")
    assert result.code == 0, result.err
    assert {each.name for each in tmp_path.iterdir()} == {"mnemoscope", "mnemoscope_screen"}
    text = (tmp_path / "mnemoscope" / "config.pbtxt").read_text()
    assert 'key: "calls" value { string_value: "32" }' in text
    assert "model_warmup" not in text
    failed(run("triton", tmp_path / "x", "--by-triton", "--threads", 1), 2, "threads")
    assert not (tmp_path / "x").exists()
