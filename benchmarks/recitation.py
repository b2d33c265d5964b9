"""`python -m benchmarks.recitation`: does the score tell which draws recite, whatever the label?

Labels say which captions were memorised; what a user wants to know is whether a draw will be a
training picture. This draws every embedded memorised, seen and held-out caption from the bundle's
first noise with the PyTorch reference, takes the mean magnitude of the first 1, 10 and 50 steps on
the way, and compares the result with the memorised pictures: it recites if the cosine, between VAE
latents less the mean memorised latent, is at least 0.9. With --descriptor SSCD's verdict stands
beside, against the memorised pictures as the model's VAE renders them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.nn.functional import normalize

from mnemoscope import embedded
from mnemoscope.evaluate import auc, bootstrap, tpr_at_fpr
from mnemoscope.mitigate import Painter
from mnemoscope_export import StableDiffusion, denoise, load_vae, magnitude
from mnemoscope_runtime import Bundle

from .running import run_main
from .second_opinion import CUTS, SecondOpinion, add_descriptor, copies

SPLITS = ("memorized", "seen", "held_out")
STEPS = (1, 10, 50)
CUT, SIDE, BATCH = 0.9, 64, 20


@torch.no_grad()
def memorised_latents() -> torch.Tensor:
    """The training pictures of the memorised captions, [100, C, H, W]."""
    sheet = np.asarray(Image.open(embedded.MEMORIZED).convert("RGB"))
    rows, columns = (size // SIDE for size in sheet.shape[:2])
    tiles = sheet.reshape(rows, SIDE, columns, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)
    pixels = torch.from_numpy(np.array(tiles)).permute(0, 3, 1, 2).float() / 127.5 - 1
    vae = load_vae(embedded.MODEL)
    latents: torch.Tensor = vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor
    return latents


@torch.no_grad()
def draw(
    model: StableDiffusion, prompts: Sequence[str], noise: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Finished latents [B, C, H, W], and the mean magnitude of the first STEPS to them [B, 3]."""
    steps = list(denoise(model, model.embed(list(prompts)), noise.repeat(len(prompts), 1, 1, 1)))
    values = torch.stack([magnitude(step.cond, step.uncond) for step in steps])
    return steps[-1].latents, torch.stack([values[:k].mean(0) for k in STEPS], -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--limit", type=int, help="captions of each kind (default: all)")
    add_descriptor(parser)
    parser.add_argument("--top", type=int, default=24, help="how many of the others to show")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    captions = [row for split in SPLITS for row in embedded.read_prompts(split)[: args.limit]]
    model, memorised = StableDiffusion.load(embedded.MODEL), memorised_latents()
    noise = torch.from_numpy(Bundle.open(embedded.BUNDLE).noise_bank()[:1])
    mean = memorised.flatten(1).mean(0)
    known = normalize(memorised.flatten(1) - mean, dim=1)
    painter = Painter.load()
    second = SecondOpinion.load(args.descriptor, painter, embedded.memorized_pictures())
    rows = []
    for start in track(range(0, len(captions), BATCH), "drawing", console=Console(stderr=True)):
        chunk = captions[start : start + BATCH]
        latents, scores = draw(model, [caption.prompt for caption in chunk], noise)
        cosines = (normalize(latents.flatten(1) - mean, dim=1) @ known.T).max(1).values
        by_sscd: list[float | None] = [None] * len(chunk)
        if second is not None:
            by_sscd = list(second.nearest(painter.pictures(latents)))
        for caption, score, cosine, other in zip(
            chunk, scores.tolist(), cosines.tolist(), by_sscd, strict=True
        ):
            rows.append(
                {
                    "prompt": caption.prompt,
                    "split": caption.split,
                    "scores": dict(zip(map(str, STEPS), score, strict=True)),
                    "cosine": cosine,
                    "recites": cosine >= CUT,
                    "sscd": other,
                }
            )

    console = Console(width=110)
    table = Table("score", "cosine", "recites", "label", "caption")
    others = sorted(
        (r for r in rows if r["split"] != "memorized"), key=lambda r: -r["scores"]["50"]
    )
    for row in others[: args.top]:
        recites = "yes" if row["recites"] else ""
        cells = f"{row['scores']['50']:.2f}", f"{row['cosine']:.2f}", recites, row["split"]
        table.add_row(*cells, row["prompt"])
    console.print(table)
    for split in SPLITS:
        part = [row["recites"] for row in rows if row["split"] == split]
        console.print(f"{split}: {sum(part)} of {len(part)} draws recite")
        if second is not None:
            counts = copies([row["sscd"] for row in rows if row["split"] == split])
            for cut, count in zip(CUTS, counts, strict=True):
                console.print(f"{split}: {count} of {len(part)} by SSCD above {cut}")
    recites = np.array([row["recites"] for row in rows])
    figures = Table("steps", "AUC [95 %]", "TPR@1%FPR [95 %]", title="draws that recite or not")
    for k in STEPS:
        scores = np.array([row["scores"][str(k)] for row in rows])
        found = (bootstrap(f, scores[recites], scores[~recites]) for f in (auc, tpr_at_fpr))
        figures.add_row(str(k), *map(str, found))
    console.print(figures)
    path = args.output / "recitation.json"
    path.write_text(json.dumps(rows, indent=1) + "\n")
    console.print(f"figures {path}")


if __name__ == "__main__":
    run_main(main)
