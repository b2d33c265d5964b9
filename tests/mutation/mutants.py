"""Small changes to a module's source, each of which some test should notice.

Own code, since the kept tools do not fit: mutmut takes module names from paths (`sdk.mnemoscope...`
for ours) and cosmic-ray rewrites files that other processes import, and starts Python, with torch,
for every mutant. What is changed follows theirs. Not changed are messages (f-strings, what is
raised), annotations, decorators and text: comparisons with it are negated instead.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Mutant", "apply", "mutants"]

_COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_COMBINED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_PAIRS = (("min", "max"), ("any", "all"), ("floor", "ceil"))
_SWAPPED = dict(_PAIRS) | {b: a for a, b in _PAIRS}


@dataclass(frozen=True)
class Mutant:
    """A change.

    Attributes:
        line: Where it is, counted from 1.
        name: "function: before => after", numbered where that repeats; lines may move.
        node: Index of the changed node in `ast.walk`.
        choice: Which of the node's changes it is.
    """

    line: int
    name: str
    node: int
    choice: int


def mutants(source: str) -> list[Mutant]:
    """All of them, in the order of the lines."""
    tree = ast.parse(source)
    places = _places(tree, "module")
    found, seen = [], Counter[str]()
    for index, node in enumerate(ast.walk(tree)):
        if id(node) not in places:
            continue
        for choice, changed in enumerate(_changes(node)):
            name = f"{places[id(node)]}: {ast.unparse(node)} => {ast.unparse(changed)}"
            seen[name] += 1
            name += f" ({seen[name]})" if seen[name] > 1 else ""
            found.append(Mutant(node.lineno, name, index, choice))  # type: ignore[attr-defined]
    return sorted(found, key=lambda each: (each.line, each.node, each.choice))


def apply(source: str, mutant: Mutant) -> ast.Module:
    """The module, changed."""
    tree = ast.parse(source)
    old = next(node for index, node in enumerate(ast.walk(tree)) if index == mutant.node)
    return ast.fix_missing_locations(_Replace(old, list(_changes(old))[mutant.choice]).visit(tree))


def _places(node: ast.AST, function: str) -> dict[int, str]:
    """In which function the nodes are that may be changed, by their `id`."""
    found = {id(node): function} if isinstance(node, ast.expr | ast.stmt) else {}
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        function = node.name if function == "module" else f"{function}.{node.name}"
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "bases"):
            continue
        if field == "keywords" and isinstance(node, ast.ClassDef):
            continue
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                found |= _places(child, function)
    return found


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(left, ops, right):
            for k, op in enumerate(ops):
                for other in _COMPARED[type(op)]:
                    yield ast.Compare(left, [*ops[:k], other(), *ops[k + 1 :]], right)
        case ast.BinOp(left, op, right) if type(op) in _COMBINED:
            yield ast.BinOp(left, _COMBINED[type(op)](), right)
        case ast.AugAssign(target, op, value) if type(op) in _COMBINED:
            yield ast.AugAssign(target, _COMBINED[type(op)](), value)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield operand
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(float(value)):
            yield ast.Constant(2 * value or 1.0)
        case ast.Name(id) if id in _SWAPPED:
            yield ast.Name(_SWAPPED[id], node.ctx)
        case ast.Attribute(value, attr) if attr in _SWAPPED:
            yield ast.Attribute(value, _SWAPPED[attr], node.ctx)
        case ast.If(test, body, orelse) if isinstance(test, _TRUTHS):
            yield ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.IfExp(test, body, orelse) if isinstance(test, _TRUTHS):
            yield ast.IfExp(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.Return(value) if value is not None and not _is_none(value):
            yield ast.Return(ast.Constant(None))
        case ast.Raise() | ast.Expr(ast.Call()):
            yield ast.Pass()
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()


_TRUTHS = (ast.Name, ast.Attribute, ast.Call, ast.NamedExpr, ast.Subscript)


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self._new if node is self._old else self.generic_visit(node)
