"""What about a network is not as its configuration builds it: adapters, FreeU, hooks, ..."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor, nn

from ..training_mode import in_training
from .networks import PREDICTORS, is_lora, layers, tensors

__all__ = ["Digest", "Strange", "text", "traits"]

Digest = Callable[[Tensor], str]  # of a tensor's type, shape and values
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate", "math", "builtins")
# compute attention and nothing else, in different ways
PROCESSORS = (
    "AttnProcessor",
    "AttnProcessor2_0",
    "AttnProcessorNPU",
    "FluxAttnProcessor",
    "JointAttnProcessor2_0",
    "QwenDoubleStreamAttnProcessor2_0",
    "SanaAttnProcessor2_0",
    "SanaLinearAttnProcessor2_0",
    "SlicedAttnProcessor",
    "XFormersAttnProcessor",
    "XFormersJointAttnProcessor",
    "XLAFlashAttnProcessor2_0",
)
FUSED = ("FusedAttnProcessor2_0", "FusedJointAttnProcessor2_0")
_IN = (
    "diffusers.models.attention_processor",
    "diffusers.models.transformers.transformer_flux",
    "diffusers.models.transformers.sana_transformer",
    "diffusers.models.transformers.transformer_qwenimage",
)
# move weights or keep them in fewer bits; others of diffusers keep what earlier steps computed
_HOOKS = ("diffusers.hooks.group_offloading", "diffusers.hooks.layerwise_casting")
# attributes that no prediction depends on, or that are looked at in another way
_NEUTRAL = {
    *vars(nn.Module()),
    "all_tied_weights_keys",
    "config",
    "_internal_dict",
    "kernel_config",
    "loss_type",
    "name_or_path",
    "warnings_issued",
    "gradient_checkpointing",
    "is_gradient_checkpointing",
    "_gradient_checkpointing_func",
    "_compiled_call_impl",
    "_is_torch_compile",
    "hf_device_map",
    "original_attn_processors",
    "_chunk_size",  # of feed-forward layers: piece by piece
    "_chunk_dim",
    "fused_projections",
    "processor",
    "forward",
    "use_slicing",  # of a VAE: image by image
    "_hf_hook",
    "_old_forward",
    "_diffusers_hook",
    "_hf_peft_config_loaded",
    "peft_config",  # what it made is there as layers
}
_NEUTRAL_PREFIXES = (
    "_is_hf_",
    "_use_kernels",
    "_weight_conversions",
    "_keep_in_fp32",
    "_keys_to_ignore",
    "_no_split",
    "_skip_keys",
)
_NEUTRAL_SUFFIXES = ("_plan", "_hooks_installed")


class Strange(Exception):
    """Something of which a guard cannot tell what it does to a prediction; says what."""


def traits(part: str, network: nn.Module, digest: Digest) -> dict[str, str]:
    """What is not as the network's class and configuration build it: name to value.

    Compared is every attribute of every layer with those of a network that is built anew, without
    weights, from the same configuration.

    Raises:
        Strange: something is there that a guard does not know.
    """
    kind = type(network)
    theirs = _module(kind).startswith(("diffusers.", "transformers."))
    known = PREDICTORS.get(part)
    if kind not in known if known else not theirs:
        names = [each.__name__ for each in known or ()] or ["text encoders of transformers"]
        raise Strange(f"{part} is a {_name(kind)}, and a guard knows {', '.join(names)}")
    if getattr(network.config, "encoder_hid_dim_type", None) == "ip_image_proj":
        raise Strange(
            f"{part} has an IP-Adapter, with which the magnitude is of the picture as much as of "
            "the prompt (`pipe.unload_ip_adapter()`)"
        )
    _refuse_global_hooks()
    found: dict[str, str] = {}
    expected = dict(layers(_anew(network)))
    adapters: dict[str, dict[str, str]] = defaultdict(dict)
    seen = set()
    for path, layer in layers(network):
        where = f"{part}.{path}" if path else part
        _check(layer, where)
        if is_lora(layer):
            for name, value in _adapters(layer, where, digest):
                adapters[name][path] = value
            continue
        seen.add(path)
        found |= _differences(where, layer, expected.get(path))
    found |= {f"{part}.{path}": "missing" for path in expected.keys() - seen}
    return {**_summed(part, adapters), **found}


@dataclass(frozen=True)
class _Configured:
    """A class of networks and a configuration; equal to others that are written alike."""

    kind: Any
    written: str
    config: Any = field(compare=False)


def _anew(network: Any) -> nn.Module:
    """What its class makes of its configuration, without weights; nobody changes it."""
    kind, config = type(network), network.config
    try:
        options = config.to_dict() if hasattr(config, "to_dict") else dict(config)
        written = json.dumps(options, sort_keys=True, default=repr)
        return _build(_Configured(kind, written, copy.deepcopy(config)))
    except (
        AttributeError,
        KeyError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as e:
        raise Strange(
            f"a {_name(kind)} cannot be built from its configuration to compare: {e}"
        ) from None


@functools.lru_cache(maxsize=8)  # a pool of guards builds it once
def _build(configured: _Configured) -> nn.Module:
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        if hasattr(configured.kind, "from_config"):
            built: nn.Module = configured.kind.from_config(dict(configured.config))
        else:
            built = configured.kind(configured.config)
    return built.eval()


def _differences(where: str, layer: nn.Module, expected: nn.Module | None) -> dict[str, str]:
    """What an attribute is, for all that are not as expected."""
    has = _attributes(layer, where)
    if expected is None or type(layer) is not type(expected):
        return {where: f"{_name(type(layer))}({text(has, where)})"}
    wanted = _attributes(expected, where)
    return {
        f"{where}.{name}": str(has.get(name))
        for name in has.keys() | wanted.keys()
        if has.get(name) != wanted.get(name)
    }


def _attributes(layer: nn.Module, where: str) -> dict[str, str]:
    """A layer's attributes that a prediction may depend on, and its kind of attention."""
    found: dict[str, str] = {}
    for name, value in vars(layer).items():
        if name in _NEUTRAL or name.startswith(_NEUTRAL_PREFIXES):
            continue
        if isinstance(value, Tensor):  # hashed with the weights: built anew it has no values
            continue
        if name.endswith(_NEUTRAL_SUFFIXES) or value is None or _is_own(layer, name, value):
            continue
        found[name] = text(value, f"{where}.{name}")
    if (what := in_training(layer)) is not None:
        raise Strange(f"{where} {what} in training mode (`eval()`)")
    processor = getattr(layer, "processor", None)
    if processor is not None and hasattr(layer, "set_processor"):
        found |= _attention(processor, where)
    return found


def _attention(processor: Any, where: str) -> dict[str, str]:
    kind = type(processor)
    name = kind.__name__
    if kind.__module__ not in _IN or name not in (*PROCESSORS, *FUSED):
        raise Strange(
            f"{where}.processor is a {_name(kind)}, which changes what attention computes in a way "
            "that a guard does not know (`pipe.unet.set_default_attn_processor()`)"
        )
    options = {k: v for k, v in vars(processor).items() if k not in ("slice_size", "attention_op")}
    found = {} if not options else {"processor": text(options, f"{where}.processor")}
    return found | ({"processor": "fused projections"} if name in FUSED else {})


def _is_own(layer: nn.Module, name: str, value: Any) -> bool:
    """Whether an attribute is a method of the layer's own class, put back where it was."""
    if getattr(value, "__self__", None) is not layer:
        return False
    return getattr(value, "__func__", None) is getattr(type(layer), name, layer)


def _check(layer: nn.Module, where: str) -> None:
    """Look at what is called in place of, before and after a layer's forward.

    Raises:
        Strange: it is none of what the libraries do to move weights or to compile.
    """
    kind = type(layer)
    forward = kind.forward
    if not forward.__module__.startswith(tuple(f"{each}." for each in LIBRARIES)):
        raise Strange(f"{where} ({_name(kind)}) computes {_name(forward)}")
    for hook in (*layer._forward_pre_hooks.values(), *layer._forward_hooks.values()):
        if not _module(hook).startswith("transformers.utils."):  # those record hidden states
            raise Strange(f"{where} has a hook, {_name(hook)}, that may change what it computes")
    registry = getattr(layer, "_diffusers_hook", None)
    hooks = [] if registry is None else list(registry.hooks.values())
    for hook in hooks:
        if _module(type(hook)) not in _HOOKS:
            raise Strange(
                f"{where} has diffusers' {type(hook).__name__}, which keeps or changes what it "
                "computes (`disable_cache()`)"
            )
    moved = getattr(layer, "_hf_hook", None)
    if moved is not None:
        for hook in getattr(moved, "hooks", (moved,)):
            if not _module(type(hook)).startswith("accelerate."):
                raise Strange(
                    f"{where} has a hook, {_name(type(hook))}, that a guard does not know"
                )
    for name in ("forward", "_old_forward"):
        now = vars(layer).get(name)
        if now is None or hooks or _is_own(layer, name.replace("_old_", ""), now):
            continue
        if moved is not None and getattr(now, "func", now).__module__ == "accelerate.hooks":
            continue
        compiled = getattr(now, "_torchdynamo_orig_callable", None)
        if compiled is None or not _is_own(layer, "forward", compiled):
            raise Strange(f"{where}.forward was replaced by {_name(now)}")
    for name, value in tensors(layer):
        if type(value) not in (nn.Parameter, Tensor, nn.Buffer):
            raise Strange(
                f"{where}.{name} is a {_name(type(value))} (quantised?), whose values a guard does "
                "not know to read"
            )


def _refuse_global_hooks() -> None:
    from torch.nn.modules import module

    for hook in (
        *module._global_forward_pre_hooks.values(),
        *module._global_forward_hooks.values(),
    ):
        raise Strange(f"a hook of all modules, {_name(hook)}, may change what they compute")


def _adapters(layer: Any, where: str, digest: Digest) -> Iterator[tuple[str, str]]:
    """The adapters of a LoRA layer that change what it computes, and all that they are made of."""
    if layer.merged_adapters and layer.disable_adapters:
        raise Strange(
            f"{where} has LoRA adapters that are fused and disabled, so that its weights change "
            "when it computes (`unfuse_lora()`, or do not disable them)"
        )
    if layer.merged_adapters or layer.disable_adapters:  # those are in the layer's own weights
        return
    for name in layer.active_adapters:
        scale = layer.scaling.get(name)
        if not scale:
            continue
        if (what := in_training(layer.lora_dropout[name])) is not None:
            raise Strange(f"{where}'s adapter {name} {what} in training mode (`eval()`)")
        own = {
            path: digest(value)
            for kind in layer.adapter_layer_names
            for path, value in _of_adapter(getattr(layer, kind, None), name, kind)
        }
        variant = layer.lora_variant.get(name) if hasattr(layer, "lora_variant") else None
        weight = scale * layer.r[name] / layer.lora_alpha[name]
        yield name, f"{weight:.6g}\n{scale:.6g} {_name(type(variant))} {sorted(own.items())}"


def _of_adapter(holder: Any, name: str, kind: str) -> Iterator[tuple[str, Tensor]]:
    if holder is None or name not in holder:
        return
    found = holder[name]
    if isinstance(found, Tensor):
        yield kind, found
        return
    for path, layer in found.named_modules():
        yield from ((f"{kind}.{path}.{each}", value) for each, value in tensors(layer))


def _summed(part: str, adapters: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """One line for each adapter, however many layers it has."""
    found = {}
    for name, places in sorted(adapters.items()):
        scales = {text.split("\n")[0] for text in places.values()}
        scale = scales.pop() if len(scales) == 1 else "several scales"
        text = "\n".join(f"{path} {value}" for path, value in sorted(places.items()))
        found[f"{part} LoRA {name}"] = f"{scale} ({hashlib.sha256(text.encode()).hexdigest()[:8]})"
    return found


def text(value: Any, where: str) -> str:
    """A value in words that two processes agree on.

    Raises:
        Strange: there are none, since what it does is not known.
    """
    if value is None or isinstance(value, str | bytes | int | float | torch.dtype):
        return repr(value)
    if isinstance(value, re.Pattern | AddedToken):
        return repr(value)
    if isinstance(value, torch.device):
        return "a device"
    if isinstance(value, Tensor):
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return f"{value.dtype}{tuple(value.shape)} {hashlib.sha256(raw.data).hexdigest()[:8]}"
    if isinstance(value, Mapping):
        pairs = sorted((text(k, where), text(v, where)) for k, v in value.items())
        return "{" + ", ".join(f"{k}: {v}" for k, v in pairs) + "}"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(text(each, where) for each in value)) + "}"
    if isinstance(value, list | tuple):  # configurations that were read have lists for tuples
        return "(" + ", ".join(text(each, where) for each in value) + ")"
    if isinstance(value, functools.partial):
        return text((value.func, value.args, value.keywords), where)
    known = (_module(value) if callable(value) else _module(type(value))).split(".")[0] in LIBRARIES
    if not known or getattr(value, "__closure__", None) or "<lambda>" in _name(value):
        raise Strange(f"{where} is {_name(value if callable(value) else type(value))}")
    if callable(value) and hasattr(value, "__qualname__"):
        return _name(value)
    return f"{_name(type(value))}({text(vars(value), where)})"


def _module(thing: Any) -> str:
    return str(getattr(thing, "__module__", None) or "")


def _name(thing: Any) -> str:
    if isinstance(thing, functools.partial):
        thing = thing.func
    name = getattr(thing, "__qualname__", None) or type(thing).__qualname__
    return f"{_module(thing)}.{name}" if _module(thing).split(".")[0] not in LIBRARIES else name
