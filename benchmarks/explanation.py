"""`python -m benchmarks.explanation`: do explanations name the words that make a model recite?

The embedded model's memorised captions. Every word is left out by itself; how far the magnitude
falls, on noises that no attribution has seen, and how far the drawn picture departs from the
training picture, is what attributions are compared with. Then the k words that an attribution puts
first are dropped together (deletion curves), and edits that bring a caption under the threshold are
drawn. Intervals are 95 % bootstrap percentiles over captions.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import spearmanr

from mnemoscope import Detector, embedded
from mnemoscope.copies import copy_similarity, load_descriptor
from mnemoscope.evaluate import Interval
from mnemoscope.explain import (
    Edit,
    EditOptions,
    Explainer,
    Explanation,
    Vocabulary,
    find_edits,
    load_attribution,
    load_model,
)
from mnemoscope.explain.words import edited
from mnemoscope.generate import load_pipeline
from mnemoscope_export import StableDiffusion, magnitude_of, noise_bank, unconditional

WAYS = {  # method, steps, noises
    "gradient": ("gradient", 1, 4),
    "gradient, 10 steps": ("gradient", 10, 1),
    "gradient-output": ("gradient-output", 1, 4),
    "gradient-output, 10 steps": ("gradient-output", 10, 1),
    "occlusion": ("occlusion", 1, 4),
}
DELETED = ("gradient", "gradient-output", "occlusion")
KS = (1, 2, 3)
FRESH = 1000  # seed of noises that no attribution sees
BATCH = 20

Values = NDArray[np.float64]


def without(explanation: Explanation, indices: Sequence[int]) -> str:
    """The caption less some of its words."""
    return edited(explanation.prompt, {explanation.words[i].span: "" for i in indices})


@torch.no_grad()
def measure(model: StableDiffusion, texts: Sequence[str]) -> dict[str, float]:
    """Mean magnitude at the first step on four fresh noises."""
    noises = noise_bank(4, model.latent_shape, seed=FRESH)
    sampler = model.sampler()
    sampler.set_timesteps(50)
    t = int(sampler.timesteps[0])
    eps_uncond = unconditional(model, noises, t)
    found = {}
    for text in track(list(dict.fromkeys(texts)), "magnitudes", console=Console(stderr=True)):
        embeds = tuple(each.expand(4, *each.shape[1:]) for each in model.embed([text]))
        found[text] = float(magnitude_of(model, embeds, noises, t, eps_uncond).mean())
    return found


class Drawings:
    """Copy similarity of what is drawn for a text with a training picture, each drawn once."""

    def __init__(self, seed: int) -> None:
        self.known: dict[tuple[str, int], float] = {}
        self._seed = seed
        self._pipeline = load_pipeline()
        self._descriptor = load_descriptor()
        self._own = embedded.memorized_pictures()
        self.copied_above = self._descriptor.copied_above

    def draw(self, wanted: Sequence[tuple[str, int]]) -> None:
        """Texts, each with the number of its caption."""
        new = [each for each in dict.fromkeys(wanted) if each not in self.known]
        for i in track(range(0, len(new), BATCH), "drawing", console=Console(stderr=True)):
            part = new[i : i + BATCH]
            images = self._pipeline(
                [text for text, _ in part],
                num_inference_steps=50,
                guidance_scale=7.5,
                generator=[torch.Generator().manual_seed(self._seed) for _ in part],
            ).images
            pictures = [self._own[row] for _, row in part]
            cosines = copy_similarity(self._descriptor, images, pictures).diagonal()
            self.known |= dict(zip(part, cosines.tolist(), strict=True))

    def __getitem__(self, key: tuple[str, int]) -> float:
        return self.known[key]


def interval(values: Sequence[float] | Values) -> Interval:
    """The mean over captions."""
    known = np.asarray(values, np.float64)
    rng = np.random.default_rng(0)
    means = known[rng.integers(0, len(known), (2000, len(known)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(known.mean()), float(low), float(high))


def agreement(scores: list[Values], drops: list[Values]) -> dict[str, Interval]:
    """How an attribution's order of a caption's words compares with what leaving them out does."""
    pairs = list(zip(scores, drops, strict=True))
    tops = [d[s.argmax()] for s, d in pairs]
    return {
        "spearman": interval([spearmanr(s, d).statistic for s, d in pairs]),
        "top_word_is_the_best": interval([float(s.argmax() == d.argmax()) for s, d in pairs]),
        "drop_of_top_word": interval(tops),
    }


def curve(
    texts: list[list[str]], rows: Sequence[int], measured: Callable[[str, int], float]
) -> Interval:
    """Mean over captions of the mean over a caption's texts."""
    return interval([float(np.mean([measured(text, row) for text in texts[row]])) for row in rows])


def edit_report(
    detector: Detector,
    captions: Sequence[str],
    drawings: Drawings,
    model: StableDiffusion,
    options: EditOptions,
) -> dict[str, Any]:
    """How often an edit is found, how large it is, and what is drawn for the best of them."""
    found = [
        find_edits(detector, caption, options)
        for caption in track(captions, "edits", console=Console(stderr=True))
    ]
    flagged = [row for row, each in enumerate(found) if each.needed]
    first = {row: found[row].found[0] for row in flagged if found[row].found}
    lowest = {row: min(found[row].found, key=lambda edit: edit.score) for row in first}
    drawings.draw([(e.prompt, row) for edits in (first, lowest) for row, e in edits.items()])
    copied = [row for row in first if drawings[captions[row], row] > drawings.copied_above]
    values = measure(model, [edit.prompt for edit in first.values()])
    sizes = [len(edit.changes) for edit in first.values()]

    def drawn(edits: dict[int, Edit]) -> dict[str, Interval]:
        after = [drawings[edits[row].prompt, row] for row in copied]
        return {
            "no_copy": interval([float(each <= drawings.copied_above) for each in after]),
            "similarity": interval(after),
        }

    return {
        "target": found[0].target,
        "flagged": len(flagged),
        "found": len(first),
        "proven_smallest": sum(found[row].smallest for row in first),
        "changes": {str(k): sizes.count(k) for k in sorted(set(sizes))},
        "kept": interval([edit.kept for edit in first.values()]),
        "tried": interval([float(found[row].tried) for row in flagged]),
        "under_target_on_fresh_noises": interval(
            [float(values[edit.prompt] <= found[row].target) for row, edit in first.items()]
        ),
        "copied_before": len(copied),
        "drawn_for_the_first": drawn(first),
        "drawn_for_the_lowest_score": drawn(lowest),
        "edits": [
            {
                "prompt": captions[row],
                "first": first[row].as_json(),
                "similarity": drawings[first[row].prompt, row],
            }
            for row in copied
        ],
    }


def plain(value: Any) -> Any:
    """Intervals as dictionaries."""
    if isinstance(value, Interval):
        return asdict(value)
    return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--limit", type=int, help="captions (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    captions = [row.prompt for row in embedded.read_prompts("memorized")[: args.limit]]
    model, detector = load_model(), Detector.load(threads=args.threads)
    vocabulary = Vocabulary(r.prompt for r in embedded.read_prompts("seen", "held_out"))
    drawings = Drawings(args.seed)

    explained: dict[str, list[Explanation]] = {}
    for name, (method, steps, noises) in WAYS.items():
        explainer = Explainer(detector, load_attribution(method, model))
        explained[name] = [
            explainer.explain(caption, steps=steps, noises=noises)
            for caption in track(captions, name, console=Console(stderr=True))
        ]
    weights = {
        name: [np.array([word.score for word in each.words]) for each in rows]
        for name, rows in explained.items()
    }
    rows = explained["occlusion"]
    alone = [[without(each, [i]) for i in range(len(each.words))] for each in rows]
    rng = np.random.default_rng(0)
    orders: dict[str, list[list[int]]] = {
        name: [np.argsort(-each, kind="stable").tolist() for each in weights[name]]
        for name in DELETED
    }
    orders["random words"] = [rng.permutation(len(each)).tolist() for each in alone]
    deleted: dict[tuple[str, int], list[list[str]]] = {
        (name, k): [[without(each, o[:k])] for each, o in zip(rows, order, strict=True)]
        for name, order in orders.items()
        for k in KS
    }
    deleted["random words", 1] = alone  # the mean over all of them is what is to be expected
    long = [row for row, each in enumerate(alone) if len(each) > max(KS)]  # something is left

    texts = [*captions, *(t for group in itertools.chain(alone, *deleted.values()) for t in group)]
    magnitudes = measure(model, texts)

    wanted = [(caption, row) for row, caption in enumerate(captions)]
    for groups in (*deleted.values(), alone):
        wanted += [(text, row) for row, group in enumerate(groups) for text in group]
    drawings.draw(wanted)
    drops = [
        np.array([magnitudes[caption] - magnitudes[text] for text in group])
        for caption, group in zip(captions, alone, strict=True)
    ]
    departures = [
        np.array([drawings[caption, row] - drawings[text, row] for text in group])
        for row, (caption, group) in enumerate(zip(captions, alone, strict=True))
    ]

    console = Console(width=120)
    report: dict[str, Any] = {"captions": len(captions), "seed": args.seed, "agreement": {}}
    for what, truth in (("magnitude", drops), ("copy similarity", departures)):
        # a caption whose words all do nothing has no order to agree with
        usable = [row for row, each in enumerate(truth) if np.ptp(each) > 0]
        table = Table(
            *("attribution", "Spearman [95 %]", "top word is the best", "drop of top word"),
            title=f"against leaving each word out: {what}, {len(usable)} captions",
        )
        found = {}
        chosen = [truth[row] for row in usable]
        for name, each in weights.items():
            found[name] = agreement([each[row] for row in usable], chosen)
            table.add_row(name, *map(str, found[name].values()))
        found["any word"] = {
            "top_word_is_the_best": interval([1 / len(each) for each in chosen]),
            "drop_of_top_word": interval([each.mean() for each in chosen]),
        }
        found["best word"] = {"drop_of_top_word": interval([each.max() for each in chosen])}
        any_word = found["any word"]
        table.add_row("any word", "", *map(str, any_word.values()))
        table.add_row("best word", "", "", str(found["best word"]["drop_of_top_word"]))
        report["agreement"][what] = found
        console.print(table)

    header = ("words dropped", "k", "magnitude", "copy similarity", "still a copy")
    table = Table(*header, title=f"{len(long)} captions of more than {max(KS)} words")
    report["deletion"] = {"captions": len(long)}
    measured: dict[str, Callable[[str, int], float]] = {
        "magnitude": lambda text, _: magnitudes[text],
        "similarity": lambda text, row: drawings[text, row],
        "still_a_copy": lambda text, row: float(drawings[text, row] > drawings.copied_above),
    }
    none = [[caption] for caption in captions]
    for (name, k), groups in {("none", 0): none, **deleted}.items():
        found = {what: curve(groups, long, each) for what, each in measured.items()}
        report["deletion"].setdefault(name, {})[str(k)] = found
        table.add_row(name, str(k), *map(str, found.values()))
    console.print(table)

    assert detector.calibration is not None
    calibration = detector.calibration.find(detector.setting())
    assert calibration is not None
    ways = {
        "dropping": EditOptions(),
        "dropping or replacing": EditOptions(alternatives=vocabulary),
        "dropping, under the benign median": EditOptions(
            target=float(np.median(calibration.ordered))
        ),
    }
    edits = {
        name: edit_report(detector, captions, drawings, model, options)
        for name, options in ways.items()
    }
    report["edits"] = edits
    table = Table("edits", *edits)
    for key in edits["dropping"]:
        if key.startswith("drawn"):
            for what in ("no_copy", "similarity"):
                label = f"{key.replace('_', ' ')}: {what.replace('_', ' ')}"
                table.add_row(label, *(str(way[key][what]) for way in edits.values()))
        elif key != "edits":
            table.add_row(key.replace("_", " "), *(str(way[key]) for way in edits.values()))
    console.print(table)
    path = args.output / "explanation.json"
    path.write_text(json.dumps(plain(report), indent=1, ensure_ascii=False) + "\n")
    console.print(f"figures {path}")


if __name__ == "__main__":
    main()
