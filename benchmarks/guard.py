"""`python -m benchmarks.guard`: what a guard in a pipeline costs, catches and leaves.

On the embedded model (or with --flow on the embedded flow), with diffusers' own pipeline, every
request with a noise of its own:

- thresholds at a promise of 1 %, from the captions of the calibration split; what they flag of the
  memorised and the held-out captions, for several samplers and numbers of steps looked at;
- how many pictures of memorised captions are copies without a guard, with "block" and with
  "mitigate", by either mitigation; and how well pictures follow their captions (the embedded
  CLIP's cosine);
- the time of a guarded and an unguarded draw, in turns.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from PIL.Image import Image
from PIL.Image import new as new_image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mnemoscope import Calibration, embedded
from mnemoscope.calibration.conformal import proportion_interval
from mnemoscope.drawing.alignment import load_alignment
from mnemoscope.drawing.copy_detection import copy_similarity, load_descriptor
from mnemoscope.drawing.generate import load_pipeline
from mnemoscope.guard import (
    Decision,
    EmbeddingOptimization,
    Guard,
    MemorizationBlocked,
    StepwiseOptimization,
    calibrate_guard,
)
from mnemoscope.mitigate import Painter
from mnemoscope.prompts.printable import counted

from .running import run_main
from .second_opinion import HEADER, SecondOpinion, add_descriptor, cells

BATCH, FPR = 10, 0.01


@dataclass(frozen=True)
class Subject:
    """A model, and what is looked at on it.

    Attributes:
        model: Its folder.
        settings: Samplers, their steps, and steps looked at; pictures are drawn by the first
            sampler in its steps, once for every number that is looked at.
    """

    model: Path
    settings: tuple[tuple[Any, int, int], ...]

    @property
    def steps(self) -> int:
        """That a picture takes."""
        return self.settings[0][1]


EMBEDDED = Subject(
    embedded.MODEL,
    (
        (DDIMScheduler, 50, 1),
        (DDIMScheduler, 50, 5),
        (EulerDiscreteScheduler, 30, 1),
        (DPMSolverMultistepScheduler, 25, 1),
        (DPMSolverMultistepScheduler, 25, 3),
    ),
)
_FLOW_EULER = FlowMatchEulerDiscreteScheduler
FLOW = Subject(embedded.FLOW_MODEL, ((_FLOW_EULER, 28, 1), (_FLOW_EULER, 28, 3)))


class Seen(Exception):
    """What a policy raises that only wants to know."""


def captions(split: embedded.Split, limit: int | None) -> list[str]:
    """Of a split, evenly spread over it if there is a limit."""
    found = [row.prompt for row in embedded.read_prompts(split)]
    return found[:: max(1, len(found) // limit)][:limit] if limit else found


def look(decisions: tuple[Decision, ...]) -> list[Any]:
    raise Seen(decisions)


def request(prompts: Sequence[str], seed: int, first: int, steps: int) -> dict[str, Any]:
    """A call's arguments; every image has a noise of its own."""
    seeds = [10_000 * (seed + 1) + first + i for i in range(len(prompts))]
    generators = [torch.Generator().manual_seed(each) for each in seeds]
    return {"prompt": list(prompts), "generator": generators, "num_inference_steps": steps}


def decisions(
    pipe: Any, calibration: Calibration, prompts: Sequence[str], seeds: int, steps: int
) -> np.ndarray:
    """Whether each prompt is flagged, from each seed. [seed, prompt]"""
    rows = np.zeros((seeds, len(prompts)), bool)
    looked = calibration.setting.steps
    with Guard(pipe, calibration=calibration, policy=look, steps=looked):
        for seed in range(seeds):
            for start in range(0, len(prompts), BATCH):
                try:
                    pipe(**request(prompts[start : start + BATCH], seed, start, steps))
                except Seen as seen:
                    for each in seen.args[0]:
                        rows[seed, start + each.index] = each.memorized
    return rows


def share(flags: np.ndarray) -> dict[str, Any]:
    """Of [seed, prompt]; the interval is of the first seed, since seeds of a prompt go together."""
    low, high = proportion_interval(int(flags[0].sum()), flags.shape[1])
    return {"share": float(flags.mean()), "first_seed": float(flags[0].mean()), "ci": [low, high]}


def draw(pipe: Any, prompts: Sequence[str], first: int, steps: int) -> list[Image]:
    """A batch; black pictures if all of it is blocked."""
    try:
        found: list[Image] = pipe(**request(prompts, 0, first, steps)).images
    except MemorizationBlocked:
        side = pipe.vae.config.sample_size
        found = [new_image("RGB", (side, side))] * len(prompts)
    return found


def detection(
    pipe: Any,
    settings: Sequence[tuple[Any, int, int]],
    limit: int | None,
    benign_limit: int | None,
    seeds: int,
) -> tuple[list[dict], dict[int, Any]]:
    memorized, held_out = captions("memorized", limit), captions("held_out", limit)
    benign = captions("calibration", benign_limit)
    rows, of_own = [], {}
    original = pipe.scheduler
    for kind, steps, looked in track(settings, "settings", console=Console(stderr=True)):
        own = kind is type(original)
        pipe.scheduler = original if own else kind.from_config(original.config)
        calibration = calibrate_guard(
            pipe, benign, steps=looked, fpr=FPR, batch=20, num_inference_steps=steps
        )
        flagged = decisions(pipe, calibration, memorized, seeds, steps)
        wrong = decisions(pipe, calibration, held_out, seeds, steps)
        rows.append(
            {
                "sampler": kind.__name__.removesuffix("Scheduler"),
                "sampling_steps": steps,
                "looked_at": looked,
                "threshold": calibration.threshold,
                "memorized": share(flagged),
                "held_out": share(wrong),
            }
        )
        if own:
            of_own[looked] = calibration
    pipe.scheduler = original
    return rows, of_own


def outcomes(
    pipe: Any,
    steps: int,
    calibrations: dict[int, Any],
    limit: int | None,
    second: SecondOpinion | None,
) -> list[dict]:
    prompts = captions("memorized", limit)
    pictures = embedded.memorized_pictures()
    descriptor, alignment = load_descriptor(), load_alignment()

    def judged(name: str, images: list[Image], blocked: np.ndarray, mitigated: int) -> dict:
        shown = [i for i in range(len(images)) if not blocked[i]]
        found: dict[str, Any] = {"guard": name, "pictures": len(shown), "mitigated": mitigated}
        if shown:
            kept = [images[i] for i in shown]
            best = copy_similarity(descriptor, kept, pictures).max(1)
            found["copies"] = int((best > descriptor.copied_above).sum())
            found["similarity"] = float(best.mean())
            found["cosines"] = best.astype(np.float64).round(4).tolist()
            if second is not None:
                found["sscd"] = second.nearest(kept)
            found["alignment"] = float(alignment.score([prompts[i] for i in shown], kept).mean())
        return found

    nobody = np.zeros(len(prompts), bool)
    starts = range(0, len(prompts), BATCH)
    bare = [each for i in starts for each in draw(pipe, prompts[i : i + BATCH], i, steps)]
    learnt = StepwiseOptimization.learn(
        pipe, captions("calibration", 40), steps=2 * steps // 5, num_inference_steps=steps
    )
    mitigations = {"at the first step": EmbeddingOptimization(), "stepwise": learnt}
    rows = [judged("none", bare, nobody, 0)]
    for looked, calibration in calibrations.items():
        flagged = decisions(pipe, calibration, prompts, 1, steps)[0]
        # what is not flagged is the bare picture to the bit (tests/sdk/guard/test_guarding.py)
        rows.append(judged(f"block, {counted(looked, 'step')}", bare, flagged, 0))
        name = f"the flagged ones alone, no guard, {counted(looked, 'step')}"
        rows.append(judged(name, bare, ~flagged, 0))
        for name, mitigation in mitigations.items():
            last: list[Decision] = []
            start = time.perf_counter()
            images: list[Image] = []
            with Guard(
                pipe, calibration=calibration, policy="mitigate", mitigation=mitigation
            ) as guard:
                for i in starts:
                    images += draw(pipe, prompts[i : i + BATCH], i, steps)
                    last += guard.decisions
            seconds = time.perf_counter() - start
            blocked = np.array([each.action == "block" for each in last])
            mitigated = np.array([each.action == "mitigate" for each in last])
            count = int(mitigated.sum())
            row = judged(f"mitigate {name}, {counted(looked, 'step')}", images, blocked, count)
            rows.append(row | {"seconds": seconds})
            alone = f"the mitigated ones alone, {name}, {counted(looked, 'step')}"
            rows.append(judged(alone, images, ~mitigated, count))
    return rows


def overhead(pipe: Any, steps: int, calibrations: dict[int, Any], rounds: int) -> dict[str, Any]:
    """A whole draw of one benign caption without and with guards, in turns.

    What guards take themselves until they have decided is in their decisions. With more steps to
    look at it grows by what a step takes; the rest is taken once in a request.
    """
    prompt = embedded.read_prompts("held_out")[0].prompt
    seconds: dict[str, list[float]] = {"bare": []}
    own: dict[int, list[float]] = {looked: [] for looked in calibrations}

    def timed(name: str) -> None:
        told = request([prompt], 0, 0, steps)
        start = time.perf_counter()
        pipe(**told, output_type="latent")
        seconds.setdefault(name, []).append(time.perf_counter() - start)

    timed("bare")
    seconds["bare"].clear()
    for _ in track(range(rounds), "rounds", console=Console(stderr=True)):
        timed("bare")
        for looked, calibration in calibrations.items():
            with Guard(pipe, calibration=calibration, policy="block") as guard:
                timed("first of a guard")  # embeds the empty prompt
                timed(f"guarded, {counted(looked, 'step')}")
                own[looked].append(guard.decisions[0].seconds)
    step = float(np.median(seconds["bare"])) / steps
    found = {looked: float(np.median(each)) for looked, each in own.items()}
    fewest, most = min(found), max(found)
    report: dict[str, Any] = {"step_seconds": step, "samples": seconds, "own_samples": own}
    report["own"] = {
        looked: {
            "ratio_of_draws": _quartiles(
                seconds[f"guarded, {counted(looked, 'step')}"], seconds["bare"]
            ),
            "seconds": each,
            "share_of_a_step": each / step,
        }
        for looked, each in found.items()
    }
    if most > fewest:
        every = (found[most] - found[fewest]) / (most - fewest)
        report["every_further_step"] = {"seconds": every, "share_of_a_step": every / step}
    return report


def _quartiles(guarded: list[float], bare: list[float]) -> list[float]:
    return [float(q) for q in np.quantile(np.array(guarded) / np.array(bare), (0.5, 0.25, 0.75))]


def outcome_table(rows: Sequence[dict]) -> Table:
    """Pictures, copies of memorised ones by the stand-in and by SSCD, and alignment."""
    table = Table("guard", "pictures", "mitigated", "copies", *HEADER, "similarity", "alignment")
    for row in rows:
        copied, *others = (
            "" if (each := row.get(name)) is None else f"{each:.3g}"
            for name in ("copies", "similarity", "alignment")
        )
        counts = str(row["pictures"]), str(row["mitigated"]), copied
        table.add_row(row["guard"], *counts, *cells(row.get("sscd")), *others)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--flow", action="store_true", help="of the embedded flow")
    parser.add_argument("--settings", type=int, help="the first ones (default: all)")
    parser.add_argument("--limit", type=int, help="memorised and held-out captions (default: all)")
    parser.add_argument("--seeds", type=int, default=2)
    add_descriptor(parser)
    parser.add_argument("--benign", type=int, help="captions to calibrate on (default: all)")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    subject = FLOW if args.flow else EMBEDDED
    pipe, steps = load_pipeline(subject.model), subject.steps
    painter = Painter.load(str(subject.model))
    second = SecondOpinion.load(args.descriptor, painter, embedded.memorized_pictures())
    settings = subject.settings[: args.settings]
    rows, calibrations = detection(pipe, settings, args.limit, args.benign, args.seeds)
    report = {
        "arguments": {k: v for k, v in vars(args).items() if k not in ("output", "descriptor")},
        "threads": torch.get_num_threads(),
        "detection": rows,
        "outcomes": outcomes(pipe, steps, calibrations, args.limit, second),
        "overhead": overhead(pipe, steps, calibrations, args.rounds),
    }
    console = Console(width=120)
    table = Table("sampler", "looked at", "threshold", "memorised flagged", "held-out flagged")
    for row in rows:
        table.add_row(
            f"{row['sampler']} {row['sampling_steps']}",
            str(row["looked_at"]),
            f"{row['threshold']:.3f}",
            *(_percent(row[name]) for name in ("memorized", "held_out")),
        )
    console.print(table)
    console.print(outcome_table(report["outcomes"]))
    found = report["overhead"]
    for looked, each in found["own"].items():
        middle, low, high = each["ratio_of_draws"]
        console.print(
            f"{counted(looked, 'step')} looked at: guarded / bare draw of {steps} steps "
            f"{middle:.4f} [{low:.4f}, {high:.4f}] (quartiles); "
            f"the guard: {each['seconds'] * 1e6:.0f} us, "
            f"{each['share_of_a_step']:.2%} of a step"
        )
    if each := found.get("every_further_step"):
        console.print(
            f"every further step: {each['seconds'] * 1e6:.0f} us, {each['share_of_a_step']:.2%}"
        )
    path = args.output / ("guard-flow.json" if args.flow else "guard.json")
    path.write_text(json.dumps(report, indent=1) + "\n")
    console.print(f"figures {path}")


def _percent(row: dict[str, Any]) -> str:
    low, high = row["ci"]
    return f"{row['share']:.1%} [{low:.1%}, {high:.1%}]"


if __name__ == "__main__":
    run_main(main)
