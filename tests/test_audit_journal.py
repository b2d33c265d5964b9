from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mnemoscope import InputError, Setting
from mnemoscope.audit.journal import Job, Journal

JOB = Job("1.0", Setting("b" * 64, "onnxruntime", "magnitude", 1, 4), "c" * 64, "d" * 64, None)
BATCHES = [([0.1, 1 / 3], [False, True]), ([1e-300, 2.5], [True, False]), ([7.0], [False])]


def written(path: Path, batches: int = 3) -> bytes:
    with Journal.open(path, JOB, 5) as journal:
        for batch in BATCHES[:batches]:
            journal.append(*batch)
    return path.read_bytes()


def test_what_was_appended_is_restored_to_the_bit(tmp_path: Path) -> None:
    written(tmp_path / "j")
    with Journal.open(tmp_path / "j", JOB, 5) as journal:
        assert journal.done == 5
        assert journal.measured.scores.tolist() == [0.1, 1 / 3, 1e-300, 2.5, 7.0]
        assert journal.measured.truncated.tolist() == [False, True, True, False, False]


def test_what_is_still_to_be_measured_is_nan(tmp_path: Path) -> None:
    written(tmp_path / "j", 1)
    with Journal.open(tmp_path / "j", JOB, 5) as journal:
        assert np.isnan(journal.measured.scores).tolist() == [False, False, True, True, True]


def test_a_journal_torn_anywhere_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "j"
    whole = written(path)
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        with Journal.open(path, JOB, 5) as journal:
            ends = [0, 2, 4, 5]
            assert journal.done == ends[max(0, whole[:cut].count(b"\n") - 1)]
            for batch in BATCHES[ends.index(journal.done) :]:
                journal.append(*batch)
        assert path.read_bytes() == whole


def test_zeros_at_the_end_are_torn_too(tmp_path: Path) -> None:
    """As after a power cut, when the size of a file is written before its content."""
    path = tmp_path / "j"
    whole = written(path)
    path.write_bytes(whole + bytes(100))
    with Journal.open(path, JOB, 5) as journal:
        assert journal.done == 5
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (replace(JOB, version="2.0"), "version was 1.0, is 2.0"),
        (replace(JOB, input="e" * 64), f"input was {'d' * 64}, is {'e' * 64}"),
        (replace(JOB, calibration="e" * 64), "calibration was ccc"),
        (replace(JOB, column="text"), "column was None, is text"),
        (replace(JOB, setting=replace(JOB.setting, bundle="f")), "bundle was bbb"),
        (replace(JOB, setting=replace(JOB.setting, backend="x")), "backend was onnxruntime, is x"),
        (replace(JOB, setting=replace(JOB.setting, detector="x")), "detector was magnitude, is x"),
        (replace(JOB, setting=replace(JOB.setting, steps=2)), "steps was 1, is 2"),
        (replace(JOB, setting=replace(JOB.setting, noises=2)), "noises was 4, is 2"),
    ],
)
def test_a_journal_of_something_else_is_left_alone(tmp_path: Path, other: Job, words: str) -> None:
    path = tmp_path / "j"
    before = written(path)
    with pytest.raises(InputError) as caught:
        Journal.open(path, other, 5)
    for word in (str(path), "belongs to another audit", words, "--restart"):
        assert word in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"my thesis\n", b"\0" * 100, b"{}\n", b"\xff\n"])
def test_what_is_no_journal_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "j"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"is no journal of an audit\. --restart"):
        Journal.open(path, JOB, 5)
    assert path.read_bytes() == content
    with Journal.open(path, JOB, 5, restart=True) as journal:
        assert journal.done == 0
    assert path.read_bytes().startswith(b'{"version":"1.0"')


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [lines[0], lines[2]],  # one is missing
        lambda lines: [lines[0], lines[1], lines[1]],  # twice
        lambda lines: [lines[0], lines[1][:-5] + b"\n", lines[2]],
        lambda lines: [lines[0], lines[1].replace(b"true", b"1"), lines[2]],
        lambda lines: [*lines, lines[3].replace(b"4", b"5")],  # more than there are prompts
        lambda lines: [lines[0], lines[1].replace(b",true", b"")],
    ],
)
def test_a_damaged_journal_is_an_error(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "j"
    lines = written(path).splitlines(keepends=True)
    assert callable(damage)
    path.write_bytes(b"".join(damage(lines)))
    with pytest.raises(InputError, match=r"is damaged after \d prompts: .* --restart"):
        Journal.open(path, JOB, 5)


def test_a_removed_journal_is_gone(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j", JOB, 5) as journal:
        journal.append(*BATCHES[0])
        journal.remove()
    assert not (tmp_path / "j").exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written: No such file or directory"):
        Journal.open(tmp_path / "none" / "j", JOB, 5)
