"""Audits of files that were handed to the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mnemoscope import InputError, embedded
from mnemoscope.audit import audit
from mnemoscope.ui import UiOptions
from mnemoscope.ui.desk import Desk
from mnemoscope.ui.listing import Audited, audit_file
from mnemoscope.ui.runs import Run, Stopped
from mnemoscope.ui.showing import audit_card, rows_card
from mnemoscope_runtime.tokenizer import LONGEST_PROMPT

MEMORISED = [row.prompt for row in embedded.read_prompts("memorized")[:8]]
BENIGN = [row.prompt for row in embedded.read_prompts("held_out")[:8]]


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with Desk(UiOptions(noises=1)) as opened:
        yield opened


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("listing") / "prompts.txt"
    path.write_text(
        "\n".join([*MEMORISED, *BENIGN, MEMORISED[0], "a" * (LONGEST_PROMPT + 1)]) + "\n"
    )
    return path


@pytest.fixture(scope="module")
def audited(desk: Desk, file: Path) -> Audited:
    run: Run[Audited] = Run(
        lambda run: audit_file(desk, desk.first, file, "", 0.05, run), "auditing"
    )
    list(run.steps())
    return run.result()


def test_it_is_the_audit_that_the_command_makes(
    audited: Audited, desk: Desk, file: Path, tmp_path: Path
) -> None:
    expected = audit(
        desk.detector(desk.first), file, tmp_path / "results.csv", noises=1, tell=lambda _: None
    )
    assert audited.audit == expected
    assert audited.results == (tmp_path / "results.csv").read_bytes()
    assert expected.verdict in audited.report.decode()
    for said in (audited.report.decode(), *audited.notes):
        assert str(file.parent) not in said  # where this machine has put it is nobody's business


def test_rows_are_chosen(audited: Audited) -> None:
    flagged = audited.select("Flagged", "")
    assert len({row.prompt for row in flagged}) == audited.audit.flagged
    assert {MEMORISED[0]} < {row.prompt for row in flagged}
    scores = [row.score for row in flagged if row.score is not None]
    assert scores == sorted(scores, reverse=True)
    assert [row.prompt for row in audited.select("All", f" {BENIGN[0].upper()}")] == [BENIGN[0]]
    [unread] = audited.select("Not screened", "")
    assert unread.error is not None
    clean = audited.select("Not flagged", "")
    assert len(flagged) + len(clean) + 1 == len(audited.select("All", "")) == 18


def test_what_is_shown(audited: Audited) -> None:
    card = audit_card(audited)
    assert f"{audited.audit.flagged} of 16 distinct prompts flagged" in card
    assert 'download="prompts-results.csv"' in card
    rows = rows_card(audited.select("All", "") * 4, "All")
    assert rows.count("<li>") == 50
    assert "22 more" in rows


def test_it_can_be_stopped_and_leaves_nothing(
    desk: Desk, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run: Run[Audited] = Run(lambda run: audit_file(desk, desk.first, file, "", 0.05, run), "a")
    run.stop()
    list(run.steps())
    with pytest.raises(Stopped):
        run.result()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_audited(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    run: Run[Audited] = Run(
        lambda run: audit_file(desk, desk.first, tmp_path / "a.csv", "c", 0.05, run), "a"
    )
    list(run.steps())
    with pytest.raises(InputError, match="column"):
        run.result()
