"""Transformers whose blocks attend to a prompt of which some tokens are padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mnemoscope_runtime.errors import InputError

from .base import Embeds
from .transformer import TransformerModel

__all__ = ["CrossAttendingModel"]


class CrossAttendingModel(TransformerModel):
    """What such families have in common: what is told, and patches that the transformer cuts.

    Attributes:
        patch_size: Side of a patch, where a config does not say.
    """

    embeddings: ClassVar[tuple[str, ...]] = ("prompt_embeds", "prompt_mask")
    patch_size: ClassVar[int]

    @classmethod
    def check_sides(cls, config: Mapping[str, Any], model: str, size: tuple[int, int]) -> None:
        """They are whole patches."""
        patch = int(config.get("patch_size", cls.patch_size))
        if any(side % patch or side < patch for side in size):
            raise InputError(
                f"The transformer of {model} cuts its latents into patches of {patch}x{patch}, so "
                f"{size[0]}x{size[1]} do not fit. Give multiples of {patch}."
            )

    def told_by(self, pipeline: Any, prompts: Sequence[str] | None, **options: Any) -> Embeds:
        """See `Model.told_by`."""
        found = pipeline.encode_prompt(
            list(prompts or [""]),
            device=self.network.device,
            negative_prompt=self.negative or "",
            **options,
        )
        told, mask = found[:2] if prompts else found[2:]
        return told, mask.to(told.dtype)

    def call_options(self, told: Embeds, empty: Embeds, size: tuple[int, int]) -> dict[str, Any]:
        """See `Model.call_options`."""
        return {
            **super().call_options(told, empty, size),
            "prompt_attention_mask": told[1],
            "negative_prompt_attention_mask": empty[1],
            "negative_prompt": None,
            "use_resolution_binning": False,
        }
