"""`python -m benchmarks.taps_flops --family sd14`: the arithmetic of screening that stops at a tap.

Counted on the screening graph itself, so what folding saves is left out: nothing is computed, and
no weights are needed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from mnemoscope_export import StableDiffusion
from mnemoscope_export.torch.flops import count_flops
from mnemoscope_export.torch.graphs import ScreenGraph, TextEncoderGraph

from .families import FAMILIES, random_model
from .running import run_main

BLOCKS = ("up_blocks.0.", "up_blocks.1.")
TIMESTEP = 981  # changes no count


def count(model: StableDiffusion, blocks: tuple[str, ...] = BLOCKS) -> dict[str, int]:
    """Floating-point operations of one prompt on one noise.

    Args:
        model: May be on the meta device.
        blocks: Where the layers are that the graph may stop at.

    Returns:
        Of the text encoder, the whole UNet as it comes and as it is in `screen`, and the latter
        stopped at each layer; the text encoder is in none of the others.
    """
    device = model.unet.device
    bank = torch.zeros(1, *model.latent_shape, device=device)
    ids = torch.zeros_like(model.tokenize([""]), device=device)
    inputs = (ids, torch.zeros(1, dtype=torch.int64, device=device))
    text = count_flops(TextEncoderGraph(model), inputs[:1])

    class Plain(torch.nn.Module):
        def forward(self) -> None:
            model.predict(bank, torch.tensor(TIMESTEP, device=device), embeds)

    embeds = model.embed([""])
    found = {
        "text encoder": text,
        "UNet": count_flops(Plain(), ()),
        "screen": count_flops(ScreenGraph(model, bank, TIMESTEP), inputs) - text,
    }
    for name in model.tappable():
        if name.startswith(blocks):
            graph = ScreenGraph(model, bank, TIMESTEP, [name], stop=True)
            found[name] = count_flops(graph, inputs) - text
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=FAMILIES, default="sd14")
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        model = random_model(args.family)
        found = count(model)
    text, whole = found["text encoder"], found["screen"]
    title = f"{args.family}, latents {model.latent_shape}, one prompt on one noise"
    table = Table("", "GFLOP", "of the UNet in screen", "of screen, text encoder too", title=title)
    for name, flops in found.items():
        shares = (f"{flops / whole:.1%}", f"{(flops + text) / (whole + text):.1%}")
        table.add_row(name, f"{flops / 1e9:.1f}", *(shares if name != "text encoder" else ()))
    console = Console(width=110)
    console.print(table)
    path = args.output / f"taps-flops-{args.family}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    console.print(f"figures {path}")


if __name__ == "__main__":
    run_main(main)
