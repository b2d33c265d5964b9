"""The paper's metric on any diffusers Stable Diffusion, in PyTorch, step by step."""

import sys

from mnemoscope import embedded
from mnemoscope_export import StableDiffusion, denoise, magnitude, noise_bank

model = StableDiffusion.load(sys.argv[1] if len(sys.argv) > 1 else embedded.MODEL)
prompt = embedded.read_prompts("memorized")[0].prompt
noises = noise_bank(2, model.latent_shape, seed=0)

print(prompt)
for step in denoise(model, model.embed([prompt, prompt]), noises, inference_steps=50):
    if step.timestep % 100 == 81:
        values = magnitude(step.cond, step.uncond).tolist()
        print(f"t={step.timestep:4}", *(f"{value:.4f}" for value in values))
