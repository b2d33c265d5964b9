from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mnemoscope import InputError, Setting
from mnemoscope.audit.journal import Job, Journal

JOB = Job("1.0", Setting("b" * 64, "onnxruntime", "magnitude", 1, 4), "c" * 64, "d" * 64, None)
BATCHES = [[[0.1, False], [1 / 3, True]], [[1e-300, True], [2.5, False]], [[7.0, False]]]
PAIR = tuple[float, bool]


def written(path: Path, batches: int = 3) -> bytes:
    with Journal.open(path, JOB) as journal:
        for number, batch in enumerate(BATCHES[:batches]):
            journal.append("measure", number, batch)
    return path.read_bytes()


def kept(journal: Journal) -> list[tuple[int, list[PAIR]]]:
    return [*journal.read("measure", PAIR)]


def as_written(batches: int = 3) -> list[tuple[int, list[PAIR]]]:
    return [(n, [(score, cut) for score, cut in each]) for n, each in enumerate(BATCHES[:batches])]


def test_what_was_appended_is_restored_to_the_bit(tmp_path: Path) -> None:
    written(tmp_path / "j")
    with Journal.open(tmp_path / "j", JOB) as journal:
        assert kept(journal) == as_written()


def test_stages_are_kept_apart_and_in_any_order(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j", JOB) as journal:
        journal.append("draw", 7, [b"\0\xff"])
        journal.append("measure", 1, BATCHES[1])
        journal.append("draw", 2, [])
        journal.append("measure", 0, BATCHES[0])
    with Journal.open(tmp_path / "j", JOB) as journal:
        assert kept(journal) == as_written(2)[::-1]
        assert [*journal.read("draw", bytes)] == [(7, [b"\0\xff"]), (2, [])]
        assert [*journal.read("describe", bytes)] == []


def test_what_is_appended_while_it_is_read(tmp_path: Path) -> None:
    """It goes to the end, wherever the reader is, and is no part of what that one reads."""
    written(tmp_path / "j")
    with Journal.open(tmp_path / "j", JOB) as journal:
        reader = journal.read("measure", PAIR)
        assert next(reader) == as_written()[0]
        journal.append("draw", 0, ["x"])
        assert [*reader] == as_written()[1:]
    with Journal.open(tmp_path / "j", JOB) as journal:
        assert kept(journal) == as_written()
        assert [*journal.read("draw", str)] == [(0, ["x"])]


def test_a_journal_torn_anywhere_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "j"
    whole = written(path)
    lines = whole.splitlines(keepends=True)
    ends = {len(b"".join(lines[:k])) + more for k in range(1, 5) for more in (-1, 0, 1)}
    for cut in sorted({*range(0, len(whole), 9), *ends} & {*range(len(whole) + 1)}):
        path.write_bytes(whole[:cut])
        with Journal.open(path, JOB) as journal:
            batches = max(0, whole[:cut].count(b"\n") - 1)
            assert kept(journal) == as_written(batches)
            assert path.read_bytes() == b"".join(lines[: batches + 1])  # what was torn is gone
            for number, batch in [*enumerate(BATCHES)][batches:]:
                journal.append("measure", number, batch)
        assert path.read_bytes() == whole


def test_zeros_at_the_end_are_torn_too(tmp_path: Path) -> None:
    """As after a power cut, when the size of a file is written before its content."""
    path = tmp_path / "j"
    whole = written(path)
    path.write_bytes(whole + bytes(100))
    with Journal.open(path, JOB) as journal:
        assert kept(journal) == as_written()
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (replace(JOB, version="2.0"), "version was 1.0, is 2.0"),
        (replace(JOB, input="e" * 64), f"input was {'d' * 64}, is {'e' * 64}"),
        (replace(JOB, calibration="e" * 64), "calibration was ccc"),
        (replace(JOB, column="text"), "column was None, is text"),
        (replace(JOB, quotes=False), "quotes was True, is False"),
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
        Journal.open(path, other)
    for word in (str(path), "belongs to another audit", words, "--restart"):
        assert word in str(caught.value)
    assert str(caught.value).count(" was ") == 1
    assert path.read_bytes() == before
    Journal.open(path, JOB).close()  # nobody holds it, though its error is still looked at


@pytest.mark.parametrize("content", [b"my thesis\n", b"\0" * 100, b"{}\n", b"\xff\n"])
def test_what_is_no_journal_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "j"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"is no journal of an audit\. --restart"):
        Journal.open(path, JOB)
    assert path.read_bytes() == content
    with Journal.open(path, JOB, restart=True) as journal:
        assert kept(journal) == []
    assert path.read_bytes().startswith(b'{"version":"1.0"')


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [lines[0], lines[1], lines[1]],  # twice
        lambda lines: [lines[0], lines[1][:-5] + b"\n", lines[2]],
        lambda lines: [lines[0], lines[1].replace(b"true", b"1"), lines[2]],
        lambda lines: [lines[0], lines[1].replace(b"0.1", b"0.2")],
        lambda lines: [lines[0], lines[1].replace(b"true", b"false")],
        lambda lines: [lines[0], lines[1].replace(b'"number":0', b'"number":2')],
        lambda lines: [lines[0], lines[1].replace(b'"measure"', b'"draw"')],
        lambda lines: [lines[0], lines[1].replace(b'{"sha256"', b'{"x":1,"sha256"')],
    ],
)
def test_a_damaged_journal_is_an_error(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "j"
    lines = written(path).splitlines(keepends=True)
    assert callable(damage)
    path.write_bytes(b"".join(damage(lines)))
    with pytest.raises(InputError, match=r"is damaged: .* --restart"):
        Journal.open(path, JOB)


def test_results_of_another_kind(tmp_path: Path) -> None:
    written(tmp_path / "j")
    with (
        Journal.open(tmp_path / "j", JOB) as journal,
        pytest.raises(InputError, match=r"is damaged: Expected `str`, got `array`.* --restart"),
    ):
        next(journal.read("measure", str))


def test_a_batch_of_another_audit(tmp_path: Path) -> None:
    path, other = tmp_path / "j", tmp_path / "other"
    header, *_ = written(path).splitlines(keepends=True)
    with Journal.open(other, replace(JOB, calibration="e" * 64)) as journal:
        journal.append("measure", 0, BATCHES[0])
    path.write_bytes(header + other.read_bytes().splitlines(keepends=True)[1])
    with pytest.raises(InputError, match="a batch is not what was written"):
        Journal.open(path, JOB)


def test_flipped_bits(tmp_path: Path) -> None:
    """Refused, or as if the batch had been torn off: it is measured again."""
    path = tmp_path / "j"
    whole = written(path)
    for place in range(whole.index(b"\n") + 1, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            journal = Journal.open(path, JOB)
        except InputError:
            continue
        with journal:
            found = kept(journal)
            assert len(found) < 3
            assert found == as_written(len(found))


def test_a_journal_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal.open(path, JOB) as journal:
        journal.append("measure", 0, BATCHES[0])
        before = path.read_bytes()
        for restart in (False, True):
            with pytest.raises(InputError, match="is being written by another audit"):
                Journal.open(path, JOB, restart=restart)
        assert path.read_bytes() == before
    Journal.open(path, JOB).close()


def test_there_need_be_nothing_to_restart(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j", JOB, restart=True) as journal:
        assert kept(journal) == []


def test_a_removed_journal_is_gone(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j", JOB) as journal:
        journal.append("measure", 0, BATCHES[0])
        journal.remove()
        with pytest.raises(ValueError, match="closed file"):
            kept(journal)
    assert not (tmp_path / "j").exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written: No such file or directory"):
        Journal.open(tmp_path / "none" / "j", JOB)
