"""The tab for a file of prompts: it is audited, shown, and not kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from mnemoscope_runtime import MnemoscopeError

from ..prompts.printable import counted
from .asking import EVENT, REFUSED, page_of, way, way_controls
from .desk import Desk
from .listing import ENDINGS, SHOWS, Audited, Show, as_on_the_page, audit_file
from .runs import Run, Runs, Stopped
from .showing import audit_card, note_card, progress_card, rows_card

__all__ = ["Shelf", "audit_tab"]


class Shelf:
    """The last audit of each page, for as long as the page is open."""

    def __init__(self) -> None:
        self._audits: dict[str, Audited] = {}

    def put(self, page: str, found: Audited) -> None:
        """Keep it in place of the one before."""
        self._audits[page] = found

    def get(self, page: str) -> Audited | None:
        """The last one, if there is one."""
        return self._audits.get(page)

    def drop(self, page: str) -> None:
        """Forget it."""
        self._audits.pop(page, None)


def audit_tab(desk: Desk, runs: Runs, shelf: Shelf) -> None:
    """Build the tab, in the page that is being built."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            file = gr.File(
                label="Prompts",
                elem_id="file",
                height=140,
            )
            with gr.Accordion("How to audit", open=False):
                fdr = gr.Slider(
                    0.01,
                    0.5,
                    value=0.05,
                    step=0.01,
                    label="False-discovery rate",
                    info="Of the prompts flagged, at most this share is benign, on average.",
                )
                column = gr.Textbox(
                    value="",
                    label="Column",
                    info="That holds the prompts; empty for the usual names.",
                )
                controls = way_controls(desk)
            stop = gr.Button("Stop", visible=False, elem_id="stop-audit")
        with gr.Column(scale=7, min_width=320):
            found = gr.HTML(
                note_card(
                    f"Drop a file of prompts ({', '.join(ENDINGS)}; up to 5 MB): one a line, or a "
                    "table with a column of them. It is audited at once, and then deleted."
                ),
                elem_id="audited",
            )
            with gr.Group(visible=False) as filters:
                show = gr.Radio(list(SHOWS), value=SHOWS[0], label="Show", elem_id="show")
                holding = gr.Textbox(value="", label="Prompts that hold", elem_id="holding")
            rows = gr.HTML(elem_id="rows")

    auditing = _Auditing(desk, runs, shelf)
    file.upload(
        auditing.audit,
        [file, column, fdr, *controls.all],
        [file, found, filters, show, holding, rows, stop],
        concurrency_limit=2,
        **EVENT,
    )
    stop.click(auditing.stop, queue=False, **EVENT)
    gr.on([show.input, holding.input], auditing.filter, [show, holding], rows, **EVENT)


class _Auditing:
    """What auditing a file changes on the page."""

    def __init__(self, desk: Desk, runs: Runs, shelf: Shelf) -> None:
        self._desk, self._runs, self._shelf = desk, runs, shelf

    def audit(
        self, file: str, column: str, fdr: float, request: gr.Request, *rest: Any
    ) -> Iterator[tuple[Any, ...]]:
        """How far it is, again and again; then what came of it. The file is deleted."""
        page, path = page_of(request), Path(file)
        blank = gr.Group(visible=False), SHOWS[0], "", ""
        work: Run[Audited] = Run(
            lambda run: audit_file(self._desk, way(*rest), path, column, fdr, run),
            "Reading the file",
        )
        self._shelf.drop(page)
        self._runs.start(page, work)
        try:
            for progress in work.steps():
                yield gr.skip(), progress_card(progress), *blank, gr.Button(visible=True)
            yield None, *self._shown(work, page, path), gr.Button(visible=False)
        finally:
            shutil.rmtree(path.parent, ignore_errors=True)

    def filter(self, show: Show, holding: str, request: gr.Request) -> str:
        """Some of the rows of the last audit."""
        found = self._shelf.get(page_of(request))
        return "" if found is None else _rows(found, show, holding)

    def stop(self, request: gr.Request) -> None:
        """End it where it next says how far it is."""
        self._runs.stop(page_of(request))

    def _shown(self, work: Run[Audited], page: str, file: Path) -> tuple[Any, ...]:
        blank = gr.Group(visible=False), SHOWS[0], "", ""
        try:
            found = work.result()
        except MnemoscopeError as error:
            return note_card(as_on_the_page(str(error), file), title=REFUSED, wrong=True), *blank
        except Stopped:
            return note_card("Stopped: nothing was judged."), *blank
        self._shelf.put(page, found)
        show: Show = "Flagged" if found.audit.flagged else "All"
        return audit_card(found), gr.Group(visible=True), show, "", _rows(found, show, "")


def _rows(found: Audited, show: Show, holding: str) -> str:
    rows = found.select(show, holding)
    count = len(rows)
    title = counted(count, "prompt") if show == "All" else f"{count:,} {show.lower()}"
    return rows_card(rows, title)
