"""What `mnemoscope_export.onnx` is made of, on graphs of a few nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from diffusers import DDIMScheduler, PNDMScheduler

from mnemoscope import ExportError
from mnemoscope_export.onnx.compose import Composer
from mnemoscope_export.onnx.cut import SHAPE, dependencies, evaluate_boundary
from mnemoscope_export.onnx.evaluate import evaluate
from mnemoscope_export.onnx.flops import count_flops
from mnemoscope_export.onnx.shapes import freeze_shapes
from mnemoscope_export.records import scheduler_record

FLOAT = ir.DataType.FLOAT


def toy_unet() -> ir.Model:
    """(sample^2 reshaped to [B, 6] + 2 t) * prompt, with shapes worked out while it runs."""
    graph = Composer("toy", 18)
    sample = graph.input("sample", FLOAT, ("b", 2, "w"))
    timestep = graph.input("timestep", FLOAT, ())
    prompt = graph.input("prompt", FLOAT, ("b", 6))
    square = graph.op("Mul", sample, sample)
    batch = graph.op("Gather", graph.op("Shape", square), graph.constant([0], "zero"))
    flat = graph.op("Concat", batch, graph.constant([-1], "rest"), axis=0)
    time = graph.op("Expand", timestep, graph.op("Concat", batch, graph.constant([1], "1"), axis=0))
    time = graph.op("Mul", time, graph.constant(np.float32([[2.0]]), "two"))
    rows = graph.op("Reshape", square, flat)
    out = graph.op("Mul", graph.op("Mul", prompt, rows), prompt)
    return graph.model({"out_sample": (graph.op("Add", out, time), ("b", 6))})


def feeds(batch: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0).standard_normal
    return {
        "sample": draw((batch, 2, 3), np.float32),
        "timestep": np.asarray(5, np.float32),
        "prompt": draw((batch, 6), np.float32),
    }


def test_dependencies() -> None:
    graph = toy_unet().graph
    known = {node.op_type: dependencies(graph)[node.outputs[0]] for node in graph}
    assert known["Shape"] == {SHAPE}
    assert known["Reshape"] == {"sample", SHAPE}
    assert known["Expand"] == {"timestep", SHAPE}
    assert known["Add"] == {"sample", "timestep", "prompt", SHAPE}


def test_frozen_shapes_serve_any_batch(tmp_path: Path) -> None:
    model = toy_unet()
    expected = evaluate(model, [feeds(3)], tmp_path)[0][0]
    freeze_shapes(model, feeds(1), tmp_path)
    (reshape,) = (node for node in model.graph if node.op_type == "Reshape")
    target = reshape.inputs[1]
    assert target is not None
    assert target.const_value is not None
    assert target.const_value.numpy().tolist() == [-1, 6]
    np.testing.assert_array_equal(evaluate(model, [feeds(3)], tmp_path)[0][0], expected)


def test_what_does_not_see_the_prompt_is_evaluated(tmp_path: Path) -> None:
    model, given = toy_unet(), feeds(3)
    freeze_shapes(model, feeds(1), tmp_path)
    fixed = {"timestep": given["timestep"]}
    boundary = evaluate_boundary(model, "prompt", fixed, given["sample"], tmp_path)
    (time,) = boundary.constant.values()
    np.testing.assert_array_equal(time, [[10.0]])
    (rows,) = boundary.per_noise.values()
    np.testing.assert_array_equal(rows, (given["sample"] ** 2).reshape(3, 1, 6))


def test_flops_are_those_of_the_formula() -> None:
    graph = Composer("arithmetic", 18)
    image = graph.input("image", FLOAT, ("batch", 4, 8, 8))
    draw = np.random.default_rng(0).standard_normal
    kernel = graph.constant(draw((6, 2, 3, 3), np.float32), "kernel")
    conv = graph.op("Conv", image, kernel, group=2, pads=[1, 1, 1, 1])
    flat = graph.op("Reshape", conv, graph.constant([-1, 384], "flat"))
    gemm = graph.op("Gemm", flat, graph.constant(draw((10, 384), np.float32), "w"), transB=1)
    last = graph.op("MatMul", gemm, graph.constant(draw((10, 7), np.float32), "v"))
    model = graph.model({"y": (last, ("batch", 7))})
    once = 2 * 6 * 64 * 2 * 9 + 2 * 10 * 384 + 2 * 7 * 10
    assert count_flops(model, {"batch": 1}) == once
    assert count_flops(model, {"batch": 3}) == 3 * once


def test_flops_of_unknown_shapes_are_not_guessed() -> None:
    graph = Composer("unknown", 18)
    x, shape = graph.input("x", FLOAT, (4, 4)), graph.input("shape", ir.DataType.INT64, (2,))
    product = graph.op("MatMul", graph.op("Reshape", x, shape), x)
    with pytest.raises(ExportError, match="cannot be counted"):
        count_flops(graph.model({"y": (product, None)}), {})


def test_schedules_mean_what_ddim_makes_of_them() -> None:
    """PNDM, Stable Diffusion 1's sampler, leaves out what DDIM has defaults for."""
    config = {k: v for k, v in PNDMScheduler(steps_offset=1).config.items() if k[0] != "_"}
    ddim = DDIMScheduler.from_config(config).config
    record = scheduler_record(config, "a model", 50)
    for name in ("beta_schedule", "beta_start", "num_train_timesteps", "timestep_spacing"):
        assert getattr(record, name) == ddim[name]
    assert record.set_alpha_to_one == ddim.set_alpha_to_one
    with pytest.raises(ExportError, match=r"a model cannot be used:\n  scheduler: beta_start"):
        scheduler_record({**config, "beta_start": "x"}, "a model", 50)
