"""What messages know of families without torch is what the families' own classes say."""

import pytest

from mnemoscope_export.models.base import Model
from mnemoscope_export.models.families import FAMILIES as CLASSES
from mnemoscope_export.models.families import family_of
from mnemoscope_export.models.transformer import TransformerModel
from mnemoscope_runtime.families import FAMILIES, family_named

RECORDED = {  # by a pipeline's class: what manifests of its models may call the family
    "StableDiffusionPipeline": ("sd1", "sd2"),
    "StableDiffusionXLPipeline": ("sdxl",),
    "StableDiffusion3Pipeline": ("sd3",),
    "FluxPipeline": ("flux-dev", "flux-schnell"),
    "PixArtSigmaPipeline": ("pixart-sigma",),
    "QwenImagePipeline": ("qwen-image",),
    "SanaPipeline": ("sana",),
}


@pytest.mark.parametrize("pipeline", RECORDED)
def test_nothing_is_advised_that_the_family_refuses(pipeline: str) -> None:
    _, model = family_of({"_class_name": pipeline})
    for name in RECORDED[pipeline]:
        known = FAMILIES[name]
        assert known.any_length == model.takes_any_length
        assert known.unet == (model.predictor == "unet")
        if issubclass(model, TransformerModel):  # whose LoRA adapters diffusers has to put in
            loads = hasattr(model.pipeline_class, "load_lora_weights")
            assert loads == ("load_lora_weights" in model.putting_adapters_in())
        assert model.auto_taps is not Model.auto_taps  # `--taps auto` is advised to all
        assert known.name.startswith(getattr(model, "called", "Stable Diffusion"))


def test_every_family_is_known() -> None:
    assert len(RECORDED) == len(CLASSES)
    assert {name for names in RECORDED.values() for name in names} == FAMILIES.keys()


def test_of_a_family_of_ones_own_what_is_so_by_default() -> None:
    known = family_named("mine")
    assert (known.name, known.any_length) == ("mine", Model.takes_any_length)
    assert known.unet == (Model.predictor == "unet")
