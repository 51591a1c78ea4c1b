"""Graphs of ONNX as networks: `from_onnx`.

A graph is read by running it on numbers that tell where each value of a tensor comes from. What only moves values
(Transpose, Reshape, Slice, …) runs as it is, by ONNX's own reference, and so does what depends on no input. Before a
node that computes, the numbers tell which layer's outputs it sees, and which axis is time. Dynamic axes get small
sizes for this.
"""

import bisect
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import numpy as np

from jaxrnn.convert.arrays import to_jax
from jaxrnn.convert.layers import Direction
from jaxrnn.convert.onnx.activations import POINTWISE, SOFTMAX, from_name
from jaxrnn.convert.onnx.layers import Linear, LinearParams, Reversed
from jaxrnn.convert.onnx.nodes import GATES, Weights, activations_of, as_cell
from jaxrnn.engine.layer import Layer
from jaxrnn.networks import (
    Bidirectional,
    BidirectionalParams,
    Embedding,
    LearnedState,
    LearnedStateParams,
    Pointwise,
    Residual,
    Stack,
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
        >>> net = jaxrnn.Stack((jaxrnn.Bidirectional(jaxrnn.LSTM(3, 4)), jaxrnn.GRU(8, 2)))
        >>> model = convert.to_onnx(net, net.init(jax.random.key(0)))
        >>> network, params = from_onnx(model)
        >>> network == net
        True
    """
    proto = _load(model)
    graph = _Reader(proto, output)
    graph.read()
    return _network(graph.result())


def _load(model: Any) -> Any:
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


class _Moved:
    """Where the values of a tensor come from: numbers that a `_Source` explains."""

    def __init__(self, ids: np.ndarray) -> None:
        self.ids = ids


@dataclass(frozen=True, eq=False)
class _Source:
    """What gives values: an input of the graph, or the last layer of a chain.

    The value of row r and feature f has the number `base + r * size + f`.
    """

    base: int
    rows: int
    size: int
    chain: tuple[Direction, ...]
    steps: tuple[int, int] | None = None
    """(T, B), from the first recurrent layer on. Row `t * B + b` is step t of b; row `T * B + b` its last valid one."""
    nodes: frozenset[int] = frozenset()
    """The recurrent nodes in the chain, in the order in which they were read."""
    final: frozenset[int] = frozenset()
    """The numbers of what the final state holds too."""
    kind: str = "values"
    """"tokens" of an integer input; "state" of `Y_c`, which no layer may see; else "values"."""
    name: str = ""
    """Of the input at the bottom of the chain."""


# Of dynamic axes. Small, and all different, so that the order of two axes shows.
_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31)


@dataclass
class _Reader:
    """Reads one graph, node by node."""

    model: Any
    output: str | None
    values: dict[str, Any] = field(default_factory=dict)
    sources: list[_Source] = field(default_factory=list)
    used_lengths: list[str] = field(default_factory=list)
    """Of each recurrent node, the input that `sequence_lens` is, or nothing."""
    joined: dict[tuple[Any, ...], _Source] = field(default_factory=dict)
    """Branches that came together, so that all that see them see the same layer."""
    order: tuple[bool, int, int] | None = None
    """Whether the rows of the input are `b * T + t`, T and B; known from the first recurrent node on."""

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
            seen: frozenset[str] = frozenset()
            if node.op_type not in ("Shape", "Size"):
                seen = seen.union(*(origins.get(name, frozenset()) for name in node.input))
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
        shape = []
        for axis, dim in enumerate(kind.shape.dim):
            key = dim.dim_param or f"{name} {axis}"
            shape.append(dim.dim_value if dim.HasField("dim_value") else sizes.setdefault(key, _PRIMES[len(sizes)]))
        if name in self.lengths:
            self.values[name] = _some_lengths(*shape)
            return
        tokens = kind.elem_type not in _real_types()
        size = 1 if tokens or not shape else shape[-1]
        if 0 in shape:
            raise ValueError(f"{name}: got the shape {shape}, needs no empty axis")
        rows = int(np.prod(shape, dtype=int)) // size
        source = self._source(rows, size, (), kind="tokens" if tokens else "values", name=name)
        self.values[name] = _Moved(source.base + np.arange(rows * size).reshape(shape))

    def _source(self, rows: int, size: int, chain: tuple[Direction, ...], **more: Any) -> _Source:
        base = self.sources[-1].base + self.sources[-1].rows * self.sources[-1].size if self.sources else 0
        self.sources.append(_Source(base, rows, size, chain, **more))
        return self.sources[-1]

    def _read_node(self, node: Any) -> None:
        """Gives the outputs of a node their values."""
        from onnx import helper

        inputs: list[Any] = [self.values.get(name) for name in node.input]
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        op, moved = node.op_type, [value for value in inputs if isinstance(value, _Moved)]
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
            elif op in _MOVES and (op == "Concat" or inputs[0] is moved[0]) and len(moved) in (1, len(inputs)):
                results = [_Moved(ids) for ids in self._run(node, [_ids(v) for v in inputs])]
            elif op in _IDENTITIES and self._is_identity(op, attributes, inputs):
                results = moved
            elif op in _LAYERS:
                results = [_LAYERS[op](self, attributes, *inputs)]
            elif op in POINTWISE or op in SOFTMAX:
                results = [self._pointwise(op, attributes, inputs[0])]
            else:
                raise ValueError("got no layer of a network")
        except ValueError as error:
            seen = [self._source_of(value.ids.flat[0]) for value in moved]
            if self._is_of_tokens(node.output[0]) and all(source.kind == "tokens" for source in seen):
                return  # it may compute indices, see `_tokens`
            raise ValueError(f"{op} node {node.name or node.output[0]!r}: {error}") from error
        self.values |= dict(zip(node.output, results, strict=False))

    def _run(self, node: Any, inputs: Sequence[Any]) -> list[Any]:
        """Runs a node by ONNX's reference."""
        from onnx.reference import ReferenceEvaluator

        feeds = {name: value for name, value in zip(node.input, inputs, strict=True) if name}
        if any(value is None for value in feeds.values()):
            raise ValueError(f"got no values for {[name for name, value in feeds.items() if value is None]}")
        try:
            return list(ReferenceEvaluator(node, opsets=self.opsets).run(None, feeds))
        except Exception as error:
            raise ValueError(f"got a node that ONNX's reference cannot run: {error}") from error

    # What a tensor is

    def _source_of(self, number: int) -> _Source:
        return self.sources[bisect.bisect_right(self.sources, number, key=lambda source: source.base) - 1]

    def _rows(self, value: Any) -> tuple[_Source, np.ndarray]:
        """Returns whose outputs a tensor `[..., F]` holds, and their rows `[...]`; joins branches side by side."""
        if not isinstance(value, _Moved) or value.ids.ndim < 1:
            raise ValueError("got constants, needs the outputs of a layer")
        ids = value.ids
        lines = ids.reshape(-1, ids.shape[-1])
        found, start = [], 0
        while start < ids.shape[-1]:
            source = self._source_of(lines[0, start])
            part = lines[:, start : start + source.size] - source.base
            rows = part[:, :1] // source.size
            whole = np.array_equal(part, rows * source.size + np.arange(source.size))
            if not whole or source.kind != "values" or rows.min() < 0 or rows.max() >= source.rows:
                raise ValueError(
                    "got a part of the outputs of a layer, or of different time steps, needs all of them at each step; "
                    "the argument output cuts the model before"
                )
            found.append((source, rows.reshape(ids.shape[:-1])))
            start += source.size
        return functools.reduce(lambda a, b: self._join("concat", a, b), found)

    def _in_steps(self, source: _Source, rows: np.ndarray) -> np.ndarray:
        """Returns rows as `t * B + b`, as soon as it is known which axis is time."""
        if source.steps is not None or self.order is None or not self.order[0]:
            return rows
        _, steps, batch = self.order
        return rows % steps * batch + rows // steps

    def _join(
        self, merge: Literal["concat", "sum"], one: tuple[_Source, np.ndarray], other: tuple[_Source, np.ndarray]
    ) -> tuple[_Source, np.ndarray]:
        """Joins two branches over the same inputs."""
        sources = one[0], other[0]
        steps = one[0].steps or other[0].steps
        rows, others = (self._in_steps(*pair) if steps else pair[1] for pair in (one, other))
        if not np.array_equal(rows, others) or one[0].name != other[0].name:
            raise ValueError("got two branches of different steps or inputs, needs those of the same")
        key = (merge, *sources)
        if key not in self.joined:
            chains = [source.chain for source in sources]
            n = next((i for i, (a, b) in enumerate(zip(*chains, strict=False)) if a is not b), min(map(len, chains)))
            self.joined[key] = self._source(
                max(source.rows for source in sources),
                sources[0].size + sources[1].size if merge == "concat" else sources[0].size,
                (*chains[0][:n], _joined(merge, [chain[n:] for chain in chains], [s.size for s in sources])),
                steps=steps,
                nodes=sources[0].nodes | sources[1].nodes,
                name=one[0].name,
            )
        return self.joined[key], rows

    def _above(self, source: _Source, rows: np.ndarray, layer: Direction, size: int) -> _Moved:
        """Puts a layer without a state on a chain, and returns its outputs in the order of `rows`."""
        new = self._source(
            source.rows, size, (*source.chain, layer), steps=source.steps, nodes=source.nodes, name=source.name
        )
        return _Moved(new.base + rows[..., None] * size + np.arange(size))

    # Layers without a state

    def _pointwise(self, op: str, attributes: Mapping[str, Any], value: Any) -> _Moved:
        source, rows = self._rows(value)
        if op in SOFTMAX:
            axis = attributes.get("axis", -1 if self.opsets.get("", 1) >= 13 else 1)
            if axis not in (-1, value.ids.ndim - 1):
                raise ValueError(f"axis: got {axis}, needs the last")
            return self._above(source, rows, (Pointwise(SOFTMAX[op], source.size), ()), source.size)
        numbers = {name: attributes[name] for name in ("alpha", "beta") if name in attributes}
        return self._above(source, rows, (Pointwise(from_name(op, **numbers), source.size), ()), source.size)

    def _gather(self, attributes: Mapping[str, Any], table: Any, tokens: Any) -> _Moved:
        """Reads a look-up; a `Gather` of other values moves them."""
        if not isinstance(table, np.ndarray) or table.ndim != 2 or attributes.get("axis", 0) != 0:
            raise ValueError("got no constant table [V, E] that is looked up along its first axis")
        source = self._source_of(tokens.ids.flat[0])
        if source.kind != "tokens":
            raise ValueError("got indices that are no input of integers")
        return self._above(
            source, tokens.ids - source.base, (Embedding(*table.shape), to_jax("data", table)), table.shape[1]
        )

    def _is_of_tokens(self, name: str) -> bool:
        """Whether a tensor depends on one input of integers only."""
        kinds = [self.inputs[origin].type.tensor_type.elem_type for origin in self.origins[name]]
        return len(kinds) == 1 and kinds[0] not in _real_types() and self.origins[name].isdisjoint(self.lengths)

    def _tokens(self, name: str, table: Any) -> _Moved:
        """Returns the input of integers that a tensor equals; what computes it must leave every index as it is.

        Keras, for one, writes `x + V if x < 0 else x` before a look-up.
        """
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

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
        (found,) = ReferenceEvaluator(proto).run(None, {origin: every})
        if not np.array_equal(found, every):
            raise ValueError("got indices that are not the tokens themselves")
        return moved

    def _matmul(self, attributes: Mapping[str, Any], value: Any, w: Any) -> _Moved:
        return self._linear(value, w, None)

    def _gemm(self, attributes: Mapping[str, Any], value: Any, w: Any, b: Any = None) -> _Moved:
        if attributes.get("transA", 0):
            raise ValueError("transA: got 1, needs 0")
        if not isinstance(w, np.ndarray) or not (b is None or isinstance(b, np.ndarray)):
            raise ValueError("got weights that depend on the inputs, needs constants")
        w = w.T if attributes.get("transB", 0) else w
        alpha, beta = (w.dtype.type(attributes.get(name, 1.0)) for name in ("alpha", "beta"))
        return self._linear(value, alpha * w, None if b is None else beta * b)

    def _linear(self, value: Any, w: Any, b: Any) -> _Moved:
        if not isinstance(w, np.ndarray) or w.ndim != 2:
            raise ValueError("got a second factor that is no constant matrix [I, O]")
        source, rows = self._rows(value)
        if len(w) != source.size:
            raise ValueError(f"got a matrix of {len(w)} rows for {source.size} values")
        layer = Linear(len(w), w.shape[1], use_bias=False), LinearParams(to_jax("W", w), None)
        moved = self._above(source, rows, layer, w.shape[1])
        return moved if b is None else self._add({}, moved, b)

    def _add(self, attributes: Mapping[str, Any], a: Any, b: Any) -> _Moved:
        """Adds a bias, or two branches."""
        if isinstance(a, _Moved) and isinstance(b, _Moved):
            return self._sum(a, b)
        value, bias = (a, b) if isinstance(a, _Moved) else (b, a)
        source, rows = self._rows(value)
        if (bias.size != 1 and bias.shape[bias.ndim - 1 :] != (source.size,)) or bias.size > source.size:
            raise ValueError(
                f"got a constant of the shape {bias.shape}, needs one number for each of {source.size} values"
            )
        layer, params = source.chain[-1] if source.chain else (None, None)
        if not isinstance(layer, Linear) or layer.use_bias:
            raise ValueError("got a constant that no matrix product comes before")
        b = to_jax("B", np.broadcast_to(bias.reshape(-1), (source.size,)))
        below = dataclasses.replace(source, chain=source.chain[:-1])
        return self._above(below, rows, (Linear(layer.input_size, layer.size), LinearParams(params.w, b)), layer.size)

    def _sum(self, a: _Moved, b: _Moved) -> _Moved:
        if a.ids.shape != b.ids.shape:
            raise ValueError(f"got the shapes {a.ids.shape} and {b.ids.shape}, needs equal ones")
        try:
            joined, rows = self._join("sum", self._rows(a), self._rows(b))
        except ValueError:
            # The two directions of one node, before they are put side by side.
            source, rows = self._rows(_Moved(np.concatenate([a.ids, b.ids], axis=-1)))
            layer, params = source.chain[-1] if source.chain else (None, None)
            if not isinstance(layer, Bidirectional) or layer.merge != "concat" or source.size != 2 * a.ids.shape[-1]:
                raise
            key = ("directions", source)
            if key not in self.joined:
                summed = dataclasses.replace(layer, merge="sum"), params
                self.joined[key] = self._source(
                    source.rows,
                    a.ids.shape[-1],
                    (*source.chain[:-1], summed),
                    steps=source.steps,
                    nodes=source.nodes,
                    name=source.name,
                )
            joined = self.joined[key]
        return _Moved(joined.base + rows[..., None] * joined.size + np.arange(joined.size))

    def _where(self, attributes: Mapping[str, Any], condition: Any, value: Any, other: Any) -> Any:
        """Reads zeros beyond `sequence_lens`, which is what `lengths` of `unroll` means."""
        source, rows = self._rows(value)
        if self.order is None or not isinstance(condition, np.ndarray) or not np.array_equal(other, 0 * other):
            raise ValueError("got another choice than zero beyond the lengths")
        batch = self.order[2]
        rows = self._in_steps(source, rows)
        valid = (rows // batch < _some_lengths(batch)[rows % batch])[..., None]
        if not self.lengths or not np.array_equal(
            np.broadcast_to(condition, value.ids.shape), valid & (value.ids >= 0)
        ):
            raise ValueError("got another choice than zero beyond the lengths")
        return value

    def _is_identity(self, op: str, attributes: Mapping[str, Any], inputs: Sequence[Any]) -> bool:
        if op == "Dropout":
            return not (len(inputs) > 2 and np.any(inputs[2]))
        source = self._source_of(inputs[0].ids.flat[0])
        of_input = self.inputs[source.name].type.tensor_type.elem_type
        return attributes["to"] == of_input or (source.kind == "tokens" and attributes["to"] in _integer_types())

    # Recurrent layers

    def _recurrent(self, node: Any, attributes: Mapping[str, Any], inputs: Sequence[Any]) -> list[_Moved]:
        """Puts a recurrent layer on a chain."""
        if self.opsets.get("", 1) < 7:
            raise ValueError(f"got opset {self.opsets.get('', 1)}, needs 7 or newer")
        x, w, r, b, lengths, _, _, p = [*inputs, *(None,) * (8 - len(inputs))]
        for name, weight in (("W", w), ("R", r), ("B", b), ("P", p)):
            if not (weight is None and name in "BP") and not isinstance(weight, np.ndarray):
                raise ValueError(f"{name}: got values that depend on the inputs, needs a constant")
        direction = attributes.get("direction", b"forward").decode()
        ways = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}.get(direction, [])
        if not ways or w.ndim != 3 or r.ndim != 3 or len(w) != len(ways) or len(r) != len(ways):
            raise ValueError(f"direction: got {direction!r} for W {w.shape} and R {r.shape}, needs one matrix each")
        layout = attributes.get("layout", 0)
        if not isinstance(x, _Moved) or x.ids.ndim != 3:
            raise ValueError("X: got no sequence [T, B, I] that depends on the inputs")
        source, rows = self._rows(_Moved(x.ids.swapaxes(0, 1)) if layout else x)
        steps, batch = rows.shape
        flipped = self._is_flipped(source, rows)
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
        return self._outputs(
            source, (layer, params), (steps, batch, r.shape[2]), [w != flipped for w in ways], ends, layout, flipped
        )

    def _outputs(
        self,
        source: _Source,
        layer: Direction,
        sizes: tuple[int, int, int],
        ways: Sequence[bool],
        ends: str,
        layout: int,
        flipped: bool,
    ) -> list[_Moved]:
        """Returns `Y`, `Y_h` and `Y_c` of a recurrent layer; `ways` says which directions run from last to first."""
        steps, batch, size = sizes
        chain, nodes = (*source.chain, layer), source.nodes | {len(self.used_lengths)}
        self.used_lengths.append(ends)
        width = len(ways) * size
        base = self.sources[-1].base + self.sources[-1].rows * self.sources[-1].size
        rows = base + np.arange((steps + 1) * batch * width).reshape(steps + 1, batch, len(ways), size)
        ys = rows[:steps].transpose(0, 2, 1, 3)
        h = np.stack([rows[0 if back else steps, :, d] for d, back in enumerate(ways)])
        final = frozenset(h.ravel().tolist())
        more: dict[str, Any] = {"steps": (steps, batch), "nodes": nodes, "name": source.name}
        self._source((steps + 1) * batch, width, chain, final=final, **more)
        cells = self._source(len(ways) * batch, size, chain, kind="state", **more)
        c = cells.base + np.arange(len(ways) * batch * size).reshape(len(ways), batch, size)
        ys = ys[::-1] if flipped else ys
        if layout:
            return [_Moved(ys.transpose(2, 0, 1, 3)), _Moved(h.transpose(1, 0, 2)), _Moved(c.transpose(1, 0, 2))]
        return [_Moved(ys), _Moved(h), _Moved(c)]

    def _is_flipped(self, source: _Source, rows: np.ndarray) -> bool:
        """Whether the steps `[T, B]` of a chain stand in reversed order; finds out which axis of the input is time."""
        steps, batch = rows.shape
        if source.steps is not None and source.steps != (steps, batch):
            raise ValueError(f"X: got {rows.shape} steps and rows of a sequence of {source.steps}, needs all")
        orders = [False, True] if self.order is None else [self.order[0]]
        for batch_major in [False] if source.steps else orders:
            numbers = np.arange(steps * batch)
            expected = numbers.reshape(batch, steps).T if batch_major else numbers.reshape(steps, batch)
            for flipped in (False, True):
                if source.rows >= rows.size and np.array_equal(rows, expected[::-1] if flipped else expected):
                    if self.order not in (None, (self.order and self.order[0], steps, batch)):
                        raise ValueError(f"X: got {rows.shape} steps and rows, after {self.order[1:]}")
                    self.order = self.order or (batch_major, steps, batch)
                    return flipped
        raise ValueError("X: got steps in another order than that of time, or not all of them")

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

    def _begun(self, node: Any, cell: Direction, source: _Source, d: int, layout: int) -> Direction:
        """Lets a cell begin in the initial state that the constants of its node give."""
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

    def _is_input(self, name: str, source: _Source) -> bool:
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
            is_ys = sources == {main} and self._is_output(main, ids, ends != {""})
            if not is_ys and not self._is_state(main, sources, ids):
                raise ValueError(
                    f"{name}: got an output that is neither all steps, the first or last step, nor a state; "
                    "the argument output names one tensor to be ys"
                )
        return main.chain

    def _output(self, name: str) -> tuple[set[_Source], np.ndarray]:
        """Returns the layers whose values an output of the model holds, and their numbers."""
        value = self.values[name]
        if not isinstance(value, _Moved):
            raise ValueError(f"{name}: got an output that does not depend on the sequence")
        try:
            source, rows = self._rows(value)
        except ValueError:
            return {self._source_of(i) for i in np.unique(value.ids).tolist()}, value.ids
        rows = self._in_steps(source, rows)
        return {source}, source.base + rows[..., None] * source.size + np.arange(source.size)

    def _is_output(self, source: _Source, ids: np.ndarray, has_lengths: bool) -> bool:
        """Whether numbers are all outputs of a layer, or those of the first or last step, features in their order."""
        steps, batch = source.steps or (0, 0)
        rows = (ids.ravel() - source.base) // source.size
        numbers = ids.ravel()[np.argsort(rows, kind="stable")] - source.base
        last = {steps} if has_lengths else {steps - 1, steps}
        parts = [(0, steps), *((step, step + 1) for step in {0, *last})]
        width = batch * source.size
        return any(np.array_equal(numbers, np.arange(start * width, end * width)) for start, end in parts)

    def _is_state(self, main: _Source, sources: set[_Source], ids: np.ndarray) -> bool:
        """Whether numbers are parts of the final state of a network."""
        if not all(source.nodes <= main.nodes for source in sources):
            return False
        final = frozenset().union(*(source.final for source in sources))
        return all(i in final or self._source_of(i).kind == "state" for i in np.unique(ids).tolist())


_LAYERS: Mapping[str, Callable[..., Any]] = {
    "Add": _Reader._add,
    "Gather": _Reader._gather,
    "Gemm": _Reader._gemm,
    "MatMul": _Reader._matmul,
    "Where": _Reader._where,
}


def _ids(value: Any) -> Any:
    return value.ids if isinstance(value, _Moved) else value


def _some_lengths(batch: int) -> np.ndarray:
    """Returns the lengths that stand for an input `sequence_lens`."""
    return 1 + np.arange(batch) % 2


def _real_types() -> tuple[int, ...]:
    from onnx import TensorProto as kinds

    return kinds.FLOAT16, kinds.FLOAT, kinds.DOUBLE, kinds.BFLOAT16


def _integer_types() -> tuple[int, ...]:
    from onnx import TensorProto as kinds

    return kinds.INT32, kinds.INT64


def _joined(merge: Literal["concat", "sum"], tails: Sequence[Sequence[Direction]], sizes: Sequence[int]) -> Direction:
    """Returns the layer of two branches."""
    if merge == "sum" and bool(tails[0]) != bool(tails[1]):
        layer, params = _network(tails[0] or tails[1])
        return Residual(layer), params
    (forward, there), (backward, back) = (
        _network(tail or [(Pointwise(jax.nn.identity, size), ())]) for tail, size in zip(tails, sizes, strict=True)
    )
    backward = _turned(backward)
    pair = Bidirectional(forward, None if forward == backward else backward, merge)
    return pair, BidirectionalParams(there, back)


def _turned(layer: Layer) -> Layer:
    """Returns a layer in the other direction of time."""
    match layer:
        case Reversed():
            return layer.cell
        case Pointwise() | Linear() | Embedding():
            return layer
        case Stack() if not any(isinstance(_turned(cell), Reversed) for cell in layer.cells):
            return Stack(tuple(map(_turned, layer.cells)))
    return Reversed(layer)


def _network(chain: Sequence[Direction]) -> Direction:
    if len(chain) == 1:
        return chain[0]
    cells, params = zip(*chain, strict=True)
    return Stack(cells), params
