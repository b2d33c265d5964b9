"""The paper's metric on any diffusers Stable Diffusion, in PyTorch, step by step."""

import argparse

from mnemoscope import embedded
from mnemoscope_export import StableDiffusion, denoise, magnitude, noise_bank

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", nargs="?", default=embedded.MODEL, help="directory; else the embedded")
model = StableDiffusion.load(parser.parse_args().model)
prompt = embedded.read_prompts("memorized")[0].prompt
noises = noise_bank(2, model.latent_shape, seed=0)

print(prompt)
for step in denoise(model, model.embed([prompt, prompt]), noises, inference_steps=50):
    if step.timestep % 100 == 81:
        values = magnitude(step.cond, step.uncond).tolist()
        print(f"t={step.timestep:4}", *(f"{value:.4f}" for value in values))
