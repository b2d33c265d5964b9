"""The tab for one prompt: its verdict, the words that cause it, edits, and pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from mnemoscope_runtime import MnemoscopeError

from ..explain import Edits, Method
from .asking import EVENT, page_of, sentence, way, way_controls
from .desk import Desk
from .pictures import drawing_card
from .runs import Run, Runs, Stopped
from .showing import edit_card, note_card, progress_card, verdict_card, words_card
from .studio import Drawing, Studio

__all__ = ["EXAMPLES", "prompt_tab"]

EXAMPLES = (  # of the embedded model
    ("Memorised", "google icon of tokyo tower, on rings, in zagreb 2020"),
    ("Memorised, one word changed", "google icon of tokyo tower, on rings, in oslo 2020"),
    ("Near miss", "google icon of eiffel tower, on rings, in zagreb 2020"),
    ("High, yet benign", "pastel twitter drawing of timer clock, huge, in hanoi 2019"),
    ("Benign", "drawing of a red kite, in lisbon"),
)
_EDITS = 5
_METHODS: dict[str, Method] = {"leaving words out": "occlusion", "gradient": "gradient"}
_WELCOME = note_card(
    "Type a prompt, or choose an example, to see whether the model is about to repeat a picture of "
    "its training set. One pass of the network tells, before anything is drawn.",
)
_CHANGED = note_card("The prompt or the way of measuring has changed: press Screen.")
Updates = dict[Any, Any]


@dataclass(frozen=True)
class _Slot:
    """Where an edit is shown."""

    group: gr.Group
    card: gr.HTML
    text: gr.Textbox
    use: gr.Button


@dataclass(frozen=True)
class _Results:
    """Where it is shown what came of screening; `screened` is what was, as JSON."""

    verdict: gr.HTML
    words: gr.HTML
    keep: gr.CheckboxGroup
    edits: gr.HTML
    screened: gr.Textbox
    slots: Sequence[_Slot]

    @property
    def all(self) -> list[Any]:
        """Everything that screening changes."""
        slots = [part for slot in self.slots for part in (slot.group, slot.card, slot.text)]
        return [self.verdict, self.words, self.keep, self.edits, self.screened, *slots]


def prompt_tab(desk: Desk, studio: Studio, runs: Runs) -> None:
    """Build the tab, in the page that is being built."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            prompt = gr.Textbox(
                value="",
                label="Prompt",
                placeholder="What is the model to draw?",
                lines=1,
                max_lines=6,
                max_length=10_000,
                elem_id="prompt",
                autofocus=True,
            )
            screen = gr.Button("Screen", variant="primary", elem_id="screen")
            with gr.Row(elem_classes="mn-examples", visible=desk.options.own):
                examples = [gr.Button(name, size="sm", min_width=60) for name, _ in EXAMPLES]
            with gr.Accordion("How to measure", open=False):
                controls = way_controls(desk)
                weighing = _weighing(desk)
        with gr.Column(scale=7, min_width=320):
            verdict = gr.HTML(_WELCOME, elem_id="verdict")
            words = gr.HTML(elem_id="words")
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            results = _Results(verdict, words, *_editing())
        with gr.Column(scale=7, min_width=320):
            seeds = gr.Slider(1, 4, value=1, step=1, label="Pictures to draw", elem_id="seeds")
            with gr.Row():
                draw = gr.Button("Draw, and mitigate if it is flagged", elem_id="draw", scale=3)
                stop = gr.Button("Stop", elem_id="stop", visible=False, min_width=80)
            drawn = gr.HTML(elem_id="drawn")

    asked = [prompt, weighing, results.keep, *controls.all]
    screening = _Screening(desk, results)
    told = {**EVENT, "inputs": asked, "outputs": results.all, "trigger_mode": "always_last"}
    keeping = {**told, "outputs": [results.edits, *results.all[5:]]}
    asking = [
        gr.on([screen.click, prompt.submit, weighing.input], screening.screen, **told),
        results.keep.input(screening.keep, **keeping),
    ]
    for button, (_, text) in zip(examples, EXAMPLES, strict=True):
        chosen = button.click(lambda text=text: text, outputs=prompt, **EVENT)
        asking.append(chosen.then(screening.screen, **told))
    for slot in results.slots:
        used = slot.use.click(lambda text: text, slot.text, prompt, **EVENT)
        asking.append(used.then(screening.screen, **told))
    looked_at = [results.screened, prompt, *controls.all]
    forgetting = {**EVENT, "inputs": looked_at, "outputs": results.all, "js": _forget(results)}
    gr.on([each.input for each in (prompt, *controls.all)], None, **forgetting)
    for each in asking:
        each.then(None, **forgetting)
    drawing = _Drawing(studio, runs)
    draw.click(drawing.draw, [prompt, seeds], [drawn, draw, stop], concurrency_limit=4, **EVENT)
    stop.click(drawing.stop, queue=False, **EVENT)


def _forget(results: _Results) -> str:
    """JavaScript that takes back a verdict of something else than what now stands in the controls.

    It runs in the browser, at once: what is shown of the next prompt cannot come before it.
    """
    hidden = {"__type__": "update", "visible": False}
    same = {"__type__": "update"}
    blank: Updates = {
        results.verdict: _CHANGED,
        results.words: "",
        results.keep: hidden,
        results.edits: "",
        results.screened: same,
    }
    for slot in results.slots:
        blank |= {slot.group: hidden, slot.card: "", slot.text: ""}
    values = json.dumps([blank[each] for each in results.all])
    return f"""(screened, ...now) => (
        screened && JSON.stringify(JSON.parse(screened)) !== JSON.stringify(now)
    ) ? {values} : {json.dumps([same] * len(blank))}"""


def _weighing(desk: Desk) -> gr.Radio:
    why = desk.why_no_gradient
    choices = list(_METHODS)
    return gr.Radio(
        choices if why is None else choices[:1],
        value=choices[0],
        label="Words are weighed by",
        info=None if why is None else f"The gradient is left out: {why}",
    )


def _editing() -> tuple[gr.CheckboxGroup, gr.HTML, gr.Textbox, list[_Slot]]:
    """Words to keep, edits, and what they are of."""
    keep = gr.CheckboxGroup(
        [], label="Words to keep", info="Edits leave these as they are.", visible=False
    )
    edits = gr.HTML(elem_id="edits")
    screened = gr.Textbox(visible=False)
    slots = []
    for number in range(1, _EDITS + 1):
        with gr.Group(visible=False, elem_classes="mn-slot") as group:
            card = gr.HTML()
            text = gr.Textbox(visible=False)
            use = gr.Button(f"Use edit {number}", size="sm", elem_id=f"use-{number}")
        slots.append(_Slot(group, card, text, use))
    return keep, edits, screened, slots


class _Screening:
    """What screening a prompt changes on the page."""

    def __init__(self, desk: Desk, results: _Results) -> None:
        self._desk, self._results = desk, results

    def screen(
        self, prompt: str, weighing: str, keep: Sequence[str], *controls: Any
    ) -> Iterator[Updates]:
        """The verdict at once, then the words, then edits."""
        shown, measured = self._results, way(*controls)
        of = {shown.screened: json.dumps([prompt, *controls])}
        try:
            found = self._desk.screen(prompt, measured)
            missing = None if found.empty else self._desk.missing(measured)
            card = verdict_card(
                found, self._desk.benign(measured), None if missing is None else str(missing)
            )
            yield {shown.verdict: card, **self._blank(), **of}
            if found.empty:
                return
            explanation = self._desk.explain(prompt, measured, _METHODS[weighing])
            words = list(dict.fromkeys(word.word for word in explanation.words))
            kept = [word for word in words if word in keep]
            choices = gr.CheckboxGroup(words, value=kept, visible=bool(found.memorized))
            yield {shown.words: words_card(explanation), shown.keep: choices}
            if found.memorized:
                yield from self.keep(prompt, weighing, kept, *controls)
        except MnemoscopeError as error:
            yield {shown.verdict: sentence(error), **self._blank(), **of}

    def keep(self, prompt: str, _: str, keep: Sequence[str], *controls: Any) -> Iterator[Updates]:
        """Edits that leave some words as they are."""
        yield {self._results.edits: note_card("Looking for edits ...")}
        try:
            yield self._edits(self._desk.edits(prompt, way(*controls), keep))
        except MnemoscopeError as error:
            yield {**self._no_edits(), self._results.edits: sentence(error)}

    def _edits(self, found: Edits) -> Updates:
        updates = self._no_edits()
        if found.found:
            heading = note_card(
                "Each brings the score under the threshold. One that only just does may still "
                "recite: draw it and look.",
                title="Edits",
            )
        elif found.needed:
            heading = note_card(
                f"No edit brings the score under {found.target:.4g} ({found.tried} were tried). "
                "Free some words, or draw it and let it be mitigated.",
                title="Edits",
            )
        else:
            heading = ""
        updates[self._results.edits] = heading
        slots = zip(self._results.slots, found.found, strict=False)
        for number, (slot, edit) in enumerate(slots, 1):
            updates[slot.group] = gr.Group(visible=True)
            updates[slot.card] = edit_card(number, edit)
            updates[slot.text] = edit.prompt
        return updates

    def _blank(self) -> Updates:
        """Nothing of an earlier prompt."""
        return {
            self._results.words: "",
            self._results.keep: gr.CheckboxGroup(value=[], visible=False),
            self._results.edits: "",
            **self._no_edits(),
        }

    def _no_edits(self) -> Updates:
        updates: Updates = {}
        for slot in self._results.slots:
            updates[slot.group] = gr.Group(visible=False)
            updates[slot.card], updates[slot.text] = "", ""
        return updates


class _Drawing:
    """What drawing a prompt changes on the page."""

    def __init__(self, studio: Studio, runs: Runs) -> None:
        self._studio, self._runs = studio, runs

    def draw(self, prompt: str, seeds: float, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """How far it is, again and again; then what came of it."""
        busy = gr.Button(interactive=False), gr.Button(visible=True)
        idle = gr.Button(interactive=True), gr.Button(visible=False)
        work: Run[Drawing] = Run(
            lambda run: self._studio.draw(prompt, int(seeds), run), "Loading the model"
        )
        self._runs.start(page_of(request), work)
        for progress in work.steps():
            yield progress_card(progress), *busy
        try:
            yield drawing_card(work.result()), *idle
        except MnemoscopeError as error:
            yield sentence(error), *idle
        except Stopped:
            yield note_card("Stopped: nothing was drawn."), *idle

    def stop(self, request: gr.Request) -> None:
        """End it where it next says how far it is."""
        self._runs.stop(page_of(request))
