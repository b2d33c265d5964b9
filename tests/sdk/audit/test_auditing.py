from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_support import TOKENIZER, known, rows, text

from mnemoscope import (
    BackendUnavailable,
    Calibration,
    CalibrationError,
    CalibrationFile,
    Detector,
    InputError,
    NumericsError,
)
from mnemoscope.audit import Audit, audit, judging
from mnemoscope.audit import auditing as module
from mnemoscope.calibration import digest, name_of
from mnemoscope.calibration.calibration import Named

BENIGN = np.linspace(0, 1, 99)  # so that p is a multiple of 1 / 100
PROMPTS = ["a red rocket", "rain", "A red rocket!", "", "rain", "an old ship", "tea"]
SCORES = {
    "a red rocket": 5.0,
    "A red rocket!": 4.0,
    "an old ship": 0.995,
    "rain": 0.505,
    "tea": 0.1,
}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return text(tmp_path / "p.jsonl", PROMPTS), tmp_path / "r.jsonl"


def run(detector: Detector, files: tuple[Path, Path], **options: Any) -> tuple[Audit, list[str]]:
    told: list[str] = []
    return audit(detector, *files, tell=told.append, **options), told


def test_an_audit_by_hand(files: tuple[Path, Path]) -> None:
    """Five distinct prompts: p = .01 .01 .02 .50 .90 against .01 .02 .03 .04 .05."""
    detector, backend = known(SCORES, BENIGN)
    found, told = run(detector, files)
    table = rows(files[1])
    assert [row["prompt"] for row in table] == PROMPTS
    p = [row["p_value"] for row in table]
    assert p == pytest.approx([0.01, 0.5, 0.01, None, 0.5, 0.02, 0.9])
    assert [row["flagged"] for row in table] == [True, False, True, None, False, True, False]
    assert [row["group"] for row in table] == [1, None, 1, None, None, 2, None]
    assert table[3]["error"] == "empty: there is nothing to compare with the empty prompt"
    assert [row["error"] for row in table[:3] + table[4:]] == [None] * 6
    assert (found.prompts, found.distinct, found.flagged, found.groups) == (7, 5, 3, 2)
    assert list(found.errors.values()) == [1]
    assert backend.calls == 1
    assert told == [
        f"{files[0]}: 7 prompts; 1 of them empty or white space.",
        "1 prompt cannot be screened (empty: there is nothing to compare with the empty prompt): "
        "an `error`, and no verdict.",
        "1 prompt is to the model the same as an earlier one of the list, and counted with it.",
    ]


def test_any_dependence_flags_less(files: tuple[Path, Path]) -> None:
    detector, _ = known(SCORES, BENIGN)
    found, told = run(detector, files, dependent=True)  # against .0044 .0088 .0131 .0175 .0219
    assert found.flagged == 0
    assert "3 or more at a time" in told[3]


def test_repetitions_count_once(tmp_path: Path) -> None:
    """A thousand copies of a memorised prompt do not make a benign one look worse."""
    detector, backend = known({"hot": 5.0, "warm": 0.975}, BENIGN)
    path = text(tmp_path / "p.jsonl", ["hot"] * 1000 + ["warm", "cold"])
    found, _ = run(detector, (path, tmp_path / "r.jsonl"))
    assert (found.prompts, found.distinct, found.flagged) == (1002, 3, 1)
    assert backend.calls == 1
    table = rows(tmp_path / "r.jsonl")
    assert [row["flagged"] for row in table] == [True] * 1000 + [False, False]


def test_what_is_the_same_to_the_model_is_one_finding(tmp_path: Path) -> None:
    """A caption in 118 spellings buys no finding for one that is nearly as high."""
    long = "a " * 75
    spelt = [f"{' ' * k}{text}" for text in ("hot", "HOT", "Hot\n") for k in range(1, 40)]
    detector, backend = known({"hot": 5.0, "warm": 0.975, long: 0.5}, BENIGN)
    given = ["warm", "hot", *spelt, long, f"{long} dog", f"{long} cat", "cold"]
    path = text(tmp_path / "p.jsonl", given)
    found, told = run(detector, (path, tmp_path / "r.jsonl"))
    assert (found.prompts, found.distinct, found.flagged, found.repeated) == (123, 4, 1, 119)
    assert (found.truncated, backend.calls) == (1, 1)
    table = rows(tmp_path / "r.jsonl")
    assert [row["prompt"] for row in table] == given
    assert [row["flagged"] for row in table] == [False] + [True] * 118 + [False] * 4
    assert [row["truncated"] for row in table[-4:]] == [False, True, True, False]
    assert told == [
        f"{path}: 123 prompts.",
        "119 prompts are to the model the same as an earlier one of the list, and counted with it.",
    ]


@pytest.mark.parametrize("named_by", ["text", "tokens"])
def test_what_is_read_literally_and_what_was_calibrated_on_is_said(
    tmp_path: Path, named_by: Named
) -> None:
    detector, _ = known({}, BENIGN)
    path = text(tmp_path / "p.jsonl", ["(a cat:1.2)", "rain", "a {red|blue} dog", "sun"])
    name = digest("rain") if named_by == "text" else name_of(TOKENIZER.digests(["Rain "])[0])
    numbered = {name: 0.5} | {str(n): score for n, score in enumerate(BENIGN)}
    made = Calibration.of(detector.setting(), numbered, fpr=0.5, delta=0.5, named_by=named_by)
    detector.calibration = CalibrationFile((made,))
    found, told = run(detector, (path, tmp_path / "r.csv"), report_to=tmp_path / "r.html")
    assert (found.weighted, found.calibrated) == (2, 1)
    weight, calibrated, choice, nothing = (row["notes"] for row in rows(tmp_path / "r.csv"))
    assert "makes weights of it" in weight
    assert "puts one of several texts in its place" in choice
    assert "its p-value is no evidence" in calibrated
    assert nothing is None
    assert told[1].startswith("1 distinct prompt is one that the calibration was made with")
    assert told[2].startswith("2 distinct prompts hold signs")
    page = (tmp_path / "r.html").read_text()
    assert "among the prompts of the calibration" in page
    assert "with signs that some pipelines make weights" in page


def test_truncated_prompts_are_counted(tmp_path: Path) -> None:
    detector, _ = known({}, BENIGN)
    path = text(tmp_path / "p.jsonl", ["a", "a " * 100])
    found, _ = run(detector, (path, tmp_path / "r.csv"))
    assert found.truncated == 1
    assert [row["truncated"] for row in rows(tmp_path / "r.csv")] == [False, True]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_every_ending_says_the_same(files: tuple[Path, Path], ending: str) -> None:
    detector, _ = known(SCORES, BENIGN)
    run(detector, files)
    other = files[1].with_suffix(ending)
    run(detector, (files[0], other))
    assert rows(other) == rows(files[1])


def test_the_same_twice(files: tuple[Path, Path], tmp_path: Path) -> None:
    detector, _ = known(SCORES, BENIGN)
    results = []
    for _ in range(2):
        run(detector, files, report_to=tmp_path / "r.html")
        results.append((files[1].read_bytes(), (tmp_path / "r.html").read_bytes()))
    assert results[0] == results[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.jsonl", "r.html", "r.jsonl"]


def test_results_and_report_are_of_one_audit(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector, _ = known(SCORES, BENIGN)
    page = tmp_path / "r.html"
    run(detector, files, report_to=page)
    before = files[1].read_bytes(), page.read_bytes()

    def full(*_: object) -> None:
        raise InputError("no room")

    for place in ("table.write", "report.page"):
        with monkeypatch.context() as patch:
            patch.setattr(f"mnemoscope.audit.auditing.{place}", full)
            with pytest.raises(InputError, match="no room"):
                run(detector, files, report_to=page, fdr=0.5)
        assert (files[1].read_bytes(), page.read_bytes()) == before
    run(detector, files, report_to=page, fdr=0.5)
    assert page.read_bytes() != before[1]


def test_the_report_shows_groups_the_worst_first(files: tuple[Path, Path], tmp_path: Path) -> None:
    detector, _ = known(SCORES, BENIGN)
    run(detector, files, report_to=tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    places = [page.index(f"<td>{p}</td>") for p in ("a red rocket", "A red rocket!", "an old ship")]
    assert places == sorted(places)
    assert "<td>rain</td>" not in page


def test_the_report_shows_the_highest_scores_if_nothing_is_flagged(tmp_path: Path) -> None:
    prompts = [f"prompt {n}" for n in range(30)]
    detector, _ = known({prompt: n / 100 for n, prompt in enumerate(prompts)}, BENIGN)
    files = text(tmp_path / "p.jsonl", prompts), tmp_path / "r.jsonl"
    found, _ = run(detector, files, report_to=tmp_path / "r.html")
    assert (found.flagged, found.groups) == (0, 0)
    page = (tmp_path / "r.html").read_text()
    shown = [prompt for prompt in prompts if f"<td>{prompt}</td>" in page]
    assert shown == prompts[10:]


def test_only_so_many_flagged_prompts_are_grouped(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "GROUPED", 1)
    detector, _ = known(SCORES, BENIGN)
    found, told = run(detector, files)
    assert (found.flagged, found.groups) == (3, 1)
    assert [row["group"] for row in rows(files[1])].count(1) == 1
    assert told[3] == "only the 1 highest scores of the 3 flagged prompts are grouped."


# what is measured is kept


def _note(steps: list[tuple[int, int]], done: int, total: int) -> None:
    steps.append((done, total))


def test_a_stop_anywhere_and_a_resumption_give_the_same_bytes(tmp_path: Path) -> None:
    prompts = [f"prompt {n}" for n in range(150)]
    files = text(tmp_path / "p.jsonl", prompts), tmp_path / "r.jsonl"
    scores = {prompt: n / 75 for n, prompt in enumerate(prompts)}
    detector, backend = known(scores, BENIGN)
    run(detector, files)
    whole, calls = files[1].read_bytes(), backend.calls
    files[1].unlink()
    for stop in (1, 2, 4):
        broken, _ = known(scores, BENIGN)
        screen, done = broken.screen, 0

        def stopping(batch: Any, stop: int = stop, screen: Any = screen, **options: Any) -> Any:
            nonlocal done
            done += 1
            if done > stop:
                raise KeyboardInterrupt
            return screen(batch, **options)

        broken.screen = stopping  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            run(broken, files)
        assert not files[1].exists()
        detector, backend = known(scores, BENIGN)
        steps: list[tuple[int, int]] = []
        progress = partial(_note, steps)
        _, told = run(detector, files, progress=progress)
        assert told[-1].startswith(f"going on after {32 * stop} of 150 distinct prompts in ")
        assert steps[0] == (32 * stop, 150)
        assert steps[-1] == (150, 150)
        assert backend.calls < calls
        assert files[1].read_bytes() == whole
        assert not (tmp_path / "r.jsonl.partial").exists()
        files[1].unlink()


def full_disk(*_: object) -> None:
    raise InputError("r.jsonl cannot be written: the disk is full.")


def test_another_rate_may_be_asked_for_after_a_stop(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measurements do not depend on it."""
    detector, _ = known(SCORES, BENIGN)
    with monkeypatch.context() as patch:
        patch.setattr(module.table, "write", full_disk)
        with pytest.raises(InputError, match="cannot be written"):
            run(detector, files)
    detector, backend = known(SCORES, BENIGN)
    found, _ = run(detector, files, fdr=0.5)
    assert backend.calls == 0
    assert found.fdr == 0.5


def test_another_list_does_not_take_over_measurements(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector, _ = known(SCORES, BENIGN)
    with monkeypatch.context() as patch:
        patch.setattr(module.table, "write", full_disk)
        with pytest.raises(InputError, match="cannot be written"):
            run(detector, files)
    text(files[0], [*PROMPTS, "one more"])
    with pytest.raises(InputError, match=r"r\.jsonl\.partial belongs to another audit \(input was"):
        run(detector, files)
    found, _ = run(detector, files, restart=True)
    assert found.distinct == 6


def test_a_score_that_is_nan_is_an_error_and_what_came_before_is_kept(tmp_path: Path) -> None:
    prompts = [f"prompt {n}" for n in range(70)]
    files = text(tmp_path / "p.jsonl", prompts), tmp_path / "r.jsonl"
    detector, _ = known({"prompt 66": float("nan")}, BENIGN)
    with pytest.raises(NumericsError, match=r"prompt 2 is NaN.*from distinct prompt 64.*partial"):
        run(detector, files)
    assert not files[1].exists()
    assert len((tmp_path / "r.jsonl.partial").read_bytes().splitlines()) == 3


def test_a_file_that_changes_meanwhile_is_an_error(files: tuple[Path, Path]) -> None:
    detector, _ = known(SCORES, BENIGN)
    with pytest.raises(InputError, match="was changed while it was audited"):
        run(detector, files, progress=lambda *_: text(files[0], PROMPTS[::-1]) and None)
    assert [path.name for path in files[0].parent.iterdir()] == ["p.jsonl"]


# what is wrong comes out before anything is measured


def test_no_calibration_of_the_setting(files: tuple[Path, Path]) -> None:
    for calibration in (None, CalibrationFile(())):
        detector, _ = known(SCORES, BENIGN)
        detector.calibration = calibration
        with pytest.raises(
            CalibrationError, match=r"`mnemoscope.calibrate\(detector, benign\)` makes"
        ):
            run(detector, files)
    detector, _ = known(SCORES, BENIGN)
    with pytest.raises(CalibrationError, match=r"at 1 step on 1 noise"):
        run(detector, files, noises=1)
    assert not list(files[0].parent.glob("r.*"))


def test_a_calibration_that_could_never_flag_anything(files: tuple[Path, Path]) -> None:
    detector, backend = known(SCORES, BENIGN[:10])
    with pytest.raises(CalibrationError, match="nothing would ever be flagged"):
        run(detector, files)
    assert backend.calls == 0
    assert not list(files[0].parent.glob("r.*"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fdr": 0.0}, "A false-discovery rate lies between 0 and 1"),
        ({"fdr": float("nan")}, "A false-discovery rate lies between 0 and 1"),
        ({"noises": 99}, "This bundle has 4 noises, 99 cannot be used"),
        ({"steps": True}, "steps is True"),
        ({"output": "r.txt"}, "Results are not written as r.txt"),
        ({"output": "p.jsonl"}, "Name different files"),
        ({"report_to": "r.jsonl"}, "Name different files"),
        ({"report_to": "none/r.html"}, "there is no folder none"),
        ({"output": "none/r.csv"}, "there is no folder none"),
        ({"output": "folder.csv"}, "is a folder"),
        ({"report_to": 5}, "report_to is 5"),
        ({"column": "x", "file": "p.csv"}, "has no column x"),
    ],
)
def test_options_that_cannot_be_used(
    files: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    words: str,
) -> None:
    monkeypatch.chdir(files[0].parent)
    Path("p.csv").write_text("prompt\na\n")
    Path("folder.csv").mkdir()
    detector, backend = known(SCORES, BENIGN)
    file, output = options.pop("file", "p.jsonl"), options.pop("output", "r.jsonl")
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    with pytest.raises(InputError, match=words):
        audit(detector, file, output, **options)
    after = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    assert after == before
    assert backend.calls == 0


@pytest.mark.parametrize("package", ["scipy.stats", "sklearn.feature_extraction.text"])
def test_what_is_not_installed(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    detector, backend = known(SCORES, BENIGN)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendUnavailable, match=r"'\.\[calibrate\]"):
        run(detector, files)
    assert backend.calls == 0


def test_broken_rows_stop_nothing(tmp_path: Path) -> None:
    """Each has an error of its own, in every kind of results, and the count is the file's."""
    lines = ['"a red rocket"', '"\\ud800 half"', "{", '{"id": 1}', '{"prompt": null}', '"rain"']
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(lines))
    detector, _ = known(SCORES, BENIGN)
    found, told = run(detector, (path, tmp_path / "r.jsonl"))
    assert (found.prompts, found.distinct, found.flagged) == (len(lines), 2, 1)
    errors = [row["error"] for row in rows(tmp_path / "r.jsonl")]
    assert errors == [
        *(None, "half of a surrogate pair: no character", "not JSON", "no prompt"),
        *("no prompt: null", None),
    ]
    assert sum(found.errors.values()) == 4
    assert sum("cannot be screened" in note for note in told) == 4
    for ending in (".csv", ".parquet"):
        run(detector, (path, tmp_path / f"r{ending}"))
        assert rows(tmp_path / f"r{ending}") == rows(tmp_path / "r.jsonl")
