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
from collections.abc import Callable, Iterator, Sequence
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
from mnemoscope.drawing.copy_detection import copy_similarity, load_descriptor
from mnemoscope.drawing.generate import load_pipeline
from mnemoscope.evaluate import Interval, mean_interval
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
from mnemoscope_export import noise_bank
from mnemoscope_runtime import Part, Screener

from .running import run_main

WAYS = {  # method, steps, noises
    "gradient": ("gradient", 1, 4),
    "gradient, 10 steps": ("gradient", 10, 1),
    "gradient-output": ("gradient-output", 1, 4),
    "gradient-output, 10 steps": ("gradient-output", 10, 1),
    "occlusion": ("occlusion", 1, 4),
}
DELETED = ("gradient", "gradient-output", "occlusion")
KS = (1, 2, 3)
BATCH = 16
MOST = 1000  # edits to choose from

Values = NDArray[np.float64]


def without(explanation: Explanation, indices: Sequence[int]) -> str:
    """The caption less some of its words."""
    return edited(explanation.prompt, {explanation.words[i].span: "" for i in indices})


class Looks:
    """The magnitude of texts, and copy similarity of what is drawn for them, each found once.

    The bundle's step graph does the denoising; the noises are none of the bank's.
    """

    def __init__(self, screener: Screener, seed: int) -> None:
        shape = screener.bundle.manifest.noise_bank.shape[1:]
        self._noises = noise_bank(4, (shape[0], shape[1], shape[2]), seed=seed).numpy()
        self._screener = screener
        self._pipeline = load_pipeline()
        self._descriptor = load_descriptor()
        self._own = embedded.memorized_pictures()
        self._magnitudes: dict[str, float] = {}
        self._similarities: dict[tuple[str, int], float] = {}
        self.copied_above = self._descriptor.copied_above

    def _part_of(self, texts: Sequence[str], noises: int) -> Part:
        latents = np.stack([self._noises[:noises]] * len(texts))
        where = (slice(0, len(texts)), slice(0, noises))
        return Part(where, self._screener.embed(list(texts)), latents)

    def magnitudes(self, texts: Sequence[str]) -> list[float]:
        """At the first step, mean over four noises."""
        new = [text for text in dict.fromkeys(texts) if text not in self._magnitudes]
        for part in _batches(new, "magnitudes", BATCH // 4):
            piece = self._part_of(part, 4)
            found = self._screener.predict(piece.embeds, piece.latents, self._screener.timesteps[0])
            means = found.magnitude.mean(1).tolist()
            self._magnitudes |= dict(zip(part, means, strict=True))
        return [self._magnitudes[text] for text in texts]

    @torch.no_grad()
    def similarities(self, wanted: Sequence[tuple[str, int]]) -> list[float]:
        """Of what one noise becomes for texts with the training pictures of numbered captions."""
        new = [each for each in dict.fromkeys(wanted) if each not in self._similarities]
        for part in _batches(new, "drawing", BATCH):
            *_, last = self._screener.walk(
                self._part_of([text for text, _ in part], 1), self._screener.timesteps
            )
            latents = torch.from_numpy(self._screener.advance(last)[:, 0].astype(np.float32))
            vae = self._pipeline.vae
            pixels = vae.decode(latents / vae.config.scaling_factor).sample
            images = self._pipeline.image_processor.postprocess(pixels, output_type="pil")
            pictures = [self._own[row] for _, row in part]
            cosines = copy_similarity(self._descriptor, images, pictures).diagonal()
            self._similarities |= dict(zip(part, cosines.tolist(), strict=True))
        return [self._similarities[each] for each in wanted]


def _batches(items: Sequence[Any], what: str, size: int) -> Iterator[Any]:
    starts = track(range(0, len(items), size), what, console=Console(stderr=True))
    return (items[i : i + size] for i in starts)


def interval(values: Sequence[float] | Values) -> Interval:
    """The mean over captions."""
    return mean_interval(np.asarray(values, np.float64), 2000)


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
    texts: list[list[str]], rows: Sequence[int], look: Callable[[list[str], int], list[float]]
) -> Interval:
    """Mean over captions of the mean over a caption's texts."""
    return interval([float(np.mean(look(texts[row], row))) for row in rows])


def edit_report(
    detector: Detector,
    captions: Sequence[str],
    looks: Looks,
    options: EditOptions,
) -> dict[str, Any]:
    """How often an edit is found, how large it is, and what is drawn for the best of them."""
    found = [
        find_edits(detector, caption, options)
        for caption in track(captions, "edits", console=Console(stderr=True))
    ]
    flagged = [row for row, each in enumerate(found) if each.needed]
    first = {row: found[row].found[0] for row in flagged if found[row].found}
    fullest = {row: max(found[row].found, key=lambda edit: edit.kept) for row in first}
    lowest = {row: min(found[row].found, key=lambda edit: edit.score) for row in first}
    before = dict(zip(first, looks.similarities([(captions[r], r) for r in first]), strict=True))
    copied = [row for row in first if before[row] > looks.copied_above]
    values = looks.magnitudes([edit.prompt for edit in first.values()])
    sizes = [len(edit.changes) for edit in first.values()]

    def drawn(edits: dict[int, Edit]) -> dict[str, Interval]:
        after = looks.similarities([(edits[row].prompt, row) for row in copied])
        return {
            "no_copy": interval([float(each <= looks.copied_above) for each in after]),
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
            [float(v <= found[row].target) for row, v in zip(first, values, strict=True)]
        ),
        "copied_before": len(copied),
        "drawn_for_the_first": drawn(first),
        "drawn_for_the_one_that_keeps_most": drawn(fullest),
        "drawn_for_the_lowest_score": drawn(lowest),
        "edits": [
            {
                "prompt": captions[row],
                "first": first[row].as_json(),
                "similarity": looks.similarities([(first[row].prompt, row)])[0],
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
    parser.add_argument(
        "--seed", type=int, default=1000, help="of the noises that no attribution sees"
    )
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    captions = [row.prompt for row in embedded.read_prompts("memorized")[: args.limit]]
    model, detector = load_model(), Detector.load(threads=args.threads)
    vocabulary = Vocabulary(r.prompt for r in embedded.read_prompts("seen", "held_out"))
    looks = Looks(detector.screener, args.seed)

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

    groups = [alone, *deleted.values()]
    looks.magnitudes([*captions, *(t for group in itertools.chain(*groups) for t in group)])
    looks.similarities(
        [(caption, row) for row, caption in enumerate(captions)]
        + [(t, row) for each in groups for row, group in enumerate(each) for t in group]
    )

    def magnitudes(texts: list[str], _: int) -> list[float]:
        return looks.magnitudes(texts)

    def similarities(texts: list[str], row: int) -> list[float]:
        return looks.similarities([(text, row) for text in texts])

    def copies(texts: list[str], row: int) -> list[float]:
        return [float(each > looks.copied_above) for each in similarities(texts, row)]

    def drops(look: Callable[[list[str], int], list[float]]) -> list[Values]:
        """What leaving each word out takes from a caption."""
        return [
            np.array(look([caption], row)) - np.array(look(texts, row))
            for row, (caption, texts) in enumerate(zip(captions, alone, strict=True))
        ]

    console = Console(width=120)
    report: dict[str, Any] = {"captions": len(captions), "seed": args.seed, "agreement": {}}
    for what, look in (("magnitude", magnitudes), ("copy similarity", similarities)):
        truth = drops(look)
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
    measured = {"magnitude": magnitudes, "similarity": similarities, "still_a_copy": copies}
    none = [[caption] for caption in captions]
    for (name, k), texts in {("none", 0): none, **deleted}.items():
        found = {what: curve(texts, long, each) for what, each in measured.items()}
        report["deletion"].setdefault(name, {})[str(k)] = found
        table.add_row(name, str(k), *map(str, found.values()))
    console.print(table)

    assert detector.calibration is not None
    calibration = detector.calibration.find(detector.setting())
    assert calibration is not None
    ways = {
        "dropping": EditOptions(most=MOST),
        "dropping or replacing": EditOptions(alternatives=vocabulary, most=MOST),
        "dropping, under the benign median": EditOptions(
            target=float(np.median(calibration.ordered)), most=MOST
        ),
    }
    edits = {
        name: edit_report(detector, captions, looks, options) for name, options in ways.items()
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
    run_main(main)
