"""Which model ComfyUI draws with."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from comfyui_shapes import SDXL, SHAPE, BaseModel, Clip, ModelPatcher

from integrations.comfyui.identity import PLAIN, Identity, state_of
from mnemoscope import InputError


def patched(patch: Any, strength: float = 1.0) -> str:
    patcher = ModelPatcher(BaseModel())
    patcher.add_patches({"direction": patch}, strength)
    return state_of(patcher, Clip())


class LoRAAdapter:
    def __init__(self, weights: Any) -> None:
        self.weights = weights

    def calculate_weight(self) -> None: ...


def test_every_weight_counts_and_how_a_network_is_built() -> None:
    first = Identity.of(ModelPatcher(BaseModel()), Clip())
    assert first == Identity.of(ModelPatcher(BaseModel()), Clip())
    assert first.state == PLAIN
    other = ModelPatcher(BaseModel())
    other.model.direction.data[0, 0, 0] += 1e-6
    encoder = Clip()
    encoder.patcher.model.bias.data[0] = 1e-6
    deeper = ModelPatcher(BaseModel())
    deeper.model.model_config.unet_config["num_heads"] = 8
    found = {
        first.model,
        Identity.of(other, Clip()).model,
        Identity.of(ModelPatcher(BaseModel()), encoder).model,
        Identity.of(deeper, Clip()).model,
        Identity.of(ModelPatcher(SDXL()), Clip()).model,
    }
    assert len(found) == 5


def test_patches_leave_the_weights_and_are_the_state() -> None:
    patcher = ModelPatcher(BaseModel())
    before = Identity.of(patcher, Clip())
    patcher.add_patches({"direction": ("diff", (torch.ones(SHAPE[1:]),))})
    after = Identity.of(patcher, Clip())
    assert after.model == before.model
    assert after.state.startswith("model patched (1 weights, ")


def test_every_part_of_a_patch_counts() -> None:
    ones, halves = torch.ones(2), torch.full((2,), 0.5)
    states = [
        patched(("diff", (ones,))),
        patched(("diff", (halves,))),
        patched(("diff", (ones.half(),))),
        patched(("set", (ones,))),
        patched(("diff", (ones,)), strength=0.5),
        patched(LoRAAdapter((ones, halves, 4.0, None))),
        patched(LoRAAdapter((ones, halves, 8.0, None))),
        patched([(ones, torch.neg), (0.5, ("diff", (halves,)))]),
        patched({"a": ones, "b": {1, 2}}),
    ]
    assert len(set(states)) == len(states)
    assert patched(LoRAAdapter((ones, halves, 4.0, None))) == states[5]


def test_how_the_text_encoder_reads_is_part_of_the_state() -> None:
    clip = Clip()
    clip.layer_idx = -2
    clip.tokenizer_options = {"t5xxl_min_length": 1}
    clip.patcher.add_patches({"bias": ("diff", (torch.ones(2),))})
    found = state_of(ModelPatcher(BaseModel()), clip)
    assert "clip patched (1 weights" in found
    assert "clip layer -2" in found
    assert "t5xxl_min_length=1" in found


def test_a_patch_that_no_text_can_tell_is_refused() -> None:
    scale = 0.5
    for strange in (SimpleNamespace(), lambda weight: weight * scale):
        with pytest.raises(InputError, match="cannot tell what a patch on this model does"):
            patched(("diff", (strange,)))
    assert patched(("diff", (functools.partial(torch.mul, other=2),))).startswith("model patched")


def test_quantised_weights_are_refused() -> None:
    class QuantizedTensor(torch.Tensor):
        pass

    patcher: Any = ModelPatcher(BaseModel())
    told = patcher.model.direction.as_subclass(QuantizedTensor)
    patcher.get_key_patches = lambda: {"direction": [(told, None)]}
    with pytest.raises(InputError, match=r"its weights are .*QuantizedTensor, and not plain"):
        Identity.of(patcher, Clip())
