"""LoRA adapters and textual inversions, put into a model by diffusers' own loaders.

Their loaders pass over keys that they do not know, with no more than a line in a log. So what is in
the networks afterwards is compared with the files, by content: every tensor of a file must be
there, and nothing else may have changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor, nn

from mnemoscope_runtime.errors import BackendUnavailable, ExportError
from mnemoscope_runtime.manifest import AdapterRecord

from .contents import content, file_sha256, tensors
from .messages import first_line, shown
from .options import Embedding, Lora

__all__ = ["add_embeddings", "fuse_loras", "pipeline_of"]

_SCALARS = (".alpha",)  # what a rank is divided by: peft keeps it as a number


def pipeline_of(parts: Mapping[str, Any]) -> Any:
    """diffusers' pipeline of a model's networks, tokenizers and scheduler, without a VAE.

    The networks are the very same; the scheduler is a copy, since a pipeline corrects it.
    """
    scheduler = DDIMScheduler.from_config(parts["scheduler"].config)
    given = {**parts, "vae": None, "scheduler": scheduler}
    if "text_encoder_2" in parts:
        return StableDiffusionXLPipeline(**given, add_watermarker=False)
    return StableDiffusionPipeline(
        **given, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )


def fuse_loras(pipeline: Any, loras: Sequence[Lora]) -> tuple[AdapterRecord, ...]:
    """Add LoRAs to the weights of a pipeline, as `fuse_lora` does.

    Args:
        pipeline: Of `pipeline_of`; its networks are changed in place.
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
            "`pip install 'mnemoscope[torch]'`."
        )
    before = {name: _contents(part) for name, part in _networks(pipeline).items()}
    names = [f"lora_{i}" for i in range(len(loras))]
    for name, lora in zip(names, loras, strict=True):
        held = Counter(
            content(tensor) for key, tensor in tensors(lora.file) if not key.endswith(_SCALARS)
        )
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


def add_embeddings(pipeline: Any, embeddings: Sequence[Embedding]) -> tuple[AdapterRecord, ...]:
    """Add textual inversions to the tokenizers and text encoders of a pipeline.

    Raises:
        ExportError: a file is missing, or its vectors or its token do not fit this model.
    """
    records = []
    for each in embeddings:
        state = dict(tensors(each.file))
        for tokenizer, encoder, vectors in _by_encoder(pipeline, each.file, state):
            token = each.token
            if token is None and set(vectors) == {"emb_params"}:
                token = each.file.stem
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
        records.append(AdapterRecord("embedding", each.file.name, file_sha256(each.file)))
    return tuple(records)


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
