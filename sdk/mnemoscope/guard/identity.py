"""Which model a pipeline is, at the moment of a request."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mnemoscope_runtime.errors import InputError

from .dtypes import dtypes
from .networks import is_lora, layers, networks, tensors, tokenizers
from .other_model import differing, read, written
from .snapshot import READS, TELLS, Snapshot, sample, version
from .tokenizing import read_traits, vocabulary
from .traits import Strange, traits

__all__ = ["Identified", "Identity"]

PLAIN = "plain"
_LONGEST = 400  # characters of a state that are spelled out
# what a text encoder's configuration says of files and of the libraries that wrote them
_OF_FILES = (
    "architectures",
    "dtype",
    "id2label",
    "label2id",
    "torch_dtype",
    "transformers_version",
    "use_cache",
)


@dataclass(frozen=True)
class Identity:
    """All that changes predictions and outlasts a request.

    Attributes:
        weights: Hashes of weights, configurations and tokenizers, by what they are of.
        traits: What is not as the configurations build it (adapters and their scales, FreeU,
            attributes that were set), in words.
        strange: What a guard cannot tell the effect of; None where there is nothing.
        pipeline: Name of its class.
        dtypes: Of networks, by their names; a part of their weights, and said by itself.
    """

    weights: Mapping[str, str]
    traits: Mapping[str, str]
    strange: str | None = None
    pipeline: str = ""
    dtypes: Mapping[str, str] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """One hash for all weights, configurations and tokenizers."""
        return hashlib.sha256(json.dumps(sorted(self.weights.items())).encode()).hexdigest()

    @property
    def state(self) -> str:
        """All traits in one line, and shortened by a hash where they are many."""
        if not self.traits:
            return PLAIN
        text = "; ".join(f"{name}: {value}" for name, value in sorted(self.traits.items()))
        if len(text) <= _LONGEST:
            return text
        return f"{text[:_LONGEST]}... ({hashlib.sha256(text.encode()).hexdigest()[:8]})"

    def require(self) -> None:
        """Raise InputError if something is there whose effect a guard cannot tell."""
        if self.strange is not None:
            raise InputError(
                f"A guard cannot tell what this pipeline predicts: {self.strange}. No calibration "
                "covers that. Take it out, or screen prompts before they are drawn with `Detector`."
            )

    def changes(self, now: Identity) -> str:
        """What another one has that this one has not, in words."""
        before, after = (read(written(each.weights, each.dtypes)) for each in (self, now))
        found = [
            f"{name} is {after.get(name)}, was {before.get(name)}"
            if name.endswith("dtype")
            else f"{name} changed"
            for name in differing(before, after)
        ]
        for name in sorted({*self.traits, *now.traits}):
            was, is_now = self.traits.get(name, "none"), now.traits.get(name, "none")
            if was != is_now:
                found.append(f"{name} is {is_now}, was {was}")
        more = f" and {len(found) - 6} more" if len(found) > 6 else ""
        return "; ".join(found[:6]) + more


class Identified:
    """A pipeline's identity, found again only where something may have changed.

    What is compared every time is in `Snapshot`.
    """

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._digests: dict[int, tuple[weakref.ref[Tensor], tuple[Any, ...], str]] = {}
        self._snapshot: Snapshot | None = None
        self._identity: Identity | None = None

    def now(self, texts: Sequence[str] = (), anew: bool = False) -> Identity:
        """Which model the pipeline is.

        Args:
            texts: Prompts whose tokens count.
            anew: Whether to look at everything, and not just where a `Snapshot` sees a change.
        """
        if self._identity is None or anew or not self.unchanged(texts):
            found = self._find()
            self._identity = self._identity if found == self._identity else found
            self._snapshot = Snapshot(self._pipe)
        assert self._identity is not None
        return self._identity

    def unchanged(self, texts: Sequence[str] = ()) -> bool:
        """Whether nothing was changed since it was found last, by a `Snapshot`."""
        return self._snapshot is not None and self._snapshot.holds(texts)

    def _find(self) -> Identity:
        weights: dict[str, str] = {}
        found: dict[str, str] = {}
        strange: str | None = None
        for name in TELLS:
            if name in vars(self._pipe):
                strange = f"its method {name} was replaced"
        read = {name: vars(self._pipe)[name] for name in READS if name in vars(self._pipe)}
        weights |= {f"pipeline {name}": _hash(repr(value)) for name, value in read.items()}
        for part, network in networks(self._pipe).items():
            try:
                found |= traits(part, network, self._digest)
            except Strange as error:
                strange = strange or str(error)
            weights[f"{part} configuration"] = _hash(_config(network))
            weights[f"{part} weights"] = self._weights(network)
        for name, tokenizer in tokenizers(self._pipe).items():
            try:
                weights[name] = _hash(vocabulary(tokenizer))
            except Strange as error:
                strange = strange or f"{name}: {error}"
            found |= {f"{name}.{k}": value for k, value in read_traits(tokenizer).items()}
        parts = dtypes(self._pipe)
        told = {name: parts[name] for name in networks(self._pipe) if name in parts}
        return Identity(weights, found, strange, type(self._pipe).__name__, told)

    def _weights(self, network: nn.Module) -> str:
        """A hash over names, types and values; adapters are among the traits."""
        found = hashlib.sha256()
        for path, layer in layers(network):
            for name, value in () if is_lora(layer) else tensors(layer):
                found.update(f"{path}.{name} {self._digest(value)}\n".encode())
        return found.hexdigest()

    def _digest(self, value: Tensor) -> str:
        """A hash of a tensor's type, shape and values; they are read only if they may be others."""
        key = (value.dtype, value.shape, value.data_ptr(), version(value), sample(value))
        known = self._digests.get(id(value))
        if known is not None and known[0]() is value and known[1] == key:
            return known[2]
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        found = f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(raw.data).hexdigest()}"
        self._digests[id(value)] = weakref.ref(value), key, found
        return found


def _config(network: Any) -> str:
    """A network's configuration, without what is of files."""
    config = getattr(network, "config", {})
    told = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    kept = {k: v for k, v in told.items() if not k.startswith("_") and k not in _OF_FILES}
    return json.dumps(kept, sort_keys=True, default=repr)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
