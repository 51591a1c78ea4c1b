"""Nodes of ONNX without a state as layers on a chain: look-ups, products, biases, sums, activations."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxrnn.convert.arrays import to_jax
from jaxrnn.convert.layers import Direction
from jaxrnn.convert.onnx.activations import SOFTMAX, from_name
from jaxrnn.convert.onnx.graph import Graph, is_integer, some_lengths
from jaxrnn.convert.onnx.tracing import Moved, Trace
from jaxrnn.networks import Bidirectional, Embedding, Linear, LinearParams, Pointwise

__all__ = ["LAYERS", "is_identity", "pointwise"]

# Stands for the last layer where there is none.
_NOTHING: Direction = Pointwise(jax.nn.identity, 1), ()

Attributes = Mapping[str, Any]


def is_identity(graph: Graph, trace: Trace, op: str, attributes: Attributes, inputs: list[Any]) -> bool:
    """Returns whether a node, of an operator in `IDENTITIES`, passes its input on unchanged."""
    if op == "Dropout":
        return not (len(inputs) > 2 and np.any(inputs[2]))
    source = trace.source_of(inputs[0].ids.flat[0])
    return is_integer(attributes["to"]) if source.kind == "tokens" else attributes["to"] == graph.kind(source.name)


def pointwise(graph: Graph, trace: Trace, op: str, attributes: Attributes, value: Any) -> Moved:
    """Puts an activation or a softmax on a chain."""
    source, rows = trace.rows(value)
    if op in SOFTMAX:
        axis = attributes.get("axis", -1 if graph.opset >= 13 else 1)
        if axis not in (-1, value.ids.ndim - 1):
            raise ValueError(f"axis: got {axis}, needs the last")
        function = SOFTMAX[op]
    else:
        function = from_name(op, **{name: attributes[name] for name in ("alpha", "beta") if name in attributes})
    return trace.above(source, rows, (Pointwise(function, source.size), ()), source.size)


def _gather(graph: Graph, trace: Trace, attributes: Attributes, table: Any, tokens: Any) -> Moved:
    """Reads a look-up; a `Gather` of other values moves them."""
    if not isinstance(table, np.ndarray) or table.ndim != 2 or attributes.get("axis", 0) != 0:
        raise ValueError("got no constant table [V, E] that is looked up along its first axis")
    source = trace.source_of(tokens.ids.flat[0])
    if source.kind != "tokens":
        raise ValueError("got indices that are no input of integers")
    layer = Embedding(*table.shape), to_jax("data", table)
    return trace.above(source, tokens.ids - source.base, layer, table.shape[1])


def _matmul(graph: Graph, trace: Trace, attributes: Attributes, value: Any, w: Any) -> Moved:
    if not isinstance(w, np.ndarray) or w.ndim != 2:
        raise ValueError("got a second factor that is no constant matrix [I, O]")
    source, rows = trace.rows(value)
    if len(w) != source.size:
        raise ValueError(f"got a matrix of {len(w)} rows for {source.size} values")
    layer = Linear(len(w), w.shape[1], use_bias=False), LinearParams(to_jax("W", w), None)
    return trace.above(source, rows, layer, w.shape[1])


def _gemm(graph: Graph, trace: Trace, attributes: Attributes, value: Any, w: Any, b: Any = None) -> Moved:
    if attributes.get("transA", 0):
        raise ValueError("transA: got 1, needs 0")
    if not isinstance(w, np.ndarray) or not (b is None or isinstance(b, np.ndarray)):
        raise ValueError("got weights that depend on the inputs, needs constants")
    w = w.T if attributes.get("transB", 0) else w
    alpha, beta = (w.dtype.type(attributes.get(name, 1.0)) for name in ("alpha", "beta"))
    product = _matmul(graph, trace, {}, value, alpha * w)
    return product if b is None else _add(graph, trace, {}, product, beta * b)


def _add(graph: Graph, trace: Trace, attributes: Attributes, a: Any, b: Any) -> Moved:
    """Adds a bias, or two branches."""
    if isinstance(a, Moved) and isinstance(b, Moved):
        return _sum(trace, a, b)
    value, bias = (a, b) if isinstance(a, Moved) else (b, a)
    source, rows = trace.rows(value)
    if bias.size not in (1, source.size) or bias.shape[-1:] not in ((), (bias.size,)):
        raise ValueError(f"got a constant of the shape {bias.shape}, needs one for each of {source.size} values")
    rows = rows.reshape(np.broadcast_shapes(value.ids.shape, bias.shape)[:-1])
    layer, params = source.chain[-1] if source.chain else _NOTHING
    if not isinstance(layer, Linear) or layer.use_bias:
        raise ValueError("got a constant that no matrix product comes before")
    b = to_jax("B", np.broadcast_to(bias.reshape(-1), (source.size,)))
    below = dataclasses.replace(source, chain=source.chain[:-1])
    biased = Linear(layer.input_size, layer.size), LinearParams(params.w, b)
    return trace.above(below, rows, biased, layer.size)


def _sum(trace: Trace, a: Moved, b: Moved) -> Moved:
    if a.ids.shape != b.ids.shape:
        raise ValueError(f"got the shapes {a.ids.shape} and {b.ids.shape}, needs equal ones")
    try:
        joined, rows = trace.join("sum", trace.rows(a), trace.rows(b))
    except ValueError:
        # The two directions of one node, before they are put side by side.
        source, rows = trace.rows(Moved(np.concatenate([a.ids, b.ids], axis=-1)))
        layer, params = source.chain[-1] if source.chain else _NOTHING
        if not isinstance(layer, Bidirectional) or layer.merge != "concat" or source.size != 2 * a.ids.shape[-1]:
            raise
        key = ("directions", source)
        if key not in trace.joined:
            summed = dataclasses.replace(layer, merge="sum"), params
            trace.joined[key] = trace.add_beside(source, (*source.chain[:-1], summed), a.ids.shape[-1])
        joined = trace.joined[key]
    return joined.outputs(rows)


def _where(graph: Graph, trace: Trace, attributes: Attributes, condition: Any, value: Any, other: Any) -> Any:
    """Reads zeros beyond `sequence_lens`, which is what `lengths` of `unroll` means."""
    source, rows = trace.rows(value)
    constant = isinstance(condition, np.ndarray) and isinstance(other, np.ndarray)
    if constant and trace.order and graph.lengths and other.size == 1 and not other.any():
        batch = trace.order[2]
        rows = trace.in_steps(source, rows)
        valid = (rows // batch < some_lengths(batch)[rows % batch])[..., None]
        if np.array_equal(np.broadcast_to(condition, value.ids.shape), np.broadcast_to(valid, value.ids.shape)):
            return value
    raise ValueError("got another choice than that of zero beyond the lengths")


LAYERS: Mapping[str, Callable[..., Moved]] = {
    "Add": _add,
    "Gather": _gather,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Where": _where,
}
