"""What no guard can tell is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import FasterCacheConfig
from diffusers.hooks import apply_faster_cache
from diffusers.models.attention_processor import (
    CustomDiffusionAttnProcessor,
    IPAdapterAttnProcessor2_0,
)
from guard_support import BENIGN, STEPS, draw, guarded_at
from identity_support import PROMPTS, pipe
from peft import LoraConfig

from mnemoscope import InputError
from mnemoscope.guard import Guard, calibrate_guard

__all__ = ["pipe"]

pytestmark = pytest.mark.slow


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


def adapted(pipe: Any) -> None:
    pipe.unet.add_adapter(LoraConfig(r=2, lora_dropout=0.5, target_modules=["to_q"]))
    pipe.unet.train()


STRANGE: list[tuple[Callable[[Any], None], str]] = [
    (hooked, r"mid_block has a hook, .*test_identity_refused\.hooked.*lambda"),
    (patched, "unet.forward was replaced by .*patched"),
    (hooked_by_another_class, "mid_block .*Merged.* computes"),
    (image_prompted, "processor is a IPAdapterAttnProcessor2_0"),
    (customised, "processor is a CustomDiffusionAttnProcessor"),
    (cached, r"diffusers' FasterCache\w+"),
    (quantised, "conv_in.weight is a .*Int4 .quantised"),
    (adapted, r"to_q's adapter default drops values at random \(0\.5\) in training mode"),
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


def test_a_hook_of_all_modules(pipe: Any) -> None:
    calibration = guarded_at(pipe, 1e6)
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        with pytest.raises(InputError, match="a hook of all modules"):
            Guard(pipe, calibration=calibration)
    finally:
        handle.remove()
    Guard(pipe, calibration=calibration).detach()
