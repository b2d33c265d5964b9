"""Staging by itself; whatever writers make of it is in tests/attacks/test_fault_injection.py."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mnemoscope_runtime import staging
from mnemoscope_runtime.staging import (
    check_folder,
    hold,
    replace_file,
    replacing,
    staging_folder,
    unfinished,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")
DEAD = ".mnemoscope-0123456789abcdef.staged"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_nobody_holds_is_swept(tmp_path: Path) -> None:
    (tmp_path / DEAD).write_bytes(b"half")
    folder = tmp_path / DEAD.replace("0", "1")
    (folder / "bundle").mkdir(parents=True)
    (folder / "bundle" / "model.weights").write_bytes(b"half")
    replace_file(tmp_path / "a", b"new")
    assert names(tmp_path) == {"a"}


@pytest.mark.slow
def test_what_a_live_process_holds_stays_until_it_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mnemoscope_runtime.staging import *\n"
        "with replacing(Path('theirs')) as file, staging_folder(Path()) as folder:\n"
        "    (folder / 'part').touch(); file.write(b'half'); file.flush()\n"
        "    print('staged', flush=True); sys.stdin.read()"
    )
    theirs = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert theirs.stdout is not None
    assert theirs.stdout.readline() == b"staged\n"
    replace_file(tmp_path / "mine", b"new")
    assert len(names(tmp_path)) == 3
    theirs.kill()
    theirs.communicate()
    assert len(names(tmp_path)) == 3
    replace_file(tmp_path / "mine", b"newer")
    assert names(tmp_path) == {"mine"}


def test_others_in_a_folder_for_all_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (tmp_path / DEAD).symlink_to("precious")
    (tmp_path / DEAD.replace("0", "2")).symlink_to("precious/file")
    os.mkfifo(tmp_path / DEAD.replace("0", "1"))
    (tmp_path / ".mnemoscope-calibrated").touch()
    before = names(tmp_path)
    replace_file(tmp_path / "a", b"new")
    assert names(tmp_path) == before | {"a"}
    assert names(tmp_path / "precious") == {"file"}


def test_what_another_user_left_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / DEAD).touch()
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    check_folder(tmp_path)
    assert names(tmp_path) == {DEAD}


def test_where_there_are_no_locks_nothing_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    (tmp_path / DEAD).touch()
    with monkeypatch.context() as patch:
        patch.setattr(staging.fcntl, "flock", none)
        first = replacing(tmp_path / "a")
        first.__enter__().write(b"new")
    with staging_folder(tmp_path) as folder:  # which has locks, and might sweep what is not held
        replace_file(tmp_path / "b", b"new")
        assert folder.is_dir()
    first.__exit__(None, None, None)
    assert names(tmp_path) == {"a", "b"}
    assert (tmp_path / "a").read_bytes() == b"new"


def test_what_is_swept_before_it_is_held_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, swept = staging.fcntl.flock, []

    def sweep_first(descriptor: int, how: int) -> None:
        if len(swept) < 2:
            [new] = names(tmp_path)
            swept.append(new)
            (tmp_path / new).rmdir() if (tmp_path / new).is_dir() else (tmp_path / new).unlink()
            if len(swept) == 2:  # and is being swept
                raise BlockingIOError
        lock(descriptor, how)

    monkeypatch.setattr(staging.fcntl, "flock", sweep_first)
    replace_file(tmp_path / "a", b"new")
    assert len(swept) == 2
    (tmp_path / "a").unlink()
    swept.clear()
    with staging_folder(tmp_path) as folder:
        assert folder.name not in swept
    assert names(tmp_path) == set()


def test_two_that_write_the_same_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with replacing(path) as one, replacing(path) as other:
        one.write(b"one")
        other.write(b"other")
    assert path.read_bytes() == b"one"  # which ended last
    assert names(tmp_path) == {"a"}


def test_permissions_are_those_of_before_or_the_users(tmp_path: Path) -> None:
    path, plain = tmp_path / "a", tmp_path / "plain"
    plain.touch()
    replace_file(path, b"new")
    assert path.stat().st_mode == plain.stat().st_mode
    path.chmod(0o640)
    replace_file(path, b"newer")
    assert path.stat().st_mode & 0o777 == 0o640


def test_what_is_write_protected_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda file, mode: (str(file), mode) != (str(path), os.W_OK))
    with pytest.raises(PermissionError, match="Permission denied"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"a"}


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name in ("file", "new"):
        (tmp_path / f"to {name}").symlink_to(tmp_path / "there" / name)
    (tmp_path / "there" / "file").write_bytes(b"old")
    for name in ("file", "new"):
        replace_file(tmp_path / f"to {name}", b"new")
        assert (tmp_path / f"to {name}").is_symlink()
        assert (tmp_path / "there" / name).read_bytes() == b"new"
    assert names(tmp_path) == {"there", "to file", "to new"}


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    replace_file(pipe, b"new")
    assert os.read(reader, 9) == b"new"
    os.close(reader)
    assert pipe.is_fifo()


def test_a_folder_is_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path, b"new")


def test_names_may_be_as_long_as_the_system_has_them(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 251 + ".csv")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.slow
def test_what_was_written_before_a_kill_is_kept_on_request(tmp_path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path\n"
        "from mnemoscope_runtime.staging import replacing\n"
        "with replacing(Path('a'), keep=True) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert names(tmp_path) == {"a.unfinished"}
    assert unfinished(tmp_path / "a").read_bytes() == b"half"
    replace_kept(tmp_path / "a")
    assert names(tmp_path) == {"a"}
    assert (tmp_path / "a").read_bytes() == b"other"


def test_what_was_written_before_an_error_is_kept_on_request(tmp_path: Path) -> None:
    path = tmp_path / "a"

    def write(text: bytes, *, fail: bool) -> None:
        with replacing(path, keep=True) as file:
            file.write(text)
            if fail:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(b"half", fail=True)
    assert names(tmp_path) == {"a.unfinished"}
    assert unfinished(path).read_bytes() == b"half"
    with replacing(path, keep=True) as file:
        file.write(b"whole")
        for again in (path, tmp_path / "link"):
            if again != path:
                again.symlink_to(path)
            with pytest.raises(BlockingIOError, match="another process is writing it"):
                replace_kept(again)
    assert path.read_bytes() == b"whole"
    assert names(tmp_path) == {"a", "link"}


def replace_kept(path: Path) -> None:
    with replacing(path, keep=True) as file:
        file.write(b"other")


def test_what_is_finished_as_another_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lock = tmp_path / "a", staging.fcntl.flock
    (tmp_path / "a.unfinished").write_bytes(b"theirs, and just finished")

    def finish_first(descriptor: int, how: int) -> None:
        if not path.exists():
            (tmp_path / "a.unfinished").rename(path)
        lock(descriptor, how)

    monkeypatch.setattr(staging.fcntl, "flock", finish_first)
    replace_kept(path)
    assert path.read_bytes() == b"other"
    assert names(tmp_path) == {"a"}


def test_one_at_a_time_holds_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    with path.open("r+b") as one, path.open("r+b") as other:
        assert hold(one.fileno(), path)
        assert not hold(other.fileno(), path)
        one.close()
        path.unlink()
        assert not hold(other.fileno(), path)  # it is no longer there
        path.touch()
        assert not hold(other.fileno(), path)  # and this is another
