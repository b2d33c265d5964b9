"""An ONNX export in Optimum's layout: everything but the graphs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models
from tokenizers import normalizers as norm
from tokenizers import pre_tokenizers as pre
from tokenizers import processors as post

from mnemoscope_runtime import ClipTokenizer
from mnemoscope_runtime.errors import BundleError, ExportError
from mnemoscope_runtime.manifest import TokenizerRecord

from ..configs import PARTS, check_configs, sample_size
from ..records import check_latent_size

__all__ = ["OnnxPipeline", "clip_tokenizer"]

_CONFIGS = ("unet", "text_encoder", "tokenizer", "scheduler")
_START, _END = "<|startoftext|>", "<|endoftext|>"
# CLIP's own pattern (Radford et al. 2021), as transformers 5 writes it
_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


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
        tokenizer: The contents of a bundle's `tokenizer.json`.
        tokenizer_record: How prompts are padded.
    """

    id: str
    text_encoder: Path
    unet: Path
    scheduler: Mapping[str, Any]
    unet_config: Mapping[str, Any]
    latent_shape: tuple[int, int, int]
    tokenizer: bytes
    tokenizer_record: TokenizerRecord

    @classmethod
    def load(cls, folder: str | Path, latent_size: tuple[int, int] | None = None) -> OnnxPipeline:
        """Read the configs and the tokenizer.

        Args:
            folder: The export.
            latent_size: (H, W) of the latents, unless those that the UNet was trained on.

        Raises:
            ExportError: something is missing or damaged, or belongs to another kind of model; of
                options that are in the way all are named.
            InputError: the UNet cannot halve latents of that size as often as it does.
        """
        folder = Path(folder)
        if (folder / "text_encoder_2").exists():
            raise ExportError(
                f"{folder} has a text_encoder_2, so it is Stable Diffusion XL: its UNet also takes "
                "a pooled embedding and image sizes. ONNX exports of Stable Diffusion 1.x and 2.x "
                "can be used."
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
        tokenizer, record = _tokenizer(folder)
        unet = configs["unet"]
        size = latent_size or sample_size(unet)
        found = cls(
            id=folder.resolve().name,
            **files,
            scheduler=configs["scheduler"],
            unet_config=unet,
            latent_shape=(int(unet.get("in_channels", 4)), *size),
            tokenizer=tokenizer,
            tokenizer_record=record,
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

    def clip(self) -> ClipTokenizer:
        """The tokenizer as the runtime uses it."""
        record = self.tokenizer_record
        return ClipTokenizer(self.tokenizer, length=record.length, pad_token=record.pad_token)


def clip_tokenizer(vocab: Path, merges: Path) -> Tokenizer:
    """CLIP's tokenizer from the files of the slow one, as transformers converts it."""
    bpe = models.BPE.from_file(
        str(vocab),
        str(merges),
        unk_token=_END,
        continuing_subword_prefix="",
        end_of_word_suffix="</w>",
        fuse_unk=False,
    )
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = norm.Sequence(
        [norm.NFC(), norm.Replace(Regex(r"\s+"), " "), norm.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre.Sequence(
        [pre.Split(Regex(_WORDS), "removed", invert=True), pre.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(text, normalized=False, special=True) for text in (_START, _END)]
    tokenizer.add_special_tokens(special)
    end, start = ((text, _id(tokenizer, text)) for text in (_END, _START))
    tokenizer.post_processor = post.RobertaProcessing(
        end, start, add_prefix_space=False, trim_offsets=False
    )
    return tokenizer


def _id(tokenizer: Tokenizer, text: str) -> int:
    found = tokenizer.token_to_id(text)
    assert found is not None
    return found


def _tokenizer(folder: Path) -> tuple[bytes, TokenizerRecord]:
    files = folder / "tokenizer"
    ready, vocab, merges = (files / n for n in ("tokenizer.json", "vocab.json", "merges.txt"))
    config = _read_json(files / "tokenizer_config.json")
    encoder = _read_json(folder / "text_encoder" / "config.json")
    longest = encoder.get("max_position_embeddings", 77)
    pad = config.get("pad_token") or _END
    try:
        if ready.is_file():
            definition = ready.read_bytes()
        else:
            definition = clip_tokenizer(vocab, merges).to_str(pretty=True).encode()
        record = TokenizerRecord(
            length=int(min(config.get("model_max_length", longest), longest)),
            pad_token=str(pad["content"] if isinstance(pad, dict) else pad),
        )
        ClipTokenizer(definition, length=record.length, pad_token=record.pad_token)
    except BundleError as error:
        raise ExportError(f"The tokenizer in {files} cannot be used: {error}") from None
    except Exception as error:  # tokenizers raises bare Exception
        raise ExportError(
            f"The tokenizer in {files} cannot be used: {error}. It needs tokenizer.json, or "
            "vocab.json and merges.txt, of a CLIP tokenizer."
        ) from None
    return definition, record


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
