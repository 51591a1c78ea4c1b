"""Networks as graphs of ONNX: `to_onnx`.

A graph is written as `unroll` runs a network: layer after layer, each over the whole sequence, with the direction of
time handed down. A tensor that stands for `xs` or `ys` is `[T, B, ...]`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import check_bools, check_installed, check_params
from jaxrnn.convert.arrays import shared_dtype
from jaxrnn.convert.onnx.activations import POINTWISE, SOFTMAX, as_onnx
from jaxrnn.convert.onnx.nodes import FUNCTIONS, Half, as_half
from jaxrnn.engine.layer import Layer, check_layer
from jaxrnn.networks import (
    Bidirectional,
    BidirectionalState,
    CandidateDropout,
    ClippedGradient,
    Dropout,
    Embedding,
    LearnedState,
    Linear,
    Parametrized,
    Pointwise,
    RecurrentDropout,
    Residual,
    Reversed,
    Stack,
    Stepped,
    Truncated,
    WeightDrop,
    WeightNoise,
    Wrapper,
)
from jaxrnn.typing import Params, State

__all__ = ["to_onnx"]

# Wrappers that change training only: without a `key` they are their cell.
_TRAINING = (
    CandidateDropout,
    ClippedGradient,
    Dropout,
    RecurrentDropout,
    Stepped,
    Truncated,
    WeightDrop,
    WeightNoise,
)
# What most servers load: layouts of recurrent nodes are from 14 on.
_OPSET, _IR = 17, 8


def to_onnx(network: Layer, params: Params, *, lengths: bool = False, states: bool = False) -> Any:
    """Turns a cell or network into a model of ONNX that gives what `unroll` gives without a `key`.

    Its input is `xs` `[T, B, I]`, or tokens `[T, B]` in int64 for an `Embedding`; its output `ys` `[T, B, O]`. T and B
    are dynamic. The weights keep their dtype, which is also that of `xs` and `ys`.

    Args:
        network: an `Elman`, `GRU`, `LSTM` or `VanillaLSTM` with the options that ONNX has; `Embedding`, `Linear`,
            `Pointwise`, `Reversed`; a `Stack`, `Bidirectional`, `Residual` or `LearnedState` of these. Wrappers that
            change training only, such as dropout, are left out.
        params: its parameters.
        lengths: whether there is an input `lengths` `[B]`, int32.
        states: whether the state is an input and the final state an output, one `[B, H]` for each leaf, named by its
            path: `state.h` and `final.h` of a `GRU`, `state[1].c` of the second layer of a `Stack`.

    Returns:
        An `onnx.ModelProto` of opset 17, which `onnx.save` writes to a file.

    Raises:
        ModuleNotFoundError: `onnx` is not installed.
        TypeError: `network` is no network, or `params` are not its parameters.
        ValueError: ONNX has no such layer or option, or the parameters are not all float16, float32 or float64.

    Example:
        >>> import jaxrnn
        >>> cell = jaxrnn.GRU(3, 4)
        >>> model = to_onnx(cell, cell.init(jax.random.key(0)))
        >>> [node.op_type for node in model.graph.node]
        ['GRU', 'Squeeze', 'Identity']
    """
    check_installed("onnx")
    import onnx
    from onnx import helper

    check_layer(network, "network")
    check_params(network, params)
    check_bools(lengths=lengths, states=states)
    dtype = np.dtype(shared_dtype(params, "float16", "float32", "float64"))
    graph = _Graph(dtype, lengths, states)
    shapes = jax.eval_shape(network.initial_state)
    paths = jax.tree_util.tree_map_with_path(lambda path, _: jax.tree_util.keystr(path), shapes)
    state = jax.tree.map(lambda path: f"state{path}", paths) if states else None
    ys, final = _write(graph, network, params, "xs", state, False)
    if lengths and not _is_zero_beyond(network):
        ys = graph.add("Where", graph.valid(), ys, graph.constant(np.zeros((), dtype)))
    real = helper.np_dtype_to_tensor_dtype(dtype)

    def tensor(name: str, shape: Sequence[int | str], kind: int = real) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    spec = network.input_spec
    tokens = jnp.issubdtype(spec.dtype, jnp.integer)
    inputs = [tensor("xs", ("T", "B", *spec.shape), onnx.TensorProto.INT64 if tokens else real)]
    if lengths:
        inputs.append(tensor("lengths", ("B",), onnx.TensorProto.INT32))
    graph.add("Identity", ys, names=("ys",))
    outputs = [tensor("ys", ("T", "B", network.output_size))]
    if states:
        for path, name, leaf in zip(*map(jax.tree.leaves, (paths, final, shapes)), strict=True):
            inputs.append(tensor(f"state{path}", ("B", *leaf.shape)))
            graph.add("Identity", name, names=(f"final{path}",))
            outputs.append(tensor(f"final{path}", ("B", *leaf.shape)))
    proto = helper.make_graph(graph.nodes, "jaxrnn", inputs, outputs, graph.constants, doc_string=str(network))
    return helper.make_model(
        proto, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR, producer_name="jaxrnn"
    )


class _Graph:
    """Nodes and constants so far."""

    def __init__(self, dtype: np.dtype, lengths: bool, states: bool) -> None:
        self.dtype, self.states = dtype, states
        self.lengths = "lengths" if lengths else ""
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, op: str, *inputs: str, names: Sequence[str] = (), **attributes: Any) -> str:
        """Adds a node and returns its first output, whose name is its own unless `names` has those of all outputs."""
        from onnx import helper

        names = names or (f"{op}_{len(self.nodes)}",)
        self.nodes.append(helper.make_node(op, inputs, names, f"{op}_{len(self.nodes)}", **attributes))
        return names[0]

    def constant(self, array: Any, name: str = "constant") -> str:
        """Adds a constant and returns its name."""
        from onnx import numpy_helper

        name = f"{name}_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def size(self, axis: int) -> str:
        """Adds what reads T (axis 0) or B (axis 1), `[1]`."""
        return self.add("Gather", self.add("Shape", "xs"), self.constant(np.array([axis])))

    def rows(self, row: np.ndarray) -> str:
        """Adds a tensor `[B, H]` whose rows are `row` `[H]`."""
        shape = self.add("Concat", self.size(1), self.constant(np.array(row.shape)), axis=0)
        return self.add("Expand", self.constant(row.astype(self.dtype)), shape)

    def valid(self) -> str:
        """Adds the mask `[T, B, 1]` of the steps within `lengths`."""
        steps = self.add("Squeeze", self.size(0), self.constant(np.array([0])))
        times = self.add("Range", self.constant(np.array(0)), steps, self.constant(np.array(1)))
        times = self.add("Unsqueeze", times, self.constant(np.array([1, 2])))
        ends = self.add("Unsqueeze", self.add("Cast", self.lengths, to=7), self.constant(np.array([1])))
        return self.add("Less", times, ends)


def _write(
    graph: _Graph, layer: Layer, params: Params, xs: str, state: State | None, reverse: bool
) -> tuple[str, State | None]:
    """Adds a layer over the sequence `xs`, and returns `ys` and, if it is asked for, the final state."""
    layer, params, state = _unwrapped(graph, layer, params, state)
    if half := as_half(layer, params):
        ys, (final,) = _recurrent(graph, [half], xs, [state], "reverse" if reverse else "forward")
        squeezed = graph.add("Squeeze", ys, graph.constant(np.array([1])))
        return squeezed, final
    match layer:
        case Stack():
            finals = []
            for i, cell in enumerate(layer.cells):
                xs, final = _write(graph, cell, params[i], xs, state and state[i], reverse)
                finals.append(final)
            return xs, tuple(finals)
        case Bidirectional():
            return _bidirectional(graph, layer, params, xs, state, reverse)
        case Reversed():
            return _write(graph, layer.cell, params, xs, state, not reverse)
        case Residual():
            ys, final = _write(graph, layer.cell, params, xs, state, reverse)
            return graph.add("Add", xs, ys), final
        case Linear():
            ys = graph.add("MatMul", xs, graph.constant(params.w, "w"))
            return ys if params.b is None else graph.add("Add", ys, graph.constant(params.b, "b")), ()
        case Embedding():
            return graph.add("Gather", graph.constant(params, "table"), xs), ()
        case Pointwise():
            return _pointwise(graph, layer, xs), ()
    raise ValueError(
        f"network: got {layer}, ONNX has no operator for it; needs Elman, GRU, LSTM or VanillaLSTM, "
        "and layers around them (see to_onnx)"
    )


def _unwrapped(graph: _Graph, layer: Layer, params: Params, state: State | None) -> tuple[Layer, Params, State | None]:
    """Takes wrappers off that change training, parameters or the first state only."""
    while True:
        match layer:
            case Parametrized():
                params, layer = layer.weights(params), layer.cell
            case LearnedState():
                if not graph.states:
                    state = jax.tree.map(lambda row: graph.rows(np.asarray(row)), params.initial)
                layer, params = layer.cell, params.cell
            case _ if isinstance(layer, _TRAINING):
                layer = layer.cell
            case _:
                return layer, params, state


def _recurrent(
    graph: _Graph, halves: Sequence[Half], xs: str, states: Sequence[State | None], direction: str
) -> tuple[str, list[State | None]]:
    """Adds a recurrent node; returns its `Y` `[T, D, B, H]` and the final state of each direction."""
    op, weights = halves[0].op, [half.weights for half in halves]
    attributes = {**halves[0].attributes, "direction": direction, "hidden_size": weights[0].r.shape[1]}
    used = [a for half in halves for a in half.activations]
    if tuple(a.name for a in used) != FUNCTIONS[op] * len(halves):
        attributes["activations"] = [a.name for a in used]
        for number in ("alpha", "beta"):
            if numbers := [getattr(a, number) for a in used if getattr(a, number) is not None]:
                attributes[f"activation_{number}"] = numbers

    def stacked(name: str, arrays: Sequence[np.ndarray | None]) -> str:
        present = [a for a in arrays if a is not None]
        return graph.constant(np.stack(present), name) if present else ""

    def initial(leaf: str) -> str:
        if all(state is None for state in states):
            return ""
        zeros = np.zeros(weights[0].r.shape[1], graph.dtype)
        rows = [graph.rows(zeros) if state is None else getattr(state, leaf) for state in states]
        each = [graph.add("Unsqueeze", row, graph.constant(np.array([0]))) for row in rows]
        return each[0] if len(each) == 1 else graph.add("Concat", *each, axis=0)

    kept = ("h", "c") if op == "LSTM" else ("h",)
    inputs = [
        xs,
        stacked("W", [w.w for w in weights]),
        stacked("R", [w.r for w in weights]),
        stacked("B", [w.b for w in weights]),
        graph.lengths,
        *(initial(leaf) for leaf in kept),
        stacked("P", [w.p for w in weights]),
    ]
    while not inputs[-1]:
        inputs.pop()
    n = len(graph.nodes)
    names = [f"{op}_{n}", *(f"{op}_{n}.{leaf}" for leaf in kept if graph.states)]
    ys = graph.add(op, *inputs, names=names, **attributes)
    finals: list[State | None] = []
    for d, state in enumerate(states):
        if state is None or not graph.states:
            finals.append(None)
            continue
        leaves = {leaf: graph.add("Gather", f"{op}_{n}.{leaf}", graph.constant(np.array(d)), axis=0) for leaf in kept}
        finals.append(state._replace(**leaves))
    return ys, finals


def _bidirectional(
    graph: _Graph, layer: Bidirectional, params: Params, xs: str, state: State | None, reverse: bool
) -> tuple[str, State | None]:
    """Adds one node where both directions are alike, else each direction by itself."""
    if callable(layer.merge):
        raise ValueError(f"merge: got {layer.merge}, ONNX needs 'concat' or 'sum'")
    given = [
        _unwrapped(graph, cell, own, state and state[d])
        for d, (cell, own) in enumerate(zip(layer.cells, params, strict=True))
    ]
    halves = [as_half(cell, own) for cell, own, _ in given]
    if not reverse and _are_alike(halves):
        y, finals = _recurrent(graph, halves, xs, [s for *_, s in given], "bidirectional")  # type: ignore[arg-type]
        if layer.merge == "concat":
            y = graph.add("Transpose", y, perm=(0, 2, 1, 3))
            ys = graph.add("Reshape", y, graph.constant(np.array([0, 0, layer.output_size])))
        else:
            ys = graph.add("Add", *(graph.add("Gather", y, graph.constant(np.array(d)), axis=1) for d in range(2)))
    else:
        (there, one), (back, other) = (
            _write(graph, cell, own, xs, first, reverse != bool(d)) for d, (cell, own, first) in enumerate(given)
        )
        finals = [one, other]
        ys = graph.add("Concat", there, back, axis=-1) if layer.merge == "concat" else graph.add("Add", there, back)
    return ys, BidirectionalState(*finals)


def _are_alike(halves: Sequence[Half | None]) -> bool:
    """Whether two cells are the directions of one node: all but weights and activations is the same."""
    kinds = [
        half and (half.op, half.attributes, *(getattr(half.weights, n) is None for n in "bp"), half.weights.r.shape)
        for half in halves
    ]
    return kinds[0] is not None and kinds[0] == kinds[1]


def _pointwise(graph: _Graph, layer: Pointwise, xs: str) -> str:
    if layer.function is jax.nn.identity:
        return xs
    for op, function in SOFTMAX.items():
        if layer.function is function:
            return graph.add(op, xs, axis=-1)
    found = as_onnx(layer.function)
    if found.name not in POINTWISE or found.clip is not None:
        raise ValueError(f"function: got {layer.function}, needs one of {', '.join((*POINTWISE, *SOFTMAX))}")
    numbers = {n: getattr(found, n) for n in ("alpha", "beta") if getattr(found, n) is not None}
    return graph.add(found.name, xs, **numbers)


def _is_zero_beyond(layer: Layer) -> bool:
    """Whether the nodes of a layer give zero beyond the length of a row, as recurrent nodes do."""
    match layer:
        case Stack():
            return _is_zero_beyond(layer.cells[-1])
        case Bidirectional():
            return all(map(_is_zero_beyond, layer.cells))
        case Residual() | Linear() | Embedding() | Pointwise():
            return False
        case Wrapper():
            return _is_zero_beyond(layer.cell)
    return True
