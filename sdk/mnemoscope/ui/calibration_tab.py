"""The tab for calibrations: what they promise, and what another threshold would cost."""

from __future__ import annotations

import math

import gradio as gr

from mnemoscope_runtime import MnemoscopeError

from ..calibration import Calibration
from ..calibration.moving import move
from ..calibration.remedies import calibrates
from ..calibration.wording import describe
from .asking import EVENT, REFUSED, sentence
from .desk import Desk
from .histogram import span
from .showing import calibration_card, cost_card, note_card
from .wording import setting_words

__all__ = ["calibration_tab"]


def calibration_tab(desk: Desk) -> None:
    """Build the tab, in the page that is being built."""
    known = {} if desk.calibration is None else _named(desk.calibration.calibrations)
    if not known:
        gr.HTML(
            note_card(
                "This bundle has no calibration, so there are scores and no verdicts. "
                + calibrates(desk.bundle.path)
            )
        )
        return
    used = desk.calibrated(desk.first)
    name = next(iter(known)) if used is None else setting_words(used.setting)
    first = known[name]
    chosen = gr.Dropdown(
        list(known), value=name, label="Way of measuring", filterable=False, elem_id="calibrated"
    )
    drawing = gr.HTML(calibration_card(first), elem_id="histogram")
    threshold = gr.Slider(
        **_slider(first),
        label="Threshold",
        info="Moving it shows what it would cost. Nothing that screens changes.",
        elem_id="threshold",
    )
    wanted = gr.Number(visible=False)  # the slider raises beyond its ends, and says nothing
    cost = gr.HTML(_cost(first, first.threshold), elem_id="cost")
    promise = gr.HTML(_promise(first), elem_id="promise")

    def choose(name: str) -> tuple[str, gr.Slider, str, str]:
        calibration = known[name]
        return (
            calibration_card(calibration),
            gr.Slider(**_slider(calibration)),
            _cost(calibration, calibration.threshold),
            _promise(calibration),
        )

    def moved(name: str, threshold: float) -> tuple[str, str]:
        calibration = known[name]
        slider = _slider(calibration)
        if not slider["minimum"] <= threshold <= slider["maximum"]:
            between = f"between {slider['minimum']:g} and {slider['maximum']:g}"
            said = f"Thresholds to try lie {between}, where the scores are. Give one of these."
            return calibration_card(calibration), note_card(said, title=REFUSED, wrong=True)
        return calibration_card(calibration, threshold), _cost(calibration, threshold)

    chosen.input(choose, chosen, [drawing, threshold, cost, promise], **EVENT)
    threshold.input(None, threshold, wanted, js="(threshold) => threshold", **EVENT).then(
        moved, [chosen, wanted], [drawing, cost], trigger_mode="always_last", **EVENT
    )


def _named(calibrations: tuple[Calibration, ...]) -> dict[str, Calibration]:
    """By what tells the settings of one bundle apart."""
    return {setting_words(each.setting): each for each in calibrations}


def _slider(calibration: Calibration) -> dict[str, float]:
    """From the lowest to the highest score, in round numbers."""
    low, high = span(calibration)
    digits = 3 - math.floor(math.log10(high - low))
    step = 10.0**-digits
    return {
        "minimum": round(low, digits),
        "maximum": round(high, digits),
        "step": step,
        "value": round(calibration.threshold, digits),
    }


def _cost(calibration: Calibration, threshold: float) -> str:
    try:
        return cost_card(move(calibration, threshold), 1 - calibration.delta)
    except MnemoscopeError as error:
        return sentence(error)


def _promise(calibration: Calibration) -> str:
    return note_card(describe(calibration), title="What is promised")
