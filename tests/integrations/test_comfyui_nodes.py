"""The nodes as ComfyUI loads and calls them, and the graphs that come with them."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from comfyui_shapes import SHAPE, BaseModel, Clip, ModelPatcher, both, draw, noise_of
from repository import ROOT

from mnemoscope import InputError, embedded

FOLDER = ROOT / "integrations" / "comfyui"
LOUD, QUIET = "a caption that was learnt by heart", "a cat"
# of ComfyUI's own nodes in our graphs: their outputs
THEIRS = {
    "CheckpointLoaderSimple": ["MODEL", "CLIP", "VAE"],
    "CLIPTextEncode": ["CONDITIONING"],
    "EmptyLatentImage": ["LATENT"],
    "KSampler": ["LATENT"],
    "VAEDecode": ["IMAGE"],
    "SaveImage": [],
    "PreviewAny": [],
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The folder as a custom node, under the name that ComfyUI gives it."""
    folder = tmp_path_factory.mktemp("custom_nodes") / "mnemoscope"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    name = str(folder).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    for each in [each for each in sys.modules if each.startswith(name)]:
        del sys.modules[each]


@pytest.fixture
def nodes(loaded: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, type]:
    """Its nodes, with what they ask of ComfyUI."""
    for name in ("input", "output"):
        (tmp_path / name).mkdir()
    paths = {
        "get_input_directory": lambda: str(tmp_path / "input"),
        "get_output_directory": lambda: str(tmp_path / "output"),
    }
    names = {"SAMPLERS": ["euler"], "SCHEDULERS": ["normal"]}

    def sample(
        model: Any, noise: Any, steps: int, cfg: float, sampler: str, scheduler: str,
        positive: Any, negative: Any, latent: Any, disable_pbar: bool, seed: int,
    ) -> Any:  # fmt: skip
        assert (steps, sampler, scheduler, disable_pbar) == (20, "euler", "normal", True)
        assert seed > 2**20
        return draw(model, noise, positive, negative, cfg=cfg, latent=latent)

    bar = SimpleNamespace(update_absolute=lambda *_: None)
    parts = {
        "folder_paths": SimpleNamespace(**paths),
        "comfy": SimpleNamespace(),
        "comfy.samplers": SimpleNamespace(KSampler=SimpleNamespace(**names)),
        "comfy.sample": SimpleNamespace(sample=sample, fix_empty_latent_channels=lambda _, x: x),
        "comfy.utils": SimpleNamespace(ProgressBar=lambda _: bar),
    }
    for name, part in parts.items():
        monkeypatch.setitem(sys.modules, name, part)
        if "." in name:
            setattr(parts["comfy"], name.partition(".")[2], part)
    found: dict[str, type] = loaded.NODE_CLASS_MAPPINGS
    return found


def run(node: type, **told: Any) -> Any:
    """As ComfyUI calls a node: every input by its name, those left out by their defaults."""
    inputs = node.INPUT_TYPES()  # type: ignore[attr-defined]
    required, optional = inputs["required"], inputs.get("optional", {})
    assert told.keys() <= {*required, *optional}
    for name, (kind, *more) in required.items():
        if name not in told:
            default = more[0].get("default") if more else None
            told[name] = kind[0] if default is None and isinstance(kind, list) else default
    return getattr(node(), node.FUNCTION)(**told)  # type: ignore[attr-defined]


def calibrate(nodes: dict[str, type], tmp_path: Path) -> Any:
    (tmp_path / "input" / "benign.txt").write_text("\n".join("a" * k for k in range(1, 21)))
    return run(
        nodes["MnemoscopeCalibrateGuard"],
        model=ModelPatcher(BaseModel()), clip=Clip(), latent={"samples": torch.ones(SHAPE)},
        name="mine", fpr=0.2,
    )  # fmt: skip


def test_a_guard_is_calibrated_and_judges(nodes: dict[str, type], tmp_path: Path) -> None:
    told = calibrate(nodes, tmp_path)
    assert "mine.json: threshold" in told["result"][0]
    assert "20 prompts; at most 20.00% of such pictures" in told["ui"]["text"][0]
    with pytest.raises(InputError, match="not written over"):
        calibrate(nodes, tmp_path)
    model, clip = ModelPatcher(BaseModel()), Clip()
    node = nodes["MnemoscopeGuard"]
    watched, guard = run(node, model=model, clip=clip, mode="black", calibration="mine.json")
    assert not model.wrappers  # a clone is patched
    drawn = draw(watched, noise_of(0, 2), both(clip, LOUD, QUIET), both(clip, ""), cfg=8.0)
    images, verdict, score, clear = run(
        nodes["MnemoscopeVerdict"], guard=guard, latent={"samples": drawn},
        images=torch.ones(2, 8, 8, 3),
    )  # fmt: skip
    assert not images[0].any()
    assert images[1].all()
    assert verdict.splitlines()[0].startswith("Image 0: memorised. Score")
    assert verdict.splitlines()[1].startswith("Image 1: not flagged. Score")
    assert score == max(each.score for each in guard.sampled(drawn).decisions)
    assert clear is False
    with pytest.raises(InputError, match=r"of 2 images, and 1 are given"):
        run(nodes["MnemoscopeVerdict"], guard=guard, latent={"samples": drawn},
            images=torch.ones(1, 8, 8, 3))  # fmt: skip


def test_what_was_not_measured_is_not_clear(nodes: dict[str, type]) -> None:
    model, clip = ModelPatcher(BaseModel()), Clip()
    watched, guard = run(nodes["MnemoscopeGuard"], model=model, clip=clip, mode="report")
    drawn = draw(watched, noise_of(), both(clip, LOUD), both(clip, ""), cfg=1.0)
    for latent in (drawn, drawn + 1):
        images, verdict, score, clear = run(
            nodes["MnemoscopeVerdict"], guard=guard, latent={"samples": latent},
            images=torch.ones(1, 8, 8, 3),
        )  # fmt: skip
        assert images.all()
        assert verdict.startswith("Not measured: ")
        assert score != score
        assert clear is False


def test_another_calibration_of_the_same_name_is_a_change(
    nodes: dict[str, type], tmp_path: Path
) -> None:
    node: Any = nodes["MnemoscopeGuard"]
    assert node.IS_CHANGED(calibration="mine.json", mode="block") == ""
    calibrate(nodes, tmp_path)
    before = node.IS_CHANGED(calibration="mine.json", mode="block")
    assert before
    with (tmp_path / "output" / "mnemoscope" / "mine.json").open("a") as file:
        file.write(" ")
    assert node.IS_CHANGED(calibration="mine.json", mode="block") != before


def test_a_prompt_is_screened_with_a_bundle(nodes: dict[str, type]) -> None:
    [bundle] = run(nodes["MnemoscopeLoadBundle"], bundle=str(embedded.BUNDLE))
    with bundle:
        found = run(nodes["MnemoscopeScreenPrompt"], bundle=bundle, prompt="a dog in a red hat")
        assert found[0] == "a dog in a red hat"
        assert found[1].startswith("Not flagged. Score")
        assert found[3:] == ("", True)
        tower = "google icon of tokyo tower, on rings, in zagreb 2020"
        with pytest.raises(Exception, match=r"This prompt is not drawn\. Memorised"):
            run(nodes["MnemoscopeScreenPrompt"], bundle=bundle, prompt=tower, explain=False)
        told = run(
            nodes["MnemoscopeScreenPrompt"], bundle=bundle, prompt=tower, gate="report",
            explain=False,
        )  # fmt: skip
        assert told[4] is False
    with pytest.raises(InputError, match="Name the folder of a bundle"):
        run(nodes["MnemoscopeLoadBundle"])


@pytest.mark.parametrize("graph", sorted((FOLDER / "graphs").glob("*.json")), ids=lambda p: p.stem)
def test_graphs_that_come_with_it_connect_what_fits(nodes: dict[str, type], graph: Path) -> None:
    told = json.loads(graph.read_text("utf-8"))

    def outputs(kind: str) -> Any:
        return nodes[kind].RETURN_TYPES if kind in nodes else THEIRS[kind]  # type: ignore[attr-defined]

    ours = {name: each for name, each in told.items() if each["class_type"] in nodes}
    assert ours
    for each in told.values():
        for value in each["inputs"].values():
            if isinstance(value, list):
                assert value[1] < len(outputs(told[value[0]]["class_type"]))
    for each in ours.values():
        inputs = nodes[each["class_type"]].INPUT_TYPES()  # type: ignore[attr-defined]
        required, optional = inputs["required"], inputs.get("optional", {})
        assert required.keys() <= each["inputs"].keys() <= {*required, *optional}
        for name, value in each["inputs"].items():
            kind = (required | optional)[name][0]
            if isinstance(value, list):
                assert outputs(told[value[0]]["class_type"])[value[1]] == kind
            elif isinstance(kind, list):
                assert value in kind
