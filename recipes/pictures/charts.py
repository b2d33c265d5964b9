"""What is drawn of stored figures: scores, thresholds, layers, stages."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mnemoscope import CalibrationFile, embedded

from .svg import BLUE, GREEN, GREY, INK, RED, Drawing

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 700, 40, 250
_HIGHEST, _BINS = 3.2, 40  # of the axis of scores


def scores() -> Drawing:
    """Scores of memorised captions and of others, and the threshold."""
    [found] = [
        each
        for each in _read("embedded-evaluation.json")["scores"]
        if (each["detector"], each["steps"], each["noises"]) == ("magnitude", 1, 4)
    ]
    threshold = _calibration().threshold
    flagged, wrong = (
        sum(score > threshold for score in found[kind]) for kind in ("positives", "negatives")
    )
    drawing = Drawing(760, 310, "Scores of memorised captions and of others")
    _histogram(drawing, [(found["negatives"], BLUE), (found["positives"], RED)])
    _threshold(drawing, threshold)
    drawing.text(150, 52, f"{len(found['negatives'])} other captions", colour=BLUE, anchor="start")
    drawing.text(470, 100, f"{len(found['positives'])} memorised", colour=RED, anchor="start")
    drawing.text(
        470,
        135,
        f"above the threshold: {flagged} of these,\nand {wrong} of the others",
        anchor="start",
    )
    return drawing


def calibration() -> Drawing:
    """Benign scores, the threshold that they set, and what a p-value is."""
    known = _calibration()
    ordered = sorted(known.scores)
    asked = 1.3
    above = len(ordered) - bisect_left(ordered, asked)
    over = sum(score > known.threshold for score in ordered)
    drawing = Drawing(760, 310, "Benign scores, the threshold, and a p-value")
    _histogram(drawing, [(ordered, GREY), ([each for each in ordered if each >= asked], BLUE)])
    _threshold(drawing, known.threshold)
    x = _x(asked)
    drawing.line((x, _BOTTOM), (x, 110), colour=BLUE)
    drawing.text(
        _LEFT + 110,
        85,
        f"a prompt scores {asked}: {above} of {len(ordered):,} benign\n"
        f"ones score as high, p = {(1 + above) / (len(ordered) + 1):.3f}",
        colour=BLUE,
        anchor="start",
    )
    drawing.text(
        _x(known.threshold) + 12,
        165,
        f"{over} of {len(ordered):,} lie above:\nfew enough to promise {known.fpr:.0%}",
        anchor="start",
    )
    return drawing


def taps() -> Drawing:
    """How well each layer tells memorised captions from others, in the order of the UNet."""
    layers = _read("embedded-taps.json")["layers"]["1 steps, 1 noises"]
    names = [name for name in layers if name != "eps (magnitude)"] + ["eps (magnitude)"]
    drawing = Drawing(760, 420, "AUC of each layer of the UNet")
    parts = {"down": GREY, "mid": GREY, "up_blocks.0": RED, "up_blocks.1": BLUE, "eps": INK}
    width = (_RIGHT - _LEFT) / len(names)
    for tick in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        y = _BOTTOM - (tick - 0.5) * 2 * (_BOTTOM - _TOP)
        drawing.line((_LEFT, y), (_RIGHT, y), colour="#ddd")
        drawing.text(_LEFT - 8, y, f"{tick:.1f}", anchor="end")
    for i, name in enumerate(names):
        auc = layers[name]["auc"]["value"]
        height = (auc - 0.5) * 2 * (_BOTTOM - _TOP)
        [colour] = [found for part, found in parts.items() if name.startswith(part)]
        x = _LEFT + width * i + 4
        drawing.bar(x, _BOTTOM - height, width - 8, height, colour)
        shown = name.replace("_blocks", "").replace("attentions", "attn").replace(" (", "\n(")
        drawing.parts.append(f'<g transform="translate({x + 12:g} {_BOTTOM + 10}) rotate(55)">')
        drawing.text(0, 4, shown.replace("\n", " "), anchor="start")
        drawing.parts.append("</g>")
    drawing.text(_LEFT, 20, "AUC of one layer by itself, first step, one noise", anchor="start")
    return drawing


def cascade() -> Drawing:
    """How many prompts each stage looks at, and what that saves."""
    rows = {each["setting"]: each for each in _read("embedded-cascade.json")}
    alone = rows["taps at 3 steps on 4 noises"]
    both = rows["taps at 3 steps on 4 noises, after taps at 1 step on 1 noise, which clears 0.8"]
    benign, memorised = both["held_out"], both["memorized"]
    drawing = Drawing(760, 250, "A cascade: a cheap stage clears most prompts")
    drawing.box(20, 75, 120, 60, f"{benign['prompts']} held-out\ncaptions")
    drawing.box(220, 75, 150, 60, "first stage:\n1 pass a prompt")
    drawing.box(470, 75, 150, 60, "second stage:\n24 passes a prompt")
    left = round(benign["prompts"] * (1 - benign["cleared"]))
    drawing.arrow((140, 105), (220, 105))
    drawing.arrow((370, 105), (470, 105))
    drawing.text(420, 90, f"{left} go on")
    drawing.arrow((295, 135), (295, 175))
    drawing.text(295, 190, f"{benign['prompts'] - left} are cleared", colour=GREEN)
    drawing.arrow((545, 135), (545, 175))
    drawing.text(545, 190, f"{benign['flagged']} flagged, the rest clean", colour=GREEN)
    drawing.text(
        380,
        30,
        f"{benign['passes']:.1f} passes a caption on average, where the second stage alone takes "
        f"{alone['held_out']['passes']:.0f};",
    )
    drawing.text(
        380,
        48,
        f"of {memorised['prompts']} memorised captions {memorised['flagged']} are flagged, "
        f"as by the second stage alone ({alone['memorized']['flagged']})",
    )
    return drawing


def _read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text("utf-8"))


def _calibration() -> Any:
    """Of the magnitude at the first step on four noises, as it ships."""
    [found] = [
        each
        for each in CalibrationFile.read(embedded.BUNDLE / "calibration.json").calibrations
        if (each.setting.backend, each.setting.detector) == ("onnxruntime", "magnitude")
        and (each.setting.steps, each.setting.noises) == (1, 4)
    ]
    return found


def _x(score: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * score / _HIGHEST


def _histogram(drawing: Drawing, groups: Sequence[tuple[Sequence[float], str]]) -> None:
    counts = [
        [sum(int(score / _HIGHEST * _BINS) == bin_ for score in values) for bin_ in range(_BINS)]
        for values, _ in groups
    ]
    tallest = max(map(max, counts))
    width = (_RIGHT - _LEFT) / _BINS
    for found, (_, colour) in zip(counts, groups, strict=True):
        for i, count in enumerate(found):
            height = (_BOTTOM - _TOP) * count / tallest
            if count:
                drawing.bar(_LEFT + width * i, _BOTTOM - height, width - 1, height, colour)
    drawing.line((_LEFT, _BOTTOM), (_RIGHT, _BOTTOM))
    for tick in range(int(_HIGHEST) + 1):
        drawing.text(_x(tick), _BOTTOM + 16, str(tick))
    drawing.text(
        (_LEFT + _RIGHT) / 2, _BOTTOM + 42, "score: magnitude at the first step, four noises"
    )


def _threshold(drawing: Drawing, threshold: float) -> None:
    x = _x(threshold)
    drawing.line((x, _BOTTOM), (x, _TOP), dashed=True)
    drawing.text(x + 6, _TOP - 8, f"threshold {threshold:.2f}", anchor="start")
