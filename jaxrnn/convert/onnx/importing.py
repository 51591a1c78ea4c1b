"""Graphs of ONNX as networks: `from_onnx`.

A graph is read by running it on numbers that tell where each value of a tensor comes from. What only moves values
(Transpose, Reshape, Slice, …) runs as it is, by ONNX's own reference, and so does what depends on no input. Before a
node that computes, the numbers tell which layer's outputs it sees, and which axis is time. Dynamic axes get small
sizes for this.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from jaxrnn.checks import check_installed
from jaxrnn.convert.arrays import to_jax
from jaxrnn.convert.layers import Direction
from jaxrnn.convert.onnx.activations import POINTWISE, SOFTMAX, from_name
from jaxrnn.convert.onnx.nodes import GATES, Weights, activations_of, as_cell
from jaxrnn.convert.onnx.tracing import Moved, Source, Trace, network
from jaxrnn.engine.layer import Layer
from jaxrnn.networks import (
    Bidirectional,
    BidirectionalParams,
    Embedding,
    LearnedState,
    LearnedStateParams,
    Linear,
    LinearParams,
    Pointwise,
    Reversed,
)
from jaxrnn.typing import Params

__all__ = ["from_onnx"]

# What only moves values; outputs after the first are not read.
_MOVES = (
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
_IDENTITIES = ("Cast", "Dropout")
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
        >>> import jaxrnn
        >>> from jaxrnn import convert
        >>> cell = jaxrnn.GRU(3, 4)
        >>> model = convert.to_onnx(cell, cell.init(jax.random.key(0)))
        >>> network, params = from_onnx(model)
        >>> network == cell
        True
    """
    proto = _load(model)
    graph = _Reader(proto, output)
    graph.read()
    return network(graph.result())


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


# Stands for the last layer where there is none.
_NOTHING: Direction = Pointwise(jax.nn.identity, 1), ()


@dataclass
class _Reader:
    """Reads one graph, node by node."""

    model: Any
    output: str | None
    values: dict[str, Any] = field(default_factory=dict)
    trace: Trace = field(default_factory=Trace)
    used_lengths: list[str] = field(default_factory=list)
    """Of each recurrent node, the input that `sequence_lens` is, or nothing."""

    def __post_init__(self) -> None:
        graph = self.model.graph
        self.opsets = {one.domain: one.version for one in self.model.opset_import}
        self.constants = {one.name: one for one in graph.initializer}
        self.inputs = {one.name: one for one in graph.input if one.name not in self.constants}
        self.outputs = [self.output] if self.output else [one.name for one in graph.output]
        known = {*self.inputs, *self.constants, *(name for node in graph.node for name in node.output)}
        for name in self.outputs:
            if name not in known:
                raise ValueError(f"output: got {name!r}, needs the name of a tensor of the model")
        self.origins = self._origins()
        self.lengths = {
            origin
            for node in graph.node
            if node.op_type in GATES and len(node.input) > 4 and node.input[4]
            for origin in self.origins[node.input[4]]
            if self._is_vector_of_integers(origin)
        }

    def _is_vector_of_integers(self, name: str) -> bool:
        kind = self.inputs[name].type.tensor_type
        return kind.elem_type not in _real_types() and len(kind.shape.dim) == 1

    def _origins(self) -> dict[str, frozenset[str]]:
        """Returns for each tensor the inputs that its values depend on; a shape depends on none."""
        origins = {name: frozenset((name,)) for name in self.inputs}
        origins |= {name: frozenset() for name in ("", *self.constants)}
        for node in self.model.graph.node:
            if unknown := [name for name in node.input if name not in origins]:
                raise ValueError(f"{node.op_type} node {node.name!r}: got {unknown}, which nothing before it gives")
            seen: frozenset[str] = frozenset()
            if node.op_type not in ("Shape", "Size"):
                seen = seen.union(*(origins[name] for name in node.input))
            origins |= {name: seen for name in node.output if name}
        return origins

    def read(self) -> None:
        """Gives every tensor that the outputs need its value."""
        from onnx import numpy_helper

        needed, nodes = set(self.outputs), []
        for node in reversed(self.model.graph.node):
            if needed.intersection(node.output):
                nodes.append(node)
                needed.update(self._read_inputs(node))
        sizes: dict[str, int] = {}
        for name in needed & self.inputs.keys():
            self._read_input(name, sizes)
        for name in needed & self.constants.keys():
            self.values[name] = numpy_helper.to_array(self.constants[name])
        for node in reversed(nodes):
            self._read_node(node)

    def _read_inputs(self, node: Any) -> list[str]:
        """Returns the inputs of a node that must have a value: initial states may be inputs of the graph."""
        states = node.input[5:7] if node.op_type in GATES else ()
        return [name for name in node.input if name and not (name in states and self.origins[name])]

    def _read_input(self, name: str, sizes: dict[str, int]) -> None:
        """Gives an input of the graph numbers, or lengths for `sequence_lens`."""
        kind = self.inputs[name].type.tensor_type
        if not kind.HasField("shape"):
            raise ValueError(f"{name}: got an input without a shape, needs one, with dynamic axes by name")
        shape = []  # sizes of dynamic axes are small, and all different, so that the order of two axes shows
        for axis, dim in enumerate(kind.shape.dim):
            key = dim.dim_param or f"{name} {axis}"
            shape.append(dim.dim_value if dim.HasField("dim_value") else sizes.setdefault(key, 3 + 2 * len(sizes)))
        if name in self.lengths:
            self.values[name] = _some_lengths(*shape)
            return
        tokens = kind.elem_type not in _real_types()
        size = 1 if tokens or not shape else shape[-1]
        if 0 in shape:
            raise ValueError(f"{name}: got the shape {shape}, needs no empty axis")
        rows = int(np.prod(shape, dtype=int)) // size
        source = self.trace.add(rows, size, (), kind="tokens" if tokens else "values", name=name)
        self.values[name] = Moved(source.base + np.arange(rows * size).reshape(shape))

    def _read_node(self, node: Any) -> None:
        """Gives the outputs of a node their values."""
        from onnx import helper

        inputs: list[Any] = [self.values.get(name) for name in node.input]
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        op = node.op_type
        moved: list[Any] = [value for value in inputs if isinstance(value, Moved)]
        try:
            if op == "Gather" and inputs[1] is None:
                inputs[1] = self._tokens(node.input[1], inputs[0])
                moved.append(inputs[1])
            if node.domain not in ("", "ai.onnx"):
                raise ValueError(f"got an operator of {node.domain}, needs one of ONNX")
            if any(a.HasField("g") for a in node.attribute):
                raise ValueError("got a node with a graph of its own, needs RNN, GRU or LSTM for what recurs")
            if op in GATES:
                results = self._recurrent(node, attributes, inputs)
            elif op in ("Shape", "Size") or not moved:
                results = self._run(node, [_ids(v) for v in inputs])
            elif op in _MOVES and inputs[0] is moved[0] and len(moved) == (len(inputs) if op == "Concat" else 1):
                results = [Moved(ids) for ids in self._run(node, [_ids(v) for v in inputs])]
            elif op in _IDENTITIES and self._is_identity(op, attributes, inputs):
                results = moved
            elif op in _LAYERS:
                results = [_LAYERS[op](self, attributes, *inputs)]
            elif op in POINTWISE or op in SOFTMAX:
                results = [self._pointwise(op, attributes, inputs[0])]
            else:
                raise ValueError("got no layer of a network")
        except ValueError as error:
            if op in _ARITHMETIC and self._is_of_tokens(node.output[0]):
                return  # it may compute indices, see `_tokens`
            raise ValueError(f"{op} node {node.name or node.output[0]!r}: {error}") from error
        self.values |= dict(zip(node.output, results, strict=False))

    def _run(self, node: Any, inputs: Sequence[Any]) -> list[Any]:
        """Runs a node by ONNX's reference."""
        feeds = {name: value for name, value in zip(node.input, inputs, strict=True) if name}
        if any(value is None for value in feeds.values()):
            raise ValueError(f"got no values for {[name for name, value in feeds.items() if value is None]}")
        return _evaluate(node, feeds, opsets=self.opsets)

    # Layers without a state

    def _pointwise(self, op: str, attributes: Mapping[str, Any], value: Any) -> Moved:
        source, rows = self.trace.rows(value)
        if op in SOFTMAX:
            axis = attributes.get("axis", -1 if self.opsets.get("", 1) >= 13 else 1)
            if axis not in (-1, value.ids.ndim - 1):
                raise ValueError(f"axis: got {axis}, needs the last")
            return self.trace.above(source, rows, (Pointwise(SOFTMAX[op], source.size), ()), source.size)
        numbers = {name: attributes[name] for name in ("alpha", "beta") if name in attributes}
        return self.trace.above(source, rows, (Pointwise(from_name(op, **numbers), source.size), ()), source.size)

    def _gather(self, attributes: Mapping[str, Any], table: Any, tokens: Any) -> Moved:
        """Reads a look-up; a `Gather` of other values moves them."""
        if not isinstance(table, np.ndarray) or table.ndim != 2 or attributes.get("axis", 0) != 0:
            raise ValueError("got no constant table [V, E] that is looked up along its first axis")
        source = self.trace.source_of(tokens.ids.flat[0])
        if source.kind != "tokens":
            raise ValueError("got indices that are no input of integers")
        return self.trace.above(
            source, tokens.ids - source.base, (Embedding(*table.shape), to_jax("data", table)), table.shape[1]
        )

    def _is_of_tokens(self, name: str) -> bool:
        """Whether a tensor depends on one input of integers only."""
        kinds = [self.inputs[origin].type.tensor_type.elem_type for origin in self.origins[name]]
        return len(kinds) == 1 and kinds[0] not in _real_types() and self.origins[name].isdisjoint(self.lengths)

    def _tokens(self, name: str, table: Any) -> Moved:
        """Returns the input of integers that a tensor equals; what computes it must leave every index as it is.

        Keras, for one, writes `x + V if x < 0 else x` before a look-up.
        """
        from onnx import helper

        if not self._is_of_tokens(name):
            raise ValueError("got indices that are no input of integers")
        (origin,) = self.origins[name]
        needed: set[str] = {name}
        nodes: list[Any] = []
        for node in reversed(self.model.graph.node):
            if needed.intersection(node.output):
                nodes.insert(0, node)
                needed.update(node.input)
        constants = [one for one in self.model.graph.initializer if one.name in needed]
        whole = helper.make_graph(
            nodes, "tokens", [self.inputs[origin]], [helper.make_empty_tensor_value_info(name)], constants
        )
        kind = helper.tensor_dtype_to_np_dtype(self.inputs[origin].type.tensor_type.elem_type)
        moved = self.values[origin]
        every = np.arange(len(table), dtype=kind).reshape(*(1,) * (moved.ids.ndim - 1), -1)
        proto = helper.make_model(whole, opset_imports=self.model.opset_import)
        (found,) = _evaluate(proto, {origin: every})
        if not np.array_equal(found, every):
            raise ValueError("got indices that are not the tokens themselves")
        return moved

    def _matmul(self, attributes: Mapping[str, Any], value: Any, w: Any) -> Moved:
        return self._linear(value, w, None)

    def _gemm(self, attributes: Mapping[str, Any], value: Any, w: Any, b: Any = None) -> Moved:
        if attributes.get("transA", 0):
            raise ValueError("transA: got 1, needs 0")
        if not isinstance(w, np.ndarray) or not (b is None or isinstance(b, np.ndarray)):
            raise ValueError("got weights that depend on the inputs, needs constants")
        w = w.T if attributes.get("transB", 0) else w
        alpha, beta = (w.dtype.type(attributes.get(name, 1.0)) for name in ("alpha", "beta"))
        return self._linear(value, alpha * w, None if b is None else beta * b)

    def _linear(self, value: Any, w: Any, b: Any) -> Moved:
        if not isinstance(w, np.ndarray) or w.ndim != 2:
            raise ValueError("got a second factor that is no constant matrix [I, O]")
        source, rows = self.trace.rows(value)
        if len(w) != source.size:
            raise ValueError(f"got a matrix of {len(w)} rows for {source.size} values")
        layer = Linear(len(w), w.shape[1], use_bias=False), LinearParams(to_jax("W", w), None)
        moved = self.trace.above(source, rows, layer, w.shape[1])
        return moved if b is None else self._add({}, moved, b)

    def _add(self, attributes: Mapping[str, Any], a: Any, b: Any) -> Moved:
        """Adds a bias, or two branches."""
        if isinstance(a, Moved) and isinstance(b, Moved):
            return self._sum(a, b)
        value, bias = (a, b) if isinstance(a, Moved) else (b, a)
        source, rows = self.trace.rows(value)
        if bias.size not in (1, source.size) or bias.shape[-1:] not in ((), (bias.size,)):
            raise ValueError(f"got a constant of the shape {bias.shape}, needs one for each of {source.size} values")
        rows = rows.reshape(np.broadcast_shapes(value.ids.shape, bias.shape)[:-1])
        layer, params = source.chain[-1] if source.chain else _NOTHING
        if not isinstance(layer, Linear) or layer.use_bias:
            raise ValueError("got a constant that no matrix product comes before")
        b = to_jax("B", np.broadcast_to(bias.reshape(-1), (source.size,)))
        below = dataclasses.replace(source, chain=source.chain[:-1])
        biased = Linear(layer.input_size, layer.size), LinearParams(params.w, b)
        return self.trace.above(below, rows, biased, layer.size)

    def _sum(self, a: Moved, b: Moved) -> Moved:
        if a.ids.shape != b.ids.shape:
            raise ValueError(f"got the shapes {a.ids.shape} and {b.ids.shape}, needs equal ones")
        try:
            joined, rows = self.trace.join("sum", self.trace.rows(a), self.trace.rows(b))
        except ValueError:
            # The two directions of one node, before they are put side by side.
            source, rows = self.trace.rows(Moved(np.concatenate([a.ids, b.ids], axis=-1)))
            layer, params = source.chain[-1] if source.chain else _NOTHING
            if not isinstance(layer, Bidirectional) or layer.merge != "concat" or source.size != 2 * a.ids.shape[-1]:
                raise
            key = ("directions", source)
            if key not in self.trace.joined:
                summed = dataclasses.replace(layer, merge="sum"), params
                self.trace.joined[key] = self.trace.add(
                    source.rows,
                    a.ids.shape[-1],
                    (*source.chain[:-1], summed),
                    steps=source.steps,
                    nodes=source.nodes,
                    name=source.name,
                )
            joined = self.trace.joined[key]
        return Moved(joined.base + rows[..., None] * joined.size + np.arange(joined.size))

    def _where(self, attributes: Mapping[str, Any], condition: Any, value: Any, other: Any) -> Any:
        """Reads zeros beyond `sequence_lens`, which is what `lengths` of `unroll` means."""
        source, rows = self.trace.rows(value)
        constant = isinstance(condition, np.ndarray) and isinstance(other, np.ndarray)
        if constant and self.trace.order and self.lengths and other.size == 1 and not other.any():
            batch = self.trace.order[2]
            rows = self.trace.in_steps(source, rows)
            valid = (rows // batch < _some_lengths(batch)[rows % batch])[..., None]
            if np.array_equal(np.broadcast_to(condition, value.ids.shape), np.broadcast_to(valid, value.ids.shape)):
                return value
        raise ValueError("got another choice than that of zero beyond the lengths")

    def _is_identity(self, op: str, attributes: Mapping[str, Any], inputs: Sequence[Any]) -> bool:
        if op == "Dropout":
            return not (len(inputs) > 2 and np.any(inputs[2]))
        source = self.trace.source_of(inputs[0].ids.flat[0])
        if source.kind == "tokens":
            return attributes["to"] in _integer_types()
        return attributes["to"] == self.inputs[source.name].type.tensor_type.elem_type

    # Recurrent layers

    def _recurrent(self, node: Any, attributes: Mapping[str, Any], inputs: Sequence[Any]) -> list[Moved]:
        """Puts a recurrent layer on a chain."""
        if self.opsets.get("", 1) < 7:
            raise ValueError(f"got opset {self.opsets.get('', 1)}, needs 7 or newer")
        padded: list[Any] = [*inputs, *(None,) * (8 - len(inputs))]
        x, w, r, b, lengths, _, _, p = padded
        for name, weight in (("W", w), ("R", r), ("B", b), ("P", p)):
            if not (weight is None and name in "BP") and not isinstance(weight, np.ndarray):
                raise ValueError(f"{name}: got values that depend on the inputs, needs a constant")
        direction = attributes.get("direction", b"forward").decode()
        ways = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}.get(direction, [])
        if not ways or w.ndim != 3 or r.ndim != 3 or len(w) != len(ways) or len(r) != len(ways):
            raise ValueError(f"direction: got {direction!r} for W {w.shape} and R {r.shape}, needs one matrix each")
        layout = attributes.get("layout", 0)
        if not isinstance(x, Moved) or x.ids.ndim != 3:
            raise ValueError("X: got no sequence [T, B, I] that depends on the inputs")
        source, rows = self.trace.rows(Moved(x.ids.swapaxes(0, 1)) if layout else x)
        steps, batch = rows.shape
        flipped = self.trace.is_flipped(source, rows)
        ends = self._lengths_of(node, lengths, steps)
        if flipped and ends:
            raise ValueError("sequence_lens: got some for a sequence that is reversed beyond them")
        functions = activations_of(node.op_type, attributes, len(ways))
        cells = []
        for d in range(len(ways)):
            weights = Weights(w[d], r[d], None if b is None else b[d], None if p is None else p[d])
            cell = as_cell(node.op_type, attributes, functions[d], weights)
            if weights.w.shape[1] != source.size:
                raise ValueError(f"X: got {source.size} values at each step, needs {weights.w.shape[1]}")
            cells.append(self._begun(node, cell, source, d, layout))
        layer, params = cells[0]
        if len(cells) == 2:
            other, more = cells[1]
            layer, params = Bidirectional(layer, None if layer == other else other), BidirectionalParams(params, more)
        if (direction == "reverse") != flipped:
            layer = Reversed(layer)
        back = [way != flipped for way in ways]
        return self._outputs(source, (layer, params), (steps, batch, r.shape[2]), back, ends, layout, flipped)

    def _outputs(
        self,
        source: Source,
        layer: Direction,
        sizes: tuple[int, int, int],
        back: Sequence[bool],
        ends: str,
        layout: int,
        flipped: bool,
    ) -> list[Moved]:
        """Returns `Y`, `Y_h` and `Y_c` of a recurrent layer; `back` says which directions run from last to first."""
        steps, batch, size = sizes
        chain, nodes = (*source.chain, layer), source.nodes | {len(self.used_lengths)}
        self.used_lengths.append(ends)
        ways = len(back)
        width = ways * size
        base = self.trace.next_number
        rows = base + np.arange((steps + 1) * batch * width).reshape(steps + 1, batch, ways, size)
        ys = rows[:steps].transpose(0, 2, 1, 3)
        h = np.stack([rows[0 if reverse else steps, :, d] for d, reverse in enumerate(back)])
        final = frozenset(h.ravel().tolist())
        more: dict[str, Any] = {"steps": (steps, batch), "nodes": nodes, "name": source.name}
        self.trace.add((steps + 1) * batch, width, chain, final=final, **more)
        cells = self.trace.add(ways * batch, size, chain, kind="state", **more)
        c = cells.base + np.arange(ways * batch * size).reshape(ways, batch, size)
        ys = ys[::-1] if flipped else ys
        if layout:
            return [Moved(ys.transpose(2, 0, 1, 3)), Moved(h.transpose(1, 0, 2)), Moved(c.transpose(1, 0, 2))]
        return [Moved(ys), Moved(h), Moved(c)]

    def _lengths_of(self, node: Any, lengths: Any, steps: int) -> str:
        """Returns the input that `sequence_lens` is; nothing where it says that all steps are valid."""
        if lengths is None:
            return ""
        origins = self.origins[node.input[4]]
        if isinstance(lengths, np.ndarray) and not origins and (lengths == steps).all():
            return ""
        known = isinstance(lengths, np.ndarray) and np.array_equal(lengths, _some_lengths(lengths.size))
        if known and len(origins) == 1 and origins <= self.lengths:
            return next(iter(origins))
        raise ValueError("sequence_lens: got neither an input nor T, needs the lengths as an input")

    def _begun(self, node: Any, cell: Direction, source: Source, d: int, layout: int) -> Direction:
        """Lets a cell begin in the initial state that the constants of its node give."""
        layer: Any
        layer, params = cell
        begin = {}
        for leaf, name in zip(("h", "c"), node.input[5:7], strict=False):
            if not name:
                continue
            if self.origins[name]:
                if not self._is_input(name, source):
                    raise ValueError(f"initial_{leaf}: got what other nodes compute, needs an input or a constant")
                continue
            rows = self.values[name].swapaxes(0, 1)[d] if layout else self.values[name][d]
            if (rows != rows[:1]).any():
                raise ValueError(f"initial_{leaf}: got constants that differ between rows, needs an input")
            if rows.any():
                begin[leaf] = to_jax(f"initial_{leaf}", rows[0])
        if not begin:
            return cell
        if any(self.origins[name] for name in node.input[5:7]):
            raise ValueError("initial_h, initial_c: got a constant and an input, needs two of a kind")
        zeros = layer.initial_state((), next(iter(begin.values())).dtype)
        return LearnedState(layer), LearnedStateParams(params, zeros._replace(**begin))

    def _is_input(self, name: str, source: Source) -> bool:
        """Whether a tensor is inputs other than the sequence, whose values are moved only."""
        needed = {name}
        for node in reversed(self.model.graph.node):
            if needed.intersection(node.output):
                if node.op_type not in (*_MOVES, *_IDENTITIES):
                    return False
                needed.update(one for one in node.input if self.origins[one])
        return source.name not in needed

    # The whole

    def result(self) -> tuple[Direction, ...]:
        """Returns the layers of which the outputs of the model are outputs and states."""
        found = [self._output(name) for name in self.outputs]
        main = max((s for sources, _ in found for s in sources), key=lambda s: (len(s.nodes), len(s.chain)))
        if not main.nodes or main.steps is None:
            raise ValueError("model: got no RNN, GRU or LSTM node before its outputs, needs one")
        ends = {self.used_lengths[i] for i in main.nodes}
        if len(ends) > 1:
            raise ValueError(f"sequence_lens: got {sorted(ends)}, needs the same for all nodes: lengths hold for all")
        for name, (sources, ids) in zip(self.outputs, found, strict=True):
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
        rows = self.trace.in_steps(source, rows)
        return {source}, source.base + rows[..., None] * source.size + np.arange(source.size)


_LAYERS: Mapping[str, Callable[..., Any]] = {
    "Add": _Reader._add,
    "Gather": _Reader._gather,
    "Gemm": _Reader._gemm,
    "MatMul": _Reader._matmul,
    "Where": _Reader._where,
}


def _evaluate(proto: Any, feeds: Mapping[str, Any], **options: Any) -> list[Any]:
    """Runs a model or a node by ONNX's reference."""
    from onnx.reference import ReferenceEvaluator

    try:
        return list(ReferenceEvaluator(proto, **options).run(None, dict(feeds)))
    except Exception as error:  # of any kind, where shapes or types do not fit
        raise ValueError(f"got what ONNX's reference cannot run: {error}") from error


def _ids(value: Any) -> Any:
    return value.ids if isinstance(value, Moved) else value


def _some_lengths(batch: int) -> np.ndarray:
    """Returns the lengths that stand for an input `sequence_lens`."""
    return 1 + np.arange(batch) % 2


def _real_types() -> tuple[int, ...]:
    from onnx import TensorProto as kinds

    return kinds.FLOAT16, kinds.FLOAT, kinds.DOUBLE, kinds.BFLOAT16


def _integer_types() -> tuple[int, ...]:
    from onnx import TensorProto as kinds

    return kinds.INT32, kinds.INT64
