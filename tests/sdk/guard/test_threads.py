"""One call at a time on a guarded pipeline, and many at a time on replicas of it."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLAutoBlocks,
)
from guard_support import STEPS, draw, guarded_at
from pipelines import build_pipeline, build_xl

from mnemoscope import CalibrationError, InputError, embedded
from mnemoscope.drawing.generate import load_pipeline
from mnemoscope.guard import (
    Guard,
    MemorizationBlocked,
    PipelineBusy,
    calibrate_guard,
    replicate,
)

pytestmark = pytest.mark.slow

PROMPTS = ["a cat", "a dog"]
TOWER, HARBOUR = "google icon of tokyo tower, on rings, in zagreb 2020", "a quiet harbour"


@pytest.fixture
def pipe() -> Any:
    found = build_pipeline("epsilon")
    found.set_progress_bar_config(disable=True)
    return found


class Held:
    """A callback at which a request waits, so that another one comes meanwhile."""

    def __init__(self) -> None:
        self.reached, self.go = threading.Event(), threading.Event()

    def __call__(self, *args: Any) -> dict[str, Any]:
        self.reached.set()
        assert self.go.wait(60)
        told: dict[str, Any] = args[-1]
        return told


@pytest.fixture
def workers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as found:
        yield found


def test_a_second_call_raises_at_once_and_the_first_goes_on(
    pipe: Any, workers: ThreadPoolExecutor
) -> None:
    expected, held = draw(pipe, PROMPTS), Held()
    with Guard(pipe) as guard:
        first = workers.submit(draw, pipe, PROMPTS, callback_on_step_end=held)
        assert held.reached.wait(60)
        with pytest.raises(PipelineBusy, match=r"drawing already.*a pool"):
            draw(pipe, PROMPTS)
        with pytest.raises(PipelineBusy):
            guard.detach()
        held.go.set()
        assert torch.equal(first.result(), expected)
        assert len(guard.decisions) == 2
        assert torch.equal(draw(pipe, PROMPTS), expected)


def test_a_call_of_its_own_callback(pipe: Any) -> None:
    def again(own: Any, *_: Any) -> dict[str, Any]:
        own(prompt="a dog", num_inference_steps=STEPS)
        return {}

    with Guard(pipe), pytest.raises(PipelineBusy):
        draw(pipe, PROMPTS, callback_on_step_end=again)
    draw(pipe, PROMPTS)


def test_asynchronous_requests(pipe: Any) -> None:
    async def serve() -> list[Any]:
        held = Held()
        first = asyncio.create_task(
            asyncio.to_thread(draw, pipe, PROMPTS, callback_on_step_end=held)
        )
        await asyncio.to_thread(held.reached.wait, 60)
        second = asyncio.create_task(asyncio.to_thread(draw, pipe, PROMPTS))
        await asyncio.wait([second])
        held.go.set()
        return await asyncio.gather(first, second, return_exceptions=True)

    with Guard(pipe):
        first, second = asyncio.run(serve())
    assert isinstance(first, torch.Tensor)
    assert isinstance(second, PipelineBusy)


def test_two_calibrations_at_once(pipe: Any, workers: ThreadPoolExecutor) -> None:
    benign, held = [f"{i} cats" for i in range(12)], Held()
    call: dict[str, Any] = {"fpr": 0.3, "num_inference_steps": STEPS, "batch": 12}
    first = workers.submit(
        calibrate_guard, pipe, benign, steps=2, callback_on_step_end=held, **call
    )
    assert held.reached.wait(60)
    with pytest.raises(PipelineBusy):
        calibrate_guard(pipe, benign, **call)
    held.go.set()
    assert first.result().setting.steps == 2
    assert type(pipe) is StableDiffusionPipeline


@pytest.mark.parametrize("in_callback", [False, True])
def test_another_pipeline_of_the_same_parts_meanwhile(
    pipe: Any, workers: ThreadPoolExecutor, in_callback: bool
) -> None:
    """It is not guarded, and the guard takes nothing of it for its own."""
    calibration = guarded_at(pipe, 1e6)
    with Guard(pipe, calibration=calibration) as guard:
        expected = draw(pipe, PROMPTS)
        found = guard.decisions
        parts = {**pipe.components, "scheduler": copy.deepcopy(pipe.scheduler)}
        other = StableDiffusionPipeline(**parts, requires_safety_checker=False)
        other.set_progress_bar_config(disable=True)
        alone = draw(other, ["a house"])

        def meanwhile(_: Any, __: int, ___: Any, told: dict[str, Any]) -> dict[str, Any]:
            drawn = (
                draw(other, ["a house"])
                if in_callback
                else workers.submit(draw, other, ["a house"]).result()
            )
            assert torch.equal(drawn, alone)
            return told

        assert torch.equal(draw(pipe, PROMPTS, callback_on_step_end=meanwhile), expected)
        assert [each.score for each in guard.decisions] == [each.score for each in found]


def test_the_class_of_a_guarded_pipeline_guards_no_other(pipe: Any) -> None:
    """It drew with the first one's UNet once."""
    others: list[Any] = []
    with Guard(pipe, calibration=guarded_at(pipe, 1e6)):
        others = [
            type(pipe)(**pipe.components, requires_safety_checker=False),
            copy.copy(pipe),
            copy.deepcopy(pipe),
        ]
        for other in others:
            with pytest.raises(InputError, match="copy of a guarded one"):
                draw(other, PROMPTS)
            with pytest.raises(InputError, match="copy of a guarded one"):
                Guard(other)
        for each in (pipe, others[1]):
            with pytest.raises(InputError, match=r"cannot be pickled: .* after `detach`"):
                pickle.dumps(each)
        made = StableDiffusionImg2ImgPipeline.from_pipe(pipe)
        assert type(made) is StableDiffusionImg2ImgPipeline


@pytest.mark.parametrize("build", [lambda: build_pipeline("epsilon"), build_xl])
def test_replicas_draw_the_same_and_share_nothing_but_memory(build: Any) -> None:
    pipe = build()
    size = {"height": 16, "width": 16}
    expected = draw(pipe, PROMPTS, **size)
    with Guard(pipe):
        other = replicate(pipe)
    assert type(other) is type(pipe)
    assert torch.equal(draw(other, PROMPTS, **size), expected)
    for name in ("unet", "text_encoder", "vae"):
        mine, its = getattr(pipe, name), getattr(other, name)
        assert mine is not its
        pairs = list(zip(mine.parameters(), its.parameters(), strict=True))
        assert pairs
        assert all(a is not b and a.data_ptr() == b.data_ptr() for a, b in pairs)
    assert other.scheduler is not pipe.scheduler
    assert other.tokenizer is not pipe.tokenizer
    other.enable_freeu(0.9, 0.2, 1.2, 1.4)
    other.vae.to(torch.bfloat16)  # as XL's pipelines do and undo
    assert torch.equal(draw(pipe, PROMPTS, **size), expected)


def test_a_modular_pipelines_replica() -> None:
    classic = build_xl()
    pipe = StableDiffusionXLAutoBlocks().init_pipeline()
    parts = {k: v for k, v in classic.components.items() if k in pipe.component_names}
    pipe.update_components(**{name: part for name, part in parts.items() if part is not None})
    other = replicate(pipe)
    assert other.guider is not pipe.guider
    size = {"height": 16, "width": 16}
    assert torch.equal(draw(other, PROMPTS, **size), draw(pipe, PROMPTS, **size))
    assert other.unet is not pipe.unet


def test_what_cannot_be_replicated(pipe: Any) -> None:
    compiled = copy.deepcopy(pipe)
    compiled.unet.compile(backend="eager")
    with pytest.raises(InputError, match=r"unet is compiled\. Replicate the pipeline first"):
        replicate(compiled)
    cpu_offload(pipe.unet, execution_device="cpu")
    with pytest.raises(InputError, match="unet is offloaded"):
        replicate(pipe)


@pytest.fixture(scope="module")
def reciting() -> tuple[Any, Any]:
    """The embedded model, and a calibration that flags the tower and not the harbour."""
    pipe = load_pipeline()
    benign = [row.prompt for row in embedded.read_prompts("calibration")[:60]]
    return pipe, calibrate_guard(pipe, benign, fpr=0.05, batch=20, num_inference_steps=4)


def test_a_pool_blocks_what_is_memorised_and_nothing_else(reciting: tuple[Any, Any]) -> None:
    """Real threads, real requests: one pipeline let the tower through in five rounds of six."""
    pipe, calibration = reciting
    pipes = [pipe, replicate(pipe), replicate(pipe)]
    guards = [Guard(each, calibration=calibration, policy="block") for each in pipes]
    start = threading.Barrier(len(pipes))

    def serve(worker: int) -> list[tuple[str, bool]]:
        found = []
        start.wait(60)
        for turn in range(6):
            prompt = (TOWER, HARBOUR)[(worker + turn) % 2]
            try:
                pipes[worker](prompt, num_inference_steps=4, output_type="latent")
                found.append((prompt, False))
            except MemorizationBlocked:
                found.append((prompt, True))
        return found

    with ThreadPoolExecutor(len(pipes)) as workers:
        rounds = [each for part in workers.map(serve, range(len(pipes))) for each in part]
    for guard in guards:
        guard.detach()
    assert len(rounds) == 18
    assert all(blocked == (prompt == TOWER) for prompt, blocked in rounds)


def test_threads_on_one_pipeline_never_get_a_verdict_of_another(
    reciting: tuple[Any, Any],
) -> None:
    pipe, calibration = reciting
    outcomes: list[tuple[str, str]] = []

    def serve(prompt: str) -> None:
        for _ in range(4):
            try:
                pipe(prompt, num_inference_steps=4, output_type="latent")
                outcomes.append((prompt, "drawn"))
            except MemorizationBlocked:
                outcomes.append((prompt, "blocked"))
            except PipelineBusy:
                outcomes.append((prompt, "busy"))

    with Guard(pipe, calibration=calibration, policy="block"):
        threads = [threading.Thread(target=serve, args=(each,)) for each in (TOWER, HARBOUR)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert len(outcomes) == 8
    assert (TOWER, "drawn") not in outcomes
    assert (HARBOUR, "blocked") not in outcomes


def test_noise_of_another_thread_is_no_noise_of_the_request(pipe: Any) -> None:
    """With torch's own generator the second attempt may begin from elsewhere."""
    prompts = ["a cat", "a dog", "a house by the sea"]
    torch.manual_seed(0)
    with Guard(pipe) as guard:
        draw(pipe, prompts, generator=None)
    found = sorted(each.score for each in guard.decisions)
    calibration = guarded_at(pipe, (found[1] + found[2]) / 2)
    encode, calls = type(pipe).encode_prompt, []

    def encoding(*args: Any, **kwargs: Any) -> Any:  # what comes right before the noise
        calls.append(1)
        if len(calls) > 2:  # the guard's own of no prompt, and the first attempt's
            torch.rand(1)  # another thread
        return encode(*args, **kwargs)

    torch.manual_seed(0)
    with (
        pytest.MonkeyPatch.context() as patch,
        Guard(pipe, calibration=calibration, policy="mitigate"),
    ):
        patch.setattr(StableDiffusionPipeline, "encode_prompt", encoding)
        with pytest.raises(CalibrationError, match="did not come from the same noise"):
            draw(pipe, prompts, generator=None)
