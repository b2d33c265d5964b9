"""What every page has in common; what each says is tested with the part that writes it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from mnemoscope import templates
from mnemoscope.templates import render

PAGES = sorted(
    path.name
    for path in Path(templates.__file__).parent.glob("*.html")
    if path.name not in ("base.html", "macros.html")
)
HOSTILE = "<script>alert(1)</script> & \"'> \x1b[2J\u202e\ud800\x00{{ 7 * 7 }}{% raw %}"


class Page(HTMLParser):
    """Elements and text of a page, as a browser sees them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def evaluation(text: str) -> str:
    grid = {"title": text, "header": [text], "rows": [[text], [text]]}
    return render(
        "evaluation.html",
        heading=text,
        notes=[text],
        grids=[grid, grid],
        pictures={text: b"png"},
    )


def test_whatever_text_says_it_is_text() -> None:
    page = evaluation(HOSTILE)
    seen = Page(page)
    assert seen.tags == Page(evaluation("tame")).tags
    assert seen.text.count("<script>alert(1)</script> & \"'> ") == 11  # of title, heading, note ...
    assert seen.text.count("{{ 7 * 7 }}{% raw %}") == 11
    assert r"\x1b[2J\u202e\ud800\x00" in seen.text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800]", page)


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_forbidden_to_load_or_run_anything(name: str) -> None:
    source = (Path(templates.__file__).with_name(name)).read_text("utf-8")
    assert '{% extends "base.html" %}' in source
    assert not re.search(r"\|\s*safe|autoescape|<script|https?:|url\(", source)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in evaluation("tame")


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_is_not_given_is_an_error(name: str) -> None:
    with pytest.raises(UndefinedError):
        render(name)
