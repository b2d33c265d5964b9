"""The graphs of a bundle, composed from those of an ONNX export.

What goes in and comes out is float32 whatever the export's type, and so is what is done with the
UNet's output: the difference of two close tensors cancels, and squares summed in half overflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from mnemoscope_runtime.units import PredictionType

from .compose import Composer
from .cut import evaluate_boundary
from .evaluate import fit

__all__ = ["screen_graph", "step_graph", "text_encoder_graph"]

_FLOAT, _INT64 = ir.DataType.FLOAT, ir.DataType.INT64
Array = NDArray[np.float32]


def text_encoder_graph(text: ir.Model, width: tuple[int, int]) -> ir.Model:
    """input_ids [B, L] -> prompt_embeds [B, L, D].

    Args:
        text: A text encoder.
        width: (L, D)
    """
    graph = Composer("text_encoder", text.graph.opset_imports[""])
    ids = graph.input("input_ids", _INT64, ("batch", width[0]))
    embeds = graph.cast(_embed(graph, text, ids), _FLOAT)
    return graph.model({"prompt_embeds": (embeds, ("batch", *width))})


def step_graph(
    unet: ir.Model,
    width: tuple[int, int],
    latent_shape: tuple[int, int, int],
    kind: PredictionType,
    abar: NDArray[np.float64],
) -> ir.Model:
    """One step of sampling: both branches in one UNet call, the magnitude reduced in the graph.

    prompt_embeds [B, L, D], empty_embeds [1, L, D], latents [B, C, H, W], timestep []
    -> magnitude [B], eps_cond [B, C, H, W], eps_uncond [B, C, H, W]

    Args:
        unet: A UNet.
        width: (L, D)
        latent_shape: (C, H, W)
        kind: What the UNet predicts.
        abar: alpha-bar. # [num_train_timesteps]
    """
    graph = Composer("step", unet.graph.opset_imports[""])
    prompt = graph.input("prompt_embeds", _FLOAT, ("batch", *width))
    empty = graph.input("empty_embeds", _FLOAT, (1, *width))
    latents = graph.input("latents", _FLOAT, ("batch", *latent_shape))
    timestep = graph.input("timestep", _INT64, ())

    zero, one = graph.constant([0], "zero"), graph.constant([1], "one")
    batch = graph.op("Gather", graph.op("Shape", latents), zero)
    empties = graph.op("Expand", empty, graph.op("Concat", batch, one, one, axis=0))
    context = _typed(graph.op("Concat", empties, prompt, axis=0), _FLOAT)
    both = _typed(graph.op("Concat", latents, latents, axis=0), _FLOAT)
    output = _predict(graph, unet, sample=both, timestep=timestep, encoder_hidden_states=context)
    branches = graph.constant([2, -1, *latent_shape], "branches")
    pair = graph.op("Reshape", graph.cast(output, _FLOAT), branches)
    eps = [
        graph.op("Gather", pair, graph.constant(np.int64(i), name), axis=0)
        for i, name in enumerate(("first", "second"))
    ]
    if kind == "v_prediction":
        keep, noise = (
            graph.op("Gather", graph.constant(np.sqrt(share).astype(np.float32), name), timestep)
            for name, share in (("sqrt_abar", abar), ("sqrt_noise", 1 - abar))
        )
        noised = graph.op("Mul", noise, latents)
        eps = [graph.op("Add", graph.op("Mul", keep, v), noised) for v in eps]
    uncond, cond = eps
    flat = [
        graph.op("Reshape", part, graph.constant([-1, int(np.prod(latent_shape))], name))
        for part, name in ((cond, "flat"), (uncond, "flat_uncond"))
    ]
    shape = ("batch", *latent_shape)
    return graph.model(
        {
            "magnitude": (_norm(graph, *flat), ("batch",)),
            "eps_cond": (cond, shape),
            "eps_uncond": (uncond, shape),
        }
    )


def screen_graph(
    text: ir.Model,
    unet: ir.Model,
    width: tuple[int, int],
    bank: Array,
    uncond: Array,
    timestep: int,
    scale: float,
    folder: Path,
) -> ir.Model:
    """The first step on a fixed noise bank, one UNet pass per prompt and noise.

    input_ids [B, L], noise_index [m] -> magnitude [B, m]

    What the UNet computes without the prompt is a constant of the graph.

    Args:
        text: A text encoder.
        unet: A UNet.
        width: (L, D)
        bank: Initial noises x_T. # [noises, C, H, W]
        uncond: The UNet's output for them without a prompt. # [noises, C, H, W]
        timestep: What the UNet is told of the noises.
        scale: What a distance of two outputs is multiplied by to be in eps units.
        folder: Where the UNet's weights are.
    """
    graph = Composer("screen", unet.graph.opset_imports[""])
    ids = graph.input("input_ids", _INT64, ("batch", width[0]))
    noise_index = graph.input("noise_index", _INT64, ("noises",))

    zero, one = graph.constant([0], "zero"), graph.constant([1], "one")
    batch, noises = (graph.op("Gather", graph.op("Shape", v), zero) for v in (ids, noise_index))
    grid = graph.op("Concat", batch, noises, axis=0)
    minus = graph.constant([-1], "minus")
    rows = graph.op("Reshape", graph.op("Expand", noise_index, grid), minus)  # [B * m]

    embeds = _embed(graph, text, ids)
    spread = graph.op(
        "Expand",
        graph.op("Unsqueeze", embeds, one),
        graph.op("Concat", batch, noises, one, one, axis=0),
    )
    context = graph.op("Reshape", spread, graph.constant([-1, *width], "contexts"))
    context = _typed(context, embeds.dtype)

    typed = fit(unet.graph, {"sample": bank, "timestep": np.asarray(timestep)})
    noise = typed.pop("sample")
    known = evaluate_boundary(unet, "encoder_hidden_states", typed, noise, folder)
    bound = {}
    for i, (value, array) in enumerate(known.constant.items()):
        bound[value] = graph.constant(array, f"constant.{i}")
    for i, (value, array) in enumerate(known.per_noise.items()):
        merged = [-1, *array.shape[2:]]
        stored = array[:, 0] if array.shape[1] == 1 else array
        picked = graph.op("Gather", graph.constant(stored, f"noise.{i}"), rows, axis=0)
        if array.shape[1] != 1:
            picked = graph.op("Reshape", picked, graph.constant(merged, f"merged.{i}"))
        bound[value] = picked
    output = _predict(graph, unet, bound, encoder_hidden_states=context)

    each = graph.op("Concat", batch, noises, minus, axis=0)
    cond = graph.op("Reshape", graph.cast(output, _FLOAT), each)
    flat = graph.constant(uncond.reshape(len(uncond), -1), "uncond")
    norm = _norm(graph, cond, graph.op("Gather", flat, noise_index, axis=0))
    if scale != 1:
        norm = graph.op("Mul", norm, graph.constant(np.float32(scale), "to_eps"))
    return graph.model({"magnitude": (norm, ("batch", "noises"))})


def _embed(graph: Composer, text: ir.Model, ids: ir.Value) -> ir.Value:
    (source,) = text.graph.inputs
    embeds = graph.inline(text.graph, {source: graph.cast(ids, source.dtype)}, text.graph.outputs)
    return embeds[0]


def _predict(
    graph: Composer,
    unet: ir.Model,
    bound: Mapping[ir.Value, ir.Value] | None = None,
    /,
    **inputs: ir.Value,
) -> ir.Value:
    """The output of a UNet on these inputs, whose types may differ from what it wants."""
    bound = dict(bound or {})
    for source in unet.graph.inputs:
        if str(source.name) in inputs:
            value = graph.cast(inputs[str(source.name)], source.dtype)
            if source.name == "timestep" and len(source.shape or ()) == 1:
                value = graph.op("Reshape", value, graph.constant([1], "one_timestep"))
            bound[source] = value
    return graph.inline(unet.graph, bound, unet.graph.outputs)[0]


def _norm(graph: Composer, cond: ir.Value, uncond: ir.Value) -> ir.Value:
    """|| cond - uncond ||_2 over the last axis, in fp32."""
    difference = graph.op("Sub", cond, uncond)
    square = graph.op("Mul", difference, difference)
    last = graph.constant([-1], "last")
    return graph.op("Sqrt", graph.op("ReduceSum", square, last, keepdims=0))


def _typed(value: ir.Value, dtype: ir.DataType | None) -> ir.Value:
    assert dtype is not None
    value.type = ir.TensorType(dtype)
    return value
