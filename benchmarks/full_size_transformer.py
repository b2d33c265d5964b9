"""`python -m benchmarks.full_size_transformer`: Stable Diffusion 3 medium's step, at its own width.

The paper's step in PyTorch (both branches in one call, told of embeddings) against `screen.onnx`,
and against the same graph stopped at an early tap, one prompt on one noise of 1024 px, in turns.
Weights are random: what a pass takes does not depend on them. What counts is processor time, since
machines are shared: others' turns are not in it.

Of the 24 blocks as many are run as memory and patience allow (`--blocks`); all of them are alike
but the last, which leaves the text alone. Ratios of the whole are those of so many blocks, times
what the counted arithmetic of either row grows by. Give one backend at a time where memory is
short: at this size ONNX Runtime holds several gigabytes of attention, for each graph.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from rich.console import Console
from rich.table import Table
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from mnemoscope import embedded
from mnemoscope.benchmark import latency as bench
from mnemoscope_export import magnitude, noise_bank
from mnemoscope_export.models.sd3 import StableDiffusion3
from mnemoscope_export.torch.flops import count_flops
from mnemoscope_export.torch.graphs import ScreenGraph, to_onnx
from mnemoscope_export.weights import SharedWeights
from mnemoscope_runtime.backends import Engine, open_backend

__all__ = ["arithmetic", "main", "medium"]

BLOCKS = 24
STOPS = ("transformer_blocks.0", "transformer_blocks.2")  # the first tap, and the last of `auto`
BACKENDS = ("onnxruntime", "openvino:bfloat16")
PAPER = "PyTorch float32, the paper's step"
_TIMESTEP = 1000
_WEIGHTS = "model.weights"
_PROMPT = "a photo of a cat on a windowsill"

Rows = Mapping[str, Callable[[], float]]


def medium(blocks: int, **transformer: Any) -> StableDiffusion3:
    """Stable Diffusion 3 medium with so many blocks, without a T5, its CLIPs of one layer.

    Args:
        blocks: How many.
        transformer: What else is not as it was published.
    """
    tokenizer = CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer")

    def clip(width: int) -> CLIPTextModelWithProjection:
        config = CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=width,
            num_hidden_layers=1, num_attention_heads=width // 64, projection_dim=width,
            eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        return CLIPTextModelWithProjection(config)

    config = {
        "num_layers": blocks, "num_attention_heads": 24, "joint_attention_dim": 4096,
        "caption_projection_dim": 1536, "pos_embed_max_size": 192, **transformer,
    }  # fmt: skip
    model = StableDiffusion3(
        "sd3-medium-random", tokenizer, clip(768), tokenizer, clip(1280),
        SD3Transformer2DModel(**config), FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip
    for part in model.parts.values():
        part.eval().requires_grad_(False)
    return model


def arithmetic(blocks: int, stops: Sequence[str] = STOPS, **transformer: Any) -> dict[str, int]:
    """Floating-point operations of each kind of row, counted on no weights.

    Returns:
        Of the paper's step, of "screen", and of each layer that the graph stops at.
    """
    with torch.device("meta"), torch.no_grad():
        model = medium(blocks, **transformer)
        bank, told = torch.zeros(1, *model.latent_shape), model.embed_empty()
        inputs = told, torch.zeros(1, dtype=torch.int64)
        once = count_flops(_Pass(model, bank, told), ())
        found = {PAPER: 2 * once, "screen": count_flops(ScreenGraph(model, bank, 1000), inputs)}
        for name in stops:
            graph = ScreenGraph(model, bank, 1000, [name], stop=True)
            found[name] = count_flops(graph, inputs)
        return found


class _Pass(torch.nn.Module):
    """One pass of the network as it comes."""

    def __init__(self, model: StableDiffusion3, noise: torch.Tensor, told: Any) -> None:
        super().__init__()
        self.run = lambda: model.predict(noise, _TIMESTEP, told)

    def forward(self) -> None:
        """Run it."""
        self.run()


@dataclass(frozen=True)
class _Graphs:
    """What backends ask of a bundle, for graphs that no gate has compared with PyTorch."""

    path: Path
    manifest: Any

    def data_files(self) -> list[str]:
        return [_WEIGHTS]

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


def _exported(
    model: StableDiffusion3, bank: torch.Tensor, folder: Path, kinds: Sequence[str]
) -> dict[str, _Graphs]:
    """The graph of each row, by "screen" or the layer it stops at; each has a file of weights."""
    found = {}
    for name in kinds:
        graph = ScreenGraph(model, bank, _TIMESTEP, *([name],) * (name != "screen"),
                            stop=name != "screen")  # fmt: skip
        path = folder / name
        path.mkdir()
        SharedWeights(path / _WEIGHTS).save(to_onnx(graph, model), path / "screen.onnx")
        manifest = SimpleNamespace(graphs={"screen": "screen.onnx"}, precision="float32")
        found[name] = _Graphs(path, manifest)
    return found


def _rows(
    model: StableDiffusion3, bank: torch.Tensor, engines: Mapping[str, tuple[Engine, str]]
) -> dict[str, Callable[[], float]]:
    told = model.embed([_PROMPT])
    both = tuple(torch.cat(pair) for pair in zip(model.embed_empty(), told, strict=True))

    @torch.no_grad()
    def paper() -> float:
        output = model.predict(torch.cat([bank, bank]), _TIMESTEP, both)
        uncond, cond = (model.in_unit(part, bank, _TIMESTEP) for part in output.chunk(2))
        return float(magnitude(cond, uncond))

    given = {name: each.numpy() for name, each in zip(model.embeddings, told, strict=True)}
    inputs = {**given, "noise_index": np.zeros(1, np.int64)}
    rows: dict[str, Callable[[], float]] = {PAPER: paper}
    for name, (engine, output) in engines.items():
        rows[name] = lambda e=engine, o=output: float(e(inputs, (o,))[0].ravel()[0])  # type: ignore[misc]
    return rows


def _timed(rows: Rows, rounds: int) -> tuple[np.ndarray, dict[str, float]]:
    """Processor seconds, [round, row], behind a round that warms up; and what rows measured."""
    times, measured = np.empty((rounds, len(rows))), {}
    for turn in range(-1, rounds):
        for column, (name, run) in enumerate(rows.items()):
            start = time.process_time()
            measured[name] = run()
            if turn >= 0:
                times[turn, column] = time.process_time() - start
    return times, measured


def main(arguments: Sequence[str] | None = None, **transformer: Any) -> None:
    """Run it; `transformer` is for tests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--graphs", default=",".join(("screen", *STOPS)))
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    args = parser.parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    asked = args.graphs.split(",")
    stops = [name for name in asked if name != "screen"]
    here, whole = (arithmetic(n, stops, **transformer) for n in (args.blocks, BLOCKS))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = medium(args.blocks, **transformer)
    bank = noise_bank(1, model.latent_shape, seed=0)
    engines: dict[str, tuple[Engine, str]] = {}
    kinds = {PAPER: PAPER}
    backends = [open_backend(name, threads=1) for name in args.backends.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        for kind, graphs in _exported(model, bank, Path(folder), asked).items():
            for backend in backends:
                name = f"{kind}, {backend.name}"
                engine = backend.make_engine(graphs, "screen")  # type: ignore[arg-type]
                engines[name] = engine, "magnitude" if kind == "screen" else "taps"
                kinds[name] = kind
    times, measured = _timed(_rows(model, bank, engines), args.rounds)
    ratios, table, report = times[:, :1] / times, Table(
        "row", "CPU s, median", "x faster", "lowest, highest", f"of {BLOCKS} blocks",
        title=f"{args.blocks} of {BLOCKS} blocks, {args.rounds} rounds, one thread",
    ), {}  # fmt: skip
    for column, (name, kind) in enumerate(kinds.items()):
        middle, low, high = (float(f(ratios[:, column])) for f in (np.median, np.min, np.max))
        scaled = middle * (whole[PAPER] / here[PAPER]) / (whole[kind] / here[kind])
        seconds = times[:, column]
        table.add_row(
            *(name, f"{np.median(seconds):.2f}", f"{middle:.2f}", f"{low:.2f}, {high:.2f}"),
            f"{scaled:.1f}",
        )
        report[name] = {
            "cpu_seconds": seconds.tolist(), "ratio_p50": middle, "ratio_of_all_blocks": scaled,
            "gflop": here[kind] / 1e9, "gflop_of_all_blocks": whole[kind] / 1e9,
            "measured": measured[name],
        }  # fmt: skip
    Console(width=110).print(table)
    backend_names = "-".join(each.name.replace(":", "-") for each in backends)
    file = args.output / f"full-size-sd3-medium-{backend_names}.json"
    named = {"blocks": args.blocks, "environment": bench.environment(1), "rows": report}
    file.write_text(json.dumps(named, indent=1) + "\n")
    Console().print(f"raw samples {file}")
    for backend in backends:
        backend.close()


if __name__ == "__main__":
    main()
