"""`python -m benchmarks.evasion`: can the embedded model be made to recite, unnoticed?

Every attack of `benchmarks.attacks` on the captions that it memorised. A draw (50 DDIM steps,
guidance 7.5, the bank's first noise) recites if its latents' cosine with a memorised
picture's, both less the mean memorised one, is at least 0.9. It is noticed by a detector whose
score lies above the threshold that ships with the bundle (1 % of benign prompts, 95 % confidence).
With --descriptor SSCD's verdict stands beside, against the memorised pictures as the VAE renders
them.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.nn.functional import normalize

from mnemoscope import CalibrationFile, Detector, embedded
from mnemoscope.calibration import Calibration
from mnemoscope.calibration.conformal import proportion_interval
from mnemoscope.detectors import find_statistic
from mnemoscope.mitigate import Painter
from mnemoscope.screening.opening import CALIBRATION
from mnemoscope_export import StableDiffusion, denoise, magnitude
from mnemoscope_runtime import Bundle

from .attacks import EMBEDDINGS, TEXTS, Screen, Target, Told, optimised_embedding, pez, searched
from .recitation import CUT, memorised_latents
from .running import run_main
from .second_opinion import HEADER, SecondOpinion, add_descriptor, cells

BATCH = 20
SETTINGS = (("magnitude", 1, 4), ("taps", 1, 4), ("magnitude", 10, 1))
GUIDED = ("magnitude", 1, 1)  # what a guard sees: guidance's own branches, one noise


def calibrations() -> dict[tuple[str, int, int], Calibration]:
    """Those of the embedded bundle that are asked here."""
    known = CalibrationFile.read(embedded.BUNDLE / CALIBRATION).calibrations
    by_setting = {
        (c.setting.detector, c.setting.steps, c.setting.noises): c
        for c in known
        if c.setting.backend == "onnxruntime"
    }
    return {key: by_setting[key] for key in (*SETTINGS, GUIDED)}


@torch.no_grad()
def scores(model: StableDiffusion, told: Told, bank: Tensor) -> dict[tuple[str, int, int], Tensor]:
    """What each detector makes of the conditional branch, against the empty prompt. # [B] each"""
    bundle, batch, count = Bundle.open(embedded.BUNDLE), len(told.embeds), len(bank)
    names = bundle.manifest.taps
    repeated = told.embeds.repeat_interleave(count, 0)
    first = next(denoise(model, (repeated,), bank.repeat(batch, 1, 1, 1), taps=names))
    values = magnitude(first.cond, first.uncond).reshape(batch, count).mean(1)
    taps = first.taps.clamp(min=torch.finfo(torch.float32).tiny).log()
    features = taps.reshape(batch, count, 1, len(names)).numpy()
    fit = calibrations()["taps", 1, 4].fit
    ten = islice(denoise(model, (told.embeds,), bank[:1].repeat(batch, 1, 1, 1)), 10)
    each = [magnitude(step.cond, step.uncond) for step in ten]
    return {
        ("magnitude", 1, 4): values,
        ("taps", 1, 4): torch.tensor(find_statistic("taps").score(features, fit).mean(1)),
        ("magnitude", 10, 1): torch.stack(each).mean(0),
    }


@torch.no_grad()
def draw(model: StableDiffusion, told: Told, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Finished latents [B, C, H, W], and the first magnitude between guidance's branches [B]."""
    batch = len(told.embeds)
    both = torch.cat([told.negative.expand_as(told.embeds), told.embeds])
    sampler = model.sampler()
    sampler.set_timesteps(50)
    latents, first = noise.repeat(batch, 1, 1, 1), None
    for t in sampler.timesteps:
        uncond, cond = model.predict(torch.cat([latents, latents]), t, (both,)).chunk(2)
        if first is None:
            eps = (model.in_unit(part, latents, t) for part in (cond, uncond))
            first = magnitude(*eps)
        latents = sampler.step(uncond + 7.5 * (cond - uncond), t, latents).prev_sample
    assert first is not None
    return latents, first


def judge(
    painter: Painter, told: Told, bank: Tensor, known: Tensor, second: SecondOpinion | None
) -> dict[str, Any]:
    """Whether each draw recites a picture, and which detectors notice. # [B] each"""
    thresholds = {key: each.threshold for key, each in calibrations().items()}
    latents, guided = draw(painter.model, told, bank[:1])
    mean = known.flatten(1).mean(0)
    own = normalize(known.flatten(1) - mean, dim=1)
    cosines = (normalize(latents.flatten(1) - mean, dim=1) @ own.T).max(1).values
    noticed = {
        " ".join(map(str, key)): (value > thresholds[key]).tolist()
        for key, value in scores(painter.model, told, bank).items()
    }
    noticed["guidance"] = (guided > thresholds[GUIDED]).tolist()
    if second is not None:
        noticed["sscd"] = second.nearest(painter.pictures(latents))
    return {"cosine": cosines.tolist(), "recites": (cosines >= CUT).tolist(), **noticed}


def asked(stack: ExitStack, name: str, steps: int, noises: int) -> Screen:
    """A detector in one of its settings, until the stack closes."""
    detector = stack.enter_context(Detector.load(detector=name))
    return lambda prompts: detector.screen(prompts, steps=steps, noises=noises)


def attacks(args: argparse.Namespace) -> dict[str, Any]:
    """Each attack's name and what makes `Told` of captions and their pictures' latents."""
    model = StableDiffusion.load(embedded.MODEL)
    bank = torch.from_numpy(Bundle.open(embedded.BUNDLE).noise_bank())
    threshold = calibrations()["magnitude", 1, 4].threshold
    timestep = Bundle.open(embedded.BUNDLE).manifest.timestep
    found: dict[str, Any] = {}
    for name, edit in TEXTS.items():
        found[name] = lambda prompts, _, edit=edit: Told.text(
            model, [edit(prompt, random.Random(prompt)) for prompt in prompts]
        )

    def search(settings: Sequence[tuple[str, int, int]]) -> Any:
        def attack(prompts: list[str], _: Tensor) -> Told:
            with ExitStack() as stack:
                screens = [asked(stack, *setting) for setting in settings]
                return Told.text(model, searched(screens, prompts, random.Random(0), args.tries))

        return attack

    found[f"search over {args.tries} single edits"] = search(SETTINGS[:1])
    found["the same, asking all three detectors"] = search(SETTINGS)
    for name, change in EMBEDDINGS.items():
        found[name] = lambda prompts, _, change=change: change(model, Told.text(model, prompts))

    def white_box(attack: Any, steps: int) -> Any:
        return lambda prompts, latents: attack(
            model, Told.text(model, prompts), Target(latents, bank, timestep, threshold), steps
        )

    found["white box: embedding"] = white_box(optimised_embedding, args.steps)
    found["white box: text (PEZ)"] = white_box(pez, args.steps)
    return found


def table(report: Mapping[str, dict[str, Any]]) -> Table:
    """How many draws recite, and how many of these each detector misses."""
    columns = [" ".join(map(str, key)) for key in SETTINGS] + ["guidance"]
    missed = [f"unnoticed by {each}" for each in columns]
    found = Table("attack", "recites", *HEADER, *missed, "by all three", *HEADER)
    for name, row in report.items():
        recites, cosines = np.array(row["recites"]), row.get("sscd")
        shares = []
        for each in columns:
            count = int((recites & ~np.array(row[each])).sum())
            low, high = proportion_interval(count, len(recites))
            shares.append(f"{count} [{low:.0%}, {high:.0%}]")
        by_none = ~np.any([row[each] for each in columns[:-1]], axis=0)
        hidden = cosines and np.array(cosines)[by_none].tolist()
        whole = f"{recites.sum()} of {len(recites)}"
        unnoticed = str((recites & by_none).sum()), *cells(hidden)
        found.add_row(name, whole, *cells(cosines), *shares, *unnoticed)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--limit", type=int, default=100, help="captions that are attacked")
    parser.add_argument("--tries", type=int, default=32, help="edits that a search looks at")
    parser.add_argument("--steps", type=int, default=60, help="of attacks that use gradients")
    parser.add_argument("--white-box", type=int, default=20, help="captions for those")
    add_descriptor(parser)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    captions = [row.prompt for row in embedded.read_prompts("memorized")][: args.limit]
    known = memorised_latents()
    painter = Painter.load()
    second = SecondOpinion.load(args.descriptor, painter, embedded.memorized_pictures())
    bank = torch.from_numpy(Bundle.open(embedded.BUNDLE).noise_bank())
    report: dict[str, Any] = {}
    console = Console(width=130, stderr=True)
    for name, attack in attacks(args).items():
        parts = []
        count = min(args.white_box, args.limit) if name.startswith("white box") else args.limit
        for i in track(range(0, count, BATCH), name, console=console):
            chunk = captions[i : min(i + BATCH, count)]
            told = attack(chunk, known[i : i + len(chunk)])
            found = judge(painter, told, bank, known, second)
            parts.append({**found, "prompts": list(told.prompts)})
        merged = {key: list(chain.from_iterable(part[key] for part in parts)) for key in parts[0]}
        report[name] = merged
        (args.output / "evasion.json").write_text(json.dumps(report, indent=1) + "\n")
    Console(width=150).print(table(report))
    print(f"figures {args.output / 'evasion.json'}")


if __name__ == "__main__":
    run_main(main)
