"""`python -m benchmarks.comfyui CHECKOUT`: what the guard finds in ComfyUI, by calls looked at.

The embedded model in ComfyUI's layout, Euler with the normal schedule, 20 steps, cfg 7.5. Every
caption is drawn from a noise of its own as far as the guard looks; the threshold is that of a
calibration at 1 %. See `checkout` for what has to be installed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from integrations.comfyui.baseline import encode
from integrations.comfyui.calibrating import calibrate_sampling
from integrations.comfyui.decision import Sampled
from integrations.comfyui.session import Measured
from integrations.comfyui.watch import Ruling, Watch
from mnemoscope import Calibration, embedded
from mnemoscope.calibration import digest
from mnemoscope.calibration.conformal import proportion_interval
from mnemoscope.drawing.generate import load_pipeline
from mnemoscope.prompts.printable import counted

from ..running import run_main
from .checkout import comfy_clip, comfy_model, open_checkout

SHAPE = (1, 16, 8, 8)
LOOKS = (1, 3, 5)


def sample(model: Any, noise: torch.Tensor, positive: Any, negative: Any, seed: int = 0) -> object:
    """A KSampler's draw of an empty latent."""
    from comfy.sample import sample as draw

    return draw(
        model, noise, 20, 7.5, "euler", "normal", positive, negative, torch.zeros(SHAPE),
        seed=seed, disable_pbar=True,
    )  # fmt: skip


def scores(model: Any, clip: Any, prompts: Sequence[str], looks: int) -> list[float]:
    """Of each prompt on a noise that calibrations do not use."""
    found: list[Measured] = []

    def keep(measured: Measured) -> Ruling:
        found.append(measured)
        return Ruling(Sampled(), stop=True)

    watch = Watch(model, clip, negative="", steps=looks, decide=keep)
    watched, empty = watch.attach(model), encode(clip, "")
    for prompt in track(prompts, counted(looks, "call")):
        generator = torch.Generator().manual_seed(int(digest(prompt), 16) + 1)
        noise = torch.randn(SHAPE, generator=generator)
        sample(watched, noise, encode(clip, prompt), empty)
    return [each.scores[0] for each in found]


def row(calibration: Calibration, looks: int, found: dict[str, list[float]]) -> dict[str, Any]:
    """What is flagged of each split, with its exact 95 % interval."""
    told: dict[str, Any] = {"looks": looks, "threshold": calibration.threshold}
    for split, values in found.items():
        hits = sum(value > calibration.threshold for value in values)
        interval = proportion_interval(hits, len(values), 0.95)
        told[split] = {"flagged": hits, "of": len(values), "interval": interval}
    return told


def main() -> None:
    """Print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--captions", type=int, default=1000, help="of each split, at most")
    parser.add_argument("--output", type=Path)
    told = parser.parse_args()
    pipe = load_pipeline()
    open_checkout(told.checkout)
    model = comfy_model(pipe.unet, "EPS")
    config = embedded.MODEL / "text_encoder" / "config.json"
    clip = comfy_clip(pipe, embedded.MODEL / "tokenizer", config)

    def captions(split: embedded.Split) -> list[str]:
        return [each.prompt for each in embedded.read_prompts(split)][: told.captions]

    rows = []
    with torch.inference_mode():
        for looks in LOOKS:
            calibration = calibrate_sampling(
                model, clip, captions("calibration"), shape=SHAPE, sample=sample, steps=looks
            )
            splits: tuple[embedded.Split, ...] = ("memorized", "held_out")
            found = {split: scores(model, clip, captions(split), looks) for split in splits}
            rows.append(row(calibration, looks, found))
    table = Table("calls looked at", "threshold", "memorised flagged", "held out flagged")
    for each in rows:
        cells = []
        for split in ("memorized", "held_out"):
            low, high = each[split]["interval"]
            share = each[split]["flagged"] / each[split]["of"]
            cells.append(f"{share:.1%} [{low:.1%}, {high:.1%}]")
        table.add_row(str(each["looks"]), f"{each['threshold']:.4g}", *cells)
    Console(width=100).print(table)
    if told.output is not None:
        told.output.write_text(json.dumps({"rows": rows}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    run_main(main)
