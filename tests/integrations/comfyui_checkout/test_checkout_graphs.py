"""In a real checkout of ComfyUI: the graphs that come with our nodes, as its queue runs them."""

from __future__ import annotations

import asyncio
import inspect
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from checkout_support import DOG, TOWER, needs_checkout
from repository import ROOT

from mnemoscope import embedded

pytestmark = needs_checkout


@pytest.fixture
def run(comfy: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs one of our graphs as ComfyUI's queue does, with the embedded model for a checkpoint."""
    import execution  # type: ignore[import-not-found]
    import folder_paths  # type: ignore[import-not-found]
    import nodes  # type: ignore[import-not-found]
    from comfy_extras.nodes_preview_any import PreviewAny  # type: ignore[import-not-found]

    class Checkpoint:
        RETURN_TYPES = ("MODEL", "CLIP", "VAE")
        FUNCTION = "load"

        @classmethod
        def INPUT_TYPES(cls) -> Any:  # noqa: N802
            return {"required": {"ckpt_name": ("STRING",)}}

        def load(self, ckpt_name: str) -> Any:  # noqa: ARG002
            return (*comfy, SimpleNamespace(decode=lambda x: torch.ones(len(x), 64, 64, 3)))

    folder = tmp_path / "custom_nodes" / "mnemoscope"
    ours = ROOT / "integrations" / "comfyui"
    shutil.copytree(ours, folder, ignore=shutil.ignore_patterns("__pycache__"))
    assert asyncio.run(nodes.load_custom_node(str(folder)))
    known = {"CheckpointLoaderSimple": Checkpoint, "PreviewAny": PreviewAny}
    for name, node in known.items():
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, name, node)
    for name in ("input", "output"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    server = SimpleNamespace(client_id=None, last_node_id=None, send_sync=lambda *_: None)
    takes = inspect.signature(execution.PromptExecutor).parameters
    told = {"cache_args": {"lru": 0, "ram": 0.0}} if "cache_args" in takes else {}
    executor = execution.PromptExecutor(server, **told)

    def queue(name: str, **changes: dict[str, Any]) -> Any:
        """What nodes show, by their numbers, and what went wrong."""
        graph = json.loads((ours / "graphs" / f"{name}.json").read_text("utf-8"))
        for node in graph.values():
            if node["class_type"] == "EmptyLatentImage":
                node["inputs"] |= {"width": 64, "height": 64}
        for number, inputs in changes.items():
            graph[number.removeprefix("n")]["inputs"] |= inputs
        valid, error, outputs, _ = asyncio.run(execution.validate_prompt("1", graph, None))
        assert valid, error
        executor.execute(graph, "1", {}, outputs)
        failed = [told for event, told in executor.status_messages if event == "execution_error"]
        shown = {k: v.get("text") for k, v in executor.history_result["outputs"].items()}
        return shown, failed[0] if failed else None

    return queue


def test_the_graphs_that_come_with_the_nodes_run(run: Any, tmp_path: Path) -> None:
    from PIL import Image

    prompts = [row.prompt for row in embedded.read_prompts("calibration")][:60]
    (tmp_path / "input" / "benign.txt").write_text("\n".join(prompts))
    shown, failed = run("calibrate", n3={"fpr": 0.05})
    assert failed is None
    assert "my-model.json: threshold" in shown["4"][0]

    shown, failed = run("guard", n3={"text": DOG})
    assert failed is None
    assert shown["10"][0].startswith("Image 0: not flagged. Score")
    shown, failed = run("guard", n3={"text": TOWER})
    assert failed["node_type"] == "KSampler"
    assert failed["exception_message"].startswith("Nothing was drawn: 1 of 1 image would")
    shown, failed = run("guard", n2={"mode": "black"}, n3={"text": TOWER})
    assert failed is None
    assert shown["10"][0].startswith("Image 0: memorised. Score")
    white, black = (Image.open(each) for each in sorted((tmp_path / "output").glob("*.png")))
    assert white.getextrema() == ((255, 255),) * 3
    assert black.getextrema() == ((0, 0),) * 3
    again, failed = run("guard", n2={"mode": "black"}, n3={"text": TOWER}, n6={"seed": 2})
    assert failed is None
    assert again["10"][0].startswith("Image 0: memorised")  # the guard is cached, its verdict not
    assert again != shown

    bundle = {"bundle": str(embedded.BUNDLE)}
    shown, failed = run("screen", n2=bundle, n3={"prompt": DOG})
    assert failed is None
    assert shown["10"][0].startswith("Not flagged. Score")
    _, failed = run("screen", n2=bundle, n3={"prompt": TOWER})
    assert failed["node_type"] == "MnemoscopeScreenPrompt"
    assert "drops without: google (+" in failed["exception_message"]
