"""`python -m benchmarks.embedded_flow`: what shows memorisation in the embedded flow.

The 100 memorised captions against the 600 seen and held-out ones: the prediction at the first step,
told other noise levels, over more steps, and both streams of every joint block. The block is chosen
on one half of the prompts and judged on the other; intervals are 95 % bootstrap percentiles. With
--student, what shows it in a student that is told the guidance, as FLUX.1-dev is.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import SD3Transformer2DModel
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from mnemoscope import embedded
from mnemoscope.evaluate import auc, bootstrap, tpr_at_fpr
from mnemoscope_export import noise_bank
from recipes.embedded_flow.pack import Trained, read_trained
from recipes.embedded_flow.student import read_student
from recipes.embedded_flow.student import tell as tell_student
from recipes.embedded_flow.told import Told
from recipes.embedded_flow.transformer import new_scheduler, without_t5

from .running import run_main

LEVELS = (1.0, 0.95, 0.9, 0.8, 0.6, 0.4, 0.2)
STEPS, OF, GUIDANCE = (1, 3, 10), 28, 7.0
TOLD = 3.5  # guidance that a student is told: FLUX.1-dev's default
NOISES = (1, 4)
SPLITS = 20
_CHUNK = 25

Scores = NDArray[np.float64]  # [prompt, noise]


@contextmanager
def watched(network: SD3Transformer2DModel) -> Iterator[dict[str, Tensor]]:
    """What the blocks return, by stream and number, of the last run."""
    found: dict[str, Tensor] = {}

    def keep(number: int, output: tuple[Tensor | None, Tensor]) -> None:
        for stream, value in zip(("text", "image"), output, strict=True):
            if value is not None:
                found[f"{stream} stream after block {number}"] = value

    with ExitStack() as hooks:
        for number, block in enumerate(network.transformer_blocks):
            hook = block.register_forward_hook(
                lambda _, __, output, number=number: keep(number, output)
            )
            hooks.callback(hook.remove)
        yield found


@torch.no_grad()
def first_step(trained: Trained, told: Told, noise: Tensor, level: float) -> dict[str, Tensor]:
    """||f(x_T, s, prompt) - f(x_T, s, empty)|| of the velocity, and at s = 1 of every stream.

    Args:
        trained: The model.
        told: Of n prompts.
        noise: # [1, C, H, W]
        level: s, which the transformer is told; the noise is pure whatever it is told.

    Returns:
        By name. # [n] each
    """
    n = len(told.pooled)
    with watched(trained.network) as streams:

        def run(of: Told) -> dict[str, Tensor]:
            count = len(of.pooled)
            x, time = noise.expand(count, -1, -1, -1), torch.full((count,), 1000 * level)
            velocity = trained.network(x, of.states.float(), of.pooled.float(), time).sample
            return {"velocity": velocity, **(streams if level == 1 else {})}

        empty, own = run(trained.empty), run(told)
    return {name: (own[name] - empty[name]).reshape(n, -1).norm(dim=1) for name in own}


@torch.no_grad()
def along(trained: Trained, told: Told, noise: Tensor, steps: int) -> Tensor:
    """||x0(prompt) - x0(empty)|| at the first of 28 guided steps. # [n, step]"""
    scheduler = new_scheduler()
    scheduler.set_timesteps(OF)
    n = len(told.pooled)
    states = torch.cat([trained.empty.states.expand_as(told.states), told.states]).float()
    pooled = torch.cat([trained.empty.pooled.expand_as(told.pooled), told.pooled]).float()
    x, found = noise.expand(n, -1, -1, -1), []
    for t in scheduler.timesteps[:steps]:
        v = trained.network(torch.cat([x, x]), states, pooled, t.expand(2 * n)).sample
        unconditional, conditional = v.chunk(2)
        difference = conditional - unconditional
        found.append((t / 1000 * difference).flatten(1).norm(dim=1))
        x = scheduler.step(unconditional + GUIDANCE * difference, t, x, return_dict=False)[0]
    return torch.stack(found, 1)


@torch.no_grad()
def in_a_student(
    student: SD3Transformer2DModel, told: Told, empty: Told, noise: Tensor, level: float
) -> dict[str, Tensor]:
    """Of a student's velocity, prompt against empty prompt; and guidances, of the prompt alone.

    Args:
        student: Of `read_student`.
        told: Of n prompts.
        empty: Of the empty prompt, which it was not taught.
        noise: # [1, C, H, W]
        level: s, which it is told.

    Returns:
        By name. # [n] each
    """

    def velocity(of: Told, guidance: float) -> Tensor:
        n = len(of.pooled)
        own = tell_student(of, torch.full((n,), guidance))
        x, time = noise.expand(n, -1, -1, -1), torch.full((n,), 1000 * level)
        found: Tensor = student(x, own.states, own.pooled, time).sample
        return found.flatten(1)

    guided = velocity(told, TOLD)
    return {
        f"a student's, guidance {TOLD}": (guided - velocity(empty, TOLD)).norm(dim=1),
        f"a student's, guidance {TOLD} against 1": (guided - velocity(told, 1.0)).norm(dim=1),
    }


def measured(
    trained: Trained,
    prompts: Sequence[str],
    noises: Tensor,
    student: SD3Transformer2DModel | None = None,
) -> dict[str, Scores]:
    """Every score of every prompt."""
    parts: dict[str, list[list[Tensor]]] = {}
    chunks = [prompts[i : i + _CHUNK] for i in range(0, len(prompts), _CHUNK)]
    for chunk in track(chunks, console=Console(stderr=True)):
        told, found = trained.tell(chunk), {}
        for noise in noises.split(1):
            for level in LEVELS:
                scores = first_step(trained, told, noise, level)
                if student is not None:
                    scores |= in_a_student(student, told, trained.empty, noise, level)
                for name, value in scores.items():
                    key = name if level == 1 else f"{name}, told s = {level}"
                    found.setdefault(key, []).append(value)
            path = along(trained, told, noise, max(STEPS))
            for steps in STEPS[1:]:
                key = f"mean of the first {steps} of {OF} steps, x0 units"
                found.setdefault(key, []).append(path[:, :steps].mean(1))
        for key, value in found.items():
            parts.setdefault(key, []).append(value)
    return {
        key: torch.cat([torch.stack(each, 1) for each in value]).double().numpy()
        for key, value in parts.items()
    }


def chosen_on_half(scores: dict[str, tuple[Scores, Scores]]) -> tuple[float, Counter[str]]:
    """AUC of the block that is best on one half of the prompts, on the other; which it was."""
    rng, found, chosen = np.random.default_rng(0), [], Counter[str]()
    sizes = [len(each) for each in next(iter(scores.values()))]
    for _ in range(SPLITS):
        halves = [rng.permutation(size) for size in sizes]
        for side in (0, 1):
            rows = [half[side::2] for half in halves]
            others = [half[1 - side :: 2] for half in halves]

            def judged(name: str, at: list[NDArray[np.int64]]) -> float:
                return auc(*(each[i, 0] for each, i in zip(scores[name], at, strict=True)))

            best = max(scores, key=lambda name: judged(name, rows))
            chosen[best] += 1
            found.append(judged(best, others))
    return float(np.mean(found)), chosen


def captions(limit: int | None) -> dict[str, list[str]]:
    """The memorised ones and the others that ship, so many of each at most."""
    return {
        split: [row.prompt for row in embedded.read_prompts(split)[:limit]]
        for split in ("memorized", "seen", "held_out")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=embedded.FLOW_MODEL)
    parser.add_argument("--student", type=Path, help="weights that the recipe's stage of it made")
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--limit", type=int, help="prompts of each kind (default: all)")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    trained = read_trained(args.model)
    texts = captions(args.limit)
    student = args.student and without_t5(read_student(args.student, trained.empty))
    noises = noise_bank(max(NOISES), trained.latent_shape, seed=0)
    found = {split: measured(trained, each, noises, student) for split, each in texts.items()}
    scores = {
        name: (own, np.concatenate([found[split][name] for split in ("seen", "held_out")]))
        for name, own in found["memorized"].items()
    }
    report: list[dict[str, Any]] = []
    table = Table("score", *(f"AUC, {n} noise{'s' * (n > 1)} | TPR@1%FPR" for n in NOISES))
    for name, pair in scores.items():
        cells = []
        for n in NOISES:
            positives, negatives = (each[:, :n].mean(1) for each in pair)
            judged = {
                "auc": bootstrap(auc, positives, negatives),
                "tpr": bootstrap(tpr_at_fpr, positives, negatives),
            }
            report.append({"score": name, "noises": n, **{k: asdict(v) for k, v in judged.items()}})
            cells.append(" | ".join(map(str, judged.values())))
        table.add_row(name, *cells)
    blocks = {name: pair for name, pair in scores.items() if name.startswith("image stream")}
    value, chosen = chosen_on_half(blocks)
    Console().print(table)
    print(f"the block chosen on one half, judged on the other: AUC {value:.3f}, {dict(chosen)}")
    file = args.output / "embedded-flow.json"
    summary = {"chosen_on_half": {"auc": value, "chosen": dict(chosen)}, "rows": report}
    file.write_text(json.dumps(summary, indent=1) + "\n")
    print(f"raw figures {file}")


if __name__ == "__main__":
    run_main(main)
