"""Plans and caches that somebody else made: they contain programs, and none of theirs may run."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_support import Run
from engine_support import Put, ids, screen
from fake_gpu import FakeTensorRt, magnitude

from mnemoscope import embedded
from mnemoscope_runtime import BackendError, Bundle, IntegrityError, SignatureError
from mnemoscope_runtime.backends.cover import Profile
from mnemoscope_runtime.backends.onnxruntime_gpu.kept import kept_folder
from mnemoscope_runtime.backends.tensorrt import build, find_plan, folder_of, keys
from mnemoscope_runtime.backends.tensorrt.backend import TensorRt
from mnemoscope_runtime.user_cache import cache_folder, is_sealed, private_folder, seal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")
Change = Callable[[Path], object]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("MNEMOSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on this is another user, with a cache of his own."""
    return lambda: monkeypatch.setenv("MNEMOSCOPE_CACHE", str(tmp_path / "theirs"))


def sidecar(plan: Path) -> Path:
    return plan.with_name(f"{plan.name}.json")


def edit(plan: Path, change: Callable[[dict[str, Any]], None]) -> None:
    fields = json.loads(sidecar(plan).read_bytes())
    change(fields)
    sidecar(plan).write_text(json.dumps(fields))


def to_link(path: Path) -> None:
    """The same, by way of a link."""
    path.rename(path.with_name("aside"))
    path.symlink_to("aside")


@pytest.fixture
def unused(fake_trt: FakeTensorRt, monkeypatch: pytest.MonkeyPatch) -> None:
    """No plan may reach the library."""
    assert fake_trt is sys.modules["tensorrt"]
    reached = "mnemoscope_runtime.backends.tensorrt.backend.deserialize"
    monkeypatch.setattr(reached, lambda *_: pytest.fail("a plan was loaded"))


@pytest.mark.usefixtures("unused")
def test_a_plan_of_somebody_else(
    put: Put, shipped: Bundle, tmp_path: Path, theirs: Callable[[], None]
) -> None:
    put("1")
    theirs()
    with pytest.raises(IntegrityError, match=r"not sealed by this user.*mnemoscope build"):
        TensorRt(engines=tmp_path).load(shipped, "screen")
    seal(b"a secret of his own")
    with pytest.raises(IntegrityError, match="not sealed by this user"):
        TensorRt(engines=tmp_path).load(shipped, "screen")


@pytest.mark.usefixtures("unused")
@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields["key"].update(flags=["version-compatible"]),
        lambda fields: fields["key"].update(gpu="any"),
        lambda fields: fields.update(driver="1.0"),
        lambda fields: fields["file"].update(bytes=1),
        lambda fields: fields.update(seal=""),
        lambda fields: fields.update(seal="é"),
        lambda fields: fields.update(seal=fields["seal"].upper()),
    ],
    ids=["host code", "gpu", "driver", "size", "no seal", "odd seal", "another seal"],
)
def test_a_sidecar_that_was_changed(
    put: Put, shipped: Bundle, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    edit(put("1"), change)
    with pytest.raises(IntegrityError, match="not sealed by this user"):
        TensorRt(engines=tmp_path).load(shipped, "screen")


@pytest.mark.usefixtures("fake_trt")
def test_flipped_bits(put: Put, tmp_path: Path) -> None:
    plan = put("1")
    (_, key), *_ = keys(tmp_path)
    assert not isinstance(key, Exception)
    refused = 0
    for file in (plan, sidecar(plan)):
        content = file.read_bytes()
        for place in range(len(content) % 7, len(content), 7):
            changed = bytearray(content)
            changed[place] ^= 1 << place % 8
            file.write_bytes(changed)
            try:
                found = find_plan(tmp_path, key, lambda _: key)
            except (BackendError, IntegrityError):
                refused += 1
            else:  # white space
                assert found == (key, plan.read_bytes())
        file.write_bytes(content)
    assert refused > 100


@pytest.mark.usefixtures("unused")
def test_plans_beside_a_bundle_are_not_looked_at(put: Put, tmp_path: Path) -> None:
    copy = shutil.copytree(embedded.BUNDLE, tmp_path / "bundle")
    plan = put("1")
    (copy / "engines").mkdir()
    for file in (plan, sidecar(plan)):
        shutil.copy(file, copy / "engines")
    with pytest.raises(BackendError, match=r"There is no plan of screen in .*cache"):
        TensorRt().load(Bundle.open(copy), "screen")


@pytest.mark.usefixtures("fake_trt")
def test_what_is_built_lies_in_the_cache(
    put: Put,
    shipped: Bundle,
    cache: Path,
    theirs: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And one of somebody else's is built again."""
    plan = put("1").read_bytes()
    built: list[str] = []
    monkeypatch.setattr(build, "_plan", lambda *told: built.append(told[2]) or plan)
    options = build.BuildOptions(profiles=(Profile.parse("1"),))

    def make() -> Path:
        return build.build_plan(shipped, "screen", backend="tensorrt", options=options)

    assert make().parent == make().parent == cache / "plans" / shipped.id
    assert len(built) == 1
    screen(TensorRt().load(shipped, "screen"), ids(1), 1)
    (cache / "plans").rename(cache.parent / "stolen")
    theirs()
    (cache.parent / "theirs").mkdir(0o700)
    (cache.parent / "stolen").rename(cache.parent / "theirs" / "plans")
    make()
    assert len(built) == 2


def test_plans_that_are_signed(
    put: Put, tmp_path: Path, run: Run, theirs: Callable[[], None]
) -> None:
    pytest.importorskip("cryptography")
    copy = shutil.copytree(embedded.BUNDLE, tmp_path / "bundle")
    key, trusted = tmp_path / "key", tmp_path / "key.pub"
    plan = put("1")
    assert run("keygen", key).code == 0
    result = run("sign", copy, "--key", key, "--engines", tmp_path)
    assert f"signature {sidecar(plan)}.sig" in result.out.replace("\n", "")
    theirs()
    bundle = Bundle.open(copy, trust=trusted)
    engine = TensorRt(engines=tmp_path).load(bundle, "screen")
    np.testing.assert_array_equal(screen(engine, ids(2), 1), magnitude(ids(2), np.arange(1)))
    with pytest.raises(IntegrityError, match="not sealed by this user"):
        TensorRt(engines=tmp_path).load(Bundle.open(copy), "screen")
    edit(plan, lambda fields: fields["key"].update(flags=["version-compatible"]))
    with pytest.raises(SignatureError, match="the file was changed after it was signed"):
        TensorRt(engines=tmp_path).load(bundle, "screen")


def test_only_plans_of_ones_own_are_signed(
    put: Put, tmp_path: Path, run: Run, theirs: Callable[[], None]
) -> None:
    pytest.importorskip("cryptography")
    copy = shutil.copytree(embedded.BUNDLE, tmp_path / "bundle")
    put("1")
    theirs()
    assert run("keygen", tmp_path / "key").code == 0
    for folder, words in ((tmp_path, "not sealed by this user"), (copy, "holds no plans of")):
        result = run("sign", copy, "--key", tmp_path / "key", "--engines", folder)
        assert words in result.err
    assert not list(copy.glob("*.sig"))


# the cache


def _owned(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root gives files away")
    os.chown(path, 12345, -1)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.chmod(0o777), r"open to others \(mode 0777\)"),
        (lambda path: path.chmod(0o720), r"open to others \(mode 0720\)"),
        (_owned, r"belongs to another user \(12345\)"),
        (to_link, "no folder"),
        (lambda path: (shutil.rmtree(path), path.write_text("")), "no folder|File exists|Not a"),
    ],
    ids=["all", "group", "owner", "link", "file"],
)
@pytest.mark.parametrize("names", [(), ("plans",), ("plans", "ab")], ids=str)
def test_a_cache_where_others_may_write(spoil: Change, why: str, names: tuple[str, ...]) -> None:
    assert folder_of("ab", None, make=True).stat().st_mode & 0o777 == 0o700
    spoil(cache_folder(*names))
    with pytest.raises(BackendError, match=why):
        private_folder("plans", "ab")
    with pytest.raises(BackendError, match=f"{why}|no folder"):
        folder_of("ab", None)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.chmod(0o640), r"open to others \(mode 0640\)"),
        (_owned, "belongs to another user"),
        (lambda path: path.write_bytes(b"short"), "damaged"),
        (lambda path: path.write_bytes(b"l" * 33), "cannot be read: it has more than 32 bytes"),
        (to_link, "no file"),
        (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "a device or a pipe"),
    ],
    ids=["mode", "owner", "short", "long", "link", "folder", "pipe"],
)
def test_a_secret_that_is_none(spoil: Change, why: str) -> None:
    sealed = seal(b"plan")
    spoil(cache_folder("secret"))
    with pytest.raises(BackendError, match=f"{why}.*Delete it"):
        is_sealed(b"plan", sealed)
    with pytest.raises(BackendError, match=why):
        seal(b"plan")


def test_a_seal_is_of_these_bytes_and_this_secret(theirs: Callable[[], None]) -> None:
    assert not is_sealed(b"plan", "")  # there is no secret yet
    assert not cache_folder().exists()
    sealed = seal(b"plan")
    assert is_sealed(b"plan", sealed)
    assert not is_sealed(b"plam", sealed)
    assert cache_folder("secret").stat().st_mode & 0o777 == 0o600
    theirs()
    assert not is_sealed(b"plan", sealed)


def test_many_at_once_make_one_secret() -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(seal, [b"plan"] * 32))) == 1
    assert [path.name for path in cache_folder().iterdir()] == ["secret"]


@pytest.mark.parametrize(
    ("system", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/mnemoscope"),
        ("linux", {"XDG_CACHE_HOME": "x"}, "~/.cache/mnemoscope"),
        ("linux", {}, "~/.cache/mnemoscope"),
        ("darwin", {}, "~/Library/Caches/mnemoscope"),
        ("linux", {"MNEMOSCOPE_CACHE": "/mine"}, "/mine"),
    ],
)
def test_where_the_cache_is(
    system: str, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MNEMOSCOPE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("mnemoscope_runtime.user_cache.sys.platform", system)
    assert cache_folder() == Path(expected).expanduser()


# what ONNX Runtime's TensorRT provider keeps


def kept(folder: Path) -> list[str]:
    """What the provider finds; it then has two files there."""
    with kept_folder(folder) as given:
        found = sorted(path.name for path in given.iterdir())
        for name in ("engine", "timing"):
            (given / name).write_text("built here")
    return found


THERE = ["engine", "sealed.json", "timing"]


def test_what_was_kept_is_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "provider" / "screen"
    assert kept(folder) == []
    assert kept(folder) == THERE
    assert [path.name for path in folder.parent.iterdir()] == ["screen"]


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "engine").write_text("a program"),
        lambda folder: (folder / "another").write_text("a program"),
        lambda folder: (folder / "engine").unlink(),
        lambda folder: (folder / "more").mkdir(),
        lambda folder: to_link(folder / "engine"),
        lambda folder: (folder / "sealed.json").unlink(),
        lambda folder: (folder / "sealed.json").write_text("[" * 10**5),
        lambda folder: (folder / "sealed.json").write_text('{"files": {}, "seal": 1}'),
        lambda folder: folder.rename(folder.with_name("aside")),
    ],
    ids=range(9),
)
def test_what_others_left_is_not_run(tmp_path: Path, change: Change) -> None:
    folder = tmp_path / "provider" / "screen"
    kept(folder)
    change(folder)
    assert kept(folder) == []
    assert kept(folder) == THERE


def test_what_was_kept_of_another_graph(tmp_path: Path, theirs: Callable[[], None]) -> None:
    folder = tmp_path / "provider" / "screen"
    kept(folder)
    shutil.copytree(folder, folder.with_name("step"))
    assert kept(folder.with_name("step")) == []
    theirs()
    assert kept(folder) == []


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "provider" / "screen"
    with pytest.raises(OSError, match="of the provider"), kept_folder(folder):
        raise OSError("of the provider")
    assert list(folder.parent.iterdir()) == []
    folder.parent.chmod(0o777)
    with pytest.raises(BackendError, match="open to others"):
        kept(folder)
