"""Models that ship, by name on the command line."""

from pathlib import Path

import pytest
from cli_support import Run, failed

from mnemoscope import InputError, embedded
from mnemoscope.cli._shipped import place_of, takes_names

FLOW = embedded.SHIPPED["embedded-flow"]


def told(**options: object) -> dict[str, object]:
    """What a command is given."""
    found: dict[str, object] = {}

    @takes_names
    def command(bundle: Path | None = None, model: str | None = None, out: str = "") -> None:
        found.update(bundle=bundle, model=model, out=out)

    command(**options)
    return found


def test_a_bundle_and_a_model_by_name() -> None:
    given = {"bundle": Path("embedded-flow"), "model": "embedded-flow", "out": "embedded-flow"}
    expected = {"bundle": FLOW.bundle, "model": str(FLOW.model), "out": "embedded-flow"}
    assert told(**given) == expected
    assert told(bundle=Path("x"), model="x/y") == {"bundle": Path("x"), "model": "x/y", "out": ""}
    assert told() == told(bundle=Path("embedded"), model="embedded")  # the default
    both = told(bundle=Path("embedded-flow"), model="embedded")  # not left out, though it is wrong
    assert both["model"] == str(embedded.MODEL)
    both = told(bundle=Path("embedded"), model="embedded-flow")
    assert both["bundle"] == embedded.BUNDLE


def test_where_there_is_no_default_the_name_is_the_place() -> None:
    found = []

    @takes_names
    def command(model: str) -> None:
        found.append(model)

    command(model="embedded")
    assert found == [str(embedded.MODEL)]


def test_what_else_has_that_name_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "embedded-flow").mkdir()
    result = run("screen", "a cat", "--bundle", "embedded-flow")
    failed(result, 2, "and of what is here too")
    failed(run("inspect", tmp_path / "embedded-flow"), 4, "has no manifest.json")
    with pytest.raises(InputError, match="of what is here too"):
        told(model="embedded-flow")
    failed(run("screen", "a cat", "--bundle", "embedded_flow"), 2, "Did you mean embedded-flow")


def test_a_command_takes_them(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = run("inspect", "embedded-flow")
    assert shown == run("inspect", FLOW.bundle)
    assert shown.code == 0
    (tmp_path / "benign.txt").write_text("a cat")
    refused = run("calibrate", "embedded-flow", "--benign", "benign.txt")
    failed(refused, 2, "part of the installation")


def test_what_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place_of("flow=embedded-flow") == f"flow={FLOW.bundle}"
    assert place_of("flow=embedded-flow:c.json") == f"flow={FLOW.bundle}:c.json"
    for other in ("flow=my/bundle:c.json", "flow", ""):
        assert place_of(other) == other
    with pytest.raises(InputError, match=r"There is no flow here\. Did you mean embedded-flow"):
        place_of("art=flow:2")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flow:2").mkdir()
    assert place_of("art=flow:2") == "art=flow:2"
