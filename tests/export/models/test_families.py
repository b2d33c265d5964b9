"""What messages know of families without torch is what the families' own classes say."""

from inspect import signature

import pytest

from mnemoscope_export.models.base import Model
from mnemoscope_export.models.families import FAMILIES as CLASSES
from mnemoscope_export.models.families import family_of
from mnemoscope_export.models.transformer import TransformerModel
from mnemoscope_runtime.families import FAMILIES, family_named

XL = "StableDiffusionXLPipeline"
RECORDED = {  # by a pipeline's class: what manifests of its models may call the family
    "StableDiffusionPipeline": ("sd1", "sd2"),
    XL: ("sdxl",),
    "StableDiffusion3Pipeline": ("sd3",),
    "FluxPipeline": ("flux-dev", "flux-schnell"),
    "PixArtSigmaPipeline": ("pixart-sigma",),
    "QwenImagePipeline": ("qwen-image",),
    "SanaPipeline": ("sana",),
}


def class_of(pipeline: str) -> type[Model]:
    index: dict[str, object] = {"_class_name": pipeline}
    if pipeline == XL:  # told by what it has
        index["text_encoder_2"] = ["transformers", "CLIPTextModelWithProjection"]
    found = family_of(index)[1]
    assert found.pipeline_class.__name__ == pipeline
    return found


@pytest.mark.parametrize("pipeline", RECORDED)
def test_nothing_is_advised_that_the_family_refuses(pipeline: str) -> None:
    model = class_of(pipeline)
    for name in RECORDED[pipeline]:
        known = FAMILIES[name]
        assert known.any_length == model.takes_any_length
        assert known.unet == (model.predictor == "unet")
        if issubclass(model, TransformerModel):  # whose LoRA adapters diffusers has to put in
            loads = hasattr(model.pipeline_class, "load_lora_weights")
            assert loads == ("load_lora_weights" in model.putting_adapters_in())
        assert model.auto_taps is not Model.auto_taps  # `--taps auto` is advised to all
        assert known.name.startswith(getattr(model, "called", "Stable Diffusion"))


@pytest.mark.parametrize("pipeline", RECORDED)
def test_it_draws_as_its_pipeline_does(pipeline: str) -> None:
    """By what diffusers' own pipeline does unless it is told otherwise."""
    asked = signature(class_of(pipeline).pipeline_class.__call__).parameters
    scale = "true_cfg_scale" if pipeline == "QwenImagePipeline" else "guidance_scale"
    for name in RECORDED[pipeline]:
        drawn = (FAMILIES[name].steps, FAMILIES[name].guidance)
        if name == "flux-schnell":  # whose pipeline is dev's: its model card's
            assert drawn == (4, 0)
        else:
            assert drawn == (asked["num_inference_steps"].default, asked[scale].default)


def test_every_family_is_known() -> None:
    assert len(RECORDED) == len(CLASSES)
    assert {name for names in RECORDED.values() for name in names} == FAMILIES.keys()


def test_of_a_family_of_ones_own_what_is_so_by_default() -> None:
    known = family_named("mine")
    assert (known.name, known.any_length) == ("mine", Model.takes_any_length)
    assert known.unet == (Model.predictor == "unet")
