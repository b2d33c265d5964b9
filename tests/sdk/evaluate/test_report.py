from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from evaluate_support import HOSTILE, evaluation, lists_of, nonsense, silent
from PIL import Image

from mnemoscope import BackendUnavailable, InputError
from mnemoscope.evaluate import PromptLists
from mnemoscope.evaluate.files import to_html, to_markdown, write
from mnemoscope.evaluate.pictures import blank

TAGS = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "ul", "li", "p", "img"}
TAGS |= {"table", "tr", "th", "td"}


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def hostile() -> PromptLists:
    labels = ["<u>kind</u> | \x1b[2J"] * 4 + ["plain"] * 20
    positives = [f"{prompt} one" for prompt in HOSTILE] + nonsense(20, 1)
    negatives = [f"{prompt} two" for prompt in HOSTILE]
    return PromptLists.of(positives, negatives, labels=labels, tell=silent)


def test_html_holds_no_markup_of_prompts(hostile: PromptLists) -> None:
    page = Page(to_html(evaluation(hostile)))
    assert {tag for tag, _ in page.tags} == TAGS
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        source = attributes.get("src") or ""
        assert source.startswith("data:image/png;base64,") or tag != "img"
        assert "href" not in attributes
    assert "<script>alert(1)</script> & <img src=x onerror=alert(2)>" in page.text
    assert "<u>kind</u>" in page.text
    assert "<b>model</b>" in page.text
    assert not set(page.text) & set("\x1b\x00\u202e\r")


def test_html_loads_nothing(hostile: PromptLists) -> None:
    markup = re.sub(r"<t[dh]>.*?</t[dh]>|<li>.*?</li>", "", to_html(evaluation(hostile)))
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r'"data:[^"]*"', "", markup))


def test_pictures_are_in_the_page() -> None:
    found = re.findall(r"data:image/png;base64,([^\"]+)", to_html(evaluation(lists_of())))
    assert len(found) == 2
    for each in found:
        with Image.open(io.BytesIO(base64.b64decode(each))) as image:
            assert image.format == "PNG"
            assert len(image.convert("RGB").getcolors(2**20) or ()) > 50


def test_markdown_cells_stay_cells(hostile: PromptLists) -> None:
    text = to_markdown(evaluation(hostile))
    assert "<script>" not in text
    assert not re.search(r"(?<!\\)\]\(", text)
    assert not set(text) & set("\x1b\x00\u202e\r")
    assert [line for line in text.splitlines() if line.startswith("## heading")] == []
    bars = 0
    for line in text.splitlines():
        if line.startswith("|"):
            found = len(re.findall(r"(?<!\\)\|", line))
            assert bars in (0, found), line
            bars = found
        else:
            bars = 0


def test_json_holds_everything(tmp_path: Path) -> None:
    labels = ["x"] * 12 + ["y"] * 8
    lists = PromptLists.of(nonsense(20, 1), nonsense(30, 2), labels=labels, tell=silent)
    found = evaluation(lists)
    files = write(found, tmp_path)
    assert [file.name for file in files] == ["report.json", "report.md", "report.html"]
    report = json.loads(files[0].read_text("utf-8"))
    assert report["environment"] == {"python": "3"}
    assert [row["prompt"] for row in report["positives"]] == list(lists.positives)
    assert [row["label"] for row in report["positives"]] == labels
    assert [row["prompt"] for row in report["negatives"]] == list(lists.negatives)
    for part, each in zip(report["scores"], found.scored, strict=True):
        scores = part["positives"] + part["negatives"]
        np.testing.assert_allclose(scores, each.scores, rtol=1e-6)
    assert len(report["rows"]) == 2 * 3
    assert report["rows"][0]["auc"]["value"] == found.rows[0].auc.value
    expected = hashlib.sha256("\n".join(lists.negatives).encode()).hexdigest()
    assert report["lists"]["negatives"] == {"prompts": 30, "groups": 30, "sha256": expected}
    assert set(report["style"]) == set(found.style)


def test_surrogates_can_be_written(tmp_path: Path) -> None:
    lists = PromptLists.of(["a \ud800 b", *nonsense(5, 1)], nonsense(9, 2), tell=silent)
    write(evaluation(lists), tmp_path)
    assert json.loads((tmp_path / "report.json").read_text("utf-8"))["positives"][0]["prompt"]


def test_notes_warn_of_style_and_tell_of_cross_fitting() -> None:
    same = evaluation(lists_of(60, 120)).notes
    assert same == [
        "anisotropy: learned from one half of the prompts and judged on the other, both ways; "
        "near duplicates are in one half."
    ]
    shouted = [prompt.title() for prompt in nonsense(60, 1)]
    notes = evaluation(PromptLists.of(shouted, nonsense(120, 2), tell=silent)).notes
    (warning,) = [note for note in notes if "style" in note]
    assert "capitalised words" in warning
    assert "number of words" not in warning
    assert "A detector could score this by reading style; use style-matched negatives." in warning


def test_the_highest_negatives_are_shown() -> None:
    lists = lists_of(20, 30)
    found = evaluation(lists)
    best = max(found.rows, key=lambda row: row.auc.value)
    scores = next(s for s in found.scored if s.detector == best.detector).scores[20:]
    order = np.argsort(-scores)[:10]
    assert [row[1] for row in found.highest().rows] == [lists.negatives[i] for i in order]


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "report.json").mkdir()
    with pytest.raises(InputError, match=r"report\.json cannot be written: .*--output"):
        write(evaluation(lists_of(2, 3)), tmp_path)


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        BackendUnavailable, match=r"pip install -c constraints.txt '\.\[calibrate,plot\]'"
    ):
        blank(1, 1)
