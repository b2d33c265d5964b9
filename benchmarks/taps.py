"""`python -m benchmarks.taps`: how well features of each layer tell memorised prompts.

The embedded model, exported with every tap it has: the 100 memorised captions against the 600 seen
and held-out ones. What is learned or chosen (a layer, weights) is so on one half of the prompts and
judged on the other, both ways; intervals are 95 % bootstrap percentiles.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mnemoscope import embedded
from mnemoscope.calibration.making import learn
from mnemoscope.detectors import Fit
from mnemoscope.evaluate import Interval, auc, bootstrap, tpr_at_fpr
from mnemoscope_export import ExportOptions, StableDiffusion, export_bundle
from mnemoscope_export.torch.taps import choose
from mnemoscope_runtime import Screener
from mnemoscope_runtime.predictions import Part, Prediction

from .running import run_main

SETTINGS = ((1, 1), (1, 4), (3, 1), (3, 4), (10, 1))  # steps, noises
TIMESTEPS = (981, 941, 901, 801, 701, 601)
OUTPUT = "eps (magnitude)"
SPLITS = 20
_CHUNK = 50

Norms = NDArray[np.float64]  # [prompt, noise, step or timestep, layer], the output first
Learner = Callable[[NDArray[np.float64], NDArray[np.float64]], Fit]
Seen = Callable[[Part], Iterator[Prediction]]


def measure(screener: Screener, prompts: list[str], noises: int, look: Seen, what: str) -> Norms:
    """The magnitude and all taps of whatever predictions `look` makes of a part."""
    chunks = []
    for i in track(range(0, len(prompts), _CHUNK), what, console=Console(stderr=True)):
        rows = prompts[i : i + _CHUNK]
        found: dict[int, NDArray[np.float64]] = {}
        for part in screener.parts(rows, noises=noises):
            for k, seen in enumerate(look(part)):
                values = np.dstack([seen.magnitude, seen.taps])
                blank = np.full((len(rows), noises, values.shape[-1]), np.nan)
                found.setdefault(k, blank)[*part.where] = values
        chunks.append(np.stack(list(found.values()), 2))
    norms = np.concatenate(chunks)
    assert np.isfinite(norms).all()
    return norms


def judge(scores: NDArray[np.float64], memorized: NDArray[np.bool_]) -> dict[str, Interval]:
    """AUC and TPR@1%FPR of scores [prompt], or how two columns of them [prompt, 2] differ."""

    def of(statistic: Callable[..., float]) -> Interval:
        def compared(p: NDArray[np.float64], n: NDArray[np.float64]) -> float:
            if p.ndim == 1:
                return statistic(p, n)
            return statistic(p[:, 0], n[:, 0]) - statistic(p[:, 1], n[:, 1])

        return bootstrap(compared, scores[memorized], scores[~memorized])

    return {"auc": of(auc), "tpr_at_1_percent_fpr": of(tpr_at_fpr)}


def halves(memorized: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """One half of the memorised prompts and of the others, at random."""
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(memorized), bool)
    for kind in (True, False):
        rows = rng.permutation(np.flatnonzero(memorized == kind))
        chosen[rows[: len(rows) // 2]] = True
    return chosen


def cross_fitted(
    norms: Norms, memorized: NDArray[np.bool_], learner: Learner, seed: int
) -> tuple[NDArray[np.float64], list[Fit]]:
    """Scores of every prompt by what was learned on the other half, and both that were learned."""
    scores, half = np.empty(len(norms)), halves(memorized, seed)
    fits = []
    logs = np.log(norms)
    for known in (half, ~half):
        fit = learner(logs[known & ~memorized], logs[known & memorized])
        scores[~known] = (fit.standardized(logs[~known]) @ np.array(fit.weight)).mean((1, 2))
        fits.append(fit)
    return scores, fits


def benign_only(benign: NDArray[np.float64], _: NDArray[np.float64]) -> Fit:
    """Equal weights."""
    return learn(benign, benign[:0])


def best_layer(benign: NDArray[np.float64], positives: NDArray[np.float64]) -> Fit:
    """All weight on the layer with the best TPR@1%FPR, and of these the best AUC."""
    fit = learn(benign, benign[:0])
    n, p = (fit.standardized(part).mean((1, 2)) for part in (benign, positives))
    layers = range(benign.shape[-1])
    best = max(layers, key=lambda k: (tpr_at_fpr(p[:, k], n[:, k]), auc(p[:, k], n[:, k])))
    return Fit(fit.mean, fit.std, tuple(float(k == best) for k in layers))


def layers_table(norms: Norms, memorized: NDArray[np.bool_], names: list[str], title: str) -> dict:
    """Every layer by itself, printed and returned."""
    table = Table("layer", "AUC [95 %]", "TPR@1%FPR [95 %]", title=title)
    report = {}
    for k, name in enumerate(names):
        report[name] = judge(norms[..., k].mean((1, 2)), memorized)
        table.add_row(name, *map(str, report[name].values()))
    Console(width=110).print(table)
    return _plain(report)


def learned_table(
    norms: Norms,
    memorized: NDArray[np.bool_],
    names: list[str],
    sets: dict[str, list[int]],
    title: str,
) -> dict:
    """What is learned on one half and judged on the other, against the output alone."""
    ways: dict[str, tuple[list[int], Learner]] = {
        OUTPUT: ([0], benign_only),
        "best layer of the other half": (list(range(len(names))), best_layer),
    }
    for name, columns in sets.items():
        ways[f"taps {name}, equal weights"] = (columns, benign_only)
        ways[f"taps {name}, logistic weights"] = (columns, learn)
    table = Table("score", "AUC [95 %]", "TPR@1%FPR [95 %]", "TPR - eps's", "splits", title=title)
    report: dict[str, dict] = {}
    base, _ = cross_fitted(norms[..., :1], memorized, benign_only, seed=0)
    for name, (columns, learner) in ways.items():
        scores, _ = cross_fitted(norms[..., columns], memorized, learner, seed=0)
        difference = judge(np.stack([scores, base], 1), memorized)
        tprs, chosen = [], Counter[str]()
        for seed in range(SPLITS):
            again, fits = cross_fitted(norms[..., columns], memorized, learner, seed)
            tprs.append(tpr_at_fpr(again[memorized], again[~memorized]))
            if learner is best_layer:
                chosen.update(names[int(np.argmax(fit.weight))] for fit in fits)
        report[name] = {
            **_plain(judge(scores, memorized)),
            "difference_to_eps": _plain(difference),
            "tpr_over_splits": {"mean": np.mean(tprs), "min": min(tprs), "max": max(tprs)},
            **({"chosen": dict(chosen.most_common())} if chosen else {}),
        }
        table.add_row(
            *(name, *map(str, judge(scores, memorized).values())),
            str(difference["tpr_at_1_percent_fpr"]),
            f"{np.mean(tprs):.2f} ({min(tprs):.2f}-{max(tprs):.2f})",
        )
    Console(width=130).print(table)
    return report


def _plain(value: object) -> dict:
    found: dict = json.loads(json.dumps(value, default=lambda each: asdict(each)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--bundle", type=Path, help="the model with every tap (default: export it)")
    parser.add_argument("--limit", type=int, help="prompts of each kind (default: all)")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    model = StableDiffusion.load(embedded.MODEL)
    positives, *others = (
        [row.prompt for row in embedded.read_prompts(split)[: args.limit]]
        for split in ("memorized", "seen", "held_out")
    )
    prompts = [*positives, *others[0], *others[1]]
    memorized = np.arange(len(prompts)) < len(positives)
    with tempfile.TemporaryDirectory() as folder:
        bundle = args.bundle or Path(folder) / "bundle"
        if args.bundle is None:
            export_bundle(model, bundle, ExportOptions(taps=model.tappable()))
        with Screener.open(bundle, threads=args.threads) as screener:

            def walk(steps: int) -> Seen:
                return lambda part: screener.walk(part, screener.timesteps[:steps])

            def told(part: Part) -> Iterator[Prediction]:
                return (screener.predict(part.embeds, part.latents, t) for t in TIMESTEPS)

            names = [OUTPUT, *screener.taps]
            several = measure(screener, prompts, 4, walk(3), "3 steps, 4 noises")
            longest = measure(screener, prompts, 1, walk(10), "10 steps, 1 noise")
            shown = measure(screener, prompts, 1, told, "other timesteps")
    auto = choose(model, "auto")
    sets = {
        "of --taps auto": [names.index(name) for name in auto],
        "of up_blocks.0": [names.index(name) for name in auto if name.startswith("up_blocks.0")],
    }
    report: dict[str, dict] = {"layers": {}, "learned": {}, "timesteps": {}}
    for steps, noises in SETTINGS:
        norms = (longest if steps == 10 else several)[:, :noises, :steps]
        title = f"{steps} steps, {noises} noises"
        report["layers"][title] = layers_table(norms, memorized, names, title)
        report["learned"][title] = learned_table(norms, memorized, names, sets, title)
    for k, t in enumerate(TIMESTEPS):
        title = f"pure noise, 1 noise, the UNet told t = {t}"
        report["timesteps"][str(t)] = layers_table(shown[:, :, k : k + 1], memorized, names, title)
    path = args.output / "taps.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    Console().print(f"figures {path}")


if __name__ == "__main__":
    run_main(main)
