"""A small model of each family of transformers, its pipeline and its bundle: made once for all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from shared import Shared
from toys import TOYS

from mnemoscope import ExportError
from mnemoscope_export import ExportOptions, LoadOptions, Model, export_bundle, load_model
from mnemoscope_runtime import Screener

__all__ = ["RECIPES", "Family", "Recipe", "check_is_named"]


@dataclass(frozen=True)
class Recipe:
    """How a family's small model is made and drawn with, and what is known of it.

    Attributes:
        build: What makes diffusers' pipeline ...
        vae: ... and what makes pictures of its latents.
        guidance: The bundle's.
        reads: Tokens of a prompt that are read.
        shown: What `mnemoscope inspect` says of the bundle.
        size: Its latents' (H, W); None for those that the transformer was trained on.
        other_size: Another.
        folds: How far the folded graph may be off, relative.
        steps: Of a whole image.
        negative: What the unconditional branch may be told; None where there is none.
        guard: Of guards.
        call: Of the pipeline.
    """

    build: Callable[[], Any]
    vae: Callable[[], Any]
    guidance: float
    reads: int
    shown: str
    size: tuple[int, int] | None = None
    other_size: tuple[int, int] = (4, 6)
    folds: float = 1.3e-6
    steps: int = 5
    negative: str | None = "Blurry "
    guard: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)


def _sd3() -> Any:
    pipeline = TOYS["sd3-t5"].build()
    pipeline.register_modules(vae=TOYS["sd3-t5"].vae())
    return pipeline


RECIPES = {
    "sd3": Recipe(
        _sd3,
        TOYS["sd3-t5"].vae,
        guidance=5.0,
        reads=255,
        shown="ids of transformers-5's T5Tokenizer, 256 a prompt",
        call={"guidance_scale": 5.0},
    ),
    "flux": Recipe(
        TOYS["flux"].build,
        TOYS["flux"].vae,
        guidance=5.0,
        reads=511,
        shown="ids of transformers-5's T5Tokenizer, 512 a prompt",
        size=(4, 6),
        other_size=(6, 4),
        steps=4,
        negative=None,
        guard={"extra_pass": True},
        call={"guidance_scale": 5.0},
    ),
    "pixart": Recipe(
        TOYS["pixart"].build,
        TOYS["pixart"].vae,
        guidance=4.5,
        reads=299,
        shown="ids of transformers-5's T5Tokenizer, 300 a prompt",
        call={"guidance_scale": 4.5, "use_resolution_binning": False, "clean_caption": False},
    ),
    "qwen-image": Recipe(
        TOYS["qwen"].build,
        TOYS["qwen"].vae,
        guidance=4.0,
        reads=512,
        shown="ids of transformers-5's Qwen2Tokenizer, 546 a prompt",
        size=(4, 6),
        other_size=(6, 4),
        folds=1e-4,  # complex numbers are real ones there
        steps=4,
        negative=" ",
        guard={"negative_prompt": ""},
        call={"true_cfg_scale": 4.0, "negative_prompt": ["", ""]},
    ),
    "sana": Recipe(
        TOYS["sana"].build,
        TOYS["sana"].vae,
        guidance=4.5,
        reads=299,
        shown="ids of transformers-5's GemmaTokenizer",
        other_size=(3, 6),
        call={"guidance_scale": 4.5, "use_resolution_binning": False},
    ),
}


class Family:
    """What tests ask of a family, each made when it is first asked for, and kept."""

    def __init__(self, name: str, shared: Shared) -> None:
        self.name, self.recipe, self._shared = name, RECIPES[name], shared

    @cached_property
    def folder(self) -> Path:
        """The saved pipeline."""
        return self._shared(
            f"pipeline/{self.name}", lambda out: self.recipe.build().save_pretrained(out)
        )

    def load(self, **options: Any) -> Model:
        """The model, on latents of its size."""
        return load_model(self.folder, options=LoadOptions(latent_size=self.recipe.size, **options))

    @cached_property
    def model(self) -> Model:
        """The same, without any option."""
        return self.load()

    @cached_property
    def pipeline(self) -> Any:
        """diffusers' own, of the model's parts."""
        found = self.model.assembled()
        found.set_progress_bar_config(disable=True)
        return found

    @cached_property
    def bundle(self) -> Path:
        """An export of two noises with taps."""
        options = ExportOptions(
            noises=2,
            seed=3,
            inference_steps=self.recipe.steps,
            taps="auto",
            guidance=self.recipe.guidance,
        )
        return self._shared(
            f"bundle/{self.name}", lambda out: export_bundle(self.load, out, options)
        )

    @cached_property
    def screener(self) -> Screener:
        """The bundle on ONNX Runtime."""
        return Screener.open(self.bundle)

    def close(self) -> None:
        """Let go of the engines, if there are any."""
        if "screener" in vars(self):
            self.screener.close()


def check_is_named(folder: Path, file: str, option: str, value: object, words: str) -> None:
    """A pipeline with one option of a config changed is refused, in these words."""
    path = folder / file
    text = path.read_text()
    path.write_text(json.dumps({**json.loads(text), option: value}))
    try:
        with pytest.raises(ExportError, match=words):
            load_model(folder)
    finally:
        path.write_text(text)
