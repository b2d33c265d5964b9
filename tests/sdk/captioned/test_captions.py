"""Captions that are files of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mnemoscope.captioned import Broken
from mnemoscope.captioned.captions import LONGEST, as_caption, caption_of


def test_white_space_and_a_mark_are_left_out() -> None:
    assert as_caption(b"\xef\xbb\xbf a caf\xc3\xa9\r\n") == "a café"
    assert as_caption("one\u2028line".encode()) == "one\u2028line"
    assert as_caption(b"") == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"caf\xe9", "not UTF-8"),
        ("a".encode("utf-16"), "not text: it holds a NUL"),
        (b"a" * (LONGEST + 1), "longer than 1,048,576 bytes"),
    ],
)
def test_what_is_no_caption(content: bytes, reason: str) -> None:
    found = as_caption(content)
    assert isinstance(found, Broken)
    assert found.reason == reason


def test_files(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    root = tmp_path / "set"
    (root / "a.txt").write_text("a caption\n")
    assert caption_of(root, root / "a.txt") == "a caption"
    (tmp_path / "secret.txt").write_text("secret")
    (root / "b.txt").symlink_to(tmp_path / "secret.txt")
    os.mkfifo(root / "c.txt")
    for name in ("b.txt", "c.txt", "d.txt"):
        found = caption_of(root, root / name)
        assert isinstance(found, Broken)
        assert name in found.detail
