"""Which tokens a prompt has: what decides that of a tokenizer, and whether it was changed."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from .traits import Strange, text

__all__ = ["Tokenizing", "read_traits", "vocabulary"]

_ABOUT = ("model_max_length", "padding_side", "truncation_side", "pad_token_id")
_COMPONENTS = ("normalizer", "pre_tokenizer", "post_processor")
_PASSING = ("cache", "deprecation_warnings")  # what was read or told before
_LARGE = 1000  # entries: dictionaries of words, which prompts tell apart
# attributes that no token depends on, or that are looked at in another way
_NEUTRAL = {
    *_ABOUT,
    *_PASSING,
    "backend",
    "chat_control_tokens",
    "chat_template",
    "clean_up_tokenization_spaces",
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
    "decoder",
    "files_loaded",
    "init_inputs",
    "init_kwargs",
    "merges_file",
    "name_or_path",
    "response_template",
    "verbose",
    "vocab_file",
    "_in_target_context_manager",
    "_processor_class",
}


class Tokenizing:
    """How a tokenizer read prompts when this was made.

    Compared are its attributes, the components of a fast one but for its words, and the tokens of
    the prompts at hand with those of a copy.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._stood: list[Any] | None = None
        self._read: tuple[Sequence[str], Any] = (), []
        try:
            self._copy = copy.deepcopy(tokenizer)
            self._stood = _standing(tokenizer)
        except Exception:  # tokenizers raises just that of components that are written in Python
            self._copy = None

    def holds(self, texts: Sequence[str]) -> bool:
        """Whether it still does, and gives these prompts the same tokens."""
        try:
            if self._stood is None or _standing(self._tokenizer) != self._stood:
                return False
            if self._read[0] != texts:
                self._read = texts, _tokens(self._copy, texts)
            return bool(_tokens(self._tokenizer, texts) == self._read[1])
        except Exception:  # as above; or a text that none reads, and the pipeline will say so
            return False


def vocabulary(tokenizer: Any) -> str:
    """All that decides which tokens a prompt has; not what the last call asked for.

    Raises:
        Strange: something does that cannot be told.
    """
    kind = type(tokenizer)
    if not kind.__module__.startswith("transformers."):
        raise Strange(f"it is a {kind.__module__}.{kind.__qualname__}, none of transformers")
    replaced = [name for name in vars(tokenizer) if callable(getattr(kind, name, None))]
    if replaced:
        raise Strange(f"its method {replaced[0]} was replaced")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    told: Any
    if backend is None:
        own = {k: v for k, v in vars(tokenizer).items() if k not in _NEUTRAL}
        told = [kind.__name__, tokenizer.get_vocab(), text(own, "an attribute of it")]
    else:
        try:
            told = json.loads(backend.to_str())
        except Exception as error:  # tokenizers raises just that
            raise Strange(f"a component of it cannot be read: {error}") from None
        told = {k: v for k, v in told.items() if k not in ("truncation", "padding")}
        if (told.get("model") or {}).get("dropout"):
            raise Strange("it drops merges at random (`backend_tokenizer.model.dropout`)")
    about = [getattr(tokenizer, name, None) for name in _ABOUT]
    return json.dumps([told, about], sort_keys=True, default=repr)


def read_traits(tokenizer: Any) -> dict[str, str]:
    """How it reads special tokens that prompts spell out, where that is not as usual."""
    split = getattr(tokenizer, "split_special_tokens", False)
    return {"split_special_tokens": str(split)} if split else {}


def _standing(tokenizer: Any) -> list[Any]:
    """What can be asked for in microseconds."""
    own = {name: value for name, value in vars(tokenizer).items() if name not in _PASSING}
    holders = [
        (name, copy.copy(value))
        for name, value in own.items()
        if isinstance(value, dict | list | set) and len(value) < _LARGE
    ]
    found: list[Any] = [type(tokenizer), len(tokenizer), own, holders]
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is None:
        return found
    for name in _COMPONENTS:
        component = getattr(backend, name)
        found.append(None if component is None else component.__getstate__())
    model = backend.model
    asked = {name: getattr(model, name) for name in dir(model) if name[0] != "_"}
    found += (type(model), {name: value for name, value in asked.items() if not callable(value)})
    return [*found, str(backend.get_added_tokens_decoder())]


def _tokens(tokenizer: Any, texts: Sequence[str]) -> Any:
    """Those that the text encoder reads."""
    return tokenizer(list(texts), truncation=True, return_attention_mask=False)["input_ids"]
