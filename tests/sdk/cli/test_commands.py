from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from attack_support import edit
from cli_support import Fake, Run, calibrate, copied, damaged, failed, foreign
from PIL import Image

from mnemoscope import __version__, embedded
from mnemoscope.embedded import EmbeddedPrompt
from mnemoscope_export import ExportOptions, StableDiffusion
from mnemoscope_runtime import Bundle


@pytest.mark.slow
def test_as_a_module() -> None:
    """Python's own code for a module that cannot be run is 1, which means "something flagged"."""
    found = subprocess.run(
        [sys.executable, "-m", "mnemoscope", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == f"mnemoscope {__version__}\n"


# inspect


def test_inspect(run: Run, bundle_dir: Path) -> None:
    result = run("inspect", bundle_dir)
    assert (result.code, result.err) == (0, "")
    opened = Bundle.open(bundle_dir)
    rows = [line.split("  ", 1) for line in result.out.splitlines()]
    shown = {row[0]: row[-1].strip() for row in rows}
    assert shown["bundle"] == opened.id
    assert shown["weights"] == opened.manifest.model.weights_sha256
    assert shown["model"] == "epsilon (sd1, epsilon)"
    assert shown["noise bank"] == "(3, 4, 8, 8), seed 7"
    assert shown["screening timestep"] == "981"
    count = opened.manifest.flops["screen"] / 1e6
    assert shown["arithmetic of screen"] == f"{count:,.1f} MFLOP for one prompt on one noise"
    assert "taps" not in shown
    assert shown["calibration"] == "none; `mnemoscope calibrate` makes one"
    assert set(opened.manifest.files) <= set(shown)
    assert {f"parity of {graph}" for graph in opened.manifest.graphs} <= set(shown)
    assert rows[-1] == ["every file is what the manifest promises"]


def test_inspect_json(run: Run, bundle_dir: Path) -> None:
    result = run("inspect", bundle_dir, "--format", "json")
    assert result.code == 0
    shown = json.loads(result.out)
    assert shown.pop("id") == Bundle.open(bundle_dir).id
    assert shown == json.loads((bundle_dir / "manifest.json").read_bytes())


def test_inspect_of_a_manifest_without_what_it_may_lack(run: Run, tmp_path: Path) -> None:
    bundle = copied(embedded.BUNDLE, tmp_path / "bundle")
    (bundle / "calibration.json").unlink()
    edit(bundle, lambda fields: fields.update(parity={"screen": {"prompts": 5.0}}, tools={}))
    shown = run("inspect", bundle)
    assert shown.code == 0, shown
    assert "parity of" not in shown.out


def test_inspect_shows_the_calibration(run: Run, bundle_dir: Path, tmp_path: Path) -> None:
    bundle = copied(bundle_dir, tmp_path / "bundle")
    calibrate(bundle, 0.5, bundle / "calibration.json")
    shown = run("inspect", bundle).out
    assert "calibration of magnitude, onnxruntime, 1 step, 3 noises" in shown
    assert "FPR 0.05 with 95% confidence, 100 benign prompts, threshold 0.5" in shown
    foreign(bundle / "calibration.json")
    failed(run("inspect", bundle), 4, "made on bundle ffffffffffff")


@pytest.mark.parametrize("args", [(), ("--format", "json")])
def test_inspect_of_a_damaged_bundle(
    run: Run, bundle_dir: Path, tmp_path: Path, args: tuple[str, ...]
) -> None:
    broken = damaged(bundle_dir, tmp_path / "broken")
    failed(run("inspect", broken, *args), 4, "differs from what the manifest promises")
    failed(run("inspect", tmp_path, *args), 4, "has no manifest.json")


@pytest.mark.parametrize("name", ["\x1b[31mred\x07", "[red]markup[/]", "[/nonsense]"])
def test_inspect_trusts_no_text_of_a_bundle(
    run: Run, bundle_dir: Path, tmp_path: Path, name: str
) -> None:
    file = copied(bundle_dir, tmp_path / "bundle") / "manifest.json"
    manifest = json.loads(file.read_bytes())
    manifest["model"]["id"] = name
    manifest["tools"] = {name: name}
    file.write_text(json.dumps(manifest))
    shown = name.replace("\x1b", r"\x1b").replace("\x07", r"\x07")
    result = run("inspect", file.parent)
    assert result.code == 0
    assert f"{shown} (sd1, epsilon)" in result.out
    assert all(c.isprintable() or c == "\n" for c in result.out)


# doctor


def test_doctor_where_a_backend_works(
    run: Run, bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "BUNDLE", bundle_dir)
    result = run("doctor")
    assert result.code == 0
    assert re.search(r"backend onnxruntime: works: \d+\.\d\d ms", result.out)
    assert "from PyTorch (relative)" in " ".join(result.out.split())
    assert f"mnemoscope {__version__}, Python 3." in result.out


def test_doctor_where_none_works(
    run: Run, bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(embedded, "BUNDLE", bundle_dir)
    monkeypatch.setattr("mnemoscope.cli.doctor.version", version)
    for name in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
    result = run("doctor")
    assert result.code == 3
    assert "backend onnxruntime: The backend 'onnxruntime' cannot be used" in result.out
    assert "pip install -c constraints.txt '.[onnxruntime]'" in " ".join(result.out.split())
    assert [line.split() for line in result.out.splitlines() if line.startswith(" torch")] == [
        ["torch", "not", "installed"]
    ]


def test_doctor_sees_packages_that_overwrite_each_other(
    run: Run, bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "BUNDLE", bundle_dir)
    one = ("doctor", "--backend", "onnxruntime")
    assert "overwrite each other" not in run(*one).out
    monkeypatch.setattr("mnemoscope.cli.doctor.version", lambda _: "1.2.3")
    assert "overwrite each other" in run(*one).out


# demo


def test_demo(
    run: Run, fake: Fake, bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_prompts(*splits: str) -> list[EmbeddedPrompt]:
        kinds: dict[str, Any] = {"memorized": 1, "seen": 0, "held_out": 0}
        return [
            EmbeddedPrompt(f"{kind} {i}", kind, tone=False)  # type: ignore[arg-type]
            for kind in kinds
            if kind in splits
            for i in range(12)
        ]

    magnitudes = iter([0.9] * 12 + [0.1] * 24)
    fake(lambda _: next(magnitudes))
    monkeypatch.setattr(embedded, "BUNDLE", bundle_dir)
    monkeypatch.setattr("mnemoscope.cli.demo.read_prompts", read_prompts)
    output = tmp_path / "new" / "demo"
    result = run("demo", "--output", output)
    assert result.code == 0, result.err
    assert "AUC 1.000 [1.000, 1.000]" in result.out
    assert "12 memorised against 24 others" in result.out
    assert "in brackets: 95 % intervals" in result.out
    assert Image.open(output / "demo.png").format == "PNG"
    assert len(json.loads((output / "demo.json").read_bytes())["detections"]) == 36


def test_a_demo_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    failed(run("demo", "--output", tmp_path / "file"), 2, "cannot be written")


# export


def test_export_takes_what_it_is_given(
    run: Run, model_dir: Path, bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The options and the model; tests of exports tell what becomes of them."""
    asked: list[ExportOptions] = []

    def export(
        load: Callable[[], StableDiffusion], out: Path, options: ExportOptions,
        progress: Callable[[str], None],
    ) -> Bundle:  # fmt: skip
        assert load().latent_size == (4, 6)
        asked.append(options)
        progress("exporting")
        return Bundle.open(copied(bundle_dir, out))

    monkeypatch.setattr("mnemoscope_export.export_bundle", export)
    out = tmp_path / "mine"
    sizes = ("--noises", 2, "--inference-steps", 20, "--latent-size", "4x6")
    result = run("export", model_dir, out, *sizes, "--seed", 3, "--timestep", 601)
    assert result.code == 0, result.err
    assert result.out == f"{out}  {Bundle.open(out).id[:12]}\n"
    assert asked == [
        ExportOptions(noises=2, seed=3, inference_steps=20, latent_size=(4, 6), timestep=601)
    ]
    assert "\nexporting\n" in result.err
    for graph in ("text_encoder", "step", "screen"):
        assert f"\n{graph}: relative error " in result.err
    row = run("screen", "a cat", "--bundle", out, "--format", "json").rows[0]
    assert row["bundle"] == Bundle.open(out).id
    assert row["score"] > 0


@pytest.mark.parametrize(
    ("given", "told_guidance", "scale", "said"),
    [
        ((), None, 7.5, "drawn with: 50 steps, guidance 7.5; say what you draw with: "
         "--inference-steps, --guidance"),
        (("--inference-steps", 50), None, 7.5, "drawn with: guidance 7.5; say what you draw with: "
         "--guidance"),
        (("--guidance", 7.5), None, 7.5, "drawn with: 50 steps; say what you draw with: "
         "--inference-steps"),
        (("--guidance", 7.5, "--inference-steps", 50), None, 7.5, None),
        ((), 3.5, 1.0, "50 steps, guidance 3.5;"),  # FLUX.1 dev's transformer is told it
        ((), None, 1.0, "50 steps; say what you draw with: --inference-steps\n"),  # schnell: none
    ],
)  # fmt: skip
def test_what_export_was_not_told_of_drawing_is_said(
    run: Run, bundle_dir: Path, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    given: tuple[object, ...], told_guidance: float | None, scale: float, said: str | None,
) -> None:  # fmt: skip
    bundle = Bundle.open(bundle_dir)
    model = replace(bundle.manifest.model, told_guidance=told_guidance)
    manifest = replace(bundle.manifest, model=model, guidance=scale)
    made = replace(bundle, manifest=manifest)
    monkeypatch.setattr("mnemoscope_export.export_bundle", lambda *_, **__: made)
    result = run("export", model_dir, tmp_path / "out", *given)
    assert result.code == 0, result.err
    if said is None:
        assert "drawn with" not in result.err
    else:
        assert said in result.err


def test_inspect_of_a_timestep_that_is_none_of_sampling(
    run: Run, bundle_dir: Path, tmp_path: Path
) -> None:
    file = copied(bundle_dir, tmp_path / "bundle") / "manifest.json"
    manifest = json.loads(file.read_bytes())
    manifest["timestep"], manifest["scheduler"]["inference_steps"] = 601, 20
    file.write_text(json.dumps(manifest))
    shown = run("inspect", file.parent).out
    assert "601 (sampling begins at 951, so one step is no part of more)" in shown


def test_export_to_a_path_that_exists(run: Run, model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    for args in ((), ("--overwrite",)):
        result = run("export", model_dir, tmp_path, *args)
        failed(result, 2, f"error: {tmp_path} ")  # one line: nothing was loaded before it
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_export_of_a_directory_that_is_no_model(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run("export", tmp_path / "empty", tmp_path / "out")
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines()[-1].startswith("error: ")
    assert "has no model_index.json" in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "out").exists()


def test_export_with_a_noise_bank_that_is_too_large(run: Run, tmp_path: Path) -> None:
    failed(run("export", tmp_path, tmp_path / "out", "--noises", 65), 2, "1 to 64 noises")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--taps", ","), "list of taps is empty"),
        (("--taps", "a,b,a"), "The tap a is named twice"),
        (("--taps", "none", "--until", "a"), "there are no taps"),
    ],
)
def test_export_with_taps_that_cannot_be(
    run: Run, tmp_path: Path, args: tuple[str, ...], words: str
) -> None:
    failed(run("export", tmp_path, tmp_path / "out", *args), 2, words)


@pytest.mark.parametrize("size", ["", "x", "8x", "-8", "8x8x8", "8.5", "٤"])
def test_export_with_a_size_that_is_none(run: Run, tmp_path: Path, size: str) -> None:
    result = run("export", tmp_path, tmp_path / "out", "--latent-size", size)
    failed(result, 2, "--latent-size takes a number or HEIGHTxWIDTH", repr(size))


@pytest.mark.parametrize("size", ["0", "8x2000"])
def test_export_with_a_size_out_of_range(run: Run, tmp_path: Path, size: str) -> None:
    result = run("export", tmp_path, tmp_path / "out", "--latent-size", size)
    failed(result, 2, "1 to 1024 positions a side")


def test_export_without_pytorch(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mnemoscope_export", None)
    result = run("export", tmp_path, tmp_path / "out")
    failed(
        result, 3, "Exporting needs PyTorch and ONNX", "pip install -c constraints.txt '.[export]'"
    )


def test_export_in_a_precision_that_cannot_be_checked_here(
    run: Run, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    result = run("export", model_dir, tmp_path / "out", "--precision", "bfloat16")
    failed(
        result, 3, "bfloat16", "pip install -c constraints.txt '.[openvino]'"
    )  # nothing was loaded


# generate


def test_generate_is_reproducible_by_its_seed(run: Run, model_dir: Path, tmp_path: Path) -> None:
    def draw(name: str, *args: object) -> Image.Image:
        path = tmp_path / name
        result = run("generate", "a cat", "-o", path, "--model", model_dir, "--steps", 2, *args)
        assert result.code == 0, result.err
        assert result.out == f"{path}\n"
        with Image.open(path) as image:
            return image.convert("RGB")

    first, again = draw("1.png", "--seed", 5), draw("2.png", "--seed", 5)
    assert first.size == (16, 16)
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != draw("3.png", "--seed", 6).tobytes()
    pair = draw("4.png", "--seed", 5, "--images", 2, "--scale", 3)
    assert pair.size == (96, 48)
    left = pair.crop((0, 0, 48, 48)).resize((16, 16), Image.Resampling.NEAREST)
    difference = [abs(a - b) for a, b in zip(left.tobytes(), first.tobytes(), strict=True)]
    assert max(difference) <= 2  # a batch of two rounds a little differently


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x.nonsense", "--output writes .png, .jpg, .jpeg, .webp, not x.nonsense"),
        ("missing/x.png", "there is no folder"),
        ("x", "not x"),
    ],
)
def test_an_image_that_cannot_be_written(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, words: str
) -> None:
    monkeypatch.setattr("mnemoscope.cli.generate.generate", lambda *_, **__: pytest.fail("drawn"))
    failed(run("generate", "a cat", "-o", tmp_path / name), 2, words)


@pytest.mark.parametrize(
    "args",
    [
        ("--steps", 0),
        ("--steps", 1000),
        ("--seed", -1),
        ("--seed", 2**64),
        ("--seed", 2**64 - 1, "--images", 2),
    ],
)
def test_what_cannot_be_drawn(run: Run, tmp_path: Path, args: tuple[object, ...]) -> None:
    failed(run("generate", "a cat", "-o", tmp_path / "x.png", *args), 2, "seed")


def test_generate_without_pytorch(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    result = run("generate", "a cat", "-o", tmp_path / "x.png")
    failed(result, 3, "Drawing needs PyTorch", "pip install -c constraints.txt '.[torch]'")
    assert not (tmp_path / "x.png").exists()


def test_generate_with_a_model_that_is_not_whole(run: Run, model_dir: Path, tmp_path: Path) -> None:
    model = copied(model_dir, tmp_path / "model")
    shutil.rmtree(model / "vae")
    for folder in (model, tmp_path, tmp_path / "none"):
        result = run("generate", "a cat", "-o", tmp_path / "x.png", "--model", folder)
        assert (result.code, result.out) == (2, "")
        assert result.err.splitlines()[-1].startswith(f"error: {folder} ")
        assert "Traceback" not in result.err
