"""Models by name, with detectors that need no engine."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from service_support import Gate, fake_detector

from mnemoscope import (
    BackendError,
    CalibrationError,
    Detector,
    InputError,
    LoadFailed,
    ModelNotReady,
    NotAllowed,
    NumericsError,
    UnknownModel,
    embedded,
)
from mnemoscope.serve.service.models import Listed, Models, open_detector
from mnemoscope.serve.service.options import ServiceOptions, Source
from mnemoscope_runtime import Screener

TWO = (Source("a"), Source("b"))
Opens = Callable[[Source, ServiceOptions], Detector]


def opens(_: Source, __: ServiceOptions) -> Detector:
    return fake_detector()


def run(work: Callable[[Models], Any], opens: Opens = opens, **settings: Any) -> Any:
    async def main() -> Any:
        models = Models(ServiceOptions(**settings), opens=opens)
        try:
            return await work(models)
        finally:
            await models.close(10)

    return asyncio.run(main())


def test_all_that_is_named_is_open_before_it_is_ready() -> None:
    async def work(models: Models) -> None:
        with pytest.raises(ModelNotReady, match="a is not ready: it is being opened"):
            models.get("a")
        assert models.live
        assert not models.ready
        await models.start()
        assert models.ready
        assert (await models.get("a").screen("a cat")).memorized is False
        assert models.listed() == [Listed("a", "READY", ""), Listed("b", "READY", "")]
        models.stop()
        assert not models.ready
        assert (await models.get("b").screen("a cat")).memorized is False  # still answered

    run(work, models=TWO)


def test_unknown_names_and_versions() -> None:
    async def work(models: Models) -> None:
        await models.start()
        assert models.get("a") is models.get("a", "1")
        for name, version in (("c", ""), ("", ""), ("a", "2"), ("a", "x")):
            with pytest.raises(UnknownModel, match=r"Ask for"):
                models.get(name, version)
        assert "a" in models
        assert "c" not in models

    run(work, models=TWO)


def test_one_that_cannot_be_opened_ends_the_start() -> None:
    def fails(source: Source, _: ServiceOptions) -> Detector:
        if source.name == "b":
            raise CalibrationError("It has none. Make one.")
        return fake_detector()

    async def work(models: Models) -> None:
        with pytest.raises(CalibrationError):
            await models.start()
        assert not models.ready
        assert models.listed()[1] == Listed("b", "UNAVAILABLE", "It has none. Make one.")

    run(work, fails, models=TWO)


def test_clients_change_nothing_unless_they_may() -> None:
    async def work(models: Models) -> None:
        await models.start()
        for change in (models.load("mnemoscope"), models.unload("mnemoscope")):
            with pytest.raises(NotAllowed, match="--control"):
                await change
        assert models.ready

    run(work)


def test_what_is_unloaded_while_it_is_asked_answers_what_it_was_asked() -> None:
    gate = Gate()

    async def work(models: Models) -> None:
        gate.go.set()
        await models.start()
        gate.go.clear()
        asked = [models.get("mnemoscope").submit("a cat") for _ in range(20)]
        leaving = asyncio.create_task(models.unload("mnemoscope"))
        await asyncio.sleep(0.05)
        with pytest.raises(ModelNotReady, match="it was unloaded"):
            models.get("mnemoscope")
        assert not leaving.done()
        gate.go.set()
        await leaving
        assert [each.result(0).memorized for each in asked] == [False] * 20
        assert models.listed() == [Listed("mnemoscope", "UNAVAILABLE", "it was unloaded")]
        assert not models.ready  # nothing answers
        await models.load("mnemoscope")
        assert models.get("mnemoscope").alive
        assert models.ready

    run(work, lambda _, __: fake_detector(gate), control=True)


def test_opening_anew_loses_nothing_and_goes_on_with_the_new_one() -> None:
    opened: list[Detector] = []

    def opens(_: Source, __: ServiceOptions) -> Detector:
        opened.append(fake_detector(threshold=6.0 if not opened else 1.0))
        return opened[-1]

    async def work(models: Models) -> None:
        await models.start()

        async def ask(count: int) -> list[bool | None]:
            found = []
            for _ in range(count):
                found.append((await models.get("mnemoscope").screen("a cat")).memorized)
            return found

        asking = [asyncio.create_task(ask(50)) for _ in range(8)]
        await asyncio.sleep(0.02)
        await models.load("mnemoscope")
        assert (await ask(1)) == [True]
        for found in await asyncio.gather(*asking):
            assert None not in found
            assert found == sorted(found)  # first the old one, then the new one
        assert models.get("mnemoscope").detector is opened[1]
        with pytest.raises(BackendError, match="closed"):
            opened[0].screen(["a cat"])

    run(work, opens, control=True)


def test_what_cannot_be_opened_anew_leaves_the_old_one(caplog: pytest.LogCaptureFixture) -> None:
    count = 0

    def opens(_: Source, __: ServiceOptions) -> Detector:
        nonlocal count
        count += 1
        if count == 2:
            raise CalibrationError("It is of another bundle. Make one.")
        return fake_detector()

    async def work(models: Models) -> None:
        caplog.set_level(logging.INFO, "mnemoscope")
        await models.start()
        with pytest.raises(LoadFailed, match=r"^mnemoscope could not be loaded: It is of another"):
            await models.load("mnemoscope")
        assert (await models.get("mnemoscope").screen("a cat")).memorized is False
        why = "reloading failed: It is of another bundle. Make one."
        assert models.listed() == [Listed("mnemoscope", "READY", why)]
        assert models.ready
        assert "loading mnemoscope failed, and what was open goes on: It is of" in caplog.text
        await models.load("mnemoscope")
        assert "reloaded mnemoscope" in caplog.text
        assert models.listed() == [Listed("mnemoscope", "READY", "")]
        assert count == 3

    run(work, opens, control=True)


def test_what_was_unloaded_on_purpose_breaks_nothing() -> None:
    async def work(models: Models) -> None:
        await models.start()
        await models.unload("a")
        assert models.ready
        assert [each.wanted for each in models] == [False, True]
        await models.unload("b")
        assert not models.ready

    run(work, models=TWO, control=True)


@pytest.mark.parametrize("error", [CalibrationError("It has none. Make one."), KeyError("a cat")])
def test_what_never_loaded_breaks_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    shutil.copytree(embedded.BUNDLE, tmp_path / "other")

    def opens(source: Source, _: ServiceOptions) -> Detector:
        if source.name == "other":
            raise error
        return fake_detector()

    async def work(models: Models) -> None:
        await models.start()
        with pytest.raises((LoadFailed, KeyError)):
            await models.load("other")
        assert models.ready
        assert [each.wanted for each in models] == [True, False]
        found = models.listed()[1]
        assert found.state == "UNAVAILABLE"
        ours = isinstance(error, CalibrationError)
        assert found.why == ("It has none. Make one." if ours else "KeyError, see the log")
        assert f"loading other failed: {found.why}" in caplog.text
        assert "a cat" not in caplog.text
        with pytest.raises(ModelNotReady, match=r"loaded, and /v2/repository/index says why\.$"):
            models.get("other")

    run(work, opens, control=True, models_dir=tmp_path)


def test_only_bundles_in_the_folder_can_be_loaded(tmp_path: Path) -> None:
    seen: list[Source] = []

    def opens(source: Source, _: ServiceOptions) -> Detector:
        seen.append(source)
        return fake_detector()

    folder = tmp_path / "bundles"
    shutil.copytree(embedded.BUNDLE, folder / "other")
    shutil.copytree(embedded.BUNDLE, tmp_path / "outside")
    (folder / "empty").mkdir()

    async def work(models: Models) -> None:
        await models.start()
        waits = Listed("other", "UNAVAILABLE", "it was not loaded")
        assert models.listed() == [Listed("mnemoscope", "READY", ""), waits]
        for name in (
            "empty",
            "../outside",
            "other/",
            "other/.",
            ".",
            "",
            str(tmp_path / "outside"),
        ):
            with pytest.raises(UnknownModel):
                await models.load(name)
        await models.load("other")
        assert (await models.get("other").screen("a cat")).memorized is False
        assert seen == [Source(), Source("other", folder / "other")]
        assert models.listed()[1:] == [Listed("other", "READY", "")]

    run(work, opens, control=True, models_dir=folder)


def test_who_asked_for_a_change_may_leave() -> None:
    async def work(models: Models) -> None:
        await models.start()
        before = models.get("mnemoscope").detector
        changing = asyncio.create_task(models.load("mnemoscope"))
        await asyncio.sleep(0)
        changing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await changing
        async with asyncio.timeout(10):
            while models.get("mnemoscope").detector is before:
                await asyncio.sleep(0.001)

    run(work, control=True)


def test_an_engine_that_ended_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(models: Models) -> None:
        await models.start()
        batches = models.get("a")._batches
        monkeypatch.setattr(batches, "_gather", lambda: 1 / 0)  # a defect of ours
        with monkeypatch.context() as patch:
            patch.setattr("threading.excepthook", lambda _: None)
            models.get("a").submit("a cat")
            await asyncio.to_thread(batches._lanes[0].join, 10)
        assert not models.live
        assert not models.ready
        with pytest.raises(ModelNotReady, match="its engine has ended"):
            models.get("a")
        assert (await models.get("b").screen("a cat")).memorized is False

    run(work, models=TWO)


def test_what_is_opened_has_verdicts_and_agrees_with_pytorch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[Screener] = []
    close = Screener.close
    monkeypatch.setattr(Screener, "close", lambda self: (closed.append(self), close(self))[1])
    with pytest.raises(CalibrationError, match="calibrat"):
        open_detector(Source(), ServiceOptions(steps=3))
    for error in (1.0, float("nan")):
        monkeypatch.setattr(Screener, "probe", lambda _, error=error: error)
        with pytest.raises(NumericsError, match="from PyTorch"):
            open_detector(Source(), ServiceOptions())
    assert len(closed) == 3
    with pytest.raises(InputError):
        open_detector(Source(), ServiceOptions(backend="nonsense"))
