"""A modular pipeline of small parts, and what it is asked for."""

from __future__ import annotations

from typing import Any

from diffusers import StableDiffusionXLAutoBlocks

PROMPTS = ["a cat", "a dog", "a house by the sea"]
SIZE = {"height": 16, "width": 16}


def modular(classic: Any, blocks: Any = None) -> Any:
    found = (blocks or StableDiffusionXLAutoBlocks()).init_pipeline()
    parts = {k: v for k, v in classic.components.items() if k in found.component_names}
    found.update_components(**{name: part for name, part in parts.items() if part is not None})
    found.set_progress_bar_config(disable=True)
    return found
