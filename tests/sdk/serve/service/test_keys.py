from __future__ import annotations

import hmac
from pathlib import Path

import pytest

from mnemoscope import InputError
from mnemoscope.serve.service.keys import Keys

KEY, OTHER = "k" * 16, "0123456789abcdef!"


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "keys.txt"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_keys_of_a_file(tmp_path: Path) -> None:
    keys = Keys.read(written(tmp_path, f"# of two clients\n\n{KEY}\nstudio: {OTHER} \n", 0o640))
    assert keys.whose(f"Bearer {KEY}") == ""
    assert keys.whose(f"bearer {OTHER}") == "studio"


@pytest.mark.parametrize(
    "shown",
    [
        *(None, "", "Bearer", "Bearer ", KEY, f"Basic {KEY}", f"Bearer {KEY}x"),
        *(
            f"Bearer {KEY[:-1]}",
            "Bearer studio",
            f"Bearer studio:{OTHER}",
            "Bearer \xff",
            "Bearer #",
        ),
    ],
)
def test_what_is_no_key(tmp_path: Path, shown: str | None) -> None:
    assert Keys.read(written(tmp_path, f"{KEY}\nstudio:{OTHER}")).whose(shown) is None


def test_keys_are_not_kept_and_each_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = Keys.read(written(tmp_path, f"{KEY}\n{OTHER}"))
    assert KEY not in repr(keys)
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def noting(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", noting)
    for shown in (KEY, OTHER, "x"):
        keys.whose(f"Bearer {shown}")
        assert {len(each) for pair in compared for each in pair} == {32}
    assert len(compared) == 6


@pytest.mark.parametrize("mode", [0o400, 0o440])
def test_what_a_cluster_mounts_for_one_group_is_read(tmp_path: Path, mode: int) -> None:
    assert Keys.read(written(tmp_path, KEY, mode)).whose(f"Bearer {KEY}") == ""


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o444])
def test_what_everybody_may_open_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(InputError, match=r"Everybody .* chmod o= "):
        Keys.read(written(tmp_path, KEY, mode))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no keys"),
        ("# none\n", "holds no keys"),
        (f"{KEY}\nshort", "Line 2 "),
        (f"{KEY} {KEY}", "Line 1 "),
        ("name:", "Line 1 "),
        (f"{KEY}\n:{OTHER}", "Line 2 .* has no name"),
        (f"the studio:{OTHER}", "Line 1 .* has no name"),
        (f"{'x' * 101}:{OTHER}", "Line 1 .* has no name"),
        ("ключ" * 8, "Line 1 "),
    ],
)
def test_files_without_keys(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        Keys.read(written(tmp_path, text))
    assert KEY not in str(caught.value)
    assert OTHER not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="cannot be read"):
            Keys.read(path)
