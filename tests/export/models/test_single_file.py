"""Single-file checkpoints; the witness is the pipeline that the file was written from."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pipelines import build_pipeline, build_xl
from safetensors.torch import load_file, save_file
from single_files import write_single_file

from mnemoscope import ExportError, InputError
from mnemoscope_export import LoadOptions, StableDiffusion, load_vae
from mnemoscope_export.models.messages import first_line

PROMPT = "a photo of a cat on a windowsill"
ONE = {"num_images_per_prompt": 1}


def written(pipe: Any, folder: Path) -> tuple[Any, Path, Path]:
    """The pipeline, its weights in one file, and its configs without any."""
    pipe.save_pretrained(folder / "whole")
    ignored = shutil.ignore_patterns("*.safetensors")
    config = shutil.copytree(folder / "whole", folder / "config", ignore=ignored)
    write_single_file(pipe, folder / "model.safetensors")
    return pipe, folder / "model.safetensors", config


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, Path]:
    return written(build_pipeline("epsilon"), tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, Path]:
    pipe = build_xl()
    torch.manual_seed(1)
    for name, width in (("text_encoder", 24), ("text_encoder_2", 40)):  # as different as they are
        config = copy.deepcopy(pipe.components[name].config)
        config.hidden_size = width
        setattr(pipe, name, type(pipe.components[name])(config))
    return written(pipe, tmp_path_factory.mktemp("xl"))


@torch.no_grad()
@pytest.mark.parametrize("family", ["sd", "xl"])
def test_it_is_the_model_that_was_written(family: str, request: pytest.FixtureRequest) -> None:
    pipe, file, config = request.getfixturevalue(family)
    model = StableDiffusion.load(file, options=LoadOptions(config=config))
    embeds = pipe.encode_prompt(PROMPT, device="cpu", do_classifier_free_guidance=False, **ONE)
    torch.testing.assert_close(model.embed([PROMPT])[0], embeds[0], rtol=1e-5, atol=1e-6)
    assert model.id == "model.safetensors"
    for name, value in pipe.unet.state_dict().items():
        assert torch.equal(value, model.unet.state_dict()[name]), name
    whole = StableDiffusion.load(config.parent / "whole")
    assert model.weights_sha256() == whole.weights_sha256()


def test_its_vae(sd: tuple[Any, Path, Path]) -> None:
    pipe, file, config = sd
    vae = load_vae(file, LoadOptions(config=config))
    for name, value in pipe.vae.state_dict().items():
        assert torch.equal(value, vae.state_dict()[name]), name


def spoil(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path, Path], None]:
    def apply(source: Path, target: Path) -> None:
        held = load_file(source)
        change(held)
        save_file(held, target)

    return apply


def leave_out(word: str) -> Callable[[dict[str, torch.Tensor]], object]:
    def change(held: dict[str, torch.Tensor]) -> None:
        for key in [key for key in held if word in key]:
            del held[key]

    return change


REFUSED: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "no UNet": (spoil(leave_out("diffusion_model")), "is not a whole checkpoint"),
    "a weight too few": (spoil(leave_out("middle_block.0.in_layers.2")), "Give"),
    "no text encoder": (spoil(leave_out("cond_stage_model")), "Give"),
    "half a text encoder": (spoil(leave_out("text_model.encoder.layers.1")), "Give"),
    "more in the UNet": (
        spoil(lambda h: h.update({"model.diffusion_model.input_blocks.9.0.x": torch.ones(9)})),
        "of the file not used|cannot be loaded",
    ),
    "more in the text encoder": (
        spoil(lambda h: h.update({"cond_stage_model.transformer.adapter": torch.ones(9) * 7})),
        r"1 weight of the file not used \(cond_stage_model\.transformer\.adapter\)",
    ),
    "not finite": (
        spoil(lambda h: h["model.diffusion_model.out.2.bias"].fill_(float("nan"))),
        r"NaN or infinite in torch\.float32: model\.diffusion_model\.out\.2\.bias",
    ),
    "a Git LFS pointer": (
        lambda _, target: target.write_text("version https://git-lfs.github.com/spec/v1\n"),
        "is a Git LFS pointer, .*git lfs pull",
    ),
    "damaged": (lambda _, target: target.write_bytes(b"PK\x03\x04"), "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(sd: tuple[Any, Path, Path], tmp_path: Path, case: str) -> None:
    _, file, config = sd
    change, words = REFUSED[case]
    other = tmp_path / "other.safetensors"
    change(file, other)
    with pytest.raises(ExportError, match=words):
        StableDiffusion.load(other, options=LoadOptions(config=config))


def test_configs_of_another_family(sd: tuple[Any, Path, Path], xl: tuple[Any, Path, Path]) -> None:
    words = r": \S+position_embedding\.weight has the shape \S77, 32\S, not \S77, 24\S\. Give"
    with pytest.raises(ExportError, match=words) as caught:
        StableDiffusion.load(sd[1], options=LoadOptions(config=xl[2]))
    assert "ignore_mismatched_sizes" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "Cannot load  because a.weight expected shape torch.Size([2, 3]), but got torch.Size([4]). "
        "If you want to instead overwrite randomly initialized weights, pass both `x`",
        "Error(s) in loading state_dict for CLIPTextModel:\n\tsize mismatch for a.weight: copying "
        "a param with shape torch.Size([4]) from checkpoint, the shape in current model is "
        "torch.Size([2, 3]).\n\tsize mismatch for b",
    ],
)
def test_how_other_shapes_are_told(text: str) -> None:
    assert first_line(RuntimeError(text)) == "a.weight has the shape [4], not [2, 3]."
    assert first_line(ValueError("so\nand so")) == "so."


def test_options_that_do_not_go_together(sd: tuple[Any, Path, Path], tmp_path: Path) -> None:
    _, file, config = sd
    with pytest.raises(InputError, match=r"neither configs nor a tokenizer.*--config DIR"):
        StableDiffusion.load(file)
    with pytest.raises(InputError, match="has no variant 'fp16'"):
        StableDiffusion.load(file, options=LoadOptions(config=config, variant="fp16"))
    with pytest.raises(InputError, match="goes with a single-file checkpoint"):
        StableDiffusion.load(config, options=LoadOptions(config=config))
    with pytest.raises(ExportError, match=r"no model_index\.json"):
        StableDiffusion.load(file, options=LoadOptions(config=tmp_path))
    pickled = tmp_path / "model.ckpt"
    torch.save({}, pickled)
    with pytest.raises(InputError, match="no safetensors file"):
        StableDiffusion.load(pickled, options=LoadOptions(config=config))
