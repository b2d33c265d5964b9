"""`benchmarks/gpu.sh`: latency and throughput on one NVIDIA GPU, every way that is installed here.

    python -m benchmarks.gpu --name a10 --family sd14          # full size, random weights
    python -m benchmarks.gpu --name a10 --embedded             # the embedded model

The reference is the paper's step in PyTorch, eager, float16. Beside it: PyTorch with the
unconditional prediction cached, the same compiled with CUDA graphs, and `screen.onnx` on the GPU
backends that work, in float16 where they can (TensorRT's engines are built here first). Rows take
turns within a run; their ratios are what to compare. Every row's magnitude is printed: they differ
by rounding only.

What matters most on a machine that is lent for minutes comes first: CUDA itself (copies, a captured
graph), then the embedded bundle on every GPU backend from two threads, then the rows. The report is
written after each, and none is begun once `--minutes` are over.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
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
from mnemoscope_runtime.cuda import Cuda
from mnemoscope_runtime.engines import ENGINES
from mnemoscope_runtime.engines.tensorrt import BuildOptions, build_engine
from mnemoscope_runtime.manifest import Precision

from . import rows as ways
from .families import FAMILIES, random_model

PROMPT = "a photo of a cat on a windowsill"
BACKENDS = ("onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt", "tensorrt-rtx")
PRECISIONS: tuple[Precision, ...] = ("float16", "float32")
Part = Callable[[], dict[str, Any]]
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
    parser.add_argument("--minutes", type=float, default=60, help="after which nothing is begun")
    parser.add_argument("--offline", type=int, default=64, help="prompts of an offline call")
    args = parser.parse_args()
    console = Console(width=120)
    which = "embedded" if args.embedded else args.family
    try:
        card, driver = require_gpu()
    except BackendUnavailable as error:
        sys.exit(f"error: {error}")

    def rows() -> dict[str, Any]:
        make = StableDiffusion.load if args.embedded else random_model
        model = make(embedded.MODEL if args.embedded else args.family)
        return run(
            model,
            {p: bundle(model, args.bundles / f"{which}-{p}", p) for p in PRECISIONS},
            console,
            device="cuda",
            backends=BACKENDS,
            rounds=args.rounds,
            warmup=args.warmup,
            offline=args.offline,
        )

    parts: dict[str, Part] = {
        "cuda": lambda: check_cuda(Cuda()),
        **{f"{name}, two threads": partial(check_threads, name) for name in BACKENDS},
        "rows": rows,
    }
    file = args.output / f"gpu-{args.name}.json"
    head = {"model": which, "gpu": str(card), "driver": str(driver), "cuda": driver.cuda}
    follow(parts, file, head, time.monotonic() + 60 * args.minutes)
    console.print(f"{card}, driver {driver}; raw samples {file}")


def follow(parts: dict[str, Part], file: Path, head: dict[str, Any], until: float) -> None:
    """Run parts one after another until a time, and write what there is after each of them."""
    report: dict[str, Any] = {**head, "parts": {}}
    file.parent.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        start = time.monotonic()
        if start > until:
            found: dict[str, Any] = {"not_run": "the time was over"}
        else:
            try:
                found = {**part(), "took_seconds": time.monotonic() - start}
            except Exception as error:  # one part must not end the run, whatever it raises
                found = {"failed": f"{type(error).__name__}: {error}"}
        report["parts"][name] = found
        file.write_text(json.dumps(report, indent=1) + "\n")
        _say(f"{name}: {found.get('failed') or found.get('not_run') or 'done'}")


def check_cuda(cuda: Cuda) -> dict[str, Any]:
    """Bytes to the device and back, also by a captured graph, and everything given back."""
    size = 2**20
    given = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    there, back, stream = cuda.allocate_host(size), cuda.allocate_host(size), cuda.stream()
    address = cuda.allocate(size)

    def copy() -> None:
        cuda.upload(address, there, size, stream)
        cuda.download(back, address, size, stream)

    there[:] = given
    copy()
    cuda.synchronize(stream)
    copied = bool(np.array_equal(back, given))
    graph = cuda.capture(stream, copy)
    there[:] = given[::-1]
    cuda.launch(graph, stream)
    cuda.synchronize(stream)
    replayed = bool(np.array_equal(back, given[::-1]))
    cuda.close_graph(graph)
    cuda.free(address)
    for buffer in (there, back):
        cuda.free_host(buffer)
    cuda.close_stream(stream)
    if not copied or not replayed:
        raise BackendError(f"Copied bytes are right: {copied}; by a graph: {replayed}.")
    return {"bytes": size}


def check_threads(name: str, path: Path = embedded.BUNDLE) -> dict[str, Any]:
    """The shipped bundle from two threads: its error on the probes, and whether both agree."""
    prompts = [f"{PROMPT}, {index}" for index in range(8)]
    with load(name, path) as detector, ThreadPoolExecutor(2) as pool:
        error = detector.screener.probe()
        first = detector.screener.first_step(prompts)
        start = time.perf_counter()
        found = list(pool.map(detector.screener.first_step, [prompts] * 20))
        seconds = time.perf_counter() - start
    if not all(np.allclose(each, first, rtol=1e-4) for each in found):
        raise BackendError(f"{name} measures the same prompts differently from two threads.")
    return {"probe_error": error, "prompts_per_second": 20 * len(prompts) / seconds}


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
