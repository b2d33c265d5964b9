"""`benchmarks/gpu.sh`: latency and throughput on one NVIDIA GPU, every way that is installed here.

    python -m benchmarks.gpu --name a10 --family sd14          # full size, random weights
    python -m benchmarks.gpu --name a10 --embedded             # the embedded model

The reference is the paper's step in PyTorch, eager, float16. Beside it: PyTorch with the
unconditional prediction cached, the same compiled with CUDA graphs, and `screen.onnx` on the GPU
backends that work, in float16 where they can (TensorRT's engines are built here first). Rows take
turns within a run; their ratios are what to compare. Every row's magnitude is printed: they differ
by rounding only.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from mnemoscope import Detector, bench, embedded
from mnemoscope_export import ExportOptions, StableDiffusion, export_bundle, magnitude
from mnemoscope_export.models import Embeds
from mnemoscope_runtime import BackendError, BackendUnavailable, Bundle, gpu, open_backend
from mnemoscope_runtime.backends.tiles import Profile
from mnemoscope_runtime.engines import ENGINES
from mnemoscope_runtime.engines.tensorrt import BuildOptions, build_engine
from mnemoscope_runtime.manifest import Precision

from . import rows as ways
from .families import FAMILIES, random_model

PROMPT = "a photo of a cat on a windowsill"
BACKENDS = ("onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt", "tensorrt-rtx")
PRECISIONS: tuple[Precision, ...] = ("float16", "float32")
PROFILES = tuple(map(Profile.parse, ("1", "8")))  # latency, throughput


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="of the machine, for the file of results")
    parser.add_argument("--family", choices=FAMILIES, default="sd14")
    parser.add_argument("--embedded", action="store_true", help="the embedded model instead")
    parser.add_argument("--bundles", type=Path, default=Path("out/gpu"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--offline", type=int, default=64, help="prompts of an offline call")
    args = parser.parse_args()
    console = Console(width=120)
    try:
        card, driver = require_gpu()
        which = "embedded" if args.embedded else args.family
        make = StableDiffusion.load if args.embedded else random_model
        model = make(embedded.MODEL if args.embedded else args.family)
        bundles = {p: bundle(model, args.bundles / f"{which}-{p}", p) for p in PRECISIONS}
        report = run(
            model, bundles, console,
            device="cuda", backends=BACKENDS, rounds=args.rounds, warmup=args.warmup,
            offline=args.offline,
        )  # fmt: skip
    except BackendUnavailable as error:
        sys.exit(f"error: {error}")
    report = {
        "model": which,
        "gpu": str(card),
        "driver": str(driver),
        "cuda": driver.cuda,
        **report,
    }
    args.output.mkdir(parents=True, exist_ok=True)
    file = args.output / f"gpu-{args.name}.json"
    file.write_text(json.dumps(report, indent=1) + "\n")
    console.print(f"{card}, driver {driver}; raw samples {file}")


def require_gpu() -> tuple[gpu.Gpu, gpu.Driver]:
    """The GPU to measure.

    Raises:
        BackendUnavailable: there is none, or PyTorch cannot use it.
    """
    card = gpu.find(0)
    if not torch.cuda.is_available():
        raise BackendUnavailable(
            f"{card} is here, but torch {torch.__version__} cannot use it. Install a build of "
            "PyTorch for CUDA; constraints.txt pins one for the CPU."
        )
    return card, gpu.driver()


def bundle(model: StableDiffusion, path: Path, precision: Precision) -> Path:
    """The model's bundle in a precision, exported unless it is there."""
    if not path.exists():
        export_bundle(model, path, ExportOptions(precision=precision), progress=_say)
    return path


def run(
    model: StableDiffusion,
    bundles: dict[Precision, Path],
    console: Console,
    *,
    device: str,
    backends: tuple[str, ...],
    rounds: int,
    warmup: int,
    offline: int,
    dtype: torch.dtype = torch.float16,
    compiles: bool = True,
) -> dict[str, Any]:
    """Measure everything that works; what does not is in the report with its reason."""
    first = next(iter(bundles.values()))
    manifest, bank = Bundle.open(first).manifest, Bundle.open(first).noise_bank()[:1]
    low = model.to(dtype)
    for part in low.parts.values():
        part.to(device)
    skipped: dict[str, str] = {}
    with ExitStack() as stack:
        rows = torch_rows(low, bank, manifest.timestep, device, compiles)
        detectors = {}
        for name, path in opened(backends, bundles):
            try:
                detectors[name] = stack.enter_context(load(name, path))
            except (BackendError, ValueError) as error:  # InputError is a ValueError
                skipped[f"{name} ({path.name})"] = str(error)
                continue
            rows |= ways.screen_engine(detectors[name], PROMPT)
            rows |= ways.sdk(detectors[name], PROMPT)
        rows, broken = working(rows)
        times = ways.measure(rows, rounds, warmup)
        table, report = ways.summary(rows, times, {})
        prompts = [f"{PROMPT}, {index}" for index in range(offline)]
        throughput = {
            row.name: row.throughput
            for row in (bench.offline(detectors, prompts) if detectors else [])
        }
    console.print(table)
    for name, rate in throughput.items():
        console.print(f"offline, {name}: {rate:.1f} prompts/s ({offline} at once, one noise)")
    for name, reason in {**skipped, **broken}.items():
        console.print(f"not measured: {name}: {reason}", style="dim")
    return {
        "environment": {**bench.environment(None), "torch": torch.__version__},
        "rows": report,
        "offline_prompts_per_second": throughput,
        "not_measured": {**skipped, **broken},
    }


def torch_rows(
    model: StableDiffusion, noise: np.ndarray, t: int, device: str, compiles: bool
) -> ways.Rows:
    """PyTorch eager (the paper's step; cached), and compiled with CUDA graphs, on a device."""
    latents = torch.from_numpy(noise).to(device, model.unet.dtype)
    ids = model.tokenize([PROMPT]).to(device)
    at = torch.tensor(t, device=device)  # a number would keep a compiled UNet from CUDA graphs
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def eps(runs: StableDiffusion, embeds: Embeds) -> torch.Tensor:
        return model.to_eps(runs.predict(latents, at, embeds), latents, t)

    with torch.no_grad():
        empty = model.embed_empty()
        known = eps(model, empty).clone()

    @torch.no_grad()
    def paper() -> float:
        pairs = zip(empty, model.encode(ids), strict=True)
        both = tuple(torch.cat(pair) for pair in pairs)
        output = model.predict(torch.cat([latents, latents]), at, both)
        uncond, cond = (model.to_eps(part, latents, t) for part in output.chunk(2))
        return done(magnitude(cond, uncond))

    def cached(runs: StableDiffusion) -> Callable[[], float]:
        @torch.no_grad()
        def measure() -> float:
            return done(magnitude(eps(runs, model.encode(ids)), known))

        return measure

    def done(value: torch.Tensor) -> float:
        result = float(value)
        wait()
        return result

    kind = str(model.unet.dtype).removeprefix("torch.")
    rows: ways.Rows = {
        f"PyTorch {kind}, paper's step [uncond; cond]": paper,
        f"PyTorch {kind}, cached uncond": cached(model),
    }
    if compiles:
        compiled = replace(model, unet=torch.compile(model.unet, mode="reduce-overhead"))
        rows[f"torch.compile {kind}, cached uncond, CUDA graph"] = cached(compiled)
    return rows


def opened(backends: tuple[str, ...], bundles: dict[Precision, Path]) -> Iterator[tuple[str, Path]]:
    """Which backend runs which bundle: half precision where there is one and it can."""
    best = bundles.get("float16", next(iter(bundles.values())))
    for name in backends:
        yield name, bundles["float32"] if name == "onnxruntime-tensorrt" else best


def load(name: str, path: Path) -> Detector:
    """A detector on a backend, its engine built if it is one that is built."""
    if name in ("tensorrt", "tensorrt-rtx"):
        open_backend(name).close()  # refuses at once where it cannot run
        source = Bundle.open(path)
        start = time.perf_counter()
        build_engine(
            source, "screen", path / ENGINES, backend=name, options=BuildOptions(profiles=PROFILES)
        )
        _say(f"{name}: screen built or found in {time.perf_counter() - start:.0f} s")
    return Detector.load(path, backend=name, uncalibrated="score")


def working(rows: ways.Rows) -> tuple[ways.Rows, dict[str, str]]:
    """Rows that run, after their first time, and why the others do not."""
    good, broken = {}, {}
    for name, row in rows.items():
        try:
            row()
        except Exception as error:  # compilers fail in many ways; one row must not end the run
            broken[name] = f"{type(error).__name__}: {error}"
        else:
            good[name] = row
    return good, broken


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    main()
