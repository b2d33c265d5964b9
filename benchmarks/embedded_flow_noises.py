"""`python -m benchmarks.embedded_flow_noises`: how much it matters which one noise is looked at.

The AUC of the embedded flow's prediction at the first step, by each of ten noises that its bundle
does not hold: the 100 memorised captions against the 600 seen and held-out ones.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from benchmarks.embedded_flow import NOISES, captions, first_step
from mnemoscope import embedded
from mnemoscope.evaluate import auc
from mnemoscope_export import noise_bank
from recipes.embedded_flow.pack import Trained, read_trained

from .running import run_main

OTHERS = 10
_CHUNK = 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, help="prompts of each kind (default: all)")
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    trained = read_trained(embedded.FLOW_MODEL)
    texts = captions(args.limit)
    held = max(NOISES)  # by the bundle
    noises = noise_bank(held + OTHERS, trained.latent_shape, seed=0)[held:]
    positives = scores(trained, texts["memorized"], noises)
    negatives = scores(trained, texts["seen"] + texts["held_out"], noises)
    found = [auc(positives[:, k], negatives[:, k]) for k in range(OTHERS)]
    print("AUC by each noise:", *(f"{each:.3f}" for each in sorted(found)))
    file = args.output / "embedded-flow-noises.json"
    file.write_text(json.dumps({"auc": found}, indent=1) + "\n")
    print(f"raw figures {file}")


def scores(trained: Trained, prompts: list[str], noises: torch.Tensor) -> np.ndarray:
    """Magnitudes at the first step. # [prompt, noise]"""
    chunks = [prompts[i : i + _CHUNK] for i in range(0, len(prompts), _CHUNK)]
    parts = []
    for told in map(trained.tell, chunks):
        of = [first_step(trained, told, noise, 1.0)["velocity"] for noise in noises.split(1)]
        parts.append(torch.stack(of, 1))
    return torch.cat(parts).double().numpy()


if __name__ == "__main__":
    run_main(main)
