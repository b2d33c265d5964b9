"""`python -m benchmarks.training`: does leaving samples out of the loss keep them unlearnt?

The experiment of Wen et al. (ICLR 2024, section 5) at the embedded model's size: fine-tune it on
new captioned pictures, a few of which come back again and again, with nothing against it, with
random tokens in the captions, and with the filter; then draw their captions. Copy similarity
(cosine of the stand-in descriptor with the caption's picture) against CLIP score. With --descriptor
SSCD's verdict stands beside, against the caption's picture as the VAE renders it.

Every run is written down when it ends; what OUTPUT/training.json holds is not run again.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from rich.console import Console
from torch import Tensor

from benchmarks.second_opinion import SecondOpinion, add_descriptor
from benchmarks.training_report import plot, table
from mnemoscope import embedded
from mnemoscope.drawing.alignment import Alignment, load_alignment
from mnemoscope.drawing.copy_detection import CopyDescriptor, load_descriptor
from mnemoscope.mitigate import Painter
from mnemoscope.training import (
    HardThreshold,
    MemorizationFilter,
    QuantileThreshold,
    add_random_tokens,
)
from mnemoscope_export import (
    StableDiffusion,
    denoise,
    load_vae,
    magnitude_of,
    noise_bank,
    unconditional,
)
from recipes.embedded.captions import draw_captions
from recipes.embedded.dataset import Sizes, fetch_packages
from recipes.embedded.images import Artwork, load_artwork, render
from recipes.embedded.quality import to_pixels
from recipes.embedded.unet import train_unet
from recipes.embedded.vae import encode

from .running import run_main

NONE, TOKENS = "none", "random tokens"
HARD = {"hard": 0.95, "hard, stricter": 0.75}  # quantile of the untuned model's magnitudes
QUANTILES = {"quantiles": 2.0, "quantiles, stricter": 1.5}  # factor
ARMS = (NONE, TOKENS, *HARD, *QUANTILES)
TIMESTEPS = (20, 100, 250, 400, 550, 700, 850, 990)
HELD_OUT = 16  # captions, trained on by none, whose alignment shows what else changed
SETTING = ("duplicated", "others", "batch", "draws", "repeats")
RATE, STEPS = 5e-4, 20  # learning rate; DDIM steps of the pictures that are judged
WARMUP = 2  # rounds of training steps before they are timed


@dataclass(frozen=True)
class Part:
    """Captions and their pictures, as the UNet sees them."""

    captions: list[str]
    pictures: list[Image.Image]
    latents: Tensor  # [N, 16, 8, 8]
    embeds: Tensor  # [N, 77, 128]

    def rows(self, start: int, stop: int) -> Part:
        """Some of them."""
        cut = slice(start, stop)
        return Part(self.captions[cut], self.pictures[cut], self.latents[cut], self.embeds[cut])


@dataclass(frozen=True)
class Bench:
    """What all runs share."""

    model: StableDiffusion
    vae: AutoencoderKL
    descriptor: CopyDescriptor
    alignment: Alignment
    args: argparse.Namespace

    @property
    def empty(self) -> Tensor:
        """The empty prompt's embedding, [1, 77, 128]."""
        return self.model.embed_empty()[0]

    def embed(self, captions: Sequence[str]) -> Tensor:
        """Of any number of captions."""
        parts = [self.model.embed(captions[i : i + 64])[0] for i in range(0, len(captions), 64)]
        return torch.cat(parts)

    def part(self, captions: list[str], pictures: list[Image.Image]) -> Part:
        """Encode pictures and captions."""
        pixels = np.stack([np.asarray(each) for each in pictures])
        latents = encode(self.vae, pixels) * self.vae.config.scaling_factor
        return Part(captions, pictures, latents, self.embed(captions))

    def draw(self, unet: UNet2DConditionModel, part: Part, draws: int) -> list[Image.Image]:
        """Pictures for every caption, `draws` of each in a row."""
        model = replace(self.model, unet=unet)
        noises = noise_bank(draws, model.latent_shape, seed=0).repeat(len(part.captions), 1, 1, 1)
        told = (part.embeds.repeat_interleave(draws, 0),)
        *_, last = denoise(model, told, noises, inference_steps=STEPS)
        return [Image.fromarray(each) for each in to_pixels(self.vae, last.latents)]


def new_part(bench: Bench, artwork: Artwork, count: int, seed: int) -> Part:
    """Captions that the embedded model's recipe did not draw, and pictures for them."""
    things, sizes = sorted({thing for _, thing in artwork}), Sizes()
    total = sizes.memorised + sizes.held_out + sizes.calibration + sizes.seen
    known = {each.text for each in draw_captions(things, total, 0)}
    drawn = draw_captions(things, count + count // 10 + 50, 1000 + seed)
    chosen = [each for each in drawn if each.text not in known][:count]
    rng = random.Random(seed)
    pictures = [Image.fromarray(render(each, artwork, rng)) for each in chosen]
    return bench.part([each.text for each in chosen], pictures)


@torch.no_grad()
def start_magnitudes(bench: Bench, part: Part, t: Tensor) -> Tensor:
    """Of the untuned model, on a part's noised pictures. # [N]"""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(part.latents.shape, generator=generator)
    noisy = bench.model.scheduler.add_noise(part.latents, noise, t)
    found = []
    for i in range(0, len(t), 32):
        x, each = noisy[i : i + 32], t[i : i + 32]
        uncond = unconditional(bench.model, x, each)
        found.append(magnitude_of(bench.model, (part.embeds[i : i + 32],), x, each, uncond))
    return torch.cat(found)


def judge(
    bench: Bench,
    unet: UNet2DConditionModel,
    part: Part,
    others: Part,
    second: SecondOpinion | None,
) -> dict:
    """Copies and alignment of what the duplicated captions draw; alignment of other captions."""
    draws = bench.args.draws
    drawn = bench.draw(unet, part, draws)
    descriptor, alignment = bench.descriptor, bench.alignment
    cosines = (
        descriptor.describe(drawn)
        * descriptor.describe([each for each in part.pictures for _ in range(draws)])
    ).sum(1)
    captions = [each for each in part.captions for _ in range(draws)]
    rows = [row for row in range(len(part.captions)) for _ in range(draws)]
    by_second = {} if second is None else {"sscd": second.own(drawn, rows)}
    return {
        "copy": cosines.tolist(),
        "copied": float((cosines > descriptor.copied_above).mean()),
        "alignment": alignment.score(captions, drawn).tolist(),
        "others": alignment.score(others.captions, bench.draw(unet, others, 1)).tolist(),
        **by_second,
    }


def threshold(bench: Bench, arm: str, part: Part) -> HardThreshold | QuantileThreshold | None:
    """What the arm's filter goes by; a hard one is chosen on the untuned model."""
    if arm in QUANTILES:
        return QuantileThreshold(factor=QUANTILES[arm])
    if arm not in HARD:
        return None
    some = part.rows(0, 256)
    t = torch.linspace(0, 999, len(some.captions)).long()
    return HardThreshold(float(start_magnitudes(bench, some, t).quantile(HARD[arm])))


def run(
    bench: Bench,
    arm: str,
    seed: int,
    duplicated: Part,
    many: Part,
    held: Part,
    second: SecondOpinion | None,
) -> dict:
    """Fine-tune once, and judge after every number of repeats."""
    args = bench.args
    kind = threshold(bench, arm, many)
    seen, memorised = (many.latents, many.embeds), (duplicated.latents, duplicated.embeds)
    if arm == TOKENS:
        rng, repeats = random.Random(seed), max(args.repeats)

        def told(captions: Sequence[str]) -> Tensor:
            changed = [add_random_tokens(c, bench.model.tokenizer, rng) for c in captions]
            return bench.embed(changed)

        seen = (many.latents, told(many.captions))
        memorised = (
            duplicated.latents.repeat(repeats, 1, 1, 1),
            told(duplicated.captions * repeats),
        )
    memorization = kind and MemorizationFilter(bench.model.scheduler, bench.empty, kind)
    share = args.batch // 4
    levels = {-(-repeats * len(duplicated.captions) // share): repeats for repeats in args.repeats}
    rows: list[dict] = []

    def watch(step: int, average: UNet2DConditionModel) -> None:
        if step in levels:
            found = judge(bench, average.eval(), duplicated, held, second)
            rows.append({"repeats": levels[step], **found})
            print(arm, seed, levels[step], f"copy {np.mean(found['copy']):.3f}", flush=True)

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        train_unet(
            seen,
            memorised,
            bench.empty[0],
            Path(work),
            prediction="epsilon",
            steps=max(levels),
            batch=args.batch,
            rate=RATE,
            seed=seed,
            start=copy.deepcopy(bench.model.unet).requires_grad_(True),
            noisy_share=0.333,
            drop_memorised=False,
            memorization=memorization,
            watch=watch,
        )
    report = memorization.report() if memorization else None
    few = (
        [each for each in report.samples if int(each.name) < len(duplicated.captions)]
        if report
        else []
    )
    return {
        "arm": arm,
        "seed": seed,
        "threshold": kind and memorization.state_dict()["threshold"],
        "seconds": time.monotonic() - started,
        "levels": rows,
        "duplicated": {"seen": sum(e.seen for e in few), "skipped": sum(e.skipped for e in few)},
        "all": report and {"seen": report.seen, "skipped": report.skipped},
        "top": [int(e.name) for e in report.top(len(few))] if report else [],
    }


def separation(bench: Bench, others: Part) -> dict:
    """Magnitudes of the untuned model: its own memorised pictures against new ones."""
    captions = [each.prompt for each in embedded.read_prompts("memorized")]
    known = bench.part(captions, embedded.memorized_pictures())
    found = {}
    for t in TIMESTEPS:
        a, b = (
            start_magnitudes(bench, part, torch.full((len(part.captions),), t)).numpy()
            for part in (known, others.rows(0, 100))
        )
        found[str(t)] = {
            "memorized": np.quantile(a, [0.1, 0.5, 0.9]).tolist(),
            "new": np.quantile(b, [0.1, 0.5, 0.9]).tolist(),
            "auc": float((a[:, None] > b[None]).mean()),
        }
    return found


def overhead(bench: Bench, rounds: int) -> dict:
    """Seconds of a training step without and with the filter, in turns: A, B, A, B, ..."""
    unet = copy.deepcopy(bench.model.unet).requires_grad_(True).train()
    unet = unet.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(unet.parameters(), 1e-5)
    judged = MemorizationFilter(bench.model.scheduler, bench.empty)
    captions = [each.prompt for each in embedded.read_prompts("memorized")[:16]]
    batch = bench.part(captions, embedded.memorized_pictures()[:16])
    pixels = np.stack([np.asarray(each) for each in batch.pictures])
    times: dict[str, list[tuple[float, float]]] = {"UNet alone": [], "with VAE and text": []}

    def step(whole: bool, filtered: bool) -> float:
        started = time.perf_counter()
        latents, embeds = batch.latents, batch.embeds
        if whole:
            latents = encode(bench.vae, pixels) * bench.vae.config.scaling_factor
            embeds = bench.embed(batch.captions)
        noise, t = torch.randn_like(latents), torch.randint(0, 1000, (len(latents),))
        noisy = bench.model.scheduler.add_noise(latents, noise, t)
        predicted = unet(noisy, t, embeds).sample
        loss = (predicted - noise).square().mean()
        if filtered:
            verdict = judged(unet, noisy, t, embeds, predicted, ids=range(len(t)))
            loss = verdict.mean((predicted - noise).square())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - started

    for turn in range(WARMUP + rounds):
        for name, rows in times.items():
            pair = tuple(step(name != "UNet alone", filtered) for filtered in (False, True))
            if turn >= WARMUP:
                rows.append(pair)  # type: ignore[arg-type]
    return {
        name: {
            "ratio": float(np.median([b / a for a, b in rows])),
            "quartiles": np.quantile([b / a for a, b in rows], [0.25, 0.75]).tolist(),
            "seconds": rows,
        }
        for name, rows in times.items()
    }


def main(argv: Sequence[str] | None = None, artwork: Artwork | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="where the emoji packages are, or go")
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--plot", type=Path, help="default: OUTPUT/training.png")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, nargs="+", default=[50, 100, 200, 300])
    parser.add_argument("--duplicated", type=int, default=4, help="pictures, others each seed")
    parser.add_argument("--others", type=int, default=1000, help="pictures that come back rarely")
    parser.add_argument("--batch", type=int, default=8, help="a quarter of it is duplicated")
    parser.add_argument("--draws", type=int, default=4, help="pictures judged per caption")
    add_descriptor(parser)
    parser.add_argument("--rounds", type=int, default=20, help="of timing; 0 for none")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "training.json"
    setting = {name: getattr(args, name) for name in SETTING}
    report = json.loads(path.read_text()) if path.exists() else {"setting": setting, "runs": []}
    if report["setting"] != setting:
        parser.error(f"{path} holds runs of {report['setting']}: choose another --output")
    judged = ["sscd" in level for row in report["runs"] for level in row["levels"]]
    if args.descriptor is not None and not all(judged):
        parser.error(f"{path} holds runs that SSCD did not judge: choose another --output")
    known = {(row["arm"], row["seed"]) for row in report["runs"]}
    todo = [
        (seed, arm) for seed in range(args.seeds) for arm in args.arms if (arm, seed) not in known
    ]

    vae = load_vae(embedded.MODEL)
    model = StableDiffusion.load(embedded.MODEL)
    bench = Bench(model, vae, load_descriptor(), load_alignment(), args)
    if todo and artwork is None:
        packages = fetch_packages(args.data or args.output / "data")
        artwork = load_artwork(packages, Sizes().things, 0)
    for seed, arms in itertools.groupby(todo, key=lambda each: each[0]):
        part = new_part(bench, artwork or {}, args.duplicated + HELD_OUT + args.others, seed)
        duplicated = part.rows(0, args.duplicated)
        held = part.rows(args.duplicated, args.duplicated + HELD_OUT)
        many = part.rows(args.duplicated + HELD_OUT, len(part.captions))
        second = SecondOpinion.load(args.descriptor, Painter(model, vae), duplicated.pictures)
        if "separation" not in report:
            report["separation"] = separation(bench, many)
        for _, arm in arms:
            report["runs"].append(run(bench, arm, seed, duplicated, many, held, second))
            path.write_text(json.dumps(report, indent=1) + "\n")
    if args.rounds:
        report["overhead"] = overhead(bench, args.rounds)
    path.write_text(json.dumps(report, indent=1) + "\n")
    plot(args.plot or args.output / "training.png", report["runs"], ARMS)
    console = Console(width=140)
    console.print(table(report["runs"], ARMS))
    for name, each in report.get("overhead", {}).items():
        console.print(f"a step with the filter takes {each['ratio']:.2f} times as long, {name}")
    console.print(f"figures {path}")


if __name__ == "__main__":
    run_main(main)
