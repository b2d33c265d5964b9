"""A small Qwen2 tokenizer, trained on the embedded model's captions and a template."""

from __future__ import annotations

import json

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

from mnemoscope import embedded
from mnemoscope_export.models.qwen_image import _TEMPLATE
from mnemoscope_runtime.qwen_json import WORDS


def qwen_tokenizer(size: int = 700) -> Qwen2Tokenizer:
    """One of so many tokens, and what a chat is marked with."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    captions = [row.prompt for row in embedded.read_prompts("held_out")]
    texts = ["\n\n".join(captions), *[_TEMPLATE] * 20]
    trained.train_from_iterator(texts, trainer)
    model = json.loads(trained.to_str())["model"]
    found = Qwen2Tokenizer(
        vocab={**model["vocab"], "<|endoftext|>": len(model["vocab"])},
        merges=[tuple(pair) for pair in model["merges"]],
    )
    found.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return found
