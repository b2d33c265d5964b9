"""`python -m benchmarks.int8`: what 8-bit post-training quantisation does to verdicts.

Quantises the embedded model's screening graph with NNCF (weights and activations, calibrated on 100
captions that the model saw once), wholly, its convolutions alone and its matrix products alone, and
compares scores of memorised and held-out captions with those in float32. "matched" measures against
an unconditional prediction of the same quantised graph, so that errors common to both cancel.

Needs `pip install nncf`, which Mnemoscope itself does not: no variant passes the gate of
`mnemoscope parity`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from rich.console import Console
from rich.table import Table

from mnemoscope import embedded
from mnemoscope.benchmark.precision import compare
from mnemoscope_export import StableDiffusion
from mnemoscope_export.torch.graphs import ScreenGraph, to_onnx
from mnemoscope_runtime import Bundle, ParityError, Tokenizer, tokenizer_of
from mnemoscope_runtime.backends.onnxruntime import import_onnxruntime
from mnemoscope_runtime.backends.openvino import import_openvino

from .running import run_main

Difference = Callable[[np.ndarray, int], np.ndarray]  # ids [1, L], noise -> eps_cond - eps_uncond
VARIANTS: dict[str, list[str]] = {
    "int8": [],
    "int8 convolutions": ["MatMul", "Gemm", "Add", "Mul"],
    "int8 matrix products": ["Conv"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--limit", type=int, help="captions of each kind (default: all)")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    bundle = Bundle.open(embedded.BUNDLE)
    tokenizer, noises = tokenizer_of(bundle), len(bundle.noise_bank())
    memorized, others = (
        [row.prompt for row in embedded.read_prompts(split)][: args.limit]
        for split in ("memorized", "held_out")
    )
    prompts = memorized + others
    labels = np.arange(len(prompts)) < len(memorized)
    table = Table("graph", "engine", "unconditional", "median error", "rank corr.", "AUC",
                  "TPR@1%FPR", "gate")  # fmt: skip
    report = []
    with tempfile.TemporaryDirectory() as folder:
        graphs = write_graphs(Path(folder), bundle, tokenizer)
        expected, _ = scores(onnxruntime(graphs["float32"]), tokenizer, prompts, noises)
        for name, path in graphs.items():
            engines = {"onnxruntime": onnxruntime(path), "openvino": openvino(path, "f32"),
                       "openvino:bfloat16": openvino(path, "bf16")}  # fmt: skip
            for engine, run in engines.items():
                found = scores(run, tokenizer, prompts, noises)
                for kind, values in zip(("float32", "matched"), found, strict=True):
                    comparison = compare(expected, values, labels)
                    report.append(
                        {
                            "graph": name,
                            "engine": engine,
                            "unconditional": kind,
                            "passes": passes(comparison.check),
                            **asdict(comparison),
                        }
                    )
                    assert comparison.auc
                    assert comparison.tpr
                    table.add_row(
                        name, engine, kind, f"{comparison.median_error:.1e}",
                        f"{comparison.rank_correlation:.3f}", f"{comparison.auc[1]:.3f}",
                        f"{comparison.tpr[1]:.2f}", "passes" if report[-1]["passes"] else "refused",
                    )  # fmt: skip
    Console(width=120).print(table)
    (args.output / "embedded-int8.json").write_text(json.dumps(report, indent=1) + "\n")


def write_graphs(folder: Path, bundle: Bundle, tokenizer: Tokenizer) -> dict[str, Path]:
    """The screening graph, with the difference as an output, in float32 and quantised."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # nncf reports with it
    import nncf
    import torch

    model = StableDiffusion.load(embedded.MODEL)
    bank = torch.from_numpy(bundle.noise_bank())
    graph = ir.to_proto(to_onnx(ScreenGraph(model, bank, bundle.manifest.timestep), model))
    (subtraction,) = (node for node in graph.graph.node if node.op_type == "Sub")
    subtraction.name = "difference"
    paths = {"float32": folder / "float32.onnx"}
    onnx.save(graph, paths["float32"])
    captions = [row.prompt for row in embedded.read_prompts("seen")][:100]
    samples = [
        {"input_ids": tokenizer([caption]), "noise_index": np.array([index % len(bank)])}
        for index, caption in enumerate(captions)
    ]
    for name, ignored in VARIANTS.items():
        paths[name] = folder / f"{name.replace(' ', '-')}.onnx"
        quantised = nncf.quantize(
            onnx.load(paths["float32"]),
            nncf.Dataset(samples),
            subset_size=len(samples),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(types=ignored, validate=False),
        )
        onnx.save(quantised, paths[name])
    for path in paths.values():
        graph = onnx.load(path)
        (output,) = (node.output[0] for node in graph.graph.node if node.name == "difference")
        graph.graph.output.append(onnx.helper.make_tensor_value_info(output, 1, None))
        onnx.save(graph, path)
    return paths


def onnxruntime(path: Path) -> Difference:
    runtime: Any = import_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_outputs()[-1].name

    def run(ids: np.ndarray, noise: int) -> np.ndarray:
        return session.run([name], {"input_ids": ids, "noise_index": np.array([noise])})[0].ravel()

    return run


def openvino(path: Path, precision: str) -> Difference:
    core = import_openvino().Core()
    model = core.read_model(path)
    model.reshape({"input_ids": [1, 77], "noise_index": [1]})
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    request = compiled.create_infer_request()

    def run(ids: np.ndarray, noise: int) -> np.ndarray:
        request.infer({"input_ids": ids, "noise_index": np.array([noise])})
        return np.array(request.get_output_tensor(1).data).ravel()

    return run


def scores(
    difference: Difference, tokenizer: Tokenizer, prompts: list[str], noises: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean magnitudes, against eps_uncond in float32 and against the engine's own."""
    common = [difference(tokenizer([""]), noise) for noise in range(noises)]
    pairs = np.empty((2, len(prompts), noises))
    for row, prompt in enumerate(prompts):
        for noise in range(noises):
            found = difference(tokenizer([prompt]), noise)
            pairs[:, row, noise] = (
                np.linalg.norm(found), np.linalg.norm(found - common[noise]),
            )  # fmt: skip
    plain, matched = pairs.mean(2)
    return plain, matched


def passes(check: Callable[[], None]) -> bool:
    try:
        check()
    except ParityError:
        return False
    return True


if __name__ == "__main__":
    run_main(main)
