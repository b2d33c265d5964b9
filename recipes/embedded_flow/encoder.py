"""The second text encoder: a smaller CLIP, taught by the image encoder of the first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from mnemoscope.embedded.image_encoder import WIDTH, ImageEncoder
from mnemoscope_export import load_network
from recipes.embedded.clip import LENGTH, tokenize
from recipes.embedded.images import Pixels
from recipes.embedded.schedule import Log, cosine, shuffled, to_tensor

__all__ = ["new_text_encoder", "read_second", "seen_by", "train_second"]


def new_text_encoder(
    tokenizer: CLIPTokenizer, *, width: int, layers: int, heads: int
) -> CLIPTextModelWithProjection:
    """Projects into the image encoder's space, of width 128."""
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=LENGTH,
            projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def read_second(work: Path) -> CLIPTextModelWithProjection:
    """The one that was trained in a working directory."""
    encoder: CLIPTextModelWithProjection = load_network(
        CLIPTextModelWithProjection, work / "text_encoder_2", dtype=torch.float32
    )
    return encoder.eval()


@torch.no_grad()
def seen_by(vision: ImageEncoder, images: Pixels, batch: int = 500) -> Tensor:
    """What the image encoder makes of pictures. # [N, 128]"""
    starts = range(0, len(images), batch)
    return torch.cat([vision(to_tensor(images[i : i + batch])) for i in starts])


def train_second(
    tokenizer: CLIPTokenizer,
    captions: Sequence[str],
    pictures: Tensor,
    log: Path,
    *,
    steps: int,
    batch: int = 128,
    rate: float = 2e-3,
    seed: int = 0,
) -> CLIPTextModelWithProjection:
    """Symmetric InfoNCE between captions and embedded pictures + 0.5 next-token cross-entropy.

    Args:
        tokenizer: Of the first text encoder.
        captions: Of the pictures.
        pictures: What `seen_by` returns. # [N, 128]
        log: A line for every hundred steps.
        steps: Of AdamW.
        batch: Pairs a step.
        rate: Learning rate, after a warm-up; falls as a cosine.
        seed: Of weights and batches.
    """
    torch.manual_seed(seed)
    text = new_text_encoder(tokenizer, width=64, layers=2, heads=4)
    scale = nn.Parameter(torch.tensor(20.0).log())
    parameters = [*text.parameters(), scale]
    optimiser = torch.optim.AdamW(parameters, rate, betas=(0.9, 0.98), weight_decay=1e-2)
    ids, end = tokenize(tokenizer, captions), tokenizer.eos_token_id
    longest = int((ids != end).sum(1).max()) + 1  # causal: what follows the first END is not needed
    table = text.get_input_embeddings().weight
    report = Log(log)
    batches = shuffled(len(captions), batch, np.random.default_rng(seed))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * cosine(step, steps)
        rows = torch.from_numpy(next(batches))
        tokens = ids[rows][:, :longest]
        found = text(tokens)
        a = F.normalize(found.text_embeds, dim=-1)
        b = F.normalize(pictures[rows], dim=-1)
        logits = scale.exp().clamp(max=100) * a @ b.T
        target = torch.arange(len(rows))
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        before = (tokens[:, :-1] != end).flatten()
        guess = (found.last_hidden_state[:, :-1] @ table.T).flatten(0, 1)[before]
        language = F.cross_entropy(guess / table.shape[1] ** 0.5, tokens[:, 1:].flatten()[before])
        loss = contrast + 0.5 * language
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        top1 = (logits.argmax(1) == target).float().mean()
        report(step, contrast=contrast.detach(), language=language.detach(), top1=top1)
    return text.eval()
