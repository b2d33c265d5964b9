"""Walking a graph: every node, attribute, weight and shape, before any library's parser does.

Parsers take much on trust. One takes a weight's offset for an address in memory, if its file is
called so; others run loops that a graph asks for, or look for files. So here is what a graph may
hold, and nothing else may be in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from .messages import (
    ATTRIBUTE,
    DIMENSION,
    ENTRY,
    GRAPH,
    MODEL,
    NODE,
    OPSET,
    SHAPE,
    TENSOR_TYPE,
    TYPE,
    VALUE,
)
from .operators import DOMAINS, OPERATORS, OPSETS, Operator
from .tensors import SizeOf, check_size, check_tensor, text
from .wire import Reader, Refused

__all__ = ["Refused", "SizeOf", "check_graph"]

_FIELDS = 2**20  # Stable Diffusion's screening graph has 63,000
_NODES = 2**16  # of which it has 2,300
_IR_VERSIONS = (3, 14)
_LARGEST = 2**31 - 1  # bytes; protobuf has no larger messages
_OTHER_FORMAT = b"ORTM"  # at offset 4: ONNX Runtime would take the file for one of its own
_ATTRIBUTES = {  # what the number of a type means, and the field that holds it
    1: ("float", "f"),
    2: ("int", "i"),
    3: ("string", "s"),
    4: ("tensor", "t"),
    6: ("floats", "floats"),
    7: ("ints", "ints"),
}
_LISTS = ("floats", "ints")
_COUNTS = ("group", "kv_num_heads", "num_groups", "num_heads", "q_num_heads")
_LARGEST_COUNT = 2**16
_PROSE = ("doc_string", "producer_name", "producer_version", "key", "value")


def check_graph(
    content: bytes,
    size_of: SizeOf,
    operators: Mapping[str, Operator] = OPERATORS,
    *,
    is_ours: bool = True,
) -> None:
    """Refuse a graph that holds anything but what graphs of diffusion models are made of.

    Args:
        content: An ONNX file.
        size_of: Bytes of a file beside it that may hold weights; None of any other.
        operators: Those that it may have.
        is_ours: Whether it is a bundle's: with no attributes in files, and weights in files that
            say where they begin and how long they are.

    Raises:
        Refused: says what it holds, and where.
    """
    if len(content) > _LARGEST or content[4:8] == _OTHER_FORMAT:
        raise Refused("it is no ONNX file")
    walk = _Walk(size_of, operators, is_ours)
    walk.model(memoryview(content))


class _Walk:
    """On the way through one graph."""

    def __init__(self, size_of: SizeOf, operators: Mapping[str, Operator], is_ours: bool) -> None:
        self._reader = Reader(_FIELDS)
        self._size_of, self._operators, self._is_ours = size_of, operators, is_ours

    def model(self, content: memoryview) -> None:
        model = self._reader.fields(content, MODEL)
        version, (oldest, newest) = model.get("ir_version"), _IR_VERSIONS
        if version is None or not oldest <= version <= newest:
            raise Refused(f"it has IR version {version}, not {oldest} to {newest}")
        self._opsets(model.get("opset_import", ()))
        self._metadata(model)
        if "graph" not in model:
            raise Refused("it has no graph")
        self._graph(self._reader.fields(model["graph"], GRAPH))

    def _opsets(self, imports: list[memoryview]) -> None:
        found: dict[str, int] = {}
        for each in imports:
            opset = self._reader.fields(each, OPSET)
            domain = text(opset.get("domain", b""))
            domain = "" if domain in DOMAINS else domain
            if domain in found:
                raise Refused(f"it has two opsets of the domain {domain!a:.80}")
            found[domain] = opset.get("version", 0)
        version, (oldest, newest) = found.get("", 0), OPSETS
        if not oldest <= version <= newest:
            raise Refused(f"it has opset {version}, not {oldest} to {newest}")

    def _graph(self, graph: dict[str, Any]) -> None:
        self._metadata(graph)
        nodes, weights = graph.get("node", ()), graph.get("initializer", ())
        if max(len(nodes), len(weights)) > _NODES:
            raise Refused(f"it has more than {_NODES:,} nodes or weights")
        values = {
            kind: [self._value(each) for each in graph.get(kind, ())]
            for kind in ("input", "output", "value_info")
        }
        named = [self._tensor(each, self._size_of) for each in weights]
        _check_distinct(named, "weights")
        _check_distinct(values["output"], "outputs")
        # older exports list weights among the inputs as well
        made = list({*named, *values["input"]})
        _check_distinct(values["input"], "inputs")
        for index, each in enumerate(nodes):
            made += self._node(index, self._reader.fields(each, NODE))
        _check_distinct([name for name in made if name], "values")

    def _node(self, index: int, node: dict[str, Any]) -> list[str]:
        """Check a node, and say what it makes."""
        kind, domain = text(node.get("op_type", b"")), text(node.get("domain", b""))
        try:
            if domain not in DOMAINS:
                raise Refused(f"its operator is of {domain!a:.80}, not one of ONNX's own")
            if kind not in self._operators:
                raise Refused("its operator is not one that such graphs need")
            self._metadata(node)
            operator, outputs = self._operators[kind], list(map(text, node.get("output", ())))
            _check_count(list(map(text, node.get("input", ()))), operator.inputs, "inputs")
            _check_count(outputs, operator.outputs, "outputs")
            self._attributes(node.get("attribute", ()), operator, len(outputs))
        except Refused as error:
            name = text(node.get("name", b""))
            where = f"node {index} ({kind!a:.80}, named {name!a:.80})"
            raise Refused(f"{where}: {error}") from None
        return outputs

    def _attributes(self, contents: list[memoryview], operator: Operator, outputs: int) -> None:
        found = [self._reader.fields(each, ATTRIBUTE) for each in contents]
        names = [text(each.get("name", b"")) for each in found]
        _check_distinct(names, "attributes")
        if missing := operator.required - set(names):
            raise Refused(f"it has no {', '.join(sorted(missing))}")
        for name, attribute in zip(names, found, strict=True):
            kind, field = _ATTRIBUTES.get(attribute.get("type", 0), ("", ""))
            held = [each for _, each in _ATTRIBUTES.values() if each in attribute]
            if operator.attributes.get(name) != kind or not kind:
                raise Refused(f"it has no attribute {name!a:.80} of type {attribute.get('type')}")
            if held != [field] and (held or field not in _LISTS):
                raise Refused(f"its attribute {name!a:.80} is not what it says it is")
            if field == "t":
                self._tensor(attribute["t"], None if self._is_ours else self._size_of)
            if name in _COUNTS and not 0 < attribute["i"] <= _LARGEST_COUNT:  # some divide by it
                raise Refused(f"its {name} is {attribute['i']}")
            # those that have no names would be counted up to, and 2^62 take a while
            if name == "num_outputs" and attribute["i"] != outputs:
                raise Refused(f"it has other than its {outputs} outputs")

    def _tensor(self, content: memoryview, size_of: SizeOf | None) -> str:
        return check_tensor(self._reader, content, size_of, is_ours=self._is_ours)

    def _value(self, content: memoryview) -> str:
        """Check what a graph says of a value, and say its name."""
        value = self._reader.fields(content, VALUE)
        self._metadata(value)
        kind = self._reader.fields(value.get("type", memoryview(b"")), TYPE)
        tensor = self._reader.fields(kind.get("tensor_type", memoryview(b"")), TENSOR_TYPE)
        shape = self._reader.fields(tensor.get("shape", memoryview(b"")), SHAPE)
        for each in shape.get("dim", ()):
            dimension = self._reader.fields(each, DIMENSION)
            if "dim_value" in dimension and "dim_param" in dimension:
                raise Refused("a dimension has both a size and a name")
            check_size(dimension.get("dim_value", 0))
        return text(value.get("name", b""))

    def _metadata(self, holder: dict[str, Any]) -> None:
        """What nothing is computed with, but every parser reads."""
        entries = [self._reader.fields(each, ENTRY) for each in holder.get("metadata_props", ())]
        for each in (holder, *entries):
            for field in _PROSE:
                if field in each and not _is_text(each[field]):
                    raise Refused(f"its {field} is no text")


def _is_text(content: memoryview) -> bool:
    try:
        str(content, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _check_count(names: list[str], most: tuple[int, int], what: str) -> None:
    """Whether there are as many as an operator takes, and none of those that it needs is empty."""
    least, limit = most
    if not least <= len(names) <= limit or "" in names[:least]:
        allowed = f"{least} to {limit} are allowed, and the first {least} must have names"
        raise Refused(f"it has {len(names)} {what}; {allowed}")


def _check_distinct(names: list[str], what: str) -> None:
    if len(set(names)) < len(names):
        ((twice, _),) = Counter(names).most_common(1)
        raise Refused(f"two of its {what} are called {twice!a:.80}")
