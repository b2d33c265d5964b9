"""A small T5 tokenizer, trained on the embedded model's captions."""

from __future__ import annotations

from charsmaps import charsmap
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import T5Tokenizer

from mnemoscope import embedded

_SPECIAL = ["<pad>", "</s>", "<unk>"]


def t5_tokenizer(size: int = 300) -> T5Tokenizer:
    """One of at most so many pieces, without the hundred sentinels behind them."""
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=_SPECIAL, unk_token="<unk>", show_progress=False
    )
    captions = [row.prompt for row in embedded.read_prompts("held_out")]
    trained.train_from_iterator(captions, trainer)
    pieces = [(text, 0.0) for text in _SPECIAL]
    found = {trained.id_to_token(k) for k in range(trained.get_vocab_size())} - {*_SPECIAL, "▁"}
    found |= {"▁word"}  # of which tests make prompts of a known length, whatever captions say
    # scores by length stand for those of training, which the library does not give away
    pieces += [("▁", -2.5), *((text, -8.0 + min(len(text), 5)) for text in sorted(found))]
    return T5Tokenizer(vocab=pieces, _spm_precompiled_charsmap=charsmap())
