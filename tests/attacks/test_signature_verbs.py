"""Every verb that reads a bundle or a calibration, told to trust a key that did not sign it."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from cli_support import Run, failed
from signature_support import FILES

from mnemoscope import embedded
from mnemoscope.cli import app
from mnemoscope.screening.opening import CALIBRATION
from mnemoscope.ui import UiOptions
from mnemoscope.ui.desk import Desk
from mnemoscope_runtime import SignatureError
from mnemoscope_runtime.bundle import MANIFEST

VERBS = {
    "screen": ("a cat", "--bundle"),
    "audit": ("PROMPTS", "--output", "OUT", "--bundle"),
    "calibrate": ("--benign", "PROMPTS"),
    "evaluate": ("--positives", "PROMPTS", "--negatives", "OTHERS"),
    "explain": ("a cat", "--bundle"),
    "inspect": (),
    "build": (),
    "bench": (),
    "parity": ("--backend", "openvino", "--positives", "PROMPTS", "--benign", "OTHERS"),
    "doctor": (),
    "calibration carry": ("--to", "openvino:float32"),
    "triton": ("OUT",),
}
READS_NONE = ("evaluate", "build", "doctor")
CASES = [(verb, MANIFEST) for verb in VERBS]
CASES += [(verb, CALIBRATION) for verb in VERBS if verb not in READS_NONE]


def test_every_verb_that_takes_a_bundle_takes_a_key() -> None:
    places = [
        ("", app),
        *((f"{each.name} ", each.typer_instance) for each in app.registered_groups),
    ]
    takes: dict[str, set[str]] = {}
    for place, verbs in places:
        for each in verbs.registered_commands:
            assert each.callback is not None
            takes[f"{place}{each.name}"] = set(inspect.signature(each.callback).parameters)
    opens = {verb for verb, names in takes.items() if "bundle" in names} - {"sign"}
    assert opens == {*VERBS, "mitigate", "ui"}
    assert all("trust" in takes[verb] for verb in opens)


@pytest.mark.parametrize(("verb", "name"), CASES)
def test_every_verb_that_opens_a_bundle(
    run: Run, signed: Path, keys: tuple[Path, Path], tmp_path: Path, verb: str, name: str
) -> None:
    (signed / f"{name}.sig").unlink()
    prompts, others = tmp_path / "prompts.txt", tmp_path / "others.txt"
    prompts.write_text("a cat\n")
    others.write_text("a dog\n")
    words = {"PROMPTS": prompts, "OTHERS": others, "OUT": tmp_path / "out.csv"}
    args = [words.get(each, each) for each in VERBS[verb]]
    result = run(*verb.split(), *args, signed, "--trust", keys[1])
    assert result.code == 4, result
    assert f"{name} is not signed" in result.err
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("name", [MANIFEST, CALIBRATION])
def test_a_service(run: Run, signed: Path, keys: tuple[Path, Path], name: str) -> None:
    (signed / f"{name}.sig").unlink()
    places = ("--port", "0", "--no-grpc", "--model", f"x={signed}")
    result = run("serve", *places, "--noises", "1", "--trust", keys[1])
    failed(result, 4, f"{name} is not signed")


@pytest.mark.parametrize("name", [MANIFEST, CALIBRATION])
def test_a_page(signed: Path, keys: tuple[Path, Path], name: str) -> None:
    (signed / f"{name}.sig").unlink()
    with pytest.raises(SignatureError, match=f"{name} is not signed"):
        Desk(UiOptions(bundle=signed, trust=keys[1]))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_mitigation(run: Run, signed: Path, keys: tuple[Path, Path], name: str) -> None:
    (signed / f"{name}.sig").unlink()
    model = ("--model", embedded.MODEL, "--descriptor", "x", "--clip", "x", "--bundle", signed)
    result = run("mitigate", "a cat", "-o", signed / "a.png", *model, "--trust", keys[1])
    failed(result, 4, f"{name} is not signed")


@pytest.mark.parametrize("verb", ["inspect", "merge", "check"])
def test_verbs_that_read_a_calibration(
    run: Run, signed: Path, keys: tuple[Path, Path], tmp_path: Path, verb: str
) -> None:
    file = signed / CALIBRATION
    args = {"inspect": (), "merge": ("-o", tmp_path / "m.json"), "check": ("--recent", "x")}[verb]
    (signed / f"{CALIBRATION}.sig").unlink()
    result = run("calibration", verb, file, *args, "--trust", keys[1])
    failed(result, 4, f"{CALIBRATION} is not signed")


def test_who_writes_a_calibration_anew_is_told_of_its_old_signature(
    run: Run, signed: Path, keys: tuple[Path, Path]
) -> None:
    file = signed / CALIBRATION
    result = run("calibration", "merge", file, "-o", file, "--trust", keys[1])
    assert result.code == 0
    assert f"{CALIBRATION}.sig is of the file that was there before" in result.err
    elsewhere = run("calibration", "merge", file, "-o", signed / "other.json")
    assert (elsewhere.code, elsewhere.err) == (0, "")


def test_the_bundle_that_ships_is_not_signed(run: Run, keys: tuple[Path, Path]) -> None:
    failed(run("screen", "a cat", "--trust", keys[1]), 4, "is not signed")
