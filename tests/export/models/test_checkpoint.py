"""What is loaded is what the files hold, value by value; their keys are the witness."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel

from mnemoscope import ExportError, embedded
from mnemoscope_export import StableDiffusion, load_network, load_vae

Weights = dict[str, Tensor]
TEXT, UNET = "model.safetensors", "diffusion_pytorch_model.safetensors"
FIRST = "text_model.embeddings.token_embedding.weight"
LAST = "final_layer_norm.bias"
NORM = f"text_model.{LAST}"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return shutil.copytree(embedded.MODEL / "text_encoder", tmp_path / "text_encoder")


@pytest.fixture
def vae(tmp_path: Path) -> Path:
    AutoencoderKL(block_out_channels=(8,), norm_num_groups=4).save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


def load_text(folder: Path, dtype: torch.dtype = torch.float32) -> CLIPTextModel:
    return load_network(CLIPTextModel, folder, dtype=dtype)


def copied(network: nn.Module) -> Weights:
    """Its weights, which may be mapped from a file that a test then changes."""
    return {key: value.clone() for key, value in network.state_dict().items()}


def change(file: Path, edit: Callable[[Weights], object]) -> None:
    weights = load_file(file)
    edit(weights)
    save_file({key: value.clone() for key, value in weights.items()}, file, {"format": "pt"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_value_is_that_of_the_file(text: Path, dtype: torch.dtype) -> None:
    network = load_text(text, dtype)
    state = {key.removeprefix("text_model."): v for key, v in network.state_dict().items()}
    for key, value in load_file(text / TEXT).items():
        assert torch.equal(state[key.removeprefix("text_model.")], value.to(dtype))
    assert not network.training


def test_both_names_of_a_text_encoders_weights(text: Path) -> None:
    def strip(weights: Weights) -> None:
        for key in list(weights):
            weights[key.removeprefix("text_model.")] = weights.pop(key)

    before = copied(load_text(text))
    change(text / TEXT, strip)
    try:
        after, refusal = copied(load_text(text)), ""
    except ExportError as error:  # as transformers 5.5.4: it knows the longer names only
        after, refusal = before, str(error)
    assert all(torch.equal(value, before[key]) for key, value in after.items())
    assert not refusal or "52 have other values than in the files" in refusal


def test_old_names_of_attention_in_a_vae(vae: Path) -> None:
    def rename(weights: Weights) -> None:
        for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v")):
            for key in [key for key in weights if f".{new}." in key]:
                weights[key.replace(new, old)] = weights.pop(key)
        for key in [key for key in weights if "to_out.0" in key]:
            weights[key.replace("to_out.0", "proj_attn")] = weights.pop(key)

    before = copied(load_network(AutoencoderKL, vae, dtype=torch.float32))
    change(vae / UNET, rename)
    assert any(".proj_attn." in key for key in load_file(vae / UNET))
    after = load_network(AutoencoderKL, vae, dtype=torch.float32).state_dict()
    assert all(torch.equal(value, before[key]) for key, value in after.items())


def test_position_ids_do_no_harm(text: Path) -> None:
    ids = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    change(text / TEXT, lambda weights: weights.update(ids))
    load_text(text)


def duplicate(weights: Weights) -> None:
    weights[NORM.removeprefix("text_model.")] = weights[NORM].clone()


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda w: w.pop(FIRST), r"1 are in no file \(.*token_embedding\.weight\)"),
        (lambda w: w.update(extra=w[NORM]), r"1 are in the files only \(extra\)"),
        (lambda w: w.update({NORM: w[NORM][:-1]}), r"other shapes .*\(127,\), not \(128,\)"),
        (lambda w: w[NORM].fill_(float("nan")), r"1 are NaN or infinite .*final_layer_norm\.bias"),
        (duplicate, r"1 are there under two names"),
        (
            lambda w: w.update({"text_model.encoder.layers.0.q_proj.base_layer.weight": w[NORM]}),
            r"still has adapters in it: .*base_layer.*fuse_lora.*unload_lora_weights.*save_pretr",
        ),
        (
            lambda w: w.update({"encoder.q_proj.lora_A.default.weight": w[NORM]}),
            r"still has adapters in it: .*lora_A",
        ),
        (
            lambda w: w.update({NORM: w[NORM].to(torch.float8_e4m3fn)}),
            r"no floating-point numbers of 16 bits or more.*before it was quantised",
        ),
    ],
    ids=["missing", "unexpected", "shape", "nan", "twice", "base", "lora", "float8"],
)
def test_what_does_not_fit_is_named(
    text: Path, edit: Callable[[Weights], object], words: str
) -> None:
    change(text / TEXT, edit)
    with pytest.raises(ExportError, match=r"(?s)text_encoder.*" + words):
        load_text(text)


@pytest.mark.parametrize(
    ("edit", "remedy"),
    [
        (lambda w: w[NORM].fill_(float("nan")), "Copy the model again, or load it in float32"),
        (
            lambda w: w.update({key: value[..., :-1] for key, value in w.items()}),
            r"files \(\S+ \([\d, ]+\), not \([\d, ]+\) and \d+ more\). Its config.json describes",
        ),
        (lambda w: w.pop(FIRST), r"or install the versions in constraints\.txt"),
    ],
    ids=["nan", "shapes", "missing"],
)
def test_the_remedy_is_that_of_the_fault(
    text: Path, edit: Callable[[Weights], object], remedy: str
) -> None:
    change(text / TEXT, edit)
    with pytest.raises(ExportError, match=remedy) as caught:
        load_text(text)
    assert ("constraints" in str(caught.value)) == ("constraints" in remedy)


def test_a_git_lfs_pointer_is_told(text: Path) -> None:
    (text / TEXT).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with pytest.raises(ExportError, match=r"model\.safetensors is a Git LFS pointer.*git lfs pull"):
        load_text(text)


def test_what_float16_cannot_hold_is_named(text: Path) -> None:
    change(text / TEXT, lambda w: w.update({NORM: w[NORM].float() + 1e6}))
    load_text(text)
    with pytest.raises(ExportError, match=r"NaN or infinite .* precision asked for.*layer_norm"):
        load_text(text, torch.float16)


@pytest.mark.parametrize(("layers", "words"), [(4, "in no file"), (2, "in the files only")])
def test_another_number_of_layers(text: Path, layers: int, words: str) -> None:
    config = json.loads((text / "config.json").read_text())
    (text / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
    with pytest.raises(ExportError, match=f"16 are {words} .* and 12 more"):
        load_text(text)


class Careless(CLIPTextModel):
    """As transformers 5.5.4 loads the embedded model: no name fits, and all stays random."""

    @classmethod
    def from_pretrained(cls, folder: Path, **_: object) -> nn.Module:
        return CLIPTextModel(CLIPTextModel.config_class.from_pretrained(folder))


class Shuffled(CLIPTextModel):
    """Names fit, and values do not."""

    @classmethod
    def from_pretrained(cls, folder: Path, **options: object) -> nn.Module:
        network = CLIPTextModel.from_pretrained(folder, **options)
        buffer = next(value for name, value in network.named_buffers() if "position_ids" in name)
        buffer.fill_(3)
        return network


@pytest.mark.parametrize(("kind", "key"), [(Careless, "token_emb"), (Shuffled, "position_ids")])
def test_a_library_that_fills_in_is_found_out(text: Path, kind: type[nn.Module], key: str) -> None:
    with pytest.raises(ExportError, match=rf"have other values than in the files \(.*{key}"):
        load_network(kind, text, dtype=torch.float32)


def test_shards(vae: Path) -> None:
    whole = load_network(AutoencoderKL, vae, dtype=torch.float32)
    (vae / UNET).unlink()
    whole.save_pretrained(vae, max_shard_size="10KB")
    index = vae / f"{UNET}.index.json"
    shards = sorted(vae.glob("*-of-*.safetensors"))
    assert len(shards) > 1
    again = load_network(AutoencoderKL, vae, dtype=torch.float32)
    assert all(torch.equal(v, whole.state_dict()[key]) for key, v in again.state_dict().items())

    moved = json.loads(index.read_text())
    key = next(key for key, file in moved["weight_map"].items() if file == shards[0].name)
    text = index.read_text()
    moved["weight_map"][key] = shards[1].name
    index.write_text(json.dumps(moved))
    with pytest.raises(ExportError, match=rf"does not hold the keys that .* {re.escape(key)}"):
        load_network(AutoencoderKL, vae, dtype=torch.float32)
    index.write_text(text)
    shards[1].unlink()
    with pytest.raises(ExportError, match=rf"lists files that are not there: {shards[1].name}"):
        load_network(AutoencoderKL, vae, dtype=torch.float32)


def test_variants(text: Path) -> None:
    shutil.copy(text / TEXT, text / "model.fp16.safetensors")
    change(text / TEXT, lambda weights: weights[NORM].add_(1))
    one = load_text(text)
    other = load_network(CLIPTextModel, text, dtype=torch.float32, variant="fp16")
    norms = [next(v for k, v in copied(n).items() if k.endswith(LAST)) for n in (one, other)]
    assert not torch.equal(*norms)
    (text / TEXT).unlink()
    with pytest.raises(ExportError, match=r"no model\.safetensors, only model\.fp16\.safetensors"):
        load_text(text)


def test_two_files_side_by_side(vae: Path) -> None:
    (vae / f"{UNET}.index.json").write_text('{"weight_map": {}}')
    with pytest.raises(ExportError, match=r"has both .* and which of them"):
        load_network(AutoencoderKL, vae, dtype=torch.float32)


def test_files_that_are_no_safetensors(text: Path) -> None:
    (text / TEXT).write_bytes(b"")
    with pytest.raises(ExportError, match=r"model\.safetensors is no safetensors file"):
        load_text(text)


def test_an_adapter_beside_the_weights(text: Path) -> None:
    (text / "adapter_config.json").write_text("{}")
    with pytest.raises(ExportError, match=r"still has adapters in it: adapter_config\.json"):
        load_text(text)


@pytest.mark.parametrize(
    ("part", "file", "load"),
    [
        ("text_encoder", TEXT, StableDiffusion.load),
        ("unet", UNET, StableDiffusion.load),
        ("vae", UNET, load_vae),
    ],
)
def test_every_part_of_a_model(
    tmp_path: Path, part: str, file: str, load: Callable[[Path], object]
) -> None:
    folder = shutil.copytree(embedded.MODEL, tmp_path / "model")
    lost: list[str] = []
    change(folder / part / file, lambda weights: lost.append(weights.popitem()[0]))
    key = re.escape(lost[0].removeprefix("text_model."))
    with pytest.raises(ExportError, match=rf"model/{part} .*1 are in no file \(.*{key}"):
        load(folder)


def test_a_unet_of_another_width(tmp_path: Path) -> None:
    folder = shutil.copytree(embedded.MODEL / "unet", tmp_path / "unet")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"cross_attention_dim": 64}))
    with pytest.raises(ExportError, match=r"have other shapes in the files \(.*attn2\.to_k"):
        load_network(UNet2DConditionModel, folder, dtype=torch.float32)
