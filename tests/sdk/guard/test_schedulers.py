"""What of a scheduler outlasts a request, for every one that the pipelines take."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from diffusers.schedulers import KarrasDiffusionSchedulers
from guard_support import draw, guarded_at, pipe

from mnemoscope import CalibrationError, InputError
from mnemoscope.guard import Guard
from mnemoscope.guard.schedulers import Scheduled

pytestmark = pytest.mark.slow

__all__ = ["pipe"]
KINDS = [
    getattr(diffusers, each.name)
    for each in KarrasDiffusionSchedulers
    # one needs a library that is not installed, the other is none of Stable Diffusion's
    if each.name not in ("DPMSolverSDEScheduler", "EDMEulerScheduler")
] + [diffusers.LCMScheduler, diffusers.TCDScheduler]
OUTLASTING = {
    "alphas",
    "alphas_cumprod",
    "betas",
    "disable_corrector",
    "final_alpha_cumprod",
    "init_noise_sigma",
    "lambda_t",
    "one",
    "pndm_order",
    "predict_x0",
    "solver_p",
    "use_karras_sigmas",
    "variance_type",
}


def requested(scheduler: Any, **told: Any) -> None:
    """What a pipeline does with it."""
    scheduler.set_timesteps(**told)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(1)
    scheduler.set_timesteps(**told)
    sample = torch.ones(1, 4, 4, 4)
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(sample, t)
        sample = scheduler.step(scaled, t, sample, return_dict=False)[0]


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, torch.Tensor):
        return value * 2 + 1
    return "another"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_requests_change_nothing_and_everything_else_does(kind: Any) -> None:
    options = {"lower_order_final": True} if "Singlestep" in kind.__name__ else {}
    scheduler = kind(beta_start=0.00085, beta_end=0.012, **options)
    scheduled, random = Scheduled(), torch.get_rng_state()
    name = scheduled.name(scheduler)
    assert torch.equal(torch.get_rng_state(), random)
    assert "," not in name  # nothing differs from its configuration
    for steps in (5, 7):  # PNDM takes four or more
        requested(scheduler, num_inference_steps=steps)
        assert scheduled.name(scheduler) == name
    assert Scheduled().name(scheduler) == name
    for attribute in OUTLASTING & vars(scheduler).keys():
        original = getattr(scheduler, attribute)
        setattr(scheduler, attribute, changed(original))
        assert f", {attribute} " in scheduled.name(scheduler)
        setattr(scheduler, attribute, original)
        assert scheduled.name(scheduler) == name
    scheduler.order = 3  # of its class, shadowed
    assert scheduled.name(scheduler) == f"{name}, order 3"


def test_timesteps_of_a_requests_own() -> None:
    scheduler = diffusers.LCMScheduler()
    scheduled = Scheduled()
    name = scheduled.name(scheduler)
    scheduler.set_timesteps(timesteps=[799, 599, 399])
    assert scheduled.name(scheduler) == name


def test_between_requests(pipe: Any) -> None:
    """Each leads elsewhere, as diffusers draws it, and is refused until it is put back."""
    original = pipe.scheduler
    for attribute, value in (
        ("init_noise_sigma", 3.0),
        ("final_alpha_cumprod", torch.tensor(0.5)),
        ("alphas_cumprod", original.alphas_cumprod * 0.9),
    ):
        pipe.scheduler = DDIMScheduler.from_config(original.config)
        bare = draw(pipe, ["a cat"])
        before = getattr(pipe.scheduler, attribute)
        calibration = guarded_at(pipe, 1e6)
        setattr(pipe.scheduler, attribute, value)
        assert not torch.equal(draw(pipe, ["a cat"]), bare)
        with Guard(pipe, calibration=calibration):
            with pytest.raises(CalibrationError, match=f"scheduler is DDIM.*, {attribute} "):
                draw(pipe, ["a cat"])
            setattr(pipe.scheduler, attribute, before)
            assert torch.equal(draw(pipe, ["a cat"]), bare)
    pipe.scheduler = original


def test_what_cannot_be_told() -> None:
    class Own(EulerDiscreteScheduler):  # type: ignore[misc]
        def step(self, *_: Any, **__: Any) -> Any:
            raise ValueError("not today")

    with pytest.raises(InputError, match="where this Own leads: a trial of it failed: not today"):
        Scheduled().name(Own())
    scheduler = DDIMScheduler()
    scheduler.init_noise_sigma = lambda: 3
    with pytest.raises(InputError, match=r"init_noise_sigma is .*lambda"):
        Scheduled().name(scheduler)


def test_another_class_of_the_same_name_is_another_scheduler(pipe: Any) -> None:
    theirs = DDIMScheduler.from_config(pipe.scheduler.config)
    other = type("DDIMScheduler", (DDIMScheduler,), {"__module__": "mine"})
    assert Scheduled().name(theirs).startswith("DDIMScheduler ")
    assert Scheduled().name(other.from_config(theirs.config)).startswith("mine.DDIMScheduler ")
