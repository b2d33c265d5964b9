"""Reports of what was skipped."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from mnemoscope import InputError
from mnemoscope.training import SkipReport, Skips, merge_reports
from mnemoscope.training.skip_report import Tally


@pytest.fixture
def tally() -> Tally:
    found = Tally()
    found.add(torch.tensor([3, 0, -1]), torch.tensor([True, False, True]))
    found.add(torch.tensor([3, 9, 9, 0]), torch.tensor([True, True, False, False]))
    return found


def test_the_most_skipped_come_first(tally: Tally) -> None:
    report = tally.report(None)
    assert (report.seen, report.skipped) == (7, 4)  # one sample had no id
    assert report.samples == (Skips("3", 2, 2), Skips("9", 2, 1), Skips("0", 2, 0))
    assert [each.rate for each in report.samples] == [1, 0.5, 0]
    assert report.top() == report.samples[:2]  # the third never was
    assert report.top(1) == report.samples[:1]


def test_names_bring_duplicates_together(tally: Tally) -> None:
    names = ["a cat", *"bc", "a dog", *"efghi", "a dog"]
    assert tally.report(names).samples == (Skips("a dog", 4, 3), Skips("a cat", 2, 0))
    with pytest.raises(InputError, match="Sample 9 was seen, but there are 9 names"):
        tally.report(names[:9])


def test_files(tally: Tally, tmp_path: Path) -> None:
    report = tally.report(["", *"bc", 'a "quoted", name', *"efghi", "猫"])
    report.write_json(tmp_path / "skips.json")
    assert SkipReport.read(tmp_path / "skips.json") == report
    report.write_csv(tmp_path / "skips.csv")
    rows = list(csv.reader((tmp_path / "skips.csv").open(encoding="utf-8", newline="")))
    assert rows == [
        ["name", "seen", "skipped", "rate"],
        ['a "quoted", name', "2", "2", "1.0000"],
        ["猫", "2", "1", "0.5000"],
    ]


def test_runs_are_merged_by_name(tally: Tally) -> None:
    other = SkipReport(10, 5, (Skips("9", 6, 5), Skips("new", 4, 0)))
    merged = merge_reports([tally.report(None), other])
    assert (merged.seen, merged.skipped) == (17, 9)
    assert merged.samples[:2] == (Skips("9", 8, 6), Skips("3", 2, 2))
    assert merge_reports([]) == SkipReport(0, 0, ())


def test_files_that_cannot_be(tally: Tally, tmp_path: Path) -> None:
    for write in (tally.report(None).write_json, tally.report(None).write_csv):
        with pytest.raises(InputError, match="cannot be written"):
            write(tmp_path / "no" / "folder")
    (tmp_path / "other.json").write_text('{"seen": "many"}')
    for name in ("other.json", "missing.json"):
        with pytest.raises(InputError, match="is no report"):
            SkipReport.read(tmp_path / name)
