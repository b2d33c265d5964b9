"""What reads files of strangers: how each is fed, and what may come of a changed file.

Either an error of ours, or something that `Target.may_be` allows: what came of the unchanged file,
or where the forger has made the hashes true again, what cannot do harm.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import BytesIO, StringIO
from operator import eq
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from mnemoscope import Calibration, CalibrationFile, Detection, Detector, Setting, embedded
from mnemoscope.audit.journal import Job, Journal
from mnemoscope.calibration.written import encode, text_of
from mnemoscope.cli import inspect
from mnemoscope.prompts import Broken, read_rows
from mnemoscope.screening.opening import CALIBRATION
from mnemoscope_runtime import Bundle, ClipTokenizer, IntegrityError, Screener
from mnemoscope_runtime.backends.cover import Profile
from mnemoscope_runtime.backends.tensorrt import PlanKey, find_plan, write_plan
from mnemoscope_runtime.bundle import MANIFEST
from mnemoscope_runtime.gemma_tokenizer import GemmaTokenizer
from mnemoscope_runtime.graphs.operators import OPERATORS
from mnemoscope_runtime.graphs.walk import Refused, check_graph
from mnemoscope_runtime.qwen_tokenizer import QwenTokenizer
from mnemoscope_runtime.signatures import check_signature, signature_of
from mnemoscope_runtime.t5_tokenizer import T5Tokenizer
from mnemoscope_runtime.testing import FakeBackend

from ..support.attack_support import edit, plant
from ..support.calibrations import SETTING, again, made
from ..support.hostile_graphs import harmless
from .mutators import ANY_FILE, Mutator, change_graph
from .seeds import (
    bpe_file,
    calibrations,
    gemma_file,
    light,
    one_row,
    prompt_files,
    signed_file,
    unigram_file,
)

__all__ = ["TARGETS", "Target"]

PROMPTS = ["a cat", "", "Katze — 猫 😀 <|endoftext|>", "x" * 1000]
_BUNDLE = embedded.BUNDLE
_GRAPHS = (*ANY_FILE, *(change_graph,) * 5)


@dataclass(frozen=True)
class Target:
    """Something that reads a file.

    Attributes:
        seeds: Contents that it takes.
        read: What comes of a content. Errors of ours say that it was refused.
        may_be: Whether the first may come of a changed content where the second came of a seed.
        mutators: What changes contents.
    """

    seeds: tuple[bytes, ...]
    read: Callable[[bytes], Any]
    may_be: Callable[[Any, Any], bool] = eq
    mutators: tuple[Mutator, ...] = ANY_FILE


def manifest(folder: Path) -> Target:
    """Another manifest is another bundle, of which no calibration is."""
    path = light(folder)
    (path / CALIBRATION).unlink()
    seed = (path / MANIFEST).read_bytes()
    known = CalibrationFile((made(Setting(Bundle.open(path).id, "fake", "magnitude", 1, 4)),))

    def read(content: bytes) -> str:
        (path / MANIFEST).write_bytes(content)
        bundle = Bundle.open(path)
        with Screener(bundle, FakeBackend()) as screener:
            screener.first_step(["a cat"])
        bundle.empty_embeds()
        with redirect_stdout(StringIO()):
            inspect.command(path)
            inspect.command(path, output_format="json")
        known.check(bundle.id)
        return bundle.id

    return Target((seed,), read)


def calibration(folder: Path) -> Target:  # noqa: ARG001
    """Whoever leaves a whole one out gets no verdicts of its setting."""

    def read(text: bytes) -> set[Calibration]:
        return set(CalibrationFile.from_json(text, "c").calibrations)

    return Target((encode(calibrations()),), read, lambda found, all_: found <= all_)


def forged_calibration(folder: Path) -> Target:  # noqa: ARG001
    """One (a fit, a gate, ...) with a true digest: its threshold and its verdicts keep promises."""
    bundle = Bundle.open(_BUNDLE)

    def read(text: bytes) -> tuple[Calibration, list[Detection]]:
        digest = hashlib.sha256(text.strip()).hexdigest().encode()
        head = b'{"kind":"mnemoscope-calibration","schema":4,"calibrations":[{"sha256":"'
        file = CalibrationFile.from_json(head + digest + b'","calibration":' + text + b"}]}", "c")
        found = file.calibrations[0]
        if found.setting.backend != "fake":
            return found, []
        with Detector(Screener(bundle, FakeBackend()), file) as detector:
            setting = found.setting
            return found, detector.screen(PROMPTS, steps=setting.steps, noises=setting.noises)

    plain, *others = calibrations()
    plain = again(plain, setting=Setting(bundle.id, "fake", "magnitude", 1, 4))
    seeds = tuple(map(text_of, (plain, plain, *others)))
    return Target(seeds, read, lambda found, _: _promised(*found))


def tokenizer(folder: Path) -> Target:  # noqa: ARG001
    """One with a true hash makes ids, and in time."""

    def read(content: bytes) -> Any:
        return ClipTokenizer(content).encode(PROMPTS).ids

    seed = (_BUNDLE / "tokenizer/tokenizer.json").read_bytes()
    return Target((seed,), read, lambda found, _: found.shape == (4, 77) and found.min() >= 0)


def t5_tokenizer(folder: Path) -> Target:  # noqa: ARG001
    """The same of T5's kind, with the table that spells characters anew."""

    def read(content: bytes) -> Any:
        return T5Tokenizer(content, length=32, origin="t").encode(PROMPTS).ids

    seed = unigram_file()
    return Target((seed,), read, lambda found, _: found.shape == (4, 32) and found.min() >= 0)


def qwen_tokenizer(folder: Path) -> Target:  # noqa: ARG001
    """The same of Qwen2's kind, in a template."""
    options: dict[str, Any] = {"length": 32, "pad_token": "<|endoftext|>", "dropped": 2}

    def read(content: bytes) -> Any:
        told = {**options, "template": "user\n{}<|im_end|>", "origin": "t"}
        return QwenTokenizer(content, **told).encode(PROMPTS).ids

    seed = bpe_file()
    return Target((seed,), read, lambda found, _: found.shape == (4, 32) and found.min() >= 0)


def gemma_tokenizer(folder: Path) -> Target:  # noqa: ARG001
    """The same of Gemma's kind, behind an instruction."""
    options: dict[str, Any] = {"length": 32, "pad_token": "<pad>", "template": "a cat: {}"}

    def read(content: bytes) -> Any:
        return GemmaTokenizer(content, **options, origin="t").encode(PROMPTS).ids

    seed = gemma_file()
    return Target((seed,), read, lambda found, _: found.shape == (4, 32) and found.min() >= 0)


def graph(folder: Path) -> Target:  # noqa: ARG001
    """What the walk lets through is what the onnx library finds too."""
    sizes = {"model.weights": (_BUNDLE / "model.weights").stat().st_size}

    def read(content: bytes) -> onnx.ModelProto:
        try:
            check_graph(content, sizes.get)
        except Refused as error:
            raise IntegrityError(str(error)) from None
        return onnx.load_model_from_string(content)

    seeds = (harmless(), (_BUNDLE / "text_encoder.onnx").read_bytes())
    return Target(seeds, read, lambda found, _: _plain(found, set(sizes)), _GRAPHS)


def engine(folder: Path, backend: str) -> Target:
    """A graph with a true hash, on a backend: numbers that can be magnitudes."""
    path = shutil.copytree(_BUNDLE, folder / "bundle")

    def read(content: bytes) -> Any:
        plant(path, "screen.onnx", content)
        with Screener.open(path, backend=backend, threads=1) as screener:
            return screener.first_step(["a cat"], noises=1)

    return Target(
        *((harmless(one_row), (_BUNDLE / "screen.onnx").read_bytes()), read),
        lambda found, _: bool(np.isfinite(found).all() and (found >= 0).all()),
        _GRAPHS,
    )


def noise_bank(folder: Path) -> Target:
    """One with a true hash, of the manifest's shape."""
    path = light(folder)

    def read(content: bytes) -> Any:
        plant(path, "noise_bank.npy", content)
        return Bundle.open(path).noise_bank()

    seed = (_BUNDLE / "noise_bank.npy").read_bytes()
    return Target((seed,), read, _alike)


def empty_embeds(folder: Path) -> Target:
    """An archive with a true hash."""
    path, file = light(folder), BytesIO()
    np.savez(file, prompt_embeds=np.ones((1, 77, 4), np.float32))
    plant(path, "empty.npz", file.getvalue())
    edit(path, lambda fields: fields.__setitem__("empty", "empty.npz"))

    def read(content: bytes) -> Any:
        plant(path, "empty.npz", content)
        return (Bundle.open(path).empty_embeds() or (None,))[0]

    def may_be(found: Any, _: Any) -> bool:
        return bool(found.dtype == np.float32 and np.isfinite(found).all() and len(found) == 1)

    return Target((file.getvalue(),), read, may_be)


def prompts(folder: Path, ending: str) -> Target:
    """Rows, each a prompt or an error of its own."""
    path = folder / f"prompts{ending}"

    def read(content: bytes) -> list[str | Broken]:
        path.write_bytes(content)
        return list(read_rows(path, longest=1000))

    return Target(
        *(tuple(prompt_files(ending)), read),
        lambda found, _: all(isinstance(each, Broken) or len(each) <= 1000 for each in found),
    )


def sidecar(folder: Path) -> Target:
    return _plan(folder, ".json")


def plan(folder: Path) -> Target:
    return _plan(folder, "")


def signature(folder: Path) -> Target:
    file, public = signed_file(folder)
    place = signature_of(file)

    def read(content: bytes) -> bytes:
        place.write_bytes(content)
        check_signature(file, file.read_bytes(), public)
        return content

    return Target((place.read_bytes(),), read)


def signed(folder: Path) -> Target:
    file, public = signed_file(folder)

    def read(content: bytes) -> bytes:
        check_signature(file, content, public)
        return content

    return Target((file.read_bytes(),), read)


def public_key(folder: Path) -> Target:
    """No other key has made that signature."""
    file, public = signed_file(folder)

    def read(content: bytes) -> None:
        public.write_bytes(content)
        check_signature(file, file.read_bytes(), public)

    return Target((public.read_bytes(),), read)


def journal(folder: Path) -> Target:
    """What was measured, from its beginning on, as far as it goes."""
    path, job = folder / "journal", Job("1.0", SETTING, "c" * 64, "d" * 64, None)

    def read(content: bytes) -> list[tuple[int, list[float]]]:
        path.write_bytes(content)
        with Journal.open(path, job) as found:
            return list(found.read("measure", float))

    with Journal.open(path, job) as begun:
        for number in range(5):
            scores = [1 / (6 * number + k + 1) for k in range(6)]
            begun.append("measure", number, scores)
    return Target((path.read_bytes(),), read, lambda found, all_: found == all_[: len(found)])


TARGETS: dict[str, Callable[[Path], Target]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        *(manifest, calibration, forged_calibration, graph, noise_bank, empty_embeds),
        *(tokenizer, t5_tokenizer, qwen_tokenizer, gemma_tokenizer),
        *(sidecar, plan, signature, signed, public_key, journal),
    )
}
TARGETS |= {
    f"prompts{ending}": partial(prompts, ending=ending)
    for ending in (".txt", ".csv", ".jsonl", ".parquet")
}
TARGETS |= {each: partial(engine, backend=each) for each in ("onnxruntime", "openvino")}


def _promised(found: Calibration, detections: list[Detection]) -> bool:
    scores, threshold = found.scores, found.threshold
    return (
        sum(score > threshold for score in scores) <= found.fpr * len(scores)
        and min(scores) <= threshold <= 1.01 * max(scores)
        and all(
            each.memorized is (None if each.empty else each.score > threshold)
            and (each.p_value is None or 1 / (1 + len(scores)) <= each.p_value <= 1)
            for each in detections
        )
    )


def _plain(model: onnx.ModelProto, files: set[str]) -> bool:
    """Whether every operator is one of those, none holds a graph, and data is in known files."""
    graphs = {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS}
    attributes = [each for node in model.graph.node for each in node.attribute]
    tensors = [*model.graph.initializer, *(each.t for each in attributes)]
    places = {e.value for t in tensors for e in t.external_data if e.key == "location"}
    return (
        {node.op_type for node in model.graph.node} <= OPERATORS.keys()
        and not graphs & {each.type for each in attributes}
        and places <= files
        and not model.functions
    )


def _alike(found: Any, known: Any) -> bool:
    same = (found.dtype, found.shape) == (known.dtype, known.shape)
    return bool(same and np.isfinite(found).all())


def _plan(folder: Path, ending: str) -> Target:
    os.environ["MNEMOSCOPE_CACHE"] = str(folder / "cache")  # its seal
    key = PlanKey(
        *("tensorrt", "10.9", 13, "b" * 64, "screen", "c" * 64, ("d" * 64,), "float32"),
        *((Profile.parse("1"),), "linux", "a card", ("SM89",)),
    )
    path = write_plan(folder / "plans", key, bytes(range(256)) * 4, "580.0")
    file = path.with_name(f"{path.name}{ending}")

    def read(content: bytes) -> tuple[PlanKey, bytes]:
        file.write_bytes(content)
        return find_plan(path.parent, key, lambda built: key.to_run(built, None))

    return Target((file.read_bytes(),), read)
