"""The page: three tabs, their looks, and nothing that leaves it."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from ..templates import render
from .asking import page_of
from .audit_tab import Shelf, audit_tab
from .calibration_tab import calibration_tab
from .desk import Desk
from .prompt_tab import prompt_tab
from .runs import Runs
from .studio import Studio

__all__ = ["STYLE", "build", "theme"]

STYLE = Path(__file__).with_name("page.css")
_FONT = ("system-ui", "sans-serif")
_MONOSPACED = ("ui-monospace", "monospace")
_SESSIONS = 64  # pages that are open at a time


def build(desk: Desk) -> gr.Blocks:
    """The page of a bundle.

    Args:
        desk: What measures.
    """
    runs, shelf, studio = Runs(), Shelf(), Studio(desk)
    with gr.Blocks(title="Mnemoscope", analytics_enabled=False, delete_cache=(600, 600)) as page:
        gr.HTML(_heading(desk), elem_classes="mn-heading")
        with gr.Tabs():
            with gr.Tab("Prompt"):
                prompt_tab(desk, studio, runs)
            with gr.Tab("File"):
                audit_tab(desk, runs, shelf)
            with gr.Tab("Calibration"):
                calibration_tab(desk)

        def leave(request: gr.Request) -> None:
            """Forget what a page showed when it is closed; Gradio would keep it."""
            name = page_of(request)
            runs.stop(name)
            shelf.drop(name)
            page.state_holder.session_data.pop(name, None)

        page.unload(leave)
    page.state_session_capacity = _SESSIONS
    return page.queue(default_concurrency_limit=4)


def theme() -> gr.themes.Base:
    """Fonts of the system, since others would be asked for elsewhere; text that can be read."""
    return gr.themes.Base(
        primary_hue="blue",
        neutral_hue="slate",
        radius_size="sm",
        text_size="md",
        font=_FONT,
        font_mono=_MONOSPACED,
    ).set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_300",
        color_accent="*primary_700",
        slider_color="*primary_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
    )


def _heading(desk: Desk) -> str:
    whose = "the embedded model" if desk.options.own else desk.bundle.manifest.model.id
    return render("ui/heading.html", whose=whose, bundle=desk.bundle.id[:12])
