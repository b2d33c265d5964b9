from __future__ import annotations

import re
import sys

import pytest

from mnemoscope import BackendUnavailable
from mnemoscope.plotting import new_figure, png


def test_a_figure_is_a_picture_and_the_same_twice() -> None:
    pictures = []
    for _ in range(2):
        figure = new_figure(2, 1)
        figure.subplots().plot([1, 2], [3, 4])
        pictures.append(png(figure))
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "`pip install -c constraints.txt '.[plot]'` in a copy of the repository."),
        (
            {"extra": "bench"},
            "`pip install -c constraints.txt '.[bench]'` in a copy of the repository.",
        ),
        (
            {"otherwise": "do without"},
            "'.[plot]'` in a copy of the repository, or do without.",
        ),
    ],
)
def test_without_matplotlib(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str], words: str
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(BackendUnavailable, match=f"{re.escape(words)}$"):
        new_figure(1, 1, **options)  # type: ignore[arg-type]
