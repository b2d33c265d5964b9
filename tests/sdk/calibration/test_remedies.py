"""Commands that messages tell, and that do what is told of them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from cli_support import Run, failed

from mnemoscope import embedded
from mnemoscope.calibration.remedies import calibrate_command, calibrates, carries

PROMPTS = [each.prompt for each in embedded.read_prompts("calibration")]


@pytest.mark.parametrize(
    ("name", "screened"), [("embedded", ()), ("embedded-flow", ("--bundle", "embedded-flow"))]
)
def test_what_is_told_of_a_bundle_that_ships_makes_verdicts(
    run: Run, tmp_path: Path, name: str, screened: tuple[str, ...]
) -> None:
    """From the note on, and nothing but what it says: FILE and OWN.json are the user's."""
    wanted = ("screen", *screened, "a cat", "--noises", 2)
    told = run(*wanted)
    assert told.code == 5
    [command] = re.findall(r"`mnemoscope (calibrate .*?)`", told.err)
    assert command.startswith(f"calibrate {name} --benign FILE ")
    benign, own = tmp_path / "benign.txt", tmp_path / "own.json"
    benign.write_text("\n".join(PROMPTS[:20]))
    places = {"FILE": benign, "OWN.json": own}
    made = run(*(places.get(word, word) for word in shlex.split(command)), "--fpr", 0.2)
    assert made.code == 0, made.err
    assert "--calibration OWN.json" in told.err
    assert run(*wanted, "--calibration", own).code in (0, 1)


def test_what_is_written_where_a_calibration_ships_is_refused_with_the_way(run: Run) -> None:
    refused = run("calibrate", "--benign", embedded.LEXICON)
    failed(refused, 2, "--output OWN.json", "--calibration OWN.json")


def test_carrying_is_told_with_a_copy_where_it_ships() -> None:
    told = carries(embedded.FLOW_BUNDLE, "onnxruntime", "openvino")
    assert told.startswith(
        "`mnemoscope calibration carry embedded-flow --from onnxruntime --to openvino "
        "--calibration COPY` carries"
    )
    [copied] = re.findall(r"a COPY of (.*)\.$", told)
    assert Path(copied).is_file()


def test_a_path_is_one_word_of_the_shell() -> None:
    words = shlex.split(calibrate_command(Path("my models/it's")))
    assert words[:3] == ["mnemoscope", "calibrate", "my models/it's"]
    assert "--calibration" not in calibrates(Path("mine"))
    assert "--output" not in calibrates(None)
