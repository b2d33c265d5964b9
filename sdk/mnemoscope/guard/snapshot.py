"""Whether anything was changed about a pipeline's networks since last time, in microseconds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from ctypes import c_char
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as global_hooks

from .networks import networks, tokenizers
from .tokenizing import Tokenizing

__all__ = ["READS", "TELLS", "Snapshot", "sample", "version"]

# a pipeline's methods that say what its network is told
TELLS = (
    "encode_prompt",
    "_get_clip_prompt_embeds",
    "_get_t5_prompt_embeds",
    "_get_qwen_prompt_embeds",
    "_get_gemma_prompt_embeds",
    "_text_preprocessing",
    "maybe_convert_prompt",
    "prepare_latents",
    "get_timesteps",
    "prepare_extra_step_kwargs",
)
# its attributes that say how prompts are read, where it has them
READS = ("prompt_template_encode", "prompt_template_encode_start_idx", "tokenizer_max_length")
_TALL = 16  # an embedding has so many times more rows than columns ...
_ROWS = 64  # ... and the last are where textual inversion puts its own
_VERSION, _DTYPE = attrgetter("_version"), attrgetter("dtype")


class Snapshot:
    """What a pipeline was when this was made.

    Compared are: the very objects (networks, their layers, tensors, hooks, processors, tokenizers),
    every attribute of every layer, how tokenizers read (`Tokenizing`), and of every tensor its
    type, its version, which operations in place count up, and, since those on `tensor.data` are not
    counted, two of its values: whatever changes all values of a tensor changes those.
    """

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._parts = _parts(pipe)
        self._tokenizers = [*map(Tokenizing, tokenizers(pipe).values())]
        layers = [layer for network in networks(pipe).values() for layer in network.modules()]
        holders = {id(each): each for layer in layers for each in _containers(layer)}
        self._live = list(holders.values())
        self._copies = [_copied(each) for each in self._live]
        self._hooks = [each for layer in layers for each in _hooks(layer)]
        self._hooked = [*map(_copied, self._hooks)] if any(self._hooks) else []
        self._layers = layers
        self._kinds: list[Any] = [*map(type, layers)]
        self._forwards = {kind: kind.forward for kind in self._kinds}
        found = {id(value): value for layer in layers for value in _tensors(layer)}
        self._tensors = list(found.values())
        self._counting = [value for value in self._tensors if not value.is_inference()]
        self._versions = [*map(_VERSION, self._counting)]
        self._dtypes = [*map(_DTYPE, self._tensors)]
        self._places = [*map(Tensor.data_ptr, self._tensors)]
        self._values = _Values(self._tensors)
        self._read = self._values.read()

    def holds(self, texts: Sequence[str] = ()) -> bool:
        """Whether the pipeline is still that, and reads these prompts as it did."""
        try:
            same = self._parts == _parts(self._pipe) and self._live == self._copies
        except RuntimeError:  # tensors, one of which was put in another one's place
            return False
        hooked = self._hooks == self._hooked if self._hooked else not any(self._hooks)
        same = same and hooked and self._kinds == [*map(type, self._layers)]
        same = same and all(kind.forward is each for kind, each in self._forwards.items())
        if not same or not self._holds_weights():
            return False
        return all(each.holds(("", *texts)) for each in self._tokenizers)

    def _holds_weights(self) -> bool:
        if self._versions != [*map(_VERSION, self._counting)]:
            return False
        if self._dtypes != [*map(_DTYPE, self._tensors)]:
            return False
        places = [*map(Tensor.data_ptr, self._tensors)]
        if places != self._places:  # moved, as offloading does for every request
            self._places, self._values = places, _Values(self._tensors)
        return self._values.read() == self._read


def version(value: Tensor) -> int:
    """How often a tensor was changed in place; 0 if it does not count (inference mode)."""
    return 0 if value.is_inference() else value._version


def sample(value: Tensor) -> bytes:
    """A few of a tensor's values."""
    return _Values([value]).read()


class _Values:
    """A few values of every tensor, read where they are."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self._here: list[Any] = []  # memory of this machine: the tensors keep it
        self._there: dict[Any, list[Tensor]] = defaultdict(list)
        for value in tensors:
            for place in _places(value):
                if value.device.type == "cpu":
                    address = value.data_ptr() + place * value.element_size()
                    self._here.append((c_char * value.element_size()).from_address(address))
                else:
                    now, first = value.detach(), value.storage_offset()
                    view = now.as_strided((1,), (1,), first + place)
                    self._there[value.dtype, value.device].append(view)

    def read(self) -> bytes:
        """As they are now. NaN is the same as itself."""
        found = b"".join(self._here)
        for views in self._there.values():
            found += torch.cat(views).view(torch.uint8).cpu().numpy().tobytes()
        return found


def _places(value: Tensor) -> set[int]:
    """Where to look, in the order of a tensor's memory."""
    count = value.numel()
    dense = value.is_contiguous() or (
        value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last)
    )
    if not dense or not count:
        return set()
    found = {count // 3, count - 1}
    if (
        value.ndim == 2 and len(value) > _TALL * value.shape[1]
    ):  # an embedding: the rows of the last tokens
        found |= set(range(count - _ROWS * value.shape[1], count, value.shape[1]))
    return found


def _parts(pipe: Any) -> list[Any]:
    """The pipeline's parts themselves."""
    found: list[Any] = [
        *networks(pipe).items(),
        *(vars(pipe).get(name) for name in (*TELLS, *READS)),
    ]
    found += tokenizers(pipe).items()
    globally = (*global_hooks._global_forward_pre_hooks, *global_hooks._global_forward_hooks)
    return [*found, *globally]


def _containers(layer: nn.Module) -> Iterator[Any]:
    """All that holds what a layer is, and can be changed."""
    own = vars(layer)
    yield own
    for each in (layer._parameters, layer._buffers, layer._modules):
        if each:
            yield each
    for name, value in own.items():
        if type(value) in (list, dict, set) and name[0] != "_":
            yield value
    if (config := own.get("config")) is not None:
        yield vars(config)
    if (processor := own.get("processor")) is not None:
        yield vars(processor)
    if (registry := own.get("_diffusers_hook")) is not None:
        yield registry.hooks


def _hooks(layer: nn.Module) -> tuple[dict[int, Any], ...]:
    return layer._forward_hooks, layer._forward_pre_hooks


def _copied(holder: Any) -> Any:
    return dict(holder) if isinstance(holder, dict) else holder.copy()


def _tensors(layer: nn.Module) -> Iterator[Tensor]:
    """A layer's tensors; those that accelerate has offloaded where it keeps them."""
    kept = getattr(getattr(layer, "_hf_hook", None), "weights_map", None)
    for name, value in (*layer._parameters.items(), *layer._buffers.items()):
        if value is None:
            continue
        found = kept[name] if value.is_meta and kept is not None else value
        if not found.is_meta:
            yield found
