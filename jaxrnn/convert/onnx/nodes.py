"""One direction of a recurrent node of ONNX as a cell, and a cell as one direction of a node.

Matrices are `[out, in]`, gates i, o, f, c of `LSTM` and z, r, h of `GRU`. There are two biases, whose sum is ours, but
for the candidate of a `GRU` with `linear_before_reset`, whose recurrent bias is inside of the product with r.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrnn.cells import GRU, LSTM, Elman, ElmanParams, GRUParams, LSTMParams, VanillaLSTM, VanillaLSTMParams
from jaxrnn.convert.arrays import ZRN, blocks, check_shape, of_two_biases, reorder, to_jax, two_biases
from jaxrnn.convert.layers import Direction
from jaxrnn.convert.onnx.activations import OnnxActivation, as_onnx, from_attributes
from jaxrnn.engine.layer import Layer
from jaxrnn.ops import recurrent
from jaxrnn.typing import Activation, Array, Params

__all__ = ["FUNCTIONS", "GATES", "Half", "Weights", "activations_of", "as_cell", "as_half"]

GATES: Mapping[str, int] = {"RNN": 1, "GRU": 3, "LSTM": 4}
FUNCTIONS: Mapping[str, tuple[str, ...]] = {
    "RNN": ("Tanh",),
    "GRU": ("Sigmoid", "Tanh"),
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
}
"""The default activations f, g, h."""

# Where each block of ours stands among ONNX's; i, f, g, o among i, o, f, c.
_LSTM, _COUPLED = (0, 2, 3, 1), (0, 3, 1)
# Where each block of ONNX's stands among ours; i, o, f, c among i, f, g, o.
_FROM_LSTM = (0, 3, 1, 2)
# Peepholes: i, f, o among i, o, f.
_PEEPHOLES, _COUPLED_PEEPHOLES = (0, 2, 1), (0, 1)


@dataclass(frozen=True)
class Weights:
    """The weights of one direction, as ONNX has them."""

    w: np.ndarray  # [nH, I]
    r: np.ndarray  # [nH, H]
    b: np.ndarray | None  # [2nH]
    p: np.ndarray | None = None  # [3H], of an LSTM


@dataclass(frozen=True)
class Half:
    """One direction of a node."""

    op: str
    attributes: Mapping[str, Any]
    """Those that both directions of a node share, `clip` among them."""
    activations: Sequence[Any]
    """f, g, h as `OnnxActivation`, `clip` taken out."""
    weights: Weights = field(repr=False)


def as_cell(op: str, attributes: Mapping[str, Any], functions: Sequence[Activation], weights: Weights) -> Direction:
    """Returns the cell of one direction of a node, and its parameters.

    Args:
        op: "RNN", "GRU" or "LSTM".
        attributes: of the node; those that are missing have ONNX's defaults.
        functions: f, g, h, as `activations_of` gives them.
        weights: of the direction.

    Raises:
        ValueError: the shapes do not fit each other, or JAX would round the arrays.
    """
    n, (rows, inputs) = GATES[op], weights.w.shape
    size = rows // n
    check_shape("W", weights.w, (n * size, inputs))
    check_shape("R", weights.r, (n * size, size))
    if attributes.get("hidden_size", size) != size:
        raise ValueError(f"hidden_size: got {attributes['hidden_size']}, needs that of the weights, {size}")
    if weights.b is not None:
        check_shape("B", weights.b, (2 * n * size,))
    if weights.p is not None:
        check_shape("P", weights.p, (3 * size,))
    return _READERS[op](inputs, size, attributes, functions, weights)


def _rnn(
    inputs: int, size: int, attributes: Mapping[str, Any], functions: Sequence[Activation], weights: Weights
) -> Direction:
    (f,) = functions
    cell = Elman(inputs, size, activation=f, use_bias=weights.b is not None)
    return cell, ElmanParams(to_jax("W", weights.w.T), to_jax("R", weights.r.T), _bias(weights, (0,)))


def _gru(
    inputs: int, size: int, attributes: Mapping[str, Any], functions: Sequence[Activation], weights: Weights
) -> Direction:
    f, g = functions
    w_x, w_h = to_jax("W", reorder(weights.w.T, ZRN)), reorder(weights.r.T, ZRN)
    after = attributes.get("linear_before_reset", 0)
    cell = GRU(inputs, size, "after" if after else "before", weights.b is not None, f, g)
    if after:
        both = None if weights.b is None else of_two_biases(*(reorder(half, ZRN) for half in blocks(weights.b, 2)))
        own = [to_jax("B", b) for b in both] if both else (None, None)
        return cell, GRUParams(w_x, to_jax("R", w_h), *own)
    b, w_n = _bias(weights, ZRN), to_jax("R", w_h[:, 2 * size :])
    return cell, GRUParams(w_x, to_jax("R", w_h[:, : 2 * size]), b, w_n=w_n)


def _lstm(
    inputs: int, size: int, attributes: Mapping[str, Any], functions: Sequence[Activation], weights: Weights
) -> Direction:
    f, g, h = functions
    coupled = bool(attributes.get("input_forget", 0))
    order = _COUPLED if coupled else _LSTM
    w_x, w_h = to_jax("W", _gates(weights.w.T, order)), to_jax("R", _gates(weights.r.T, order))
    b = _bias(weights, order)
    if weights.p is None and not coupled:
        return LSTM(inputs, size, b is not None, f, g, h), LSTMParams(w_x, w_h, b)
    cell = VanillaLSTM(
        inputs,
        size,
        forget_gate="coupled" if coupled else True,
        peephole=weights.p is not None,
        gate_activation=f,
        output_gate_activation=f,
        candidate_activation=g,
        output_activation=h,
        use_bias=b is not None,
    )
    peepholes = None
    if weights.p is not None:
        three = blocks(weights.p, 3)
        peepholes = np.concatenate([three[i] for i in (_COUPLED_PEEPHOLES if coupled else _PEEPHOLES)])
    return cell, VanillaLSTMParams(w_x, w_h, b, None if peepholes is None else to_jax("P", peepholes), None)


_READERS = {"RNN": _rnn, "GRU": _gru, "LSTM": _lstm}


def _gates(a: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """Picks the blocks of an LSTM in our order, without f where it is coupled."""
    parts = blocks(a, 4)
    return np.concatenate([parts[i] for i in order], axis=-1)


def _bias(weights: Weights, order: Sequence[int]) -> Array | None:
    if weights.b is None:
        return None
    of_x, of_h = blocks(weights.b, 2)
    parts = blocks(of_x + of_h, weights.r.shape[0] // weights.r.shape[1])
    return to_jax("B", np.concatenate([parts[i] for i in order]))


def activations_of(op: str, attributes: Mapping[str, Any], directions: int) -> list[list[Activation]]:
    """Returns the activations f, g, h of each direction of a node.

    As in ONNX Runtime, `clip` bounds what f and g see, not the memory that h sees.
    """
    default = FUNCTIONS[op]
    names = [n.decode() if isinstance(n, bytes) else n for n in attributes.get("activations", default * directions)]
    # Two names are the default of an RNN's schema, also with one direction.
    if op == "RNN" and names == ["Tanh", "Tanh"]:
        names = names[:directions]
    n = len(default)
    if len(names) != n * directions:
        raise ValueError(f"activations: got {names}, needs {n} for each of {directions} directions")
    functions = from_attributes(
        names,
        attributes.get("activation_alpha", ()),
        attributes.get("activation_beta", ()),
        attributes.get("clip"),
        [True, True, False][:n] * directions,
    )
    return [functions[n * d : n * (d + 1)] for d in range(directions)]


def as_half(cell: Layer, params: Params) -> Half | None:
    """Returns a cell as one direction of a node; None if it is no `Elman`, `GRU`, `LSTM` or `VanillaLSTM`.

    Raises:
        ValueError: the cell has an option that ONNX lacks.
    """
    match cell:
        case Elman():
            w = Weights(_out_in(params.w_x), _out_in(_dense(params.w_h, 1)), _two(params.b))
            return _half(cell, "RNN", {}, (cell.activation,), w)
        case GRU():
            return _half_gru(cell, params)
        case LSTM():
            w_x, w_h = (reorder(_numpy(a), _FROM_LSTM) for a in (params.w_x, _dense(params.w_h, 4)))
            b = None if params.b is None else reorder(_numpy(params.b), _FROM_LSTM)
            functions = (cell.gate_activation, cell.candidate_activation, cell.output_activation)
            return _half(cell, "LSTM", {}, functions, Weights(_out_in(w_x), _out_in(w_h), _two(b)))
        case VanillaLSTM():
            return _half_vanilla(cell, params)
    return None


def _half_gru(cell: GRU, params: GRUParams) -> Half:
    functions = (cell.gate_activation, cell.activation)
    w_x = reorder(_numpy(params.w_x), ZRN)
    b = None if params.b is None else reorder(_numpy(params.b), ZRN)
    both = _two(b, params.b_n)
    if params.w_n is None:
        w_h = reorder(_numpy(_dense(params.w_h, 3)), ZRN)
        return _half(cell, "GRU", {"linear_before_reset": 1}, functions, Weights(_out_in(w_x), _out_in(w_h), both))
    r, z = blocks(_numpy(_dense(params.w_h, 2)), 2)
    w_h = np.concatenate([z, r, _numpy(_dense(params.w_n, 1))], axis=-1)
    return _half(cell, "GRU", {}, functions, Weights(_out_in(w_x), _out_in(w_h), both))


def _half_vanilla(cell: VanillaLSTM, params: VanillaLSTMParams) -> Half:
    for name, lacking in (
        ("input_gate", (False,)),
        ("forget_gate", (False,)),
        ("output_gate", (False,)),
        ("peephole", ("full",)),
        ("gate_recurrence", (True,)),
    ):
        if (got := getattr(cell, name)) in lacking:
            raise ValueError(f"{name}: got {got!r} in {cell}, ONNX's LSTM has no such option")
    if cell.cell_clip is not None:
        raise ValueError(
            f"cell_clip: got {cell.cell_clip} in {cell}, ONNX's LSTM bounds what its activations see, not its memory"
        )
    if cell.gate_activation != cell.output_gate_activation:
        raise ValueError(f"output_gate_activation: got {cell}, ONNX's LSTM has one activation for all gates")
    coupled = cell.forget_gate == "coupled"
    n = 3 if coupled else 4

    def ordered(a: Array) -> np.ndarray:
        parts = blocks(_numpy(a), n)
        if coupled:  # a block for f, which the node ignores
            parts.insert(1, np.zeros_like(parts[0]))
        return np.concatenate([parts[i] for i in _FROM_LSTM], axis=-1)

    p = None
    if params.w_c is not None:
        parts = blocks(_numpy(params.w_c), n - 1)
        p = np.concatenate([parts[0], parts[1], np.zeros_like(parts[0])] if coupled else [parts[i] for i in (0, 2, 1)])
    functions = (cell.gate_activation, cell.candidate_activation, cell.output_activation)
    b = None if params.b is None else ordered(params.b)
    weights = Weights(_out_in(ordered(params.w_x)), _out_in(ordered(_dense(params.w_h, n))), _two(b), p)
    return _half(cell, "LSTM", {"input_forget": 1} if coupled else {}, functions, weights)


def _half(
    cell: Layer, op: str, attributes: Mapping[str, Any], functions: Sequence[Activation], weights: Weights
) -> Half:
    """Takes `clip` out of the activations."""
    found = [as_onnx(function) for function in functions]
    bounds = {a.clip for a in found[:2]}
    if len(bounds) > 1 or any(a.clip is not None for a in found[2:]):
        raise ValueError(f"clip: got {cell}, ONNX's {op} bounds what f and g see alike, and not what h sees")
    (clip,) = bounds
    if clip is not None:
        attributes = {**attributes, "clip": clip}
    plain = [OnnxActivation(a.name, a.alpha, a.beta) for a in found]
    numbers = [clip, *(number for a in plain for number in (a.alpha, a.beta))]
    rounded = [x for x in numbers if x is not None and float(np.float32(x)) != x]
    if rounded and weights.w.dtype == np.float64:
        raise ValueError(f"activation: got the numbers {rounded} in {cell}, attributes of ONNX are in float32")
    return Half(op, attributes, plain, weights)


def _dense(w: Array, n: int) -> Array:
    """Returns a recurrent weight without heads: zero between units of different heads."""
    if w.ndim == 2:
        return w
    return jnp.concatenate(recurrent(jnp.eye(w.shape[0] * w.shape[1], dtype=w.dtype), w, n), axis=-1)


def _numpy(a: Any) -> np.ndarray:
    return np.asarray(a)


def _out_in(a: Any) -> np.ndarray:
    return np.ascontiguousarray(_numpy(a).T)


def _two(b: Any, b_n: Any = None) -> np.ndarray | None:
    """Returns our bias as ONNX's two, one after the other."""
    return None if b is None else two_biases(_numpy(b), b_n).ravel()
