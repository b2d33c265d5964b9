"""An ONNX export in Optimum's layout: everything but the graphs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mnemoscope_runtime.errors import ExportError
from mnemoscope_runtime.manifest import Follows

from ..bundle_tokenizer import BundleTokenizer
from ..configs import PARTS, check_configs, sample_size
from ..records import check_latent_size

__all__ = ["OnnxPipeline"]

_CONFIGS = ("unet", "text_encoder", "tokenizer", "scheduler")


@dataclass(frozen=True)
class OnnxPipeline:
    """A Stable Diffusion 1.x or 2.x as Optimum's `ORTStableDiffusionPipeline` saves it.

    Attributes:
        id: Directory name.
        text_encoder: `text_encoder/model.onnx`.
        unet: `unet/model.onnx`.
        scheduler: The contents of `scheduler/scheduler_config.json`.
        unet_config: The contents of `unet/config.json`.
        latent_shape: (C, H, W) of the latents: those the UNet was trained on, unless resized.
        tokenizer: What turns prompts into ids.
    """

    id: str
    text_encoder: Path
    unet: Path
    scheduler: Mapping[str, Any]
    unet_config: Mapping[str, Any]
    latent_shape: tuple[int, int, int]
    tokenizer: BundleTokenizer

    @classmethod
    def load(
        cls,
        folder: str | Path,
        latent_size: tuple[int, int] | None = None,
        follows: Follows | None = None,
    ) -> OnnxPipeline:
        """Read the configs and the tokenizer.

        Args:
            folder: The export.
            latent_size: (H, W) of the latents, unless those that the UNet was trained on.
            follows: Whose CLIPTokenizer the pipeline has; see `BundleTokenizer.from_files`.

        Raises:
            ExportError: something is missing or damaged, or belongs to another kind of model; of
                options that are in the way all are named.
            InputError: the UNet cannot halve latents of that size as often as it does.
        """
        folder = Path(folder)
        if (folder / "text_encoder_2").exists():
            raise ExportError(
                f"{folder} has a text_encoder_2, so it is of another family, as Stable Diffusion "
                "XL, whose network is told more than one embedding. ONNX exports of Stable "
                "Diffusion 1.x and 2.x can be used; a PyTorch model needs no --from-onnx."
            )
        files = {part: folder / part / "model.onnx" for part in ("text_encoder", "unet")}
        for path in files.values():
            if not path.is_file():
                raise ExportError(
                    f"{path} does not exist. Give the directory that Optimum's "
                    "`ORTStableDiffusionPipeline` saved; a PyTorch model needs no --from-onnx."
                )
        configs = {part: _read_json(folder / PARTS[part]) for part in _CONFIGS}
        check_configs(configs, str(folder), is_resized=latent_size is not None, is_onnx=True)
        unet = configs["unet"]
        size = latent_size or sample_size(unet)
        found = cls(
            id=folder.resolve().name,
            **files,
            scheduler=configs["scheduler"],
            unet_config=unet,
            latent_shape=(int(unet.get("in_channels", 4)), *size),
            tokenizer=BundleTokenizer.from_files(
                folder / "tokenizer",
                longest=configs["text_encoder"].get("max_position_embeddings", 77),
                follows=follows,
            ),
        )
        return found if latent_size is None else found.resized(latent_size)

    def resized(self, size: tuple[int, int]) -> OnnxPipeline:
        """The same on latents of another height and width.

        Raises:
            InputError: the UNet cannot halve them as often as it does.
            ExportError: `unet/config.json` does not say how often that is.
        """
        if not isinstance(self.unet_config.get("block_out_channels"), list):
            raise ExportError(
                f"The config of {self.unet} has no block_out_channels, so how often the UNet "
                "halves its latents is not known. Leave the size of the latents out."
            )
        check_latent_size(self.unet_config, self.id, size)
        return replace(self, latent_shape=(self.latent_shape[0], *size))


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ExportError(
            f"{path} cannot be read: {error}. Give the whole directory that Optimum saved."
        ) from None
    if not isinstance(found, dict):
        raise ExportError(f"{path} is not a config. Give the whole directory that Optimum saved.")
    return found
