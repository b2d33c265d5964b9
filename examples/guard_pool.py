"""Serve from several threads: a pool of guarded pipelines that share their weights."""

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from diffusers import StableDiffusionPipeline

from mnemoscope import embedded
from mnemoscope.drawing.generate import load_pipeline
from mnemoscope.guard import Guard, MemorizationBlocked, calibrate_guard, replicate

STEPS, WORKERS = 8, 2

first = load_pipeline()  # or any StableDiffusionPipeline, StableDiffusionXLPipeline, ...
benign = [row.prompt for row in embedded.read_prompts("calibration")[:60]]
calibration = calibrate_guard(first, benign, fpr=0.05, batch=20, num_inference_steps=STEPS)

# one pipeline draws one request at a time; each of these has a scheduler and a guard of its own
pipes = [first, *(replicate(first) for _ in range(WORKERS - 1))]
guards = [Guard(pipe, calibration=calibration, policy="block") for pipe in pipes]
free: queue.SimpleQueue[StableDiffusionPipeline] = queue.SimpleQueue()
for pipe in pipes:
    free.put(pipe)


@contextmanager
def a_pipeline() -> Iterator[StableDiffusionPipeline]:
    """One that nobody else draws with; waits for it."""
    pipe = free.get()
    try:
        yield pipe
    finally:
        free.put(pipe)


def serve(prompt: str) -> str:
    with a_pipeline() as pipe:
        try:
            image = pipe(prompt, num_inference_steps=STEPS).images[0]
        except MemorizationBlocked:
            return "blocked"
    return f"drawn, {image.width}x{image.height}"


prompts = ["google icon of tokyo tower, on rings, in zagreb 2020", "a quiet harbour"] * 4
with ThreadPoolExecutor(WORKERS) as workers:
    for prompt, what in zip(prompts, workers.map(serve, prompts), strict=True):
        print(f"{what}: {prompt}")
for guard in guards:
    guard.detach()
