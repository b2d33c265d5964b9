"""Does the model memorise what it should, and only that?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from torch import Tensor

from mnemoscope.drawing.copy_detection import CopyDescriptor
from mnemoscope.evaluate import auc
from mnemoscope_export import StableDiffusion, denoise, noise_bank

from .images import Pixels
from .schedule import to_tensor

SEEDS = 4


def draw(model: StableDiffusion, prompts: Sequence[str], batch: int = 8) -> Tensor:
    """Sample every prompt from the same `SEEDS` noises.

    Returns:
        Finished latents. # [prompt, seed, C, H, W]
    """
    noises = noise_bank(SEEDS, model.latent_shape, seed=0)
    finished = []
    for start in range(0, len(prompts), batch):
        chunk = list(prompts[start : start + batch])
        embeds = tuple(e.repeat_interleave(SEEDS, 0) for e in model.embed(chunk))
        *_, last = denoise(model, embeds, noises.repeat(len(chunk), 1, 1, 1))
        finished.append(last.latents.unflatten(0, (len(chunk), SEEDS)))
    return torch.cat(finished)


def nearest(latents: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine to, and index of, the closest training picture, [prompt, seed] each.

    Cosines are between latents less the mean training latent: the stand-in for a copy descriptor.
    """
    mean = training.flatten(1).mean(0)
    known = torch.nn.functional.normalize(training.flatten(1) - mean, dim=1)
    drawn = torch.nn.functional.normalize(latents.flatten(2) - mean, dim=2)
    best = [(row @ known.T).max(1) for row in drawn]
    return torch.stack([b.values for b in best]), torch.stack([b.indices for b in best])


def reproduction(
    drawn: dict[str, Tensor], own: dict[str, Tensor], training: Tensor
) -> dict[str, float]:
    """How often all seeds give a training picture.

    Args:
        drawn: Latents of every split. # [prompt, seed, C, H, W]
        own: Rows of a split's pictures in `training`, for splits that were trained on.
        training: Latents of all training pictures. # [N, C, H, W]

    Returns:
        For each split the share of prompts whose closest training picture is their own for all
        seeds (trained on) or the same one for all seeds (never trained on), and the mean cosine.
    """
    figures = {}
    for split, latents in drawn.items():
        cosine, index = nearest(latents, training)
        wanted = own[split][:, None] if split in own else index[:, :1]
        figures[f"{split}_reproduced"] = float((index == wanted).all(1).float().mean())
        figures[f"{split}_cosine_to_closest"] = float(cosine.mean())
    return figures


def controls(
    model: StableDiffusion, memorised: Sequence[str], others: Sequence[str]
) -> dict[str, float]:
    """AUC of classifiers that see only the text or its embedding: about 0.5 if nothing leaks."""
    texts = [*memorised, *others]
    labels = np.array([1] * len(memorised) + [0] * len(others))
    words = make_pipeline(CountVectorizer(), LogisticRegression(max_iter=1000))
    embeds = torch.cat([model.embed([text])[0].flatten(1) for text in texts]).numpy()
    linear = LogisticRegression(max_iter=1000, C=0.01)

    def judged(estimator: object, inputs: object) -> float:
        scores = cross_val_predict(estimator, inputs, labels, cv=5, method="decision_function")
        return auc(scores[labels == 1], scores[labels == 0])

    lengths = np.array([float(len(text.split())) for text in texts])
    return {
        "bag_of_words_auc": judged(words, texts),
        "text_embedding_auc": judged(linear, embeds),
        "number_of_words_auc": auc(lengths[labels == 1], lengths[labels == 0]),
    }


@torch.no_grad()
def copies(
    descriptor: CopyDescriptor, training: Pixels, drawn: Sequence[Pixels], vae: AutoencoderKL
) -> dict[str, float]:
    """How alike drawn pictures are to the training pictures themselves, as SSCD sees it.

    Args:
        descriptor: SSCD.
        training: # [N, 64, 64, 3]
        drawn: For each of them. # [seed, 64, 64, 3]
        vae: Whose round trip of a training picture is the best that can be drawn.
    """

    def describe(pixels: Pixels) -> Any:
        return descriptor.describe([Image.fromarray(each) for each in pixels])

    raw = describe(training)
    kept = describe(
        _to_uint8(vae.decode(vae.encode(to_tensor(training)).latent_dist.mode()).sample)
    )
    found = np.stack([describe(each) @ own for each, own in zip(drawn, raw, strict=True)])
    return {
        "round_trip_mean": float((raw * kept).sum(1).mean()),
        "round_trip_copies": float(((raw * kept).sum(1) > 0.5).mean()),
        "drawn_mean": float(found.mean()),
        "captions_copied_by_all_seeds": float((found > 0.5).all(1).mean()),
        "captions_copied_by_any_seed": float((found > 0.5).any(1).mean()),
    }


@torch.no_grad()
def to_pixels(vae: AutoencoderKL, latents: Tensor) -> Pixels:
    """Decode scaled latents [B, C, H, W] to uint8 [B, H, W, 3]."""
    return _to_uint8(vae.decode(latents / vae.config.scaling_factor).sample)


def _to_uint8(decoded: Tensor) -> Pixels:
    """[B, 3, H, W] in -1..1 -> [B, H, W, 3] in 0..255."""
    pixels: Pixels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return pixels


def contact_sheet(
    path: Path, rows: Sequence[tuple[Pixels | None, Pixels]], columns: int = 3, scale: int = 1
) -> None:
    """Rows of (training picture [H, W, 3] or none, drawn pictures [seeds, H, W, 3]), in columns."""
    blocks = []
    for training, drawn in rows:
        first = np.full_like(drawn[0], 255) if training is None else training
        block = np.concatenate([first, *drawn], axis=1)
        gap = np.full((block.shape[0], 12, 3), 255, np.uint8)
        blocks.append(np.concatenate([block, gap], axis=1))
    blocks += [np.full_like(blocks[0], 255)] * (-len(blocks) % columns)
    lines = [np.concatenate(blocks[i : i + columns], 1) for i in range(0, len(blocks), columns)]
    sheet = Image.fromarray(np.concatenate(lines))
    sheet = sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST)
    sheet.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
