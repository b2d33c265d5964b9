"""What is put into a Stable Diffusion XL; the witness is diffusers' pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import write_lora
from diffusers import StableDiffusionXLPipeline
from pipelines import build_xl
from safetensors.torch import load_file, save_file

from mnemoscope import ExportError
from mnemoscope_export import Embedding, LoadOptions, Lora, StableDiffusion

PROMPT = "a photo of <toy> on a windowsill"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "xl"
    build_xl().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("embedding") / "toy.safetensors"
    generator = torch.Generator().manual_seed(1)
    save_file(
        {name: torch.randn(2, 32, generator=generator) for name in ("clip_l", "clip_g")}, path
    )
    return path


def agree(model: StableDiffusion, pipe: Any, **told: Any) -> None:
    """Both embeddings of both branches, and what the UNet makes of the prompt's."""
    embeds, negative, pooled, negative_pooled = pipe.encode_prompt(
        PROMPT, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True, **told
    )
    close = {"rtol": 1e-4, "atol": 1e-5}
    for found, expected in zip(model.embed([PROMPT]), (embeds, pooled), strict=True):
        torch.testing.assert_close(found, expected, **close)
    for found, expected in zip(model.embed_empty(), (negative, negative_pooled), strict=True):
        torch.testing.assert_close(found, expected, **close)
    latents = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    side = pipe.default_sample_size * pipe.vae_scale_factor
    times = torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32)
    expected = pipe.unet(
        latents, 981, embeds, added_cond_kwargs={"text_embeds": pooled, "time_ids": times}
    ).sample
    torch.testing.assert_close(model.predict(latents, 981, (embeds, pooled)), expected, **close)


@torch.no_grad()
@pytest.mark.parametrize("kohya", [False, True])
def test_lora_and_textual_inversion(
    folder: Path, embedding: Path, tmp_path: Path, kohya: bool
) -> None:
    path = tmp_path / "style.safetensors"
    write_lora(build_xl(), path, kohya=kohya)
    pipe: Any = StableDiffusionXLPipeline.from_pretrained(folder)
    held = load_file(embedding)
    parts = ((held["clip_l"], "text_encoder", "tokenizer"),
             (held["clip_g"], "text_encoder_2", "tokenizer_2"))  # fmt: skip
    for vectors, encoder, tokenizer in parts:
        pipe.load_textual_inversion(
            vectors, token="<toy>", text_encoder=getattr(pipe, encoder),
            tokenizer=getattr(pipe, tokenizer),
        )  # fmt: skip
    pipe.load_lora_weights(str(tmp_path), weight_name=path.name, adapter_name="style")
    pipe.set_adapters(["style"], [0.6])
    options = LoadOptions(loras=(Lora(path, 0.6),), embeddings=(Embedding(embedding, "<toy>"),))
    model = StableDiffusion.load(folder, options=options)
    agree(model, pipe)
    plain = StableDiffusion.load(folder)
    assert (plain.embed([PROMPT])[0] - model.embed([PROMPT])[0]).abs().max() > 0.1
    assert [each.kind for each in model.adapters] == ["embedding", "lora"]


@torch.no_grad()
@pytest.mark.parametrize(("skip", "negative"), [(1, None), (0, "blurry"), (None, "")])
def test_layers_left_out_and_a_negative_prompt(
    folder: Path, skip: int | None, negative: str | None
) -> None:
    """An empty negative prompt is one: the pipeline then tells no zeros."""
    pipe = StableDiffusionXLPipeline.from_pretrained(folder)
    model = StableDiffusion.load(folder, options=LoadOptions(clip_skip=skip, negative=negative))
    agree(model, pipe, clip_skip=skip, negative_prompt=negative)
    assert model.zero_empty == (negative is None)
    assert model.own_empty == (not model.zero_empty and (bool(skip) or bool(negative)))


def test_an_embedding_of_another_family(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "toy.safetensors"
    save_file({"<toy>": torch.ones(2, 32)}, path)
    with pytest.raises(ExportError, match="holds clip_l and clip_g"):
        StableDiffusion.load(folder, options=LoadOptions(embeddings=(Embedding(path),)))


def test_a_lora_half_of_which_diffusers_passes_over(folder: Path, tmp_path: Path) -> None:
    """Some layers named as peft names them, others as diffusers once did: it reads the former."""
    path = tmp_path / "style.safetensors"
    write_lora(build_xl(), path)
    held = load_file(path)
    for key in [key for key in held if ".attn" in key]:
        old = key.replace("lora_A", "lora.down").replace("lora_B", "lora.up")
        held[old] = held.pop(key)
    save_file(held, path)
    with pytest.raises(ExportError, match=r"does not know these of its tensors: unet\..*attn"):
        StableDiffusion.load(folder, options=LoadOptions(loras=(Lora(path),)))
