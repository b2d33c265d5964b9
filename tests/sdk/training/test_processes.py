"""Several processes: the same thresholds and reports everywhere, and nobody waits forever."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import runpy
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from example_support import EXAMPLES, Example
from PIL import Image

from mnemoscope.training import SkipReport

pytestmark = pytest.mark.slow

IMPORTED = ["accelerate", "diffusers", "peft", "transformers", "mnemoscope.training"]
IMPORTED += ["mnemoscope_export", "torch.distributed", "torch.nn.parallel", "torch.utils.data"]
FILTER = """
import sys
import torch
from diffusers import DDPMScheduler
from torch import distributed as dist, nn
from torch.nn.parallel import DistributedDataParallel
from mnemoscope import NumericsError
from mnemoscope.training import MemorizationFilter, QuantileThreshold

class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
    def forward(self, x, t, e):
        return x * self.weight + e.mean((1, 2)).view(-1, 1, 1, 1)

dist.init_process_group("gloo")
rank = dist.get_rank()
unet = DistributedDataParallel(Toy())
threshold = QuantileThreshold(0.5, 1.5, bins=2, window=64, warmup=8)
judged = MemorizationFilter(DDPMScheduler(), torch.zeros(1, 3, 2), threshold)
torch.manual_seed(rank)
for step in range(6):
    size = 3 + rank  # batches of different sizes
    x, t = torch.randn(size, 1, 2, 2), torch.randint(0, 1000, (size,))
    embeds = torch.rand(size, 3, 2) + 0.5
    if step > 2:  # all of the second process's samples stand out: it has no gradient of its own
        embeds *= 1 + 9 * rank
    prediction = unet(x, t, embeds)
    verdict = judged(unet, x, t, embeds, prediction, ids=torch.arange(size) + 10 * rank)
    loss = verdict.mean(prediction.square())
    loss.backward()
    if step == 3:
        assert verdict.keep.any() == (rank == 0), verdict
gradient = unet.module.weight.grad.clone()
state = judged.state_dict() | {"gradient": gradient, "report": judged.report().seen}
torch.save(state, f"{sys.argv[1]}/{rank}.pt")
try:
    broken = prediction.detach() * (float("nan") if rank else 1)
    judged(unet, x, t, embeds, broken, ids=torch.arange(size) + 10 * rank)
except NumericsError as error:
    print(f"rank {rank}: {error}", flush=True)
dist.destroy_process_group()
"""


class Processes:
    """Launches two processes at a time; what they import is imported once for all launches."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.launches = folder, 0
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(IMPORTED)

    def __call__(self, *arguments: str | Path) -> str:
        """What both wrote, the first one's before the second's, once they ended well."""
        self.launches += 1
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        folder = self.folder / str(self.launches)
        folder.mkdir()
        started = [
            self.context.Process(target=_run, args=(rank, port, folder, arguments))
            for rank in (0, 1)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join(240)
        codes = [process.exitcode for process in started]
        for process in started:
            process.kill()
        assert codes == [0, 0], [file.read_text() for file in sorted(folder.glob("*.err"))]
        return "".join(file.read_text() for file in sorted(folder.glob("*.out")))


def _run(rank: int, port: int, folder: Path, arguments: Sequence[str | Path]) -> None:
    """A script as torchrun and `accelerate launch` run it: who it is stands in the environment."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"ACCELERATE_USE_CPU": "true"}
    sys.stdout, sys.stderr = (
        (folder / f"{rank}.{stream}").open("w", buffering=1) for stream in ("out", "err")
    )
    sys.argv = [*map(str, arguments)]
    runpy.run_path(sys.argv[0], run_name="__main__")  # its exit code is that of the process


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Processes:
    return Processes(tmp_path_factory.mktemp("launches"))


def test_two_processes_agree(launch: Processes, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(FILTER)
    output = launch(tmp_path / "script.py", tmp_path)
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert one["report"] == other["report"] == 6 * (3 + 4)
    assert one["counts"].sum() == 42
    for name in ("values", "counts", "seen", "skipped", "total", "gradient"):
        torch.testing.assert_close(one[name], other[name], equal_nan=True)
    assert one["seen"].nonzero().flatten().tolist() == [0, 1, 2, 10, 11, 12, 13]
    assert one["skipped"][10:].sum() > 0
    for rank in (0, 1):  # a NaN of one process stops both
        assert f"rank {rank}: Sample 10 has a magnitude that is NaN" in output


def test_the_example_under_accelerate(launch: Processes, example: Example, tmp_path: Path) -> None:
    """Two processes, gradient accumulation, and a second launch that goes on from a checkpoint."""
    script = EXAMPLES / "finetune.py"
    options = ["--steps", "2", "--batch", "3", "--accumulate", "2", "--precision", "bf16"]
    quantiles = ["--quantile", "0.5", "--factor", "1.2"]
    output = launch(script, *options, *quantiles, "--output", tmp_path)
    assert output.splitlines()[1].startswith("the threshold is still warming up: nothing was")
    assert json.loads(output.splitlines()[0])["seen"] == 2 * 2 * 3 * 2
    report = SkipReport.read(tmp_path / "skipped.json")
    assert report.seen == sum(each.seen for each in report.samples) == 24
    checkpoint = tmp_path / "checkpoint"
    output = launch(script, *options, *quantiles, "--resume", checkpoint)
    assert json.loads(output.splitlines()[0])["seen"] == 48
    other = example("finetune", "--resume", checkpoint, "--factor", "2")
    assert other.code == 2
    assert "cannot be gone on from: The checkpoint's threshold is {" in other.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch", "0"], "argument --batch: 0 is no whole number of 1 or more"),
        (["--model", "/nonexistent"], "error: /nonexistent is no directory"),
        (["--resume", "."], ". holds no checkpoint of this script: give the folder"),
    ],
)
def test_the_example_says_what_is_wrong(example: Example, options: list[str], message: str) -> None:
    done = example("finetune", *options)
    assert done.code == 2
    assert message in done.err


def test_the_example_tells_how_it_goes(example: Example) -> None:
    done = example("finetune", "--steps", "3", "--bins", "1", "--warmup", "4")
    assert done.code == 0, done.err
    told = re.findall(r"^step (\d) of 3: loss \d\.\d+, \d of 4 pictures kept$", done.err, re.M)
    assert told == ["1", "2", "3"]
    assert "warming" not in done.out


def test_the_example_without_a_whole_batch(example: Example, tmp_path: Path) -> None:
    for name in "abc":
        Image.new("RGB", (64, 64)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text("a caption")
    done = example("finetune", tmp_path)
    assert done.code == 2
    assert "3 pictures make no batch of 4" in done.err
