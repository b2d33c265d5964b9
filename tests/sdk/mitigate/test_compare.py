"""All strategies side by side, and the report of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from mitigate_support import OtherNoise

from mnemoscope import InputError
from mnemoscope.mitigate import Comparison, Mitigator, Plain, RandomWords, Rule, compare
from mnemoscope.mitigate.report import ComparisonReport

pytestmark = pytest.mark.slow

PROMPTS = ["a cat", "<b>bold</b> & a|b"]
SEEDS = (0, 1)


@pytest.fixture
def comparison(mitigator: Mitigator) -> Comparison:
    strategies = [Plain("same"), OtherNoise((1,)), RandomWords("numbers", 2)]
    return compare(mitigator, PROMPTS, strategies, seeds=SEEDS)


def test_rows(comparison: Comparison) -> None:
    rows = {row.strategy: row for row in comparison.rows}
    assert list(rows) == ["none", "same", "other-noise", "random-numbers"]
    for name in ("none", "same"):
        assert rows[name].copied.value == rows[name].reproduced.value == 1
        assert rows[name].similarity.value == pytest.approx(1)
        assert rows[name].unchanged.value == 1
    assert rows["same"].alignment == rows["none"].alignment
    assert rows["other-noise"].copied.value == 0.5  # seed 1 of either prompt
    assert rows["other-noise"].reproduced.value == 1
    assert rows["none"].seconds > 0


def test_references_are_what_must_not_be_drawn(mitigator: Mitigator) -> None:
    drawn = mitigator.draw(PROMPTS, [7, 7], Plain())
    found = compare(mitigator, PROMPTS, [], seeds=[8, 7], references=[each.image for each in drawn])
    [plain] = found.drawings
    assert plain.likeness[:, 1] == pytest.approx(1)
    assert (plain.likeness[:, 0] < 0.9).all()
    assert plain.changed == pytest.approx(1)


def test_auto_is_chosen_from_what_was_drawn(comparison: Comparison) -> None:
    rule = Rule(0.9, tolerance=1.0)
    found = comparison.with_auto(["other-noise", "random-numbers"], [True, False], rule)
    auto = found.drawings[-1]
    assert auto.strategy == "auto"
    assert [each.strategy for each in auto.pictures[1]] == ["none", "none"]  # not flagged
    assert auto.pictures[0][0].strategy == "other-noise"
    numbers = comparison.drawings[3]
    if numbers.changed[0, 1] <= 0.9:
        assert auto.pictures[0][1].strategy == "random-numbers"
        assert auto.likeness[0, 1] == numbers.likeness[0, 1]
    assert auto.seconds > comparison.drawings[0].seconds
    with pytest.raises(InputError, match="which was not drawn"):
        comparison.with_auto(["clamp"], [True, True], rule)


def test_what_cannot_be_compared(mitigator: Mitigator) -> None:
    with pytest.raises(InputError, match="nothing to compare"):
        compare(mitigator, [], [])
    with pytest.raises(InputError, match="do not fit"):
        compare(mitigator, PROMPTS, [], references=[])
    with pytest.raises(InputError, match="name of its own"):
        compare(mitigator, PROMPTS, [Plain()])


def test_the_report(comparison: Comparison, tmp_path: Path) -> None:
    report = ComparisonReport(comparison, None, comparison, {"model": "tiny"})
    files = report.write(tmp_path / "new" / "folder")
    assert [file.name for file in files] == [
        f"mitigation.{e}" for e in ("md", "json", "png", "html")
    ]
    table, figures, plot, page = (file.read_bytes() for file in files)
    assert table.decode().count("| other-noise |") == 2
    read = json.loads(figures)
    assert read["memorized"]["rows"][0]["strategy"] == "none"
    assert len(read["memorized"]["pictures"]["other-noise"]) == 4
    assert plot.startswith(b"\x89PNG")
    text = page.decode()
    assert "<b>bold" not in text
    assert "&lt;b&gt;bold" in text
    assert not re.search(r"src=\"(?!data:)|href|<script", text)
    copies = sum(int((each.likeness[:, 0] > 0.9).sum()) for each in comparison.drawings)
    assert text.count('class="copied"') == copies >= 4  # none and same of both prompts


def test_a_report_that_cannot_be_written(comparison: Comparison, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written.*--output"):
        ComparisonReport(comparison, None, None, {}).write(tmp_path / "file" / "folder")
