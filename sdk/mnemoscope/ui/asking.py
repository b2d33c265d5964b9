"""What all tabs have in common: controls that say how to measure, and errors as sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from mnemoscope_runtime import MnemoscopeError

from .desk import Desk, Way
from .showing import note_card

__all__ = ["EVENT", "REFUSED", "Controls", "page_of", "sentence", "way", "way_controls"]

REFUSED = "That could not be done"  # the title of an error
# of every event: nothing of it is an API for others, and no spinner hides what is there
EVENT: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


@dataclass(frozen=True)
class Controls:
    """The controls that say how to measure."""

    detector: gr.Dropdown
    backend: gr.Dropdown
    steps: gr.Slider
    noises: gr.Slider

    @property
    def all(self) -> list[gr.components.Component]:
        """In the order of `Way`."""
        return [self.detector, self.backend, self.steps, self.noises]


def way_controls(desk: Desk) -> Controls:
    """Controls for all ways of measuring that there are."""
    first = desk.first
    return Controls(
        gr.Dropdown(desk.detectors, value=first.detector, label="Detector", filterable=False),
        gr.Dropdown(desk.backends, value=first.backend, label="Backend", filterable=False),
        gr.Slider(1, desk.steps, value=first.steps, step=1, label="Denoising steps"),
        gr.Slider(1, desk.noises, value=first.noises, step=1, label="Noises"),
    )


def way(detector: str, backend: str, steps: float, noises: float) -> Way:
    """What the controls say."""
    return Way(detector, backend, int(steps), int(noises))


def sentence(error: MnemoscopeError) -> str:
    """An error as a card."""
    return note_card(str(error), title=REFUSED, wrong=True)


def page_of(request: gr.Request) -> str:
    """Which page asks."""
    return str(request.session_hash)
