"""Guard a diffusers pipeline: benign prompts set the threshold, flagged images are not drawn."""

from mnemoscope import embedded
from mnemoscope.drawing.generate import load_pipeline
from mnemoscope.guard import Guard, MemorizationBlocked, calibrate_guard

STEPS = 20  # what requests will use: it decides at which timestep the guard looks

pipe = load_pipeline()  # or any StableDiffusionPipeline, StableDiffusionXLPipeline, ...
benign = [row.prompt for row in embedded.read_prompts("calibration")[:60]]
calibration = calibrate_guard(pipe, benign, fpr=0.05, batch=20, num_inference_steps=STEPS)

with Guard(pipe, calibration=calibration, policy="block") as guard:
    for prompt in ("google icon of tokyo tower, on rings, in zagreb 2020", "a quiet harbour"):
        try:
            image = pipe(prompt, num_inference_steps=STEPS).images[0]
            what = f"drawn, {image.width}x{image.height}"
        except MemorizationBlocked:
            what = "blocked after one step"
        [decision] = guard.decisions
        print(f"{decision.score:.3f} of {decision.threshold:.3f}  {what}: {prompt}")
