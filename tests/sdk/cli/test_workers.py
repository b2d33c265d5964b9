"""`mnemoscope audit --ray`, with workers in this process that are handed what can be pickled."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from audit_support import text
from cli_support import Run, failed

from mnemoscope import BundleError, InputError, embedded
from mnemoscope.audit.stages import Here, Stage
from mnemoscope.cli import _workers
from mnemoscope.cli._workers import OnRay
from mnemoscope.cli.audit import _Opening
from mnemoscope_runtime import BackendOptions, Bundle

PROMPTS = [row.prompt for row in embedded.read_prompts("memorized", "held_out")][40:140]


class Elsewhere(Here):
    """As another process would open it; says to stdout what Ray does."""

    cluster, count = "3 CPUs and 0 GPUs", 3

    def map(self, stage: Stage[Any, Any], batches: Any) -> Any:
        print("(raylet) A worker died or was killed")
        copied = pickle.loads(pickle.dumps(stage.open))
        yield from super().map(replace(stage, open=copied), batches)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What workers were started with."""
    calls = []

    @contextmanager
    def start(address: str, *, tell: object, **told: Any) -> Iterator[Elsewhere]:  # noqa: ARG001
        calls.append((address, told))
        yield Elsewhere()

    monkeypatch.setattr(_workers.RayWorkers, "start", start)
    monkeypatch.setattr(_workers, "supervised", lambda _: lambda: None)
    return calls


@pytest.mark.slow
def test_the_same_bytes(
    run: Run, started: list[tuple[str, dict[str, Any]]], tmp_path: Path
) -> None:
    prompts = text(tmp_path / "p.jsonl", [*PROMPTS, "a " * 100])
    here = run("audit", prompts, "-o", tmp_path / "here.csv", "--threads", 1)
    there = run("audit", prompts, "-o", tmp_path / "there.csv", "--ray", "local", "--workers", 3)
    assert here.code == there.code == 1
    up = "note: the Ray cluster local is there, with 3 CPUs and 0 GPUs; 3 workers to start.\n"
    assert there.err.startswith(up)
    assert here.err == there.err.removeprefix(up)
    assert "the bundle reads 75 tokens, and 1 prompt had more" in there.err
    assert here.out.replace("here", "there") == there.out
    assert (tmp_path / "here.csv").read_bytes() == (tmp_path / "there.csv").read_bytes()
    assert started == [("local", {"count": 3, "cpus": 1, "gpus": 0})]
    assert sys.stdout is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--workers", 2], "Say which: --ray local"),
        (["--ray", "auto", "--backend", "auto"], "another one on each node"),
        (["--ray", "auto", "--backend", "onnxruntime-cuda", "--device", 1], "Leave it out"),
        (["--ray", "auto", "--calibration", "none.json"], "none.json cannot be read"),
        (["--ray", "auto", "--bundle", "none"], "none"),
    ],
)
def test_what_is_refused_before_a_cluster_starts(
    run: Run,
    started: list[tuple[str, dict[str, Any]]],
    tmp_path: Path,
    options: list[object],
    words: str,
) -> None:
    prompts = text(tmp_path / "p.jsonl", PROMPTS)
    result = run("audit", prompts, "-o", tmp_path / "r.csv", *options)
    failed(result, 2 if result.code == 2 else 4, words)
    assert started == []


@pytest.mark.parametrize(
    ("backend", "options", "told", "cpus", "gpus"),
    [
        ("onnxruntime", BackendOptions(), BackendOptions(threads=1), 1, 0),
        ("openvino:bfloat16", BackendOptions(threads=4), BackendOptions(threads=4), 4, 0),
        ("onnxruntime-cuda", BackendOptions(device=0), BackendOptions(device=0), 1, 1),
        ("tensorrt", BackendOptions(), BackendOptions(), 1, 1),
        ("torch", BackendOptions(), BackendOptions(), 1, 0),
        ("torch:float16", BackendOptions(device=0), BackendOptions(device=0), 1, 1),
    ],
)
def test_what_a_worker_takes(
    started: list[tuple[str, dict[str, Any]]],
    backend: str,
    options: BackendOptions,
    told: BackendOptions,
    cpus: int,
    gpus: int,
) -> None:
    on_ray = OnRay("auto", None)
    assert on_ray.options(backend, options) == told
    with on_ray.running(backend, options):
        pass
    assert started == [("auto", {"count": None, "cpus": cpus, "gpus": gpus})]


def test_another_bundle_on_a_node() -> None:
    bundle = Bundle.open(embedded.BUNDLE)
    opens = _Opening(
        None, "onnxruntime", None, BackendOptions(), "magnitude", None, calibration=None, trust=None
    )
    there = opens.elsewhere(bundle, BackendOptions(threads=1))
    with pickle.loads(pickle.dumps(there))() as opened:
        assert opened.bundle_id == bundle.id
        assert opened.calibration is not None  # which travelled
        assert opened.calibration == there.calibration
    with pytest.raises(BundleError, match=r"is the bundle [0-9a-f]{12} here, and ffffffffffff wh"):
        replace(there, only="f" * 64)()
    with pytest.raises(InputError, match="calibration is 5"):
        replace(opens, calibration=5)()  # type: ignore[arg-type]
