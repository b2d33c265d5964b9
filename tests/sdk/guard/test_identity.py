"""A guard notices whatever changes predictions, with diffusers' own prediction as the witness."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FasterCacheConfig,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from diffusers.hooks import apply_faster_cache, apply_layerwise_casting
from diffusers.models.attention_processor import (
    AttnProcessor,
    CustomDiffusionAttnProcessor,
    IPAdapterAttnProcessor2_0,
    SlicedAttnProcessor,
)
from guard_support import BENIGN, STEPS, draw, guarded_at
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from pipelines import build_pipeline

from mnemoscope import CalibrationError, CalibrationFile, InputError
from mnemoscope.guard import Guard, calibrate_guard
from mnemoscope.guard.identity import Identified

pytestmark = pytest.mark.slow

PROMPTS = ["a cat"]


def adapter(seed: int) -> dict[str, torch.Tensor]:
    """LoRA weights in diffusers' own file format, of UNet and text encoder."""
    pipe = build_pipeline("epsilon")
    torch.manual_seed(seed)
    found: dict[str, torch.Tensor] = {}
    for part, targets in (("unet", ["to_q", "to_v"]), ("text_encoder", ["q_proj", "v_proj"])):
        network = getattr(pipe, part)
        network.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=targets))
        for name, value in get_peft_model_state_dict(network).items():
            found[f"{part}.{name}"] = torch.randn_like(value)
    return found


@pytest.fixture(scope="module")
def lora() -> dict[str, torch.Tensor]:
    return adapter(1)


@pytest.fixture
def pipe() -> Any:
    """One of its own for every test, since they change it."""
    found = build_pipeline("epsilon")
    found.set_progress_bar_config(disable=True)
    return found


def predicted(pipe: Any) -> torch.Tensor:
    """What diffusers draws, no guard around it."""
    with torch.no_grad():
        return draw(pipe, PROMPTS, output_type="latent")


def loaded(pipe: Any, lora: dict[str, torch.Tensor], name: str = "style") -> None:
    pipe.load_lora_weights(dict(lora), adapter_name=name)


def in_place(pipe: Any) -> None:
    with torch.no_grad():
        pipe.unet.conv_in.weight.mul_(1.5)


def through_data(pipe: Any) -> None:
    weight = pipe.unet.mid_block.resnets[0].conv1.weight
    weight.data.copy_(weight.data * 1.5)


def trained(pipe: Any) -> None:
    for each in pipe.unet.parameters():
        each.grad = torch.ones_like(each)
    torch.optim.SGD(pipe.unet.parameters(), lr=0.01).step()


def another_state(pipe: Any) -> None:
    pipe.unet.load_state_dict(build_pipeline("epsilon", seed=1).unet.state_dict())


def another_encoder(pipe: Any) -> None:
    pipe.text_encoder = build_pipeline("epsilon", seed=1).text_encoder


def inverted(pipe: Any) -> None:
    """Textual inversion, as diffusers loads it."""
    pipe.load_textual_inversion({"<cat-toy>": torch.ones(32)})


def inverted_anew(pipe: Any) -> None:
    pipe.text_encoder.get_input_embeddings().weight.data[-1] = torch.ones(32)


def tiled(pipe: Any) -> None:
    """Seamless pictures, as recipes make them."""
    for layer in pipe.unet.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.padding_mode = "circular"


def fewer_layers(pipe: Any) -> None:
    pipe.text_encoder.encoder.layers = pipe.text_encoder.encoder.layers[:1]


def rescaled(pipe: Any) -> None:
    for layer in pipe.unet.modules():
        if hasattr(layer, "to_q"):
            layer.rescale_output_factor *= 2


CHANGES: list[tuple[Callable[[Any], None], str]] = [
    (lambda p: p.enable_freeu(0.9, 0.2, 1.2, 1.4), r"up_blocks\.0\.b1 is 1\.2, was none"),
    (in_place, "unet weights changed"),
    (through_data, "unet weights changed"),
    (trained, "unet weights changed"),
    (another_state, "unet weights changed"),
    (lambda p: p.to(torch.bfloat16), "unet weights changed"),
    (another_encoder, "text_encoder weights changed"),
    (inverted, "text_encoder weights changed; tokenizer changed"),
    (inverted_anew, "text_encoder weights changed"),
    (tiled, "padding_mode is 'circular'"),
    (fewer_layers, "text_encoder.*is missing"),
    (rescaled, "rescale_output_factor is 2"),
    (lambda p: setattr(p.tokenizer, "model_max_length", 40), "tokenizer changed"),
    (lambda p: p.unet.register_to_config(center_input_sample=True), "unet configuration changed"),
    (lambda p: setattr(p.unet, "conv_act", torch.nn.ReLU()), r"conv_act is ReLU"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::mnemoscope.guard.MemorizationWarning")
@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_what_changes_predictions_is_refused(
    pipe: Any, change: Callable[[Any], None], message: str
) -> None:
    """Between two requests of one guard, and when a guard is made with an old calibration."""
    calibration = guarded_at(pipe, 1e6)
    with Guard(pipe, calibration=calibration) as guard:
        draw(pipe, PROMPTS)
        found = guard.decisions
        change(pipe)
        with pytest.raises(CalibrationError, match=f"not the one any more.*{message}"):
            draw(pipe, PROMPTS)
        assert guard.decisions == ()
    assert len(found) == 1
    with pytest.raises(CalibrationError, match="thresholds mean nothing here"):
        Guard(pipe, calibration=calibration)
    if change not in (inverted, inverted_anew):  # those matter where their token stands
        drawn = predicted(pipe)  # the witness: there was a reason to refuse
        assert not torch.equal(drawn.float(), predicted(build_pipeline("epsilon")))


@pytest.mark.filterwarnings("ignore::mnemoscope.guard.MemorizationWarning")
def test_adapters(pipe: Any, lora: dict[str, torch.Tensor]) -> None:
    """Loaded later, at another scale, disabled, replaced, deleted; and put back."""
    plain = guarded_at(pipe, 1e6)
    bare = predicted(pipe)
    with Guard(pipe, calibration=plain):
        loaded(pipe, lora)
        assert not torch.equal(predicted_inside(pipe), bare)
        with pytest.raises(CalibrationError, match=r"text_encoder LoRA style is 1 \(.*, was none"):
            draw(pipe, PROMPTS)
        pipe.disable_lora()  # which is what was calibrated
        draw(pipe, PROMPTS)
        pipe.enable_lora()
    adapted = guarded_at(pipe, 1e6)
    assert adapted.setting.bundle == plain.setting.bundle
    with pytest.raises(CalibrationError, match=r"state is 'plain', calibrated was .*style"):
        Guard(build_pipeline("epsilon"), calibration=adapted)
    with Guard(pipe, calibration=adapted):
        first = draw(pipe, PROMPTS)
        for change, message in (
            (lambda: pipe.set_adapters("style", 0.0), "unet LoRA style is none, was 1 "),
            (lambda: pipe.set_adapters("style", 0.5), r"unet LoRA style is 0\.5 .*, was 1 "),
            (lambda: pipe.disable_lora(), "unet LoRA style is none"),
            (lambda: loaded(pipe, adapter(2), "other"), "unet LoRA other is 1 .*style is none"),
        ):
            change()
            with pytest.raises(CalibrationError, match=message):
                draw(pipe, PROMPTS)
            pipe.enable_lora()
            pipe.set_adapters("style")
            assert torch.equal(draw(pipe, PROMPTS), first)
        pipe.delete_adapters("style")
        with pytest.raises(CalibrationError, match="unet LoRA style is none"):
            draw(pipe, PROMPTS)
        loaded(pipe, adapter(3))  # of the same name
        with pytest.raises(CalibrationError, match=r"unet LoRA style is 1 \(.*, was 1 \("):
            draw(pipe, PROMPTS)
    pipe.unload_lora_weights()
    with Guard(pipe, calibration=plain):
        draw(pipe, PROMPTS)


def predicted_inside(pipe: Any) -> torch.Tensor:
    """What diffusers' own class draws with a guarded pipeline's parts."""
    return predicted(StableDiffusionPipeline(**pipe.components, requires_safety_checker=False))


def test_adapters_whose_weights_or_blocks_change(pipe: Any, lora: dict[str, torch.Tensor]) -> None:
    """Hot swapping writes into the same tensors; scales may differ from block to block."""
    loaded(pipe, lora)
    pipe.set_adapters("style", {"unet": {"down": 0.3, "up": 0.6}})
    with Guard(pipe, calibration=guarded_at(pipe, 1e6)) as guard:
        draw(pipe, PROMPTS)
        assert "unet LoRA style: several scales" in guard.identity.state
        pipe.set_adapters("style", {"unet": {"down": 0.3, "up": 0.7}})
        with pytest.raises(CalibrationError, match="unet LoRA style is several scales"):
            draw(pipe, PROMPTS)
        pipe.set_adapters("style", {"unet": {"down": 0.3, "up": 0.6}})
        draw(pipe, PROMPTS)
        for name, value in pipe.unet.named_parameters():
            if "lora_B" in name:
                value.data.copy_(2 * value)
        with pytest.raises(CalibrationError, match="unet LoRA style is several scales"):
            draw(pipe, PROMPTS)


@pytest.mark.filterwarnings("ignore::mnemoscope.guard.MemorizationWarning")
def test_fused_adapters(pipe: Any, lora: dict[str, torch.Tensor]) -> None:
    loaded(pipe, lora)
    pipe.fuse_lora(lora_scale=0.5)
    fused = guarded_at(pipe, 1e6)
    with Guard(pipe, calibration=fused):
        draw(pipe, PROMPTS)
        pipe.unfuse_lora()
        with pytest.raises(CalibrationError, match=r"weights changed.*LoRA style is 0\.5"):
            draw(pipe, PROMPTS)
        pipe.fuse_lora(lora_scale=0.7)
        with pytest.raises(CalibrationError, match="unet weights changed"):
            draw(pipe, PROMPTS)
        pipe.disable_lora()  # the next prediction would take them out again
        with pytest.raises(InputError, match="fused and disabled"):
            draw(pipe, PROMPTS)


@pytest.mark.filterwarnings("ignore::mnemoscope.guard.MemorizationWarning")
def test_one_guard_with_calibrations_of_two_states(
    pipe: Any, lora: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """A service that exchanges adapters: each request has the threshold of its own state."""
    plain = guarded_at(pipe, 1e6)
    loaded(pipe, lora)
    adapted = guarded_at(pipe, 2e6)
    CalibrationFile((plain, adapted)).write(tmp_path / "guard.json")
    with Guard(pipe, calibration=tmp_path / "guard.json") as guard:
        for scale, threshold in ((1.0, 2e6), (0.0, 1e6), (1.0, 2e6)):
            pipe.set_adapters("style", scale)
            draw(pipe, PROMPTS)
            assert guard.decisions[0].threshold == threshold
        pipe.set_adapters("style", 0.3)
        with pytest.raises(CalibrationError, match="not the one any more"):
            draw(pipe, PROMPTS)


@pytest.mark.filterwarnings("ignore::mnemoscope.guard.MemorizationWarning")
def test_what_changes_nothing_is_accepted(pipe: Any, tmp_path: Path) -> None:
    """Other ways to the same predictions, and the state put back."""
    calibration = guarded_at(pipe, 1e6)
    expected = predicted(pipe)
    pipe.save_pretrained(tmp_path)
    saved = StableDiffusionPipeline.from_pretrained(tmp_path)
    saved.set_progress_bar_config(disable=True)
    with Guard(saved, calibration=calibration):
        assert torch.equal(draw(saved, PROMPTS, output_type="latent"), expected)
    changes: list[Callable[[], Any]] = [
        lambda: pipe.unet.set_attn_processor(AttnProcessor()),
        lambda: pipe.unet.set_attn_processor(SlicedAttnProcessor(2)),
        lambda: pipe.unet.set_default_attn_processor(),
        lambda: pipe.unet.eval().requires_grad_(False),
        lambda: pipe.unet.train(),  # without dropout
        lambda: pipe.unet.to(memory_format=torch.channels_last),
        lambda: pipe.vae.enable_tiling(),
        lambda: (pipe.enable_freeu(0.9, 0.2, 1.2, 1.4), pipe.disable_freeu()),
        lambda: (pipe.fuse_qkv_projections(), pipe.unfuse_qkv_projections()),
        lambda: pipe.unet.enable_gradient_checkpointing(),
        lambda: (
            pipe.unet.mid_block.attentions[0].transformer_blocks[0].set_chunk_feed_forward(2, 1)
        ),
        lambda: setattr(pipe, "text_encoder", copy.deepcopy(pipe.text_encoder)),
    ]
    with Guard(pipe, calibration=calibration):
        for change in changes:
            change()
            found = draw(pipe, PROMPTS, output_type="latent")
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def hooked(pipe: Any) -> None:
    pipe.unet.mid_block.register_forward_hook(lambda *_: None)


def patched(pipe: Any) -> None:
    forward = pipe.unet.forward
    pipe.unet.forward = lambda *args, **kwargs: forward(*args, **kwargs)


def hooked_by_another_class(pipe: Any) -> None:
    """As token merging does it."""

    class Merged(type(pipe.unet.mid_block)):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs)

    pipe.unet.mid_block.__class__ = Merged


def image_prompted(pipe: Any) -> None:
    processors = dict(pipe.unet.attn_processors)
    name = next(name for name in processors if "attn2" in name)
    processors[name] = IPAdapterAttnProcessor2_0(16, 32, num_tokens=(4,), scale=1.0)
    pipe.unet.set_attn_processor(processors)


def customised(pipe: Any) -> None:
    pipe.unet.set_attn_processor(CustomDiffusionAttnProcessor(train_kv=False, hidden_size=16))


def cached(pipe: Any) -> None:
    apply_faster_cache(
        pipe.unet,
        FasterCacheConfig(
            spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500
        ),
    )


def quantised(pipe: Any) -> None:
    class Int4(torch.nn.Parameter):
        pass

    pipe.unet.conv_in.weight = Int4(pipe.unet.conv_in.weight.data)


def dropping(pipe: Any) -> None:
    for layer in pipe.unet.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.1


STRANGE: list[tuple[Callable[[Any], None], str]] = [
    (hooked, r"mid_block has a hook, .*test_identity\.hooked.*lambda"),
    (patched, "unet.forward was replaced by .*patched"),
    (hooked_by_another_class, "mid_block .*Merged.* computes"),
    (image_prompted, "processor is a IPAdapterAttnProcessor2_0"),
    (customised, "processor is a CustomDiffusionAttnProcessor"),
    (cached, r"diffusers' FasterCache\w+"),
    (quantised, "conv_in.weight is a .*Int4 .quantised"),
    (dropping, "drops values at random .0.1"),
    (lambda p: setattr(p, "encode_prompt", lambda *_, **__: None), "encode_prompt was replaced"),
    (lambda p: setattr(p, "unet", torch.nn.DataParallel(p.unet)), "unet is a DataParallel"),
]


@pytest.mark.filterwarnings("ignore::mnemoscope.guard.MemorizationWarning")
@pytest.mark.parametrize(("change", "message"), STRANGE)
def test_what_no_guard_can_tell_is_refused_by_name(
    pipe: Any, change: Callable[[Any], None], message: str
) -> None:
    calibration = guarded_at(pipe, 1e6)
    with Guard(pipe, calibration=calibration):
        draw(pipe, PROMPTS)
        change(pipe)
        with pytest.raises(InputError, match=message):
            draw(pipe, PROMPTS)
    with pytest.raises(InputError, match=message):
        calibrate_guard(pipe, BENIGN, fpr=0.3, num_inference_steps=STEPS)


def test_a_configuration_that_was_written_into(pipe: Any) -> None:
    with Guard(pipe, calibration=guarded_at(pipe, 1e6)):
        pipe.text_encoder.config.hidden_act = "relu"
        with pytest.raises(CalibrationError, match="text_encoder configuration changed"):
            draw(pipe, PROMPTS)


def test_a_hook_of_all_modules(pipe: Any) -> None:
    calibration = guarded_at(pipe, 1e6)
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        with pytest.raises(InputError, match="a hook of all modules"):
            Guard(pipe, calibration=calibration)
    finally:
        handle.remove()
    Guard(pipe, calibration=calibration).detach()


def test_weights_in_fewer_bits_are_another_state(pipe: Any) -> None:
    calibration = guarded_at(pipe, 1e6)
    apply_layerwise_casting(pipe.unet, torch.float8_e4m3fn, torch.float32)
    with pytest.raises(CalibrationError, match="made on weights"):
        Guard(pipe, calibration=calibration)
    cast = guarded_at(pipe, 1e6)
    with Guard(pipe, calibration=cast):
        draw(pipe, PROMPTS)


def test_what_encodes_the_pictures_that_requests_start_from(pipe: Any) -> None:
    told: dict[str, Any] = {"image": Image.new("RGB", (16, 16), "red"), "strength": 0.5}
    parts = dict(pipe.components)
    other = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    with Guard(other, calibration=guarded_at(other, 1e6, **told)):
        draw(other, PROMPTS, **told)
        other.vae.enable_slicing()
        draw(other, PROMPTS, **told)
        other.vae.enable_tiling()
        with pytest.raises(CalibrationError, match=r"vae\.use_tiling is True"):
            draw(other, PROMPTS, **told)
        other.vae.disable_tiling()
        other.vae.quant_conv.weight.data.mul_(2)
        with pytest.raises(CalibrationError, match="vae weights changed"):
            draw(other, PROMPTS, **told)


def test_schedulers(pipe: Any) -> None:
    """Another one, and one whose noise levels or methods were replaced."""
    original = pipe.scheduler
    with Guard(pipe, calibration=guarded_at(pipe, 1e6)):
        draw(pipe, PROMPTS)
        for scheduler in (
            EulerDiscreteScheduler.from_config(original.config),
            DDIMScheduler.from_config(original.config, steps_offset=0),
        ):
            pipe.scheduler = scheduler
            with pytest.raises(CalibrationError, match=r"scheduler is .*, calibrated was DDIM"):
                draw(pipe, PROMPTS)
        pipe.scheduler = DDIMScheduler.from_config(original.config)  # the same
        draw(pipe, PROMPTS)
        pipe.scheduler.alphas_cumprod *= 0.9
        with pytest.raises(CalibrationError, match="scheduler is DDIM"):
            draw(pipe, PROMPTS)
        pipe.scheduler = original
        original.step = original.step
        with pytest.raises(InputError, match="step of this scheduler was replaced"):
            draw(pipe, PROMPTS)
        del original.step


def test_changed_while_it_draws(pipe: Any, lora: dict[str, torch.Tensor]) -> None:
    """A decision at the first step vouches for nothing if the model is another one afterwards."""
    loaded(pipe, lora)
    pipe.disable_lora()

    def switch(own: Any, *_: Any) -> dict[str, Any]:
        own.enable_lora()
        return {}

    def switch_and_back(own: Any, step: int, *_: Any) -> dict[str, Any]:
        own.enable_lora() if step < STEPS - 2 else own.disable_lora()
        return {}

    with Guard(pipe, calibration=guarded_at(pipe, 1e6)):
        draw(pipe, PROMPTS, callback_on_step_end=lambda *told: told[-1])
        for callback in (switch, switch_and_back):
            with pytest.raises(CalibrationError, match=r"changed while it drew.*LoRA style"):
                draw(pipe, PROMPTS, callback_on_step_end=callback)
            pipe.disable_lora()
            draw(pipe, PROMPTS)


def test_embeddings_that_are_swapped_after_the_decision(pipe: Any) -> None:
    other, _ = pipe.encode_prompt("a dog", "cpu", 1, False)

    def swap(_: Any, __: int, ___: Any, told: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        told["prompt_embeds"][1:] = other
        return told

    def cut(own: Any, __: int, ___: Any, told: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Diffusers' own recipe: no guidance from some step on."""
        own._guidance_scale = 0.0
        return {"prompt_embeds": told["prompt_embeds"][-1:]}

    told: dict[str, Any] = {"callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    with Guard(pipe, calibration=guarded_at(pipe, 1e6)) as guard:
        with pytest.raises(InputError, match="changed after its first step"):
            draw(pipe, PROMPTS, callback_on_step_end=swap, **told)
        draw(pipe, PROMPTS, callback_on_step_end=cut, **told)
    assert guard.decisions[0].action == "pass"


def test_calibrations_of_earlier_versions_say_what_to_do(pipe: Any) -> None:
    found = guarded_at(pipe, 1e6)
    parts = json.loads(found.setting.backend)
    old = {name: value for name, value in parts.items() if name not in ("state", "tokens")}
    calibration = replace(found, setting=replace(found.setting, backend=json.dumps(old)))
    with pytest.raises(CalibrationError, match=r"earlier version.*Calibrate again"):
        Guard(pipe, calibration=calibration)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    calls: list[int] = []
    find = Identified._find

    def found(self: Identified) -> Any:
        calls.append(1)
        return find(self)

    monkeypatch.setattr(Identified, "_find", found)
    return calls


def test_a_request_looks_at_no_weights_again_if_nothing_changed(
    pipe: Any, counting: list[int]
) -> None:
    calibration = guarded_at(pipe, 1e6)
    with Guard(pipe, calibration=calibration):
        draw(pipe, PROMPTS)
        counting.clear()
        for _ in range(3):
            draw(pipe, PROMPTS)
    assert not counting
