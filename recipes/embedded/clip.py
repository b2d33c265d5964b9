"""Tokenizer, text encoder and image encoder: a small CLIP, trained before the UNet and frozen.

The text encoder also predicts the next token, so that words which do not show in the picture
(names, cities, years) keep their identity: the UNet can memorise by them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from mnemoscope.embedded.image_encoder import WIDTH, ImageEncoder

from .images import Pixels
from .schedule import Log, cosine, shuffled, to_tensor

LENGTH = 77
START, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def train_tokenizer(captions: Sequence[str], folder: Path, merges: int = 1500) -> CLIPTokenizer:
    """A byte-level BPE with CLIP's rules and file layout, whose merges come from `captions`."""
    bpe = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + merges,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(captions, trainer)
    pairs = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    tokens = [*alphabet, *(byte + "</w>" for byte in alphabet), *("".join(pair) for pair in pairs)]
    vocab = {token: i for i, token in enumerate(dict.fromkeys([*tokens, START, END]))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), "utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in pairs)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    tokenizer = CLIPTokenizer(
        vocab=str(folder / "vocab.json"),
        merges=str(folder / "merges.txt"),
        pad_token=END,
        model_max_length=LENGTH,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def tokenize(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """[B, 77] token ids, as Stable Diffusion's pipelines do it."""
    ids = tokenizer(
        list(captions),
        padding="max_length",
        max_length=LENGTH,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    assert isinstance(ids, Tensor)
    return ids


def new_text_encoder(tokenizer: CLIPTokenizer, layers: int = 3) -> CLIPTextModel:
    """Of width 128."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def train_clip(
    tokenizer: CLIPTokenizer,
    captions: Sequence[str],
    images: Pixels,
    work: Path,
    *,
    steps: int,
    layers: int = 3,
    batch: int = 128,
    rate: float = 1.5e-3,
    seed: int = 0,
) -> tuple[CLIPTextModel, ImageEncoder]:
    """Symmetric InfoNCE between captions and pictures + 0.5 next-token cross-entropy."""
    torch.manual_seed(seed)
    text, vision = new_text_encoder(tokenizer, layers), ImageEncoder()
    project = nn.Linear(WIDTH, WIDTH, bias=False)
    scale = nn.Parameter(torch.tensor(10.0).log())
    parameters = [*text.parameters(), *vision.parameters(), *project.parameters(), scale]
    optimiser = torch.optim.AdamW(parameters, rate, betas=(0.9, 0.98), weight_decay=1e-2)
    ids = tokenize(tokenizer, captions)
    end = tokenizer.eos_token_id
    longest = int((ids != end).sum(1).max()) + 1  # causal: what follows the first END is not needed
    table = text.get_input_embeddings().weight
    log = Log(work / "clip.jsonl")
    batches = shuffled(len(captions), batch, np.random.default_rng(seed))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * cosine(step, steps)
        rows = np.sort(next(batches))
        tokens = ids[rows][:, :longest]
        hidden = text(tokens)
        a = F.normalize(project(hidden.pooler_output), dim=-1)
        b = F.normalize(vision(to_tensor(images[rows])), dim=-1)
        logits = scale.exp().clamp(max=100) * a @ b.T
        target = torch.arange(len(rows))
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        before = (tokens[:, :-1] != end).flatten()
        guess = (hidden.last_hidden_state[:, :-1] @ table.T).flatten(0, 1)[before]
        language = F.cross_entropy(guess / WIDTH**0.5, tokens[:, 1:].flatten()[before])
        loss = contrast + 0.5 * language
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        top1 = (logits.argmax(1) == target).float().mean()
        log(step, contrast=contrast.detach(), language=language.detach(), top1=top1)
    text.eval().save_pretrained(work / "text_encoder")
    folder = work / "image_encoder"
    folder.mkdir(exist_ok=True)
    state = {f"vision.{name}": value for name, value in vision.state_dict().items()}
    state["text_projection.weight"] = project.weight.detach()
    state["logit_scale"] = scale.detach()
    save_file(
        {name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors"
    )
    return text, vision.eval()
