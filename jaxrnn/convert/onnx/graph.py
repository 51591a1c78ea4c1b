"""A graph of ONNX: what each of its tensors depends on, and its nodes as ONNX's own reference runs them."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from jaxrnn.convert.onnx.nodes import GATES

__all__ = ["IDENTITIES", "MOVES", "Graph", "is_integer", "is_real", "some_lengths"]

# What only moves values; outputs after the first are not read.
MOVES = (
    "Concat",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "ReverseSequence",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
# The same on the values that a trained network has.
IDENTITIES = ("Cast", "Dropout")


class Graph:
    """The graph of a model, of which certain tensors are the outputs; None: those that the model names."""

    def __init__(self, model: Any, output: str | None = None) -> None:
        graph = model.graph
        self.model, self.nodes = model, graph.node
        self.opsets = {one.domain: one.version for one in model.opset_import}
        self.constants = {one.name: one for one in graph.initializer}
        self.inputs = {one.name: one for one in graph.input if one.name not in self.constants}
        self.outputs = [output] if output else [one.name for one in graph.output]
        known = {*self.inputs, *self.constants, *(name for node in self.nodes for name in node.output)}
        for name in self.outputs:
            if name not in known:
                raise ValueError(f"output: got {name!r}, needs the name of a tensor of the model")
        self.origins = self._origins()
        """For each tensor the inputs that its values depend on; a shape depends on none."""
        self.lengths = {
            origin
            for node in self.nodes
            if node.op_type in GATES and len(node.input) > 4 and node.input[4]
            for origin in self.origins[node.input[4]]
            if not is_real(self.kind(origin)) and len(self.inputs[origin].type.tensor_type.shape.dim) == 1
        }
        """The inputs that give the lengths of a sequence."""

    def _origins(self) -> dict[str, frozenset[str]]:
        origins = {name: frozenset((name,)) for name in self.inputs}
        origins |= {name: frozenset() for name in ("", *self.constants)}
        for node in self.nodes:
            if unknown := [name for name in node.input if name not in origins]:
                raise ValueError(f"{node.op_type} node {node.name!r}: got {unknown}, which nothing before it gives")
            seen: frozenset[str] = frozenset()
            if node.op_type not in ("Shape", "Size"):
                seen = seen.union(*(origins[name] for name in node.input))
            origins |= {name: seen for name in node.output if name}
        return origins

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators."""
        return self.opsets.get("", 1)

    def kind(self, name: str) -> int:
        """Returns ONNX's number for the dtype of an input."""
        return self.inputs[name].type.tensor_type.elem_type

    def is_of_tokens(self, name: str) -> bool:
        """Returns whether a tensor depends on one input of integers only."""
        origins = self.origins[name]
        return len(origins) == 1 and not any(map(is_real, map(self.kind, origins))) and origins.isdisjoint(self.lengths)

    def before(
        self, names: Collection[str], read: Callable[[Any], Collection[str]] = lambda node: node.input
    ) -> tuple[list[Any], set[str]]:
        """Returns the nodes that tensors need, in their order, and all tensors needed; `read`: those a node needs."""
        nodes: list[Any] = []
        needed = set(names)
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                nodes.insert(0, node)
                needed.update(read(node))
        return nodes, needed

    def is_moved(self, name: str, seen: str) -> bool:
        """Returns whether a tensor only moves values of inputs, `seen` not among them."""
        nodes, needed = self.before([name], lambda node: [one for one in node.input if self.origins[one]])
        return seen not in needed and all(node.op_type in (*MOVES, *IDENTITIES) for node in nodes)

    def is_copy(self, name: str, values: np.ndarray) -> bool:
        """Returns whether a tensor that one input gives equals that input where the input is `values`."""
        from onnx import helper

        (origin,) = self.origins[name]
        nodes, needed = self.before([name])
        constants = [self.constants[one] for one in needed & self.constants.keys()]
        result = helper.make_empty_tensor_value_info(name)
        part = helper.make_graph(nodes, "part", [self.inputs[origin]], [result], constants)
        values = values.astype(helper.tensor_dtype_to_np_dtype(self.kind(origin)))
        (found,) = _evaluate(helper.make_model(part, opset_imports=self.model.opset_import), {origin: values})
        return np.array_equal(found, values)

    def run(self, node: Any, inputs: Collection[Any]) -> list[Any]:
        """Runs a node on arrays."""
        feeds = {name: value for name, value in zip(node.input, inputs, strict=True) if name}
        if missing := [name for name, value in feeds.items() if value is None]:
            raise ValueError(f"got no values for {missing}")
        return _evaluate(node, feeds, opsets=self.opsets)


def _evaluate(proto: Any, feeds: Mapping[str, Any], **options: Any) -> list[Any]:
    """Runs a model or a node by ONNX's reference."""
    from onnx.reference import ReferenceEvaluator

    try:
        return list(ReferenceEvaluator(proto, **options).run(None, dict(feeds)))
    except Exception as error:  # of any kind, where shapes or types do not fit
        raise ValueError(f"got what ONNX's reference cannot run: {error}") from error


def some_lengths(batch: int) -> np.ndarray:
    """Returns the lengths that stand for an input `sequence_lens`."""
    return 1 + np.arange(batch) % 2


def is_real(kind: int) -> bool:
    """Returns whether an ONNX dtype holds real numbers."""
    from onnx import TensorProto as kinds

    return kind in (kinds.FLOAT16, kinds.FLOAT, kinds.DOUBLE, kinds.BFLOAT16)


def is_integer(kind: int) -> bool:
    """Returns whether an ONNX dtype holds integers by which ONNX looks up rows."""
    from onnx import TensorProto as kinds

    return kind in (kinds.INT32, kinds.INT64)
