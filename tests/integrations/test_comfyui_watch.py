"""What a guard sees and does in a sampling, in calls of ComfyUI's shapes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from comfyui_shapes import (
    CONST,
    EPS,
    SHAPE,
    V_PREDICTION,
    BaseModel,
    CFGGuider,
    Clip,
    ModelPatcher,
    both,
    draw,
    magnitude_of,
    noise_of,
)

from integrations.comfyui.calibrating import calibrate_sampling
from integrations.comfyui.decision import Blocked
from integrations.comfyui.guard import guarded
from mnemoscope import Calibration, CalibrationError, InputError, NumericsError

LOUD, QUIET = "a caption that was learnt by heart", "a cat"
BENIGN = [f"{'a' * k} dog" for k in range(1, 21)]  # no longer than 24 letters


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip()


@pytest.fixture(scope="module")
def model() -> Any:
    return ModelPatcher(BaseModel())


@pytest.fixture(scope="module")
def calibration(model: Any, clip: Clip) -> Calibration:
    return calibrate_sampling(model, clip, BENIGN, shape=SHAPE, sample=draw, fpr=0.2, delta=0.2)


@pytest.fixture
def block(model: Any, clip: Clip, calibration: Calibration) -> Any:
    return guarded(model, clip, mode="block", calibrations=(calibration,))


@pytest.fixture
def black(model: Any, clip: Clip, calibration: Calibration) -> Any:
    return guarded(model, clip, mode="black", calibrations=(calibration,))


@pytest.fixture
def report(model: Any, clip: Clip) -> Any:
    return guarded(model, clip, mode="report", calibrations=())


@pytest.mark.parametrize("sigma", [14.6, 0.7])
def test_scores_are_the_formula_s_in_the_unit_of_what_is_predicted(
    clip: Clip, sigma: float
) -> None:
    for kind, scale in (
        (EPS, 1.0),
        (V_PREDICTION, (1 + sigma**2) ** -0.5),  # sqrt(abar)
        (CONST, sigma if sigma < 1 else None),
    ):
        model = BaseModel(kind)
        patcher = ModelPatcher(model)
        watch = guarded(patcher, clip, mode="report", calibrations=())
        drawn = draw(
            watch.attach(patcher), noise_of(0, 2), both(clip, LOUD, QUIET), both(clip, ""),
            sigmas=(sigma, 0.1, 0.0),
        )  # fmt: skip
        found = watch.sampled(drawn)
        if scale is None:
            assert "no noise level" in found.reason
            continue
        wanted = [scale * magnitude_of(model, text) for text in (LOUD, QUIET)]
        assert [each.score for each in found.decisions] == pytest.approx(wanted, rel=1e-4)


def test_scores_are_means_over_the_steps_that_are_looked_at(clip: Clip) -> None:
    model = BaseModel(V_PREDICTION)
    patcher = ModelPatcher(model)
    watch = guarded(patcher, clip, mode="report", calibrations=(), steps=2)
    drawn = draw(watch.attach(patcher), noise_of(), both(clip, LOUD), both(clip, ""))
    keeps = ((1 + 14.6**2) ** -0.5 + (1 + 5.0**2) ** -0.5) / 2
    assert watch.sampled(drawn).score == pytest.approx(keeps * magnitude_of(model, LOUD), rel=1e-4)


def test_what_is_not_flagged_is_drawn_to_the_bit(model: Any, clip: Clip, block: Any) -> None:
    positive, negative = both(clip, QUIET), both(clip, "")
    plain = draw(model, noise_of(), positive, negative)
    assert torch.equal(draw(block.attach(model), noise_of(), positive, negative), plain)
    assert block.sampled(plain).clear
    assert str(block.sampled(plain)).startswith("Image 0: not flagged. Score")


def test_block_raises_where_one_of_a_batch_is_flagged(model: Any, clip: Clip, block: Any) -> None:
    with pytest.raises(Blocked, match=r"1 of 2 images would reproduce") as raised:
        draw(block.attach(model), noise_of(0, 2), both(clip, QUIET, LOUD), both(clip, ""))
    assert [each.memorized for each in raised.value.decisions] == [False, True]  # type: ignore[attr-defined]


def test_black_leaves_flagged_latents_empty_and_draws_the_others(
    model: Any, clip: Clip, black: Any
) -> None:
    positive, negative = both(clip, QUIET, LOUD), both(clip, "")
    seen: list[torch.Tensor] = []

    def previewed(predict: Any, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
        for now, after in itertools.pairwise(sigmas):
            seen.append(predict(x, now.expand(len(x))))
            x = x + (x - seen[-1]) / now * (after - now)
        return x

    plain = draw(model, noise_of(0, 2), positive, negative)
    alone = draw(model, noise_of(0, 2), negative, negative)
    drawn = draw(black.attach(model), noise_of(0, 2), positive, negative, function=previewed)
    assert torch.equal(drawn[0], plain[0])
    assert not drawn[1].any()
    assert torch.allclose(seen[-1][1], alone[1], atol=1e-5)  # previews show no training image
    assert black.sampled(drawn).hidden == (1,)
    assert not black.sampled(drawn).clear


def test_black_stops_where_all_of_a_batch_are_flagged(model: Any, clip: Clip, black: Any) -> None:
    calls: list[float] = []

    def counted(predict: Any, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
        for now in sigmas[:-1]:
            calls.append(float(now))
            x = predict(x, now.expand(len(x)))
        return x

    positive = both(clip, LOUD)
    drawn = draw(black.attach(model), noise_of(), positive, both(clip, ""), function=counted)
    assert len(calls) == 1
    assert drawn.shape == SHAPE
    assert not drawn.any()
    assert black.sampled(drawn).flagged == (0,)


def test_report_draws_what_is_flagged(model: Any, clip: Clip, calibration: Calibration) -> None:
    watch = guarded(model, clip, mode="report", calibrations=(calibration,))
    positive, negative = both(clip, LOUD), both(clip, "")
    drawn = draw(watch.attach(model), noise_of(), positive, negative)
    assert torch.equal(drawn, draw(model, noise_of(), positive, negative))
    assert watch.sampled(drawn).flagged == (0,)


def test_an_empty_prompt_has_no_verdict_and_is_not_clear(
    model: Any, clip: Clip, block: Any
) -> None:
    drawn = draw(block.attach(model), noise_of(0, 2), both(clip, "", QUIET), both(clip, ""))
    found = block.sampled(drawn)
    assert [each.memorized for each in found.decisions] == [None, False]
    assert "empty or the negative one" in str(found)
    assert not found.clear


def unmeasurable(clip: Clip) -> dict[str, tuple[str, dict[str, Any]]]:
    """Requests that cannot be measured, and why."""
    quiet, empty = both(clip, QUIET), both(clip, "")
    embeds = quiet[0][0]
    call = {"noise": noise_of(), "positive": quiet, "negative": empty}
    return {
        "cfg 1.0": ("At cfg 1.0", call | {"cfg": 1.0}),
        "parts": ("made of 2 parts", call | {"positive": quiet + both(clip, LOUD)}),
        "none": ("made of 0 parts", call | {"positive": []}),
        "control": ("holds control", call | {"positive": [[embeds, {"control": object()}]]}),
        "mask": ("holds mask", call | {"negative": [[empty[0][0], {"mask": 1}]]}),
        "negative": ("not the guard's", call | {"negative": both(clip, "blurry")}),
        "inpainting": ("noise mask", call | {"mask": torch.ones(1)}),
        "second stage": ("adds no noise", call | {"noise": torch.zeros(SHAPE)}),
        "no step": ("asked the model 0 time", call | {"function": lambda _, x, __: x}),
        "levels": ("several noise levels", call | {"noise": noise_of(0, 2), "function": _uneven}),
    }


def _uneven(predict: Any, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    return predict(x, sigmas[:2])


@pytest.mark.parametrize("name", unmeasurable(Clip()))
def test_what_cannot_be_measured_is_an_error_and_in_report_said(
    model: Any, clip: Clip, block: Any, black: Any, report: Any, name: str
) -> None:
    reason, call = unmeasurable(clip)[name]
    for watch in (block, black):
        with pytest.raises(InputError, match=reason):
            draw(watch.attach(model), **call)
    found = report.sampled(draw(report.attach(model), **call))
    assert reason in found.reason
    assert not found.clear
    assert found.score != found.score  # NaN
    assert str(found).startswith("Not measured: ")


def test_nan_is_no_verdict(model: Any, clip: Clip, block: Any, report: Any) -> None:
    positive = [[torch.full((1, 8, 3), torch.nan), {}]]
    with pytest.raises(NumericsError, match="image 0 is NaN"):
        draw(block.attach(model), noise_of(), positive, both(clip, ""))
    drawn = draw(report.attach(model), noise_of(), positive, both(clip, ""))
    assert not report.sampled(drawn).clear
    assert "NaN" in report.sampled(drawn).reason


def test_extra_pass_has_the_baseline_computed_at_cfg_1(model: Any, clip: Clip) -> None:
    watch = guarded(model, clip, mode="report", calibrations=(), extra_pass=True)
    drawn = draw(watch.attach(model), noise_of(), both(clip, LOUD), both(clip, ""), cfg=1.0)
    assert watch.sampled(drawn).score == pytest.approx(magnitude_of(model.model, LOUD), rel=1e-4)


def test_a_guider_that_asks_outside_of_a_sampling_is_refused(
    model: Any, block: Any, report: Any
) -> None:
    args = {"conds_out": [noise_of(), noise_of(1)]}
    [see] = block.attach(model).model_options["sampler_pre_cfg_function"]
    with pytest.raises(InputError, match="outside of a sampling"):
        see(args)
    [see] = report.attach(model).model_options["sampler_pre_cfg_function"]
    assert see(args) is args["conds_out"]


def test_another_guider_may_do_as_it_likes_after_the_first_call(model: Any, clip: Clip) -> None:
    class DualGuider(CFGGuider):
        pass

    one, two = (
        guarded(model, clip, mode="report", calibrations=(), steps=steps) for steps in (1, 2)
    )
    told = noise_of(), both(clip, QUIET), both(clip, "")
    drawn = draw(one.attach(model), *told, guides=DualGuider)
    assert one.sampled(drawn).decisions
    drawn = draw(two.attach(model), *told, guides=DualGuider)
    assert "does not know how" in two.sampled(drawn).reason
    assert "DualGuider combines" in two.sampled(drawn).reason


def test_three_predictions_are_refused(model: Any, clip: Clip, block: Any) -> None:
    def perpendicular(_: Any, x: torch.Tensor, __: torch.Tensor) -> torch.Tensor:
        [see] = watched.model_options["sampler_pre_cfg_function"]
        see({"conds": [[{}]] * 3, "conds_out": [x] * 3, "model_options": {}})
        return x

    watched = block.attach(model)
    with pytest.raises(InputError, match="combines 3 predictions"):
        draw(watched, noise_of(), both(clip, QUIET), both(clip, ""), function=perpendicular)


def test_a_latent_that_the_guard_did_not_see_has_no_verdict(
    model: Any, clip: Clip, report: Any
) -> None:
    drawn = draw(report.attach(model), noise_of(), both(clip, QUIET), both(clip, ""))
    assert report.sampled(drawn).decisions
    assert report.sampled(drawn.half()) == report.sampled(drawn)  # --fp16-intermediates
    for other in (drawn * 1.01, drawn[..., :3], torch.zeros(SHAPE)):
        assert "not what a sampler drew" in report.sampled(other).reason
        assert not report.sampled(other).clear


def test_two_samplings_with_one_guard_keep_their_own_verdicts(
    model: Any, clip: Clip, calibration: Calibration
) -> None:
    watch = guarded(model, clip, mode="report", calibrations=(calibration,))
    watched = watch.attach(model).clone()  # as nodes behind the guard do
    loud = draw(watched, noise_of(), both(clip, LOUD), both(clip, ""))
    quiet = draw(watched, noise_of(), both(clip, QUIET), both(clip, ""))
    assert watch.sampled(loud).flagged == (0,)
    assert watch.sampled(quiet).clear


def test_a_patch_behind_the_guard_is_another_state(model: Any, clip: Clip, block: Any) -> None:
    patched = block.attach(model).clone()
    patched.add_patches({"direction": ("diff", (torch.ones(SHAPE[1:]),))}, 0.5)
    with pytest.raises(CalibrationError, match=r"state is model patched \(1 weights, \w{8}\), ca"):
        draw(patched, noise_of(), both(clip, QUIET), both(clip, ""))
    assert draw(block.attach(model), noise_of(), both(clip, QUIET), both(clip, "")).any()


@pytest.mark.parametrize(
    ("call", "differs"),
    [
        ({"sigmas": (7.0, 1.0, 0.0)}, "sigmas is 7, calibrated was 14.6"),
        ({"latent": torch.ones(SHAPE)}, "options is from a latent, calibrated was from noise"),
    ],
)
def test_another_way_of_drawing_is_not_calibrated(
    model: Any, clip: Clip, block: Any, call: dict[str, Any], differs: str
) -> None:
    told = {"noise": noise_of(), "positive": both(clip, QUIET), "negative": both(clip, "")} | call
    with pytest.raises(CalibrationError, match=differs):
        draw(block.attach(model), **told)


def test_the_sizes_that_xl_is_told_are_part_of_the_setting(
    model: Any, clip: Clip, block: Any
) -> None:
    [[quiet, _]], [[empty, _]] = both(clip, QUIET), both(clip, "")
    for positive, negative, said in (
        ([[quiet, {"width": 512}]], [[empty, {}]], "from noise, width=512, calibrated"),
        ([[quiet, {}]], [[empty, {"crop_h": 8}]], "from noise, negative crop_h=8, calibrated"),
    ):
        with pytest.raises(CalibrationError, match=said):
            draw(block.attach(model), noise_of(), positive, negative)


def test_long_prompts_are_not_calibrated_by_short_ones(model: Any, clip: Clip, block: Any) -> None:
    long = " ".join("abcdefghij")
    with pytest.raises(CalibrationError, match="tokens is 16, calibrated was 8"):
        draw(block.attach(model), noise_of(), both(clip, long), both(clip, ""))


def test_past_the_first_step_sampler_and_cfg_are_part_of_the_setting(
    model: Any, clip: Clip
) -> None:
    calibration = calibrate_sampling(
        model, clip, BENIGN, shape=SHAPE, sample=draw, steps=2, fpr=0.2, delta=0.2
    )
    watch = guarded(model, clip, mode="block", calibrations=(calibration,), steps=2)
    positive, negative = both(clip, QUIET), both(clip, "")
    assert draw(watch.attach(model), noise_of(), positive, negative).any()
    with pytest.raises(CalibrationError, match=r"cfg 5, sampler sample_euler, calibrated was"):
        draw(watch.attach(model), noise_of(), positive, negative, cfg=5.0)
    watched = watch.attach(model)
    watched.model_options["sampler_cfg_function"] = lambda args: args["cond"]
    with pytest.raises(InputError, match="changes where the sampler goes"):
        draw(watched, noise_of(), positive, negative)
