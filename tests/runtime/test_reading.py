from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from mnemoscope_runtime.reading import read_file


def test_as_many_bytes_as_it_may_have(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"", b"ab\r\n\x1a"):
        path.write_bytes(content)
        assert read_file(path, len(content)) == content
        assert read_file(str(path), 100) == content
    with pytest.raises(OSError, match="it has more than 4 bytes"):
        read_file(path, 4)


def test_the_end_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a")
    (tmp_path / "link").symlink_to("file")
    assert read_file(tmp_path / "link", 1) == b"a"
    (tmp_path / "file").unlink()
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "link", 1)


@pytest.mark.parametrize("name", ["none", "a\0b"])
def test_no_such_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        read_file(tmp_path / name, 1)
    assert caught.value.strerror == "No such file or directory"


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        read_file(tmp_path, 1)
    with pytest.raises(OSError, match="it is a device or a pipe"):
        read_file("/dev/zero", 1)


def test_nobody_waits_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    found: list[str | None] = []

    def read() -> None:
        try:
            read_file(tmp_path / "pipe", 1)
        except OSError as error:
            found.append(error.strerror)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(5)
    assert found == ["it is a device or a pipe"]


def test_files_are_closed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"ab")
    before = os.listdir("/dev/fd")  # noqa: PTH208
    read_file(tmp_path / "file", 2)
    for most, path in ((1, tmp_path / "file"), (1, tmp_path), (1, Path("/dev/zero"))):
        with pytest.raises(OSError, match=r".+"):
            read_file(path, most)
    assert os.listdir("/dev/fd") == before  # noqa: PTH208
