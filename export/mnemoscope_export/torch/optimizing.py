"""What the exporter's graphs lose: constants that can be folded, nodes that do nothing or repeat.

This is onnxscript's own optimiser with the rules that find something in these networks. One of the
others, which looks for pairs of slices, reads the whole graph at every node of it.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import Sequential
from onnx_ir.passes import common as passes
from onnxscript.optimizer import fold_constants
from onnxscript.rewriter import RewriteRuleSet, rewrite
from onnxscript.rewriter.rules import common as rules

__all__ = ["optimize"]

_NEWER = (  # than the lowest onnxscript: it came with 0.7.2
    [rules.materialize_reshape_shape_rule]
    if hasattr(rules, "materialize_reshape_shape_rule")
    else []
)
_RULES = RewriteRuleSet(
    [
        *rules.mul_by_1_rule.commute(),
        *rules.add_0_rule.commute(),
        rules.sub_0_rule,
        rules.div_by_1_rule,
        rules.collapse_slice_rule,
        rules.collapse_slice2_rule,
        *_NEWER,
        rules.cast_cast_rule,
        rules.no_op_cast_rule,
        rules.no_op_expand_rule,
        rules.reshape_reshape_rule,
        rules.no_op_transpose_rule,
        rules.transpose_transpose_rule,
        rules.unsqueeze_unsqueeze_rule,
        rules.squeeze_reshape_1d_rule,
    ]
)
_ROUNDS = 2  # what the first simplifies, the second folds
_TIDY = Sequential(
    passes.RemoveUnusedNodesPass(),
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    passes.LiftSubgraphInitializersToMainGraphPass(),
    passes.DeduplicateInitializersPass(),
    passes.CommonSubexpressionEliminationPass(),
    passes.OutputFixPass(),
    passes.NameFixPass(),
)


def optimize(model: ir.Model) -> None:
    """Simplify a graph in place; what it computes stays the same."""
    passes.InlinePass()(model)
    for _ in range(_ROUNDS):
        fold_constants(model, onnx_shape_inference=True)
        rewrite(model, _RULES)
    _TIDY(model)
