"""Exports of which configs alone show that they cannot be: all of it, before any weights."""

from pathlib import Path

import pytest
from cli_support import Run, failed

from mnemoscope import ExportError, InputError, embedded
from mnemoscope_export import ExportOptions, LoadOptions, check_export
from mnemoscope_export.models import loading
from mnemoscope_export.models.flux import Flux

ANY_LENGTH = ExportOptions(any_length=True)


def test_what_loading_and_exporting_do_not_take_is_told_together() -> None:
    with pytest.raises(InputError, match=r"clip_skip cannot be.* Leave any_length"):
        check_export(embedded.FLOW_MODEL, LoadOptions(clip_skip=1), ANY_LENGTH)
    with pytest.raises(InputError, match="Leave any_length"):
        check_export(embedded.FLOW_MODEL, LoadOptions(), ANY_LENGTH)
    check_export(embedded.FLOW_MODEL, LoadOptions(), ExportOptions(taps="auto", guidance=3.0))
    check_export(embedded.MODEL, LoadOptions(clip_skip=1), ANY_LENGTH)


def test_a_schnell_is_told_no_guidance() -> None:
    options = ExportOptions(any_length=True, guidance=3.0)
    length, guidance = Flux.refused({"transformer": {}}, "it", options)
    assert "Leave any_length" in length
    assert guidance.startswith("it is a schnell")
    assert Flux.refused({"transformer": {"guidance_embeds": True}}, "it", options) == [length]
    assert Flux.refused({"transformer": {}}, "it", ExportOptions()) == []


def test_what_is_no_model_is_no_matter_of_options(tmp_path: Path) -> None:
    with pytest.raises(ExportError):
        check_export(tmp_path, LoadOptions(), ANY_LENGTH)


def test_the_command_reads_no_weights(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_networks", lambda *_: pytest.fail("weights were read"))
    odd = ("--any-length", "--clip-skip", "1")
    result = run("export", embedded.FLOW_MODEL, tmp_path / "out", *odd)
    assert "loading" not in result.err
    assert result.code == 2
    assert "clip_skip cannot be" in result.err
    assert "Leave any_length (--any-length) out." in result.err
    both = ("--clip-skip", "1", "--negative", "blurred")
    result = run("export", "--from-onnx", tmp_path, tmp_path / "out", *both)
    failed(result, 2, "--clip-skip and --negative would change")
