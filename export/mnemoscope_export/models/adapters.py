"""LoRA adapters and textual inversions, put into a model by diffusers' own loaders.

Their loaders pass over keys that they do not know, with no more than a line in a log. So what is in
the networks afterwards is compared with the files, by content: every tensor of a file must be
there, and nothing else may have changed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mnemoscope_runtime.errors import BackendUnavailable, ExportError
from mnemoscope_runtime.manifest import AdapterRecord
from mnemoscope_runtime.wording import pip_install

from .contents import content, file_sha256, tensors
from .messages import first_line, shown
from .options import Embedding, Lora

__all__ = ["add_embeddings", "fuse_loras"]

_SCALARS = (".alpha",)  # what a rank is divided by: peft keeps it as a number
_HALF = re.compile(r"(.*lora(?:_linear_layer)?[._])(down|up|A|B)(\..*weight)$")
_OTHER_HALF = {"down": "up", "up": "down", "A": "B", "B": "A"}


def fuse_loras(pipeline: Any, loras: Sequence[Lora]) -> tuple[AdapterRecord, ...]:
    """Add LoRAs to the weights of a pipeline, as `fuse_lora` does.

    Args:
        pipeline: Of `Model.assemble`; its networks are changed in place.
        loras: With their scales.

    Returns:
        What was added, for the manifest.

    Raises:
        ExportError: a file is missing, or something of it does not fit this model.
        BackendUnavailable: peft is not installed.
    """
    if not loras:
        return ()
    if find_spec("peft") is None:
        raise BackendUnavailable(
            "LoRA adapters need peft, which is not installed. Install it with "
            f"{pip_install('torch')}."
        )
    before = {name: _contents(part) for name, part in _networks(pipeline).items()}
    names = [f"lora_{i}" for i in range(len(loras))]
    for name, lora in zip(names, loras, strict=True):
        held = Counter(
            content(tensor) for key, tensor in tensors(lora.file) if not key.endswith(_SCALARS)
        )
        _check_keys(lora.file)
        try:
            pipeline.load_lora_weights(
                str(lora.file.parent), weight_name=lora.file.name, adapter_name=name,
                local_files_only=True, use_safetensors=True,
            )  # fmt: skip
        except Exception as error:  # diffusers' and peft's errors share no base class
            raise ExportError(
                f"{lora.file} cannot be used with this model: {first_line(error)} Give a LoRA "
                "that was trained for its family."
            ) from None
        _check_lora(lora.file, name, held, _networks(pipeline))
    for name, part in _networks(pipeline).items():
        if changed := _changed(before[name], part):
            raise ExportError(
                f"Loading a LoRA changed other weights of the {name}: {shown(changed)}. Use the "
                "versions of diffusers and peft in constraints.txt."
            )
    pipeline.set_adapters(names, [lora.scale for lora in loras])
    pipeline.fuse_lora(adapter_names=names)
    pipeline.unload_lora_weights()
    return tuple(
        AdapterRecord("lora", lora.file.name, file_sha256(lora.file), lora.scale) for lora in loras
    )


def _check_keys(file: Path) -> None:
    """Make sure that a file holds LoRA weights and nothing else, and both halves of each.

    Raises:
        ExportError: not so.
    """
    keys = [key for key, _ in tensors(file)]
    others = [key for key in keys if "lora" not in key]
    if len(others) == len(keys):
        raise ExportError(
            f"{file} cannot be used: it holds no LoRA weights, but {shown(others) or 'nothing'}. A "
            "textual inversion goes with --embedding; a whole checkpoint is exported by itself."
        )
    if others and all(key.endswith(_SCALARS) for key in others):
        raise ExportError(
            f"{file} cannot be used: it has scales under names that diffusers does not read beside "
            f"weights in its own ({shown(others)}). Multiply each up (or B) by its alpha / rank, "
            "leave the scales out, or convert the file to kohya's names."
        )
    if others:
        raise ExportError(
            f"{file} cannot be used: beside LoRA weights it holds {shown(others)}, which diffusers "
            "does not read. Merge it into the model with the tool that made it."
        )
    held = set(keys)
    halves = filter(None, map(_HALF.match, keys))
    twins = [f"{half[1]}{_OTHER_HALF[half[2]]}{half[3]}" for half in halves]
    if missing := [key for key in twins if key not in held]:
        raise ExportError(
            f"{file} cannot be used: it holds one half of these layers only, and not "
            f"{shown(missing)}. Copy it again; if it stays so, it was damaged when it was saved."
        )


def add_embeddings(pipeline: Any, embeddings: Sequence[Embedding]) -> tuple[AdapterRecord, ...]:
    """Add textual inversions to the tokenizers and text encoders of a pipeline.

    Raises:
        ExportError: a file is missing, or its vectors or its token do not fit this model.
    """
    records = []
    for each in embeddings:
        token, state = _chosen(each, dict(tensors(each.file)), pipeline)
        counts = []
        for tokenizer, encoder, vectors in _by_encoder(pipeline, each.file, state):
            known = set(tokenizer.get_vocab())
            try:
                pipeline.load_textual_inversion(
                    vectors, token=token, tokenizer=tokenizer, text_encoder=encoder
                )
            except ValueError as error:
                raise ExportError(
                    f"{each.file} cannot be added: {first_line(error)} Give an embedding of this "
                    "model's family; another word for it with FILE:TOKEN."
                ) from None
            added = set(tokenizer.get_vocab()) - known
            _check_vectors(each.file, tokenizer, encoder, added, vectors)
            counts.append(len(added))
        sha256 = file_sha256(each.file)
        records.append(
            AdapterRecord("embedding", each.file.name, sha256, token=token, vectors=max(counts))
        )
    return tuple(records)


def _chosen(
    each: Embedding, state: dict[str, Tensor], pipeline: Any
) -> tuple[str, dict[str, Tensor]]:
    """The word, and what the file holds of it: all, or of several words the one asked for."""
    names_none = set(state) in ({"emb_params"}, {"clip_l", "clip_g"})
    if names_none or "text_encoder_2" in pipeline.components:
        return each.token or each.file.stem, state
    if len(state) == 1:
        return each.token or next(iter(state)), state
    if each.token not in state:
        raise ExportError(
            f"{each.file} holds the vectors of {len(state)} tokens, {shown(sorted(state))}"
            + (f", and not of {each.token!r}" if each.token else "")
            + ". Say which with FILE:TOKEN, and give the file once for each that you use."
        )
    return each.token, {each.token: state[each.token]}


def _by_encoder(
    pipeline: Any, file: Path, state: dict[str, Tensor]
) -> list[tuple[Any, Any, dict[str, Tensor]]]:
    """(tokenizer, text encoder, vectors): one, or two of Stable Diffusion XL."""
    second = getattr(pipeline, "text_encoder_2", None)
    if second is None:
        if len(state) != 1:
            raise ExportError(
                f"{file} holds {shown(sorted(state))}; a textual inversion of Stable Diffusion "
                "1.x or 2.x holds the vectors of one token. Give the right file."
            )
        return [(pipeline.tokenizer, pipeline.text_encoder, state)]
    if set(state) != {"clip_l", "clip_g"}:
        raise ExportError(
            f"{file} holds {shown(sorted(state))}; a textual inversion of Stable Diffusion XL "
            "holds clip_l and clip_g, one for each text encoder. Give the right file."
        )
    return [
        (pipeline.tokenizer, pipeline.text_encoder, {"emb_params": state["clip_l"]}),
        (pipeline.tokenizer_2, second, {"emb_params": state["clip_g"]}),
    ]


def _check_vectors(
    file: Path, tokenizer: Any, encoder: Any, added: set[str], state: Mapping[str, Tensor]
) -> None:
    """Make sure that every vector of the file is the embedding of a token of its own."""
    table = encoder.get_input_embeddings().weight
    ids = sorted(tokenizer.convert_tokens_to_ids(list(added)))
    wanted = next(iter(state.values())).to(table).reshape(-1, table.shape[1])
    if len(ids) != len(wanted) or not torch.equal(table[ids], wanted):
        raise ExportError(
            f"{file} was not added as it is. Use the versions of diffusers and transformers in "
            "constraints.txt."
        )


def _check_lora(file: Path, name: str, held: Counter[str], parts: Mapping[str, nn.Module]) -> None:
    """Make sure that all tensors of a file, and no others, are an adapter in the networks."""
    found: Counter[str] = Counter()
    for part in parts.values():
        for key, tensor in part.named_parameters():
            if f".{name}" in f"{key}." and ("lora_" in key):
                found[content(tensor)] += 1
    unused, invented = held - found, found - held
    if not unused and not invented:
        return
    keys = [
        key
        for key, tensor in tensors(file)
        if not key.endswith(_SCALARS) and content(tensor) in unused
    ]
    what = f"does not know these of its tensors: {shown(keys)}" if keys else "fills in others"
    raise ExportError(
        f"{file} cannot be used as it is: this model {what}. Give a LoRA of its family, in "
        "diffusers', peft's or kohya's format; LoHa, LoKr and the like: merge them into the model "
        "with the tool that made them."
    )


def _contents(part: nn.Module) -> dict[str, str]:
    return {name: content(value) for name, value in part.state_dict().items()}


def _changed(before: Mapping[str, str], part: nn.Module) -> list[str]:
    """Weights that are no longer what they were, adapters aside."""
    now = {
        name.replace(".base_layer.", "."): value
        for name, value in part.state_dict().items()
        if ".lora_" not in name
    }
    return [name for name, old in before.items() if name not in now or content(now[name]) != old]


def _networks(pipeline: Any) -> dict[str, nn.Module]:
    return {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
