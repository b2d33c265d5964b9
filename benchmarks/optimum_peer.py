"""`python -m benchmarks.optimum_peer`: Optimum's ONNX Runtime pipeline against a bundle made of it.

Runs in Optimum's own environment (`make .venv/optimum/installed`). The embedded model is exported
by Optimum; `export_onnx` makes a bundle of that export, and both measure one prompt on one noise in
turns, ONNX Runtime on the CPU throughout.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from optimum.onnxruntime import ORTStableDiffusionPipeline
from rich.console import Console

from mnemoscope import Detector, embedded
from mnemoscope.benchmark import latency as bench
from mnemoscope_export import ExportOptions, export_onnx

from . import rows as ways
from .running import run_main

PROMPT = embedded.read_prompts("held_out")[0].prompt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--warmup", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    exported, path = args.output / "optimum-export", args.output / "optimum-bundle"
    if not exported.exists():
        source = str(embedded.MODEL)
        ORTStableDiffusionPipeline.from_pretrained(source, export=True).save_pretrained(exported)
    export_onnx(exported, path, ExportOptions(overwrite=True))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    pipeline = ORTStableDiffusionPipeline.from_pretrained(str(exported), session_options=options)
    with Detector.load(path, threads=args.threads, uncalibrated="score") as detector:
        rows = {
            **as_the_pipeline(pipeline, detector),
            **as_sessions(pipeline, detector),
            **ways.step_engine(detector, PROMPT),
            **ways.screen_engine(detector, PROMPT),
            **ways.sdk(detector, PROMPT),
        }
        times = ways.measure(rows, args.rounds, args.warmup)
        table, report = ways.summary(rows, times, {})
    console = Console(width=120)
    console.print(table)
    versions = {name: version(name) for name in ("optimum-onnx", "diffusers", "transformers")}
    text = {"environment": {**bench.environment(args.threads), **versions}, "rows": report}
    file = args.output / "optimum-peer.json"
    file.write_text(json.dumps(text, indent=1) + "\n")
    console.print(f"raw samples {file}")


def as_the_pipeline(pipeline: ORTStableDiffusionPipeline, detector: Detector) -> ways.Rows:
    """The calls that the pipeline makes: the prompt's embedding, then [uncond; cond] at once."""
    ids, empty, noise, t = inputs(pipeline, detector)
    both, timestep = torch.from_numpy(np.concatenate([noise, noise])), torch.tensor(float(t))
    ids, empty = torch.from_numpy(ids), torch.from_numpy(empty)

    def run() -> float:
        context = torch.cat([empty, pipeline.text_encoder(ids)[0]])
        output = pipeline.unet(both, timestep, context, return_dict=False)[0].numpy()
        return float(np.linalg.norm(output[1] - output[0]))

    return {"Optimum's pipeline, both branches, norm": run}


def as_sessions(pipeline: ORTStableDiffusionPipeline, detector: Detector) -> ways.Rows:
    """The same without Optimum's wrapping: its ONNX Runtime sessions, called with arrays."""
    ids, empty, noise, t = inputs(pipeline, detector)
    text, unet = pipeline.text_encoder.session, pipeline.unet.session
    fixed = {"sample": np.concatenate([noise, noise]), "timestep": np.asarray(t, np.float32)}

    def run() -> float:
        embeds = text.run(["last_hidden_state"], {"input_ids": ids})[0]
        context = np.concatenate([empty, embeds])
        output = unet.run(["out_sample"], {**fixed, "encoder_hidden_states": context})[0]
        return float(np.linalg.norm(output[1] - output[0]))

    return {"the same ONNX Runtime sessions": run}


def inputs(
    pipeline: ORTStableDiffusionPipeline, detector: Detector
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """The prompt's ids, the empty prompt's embedding, a noise and the timestep."""
    screener = detector.screener
    ids, nothing = screener.tokenizer([PROMPT]), screener.tokenizer([""])
    empty = pipeline.text_encoder.session.run(["last_hidden_state"], {"input_ids": nothing})[0]
    bundle = screener.bundle
    return ids, empty, bundle.noise_bank()[:1], bundle.manifest.timestep


if __name__ == "__main__":
    run_main(main)
