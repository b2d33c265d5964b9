"""How well a picture follows its prompt: the CLIP score (Hessel et al., EMNLP 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mnemoscope_runtime.errors import BackendUnavailable, ExportError, InputError
from mnemoscope_runtime.wording import pip_install

from .. import embedded

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Alignment", "ClipAlignment", "EmbeddedAlignment", "load_alignment"]

_BATCH = 16
_SAVED = "Give a directory that CLIPModel and its processor were saved to, or a hub id."
_READ = ["*.json", "*.txt", "*.safetensors"]  # never pickles


class Alignment(Protocol):
    """Cosine of text and picture in a space that they share.

    Attributes:
        name: For results and reports. Scores of two names do not compare.
    """

    name: str

    def score(self, prompts: Sequence[str], images: Sequence[Image]) -> NDArray[np.float32]:
        """Of each prompt with the picture beside it, in -1..1. # [N]"""


class ClipAlignment:
    """A CLIP of transformers, from a directory or the hub."""

    def __init__(self, model: str | Path) -> None:
        """Load CLIP and its preprocessing, from safetensors.

        Raises:
            BackendUnavailable: PyTorch or transformers is not installed.
            InputError: there is no such model.
        """
        _require_torch()
        import torch
        from huggingface_hub import snapshot_download
        from transformers import AutoProcessor, CLIPModel

        from mnemoscope_export import load_network
        from mnemoscope_export.models.hub import HUB_ID, UNREACHED, why_not_there

        self.name = Path(model).name
        folder = Path(model)
        if not folder.exists():
            if not HUB_ID.fullmatch(str(model)):
                raise InputError(f"{model} is no CLIP: there is no such directory. {_SAVED}")
            try:
                folder = Path(snapshot_download(str(model), allow_patterns=_READ))
            except UNREACHED as error:
                raise InputError(why_not_there(str(model), error)) from None
        try:
            self._clip = load_network(CLIPModel, folder, dtype=torch.float32)
            self._processor = AutoProcessor.from_pretrained(folder)
        except (OSError, ValueError, ExportError) as error:
            raise InputError(f"{model} is no CLIP: {error} {_SAVED}") from None

    def score(self, prompts: Sequence[str], images: Sequence[Image]) -> NDArray[np.float32]:
        """Of each prompt with the picture beside it, in -1..1. # [N]"""
        import torch

        found = []
        for i in range(0, len(images), _BATCH):
            told = self._processor(
                text=list(prompts[i : i + _BATCH]),
                images=[each.convert("RGB") for each in images[i : i + _BATCH]],
                return_tensors="pt",
                padding=True,
                truncation=True,
            )
            with torch.inference_mode():
                output = self._clip(**told)
            found.append((output.text_embeds * output.image_embeds).sum(1).numpy())
        return np.concatenate(found)


class EmbeddedAlignment:
    """The embedded model's own small CLIP: its text encoder, and the image encoder beside it."""

    name = "embedded-clip"

    def __init__(self, folder: Path = embedded.MODEL) -> None:
        """Load both encoders, of this model or of another that its recipe made.

        Raises:
            BackendUnavailable: PyTorch or transformers is not installed.
        """
        _require_torch()
        import torch
        from safetensors.torch import load_file
        from transformers import CLIPTextModel, CLIPTokenizer

        from mnemoscope_export import load_network

        from ..embedded.image_encoder import ImageEncoder

        state = load_file(folder / "image_encoder" / "model.safetensors")
        self._vision = ImageEncoder().eval()
        prefix = "vision."
        self._vision.load_state_dict(
            {
                name.removeprefix(prefix): value.float()
                for name, value in state.items()
                if name.startswith(prefix)
            }
        )
        self._project = state["text_projection.weight"].float()
        self._text = load_network(CLIPTextModel, folder / "text_encoder", dtype=torch.float32)
        self._tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")

    def score(self, prompts: Sequence[str], images: Sequence[Image]) -> NDArray[np.float32]:
        """Of each prompt with the picture beside it, in -1..1. # [N]"""
        import torch
        from torch.nn import functional as F

        side = 64
        square = [each.convert("RGB").resize((side, side)) for each in images]
        pixels = np.stack([np.asarray(each, np.float32) for each in square]) / 127.5 - 1
        told = self._tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            text = self._text(told.input_ids).pooler_output @ self._project.T
            seen = self._vision(torch.from_numpy(pixels).permute(0, 3, 1, 2))
            return np.asarray(F.cosine_similarity(text, seen).numpy(), np.float32)


def load_alignment(model: str | Path | None = None) -> Alignment:
    """CLIP from a directory or the hub, or the embedded model's own.

    Raises:
        BackendUnavailable: PyTorch or transformers is not installed.
        InputError: there is no such model.
    """
    return EmbeddedAlignment() if model is None else ClipAlignment(model)


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable(
            f"A CLIP score needs PyTorch and transformers: {error}. Install them with "
            f"{pip_install('torch')}."
        ) from None
