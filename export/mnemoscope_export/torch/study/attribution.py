"""How far each token moves the magnitude: the norm of its gradient.

Wen et al. (ICLR 2024), section 4: the magnitude is differentiated at every x_t of the way that the
sampler takes with its own guidance; the way itself is not. In the code that they published the
prompt stands where the sampler expects the empty prompt, and the other way round: the norm is
symmetric, so its first step is the same, but its later ones lie on a way guided away from the
prompt. This follows the paper.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mnemoscope_runtime.errors import NumericsError

from ...models import Embeds, Model
from ..reference import denoise
from .gradients import magnitude_of

__all__ = ["Place", "token_gradients"]

Place = Literal["input", "output"]
_POSITIONS = (
    8192  # latent positions that are differentiated at once, so that 64x64 go two at a time
)


def token_gradients(
    model: Model,
    input_ids: Tensor,
    noises: Tensor,
    *,
    steps: int = 1,
    inference_steps: int | None = None,
    guidance: float | None = None,
    place: Place = "input",
) -> Tensor:
    """|| d m_t / d e_k ||_2 for the embedding e_k of every token k.

    Args:
        model: A model; its parameters need no gradients. One thread at a time.
        input_ids: Of one prompt. # [1, L]
        noises: Initial noises x_T. # [n, C, H, W]
        steps: The first `steps` steps of sampling.
        inference_steps: Steps of a whole image; None for as many as the family's pipeline takes.
        guidance: Scale of classifier-free guidance; None for that pipeline's.
        place: "input": the token embeddings that the text encoders look up, of all encoders
            together. "output": the text encoder's output, as in the paper; of Stable Diffusion XL
            and 3 the hidden states of both, without the pooled state, which belongs to no token.

    Returns:
        # [noise, step, L], fp32, on the CPU

    Raises:
        NumericsError: one of them is NaN or infinite.
    """
    _, height, width = model.latent_shape
    size = max(1, _POSITIONS // (height * width))
    walks = [
        _walk(model, input_ids, chunk, steps, inference_steps, guidance, place)
        for chunk in torch.split(noises, size)
    ]
    norms = torch.cat(walks)
    if not norms.isfinite().all():
        raise NumericsError(
            f"A gradient of the magnitude is NaN or infinite in {model.network.dtype}: that "
            "explains nothing. Load the model in float32, or explain by occlusion."
        )
    return norms


def _walk(
    model: Model,
    input_ids: Tensor,
    noises: Tensor,
    steps: int,
    inference_steps: int | None,
    guidance: float | None,
    place: Place,
) -> Tensor:
    """# [noise, step, L]"""
    network = model.network
    ids = input_ids.to(network.device).expand(len(noises), -1)
    with torch.no_grad():
        embeds = model.encode(ids)
    latents = noises.to(network.device, network.dtype)
    norms = []
    walk = denoise(model, embeds, latents, inference_steps=inference_steps, guidance=guidance)
    for step in itertools.islice(walk, steps):
        with torch.enable_grad():
            told, leaves = _differentiable(model, ids, place)
            found = magnitude_of(model, told, latents, step.timestep, step.uncond)
            parts = torch.autograd.grad(found.sum(), leaves)  # samples do not mix
        squares = [part.float().square().sum(-1) for part in parts]  # [n, L] each
        norms.append(torch.stack(squares).sum(0).sqrt().cpu())
        latents = step.latents
    return torch.stack(norms, 1)


def _differentiable(model: Model, ids: Tensor, place: Place) -> tuple[Embeds, list[Tensor]]:
    """What the network is told, and the tensors of it to differentiate by. # [n, L, D] each"""
    if place == "input":
        with _leaves(model) as leaves:
            return model.encode(ids), leaves
    with torch.no_grad():
        first, *others = model.encode(ids)
    leaf = first.detach().requires_grad_()
    return (leaf, *others), [leaf]


@contextmanager
def _leaves(model: Model) -> Iterator[list[Tensor]]:
    """Has what every text encoder looks up for its tokens become leaves of the graph."""
    found: list[Tensor] = []

    def cut(module: nn.Module, inputs: object, output: Tensor) -> Tensor:  # noqa: ARG001
        found.append(output.detach().requires_grad_())
        return found[-1]

    encoders: list[Any] = [
        part for name, part in model.parts.items() if name.startswith("text_encoder")
    ]
    looked_up = [
        layer
        for each in encoders
        for layer in each.modules()  # T5 has two of one weight, and asks the second
        if isinstance(layer, nn.Embedding) and layer.weight is each.get_input_embeddings().weight
    ]
    handles = [each.register_forward_hook(cut) for each in looked_up]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
