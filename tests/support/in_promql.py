"""`python in_promql.py`, in the environment of tritonclient: what PromQL's parser reads.

Reads queries, one JSON text a line. Writes of each, one JSON object a line, the series it asks for
with the labels that it compares, the labels that it groups by, and of which series it takes rates.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import promql_parser as promql


def parts(expr: Any) -> list[Any]:
    """An expression and all in it."""
    inner = [getattr(expr, name, None) for name in ("expr", "lhs", "rhs", "vector_selector")]
    inner += getattr(expr, "args", None) or []
    found = [expr]
    for each in inner:
        found += parts(each) if each is not None else []
    return found


def series(selector: Any) -> dict[str, Any]:
    compared = [(each.name, str(each.op), each.value) for each in selector.matchers.matchers]
    return {"name": selector.name, "compared": compared}


for line in sys.stdin:
    every = parts(promql.parse(json.loads(line)))
    found = {
        "series": [series(each) for each in every if isinstance(each, promql.VectorSelector)],
        "by": [
            label
            for each in every
            if isinstance(each, promql.AggregateExpr) and each.modifier
            for label in each.modifier.labels
        ],
        "rates": [
            inner.name
            for each in every
            if isinstance(each, promql.Call) and each.func.name in ("rate", "increase")
            for inner in parts(each)
            if isinstance(inner, promql.VectorSelector)
        ],
    }
    print(json.dumps(found))
