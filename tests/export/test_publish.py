"""Where a staged bundle goes; faults on the way are in tests/attacks/test_fault_injection.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mnemoscope import ExportError
from mnemoscope_export import publish
from mnemoscope_export.publish import published_at
from mnemoscope_runtime.bundle import MANIFEST


def export(out: Path, text: str, *, overwrite: bool = True) -> None:
    with published_at(out, overwrite) as folder:
        (folder / MANIFEST).write_text(text)


@pytest.mark.skipif(sys.platform != "linux", reason="needs renameat2")
def test_two_names_are_exchanged_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(tmp_path / "out", "old")
    monkeypatch.setattr(Path, "rename", lambda *_: pytest.fail("in two steps"))
    export(tmp_path / "out", "new")
    assert (tmp_path / "out" / MANIFEST).read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_kill_between_two_renames_left_is_put_back(tmp_path: Path) -> None:
    out, aside = tmp_path / "out", tmp_path / ".mnemoscope-out.replaced"
    export(out, "old")
    out.rename(aside)
    with pytest.raises(ExportError, match="exists already"):
        export(out, "new", overwrite=False)
    assert (out / MANIFEST).read_text() == "old"
    out.rename(aside)
    export(out, "new")
    assert (out / MANIFEST).read_text() == "new"
    aside.mkdir()  # killed while the old one was being deleted
    export(out, "newer")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_link_stays_and_the_bundle_it_leads_to_is_replaced(tmp_path: Path) -> None:
    link, out = tmp_path / "link", tmp_path / "there" / "out"
    link.symlink_to(out)
    export(link, "old", overwrite=False)
    export(link, "new")
    assert link.is_symlink()
    assert (out / MANIFEST).read_text() == "new"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_system_without_exchange(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(publish.ctypes, "CDLL", lambda _: object())
    assert not publish._exchange(tmp_path, tmp_path)
    export(tmp_path / "out", "old")
    export(tmp_path / "out", "new")
    assert (tmp_path / "out" / MANIFEST).read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
