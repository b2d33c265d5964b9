"""What the page cannot draw it refuses; what it draws is seen in a browser (`test_page`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from mnemoscope import BundleError, InputError, embedded
from mnemoscope.ui import UiOptions
from mnemoscope.ui.desk import Desk
from mnemoscope.ui.runs import Run, Stopped
from mnemoscope.ui.studio import Drawing, Studio

pytestmark = pytest.mark.slow


def _drawn(options: UiOptions, prompt: str = "a cat", *, stopped: bool = False) -> Drawing:
    with Desk(options) as desk:
        studio = Studio(desk)
        run: Run[Drawing] = Run(lambda run: studio.draw(prompt, 1, run), "drawing")
        if stopped:
            run.stop()
        list(run.steps())
        return run.result()


def test_nothing_is_no_prompt() -> None:
    with pytest.raises(InputError, match="type a prompt"):
        _drawn(UiOptions(), "  ")


def test_a_bundle_holds_no_model() -> None:
    with pytest.raises(InputError, match="--model"):
        _drawn(UiOptions(bundle=embedded.BUNDLE))


def test_another_model_says_nothing_of_the_bundle(model_dir: Path) -> None:
    with pytest.raises(BundleError, match="was exported from"):
        _drawn(UiOptions(bundle=embedded.BUNDLE, model=str(model_dir)))


def test_what_is_stopped_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnemoscope.mitigate.Painter.load", None)
    with pytest.raises(Stopped):
        _drawn(UiOptions(), stopped=True)
