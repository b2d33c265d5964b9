"""The filter judges by the reference's magnitude, and changes nothing but the loss."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from one_block import one_block
from peft import LoraConfig, get_peft_model
from predictions import both_models
from torch import Tensor

from mnemoscope import InputError, NumericsError
from mnemoscope.training import HardThreshold, MemorizationFilter, QuantileThreshold, Verdict
from mnemoscope_export import StableDiffusion, magnitude_of, unconditional

pytestmark = pytest.mark.slow

PROMPTS = ["a cat", "a dog", "a red house", ""]


@pytest.fixture(scope="module")
def batch(model: StableDiffusion) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    (embeds,) = model.embed(PROMPTS)
    x = torch.randn(4, *model.latent_shape, generator=generator)
    return {"noisy": x, "timesteps": torch.tensor([999, 700, 30, 500]), "embeds": embeds}


def make(model: StableDiffusion, threshold: Any = None) -> MemorizationFilter:
    scheduler = DDPMScheduler.from_config(model.scheduler.config)
    return MemorizationFilter(scheduler, model.embed_empty()[0], threshold)


def judge(
    found: MemorizationFilter, unet: Callable[..., Any], batch: dict[str, Tensor], **options: Any
) -> Verdict:
    prediction = unet(batch["noisy"], batch["timesteps"], batch["embeds"]).sample
    return found(unet, **batch, prediction=prediction, **options)


def trainable(model: StableDiffusion) -> UNet2DConditionModel:
    return copy.deepcopy(model.unet).requires_grad_(True).train()


@pytest.mark.numeric
@both_models
def test_magnitudes_are_the_references(model: StableDiffusion, batch: dict[str, Tensor]) -> None:
    verdict = judge(make(model, HardThreshold(1.0)), model.unet, batch)
    with torch.no_grad():
        for i, t in enumerate(batch["timesteps"].tolist()):
            x, e = batch["noisy"][i : i + 1], batch["embeds"][i : i + 1]
            expected = magnitude_of(model, (e,), x, t, unconditional(model, x, t))
            torch.testing.assert_close(verdict.magnitude[i : i + 1], expected, rtol=1e-3, atol=2e-5)
    assert verdict.magnitude.dtype == torch.float32
    assert verdict.magnitude[3] < 1e-4  # the empty prompt


def test_a_hard_threshold_parts_the_batch(model: StableDiffusion, batch: dict[str, Tensor]) -> None:
    norms = judge(make(model, HardThreshold(1.0)), model.unet, batch).magnitude
    cut = float(norms.sort().values[-2:].mean())
    verdict = judge(make(model, HardThreshold(cut)), model.unet, batch)
    assert verdict.keep.tolist() == [bool(m <= cut) for m in norms]
    assert verdict.keep.sum() == 3
    assert verdict.limit.tolist() == pytest.approx([cut] * 4)


def test_the_mean_runs_over_what_is_kept() -> None:
    losses = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    keep = torch.tensor([True, False, True])
    mean = Verdict(torch.ones(3), torch.ones(3), keep).mean(losses)
    assert mean.item() == 2.5
    mean.backward()
    assert losses.grad is not None
    assert losses.grad.tolist() == [0.5, 0, 0.5]
    per_element = torch.tensor([[1.0, 3.0], [9.0, 9.0], [2.0, 4.0]])
    assert Verdict(torch.ones(3), torch.ones(3), keep).mean(per_element).item() == 2.5


def test_a_batch_that_is_skipped_gives_gradients_of_zeros(
    model: StableDiffusion, batch: dict[str, Tensor]
) -> None:
    unet = trainable(model)
    told = {name: value[:3] for name, value in batch.items()}
    prediction = unet(**_named(told)).sample
    verdict = make(model, HardThreshold(1e-9))(unet, **told, prediction=prediction)
    assert not verdict.keep.any()
    loss = verdict.mean(prediction.square())
    assert loss.item() == 0
    loss.backward()
    assert all(p.grad is not None and not p.grad.any() for p in unet.parameters())


def test_losses_that_were_averaged_already_are_refused() -> None:
    verdict = Verdict(torch.ones(3), torch.ones(3), torch.ones(3, dtype=torch.bool))
    for wrong in (torch.tensor(1.0), torch.ones(2)):
        with pytest.raises(InputError, match="reduction='none'"):
            verdict.mean(wrong)


@pytest.mark.numeric
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_what_is_kept_trains_as_without_the_filter(
    model: StableDiffusion, batch: dict[str, Tensor], dtype: torch.dtype | None
) -> None:
    """Also under autocast, whose cache of cast weights must not lose their gradients."""
    gradients = []
    for filtered in (False, True):
        unet, judged = trainable(model), make(model, HardThreshold(1e6))
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            prediction = unet(**_named(batch)).sample
            losses = prediction.float().square().mean((1, 2, 3))
            loss = losses.mean()
            if filtered:
                loss = judged(unet, **batch, prediction=prediction).mean(losses)
        loss.backward()
        gradients.append([p.grad for p in unet.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


@pytest.mark.numeric
def test_autocast_judges_nearly_alike(model: StableDiffusion, batch: dict[str, Tensor]) -> None:
    judged = make(model)
    exact = judge(judged, model.unet, batch).magnitude
    with torch.autocast("cpu", torch.bfloat16):
        verdict = judge(judged, model.unet, batch)
    assert verdict.magnitude.dtype == torch.float32
    # bfloat16 keeps eight bits of predictions, whose difference is a tenth of them or less
    atol = 0.2 * float(exact[:3].max())
    torch.testing.assert_close(verdict.magnitude[:3], exact[:3], rtol=0, atol=atol)


def test_a_compiled_unet_judges_alike(model: StableDiffusion, batch: dict[str, Tensor]) -> None:
    unet = one_block()
    compiled = torch.compile(unet, backend="eager")
    expected = judge(make(model, HardThreshold(1.0)), unet, batch)
    prediction = compiled(**_named(batch)).sample
    verdict = make(model, HardThreshold(1.0))(compiled, **batch, prediction=prediction)
    torch.testing.assert_close(verdict.magnitude, expected.magnitude, rtol=1e-4, atol=1e-5)
    verdict.mean(prediction.square()).backward()
    assert any(p.grad is not None and p.grad.any() for p in unet.parameters())


def test_a_unet_may_be_any_function(model: StableDiffusion, batch: dict[str, Tensor]) -> None:
    def wrapped(x: Tensor, t: Tensor, e: Tensor) -> Tensor:
        output: Tensor = model.unet(x, t, e).sample
        return output

    expected = judge(make(model), model.unet, batch)
    prediction = wrapped(batch["noisy"], batch["timesteps"], batch["embeds"])
    found = make(model)(wrapped, **batch, prediction=prediction)
    assert torch.equal(found.magnitude, expected.magnitude)


def test_quantiles_skip_what_stands_out(model: StableDiffusion, batch: dict[str, Tensor]) -> None:
    """After the warm-up, against others of its own timesteps."""
    threshold = QuantileThreshold(quantile=0.5, factor=1.5, bins=1, window=8, warmup=6)
    judged = make(model, threshold)
    one = {name: value[:1].repeat(2, *[1] * (value.ndim - 1)) for name, value in batch.items()}
    for _ in range(3):
        assert judge(judged, model.unet, one).keep.all()
        assert judged.report().skipped == 0
    usual = judge(judged, model.unet, one)
    assert usual.keep.all()  # as large as the others
    torch.testing.assert_close(usual.limit, 1.5 * usual.magnitude)

    def louder(*inputs: Tensor) -> Tensor:
        output: Tensor = model.unet(*inputs).sample
        output[0] += 1  # of the first sample
        return output

    prediction = model.unet(**_named(one)).sample
    found = judged(louder, **one, prediction=prediction, ids=[7, 8])
    assert found.keep.tolist() == [False, True]
    assert [(each.name, each.skipped) for each in judged.report().samples] == [("7", 1), ("8", 0)]


def test_dropped_captions_are_kept_and_not_counted(
    model: StableDiffusion, batch: dict[str, Tensor]
) -> None:
    judged = make(model, HardThreshold(1e-9))
    verdict = judge(judged, model.unet, batch, ids=[0, 1, 2, 3])
    assert verdict.keep.tolist() == [False, False, False, True]
    report = judged.report()
    assert (report.seen, report.skipped) == (3, 3)
    assert [each.name for each in report.samples] == ["0", "1", "2"]
    windows = make(model, QuantileThreshold())
    judge(windows, model.unet, batch)
    assert windows.state_dict()["counts"].sum() == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("early", [True, False])
def test_dropped_captions_are_known_in_any_precision(
    model: StableDiffusion, batch: dict[str, Tensor], dtype: torch.dtype, early: bool
) -> None:
    """In a loop like that of diffusers' script, which casts the text encoder later on."""
    encoder = copy.deepcopy(model.text_encoder)
    before = encoder(model.tokenize([""]))[0]
    encoder.to(dtype)
    empty = before if early else encoder(model.tokenize([""]))[0]
    embeds = encoder(model.tokenize(["a cat", "", "a red house", ""]))[0]
    judged = MemorizationFilter(model.scheduler, empty, HardThreshold(1e-9))
    assert embeds.dtype == dtype
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32), warnings.catch_warnings():
        warnings.simplefilter("error")
        told = {**batch, "embeds": embeds}
        if early and dtype != torch.float32:
            with pytest.warns(UserWarning, match=r"differ from `empty` by [01]\.\d+%.*is cast"):
                verdict = judge(judged, model.unet, told)
        verdict = judge(judged, model.unet, told)  # told of once
    assert verdict.keep.tolist() == [False, True, False, True]


def test_captions_may_be_dropped_by_zeros(model: StableDiffusion, batch: dict[str, Tensor]) -> None:
    embeds = batch["embeds"].clone()
    embeds[1] = 0
    judged = make(model, HardThreshold(1e-9))
    verdict = judge(judged, model.unet, {**batch, "embeds": embeds})
    assert verdict.keep.tolist() == [False, True, False, True]
    assert judged.report().seen == 2


def test_a_caption_of_one_letter_is_none_that_was_dropped(
    model: StableDiffusion, batch: dict[str, Tensor]
) -> None:
    (embeds,) = model.embed(["a", ".", "x x", " "])  # the last is read as nothing
    verdict = judge(make(model, HardThreshold(1e-9)), model.unet, {**batch, "embeds": embeds})
    assert verdict.keep.tolist() == [False, False, False, True]


def test_a_network_that_is_random_in_training_mode_is_refused(batch: dict[str, Tensor]) -> None:
    """What says so are its own two answers to one and the same."""

    def dropped_out(unet: UNet2DConditionModel, kind: str) -> None:
        if kind == "a LoRA's":
            config = LoraConfig(r=2, lora_dropout=0.5, target_modules=["to_q"])
            config.init_lora_weights = False
            unet.add_adapter(config)
        elif kind == "its own":
            unet.down_blocks[0].resnets[0].dropout.p = 0.5
        else:
            unet.conv_norm_out = torch.nn.BatchNorm2d(32)

    empty = batch["embeds"][3:]
    for kind, what in (
        ("a LoRA's", r"to_q\.lora_dropout\.default drops values at random \(0\.5\)"),
        ("its own", r"resnets\.0\.dropout drops values at random"),
        ("of the batch", "conv_norm_out normalises over the other samples"),
    ):
        unet = one_block()
        dropped_out(unet, kind)
        judged = MemorizationFilter(DDPMScheduler(), empty, HardThreshold(1e-9))
        if kind != "of the batch":
            again = [unet.train()(**_named(batch)).sample for _ in range(2)]
            assert not torch.equal(*again)
            with pytest.raises(InputError, match=r"^The network draws random numbers"):
                judge(judged, lambda *told, unet=unet: unet(*told), batch)
        with pytest.raises(InputError, match=rf"^The network's .*{what}.* in training mode"):
            judge(judged, unet.train(), batch)
        assert judge(judged, unet.eval(), batch).keep.tolist() == [False, False, False, True]
        assert judged.report().seen == 3


def test_other_threads_of_a_loop_may_draw(batch: dict[str, Tensor]) -> None:
    """Only the first pass is looked at, so that no loop ends hours later by a coincidence."""
    unet = one_block().eval()

    def beside(*told: Any) -> Any:
        torch.rand(1)
        return unet(*told)

    judged = MemorizationFilter(DDPMScheduler(), batch["embeds"][3:], HardThreshold(1e-9))
    with pytest.raises(InputError, match=r"^The network draws random numbers"):
        judge(judged, beside, batch)
    kept = judge(judged, unet, batch).keep.tolist()
    assert judge(judged, beside, batch).keep.tolist() == kept


def test_adapters_that_compute_nothing_may_drop(batch: dict[str, Tensor]) -> None:
    dropping = LoraConfig(r=2, lora_dropout=0.5, target_modules=["to_q"])
    wrapped = get_peft_model(one_block(), dropping)  # as a loop without diffusers' methods has it
    judged = MemorizationFilter(DDPMScheduler(), batch["embeds"][3:], HardThreshold(1e-9))
    with pytest.raises(InputError, match=r"to_q\.lora_dropout\.default drops values"):
        judge(judged, wrapped.train(), batch)
    unet = one_block()
    unet.add_adapter(dropping)
    unet.disable_adapters()
    for idle in (unet, wrapped.merge_and_unload()):
        assert judge(judged, idle.train(), batch).keep.tolist() == [False, False, False, True]


def test_a_checkpoint_goes_on_where_it_was(
    model: StableDiffusion, batch: dict[str, Tensor], tmp_path: Any
) -> None:
    threshold = QuantileThreshold(factor=1.01, bins=2, window=4, warmup=1)
    first, second = make(model, threshold), make(model, threshold)
    judge(first, model.unet, batch, ids=[5, 6, 7, 8])
    accelerator = Accelerator(cpu=True)
    accelerator.register_for_checkpointing(first)
    accelerator.save_state(str(tmp_path))
    state = torch.load(tmp_path / "custom_checkpoint_0.pkl", weights_only=True)
    second.load_state_dict(state)
    again = {**batch, "timesteps": batch["timesteps"].roll(1)}
    one, other = (judge(each, model.unet, again, ids=[5, 6, 7, 8]) for each in (first, second))
    assert torch.equal(one.keep, other.keep)
    assert torch.equal(one.limit, other.limit)
    assert first.report() == second.report()
    assert first.report().seen == 6
    fresh = judge(make(model, threshold), model.unet, again)
    assert not torch.equal(one.limit, fresh.limit)


def test_a_checkpoint_of_another_threshold_is_refused(model: StableDiffusion) -> None:
    state = make(model, QuantileThreshold(quantile=0.9)).state_dict()
    for other in (QuantileThreshold(), HardThreshold(2.0)):
        with pytest.raises(InputError, match=r"threshold is .*0\.9.*Make the filter with"):
            make(model, other).load_state_dict(state)


def test_nan_is_no_verdict(model: StableDiffusion, batch: dict[str, Tensor]) -> None:
    prediction = model.unet(**_named(batch)).sample.clone()
    prediction[1] = torch.nan
    judged = make(model)
    with pytest.raises(NumericsError, match=r"Sample 11 .* NaN or infinite, at timestep 700"):
        judged(model.unet, **batch, prediction=prediction, ids=[10, 11, 12, 13])
    assert judged.report().seen == 0


def test_input_that_does_not_fit(model: StableDiffusion, batch: dict[str, Tensor]) -> None:
    short = {**batch, "embeds": batch["embeds"][:, :5]}
    with pytest.raises(InputError, match="same padding"):
        make(model)(model.unet, **short, prediction=batch["noisy"])
    for wrong in ([1, 2], [0.5, 1, 2, 3], [0, 1, 2, -3], list("abcd"), [True] * 4):
        with pytest.raises(InputError, match="one whole number"):
            judge(make(model), model.unet, batch, ids=wrong)
    scheduler = DDIMScheduler.from_config(model.scheduler.config, prediction_type="sample")
    judged = MemorizationFilter(scheduler, model.embed_empty()[0], HardThreshold(2.0))
    with pytest.raises(InputError, match="predicts 'sample'"):
        judge(judged, model.unet, batch)


def test_what_is_no_batch_is_refused(model: StableDiffusion, batch: dict[str, Tensor]) -> None:
    output = model.unet(**_named(batch))
    for wrong, message in (
        ({"prediction": output}, r"prediction UNet2DConditionOutput\..*output `sample`"),
        ({"timesteps": torch.tensor(5)}, r"timesteps \[\],.*a t for each sample"),
        ({"timesteps": 5}, r"timesteps int,"),
        ({"timesteps": batch["timesteps"][:1]}, r"timesteps \[1\],"),
        ({"embeds": batch["embeds"][:2]}, r"embeds \[2, 77, \d+\],"),
        ({"timesteps": batch["timesteps"] / 2}, "Timesteps are torch.float32"),
    ):
        told: dict[str, Any] = {**batch, "prediction": output.sample, **wrong}
        with pytest.raises(InputError, match=message):
            make(model)(model.unet, **told)
    for unet in (lambda *_: (output.sample,), lambda *_: output.sample[:1]):
        with pytest.raises(InputError, match=r"The network gave (NoneType|\[1, .*\]) for"):
            make(model)(unet, **batch, prediction=output.sample)


def test_a_filter_that_cannot_judge_is_refused_at_once(model: StableDiffusion) -> None:
    for bare in (2.0, 0, "quantiles"):
        with pytest.raises(InputError, match=r"no threshold\. Give one such as HardThreshold"):
            make(model, bare)
    (empty,) = model.embed_empty()
    for wrong, shape in (
        (model.embed_empty(), "tuple"),
        (empty[0], r"\[77, \d+\]"),
        (empty.repeat(2, 1, 1), r"\[2, 77, \d+\]"),
    ):
        with pytest.raises(InputError, match=rf"is {shape}, not a tensor \[1, L, D\]"):
            MemorizationFilter(model.scheduler, wrong)  # type: ignore[arg-type]


def test_how_much_of_the_threshold_is_warm(
    model: StableDiffusion, batch: dict[str, Tensor]
) -> None:
    judged = make(model, QuantileThreshold(bins=2, window=4, warmup=2))
    assert judged.warm == 0
    judge(judged, model.unet, batch)  # 999, 700; 30; the empty prompt does not count
    assert judged.warm == 0.5
    judge(judged, model.unet, batch)
    assert judged.warm == 1
    assert make(model, HardThreshold(2.0)).warm == 1


def _named(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """In the UNet's own names."""
    return {
        "sample": batch["noisy"],
        "timestep": batch["timesteps"],
        "encoder_hidden_states": batch["embeds"],
    }
