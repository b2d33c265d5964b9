"""`manifest.json`: what a bundle is, and the sha256 of every file in it."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import msgspec

from . import strict_json
from .errors import IntegrityError, SchemaError
from .schedulers import Scheduler, decoded
from .units import PredictionType, Unit
from .wording import counted

__all__ = [
    "EMPTY",
    "SCHEMA",
    "AdapterRecord",
    "FileRecord",
    "Follows",
    "Manifest",
    "ModelRecord",
    "NoiseBank",
    "Precision",
    "Probe",
    "TokenizerKind",
    "TokenizerRecord",
]

# 1 let unknown fields pass, so that whoever read it could miss what they mean; up to 2 the sampler
# was DDIM, and did not say so
SCHEMA = 3
_READABLE = (1, 2, SCHEMA)
_KIND = "mnemoscope-bundle"
_GRAPHS = ("screen", "step", "text_encoder")
_TAPS = "taps"

# what a network can be told of a prompt, and what `step` calls the same of the empty prompt
EMPTY = {
    "prompt_embeds": "empty_embeds",
    "pooled_embeds": "empty_pooled_embeds",
    "prompt_mask": "empty_mask",
}

_Count = Annotated[int, msgspec.Meta(ge=1, le=2**16)]
_Rows = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
_Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Positive = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
_Magnitude = Annotated[float, msgspec.Meta(gt=0)]

Precision = Literal["float32", "bfloat16", "float16"]
Embedding = Literal["prompt_embeds", "pooled_embeds", "prompt_mask"]
Follows = Literal["transformers-4", "transformers-5"]
TokenizerKind = Literal["clip", "t5", "qwen2", "gemma"]


@dataclass(frozen=True)
class FileRecord:
    """What a file of the bundle must be."""

    sha256: str
    bytes: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


@dataclass(frozen=True)
class AdapterRecord:
    """What was put into the weights at export.

    Attributes:
        kind: A LoRA adapter, or a textual inversion.
        file: Name of its file.
        sha256: Of the file.
        scale: How much of a LoRA was added.
        token: Word that stands for a textual inversion in prompts.
        vectors: How many embeddings that word is written out to.
    """

    kind: Literal["lora", "embedding"]
    file: str
    sha256: str
    scale: float = 1.0
    token: str | None = None
    vectors: _Positive | None = None


@dataclass(frozen=True)
class ModelRecord:
    """Where the weights came from, and how the model is told of prompts.

    Attributes:
        weights_sha256: Of the weights as they are exported, adapters included.
        variant: Of the files, such as "fp16".
        adapters: What was put into the weights, in this order.
        clip_skip: How many of the text encoder's last layers are left out.
        negative: What the unconditional branch is told instead of the empty prompt.
        inpainting: The UNet is also given a mask and the latents of a picture, all of it masked, so
            that the prompt alone decides. This is the sha256 of the VAE that made the latents.
        told_guidance: The guidance that the network is told, where guidance was distilled into it;
            what it predicts is taken as it is then, and the manifest's `guidance` is 1.
    """

    id: str
    weights_sha256: str
    family: str
    prediction_type: PredictionType
    variant: str | None = None
    adapters: tuple[AdapterRecord, ...] = ()
    clip_skip: _Whole | None = None
    negative: str | None = None
    inpainting: str | None = None
    told_guidance: float | None = None


@dataclass(frozen=True)
class TokenizerRecord:
    """How prompts become ids.

    Attributes:
        length: Ids of a prompt: start, end and what is between.
        pad_token: What short prompts are filled up with.
        follows: Whose CLIPTokenizer gives the same ids: that of transformers 5, or that of
            transformers 4 (written in Python, and without ftfy), which parts CJK characters and
            drops characters that show nothing.
        version: The version of transformers that was read with or compared with.
        rows: How many embeddings the text encoder has: every id is less.
        kind: What its files are made of, and what stands around a prompt.
        lowercase: Prompts are put in lower case first, without space around them.
        template: What stands around a prompt, which takes the place of {}.
        dropped: How many ids in front the network is not told of: those of the template.
    """

    length: Annotated[int, msgspec.Meta(ge=2, le=2**16)]
    pad_token: str
    follows: Follows = "transformers-5"
    version: str | None = None
    rows: _Rows | None = None
    kind: TokenizerKind = "clip"
    lowercase: bool = False
    template: str | None = None
    dropped: Annotated[int, msgspec.Meta(ge=0, le=2**16)] = 0


@dataclass(frozen=True)
class NoiseBank:
    """The fixed initial noises x_T that screening uses, [noises, channels, height, width]."""

    file: str
    seed: _Whole
    shape: tuple[_Count, _Count, _Count, _Count]


@dataclass(frozen=True)
class Probe:
    """What PyTorch measured where `screen` does: any backend can be checked against it, anywhere.

    Attributes:
        prompt: The prompt.
        magnitudes: One for each noise of the bank, in eps units.
    """

    prompt: str
    magnitudes: tuple[_Magnitude, ...]


@dataclass(frozen=True)
class Manifest:
    """The contents of `manifest.json`.

    Fields with a default are optional: written only where they say something else. A field that
    changes what is measured needs no new schema, since a version that does not know it refuses it.

    Attributes:
        timestep: What `screen` tells the network of its pure noise: the first timestep of sampling,
            unless another was asked for.
        precision: What the graphs compute in; differences and norms are float32 in any case.
        graphs: File of each graph by name: "screen", "step", "text_encoder"; "taps" where a graph
            stops at the last tap.
        flops: For each graph, floating-point operations of one prompt on one noise.
        parity: For each graph, figures of its comparison with PyTorch.
        budget: Relative error of a magnitude that a backend may have to be chosen by "auto".
        probes: Prompts with the magnitudes that PyTorch measured in float32.
        files: Every file of the bundle but the manifest itself, by POSIX path.
        embeddings: What `text_encoder` returns and `step` takes.
        zero_empty: The unconditional branch gets zeros, not the embedded empty prompt.
        empty: File of what the unconditional branch is told, by the names of `embeddings` (.npz),
            where that is neither: with a negative prompt, or layers left out for prompts alone.
        taps: Layers of the network, in the order in which they run, that are compared too.
        tokenizer_2: What a second text encoder reads: its ids stand behind the first's in
            `input_ids`.
        tokenizer_3: What a third one reads, likewise.
        tokens: How many the network is told of, where that is not the length of `tokenizer`.
        encodes_apart: `screen` and `taps` take what `text_encoder` returns, and not ids.
        any_length: `step` takes embeddings of any number of tokens, not only of the tokenizer's.
        unit: What magnitudes are measured in: the predicted noise, or the predicted picture.
        keeps_length: Guidance leaves a velocity as long as it is for the prompt alone, in each
            patch of so many positions a side.
    """

    schema: int
    kind: str
    model: ModelRecord
    scheduler: Scheduler
    guidance: float
    timestep: _Whole
    tokenizer: TokenizerRecord
    noise_bank: NoiseBank
    precision: Precision
    opset: _Positive
    graphs: dict[str, str]
    flops: dict[str, _Positive]
    parity: dict[str, dict[str, float]]
    budget: _Magnitude
    probes: Annotated[tuple[Probe, ...], msgspec.Meta(min_length=1)]
    tools: dict[str, str]
    files: dict[str, FileRecord]
    embeddings: Annotated[tuple[Embedding, ...], msgspec.Meta(min_length=1)] = ("prompt_embeds",)
    zero_empty: bool = False
    empty: str | None = None
    taps: tuple[str, ...] = ()
    tokenizer_2: TokenizerRecord | None = None
    tokenizer_3: TokenizerRecord | None = None
    tokens: _Count | None = None
    encodes_apart: bool = False
    any_length: bool = False
    unit: Unit = "eps"
    keeps_length: Annotated[int, msgspec.Meta(ge=1, le=2**10)] | None = None

    @property
    def tokenizers(self) -> dict[str, TokenizerRecord]:
        """Each tokenizer that there is by its name, in the order of their ids."""
        found = {
            "tokenizer": self.tokenizer,
            "tokenizer_2": self.tokenizer_2,
            "tokenizer_3": self.tokenizer_3,
        }
        return {name: record for name, record in found.items() if record is not None}

    @classmethod
    def new(cls, **fields: Any) -> Manifest:
        """A manifest of this version's schema."""
        return cls(schema=SCHEMA, kind=_KIND, **fields)

    @classmethod
    def from_json(cls, text: bytes, origin: str) -> Manifest:
        """Decode and check.

        Raises:
            SchemaError: not JSON, not a bundle's manifest, of another schema version, or with
                fields that this version does not know.
            IntegrityError: a file name that leads outside the bundle, or a graph or its arithmetic
                is missing.
        """
        try:
            head = strict_json.parse(text)
            if head.get("kind") != _KIND:
                raise SchemaError(
                    f"{origin} is not the manifest of a Mnemoscope bundle. "
                    "Give the directory that `mnemoscope export` wrote."
                )
            if head.get("schema") not in _READABLE:
                raise SchemaError(
                    f"{origin} has schema {head.get('schema')!r}, this version reads "
                    f"{', '.join(map(str, _READABLE))}. "
                    "Upgrade mnemoscope, or export the model again with this version."
                )
            manifest = msgspec.convert(_in_words_of_today(head), cls, dec_hook=decoded)
        except (ValueError, RecursionError) as error:  # msgspec's too
            raise SchemaError(
                f"{origin} is damaged: {error}. Copy the bundle again or export the model again."
            ) from None
        unknown = strict_json.unknown(head, msgspec.to_builtins(manifest))
        if manifest.schema > 1 and unknown:
            raise SchemaError(
                f"{origin} says {', '.join(unknown)}, which this version does not know, and "
                "might measure something else for it. Upgrade mnemoscope, or export the model "
                "again with this version."
            )
        if manifest.unit != manifest.scheduler.unit:
            raise IntegrityError(
                f"{origin} measures in {manifest.unit}, of a model whose sampler "
                f"({manifest.scheduler.kind}) is measured in {manifest.scheduler.unit}. Export the "
                "model again."
            )
        missing = [name for name in _GRAPHS if name not in manifest.graphs]
        if missing:
            raise IntegrityError(
                f"{origin} has no graph {', '.join(missing)}. Export the model again."
            )
        uncounted = [name for name in manifest.graphs if name not in manifest.flops]
        if uncounted:
            raise IntegrityError(
                f"{origin} counts no arithmetic of {', '.join(uncounted)}. Export the model again."
            )
        whole = {"screen", _TAPS} & manifest.flops.keys()
        inside = 0 if manifest.encodes_apart else manifest.flops["text_encoder"]
        if any(manifest.flops[name] < inside for name in whole):
            raise IntegrityError(
                f"{origin} counts more arithmetic of the text encoder than of all that it is part "
                "of. Export the model again."
            )
        noises = manifest.noise_bank.shape[0]
        if any(len(probe.magnitudes) != noises for probe in manifest.probes):
            raise IntegrityError(
                f"{origin} has probes that do not fit its {counted(noises, 'noise')}. Export the "
                "model again."
            )
        if len(set(manifest.taps)) < len(manifest.taps) or "" in manifest.taps:
            raise IntegrityError(
                f"{origin} has taps that have no names of their own. Export the model again."
            )
        if _TAPS in manifest.graphs and not manifest.taps:
            raise IntegrityError(
                f"{origin} has a graph of taps, but names none. Export the model again."
            )
        for name in manifest.files:
            _check_inside(name, origin)
        named = [*manifest.graphs.values(), manifest.noise_bank.file]
        for name in [*named, *([] if manifest.empty is None else [manifest.empty])]:
            if name not in manifest.files:
                raise IntegrityError(
                    f"{origin} uses {name!r} but does not list it under `files`. "
                    "Export the model again."
                )
        return manifest

    def to_json(self) -> bytes:
        """The bytes of `manifest.json`; their sha256 is the bundle's id.

        What holds its default is left out, so that versions that do not know it yet read on, but
        for what tells a kind.
        """
        return msgspec.json.format(msgspec.json.encode(_written(self)), indent=2) + b"\n"


def _in_words_of_today(head: dict[str, Any]) -> dict[str, Any]:
    """What an older manifest left unsaid."""
    found = dict(head)
    if head["schema"] < 3 and isinstance(head.get("scheduler"), dict):
        found["scheduler"] = {"kind": "ddim", **head["scheduler"]}
    if isinstance(head.get("tokenizer_3"), dict):  # which a T5 alone read, and did not say so
        found["tokenizer_3"] = {"kind": "t5", **head["tokenizer_3"]}
    return found


def _written(value: Any) -> Any:
    """A record without the fields that hold their defaults, all the way down."""
    if is_dataclass(value):
        held = {field: getattr(value, field.name) for field in fields(value)}
        return {
            field.name: _written(each)
            for field, each in held.items()
            if field.default is MISSING or each != field.default or _tells(value, field.name)
        }
    if isinstance(value, dict):
        return {name: _written(each) for name, each in value.items()}
    return [_written(each) for each in value] if isinstance(value, tuple) else value


def _tells(value: Any, field: str) -> bool:
    """Whether a field is written even with its default: what tells one sampler from another."""
    return isinstance(value, Scheduler) and field == "kind"


def _check_inside(name: str, origin: str) -> None:
    path = PurePosixPath(name)
    odd = "\\" in name or ":" in name or "\0" in name
    if not name or odd or path.is_absolute() or ".." in path.parts or str(path) != name:
        raise IntegrityError(
            f"{origin} names the file {name!r}, which leads outside the bundle. "
            "Do not use this bundle: it was made by hand or tampered with."
        )
