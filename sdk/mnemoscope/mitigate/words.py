"""Other words: random ones added (Somepalli et al., NeurIPS 2023), or the user's own rephrasing.

And prompts of nothing but random words, which no model can know by heart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from mnemoscope_export import Model
from mnemoscope_runtime.errors import InputError

from .sampling import Plan, Task

__all__ = ["RandomWords", "Rephrase", "random_prompts"]

Kind = Literal["tokens", "words", "numbers"]
_ENDS = "</w>"  # of CLIP's tokens that end a word
_BEGINS = ("\u2581", "\u0120")  # of T5's and Gemma's, and of Qwen2's, that begin one
_BROKEN = "\ufffd"  # for a part of a character


@dataclass(frozen=True)
class RandomWords:
    """Random tokens, words or numbers at random places of the prompt.

    Tokens are any of the vocabulary's; words those of its tokens that are whole words of three or
    more letters; numbers lie below 100,000. The seed of a sample draws them.

    Attributes:
        kind: Which.
        count: How many.
    """

    kind: Kind = "tokens"
    count: int = 4

    def __post_init__(self) -> None:
        if self.kind not in ("tokens", "words", "numbers"):
            raise InputError(f"One adds tokens, words or numbers, not {self.kind!r}.")
        if self.count < 1:
            raise InputError(f"{self.count} random {self.kind} change nothing. Add one or more.")

    @cached_property
    def name(self) -> str:
        """For results."""
        return f"random-{self.kind}"

    def plan(self, task: Task) -> Plan:
        """See `Strategy`."""
        vocabulary = _vocabulary(task.model, self.kind)
        prompts = tuple(
            self._added(prompt, vocabulary, seed)
            for prompt, seed in zip(task.prompts, task.seeds, strict=True)
        )
        return replace(replace(task, prompts=prompts).plan(), prompts=prompts)

    def _added(self, prompt: str, vocabulary: list[str], seed: int) -> str:
        rng = np.random.default_rng(seed)
        words = prompt.split()
        for _ in range(self.count):
            words.insert(int(rng.integers(len(words) + 1)), str(rng.choice(vocabulary)))
        return " ".join(words)


def random_prompts(model: Model, count: int = 20, seed: int = 0) -> tuple[str, ...]:
    """Prompts of three to ten random words of a model's vocabulary. # [count]

    They stand in for benign prompts where none are given: nobody wrote them, so none was learnt by
    heart, and every model has some that it can read.
    """
    rng, words = np.random.default_rng(seed), _vocabulary(model, "words")
    lengths = rng.integers(3, 11, count).tolist()
    return tuple(" ".join(map(str, rng.choice(words, length))) for length in lengths)


def _vocabulary(model: Model, kind: Kind) -> list[str]:
    if kind == "numbers":
        return [str(number) for number in range(100_000)]
    tokenizer, _ = model.tokenizers["tokenizer"]
    ids = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    if kind == "tokens":
        found = [tokenizer.decode([i]).strip() for i in ids]
        return [word for word in found if word.isprintable() and word and _BROKEN not in word]
    words = map(_whole, tokenizer.convert_ids_to_tokens(ids))
    return [word for word in words if word.isalpha() and word.isascii() and len(word) > 2]


def _whole(token: str) -> str:
    """The word that a token is by itself; nothing of one that is a part of words."""
    if token.endswith(_ENDS):
        return token.removesuffix(_ENDS)
    return token[1:] if token.startswith(_BEGINS) else ""


@dataclass(frozen=True)
class Rephrase:
    """The prompt as a function of the user's says it: a language model, a table, a person.

    Attributes:
        rephrase: Prompt to prompt.
    """

    rephrase: Callable[[str], str]
    name: str = "rephrase"

    def plan(self, task: Task) -> Plan:
        """See `Strategy`.

        Raises:
            InputError: what it returned is no text.
        """
        found = {prompt: self.rephrase(prompt) for prompt in dict.fromkeys(task.prompts)}
        for prompt, said in found.items():
            if not isinstance(said, str) or not said.strip():
                raise InputError(f"{prompt!r} was rephrased to {said!r}, which is no prompt.")
        prompts = tuple(found[prompt] for prompt in task.prompts)
        return replace(replace(task, prompts=prompts).plan(), prompts=prompts)
