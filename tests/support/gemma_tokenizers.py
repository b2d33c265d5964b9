"""A small Gemma tokenizer, trained on the embedded model's captions and Sana's instruction."""

from __future__ import annotations

import json

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import GemmaTokenizer

from mnemoscope import embedded
from mnemoscope_export.models.sana import INSTRUCTION

_SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]


def gemma_tokenizer(size: int = 1000) -> GemmaTokenizer:
    """One of so many tokens, and some that were added."""
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*_SPECIAL, *(f"<0x{k:02X}>" for k in range(256))],
        show_progress=False,
    )
    captions = [row.prompt for row in embedded.read_prompts("held_out")]
    trained.train_from_iterator(["\n\n".join(captions), *[INSTRUCTION] * 20], trainer)
    model = json.loads(trained.to_str())["model"]
    found = GemmaTokenizer(
        vocab=model["vocab"],
        merges=[tuple(pair) for pair in model["merges"]],
        add_bos_token=True,
    )
    found.add_tokens(["\n\n", "▁▁"])
    found.add_special_tokens({"additional_special_tokens": ["<start_of_turn>"]})
    return found
