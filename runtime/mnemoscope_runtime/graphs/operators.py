"""Operators that graphs may use: what exports of diffusion models are made of, and their like.

All compute the same outputs of the same inputs, in a number of steps that shapes alone decide. None
draws random numbers, loops, branches, holds state, or handles text, files or sequences. Each line
says how many inputs and outputs one has, and its attributes, with ! where it must have them: some
libraries crash where an input is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["DESCRIPTORS", "DOMAINS", "ELSEWHERE", "OPERATORS", "OPSETS", "Operator"]

DOMAINS = ("", "ai.onnx")  # two names of one
OPSETS = (14, 28)  # from the oldest that Optimum wrote to the newest that is released

_MANY = 2**12  # where there is no limit
_OPERATORS = """
Abs 1 1
Add 2 1
And 2 1
ArgMax 1 1 axis:int keepdims:int select_last_index:int
Attention 3..7 1..4 is_causal:int kv_num_heads:int left_window_size:int q_num_heads:int \\
    qk_matmul_output_mode:int right_window_size:int scale:float softcap:float \\
    softmax_precision:int
Cast 1 1 round_mode:string saturate:int to:int!
CastLike 2 1 round_mode:string saturate:int
Ceil 1 1
Clip 1..3 1
Concat 1.. 1 axis:int!
Constant 0 1 value:tensor value_float:float value_floats:floats value_int:int value_ints:ints
ConstantOfShape 1 1 value:tensor
Conv 2..3 1 auto_pad:string dilations:ints group:int kernel_shape:ints pads:ints strides:ints
Cos 1 1
Div 2 1
Einsum 1.. 1 equation:string!
Equal 2 1
Erf 1 1
Exp 1 1
Expand 2 1
Flatten 1 1 axis:int
Floor 1 1
Gather 2 1 axis:int
GatherND 2 1 batch_dims:int
Gelu 1 1 approximate:string
Gemm 2..3 1 alpha:float beta:float transA:int transB:int
Greater 2 1
GreaterOrEqual 2 1
GroupNormalization 3 1 epsilon:float num_groups:int! stash_type:int
Identity 1 1
InstanceNormalization 3 1 epsilon:float
IsNaN 1 1
LayerNormalization 2..3 1..3 axis:int epsilon:float stash_type:int
Less 2 1
LessOrEqual 2 1
Log 1 1
MatMul 2 1
Max 1.. 1
Min 1.. 1
Mish 1 1
Mul 2 1
Neg 1 1
Not 1 1
Or 2 1
Pad 2..4 1 mode:string
Pow 2 1
RMSNormalization 2 1 axis:int epsilon:float stash_type:int
Range 3 1 stash_type:int
Reciprocal 1 1
ReduceL2 1..2 1 axes:ints keepdims:int noop_with_empty_axes:int
ReduceMax 1..2 1 axes:ints keepdims:int noop_with_empty_axes:int
ReduceMean 1..2 1 axes:ints keepdims:int noop_with_empty_axes:int
ReduceMin 1..2 1 axes:ints keepdims:int noop_with_empty_axes:int
ReduceSum 1..2 1 keepdims:int noop_with_empty_axes:int
ReduceSumSquare 1..2 1 axes:ints keepdims:int noop_with_empty_axes:int
Relu 1 1
Reshape 2 1 allowzero:int
Resize 1..4 1 antialias:int axes:ints coordinate_transformation_mode:string cubic_coeff_a:float \\
    exclude_outside:int extrapolation_value:float keep_aspect_ratio_policy:string mode:string \\
    nearest_mode:string
RotaryEmbedding 3..4 1 interleaved:int num_heads:int rotary_embedding_dim:int
Shape 1 1 end:int start:int
Sigmoid 1 1
Sin 1 1
Size 1 1
Slice 3..5 1
Softmax 1 1 axis:int
Softplus 1 1
Split 1..2 1.. axis:int num_outputs:int
Sqrt 1 1
Squeeze 1..2 1
Sub 2 1
Sum 1.. 1
Swish 1 1 alpha:float
Tanh 1 1
Tile 2 1
Transpose 1 1 perm:ints
Unsqueeze 2 1
Where 3 1
"""
# what exports have before a bundle is made of them, and copy descriptors: ONNX Runtime alone sees
# these, which checks them; OpenVINO writes outside its memory at an odd Trilu
_ELSEWHERE = """
AveragePool 1 1 auto_pad:string ceil_mode:int count_include_pad:int dilations:ints \\
    kernel_shape:ints! pads:ints strides:ints
BatchNormalization 5 1..3 epsilon:float momentum:float training_mode:int
GatherElements 2 1 axis:int
GlobalAveragePool 1 1
MaxPool 1 1..2 auto_pad:string ceil_mode:int dilations:ints kernel_shape:ints! pads:ints \\
    storage_order:int strides:ints
Mod 2 1 fmod:int
ReduceProd 1..2 1 axes:ints keepdims:int noop_with_empty_axes:int
ScatterND 3 1 reduction:string
Sign 1 1
Trilu 1..2 1 upper:int
"""
# copy descriptors that are quantised; a bundle is never made of these
_QUANTISED = """
DequantizeLinear 2..3 1 axis:int block_size:int output_dtype:int
QuantizeLinear 2..3 1 axis:int block_size:int output_dtype:int precision:int saturate:int
"""


@dataclass(frozen=True)
class Operator:
    """How a node of it looks, in any of the opsets.

    Attributes:
        inputs: From so many to so many.
        outputs: Likewise.
        attributes: Their types by name.
        required: Those that it must have.
    """

    inputs: tuple[int, int]
    outputs: tuple[int, int]
    attributes: Mapping[str, str]
    required: frozenset[str]

    @classmethod
    def parse(cls, inputs: str, outputs: str, *attributes: str) -> Operator:
        """One of a line, without its name."""
        named = [each.rstrip("!").split(":") for each in attributes]
        return cls(
            _range(inputs),
            _range(outputs),
            dict(named),
            frozenset(each.partition(":")[0] for each in attributes if each.endswith("!")),
        )


def _range(text: str) -> tuple[int, int]:
    low, dots, high = text.partition("..")
    return int(low), int(high or (_MANY if dots else low))


def _parse(table: str) -> dict[str, Operator]:
    lines = [line.split() for line in table.strip().replace("\\\n", " ").splitlines()]
    return {name: Operator.parse(*rest) for name, *rest in lines}


OPERATORS: Mapping[str, Operator] = _parse(_OPERATORS)
ELSEWHERE: Mapping[str, Operator] = {**OPERATORS, **_parse(_ELSEWHERE)}
DESCRIPTORS: Mapping[str, Operator] = {**ELSEWHERE, **_parse(_QUANTISED)}
