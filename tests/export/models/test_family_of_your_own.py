"""docs/families.md, "A family of your own": the file and the line that stand there are a family."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from diffusers import PixArtTransformer2DModel
from pipelines import scheduler, text_config
from repository import ROOT
from transformers import CLIPTextModel, CLIPTokenizer

from mnemoscope import ExportError, InputError, embedded
from mnemoscope_export import Model, StableDiffusion, load_model, noise_bank
from mnemoscope_export.models import families
from mnemoscope_export.models.families import Family
from mnemoscope_export.torch.graphs import ScreenGraph, StepGraph, to_onnx
from mnemoscope_export.torch.reference import measure
from mnemoscope_export.torch.taps import choose
from mnemoscope_runtime.graphs.walk import check_graph

PAGE = (ROOT / "docs" / "families.md").read_text()
FILE, LINE, USE = re.findall(
    r"```python\n(.*?)```", PAGE[PAGE.index("## A family of your own") :], re.DOTALL
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline's directory with random weights."""
    torch.manual_seed(0)
    folder = tmp_path / "a-pixart-clip"
    tokenizer = CLIPTokenizer.from_pretrained(embedded.MODEL / "tokenizer")
    tokenizer.save_pretrained(folder / "tokenizer")
    encoder = CLIPTextModel(text_config(tokenizer, num_hidden_layers=2))
    encoder.save_pretrained(folder / "text_encoder")
    transformer = PixArtTransformer2DModel(
        sample_size=8, num_layers=3, num_attention_heads=2, attention_head_dim=8, out_channels=4,
        cross_attention_dim=16, caption_channels=32, use_additional_conditions=False,
    )  # fmt: skip
    transformer.save_pretrained(folder / "transformer")
    scheduler("epsilon").save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text('{"transformer": ["diffusers", "PixArt"]}')
    return folder


@pytest.fixture
def model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """Loaded through the table, with the line of the page in it."""
    (tmp_path / "pixart_clip.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pixart_clip", raising=False)
    line: dict[str, Family] = eval(f"{{{LINE}}}", {"Family": Family})
    ((name, family),) = line.items()
    absolute = Family(family.model.removeprefix("."), family.matches)  # here it is not beside it
    monkeypatch.setattr(families, "FAMILIES", {name: absolute, **families.FAMILIES})
    return load_model(folder)


def test_the_text_of_the_page(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(USE.replace("magnitudes(model,", "found = magnitudes(model,"), names)
    assert names["found"].shape == (1, 2, 1)
    assert (names["found"] > 0).all()
    assert names["model"].weights_sha256() == model.weights_sha256()


@torch.no_grad()
def test_its_graphs_measure_what_the_reference_does(model: Model) -> None:
    prompts, taps = ["a cat", "google icon of rocket"], choose(model, model.tappable()[:2])
    bank = noise_bank(3, model.latent_shape, seed=0)
    expected = measure(model, prompts, bank, steps=1, taps=taps)[:, :, 0]
    assert (expected > 0).all()
    screen = ScreenGraph(model, bank, 981, taps)
    found = screen(model.tokenize(prompts), torch.arange(3))
    torch.testing.assert_close(torch.cat([found[0][..., None], found[1]], -1), expected)
    stopped = ScreenGraph(model, bank, 981, taps, stop=True)
    (norms,) = stopped(model.tokenize(prompts), torch.arange(3))
    torch.testing.assert_close(norms, expected[..., 1:])
    step = StepGraph(model, taps)
    embeds, empty = model.embed(prompts), model.embed_empty()
    magnitude, *_, norms = step(embeds, empty, bank[:1].expand(2, -1, -1, -1), torch.tensor(981))
    torch.testing.assert_close(magnitude, expected[:, 0, 0])
    torch.testing.assert_close(norms, expected[:, 0, 1:])


@pytest.mark.slow
@torch.no_grad()
def test_its_screening_graph_is_exported(model: Model) -> None:
    """Its pipeline there is none of, which a whole export is compared with."""
    graph = ScreenGraph(model, noise_bank(3, model.latent_shape, seed=0), 981)
    ids, noises = model.tokenize(["a cat", "x", "google icon of rocket"]), torch.tensor([2, 0])
    content = ir.to_proto(to_onnx(graph, model)).SerializeToString()
    check_graph(content, lambda _: None)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    told = {"input_ids": ids.numpy(), "noise_index": noises.numpy()}
    [found] = session.run(None, told)
    np.testing.assert_allclose(found, graph(ids, noises)[0].numpy(), rtol=1e-4)


def test_what_others_ask_of_it(model: Model) -> None:
    record = model.record()
    assert (record.family, record.prediction_type) == ("pixart-clip", "epsilon")
    assert model.difference(record) is None
    assert model.difference(model.to(torch.float16).record()) == "whose weights are not those"
    pipeline = model.assembled()
    assert pipeline.transformer is model.network
    assert np.isclose(model.unit_per_output(981), 1)
    with pytest.raises(InputError, match=r"transformer_blocks\.7 is no layer of this model"):
        choose(model, ["transformer_blocks.7"])
    with pytest.raises(InputError, match=r"nobody knows in which layers .* Leave taps out"):
        choose(model, "auto")


@pytest.mark.usefixtures("model")
def test_it_says_what_is_in_the_way(folder: Path) -> None:
    config = folder / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"out_channels": 4', '"out_channels": 8'))
    with pytest.raises(ExportError, match="a variance beside the noise"):
        load_model(folder)
    with pytest.raises(ExportError, match="family pixart-clip, which is no StableDiffusion"):
        StableDiffusion.load(folder)


def test_without_the_line_it_is_told_what_works(folder: Path) -> None:
    with pytest.raises(ExportError, match="its pipeline is None"):
        load_model(folder)
