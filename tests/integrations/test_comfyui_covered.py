"""Models, options and samplings that a guard in ComfyUI refuses by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comfyui_shapes import EPS, LCM, BaseModel, Clip, Flux, ModelPatcher, sampling_of

from integrations.comfyui.covered import check_options
from integrations.comfyui.guard import guarded
from integrations.comfyui.magnitude import noise_level, prediction_type
from mnemoscope import InputError
from mnemoscope_runtime.units import unit_per_output


def own(args: Any) -> Any:
    return args


def stranger(args: Any) -> Any:
    return args


class GGUFModelPatcher(ModelPatcher):
    pass


def replaced() -> Any:
    patcher = ModelPatcher(BaseModel())
    patcher.object_patches["diffusion_model.out"] = torch.nn.Identity()
    return patcher


def hooked() -> Any:
    patcher = ModelPatcher(BaseModel())
    patcher.hook_patches["lora hook"] = object()
    return patcher


def inpainting() -> Any:
    model = BaseModel()
    model.concat_keys = ("mask", "masked_image")
    return ModelPatcher(model)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: ModelPatcher(Flux()), "family Flux, and known are BaseModel, SDXL, SD3"),
        (lambda: GGUFModelPatcher(BaseModel()), "kept by GGUFModelPatcher"),
        (replaced, r"replaced \(diffusion_model.out\)"),
        (hooked, r"hook patches \(lora hook\)"),
        (inpainting, r"told a picture beside the noise \(mask, masked_image\)"),
        (lambda: ModelPatcher(BaseModel(LCM)), "sampling, LCM, is none"),
    ],
)
def test_models_that_are_not_known_are_refused(make: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        guarded(make(), Clip(), mode="report", calibrations=())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"sampler_pre_cfg_function": [stranger, own]}, "stranger changes predictions before"),
        ({"sampler_calc_cond_batch_function": stranger}, "calc_cond_batch_function is set"),
        ({"model_function_wrapper": stranger}, r"model_function_wrapper is set \(stranger\)"),
        ({"context_handler": object()}, "context_handler is set"),
        ({"registered_hooks": ["hook"]}, "registered_hooks is set"),
        (
            {"transformer_options": {"patches": {"attn2_patch": [stranger]}}},
            r"transformer_options holds patches \(stranger\)",
        ),
        (
            {"transformer_options": {"patches_replace": {"attn2": {("input", 1): stranger}}}},
            r"holds patches_replace \(stranger\)",
        ),
        (
            {"transformer_options": {"wrappers": {"apply_model": {"key": [stranger]}}}},
            r"stranger is one of its wrappers \(apply_model\)",
        ),
        (
            {"transformer_options": {"callbacks": {"on_pre_run": {None: [stranger]}}}},
            r"stranger is one of its callbacks \(on_pre_run\)",
        ),
    ],
)
def test_what_changes_predictions_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        check_options(options, [own], steps=1)


def test_what_comes_after_the_predictions_matters_past_the_first_step_alone() -> None:
    options = {
        "sampler_pre_cfg_function": [own],
        "sampler_post_cfg_function": [stranger],
        "disable_cfg1_optimization": True,
        "transformer_options": {
            "sample_sigmas": torch.ones(3),
            "wrappers": {"outer_sample": {"mnemoscope": [own]}, "apply_model": {}},
            "callbacks": {},
            "patches": {},
        },
    }
    check_options(options, [own], steps=1)
    with pytest.raises(InputError, match="stranger changes where the sampler goes"):
        check_options(options, [own], steps=2)


def test_a_sampling_whose_method_was_replaced_is_refused() -> None:
    sampling = sampling_of(EPS)
    assert prediction_type(sampling) == "epsilon"
    sampling.calculate_denoised = lambda *_: None
    with pytest.raises(InputError, match="is none whose magnitude is known"):
        prediction_type(sampling)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_sigmas_that_are_no_noise_levels_are_refused(sigma: float) -> None:
    with pytest.raises(InputError, match="no noise level"):
        noise_level("epsilon", sigma)


def test_velocities_of_pure_noise_say_nothing_of_the_noise() -> None:
    with pytest.raises(InputError, match="zero terminal SNR"):
        noise_level("v_prediction", 4518.0)
    noise_level("epsilon", 4518.0)


@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6])
def test_noise_levels_are_those_of_the_one_definition_of_units(sigma: float) -> None:
    level = noise_level("v_prediction", sigma)
    assert level.signal**2 + level.noise**2 == pytest.approx(1)
    assert level.noise / level.signal == pytest.approx(sigma)
    assert unit_per_output("v_prediction", "eps", level) == pytest.approx((1 + sigma**2) ** -0.5)
