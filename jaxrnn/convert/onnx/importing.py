"""Graphs of ONNX as networks: `from_onnx`.

A graph is read by running it on numbers that tell where each value of a tensor comes from. What only moves values
(Transpose, Reshape, Slice, …) runs as it is, by ONNX's own reference, and so does what depends on no input. Before a
node that computes, the numbers tell which layer's outputs it sees, and which axis is time. Dynamic axes get small
sizes for this.
"""

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxrnn.checks import check_installed
from jaxrnn.convert.layers import Direction
from jaxrnn.convert.onnx.activations import POINTWISE, SOFTMAX
from jaxrnn.convert.onnx.graph import IDENTITIES, MOVES, Graph, is_real, some_lengths
from jaxrnn.convert.onnx.nodes import GATES
from jaxrnn.convert.onnx.recurrent import recurrent
from jaxrnn.convert.onnx.stateless import LAYERS, is_identity, pointwise
from jaxrnn.convert.onnx.tracing import Moved, Source, Trace, network
from jaxrnn.engine.layer import Layer
from jaxrnn.typing import Params

__all__ = ["from_onnx"]

# What may stand between tokens and their look-up, as long as it changes none.
_ARITHMETIC = ("Add", "And", "Cast", "Equal", "Less", "Max", "Min", "Mul", "Not", "Or", "Sub", "Where")


def from_onnx(model: Any, *, output: str | None = None) -> tuple[Layer, Params]:
    """Turns a model of recurrent layers into a network, such as PyTorch and tf2onnx export.

    Nodes become layers: `RNN`, `GRU` and `LSTM` with all of their attributes, `Gather` from a table, `MatMul`, `Gemm`
    and `Add` of constants, activations, `Softmax`; sums and concatenations of two branches. What moves values only, and
    what reads shapes, is followed.

    `unroll` is time-major whatever the model's layout is: `xs` `[T, B, ...]`, `ys` `[T, B, O]` in the order of `xs`. A
    model that reads the last step only becomes a network that gives its output at every step; `sequences.last_output`
    picks the last. The inputs `initial_h` and `initial_c` are the `state` of `unroll`, the outputs `Y_h` and `Y_c` the
    state that it returns, `sequence_lens` its `lengths`. Nonzero constants become a `LearnedState`.

    Args:
        model: an `onnx.ModelProto`, its bytes, or the path of its file.
        output: name of the tensor that `ys` is to be, any tensor of the model; None: the model's outputs tell. So a
            model can be cut before what is no layer.

    Returns:
        `(network, params)`: the cell of the one recurrent node, or a `Stack`; with `Bidirectional`, `Reversed`,
        `Embedding`, `Linear`, `Pointwise` as needed.

    Raises:
        ModuleNotFoundError: `onnx` is not installed.
        TypeError: `model` is something else.
        ValueError: the bytes are no model, a node cannot be expressed, or JAX would round the weights.

    Example:
        >>> import jax, jaxrnn
        >>> from jaxrnn import convert
        >>> cell = jaxrnn.GRU(3, 4)
        >>> model = convert.to_onnx(cell, cell.init(jax.random.key(0)))
        >>> network, params = from_onnx(model)
        >>> network == cell
        True
    """
    reader = _Reader(Graph(_load(model), output))
    reader.read()
    return network(reader.result())


def _load(model: Any) -> Any:
    check_installed("onnx")
    import onnx
    from google.protobuf.message import DecodeError

    try:
        if isinstance(model, bytes):
            model = onnx.load_model_from_string(model)
        elif isinstance(model, str | os.PathLike):
            model = onnx.load(os.fspath(model))
    except DecodeError as error:
        raise ValueError(f"model: got bytes that are no model of ONNX ({error})") from None
    if not isinstance(model, onnx.ModelProto):
        raise TypeError(f"model: got {type(model).__name__}, needs an onnx.ModelProto, its bytes or a path")
    if not model.graph.node:
        raise ValueError("model: got no nodes, needs a graph with an RNN, GRU or LSTM node")
    return model


@dataclass
class _Reader:
    """Gives the tensors of a graph their values, node by node."""

    graph: Graph
    values: dict[str, Any] = field(default_factory=dict)
    trace: Trace = field(default_factory=Trace)

    def read(self) -> None:
        """Gives every tensor that the outputs need its value."""
        from onnx import numpy_helper

        nodes, needed = self.graph.before(self.graph.outputs, self._read_inputs)
        sizes: dict[str, int] = {}
        for name in needed & self.graph.inputs.keys():
            self._read_input(name, sizes)
        for name in needed & self.graph.constants.keys():
            self.values[name] = numpy_helper.to_array(self.graph.constants[name])
        for node in nodes:
            self._read_node(node)

    def _read_inputs(self, node: Any) -> list[str]:
        """Returns the inputs of a node that must have a value: initial states may be inputs of the graph."""
        states = node.input[5:7] if node.op_type in GATES else ()
        return [name for name in node.input if name and not (name in states and self.graph.origins[name])]

    def _read_input(self, name: str, sizes: dict[str, int]) -> None:
        """Gives an input of the graph numbers, or lengths for `sequence_lens`."""
        kind = self.graph.inputs[name].type.tensor_type
        if not kind.HasField("shape"):
            raise ValueError(f"{name}: got an input without a shape, needs one, with dynamic axes by name")
        shape = []  # sizes of dynamic axes are small, and all different, so that the order of two axes shows
        for axis, dim in enumerate(kind.shape.dim):
            key = dim.dim_param or f"{name} {axis}"
            shape.append(dim.dim_value if dim.HasField("dim_value") else sizes.setdefault(key, 3 + 2 * len(sizes)))
        if name in self.graph.lengths:
            self.values[name] = some_lengths(*shape)
            return
        tokens = not is_real(kind.elem_type)
        size = 1 if tokens or not shape else shape[-1]
        if 0 in shape:
            raise ValueError(f"{name}: got the shape {shape}, needs no empty axis")
        rows = int(np.prod(shape, dtype=int)) // size
        source = self.trace.add(rows, size, (), kind="tokens" if tokens else "values", name=name)
        self.values[name] = Moved(source.base + np.arange(rows * size).reshape(shape))

    def _read_node(self, node: Any) -> None:
        """Gives the outputs of a node their values."""
        inputs: list[Any] = [self.values.get(name) for name in node.input]
        try:
            results = self._results(node, inputs)
        except ValueError as error:
            if node.op_type in _ARITHMETIC and self.graph.is_of_tokens(node.output[0]):
                return  # it may compute indices, see `_tokens`
            raise ValueError(f"{node.op_type} node {node.name or node.output[0]!r}: {error}") from error
        self.values |= dict(zip(node.output, results, strict=False))

    def _results(self, node: Any, inputs: list[Any]) -> list[Any]:
        """Returns the values of a node's outputs."""
        from onnx import helper

        graph, trace, op = self.graph, self.trace, node.op_type
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if op == "Gather" and inputs[1] is None:
            inputs[1] = self._tokens(node.input[1], inputs[0])
        moved = [value for value in inputs if isinstance(value, Moved)]
        if node.domain not in ("", "ai.onnx"):
            raise ValueError(f"got an operator of {node.domain}, needs one of ONNX")
        if any(a.HasField("g") for a in node.attribute):
            raise ValueError("got a node with a graph of its own, needs RNN, GRU or LSTM for what recurs")
        if op in GATES:
            return recurrent(graph, trace, node, attributes, inputs)
        arrays = [value.ids if isinstance(value, Moved) else value for value in inputs]
        if op in ("Shape", "Size") or not moved:
            return graph.run(node, arrays)
        if op in MOVES and inputs[0] is moved[0] and len(moved) == (len(inputs) if op == "Concat" else 1):
            return list(map(Moved, graph.run(node, arrays)))
        if op in IDENTITIES and is_identity(graph, trace, op, attributes, inputs):
            return moved
        if op in LAYERS:
            return [LAYERS[op](graph, trace, attributes, *inputs)]
        if op in POINTWISE or op in SOFTMAX:
            return [pointwise(graph, trace, op, attributes, inputs[0])]
        raise ValueError("got no layer of a network")

    def _tokens(self, name: str, table: Any) -> Moved:
        """Returns the input of integers that a tensor equals; what computes it must leave every index as it is.

        Keras, for one, writes `x + V if x < 0 else x` before a look-up.
        """
        if not self.graph.is_of_tokens(name):
            raise ValueError("got indices that are no input of integers")
        (origin,) = self.graph.origins[name]
        moved = self.values[origin]
        every = np.arange(len(table)).reshape(*(1,) * (moved.ids.ndim - 1), -1)
        if not self.graph.is_copy(name, every):
            raise ValueError("got indices that are not the tokens themselves")
        return moved

    def result(self) -> tuple[Direction, ...]:
        """Returns the layers of which the outputs of the model are outputs and states."""
        found = [self._output(name) for name in self.graph.outputs]
        main = max((s for sources, _ in found for s in sources), key=lambda s: (len(s.nodes), len(s.chain)))
        if not main.nodes or main.steps is None:
            raise ValueError("model: got no RNN, GRU or LSTM node before its outputs, needs one")
        ends = {self.trace.lengths[i] for i in main.nodes}
        if len(ends) > 1:
            raise ValueError(f"sequence_lens: got {sorted(ends)}, needs the same for all nodes: lengths hold for all")
        for name, (sources, ids) in zip(self.graph.outputs, found, strict=True):
            is_ys = sources == {main} and self.trace.is_output(main, ids, ends != {""})
            if not is_ys and not self.trace.is_state(main, sources, ids):
                raise ValueError(
                    f"{name}: got an output that is neither all steps, the first or last step, nor a state; "
                    "the argument output names one tensor to be ys"
                )
        return main.chain

    def _output(self, name: str) -> tuple[set[Source], np.ndarray]:
        """Returns the layers whose values an output of the model holds, and their numbers."""
        value = self.values.get(name)
        if not isinstance(value, Moved):
            raise ValueError(f"{name}: got an output that does not depend on the sequence")
        try:
            source, rows = self.trace.rows(value)
        except ValueError:
            return {self.trace.source_of(i) for i in np.unique(value.ids).tolist()}, value.ids
        return {source}, source.outputs(self.trace.in_steps(source, rows)).ids
