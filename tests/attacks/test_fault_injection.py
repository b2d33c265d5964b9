"""Whatever fails or ends a writer, at whatever call: the old file or the whole new one."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from faults import calls, failing, killed, limited

from mnemoscope import Calibration, CalibrationFile, Setting
from mnemoscope.audit import table
from mnemoscope.cli._writers import Format, opened, writer
from mnemoscope.drawing.sheets import write_sheet
from mnemoscope.evaluate.paper import Track, written
from mnemoscope.outputs import write_files
from mnemoscope.prompts import Broken
from mnemoscope_export import publish
from mnemoscope_runtime.backends.cover import Profile
from mnemoscope_runtime.backends.tensorrt import PlanKey, write_plan
from mnemoscope_runtime.bundle import MANIFEST
from mnemoscope_runtime.errors import MnemoscopeError
from mnemoscope_runtime.staging import replace_file

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, limits and fork")
KEY = PlanKey(
    *("tensorrt-rtx", "1.7.1", 13, "ab" * 32, "screen", "cd" * 32, ("ef" * 32,), "float16"),
    *((Profile((1, 4), (1, 3)),), "linux-x86_64", "any"),
)


@dataclass(frozen=True)
class Writer:
    """Writes the same files again, in one of two versions, into a folder that is there."""

    write: Callable[[Path, int], object]
    targets: tuple[str, ...]
    kept: tuple[str, ...] = ()  # what else an error may leave, on purpose


def screen(folder: Path, version: int) -> None:
    with opened(folder / "out.csv") as file:
        write = writer(Format.csv, file)
        for row in range(200):
            write(Broken("no prompt", "", f"{version} {row}"))


def calibrate(folder: Path, version: int) -> None:
    scores = {str(i): i / (version + 1) for i in range(100)}
    found = Calibration.of(Setting("b" * 64, "x", "magnitude", 1, 1), scores, fpr=0.1, delta=0.5)
    CalibrationFile((found,)).write(folder / "c.json")


def audit(ending: str) -> Writer:
    def write(folder: Path, version: int) -> None:
        row = ("p" * 500, 1.0 / (version + 1), 0.5, True, 1, False, None, None)
        table.write(folder / f"out{ending}", [row] * 50)

    return Writer(write, (f"out{ending}",))


def follow(folder: Path, version: int) -> None:
    values = np.full((2, 50), version, np.float32)
    list(written([Track("p", values, values, 0.1)] * 20, folder / "m.jsonl"))


def draw(folder: Path, version: int) -> None:
    from PIL import Image

    noise = np.random.default_rng(version).integers(0, 255, (64, 64, 3), np.uint8)
    write_sheet(folder / "x.png", [Image.fromarray(noise)])


def export(folder: Path, version: int) -> None:
    with publish.published_at(folder / "bundle", overwrite=True) as bundle:
        (bundle / "tokenizer").mkdir()
        for name in (MANIFEST, "tokenizer/tokenizer.json", "model.weights"):
            (bundle / name).write_bytes(b"%d" % version * 5_000)


def export_by_renaming(folder: Path, version: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "_exchange", lambda *_: False)
        export(folder, version)


def build(folder: Path, version: int) -> None:
    write_plan(folder, KEY, b"%d" % version * 5_000)


WRITERS = {
    "file": Writer(lambda folder, v: replace_file(folder / "a", b"%d" % v * 5_000), ("a",)),
    "report": Writer(
        lambda folder, v: write_files(folder, dict.fromkeys("abc", b"%d" % v * 5000)),
        ("a", "b", "c"),
    ),
    "screen": Writer(screen, ("out.csv",), ("out.csv.unfinished",)),
    "calibrate": Writer(calibrate, ("c.json",)),
    "audit as csv": audit(".csv"),
    "audit as jsonl": audit(".jsonl"),
    "audit as parquet": audit(".parquet"),
    "evaluate --protocol": Writer(follow, ("m.jsonl",), ("m.jsonl.unfinished",)),
    "generate": Writer(draw, ("x.png",)),
    "build": Writer(build, (KEY.name, f"{KEY.name}.json")),
    "export": Writer(export, ("bundle",)),
    "export without exchange": Writer(
        export_by_renaming, ("bundle",), (".mnemoscope-bundle.replaced",)
    ),
}
KILLED = ("report", "screen", "audit as parquet", "export", "export without exchange")


def content(path: Path) -> object:
    """A file, or all that is in a folder."""
    if path.is_dir():
        return {str(each.relative_to(path)): content(each) for each in path.rglob("*")}
    return path.read_bytes() if path.exists() else None


class Place:
    """A folder with the first version in it, made anew for every fault."""

    def __init__(self, writer: Writer, root: Path) -> None:
        self.writer, self.root = writer, root
        self.folder, self.old, self.new = root / "at", root / "old", root / "new"
        for folder, version in ((self.old, 0), (self.new, 1)):
            folder.mkdir()
            writer.write(folder, version)
        assert content(self.old) != content(self.new)
        self.restore()

    def restore(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.old, self.folder)

    def write(self) -> None:
        self.writer.write(self.folder, 1)

    def sizes(self) -> list[int]:
        most = max(path.stat().st_size for path in self.new.rglob("*") if path.is_file())
        return [0, 1, most // 2, most - 1]

    def check(self, *, whole: bool, killed: bool = False) -> None:
        """Every target is old or new; new if nothing was said, and when it is written again."""
        for name in self.writer.targets:
            found = content(self.folder / name)
            allowed = [content(self.new / name)] + [content(self.old / name)] * (not whole)
            aside = self.folder / f".mnemoscope-{name}.replaced"
            if killed and found is None and aside.name in self.writer.kept:
                found = content(aside)
            assert found in allowed, name
        others = {path.name for path in self.folder.iterdir()} - {*self.writer.targets}
        visible = {name for name in others if not name.endswith((".staged", ".unheld"))}
        assert visible <= {*self.writer.kept}
        self.write()
        assert content(self.folder) == content(self.new)


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory, where a sync costs nothing."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_any_call_may_fail(folder: Path, name: str) -> None:
    place = Place(WRITERS[name], folder)
    made = calls(place.write, place.folder)
    placed = [i for i, call in enumerate(made) if call in ("replace", "rename", "_exchange")]
    assert "fsync" in made[: placed[0]]  # the content
    assert "fsync" in made[placed[-1] :]  # the name
    for number, call in enumerate(made):
        place.restore()
        said = False
        with failing(place.folder, number):
            try:
                place.write()
            except (MnemoscopeError, OSError) as error:
                assert isinstance(error, MnemoscopeError) or name == "file"  # noqa: PT017
                said = "No space left" in str(error)
        if call in ("replace", "rename", "fsync"):  # what is staged is deleted again
            assert not [*place.folder.rglob("*.staged")] or call == "rename"
        place.check(whole=not said)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_any_write_may_fail(folder: Path, name: str) -> None:
    place = Place(WRITERS[name], folder)
    for size in place.sizes():
        place.restore()
        with limited(size), pytest.raises((MnemoscopeError, OSError), match="File too large"):
            place.write()
        place.check(whole=False)


@pytest.fixture(scope="module")
def small() -> Iterator[Executor]:
    """Another process: a fork of this one copies the tables of all that other tests loaded."""
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        yield executor


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
def test_the_process_may_end_anywhere(small: Executor, folder: Path, name: str) -> None:
    small.submit(end_anywhere, folder, name).result()


def end_anywhere(folder: Path, name: str) -> None:
    place = Place(WRITERS[name], folder)
    for call in range(len(calls(place.write, place.folder)) + 1):
        place.restore()
        ended = killed(place.write, place.folder, call=call)
        place.check(whole=not ended, killed=True)
    assert not ended  # there was no such call
    for size in place.sizes():
        place.restore()
        assert killed(place.write, place.folder, size=size)
        place.check(whole=False, killed=True)


@pytest.mark.parametrize("name", ["file", "export"])
def test_an_interrupt_leaves_what_there_was(folder: Path, name: str) -> None:
    place = Place(WRITERS[name], folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            place.write()
    assert content(place.folder) == content(place.old)


def interrupt(_: int) -> None:
    raise KeyboardInterrupt


def test_half_a_file_is_noticed(folder: Path) -> None:
    """That these tests see what they are to see: a writer that writes in place."""
    place = Place(Writer(lambda at, v: (at / "a").write_bytes(b"%d" % v * 5_000), ("a",)), folder)
    with suppress(OSError), limited(2_500):
        place.write()
    with pytest.raises(AssertionError, match="a"):
        place.check(whole=False)
