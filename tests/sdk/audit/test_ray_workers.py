"""One small cluster for all of this file: a few seconds of two processors."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray_support
from audit_support import text
from ray_support import DEFECT, KILLS, NAN, WRONG, squares

from mnemoscope import BackendError, BackendUnavailable, BundleError, InputError, NumericsError
from mnemoscope.audit import RayWorkers, audit, ray_workers
from mnemoscope.audit.journal import Job, Journal
from mnemoscope.audit.stages import run

pytestmark = [  # which is not imported here: whoever starts a cluster says first how it is to be
    pytest.mark.slow(first=True),  # it waits, mostly
    pytest.mark.skipif(find_spec("ray") is None, reason="needs ray"),
]
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
PATH = os.pathsep.join([str(Path(ray_support.__file__).parent), os.environ.get("PYTHONPATH", "")])


def begun() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


TOLD: list[str] = []


@pytest.fixture
def told() -> list[str]:
    """What the workers say during a test."""
    TOLD.clear()
    return TOLD


@pytest.fixture(scope="module")
def workers() -> Iterator[RayWorkers]:
    before = set(begun())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATH)
        with RayWorkers.start("local", count=2, tell=TOLD.append) as started:
            yield started
            left = set(begun()) - before
    assert len(left) > 3
    _, alive = psutil.wait_procs(left, 20)
    assert not alive


def numbered(stage: Any) -> list[tuple[int, list[int]]]:
    """What a stage comes to, worked out here."""
    return [(n, [item * item for item in batch]) for n, batch in enumerate(stage.batches())]


def deaths(folder: Path, count: int) -> Path:
    for n in range(count):
        (folder / f"death {n}").touch()
    return folder


def test_nobody_else_may_enter_its_folder(workers: RayWorkers) -> None:
    folder = Path(workers._ray._private.worker._global_node.get_temp_dir_path())
    assert folder.parent.name.startswith("mnemoscope-ray-")
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700  # Ray's own is everybody's


def test_every_batch_is_done_once_by_all_workers(workers: RayWorkers, tmp_path: Path) -> None:
    stage = replace(squares(400, tmp_path), open=partial(ray_support.ids_of_two, tmp_path))
    found = list(workers.map(stage, enumerate(stage.batches())))
    assert sorted(number for number, _ in found) == [*range(50)]
    assert len({pid for _, pids in found for pid in pids}) == 2


def test_nobody_else_hears_the_cluster(workers: RayWorkers) -> None:  # noqa: ARG001
    heard = {
        each.laddr.ip
        for process in [psutil.Process(), *begun()]
        for each in process.net_connections("inet")
        if each.status == psutil.CONN_LISTEN
    }
    assert heard
    assert heard <= LOOPBACK


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_the_same_bytes_as_here(workers: RayWorkers, tmp_path: Path, ending: str) -> None:
    prompts = text(tmp_path / "p.jsonl", [f"prompt {n // 2}" for n in range(300)] + [""])
    told: list[list[str]] = [[], []]
    written = []
    with ray_support.detector() as here:
        for n, (measures, who) in enumerate(((here, None), (ray_support.detector, workers))):
            page, output = tmp_path / f"{n}.html", tmp_path / f"{n}{ending}"
            found = audit(
                measures, prompts, output, report_to=page, workers=who, tell=told[n].append
            )
            written.append((output.read_bytes(), page.read_bytes()))
    assert found.flagged > 0
    assert written[0] == written[1]
    assert told[0] == told[1]
    assert not list(tmp_path.glob("*.partial"))


def test_the_death_of_workers_costs_nothing_else(
    workers: RayWorkers, tmp_path: Path, told: list[str]
) -> None:
    stage = squares(400, deaths(tmp_path, 2), items=(5, KILLS))
    assert sorted(workers.map(stage, enumerate(stage.batches()))) == numbered(stage)
    assert not list(tmp_path.iterdir())
    note = "a worker died, and the batch from number 0 on is done again"
    assert sum(each.startswith(note) for each in told) == 2


def test_a_batch_that_every_worker_dies_of(
    workers: RayWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_workers, "_DEATHS", 1)
    stage = squares(40, deaths(tmp_path, 9), items=(*range(20), KILLS))
    job = Job("1", ray_support.detector().setting(), "c" * 64, "d" * 64, None)
    with Journal.open(tmp_path.parent / f"{tmp_path.name}.partial", job) as journal:
        with pytest.raises(BackendError, match=r"2 workers died .* number 16 on; .*\.partial\.$"):
            list(run(stage, journal, workers))
        kept = dict(journal.read(stage.key, int))
        assert kept
        assert kept.items() <= dict(numbered(stage)).items()
        deaths(tmp_path, 0)
        for file in tmp_path.iterdir():
            file.unlink()
        assert sorted(run(stage, journal, workers)) == numbered(stage)


@pytest.mark.parametrize(
    ("item", "kind", "words"),
    [
        (WRONG, InputError, r"^It is wrong\. \(Counted from number 0\.\) \(On the node .*\.\)$"),
        (NAN, NumericsError, r"^It is NaN\. \(Counted from number 0\.\) \(On the node .*\.\)$"),
        (DEFECT, KeyError, "a defect"),
    ],
)
def test_errors_arrive(
    workers: RayWorkers, tmp_path: Path, item: int, kind: type[Exception], words: str
) -> None:
    stage = squares(8, tmp_path, items=(5, item))  # a batch, so that one worker starts
    with pytest.raises(kind, match=words):
        list(workers.map(stage, enumerate(stage.batches())))


def test_what_cannot_be_opened(workers: RayWorkers, tmp_path: Path) -> None:
    stage = replace(squares(8, tmp_path), open=ray_support.cannot_open)
    with pytest.raises(BackendUnavailable, match=r"There is no GPU\. \(On the node "):
        list(workers.map(stage, enumerate(stage.batches())))
    held = threading.Lock()  # as an open detector does
    with pytest.raises(InputError, match="cannot be sent to them"):
        list(workers.map(replace(stage, open=lambda: held), iter(())))  # type: ignore[arg-type]


def test_a_node_that_has_something_else(workers: RayWorkers, tmp_path: Path) -> None:
    prompts, output = text(tmp_path / "p.jsonl", ["a", "b"]), tmp_path / "r.csv"
    opens = partial(ray_support.other, tmp_path / "first")
    with pytest.raises(BundleError, match=r"What was opened here .* same files\. \(On the node "):
        audit(opens, prompts, output, fdr=0.5, workers=workers, tell=lambda _: None)
    assert not output.exists()


def test_who_stops_early_leaves_no_worker(workers: RayWorkers, tmp_path: Path) -> None:
    stage = replace(squares(4000, tmp_path), open=ray_support.ids)
    found = workers.map(stage, enumerate(stage.batches()))
    pids = {pid for _ in range(9) for pid in next(found)[1]}
    found.close()  # type: ignore[attr-defined]
    until = time.monotonic() + 20
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, pids))


def test_the_driver_is_killed_and_started_again(workers: RayWorkers, tmp_path: Path) -> None:
    import ray

    prompts = text(tmp_path / "p.jsonl", [f"prompt {n}" for n in range(640)])
    with ray_support.detector() as here:
        audit(here, prompts, tmp_path / "here.csv", tell=lambda _: None)
    address = ray.get_runtime_context().gcs_address
    code = f"import ray_support; ray_support.drive({address!r}, 'p.jsonl', 'r.csv')"
    killed = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    journal, until = tmp_path / "r.csv.partial", time.monotonic() + 120
    while killed.poll() is None and time.monotonic() < until:
        if journal.exists() and journal.read_bytes().count(b"\n") > 4:
            break
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL  # it was still at work
    assert 4 <= journal.read_bytes().count(b"\n") < 20
    told: list[str] = []
    opens = partial(ray_support.detector, 0.05)
    audit(opens, prompts, tmp_path / "r.csv", workers=workers, tell=told.append)
    assert told[-1].startswith("going on after ")
    assert (tmp_path / "r.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"count": 0}, "0 workers of 1 CPUs"),
        ({"cpus": 0}, "more than 0 CPUs"),
        ({"gpus": -1}, "-1 GPUs"),
        ({"count": True}, "not a whole number"),
        ({"address": 5}, "not text"),
        ({"address": "ray://head:10001"}, "Run this on a node of the cluster"),
    ],
)
def test_options_that_cannot_be_used(told: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        RayWorkers.start(**told)
