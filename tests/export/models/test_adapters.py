"""LoRA and textual inversion at export; the witness is diffusers' pipeline with them loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import ALPHA, RANK, write_embedding, write_lora
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from mnemoscope import BackendUnavailable, ExportError, InputError
from mnemoscope_export import Embedding, LoadOptions, Lora, StableDiffusion
from mnemoscope_export.models import adapters

PROMPT = "a photo of a cat on a windowsill"


@pytest.fixture(scope="module", params=[False, True], ids=["peft", "kohya"])
def loras(
    request: pytest.FixtureRequest, one_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Lora]:
    folder = tmp_path_factory.mktemp("loras")
    found = []
    for i, scale in enumerate((0.7, -0.4)):
        path = folder / f"style{i}.safetensors"
        write_lora(pipeline_of(one_dir), path, kohya=request.param, seed=i)
        found.append(Lora(path, scale))
    return found


@pytest.fixture(scope="module")
def one_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipelines import build_pipeline

    folder = tmp_path_factory.mktemp("model") / "epsilon"
    build_pipeline("epsilon").save_pretrained(folder)
    return folder


def pipeline_of(folder: Path) -> Any:
    return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)


@torch.no_grad()
def test_fused_is_what_the_pipeline_does_with_its_adapters_active(
    one_dir: Path, loras: list[Lora]
) -> None:
    pipe = pipeline_of(one_dir)
    names = []
    for i, lora in enumerate(loras):
        names.append(f"their{i}")
        folder, file = lora.file.parent, lora.file.name
        pipe.load_lora_weights(folder, weight_name=file, adapter_name=names[-1])
    pipe.set_adapters(names, [lora.scale for lora in loras])
    model = StableDiffusion.load(one_dir, options=LoadOptions(loras=tuple(loras)))
    plain = StableDiffusion.load(one_dir)
    embeds, _ = pipe.encode_prompt(PROMPT, "cpu", 1, do_classifier_free_guidance=False)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = pipe.unet(latents, 981, embeds).sample
    found = model.predict(latents, 981, model.embed([PROMPT]))
    torch.testing.assert_close(model.embed([PROMPT])[0], embeds, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (plain.embed([PROMPT])[0] - embeds).abs().max() > 0.1
    assert (plain.predict(latents, 981, (embeds,)) - expected).abs().max() > 0.01
    assert model.weights_sha256() != plain.weights_sha256()


def test_one_layer_by_hand(one_dir: Path, tmp_path: Path) -> None:
    """W + scale * alpha / rank * B A, without peft."""
    path = tmp_path / "style.safetensors"
    write_lora(pipeline_of(one_dir), path)
    module = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    layer = load_file(path)
    up, down = (layer[f"unet.{module}.lora_{way}.weight"] for way in "BA")
    plain = StableDiffusion.load(one_dir).unet.get_submodule(module).weight
    options = LoadOptions(loras=(Lora(path, 0.5),))
    found = StableDiffusion.load(one_dir, options=options).unet.get_submodule(module).weight
    torch.testing.assert_close(found, plain + 0.5 * ALPHA / RANK * up @ down)


def test_what_is_recorded(one_dir: Path, loras: list[Lora]) -> None:
    model = StableDiffusion.load(one_dir, options=LoadOptions(loras=tuple(loras)))
    assert [(a.kind, a.file, a.scale) for a in model.adapters] == [
        ("lora", "style0.safetensors", 0.7),
        ("lora", "style1.safetensors", -0.4),
    ]
    assert len({a.sha256 for a in model.adapters}) == 2


def drop_half(held: dict[str, torch.Tensor]) -> None:
    del held[next(key for key in held if "lora_B" in key)]


def rename_layer(held: dict[str, torch.Tensor]) -> None:
    key = next(key for key in held if "attn2.to_k" in key)
    held[key.replace("attn2", "attn7")] = held.pop(key)


def other_kind(held: dict[str, torch.Tensor]) -> None:
    held["unet.mid_block.attentions.0.proj_in.lora_A.hada_w1_a"] = torch.ones(4, 4) * 3


def other_width(held: dict[str, torch.Tensor]) -> None:
    for key in [key for key in held if "attn2.to_k" in key and "lora_A" in key]:
        held[key] = torch.ones(RANK, 99)


def not_finite(held: dict[str, torch.Tensor]) -> None:
    held[next(key for key in held if "attn2.to_k.lora_B" in key)][0] = float("nan")


def add_scales(held: dict[str, torch.Tensor]) -> None:
    for key in [key for key in held if "lora_A" in key]:
        held[key.replace("lora_A.weight", "alpha")] = torch.tensor(8.0)


def no_lora(held: dict[str, torch.Tensor]) -> None:
    held.clear()
    held["conv_in.weight"] = torch.ones(4)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (drop_half, r"holds one half of these layers only, and not \w.*lora_B\.weight\. Copy it"),
        (rename_layer, r"one half of these layers only, and not .*attn2.*, \w.*attn7"),
        (other_kind, r"does not know these of its tensors: .*hada_w1_a"),
        (other_width, r"Give a LoRA that was trained for its family"),
        (not_finite, r"values that are NaN or infinite in torch\.float32: \w.*to_k\.lora_B"),
        (add_scales, r"scales under names that diffusers does not read .*\.alpha"),
        (no_lora, r"holds no LoRA weights, but conv_in\.weight"),
        (lambda held: held.update({"bias": torch.ones(2)}), r"beside LoRA weights it holds bias"),
    ],
)
def test_a_lora_that_does_not_fit(
    one_dir: Path,
    tmp_path: Path,
    spoil: Callable[[dict[str, torch.Tensor]], None],
    words: str,
) -> None:
    path = tmp_path / "style.safetensors"
    write_lora(pipeline_of(one_dir), path)
    held = load_file(path)
    spoil(held)
    save_file(held, path)
    with pytest.raises(ExportError, match=rf"style\.safetensors .*{words}"):
        StableDiffusion.load(one_dir, options=LoadOptions(loras=(Lora(path),)))


def test_loading_a_lora_may_change_nothing_else(
    one_dir: Path, loras: list[Lora], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = StableDiffusionPipeline.load_lora_weights

    def careless(pipe: Any, *args: Any, **options: Any) -> None:
        real(pipe, *args, **options)
        pipe.text_encoder.get_input_embeddings().weight.data[5] += 1

    monkeypatch.setattr(StableDiffusionPipeline, "load_lora_weights", careless)
    with pytest.raises(ExportError, match="changed other weights of the text_encoder"):
        StableDiffusion.load(one_dir, options=LoadOptions(loras=(loras[0],)))


def test_without_peft(one_dir: Path, loras: list[Lora], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda _: None)
    with pytest.raises(BackendUnavailable, match=r"need peft.*pip install"):
        StableDiffusion.load(one_dir, options=LoadOptions(loras=(loras[0],)))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.safetensors", Lora(Path("a.safetensors"))),
        ("C:/x/a.safetensors:0.5", Lora(Path("C:/x/a.safetensors"), 0.5)),
        ("C:/x/a.safetensors", Lora(Path("C:/x/a.safetensors"))),
        ("a.safetensors:-1", Lora(Path("a.safetensors"), -1.0)),
    ],
)
def test_how_a_lora_is_written(text: str, found: Lora) -> None:
    assert Lora.parse(text) == found


@pytest.mark.parametrize("text", ["a.pt", "a.ckpt:1", "a.safetensors:x", "a.safetensors:nan", ""])
def test_how_a_lora_is_not_written(text: str) -> None:
    with pytest.raises(InputError, match=r"safetensors"):
        Lora.parse(text)


def test_how_an_embedding_is_written() -> None:
    assert Embedding.parse("a.safetensors:<x>") == Embedding(Path("a.safetensors"), "<x>")
    assert Embedding.parse("C:/a.safetensors") == Embedding(Path("C:/a.safetensors"))
    for text in ("a.bin", "a.safetensors:"):
        with pytest.raises(InputError, match="safetensors"):
            Embedding.parse(text)


@torch.no_grad()
@pytest.mark.parametrize("vectors", [1, 3])
@pytest.mark.parametrize(
    ("key", "token", "called"), [("<toy>", None, "<toy>"), ("emb_params", None, "charm"),
                                 ("emb_params", "<mine>", "<mine>")]
)  # fmt: skip
def test_a_textual_inversion_is_read_as_the_pipeline_does(
    one_dir: Path, tmp_path: Path, vectors: int, key: str, token: str | None, called: str
) -> None:
    path = tmp_path / "charm.safetensors"
    write_embedding(path, 32, vectors=vectors, key=key)
    pipe = pipeline_of(one_dir)
    pipe.load_textual_inversion(str(path.parent), weight_name=path.name, token=called)
    prompts = [f"a photo of {called}, on a shelf", f"{called}{called}", "a photo of nothing"]
    embeds, _ = pipe.encode_prompt(prompts, "cpu", 1, do_classifier_free_guidance=False)
    options = LoadOptions(embeddings=(Embedding(path, token),))
    model = StableDiffusion.load(one_dir, options=options)
    torch.testing.assert_close(model.embed(prompts)[0], embeds, rtol=1e-4, atol=1e-5)
    record = model.adapters[0]
    assert (record.kind, record.token, record.vectors) == ("embedding", called, vectors)
    plain = StableDiffusion.load(one_dir).embed(prompts[:1])[0]
    assert (plain - embeds[:1]).abs().max() > 0.05


def test_of_several_words_in_a_file_one_is_picked(one_dir: Path, tmp_path: Path) -> None:
    path, other = tmp_path / "two.safetensors", tmp_path / "one.safetensors"
    cat = write_embedding(other, 32, vectors=2, key="<cat>")
    save_file({"<cat>": cat, "<dog>": torch.ones(32)}, path)

    def load(*given: Embedding) -> StableDiffusion:
        return StableDiffusion.load(one_dir, options=LoadOptions(embeddings=given))

    found, expected = (load(Embedding(path, "<cat>")), load(Embedding(other)))
    assert torch.equal(found.embed(["a <cat>"])[0], expected.embed(["a <cat>"])[0])
    assert (found.adapters[0].token, found.adapters[0].vectors) == ("<cat>", 2)
    assert len(load(Embedding(path, "<cat>"), Embedding(path, "<dog>")).adapters) == 2
    for token, words in ((None, "Say which with FILE:TOKEN"), ("<cow>", "and not of '<cow>'")):
        with pytest.raises(ExportError, match=f"of 2 tokens, <cat>, <dog>.*{words}"):
            load(Embedding(path, token))


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: save_file({"x": torch.full((32,), float("nan"))}, path), "NaN .*: x"),
        (lambda path: write_embedding(path, 768), "of incorrect shape"),
        (lambda path: write_embedding(path, 32, key="cat</w>"), "already in tokenizer"),
        (lambda path: save_file({"clip_l": torch.ones(2, 32), "clip_g": torch.ones(2, 32)}, path),
         "holds clip_g, clip_l"),
        (lambda path: path.write_bytes(b"\x80\x02}q\x00."), "cannot be read"),
    ],
)  # fmt: skip
def test_an_embedding_that_does_not_fit(
    one_dir: Path, tmp_path: Path, write: Callable[[Path], object], words: str
) -> None:
    path = tmp_path / "charm.safetensors"
    write(path)
    with pytest.raises(ExportError, match=words):
        StableDiffusion.load(one_dir, options=LoadOptions(embeddings=(Embedding(path),)))


@torch.no_grad()
@pytest.mark.parametrize(("skip", "negative"), [(1, None), (0, "blurry"), (None, "blurry, bad")])
def test_layers_left_out_and_a_negative_prompt(
    one_dir: Path, skip: int | None, negative: str | None
) -> None:
    """Prompts skip layers, the unconditional branch does not, as in diffusers' pipeline."""
    pipe = pipeline_of(one_dir)
    if not hasattr(pipe.text_encoder, "text_model"):  # diffusers looks for the last norm there
        pipe.text_encoder.__dict__["text_model"] = pipe.text_encoder
    embeds, told = pipe.encode_prompt(
        PROMPT, "cpu", 1, do_classifier_free_guidance=True, negative_prompt=negative, clip_skip=skip
    )
    model = StableDiffusion.load(one_dir, options=LoadOptions(clip_skip=skip, negative=negative))
    torch.testing.assert_close(model.embed([PROMPT])[0], embeds, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.embed_empty()[0], told, rtol=1e-4, atol=1e-5)
    plain = replace(model, clip_skip=None, negative=None)
    same = (plain.embed([PROMPT])[0] - embeds).abs().max() < 1e-4
    assert same == (skip in (None, 0))


@pytest.mark.parametrize("skip", [-1, 2, True, 1.0])
def test_more_layers_than_there_are(one_dir: Path, skip: Any) -> None:
    with pytest.raises(InputError, match="clip_skip"):
        StableDiffusion.load(one_dir, options=LoadOptions(clip_skip=skip))


def test_a_variant_is_read(one_dir: Path, tmp_path: Path) -> None:
    """diffusers' own files of half the precision, whose values differ from the whole ones."""
    folder = tmp_path / "model"
    pipe = pipeline_of(one_dir)
    pipe.save_pretrained(folder)
    for parameter in pipe.unet.parameters():
        parameter.data += 0.5
    pipe.to(torch.float16).save_pretrained(folder, variant="fp16")
    assert (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").exists()
    whole = StableDiffusion.load(folder)
    found = StableDiffusion.load(folder, options=LoadOptions(variant="fp16"))
    their = StableDiffusionPipeline.from_pretrained(folder, variant="fp16", safety_checker=None)
    assert torch.equal(found.unet.conv_in.weight, their.unet.conv_in.weight.float())
    assert (found.unet.conv_in.weight - whole.unet.conv_in.weight).abs().min() > 0.4
    assert found.variant == "fp16"
    with pytest.raises(ExportError, match=r"no files of the variant 'bf16'; there is fp16"):
        StableDiffusion.load(folder, options=LoadOptions(variant="bf16"))


def test_a_variant_alone_is_named(one_dir: Path, tmp_path: Path) -> None:
    """A folder without plain files, as many people have."""
    folder = tmp_path / "model"
    pipeline_of(one_dir).to(torch.float16).save_pretrained(folder, variant="fp16")
    with pytest.raises(ExportError, match=r"fp16.*variant"):
        StableDiffusion.load(folder)
    assert StableDiffusion.load(folder, options=LoadOptions(variant="fp16")).latent_shape
    assert json.loads((folder / "model_index.json").read_text())
