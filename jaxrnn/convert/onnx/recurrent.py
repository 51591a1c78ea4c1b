"""Recurrent nodes of ONNX as layers on a chain: cells, directions, layouts, lengths, initial states."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrnn.convert.arrays import to_jax
from jaxrnn.convert.layers import Direction
from jaxrnn.convert.onnx.graph import Graph, some_lengths
from jaxrnn.convert.onnx.nodes import Weights, activations_of, as_cell
from jaxrnn.convert.onnx.tracing import Moved, Source, Trace
from jaxrnn.networks import Bidirectional, BidirectionalParams, LearnedState, LearnedStateParams, Reversed

__all__ = ["recurrent"]


def recurrent(
    graph: Graph, trace: Trace, node: Any, attributes: Mapping[str, Any], inputs: Sequence[Any]
) -> list[Moved]:
    """Puts the layer of a recurrent node on a chain; returns `Y`, `Y_h` and `Y_c`."""
    if graph.opset < 7:
        raise ValueError(f"got opset {graph.opset}, needs 7 or newer")
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
    source, rows = trace.rows(Moved(x.ids.swapaxes(0, 1)) if layout else x)
    flipped = trace.is_flipped(source, rows)
    ends = _input_of_lengths(graph, node, lengths, steps=len(rows))
    if flipped and ends:
        raise ValueError("sequence_lens: got some for a sequence that is reversed beyond them")
    functions = activations_of(node.op_type, attributes, len(ways))
    states = zip("hc", node.input[5:7], inputs[5:7], strict=False)
    starts = [(leaf, name, value) for leaf, name, value in states if name]
    cells = []
    for d in range(len(ways)):
        weights = Weights(w[d], r[d], None if b is None else b[d], None if p is None else p[d])
        cell = as_cell(node.op_type, attributes, functions[d], weights)
        if weights.w.shape[1] != source.size:
            raise ValueError(f"X: got {source.size} values at each step, needs {weights.w.shape[1]}")
        cells.append(_begun(graph, cell, starts, source, d, layout))
    layer, params = cells[0]
    if len(cells) == 2:
        other, more = cells[1]
        layer, params = Bidirectional(layer, None if layer == other else other), BidirectionalParams(params, more)
    if (direction == "reverse") != flipped:
        layer = Reversed(layer)
    trace.lengths.append(ends)
    back = [way != flipped for way in ways]
    ys, h, c = _outputs(trace, source, (layer, params), (*rows.shape, r.shape[2]), back)
    ys = ys[::-1] if flipped else ys
    if layout:
        ys, h, c = ys.transpose(2, 0, 1, 3), h.transpose(1, 0, 2), c.transpose(1, 0, 2)
    return [Moved(ys), Moved(h), Moved(c)]


def _outputs(
    trace: Trace, source: Source, layer: Direction, sizes: tuple[int, int, int], back: Sequence[bool]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the numbers of `Y`, `Y_h` and `Y_c`; `back` says which directions run from last to first."""
    steps, batch, size = sizes
    ways = len(back)
    rows = np.arange((steps + 1) * batch * ways * size).reshape(steps + 1, batch, ways, size) + trace.next_number
    ys = rows[:steps].transpose(0, 2, 1, 3)
    h = np.stack([rows[0 if reverse else steps, :, d] for d, reverse in enumerate(back)])
    more: dict[str, Any] = {
        "chain": (*source.chain, layer),
        "steps": (steps, batch),
        "nodes": source.nodes | {len(trace.lengths) - 1},
        "name": source.name,
    }
    trace.add((steps + 1) * batch, ways * size, final=frozenset(h.ravel().tolist()), **more)
    cells = trace.add(ways * batch, size, kind="state", **more)
    return ys, h, cells.outputs(np.arange(ways * batch).reshape(ways, batch)).ids


def _input_of_lengths(graph: Graph, node: Any, lengths: Any, steps: int) -> str:
    """Returns the input that `sequence_lens` is; nothing where it says that all steps are valid."""
    if lengths is None:
        return ""
    origins = graph.origins[node.input[4]]
    if isinstance(lengths, np.ndarray) and not origins and (lengths == steps).all():
        return ""
    known = isinstance(lengths, np.ndarray) and np.array_equal(lengths, some_lengths(lengths.size))
    if known and len(origins) == 1 and origins <= graph.lengths:
        return next(iter(origins))
    raise ValueError("sequence_lens: got neither an input nor T, needs the lengths as an input")


def _begun(
    graph: Graph, cell: Direction, starts: Sequence[tuple[str, str, Any]], source: Source, d: int, layout: int
) -> Direction:
    """Lets the cell of direction d begin in the initial state that constants give."""
    layer: Any
    layer, params = cell
    begin = {}
    for leaf, name, value in starts:
        if graph.origins[name]:
            if not graph.is_moved(name, source.name):
                raise ValueError(f"initial_{leaf}: got what other nodes compute, needs an input or a constant")
            continue
        rows = value.swapaxes(0, 1)[d] if layout else value[d]
        if (rows != rows[:1]).any():
            raise ValueError(f"initial_{leaf}: got constants that differ between rows, needs an input")
        if rows.any():
            begin[leaf] = to_jax(f"initial_{leaf}", rows[0])
    if not begin:
        return cell
    if any(graph.origins[name] for _, name, _ in starts):
        raise ValueError("initial_h, initial_c: got a constant and an input, needs two of a kind")
    zeros = layer.initial_state((), next(iter(begin.values())).dtype)
    return LearnedState(layer), LearnedStateParams(params, zeros._replace(**begin))
