"""Guards of pipelines whose transformers predict: one call for both sides of guidance, or two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from unittest import mock

import pytest
import torch
from calibrations import setting_threshold
from diffusers import FlowMatchHeunDiscreteScheduler, PixArtSigmaPipeline
from gemma_tokenizers import gemma_tokenizer
from guard_support import between, seeded
from pipelines import build_flux, build_pixart, build_qwen_image, build_sana, build_sd3
from qwen_tokenizers import qwen_tokenizer
from t5_tokenizers import t5_tokenizer

from mnemoscope import Calibration, CalibrationError, InputError
from mnemoscope.guard import (
    Guard,
    MemorizationBlocked,
    StepwiseOptimization,
    calibrate_guard,
    replicate,
)

PROMPTS = ["a cat", "a dog", "a house by the sea"]
BENIGN = [f"a photo of {i} cats" for i in range(3)]
STEPS = 3
NO_NEGATIVE: dict[str, Any] = {"negative_prompt": [""] * 3}


@dataclass(frozen=True)
class Toy:
    """A family at toy size.

    Attributes:
        build: Makes it.
        call: Of its requests.
        negative: What requests say of the unconditional branch, where it is not the default.
        guard: Of its guards and calibrations.
        alone: Of requests whose empty prompt is told as the unconditional branch is.
        level: Share of noise that is told at the first step.
    """

    build: Callable[[], Any]
    call: Mapping[str, Any] = field(default_factory=dict)
    negative: Mapping[str, Any] = field(default_factory=dict)
    guard: Mapping[str, Any] = field(default_factory=dict)
    alone: Mapping[str, Any] = field(default_factory=dict)
    level: float = 1.0


TOYS = {
    "sd3": Toy(build_sd3),
    "sd3-t5": Toy(lambda: build_sd3(t5_tokenizer(), use_dynamic_shifting=True)),
    "pixart": Toy(
        lambda: build_pixart(t5_tokenizer()),
        {"use_resolution_binning": False, "clean_caption": False},
    ),
    "sana": Toy(
        lambda: build_sana(gemma_tokenizer()),
        {"use_resolution_binning": False, "height": 256, "width": 256},
        alone={"complex_human_instruction": None},
        level=0.999,
    ),
    "qwen": Toy(
        lambda: build_qwen_image(qwen_tokenizer()),
        {"true_cfg_scale": 4.0},
        NO_NEGATIVE,
        {"negative_prompt": ""},
    ),
    "flux": Toy(lambda: build_flux(t5_tokenizer()), guard={"extra_pass": True}),
    "flux, true guidance": Toy(
        lambda: build_flux(t5_tokenizer()), {"true_cfg_scale": 4.0}, NO_NEGATIVE,
        {"negative_prompt": ""},
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Drawing:
    """A pipeline, and how it is asked."""

    toy: Toy
    pipe: Any

    @property
    def extra(self) -> bool:
        return "extra_pass" in self.toy.guard

    @property
    def call(self) -> dict[str, Any]:
        return {"num_inference_steps": STEPS, "height": 64, "width": 64, **self.toy.call}

    def draw(self, prompts: list[str] = PROMPTS, **more: Any) -> torch.Tensor:
        """Latents, each from a seed of its own."""
        told = {**self.call, **self.toy.negative, "generator": seeded(len(prompts)), **more}
        latents: torch.Tensor = self.pipe(prompt=prompts, output_type="latent", **told).images
        return latents

    def scores(self, **guard: Any) -> list[float]:
        with Guard(self.pipe, **self.toy.guard, **guard) as watching:
            self.draw()
        return [each.score for each in watching.decisions]

    def calibrated(self, threshold: float, **more: Any) -> Calibration:
        """With a threshold that is set by hand."""
        found = _calibrated(self, **more)
        values = (0.0, *(setting_threshold(threshold),) * 2)
        prompts = dict(zip(found.prompts, values, strict=True))
        return Calibration.of(found.setting, prompts, fpr=0.5, delta=0.5)

    def guarded(self, calibration: Calibration, policy: Any, **more: Any) -> Guard:
        return Guard(self.pipe, calibration=calibration, policy=policy, **self.toy.guard, **more)


@cache
def _calibrated(drawing: Drawing, **more: Any) -> Calibration:
    told = {**drawing.call, **drawing.toy.guard, **more}
    return calibrate_guard(drawing.pipe, BENIGN, batch=3, fpr=0.5, delta=0.5, **told)


def made(name: str, build: Callable[[], Any] | None = None) -> Drawing:
    pipe = (build or TOYS[name].build)()
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    return Drawing(TOYS[name], pipe)


@pytest.fixture(scope="module", params=TOYS)
def drawing(request: pytest.FixtureRequest) -> Drawing:
    return made(request.param)


@pytest.fixture(scope="module")
def found(drawing: Drawing) -> tuple[float, ...]:
    """Scores of PROMPTS."""
    return tuple(drawing.scores())


@pytest.fixture(scope="module")
def sd3() -> Drawing:
    return made("sd3")


@pytest.fixture(scope="module")
def plain(drawing: Drawing) -> torch.Tensor:
    return drawing.draw()


def _norms(drawing: Drawing) -> list[float]:
    """|| cond - uncond || of the first step in the unit, by a plain hook on the transformer."""
    outputs: list[torch.Tensor] = []
    hook = drawing.pipe.transformer.register_forward_hook(
        lambda _, __, output: outputs.append(output[0].clone())
    )
    drawing.draw()
    if drawing.extra:  # the other side is what the empty prompt is told
        drawing.draw([""] * 3)
    hook.remove()
    first = outputs[::STEPS] if drawing.extra else outputs[: len(outputs) // STEPS]
    both = torch.cat(first)
    both = both[:, :4] if both.ndim == 4 else both  # without PixArt's variance
    norms: list[float] = (both[:3] - both[3:]).flatten(1).norm(dim=1).tolist()
    return [drawing.toy.level * each for each in norms]


def _on_the_way(drawing: Drawing) -> tuple[dict[str, Any], list[torch.Tensor]]:
    """What has a request keep its latents after every step, and where it does."""
    kept: list[torch.Tensor] = []

    def keep(_: Any, __: int, ___: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        kept.append(kwargs["latents"].clone())
        return kwargs

    if not isinstance(drawing.pipe, PixArtSigmaPipeline):
        return {"callback_on_step_end": keep}, kept
    return {"callback": lambda _, __, latents: kept.append(latents.clone())}, kept


def test_scores_are_those_of_what_guidance_combines(
    drawing: Drawing, found: tuple[float, ...]
) -> None:
    assert found == pytest.approx(_norms(drawing), rel=1e-4)
    assert len(set(found)) == 3


def test_a_transformer_that_predicts_no_variance() -> None:
    drawing = made("pixart", lambda: build_pixart(t5_tokenizer(), out_channels=4))
    assert drawing.scores() == pytest.approx(_norms(drawing), rel=1e-4)


def test_what_is_not_flagged_is_the_same_to_the_bit(
    drawing: Drawing, plain: torch.Tensor, found: tuple[float, ...]
) -> None:
    calibration = drawing.calibrated(between(found, 2))
    flagged = found.index(max(found))
    with drawing.guarded(calibration, "block") as guard:
        blocked = drawing.draw()
    rest = [each for each in range(3) if each != flagged]
    assert not blocked[flagged].any()
    assert torch.equal(blocked[rest], plain[rest])
    assert [each.action for each in guard.decisions] == [
        "block" if each == flagged else "pass" for each in range(3)
    ]
    assert guard.decisions[0].extra_pass is drawing.extra
    with drawing.guarded(calibration, "mitigate") as guard:
        mitigated = drawing.draw()
    after = guard.decisions[flagged]
    assert torch.equal(mitigated[rest], plain[rest])
    assert not torch.equal(mitigated[flagged], plain[flagged])
    assert after.attempt == 1
    assert after.score < found[flagged]
    assert torch.equal(drawing.draw(), plain)  # nothing is left of a guard


def test_nothing_is_drawn_if_all_are_flagged(drawing: Drawing) -> None:
    told, kept = _on_the_way(drawing)
    with (
        drawing.guarded(drawing.calibrated(0.0), "block") as guard,
        pytest.raises(MemorizationBlocked),
    ):
        drawing.draw(**told)
    assert kept == []
    assert all(each.memorized for each in guard.decisions)


def test_an_empty_prompt_is_compared_with_nothing(drawing: Drawing) -> None:
    """Where the unconditional branch is told what it is; Sana's prompts stand behind more."""
    told = drawing.toy.alone
    calibration = drawing.calibrated(0.0, **told)
    with drawing.guarded(calibration, "warn") as guard, pytest.warns(match="reproduce"):
        drawing.draw(["a cat", "", "a house by the sea"], **told)
    assert [each.compared for each in guard.decisions] == [True, False, True]
    assert guard.decisions[1].memorized is None


def test_two_steps(drawing: Drawing, found: tuple[float, ...]) -> None:
    calibration = drawing.calibrated(0.0, steps=2)
    assert calibration.setting.steps == 2
    with drawing.guarded(calibration, "warn") as guard, pytest.warns(match="reproduce"):
        drawing.draw()
    assert len(guard.decisions[0].timesteps) == 2
    assert [each.score for each in guard.decisions] != pytest.approx(found, rel=1e-6)
    with (
        drawing.guarded(calibration, "warn"),
        pytest.raises(CalibrationError, match=r"latents is 4x8x\d+, calibrated was 4x8x8"),
    ):
        drawing.draw(width=96)


def test_what_is_blocked_is_drawn_without_its_prompt(
    drawing: Drawing, found: tuple[float, ...]
) -> None:
    """Also where it is watched on the way; without another side it stays the noise."""
    flagged = found.index(max(found))
    calibration = drawing.calibrated(between(found, 2))
    told, wanted = _on_the_way(drawing)
    drawing.draw([""] * 3, **told, **drawing.toy.alone)
    told, kept = _on_the_way(drawing)
    with drawing.guarded(calibration, "block"):
        drawing.draw(**told)
    assert len(kept) == len(wanted) == STEPS
    for each, other in zip(kept, [kept[0]] * STEPS if drawing.extra else wanted, strict=True):
        torch.testing.assert_close(each[flagged], other[flagged], rtol=1e-4, atol=1e-4)


def test_a_transformer_that_was_changed(drawing: Drawing) -> None:
    calibration = drawing.calibrated(100.0)
    last = drawing.pipe.transformer.proj_out.weight
    before = last.detach().clone()
    with drawing.guarded(calibration, "block"):
        drawing.draw()
        with torch.no_grad():
            last *= 1.5
        with pytest.raises(CalibrationError, match="transformer weights changed"):
            drawing.draw()
        with torch.no_grad():
            last.copy_(before)
        drawing.draw()


@pytest.mark.parametrize("name", ["flux", "flux, true guidance", "sd3"])
def test_how_many_passes_a_guard_takes(name: str) -> None:
    """One more at each step that it looks at where there is no other side, and none elsewhere."""
    drawing = made(name)
    kind = type(drawing.pipe.transformer)
    counts, own = [], kind.forward
    for steps in (0, 1, 2):
        passes: list[int] = []

        def forward(self: Any, *args: Any, passes: list[int] = passes, **told: Any) -> Any:
            passes.append(1)
            return own(self, *args, **told)

        forward.__module__ = own.__module__
        with mock.patch.object(kind, "forward", forward):
            if steps:
                drawing.scores(steps=steps)
            else:
                drawing.draw()
        counts.append(len(passes))
    more = [0, 1, 2] if drawing.extra else [0, 0, 0]
    assert [count - counts[0] for count in counts] == more


def test_it_is_brought_down_step_by_step(sd3: Drawing) -> None:
    stepwise = StepwiseOptimization.learn(sd3.pipe, BENIGN, steps=2, batch=3, **sd3.call)
    low = StepwiseOptimization({t: each / 2 for t, each in stepwise.targets.items()})
    found = sd3.scores(steps=2)
    calibration = sd3.calibrated(between(found, 2), steps=2)
    with sd3.guarded(calibration, "mitigate", mitigation=low) as guard:
        sd3.draw()
    [after] = [each for each in guard.decisions if each.attempt]
    assert after.score < found[after.index]


def test_what_a_flow_cannot_be_watched_with(sd3: Drawing) -> None:
    calibration = sd3.calibrated(100.0)
    with sd3.guarded(calibration, "block"):
        with pytest.raises(InputError, match="skip_guidance_layers: it combines a third"):
            sd3.draw(skip_guidance_layers=[0])
        with pytest.raises(InputError, match="ip_adapter_image_embeds: with an IP-Adapter"):
            sd3.draw(ip_adapter_image_embeds=torch.zeros(1))
        with pytest.raises(InputError, match="negative prompt of this request is not the one"):
            sd3.draw(negative_prompt="blurry")
        with pytest.raises(InputError, match="no unconditional branch"):
            sd3.draw(guidance_scale=1.0)
        with pytest.raises(CalibrationError, match="max_sequence_length=128"):
            sd3.draw(max_sequence_length=128)

        def changing(_: Any, __: int, ___: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            return {"pooled_prompt_embeds": 2 * kwargs["pooled_prompt_embeds"]}

        with pytest.raises(InputError, match="pooled embeddings of this request were changed"):
            sd3.draw(
                callback_on_step_end=changing,
                callback_on_step_end_tensor_inputs=["pooled_prompt_embeds"],
            )
    heun = FlowMatchHeunDiscreteScheduler(shift=3.0)
    own, sd3.pipe.scheduler = sd3.pipe.scheduler, heun
    with pytest.raises(InputError, match="does not know what FlowMatchHeun"):
        sd3.scores()
    sd3.pipe.scheduler = own


def test_a_prompt_that_is_instructed_otherwise() -> None:
    """It is another setting, and an empty one that is instructed has a magnitude."""
    sana = made("sana")
    with sana.guarded(sana.calibrated(0.0), "warn") as guard:
        with pytest.raises(CalibrationError, match="complex_human_instruction="):
            sana.draw(complex_human_instruction=["Draw: "])
        with pytest.warns(match="reproduce"):
            sana.draw([""])
    assert guard.decisions[0].compared


def test_another_template_is_another_model() -> None:
    qwen = made("qwen")
    pipe = qwen.pipe
    with qwen.guarded(qwen.calibrated(100.0), "block"):
        qwen.draw()
        pipe.prompt_template_encode = pipe.prompt_template_encode.replace("Describe", "Tell")
        with pytest.raises(CalibrationError, match="pipeline prompt_template_encode changed"):
            qwen.draw()


def test_a_replica_of_a_flow(sd3: Drawing) -> None:
    calibration = sd3.calibrated(100.0)
    plain = sd3.draw()
    other = Drawing(sd3.toy, replicate(sd3.pipe))
    with other.guarded(calibration, "block"):
        assert torch.equal(other.draw(), plain)
        assert torch.equal(sd3.draw(), plain)
