"""What configs say is looked through before weights are read. No weights anywhere here."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig

from benchmarks.families import FAMILIES
from mnemoscope import ExportError, InputError, embedded
from mnemoscope_export import LoadOptions, StableDiffusion, load_vae
from mnemoscope_export.configs import check_configs, sample_size
from mnemoscope_export.configs.parts import SAMPLERS, SCHEDULER, TEXT_ENCODER
from mnemoscope_export.configs.unet import UNET
from mnemoscope_export.models.folding import FoldedUNet
from mnemoscope_runtime.schedulers import timesteps

Configs = dict[str, dict[str, Any]]


def base(family: str = "sd14") -> Configs:
    """The published configs, as far as they say more than the library's defaults."""
    known, xl = FAMILIES[family], family == "sdxl"
    part = ["diffusers", "UNet2DConditionModel"]
    index: dict[str, Any] = {
        "_class_name": f"StableDiffusion{'XL' if xl else ''}Pipeline",
        "_diffusers_version": "0.19.0",
        "unet": part,
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "vae": ["diffusers", "AutoencoderKL"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "requires_safety_checker": True,
    }
    text = {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "vocab_size": 9}
    unet = {"sample_size": 64, "cross_attention_dim": 768, "upcast_attention": None, **known.unet}
    scheduler = {
        "_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
        "beta_end": 0.012, "prediction_type": known.prediction, "skip_prk_steps": True,
        "set_alpha_to_one": False, "steps_offset": 1, "clip_sample": False, "trained_betas": None,
    }  # fmt: skip
    configs = {
        "model_index": index,
        "unet": {"_class_name": "UNet2DConditionModel", **unet},
        "text_encoder": {**text, **known.text},
        "tokenizer": {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77},
        "scheduler": scheduler,
    }
    if known.text_2 is not None:
        index["text_encoder_2"] = ["transformers", "CLIPTextModelWithProjection"]
        index["tokenizer_2"] = index["tokenizer"]
        index["force_zeros_for_empty_prompt"] = True
        configs["text_encoder_2"] = {**text, **known.text_2}
        configs["tokenizer_2"] = configs["tokenizer"]
    return configs


@pytest.mark.parametrize("family", FAMILIES)
def test_published_configs_are_covered(family: str) -> None:
    check_configs(base(family), "it")


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (b"\xef\xbb\xbf", "begins with a byte-order mark"),
        (b"\xff\xfe", "is no JSON in UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ],
)
def test_configs_that_the_libraries_cannot_read(tmp_path: Path, before: bytes, words: str) -> None:
    copy = shutil.copytree(embedded.MODEL, tmp_path / "model")
    for name in ("text_encoder/config.json", "tokenizer/tokenizer_config.json"):
        whole = (copy / name).read_bytes()
        (copy / name).write_bytes(before + whole)
        with pytest.raises(ExportError, match=f"{name} {words}"):
            StableDiffusion.load(copy)
        (copy / name).write_bytes(whole)


Change = tuple[str, str, Any, str]  # part, option, value, words of the error

UNETS: list[tuple[str, Any]] = [
    ("in_channels", 7), ("in_channels", 8), ("num_class_embeds", 1000),
    ("class_embed_type", "projection"),
    ("addition_embed_type", "text"), ("addition_embed_type", "text_time"),
    ("addition_embed_type", "image_hint"), ("time_cond_proj_dim", 256), ("encoder_hid_dim", 4096),
    ("encoder_hid_dim_type", "ip_image_proj"), ("sample_size", None), ("sample_size", "64"),
    ("dual_cross_attention", True), ("only_cross_attention", True),
    ("only_cross_attention", [True, False]), ("resnet_time_scale_shift", "scale_shift"),
    ("resnet_skip_time_act", True), ("time_embedding_type", "fourier"), ("conv_in_kernel", 4),
    ("conv_out_kernel", 2), ("center_input_sample", True), ("attention_type", "gated"),
    ("cross_attention_norm", "group_norm"), ("time_embedding_act_fn", "silu"),
    ("timestep_post_act", "silu"), ("class_embeddings_concat", True), ("norm_num_groups", None),
    ("mid_block_type", "UNetMidBlock2DSimpleCrossAttn"), ("mid_block_only_cross_attention", True),
    ("down_block_types", ["DownBlock2D", "CrossAttnDownBlock2D"]),
    ("down_block_types", ["SimpleCrossAttnDownBlock2D"]),
    ("up_block_types", ["ResnetUpsampleBlock2D"]),
    ("transformer_layers_per_block", [0, 1]), ("num_attention_heads", 8),
    ("cross_attention_dim", 1024), ("cross_attention_dim", [768, 768]), ("act_fn", "tanh"),
    ("quantization_config", {}), ("a_new_option", None),
]  # fmt: skip
PARTS: list[tuple[str, str, Any]] = [
    ("text_encoder", "hidden_act", "tanh"), ("text_encoder", "model_type", "xlm-roberta"),
    ("text_encoder", "architectures", ["T5EncoderModel"]),
    ("text_encoder", "use_attention_mask", True),
    ("text_encoder", "quantization_config", {}), ("text_encoder", "pruned_heads", {"0": [1]}),
    ("text_encoder", "hidden_size", 1280), ("tokenizer", "tokenizer_class", "T5Tokenizer"),
    ("tokenizer", "padding_side", "left"), ("tokenizer", "model_max_length", 1),
    ("scheduler", "prediction_type", "sample"), ("scheduler", "predict_epsilon", False),
    ("scheduler", "trained_betas", [0.1]), ("scheduler", "rescale_betas_zero_snr", True),
    ("scheduler", "thresholding", True), ("scheduler", "use_flow_sigmas", True),
    ("scheduler", "variance_type", "learned_range"), ("scheduler", "beta_schedule", "sigmoid"),
    ("scheduler", "timestep_spacing", "karras"), ("scheduler", "timestep_type", "continuous"),
    ("model_index", "requires_aesthetics_score", True), ("model_index", "controlnet", ["a", "B"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("part", "option", "value"), [*(("unet", *each) for each in UNETS), *PARTS]
)
def test_what_is_not_covered_is_named(part: str, option: str, value: object) -> None:
    configs = base()
    configs[part][option] = value
    with pytest.raises(ExportError, match=f"(?m)^  .*{option}") as caught:
        check_configs(configs, "it")
    assert "docs/families.md" in str(caught.value)


@pytest.mark.parametrize(
    ("part", "option", "value"),
    [
        ("unet", "time_cond_proj_dim", 256),  # its guidance embedding was ignored
        ("unet", "addition_embed_type", None),
        ("unet", "projection_class_embeddings_input_dim", 2560),  # the refiner's
        ("unet", "cross_attention_dim", 1280),
        ("text_encoder_2", "projection_dim", 768),
        ("text_encoder_2", "max_position_embeddings", 32),
        ("text_encoder_2", "hidden_act", "relu"),
        ("tokenizer_2", "padding_side", "left"),
    ],
)
def test_xl(part: str, option: str, value: object) -> None:
    configs = base("sdxl")
    configs[part] = {**configs[part], option: value}
    with pytest.raises(ExportError, match=option if option != "projection_dim" else "_input_dim"):
        check_configs(configs, "it")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("latents_mean", [0.1] * 4, "latents_mean is"),
        ("shift_factor", 0.1, "shift_factor is 0.1 .must be null, as .* pipeline adds nothing"),
        ("_class_name", "AutoencoderTiny", "_class_name is"),
    ],
)
def test_a_vae_that_scales_otherwise(
    model_dir: Path, tmp_path: Path, option: str, value: object, words: str
) -> None:
    """It is no part of a bundle, so it matters only to who draws."""
    folder = shutil.copytree(model_dir, tmp_path / "model")
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), option: value}))
    assert StableDiffusion.load(folder).latent_shape
    with pytest.raises(ExportError, match=f"(?s)The VAE of .*{words}"):
        load_vae(folder)


@pytest.mark.parametrize("value", [None, 7, "x", [], {}, [None], True, -1, 1e99])
def test_any_value_is_answered(value: object) -> None:
    """Whatever stands in an option, what comes of it is an ExportError or nothing."""
    for part, options in (("unet", UNET), ("text_encoder", TEXT_ENCODER), ("scheduler", SCHEDULER)):
        for option in options:
            configs = base()
            configs[part][option] = value
            with suppress(ExportError):
                check_configs(configs, "it")
    for option in base()["model_index"]:
        configs = base()
        configs["model_index"][option] = value
        with suppress(ExportError):
            check_configs(configs, "it")


def test_inpainting_takes_a_vae() -> None:
    """And no ONNX export does it: its graph says nothing of the mask."""
    configs = base()
    configs["unet"]["in_channels"] = 9
    with pytest.raises(ExportError, match=r"vae/config\.json is missing: inpainting"):
        check_configs(configs, "it")
    configs["vae"] = {"latent_channels": 16}
    with pytest.raises(ExportError, match="latent_channels is 16"):
        check_configs(configs, "it")
    configs["vae"] = {}
    check_configs(configs, "it")
    with pytest.raises(ExportError, match="in_channels is 9"):
        check_configs(configs, "it", is_onnx=True)


def refiner(configs: Configs) -> None:
    index = configs["model_index"]
    index |= {"_class_name": "StableDiffusionXLImg2ImgPipeline", "requires_aesthetics_score": True}
    index |= {"text_encoder": [None, None], "tokenizer": [None, None]}
    del configs["text_encoder"], configs["tokenizer"]
    configs["unet"] |= {
        "cross_attention_dim": 1280, "projection_class_embeddings_input_dim": 2560,
        "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2, "DownBlock2D"],
    }  # fmt: skip


PIPELINES: dict[str, Callable[[Configs], object]] = {
    "it has no text_encoder (as in XL's refiner)": refiner,
    "its pipeline is 'AltDiffusionPipeline'": lambda c: c["model_index"].update(
        _class_name="AltDiffusionPipeline"
    ),
    "its pipeline is 'StableDiffusionControlNetPipeline'": lambda c: c["model_index"].update(
        _class_name="StableDiffusionControlNetPipeline"
    ),
    "its pipeline is 'IFPipeline'": lambda c: c["model_index"].update(_class_name="IFPipeline"),
    "its pipeline is ['mine', 'Mine']": lambda c: c["model_index"].update(
        _class_name=["mine", "Mine"]
    ),
    "its pipeline is None": lambda c: c["model_index"].pop("_class_name"),
    "text_encoder is of the class 'CLIPTextModelWithProjection'": lambda c: c["model_index"].update(
        text_encoder=["transformers", "CLIPTextModelWithProjection"]
    ),
    "unet is of the class 'UNetMotionModel'": lambda c: c["model_index"].update(
        unet=["diffusers", "UNetMotionModel"]
    ),
    "EDMDPMSolverMultistepScheduler, a sampler": lambda c: c["scheduler"].update(
        _class_name="EDMDPMSolverMultistepScheduler"
    ),
    "LCMScheduler, a sampler": lambda c: c["scheduler"].update(_class_name="LCMScheduler"),
    "text_encoder/config.json is missing": lambda c: c.pop("text_encoder"),
}


@pytest.mark.parametrize("words", PIPELINES)
def test_other_pipelines(words: str) -> None:
    configs = base("sdxl")
    PIPELINES[words](configs)
    with pytest.raises(ExportError) as caught:
        check_configs(configs, "it")
    assert words in str(caught.value)


def test_a_pipeline_without_a_unet_is_of_another_family() -> None:
    """Parts that it does not have, and was never to have, are not complained of."""
    configs = base()
    configs["model_index"] = {
        "_class_name": "PixArtAlphaPipeline",
        "transformer": ["diffusers", "PixArtTransformer2DModel"],
    }
    with pytest.raises(ExportError) as caught:
        check_configs(configs, "it")
    what = "model_index.json: its pipeline is 'PixArtAlphaPipeline', of no family that is known."
    assert str(caught.value).startswith(f"it cannot be used:\n  {what}\n")


def test_all_that_is_in_the_way_is_said_at_once() -> None:
    configs = base()
    configs["unet"] |= {"in_channels": 7, "num_class_embeds": 7}
    configs["scheduler"]["prediction_type"] = "sample"
    with pytest.raises(ExportError) as caught:
        check_configs(configs, "a/model")
    assert str(caught.value).startswith("a/model cannot be used:\n")
    lines = [line for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert len(lines) == 3


def folder_of(configs: Configs, folder: Path) -> Path:
    """A directory of configs alone."""
    names = {"tokenizer": "tokenizer_config.json", "scheduler": "scheduler_config.json"}
    for part, config in configs.items():
        path = folder / part / names.get(part, "config.json")
        if part == "model_index":
            path = folder / "model_index.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("option", ["in_channels", "num_class_embeds"])
def test_before_any_weights_are_read(tmp_path: Path, option: str) -> None:
    """There are none here, nor a vocabulary, and still the option is what is complained of."""
    configs = base()
    configs["unet"][option] = 7
    with pytest.raises(ExportError, match=option):
        StableDiffusion.load(folder_of(configs, tmp_path))


def test_a_damaged_config(tmp_path: Path) -> None:
    folder = folder_of(base(), tmp_path)
    (folder / "unet" / "config.json").write_text("[1]")
    with pytest.raises(ExportError, match=r"unet/config\.json is no config, but a list"):
        StableDiffusion.load(folder)


def test_a_size_that_is_given(tmp_path: Path) -> None:
    configs = base()
    configs["unet"]["sample_size"] = None
    check_configs(configs, "it", is_resized=True)
    with pytest.raises(InputError, match="Give multiples of 8"):
        StableDiffusion.load(
            folder_of(configs, tmp_path), options=LoadOptions(latent_size=(12, 16))
        )


def test_every_option_of_the_libraries_is_in_the_tables() -> None:
    """And says what they take where a config does not."""
    signature = dict(inspect.signature(UNet2DConditionModel.__init__).parameters)
    del signature["self"]
    assert set(signature) <= set(UNET)
    for name, parameter in signature.items():
        assert UNET[name].default == parameter.default, name
    assert set(CLIPTextConfig().to_dict()) - {"_name_or_path"} <= set(TEXT_ENCODER)
    for name in SAMPLERS:
        options = inspect.signature(getattr(diffusers, name).__init__).parameters
        assert set(options) - {"self", "args", "kwargs"} <= set(SCHEDULER), name
    for name, parameter in inspect.signature(DDIMScheduler.__init__).parameters.items():
        assert name == "self" or SCHEDULER[name].default == parameter.default, name


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({"sample_size": 32, "_diffusers_version": "0.2.3"}, (64, 64)),
        ({"sample_size": 32, "_diffusers_version": "0.9.0"}, (32, 32)),
        ({"sample_size": 96, "_diffusers_version": "0.8.0"}, (96, 96)),
        ({"sample_size": 8}, (8, 8)),
        ({"sample_size": [8, 12]}, (8, 12)),
    ],
)
def test_the_size_that_the_pipeline_draws(config: dict[str, Any], size: tuple[int, int]) -> None:
    assert sample_size(config) == size


@pytest.fixture
def odd_dir(model_dir: Path, tmp_path: Path) -> Path:
    """A tiny pipeline whose configs leave out what the libraries then decide."""
    folder = shutil.copytree(model_dir, tmp_path / "odd")
    changes = {
        "tokenizer/tokenizer_config.json": {"model_max_length": None},
        "scheduler/scheduler_config.json": {"steps_offset": 0},
        "unet/config.json": {"sample_size": 8, "_diffusers_version": "0.8.0"},
    }
    for name, fields in changes.items():
        config = {**json.loads((folder / name).read_text()), **fields}
        config = {key: value for key, value in config.items() if value is not None}
        (folder / name).write_text(json.dumps(config))
    return folder


def test_what_configs_leave_out_is_as_in_diffusers_pipeline(odd_dir: Path) -> None:
    """The first timestep and the size of the latents, asked of the pipeline itself."""
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(odd_dir, safety_checker=None)
    pipe.scheduler.set_timesteps(50)
    model = StableDiffusion.load(odd_dir)
    assert int(timesteps(model.scheduler_record())[0]) == int(pipe.scheduler.timesteps[0]) == 981
    assert model.latent_shape == (4, 64, 64)
    assert pipe.unet.config.sample_size == 64
    assert model.tokenizer.model_max_length == 77  # of the text encoder


@pytest.mark.parametrize("kind", [None, "UNetMidBlock2D"])
@torch.no_grad()
def test_a_unet_without_attention_in_the_middle(kind: str | None) -> None:
    """As in distilled models; against diffusers' own forward."""
    torch.manual_seed(0)
    config = UNet2DConditionModel.load_config(embedded.MODEL, subfolder="unet")
    unet = UNet2DConditionModel.from_config(deepcopy({**config, "mid_block_type": kind})).eval()
    assert unet.mid_block is None if kind is None else type(unet.mid_block).__name__ == kind
    noises, embeds = torch.randn(2, 16, 8, 8), torch.randn(1, 77, 128)
    found = FoldedUNet(unet, noises, 981)((embeds,), torch.arange(2))
    expected = unet(noises, 981, embeds.expand(2, -1, -1)).sample
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
