from __future__ import annotations

import base64
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mnemoscope import BackendUnavailable, Setting
from mnemoscope.audit import Audit, figures, report
from mnemoscope.audit.report import Entry

FOUND = Audit(
    file=Path("prompts.csv"),
    prompts=12,
    distinct=9,
    flagged=2,
    groups=1,
    errors={"empty: nothing": 3},
    repeated=2,
    truncated=1,
    weighted=4,
    calibrated=5,
    fdr=0.05,
    dependent=False,
    limitation="With 99 benign prompts ...",
    setting=Setting("b" * 64, "onnxruntime", "magnitude", 1, 4),
    benign=99,
    calibration="c" * 64,
    input="d" * 64,
)
HOSTILE = [
    "<script>alert(1)</script>",
    "</td></table><img src=x onerror=alert(1)>",
    "<style>*{display:none}</style><!--",
    '"><svg/onload=alert(1)>',
    "&lt;b&gt; &#x3c;b>",
    "${verdict} $file {audit}",
    "\ud800 lone surrogate",
    "\x01\x1b[31m\x7f\x85",
    "\u202eright to left\u2066",
    "javascript:alert(1)",
]


class Page(HTMLParser):
    """Elements and text of a page, as a browser sees them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def written(found: Audit, prompts: list[str], **more: int) -> str:
    entries = [Entry(1, prompt, 2.5, 0.01, 3, **more) for prompt in prompts]
    return report.page(found, entries, b"one", b"two")


def test_hostile_prompts_are_text_and_nothing_else() -> None:
    tame = Page(written(FOUND, ["tame"] * len(HOSTILE)))
    name = "<script>\ud800.csv"
    hostile = replace(FOUND, file=Path(name), errors={"<b>": 3}, limitation="<script>")
    page = written(hostile, HOSTILE)
    seen = Page(page)
    assert seen.tags == tame.tags  # no element, no attribute more
    for prompt in HOSTILE[:6]:
        assert prompt in seen.text
    for shown in (r"\ud800 lone surrogate", r"\x01\x1b[31m\x7f\x85", r"\u202eright to left\u2066"):
        assert shown in seen.text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)


def test_the_page_needs_nothing_else() -> None:
    page = written(FOUND, ["a"])
    links = [v for _, attrs in Page(page).tags for k, v in attrs.items() if k in ("src", "href")]
    assert links == [
        f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in (b"one", b"two")
    ]
    assert "default-src 'none'" in page
    assert not {tag for tag, _ in Page(page).tags} & {"script", "link", "iframe"}


def test_the_page_says_what_was_found_and_how() -> None:
    seen = Page(written(FOUND, ["a cat"], others=7)).text
    for words in (
        "2 of 9 distinct prompts flagged, in 1 group, at a false-discovery rate of 0.05; 3 rows",
        *("not screened, empty: nothing", "neither flagged nor cleared", "and 7 more like it"),
        *("b" * 64, "c" * 64, "d" * 64, "Benjamini and Hochberg", "With 99 benign prompts ..."),
        *("not the probability that the prompt is benign", "may still be memorised", "99"),
        *("a cat", "2.5", "0.01", "numpy", "python", "onnxruntime"),
    ):
        assert words in seen
    other = replace(FOUND, dependent=True, flagged=0, errors={}, limitation=None)
    seen = Page(written(other, ["a cat"])).text
    assert "Benjamini and Yekutieli" in seen
    assert "The highest scores" in seen
    assert "neither flagged nor cleared" not in seen


def test_the_same_twice() -> None:
    assert written(FOUND, HOSTILE) == written(FOUND, HOSTILE)


def test_a_very_long_prompt_is_cut() -> None:
    assert len(written(FOUND, ["x" * 100_000])) < 10_000


@pytest.mark.parametrize("flagged", [0, 3, 100])
def test_plots_of_anything(flagged: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=100)
    chosen = np.arange(100) < flagged
    for values in (scores, np.zeros(100)):
        png = figures.score_histogram(values, chosen, values[:50], "magnitude")
        assert png.startswith(b"\x89PNG")
        assert png == figures.score_histogram(values, chosen, values[:50], "magnitude")
    for count in (1, 100):
        p = rng.uniform(size=count)
        png = figures.p_value_plot(p, np.linspace(0.01, 0.05, count))
        assert png.startswith(b"\x89PNG")


def test_plots_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(BackendUnavailable, match=r"'\.\[plot\]"):
        figures.blank()


def test_what_could_not_be_flagged_is_not_cleared() -> None:
    """9 prompts and 99 benign ones at 5 %: 9 / (.05 * 100) = 1.8, so flags come two at a time."""
    clean = replace(FOUND, flagged=0, groups=0, errors={})
    assert clean.verdict.endswith(
        "rate of 0.05. That clears none: with 99 benign prompts fewer than 2 memorised ones cannot "
        "be flagged among so many"
    )
    assert replace(clean, limitation=None).verdict.endswith("rate of 0.05")
    assert "clears none" not in FOUND.verdict
