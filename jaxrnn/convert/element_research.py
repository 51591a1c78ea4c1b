"""Torch 7's rnn package by Element-Research: `LSTM`, `FastLSTM`, `SeqLSTM`, `SeqLSTMP`, `GRU` and `SeqGRU`.

`nn.Linear` weights are `[out, in]`; the sequence modules have one matrix `[in, out]` on `[x, h]`. Gates are f, i, g, o
in the order of `LSTM`'s parameters, i, g, f, o in a `FastLSTM`, i, f, o, g in a `SeqLSTM`, and r, z, n in the GRUs,
which reset before the product.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxrnn.cells import (
    GRU,
    LSTM,
    GRUParams,
    LSTMParams,
    Projected,
    ProjectedParams,
    VanillaLSTM,
    VanillaLSTMParams,
)
from jaxrnn.checks import check_choice, check_params
from jaxrnn.convert.arrays import IGFO, blocks, check_names, check_shape, reorder, to_jax, to_numpy
from jaxrnn.convert.layers import PLAIN_GRU, PLAIN_LSTM, Direction, check_options, fitting, plain
from jaxrnn.engine.layer import Layer, check_layer
from jaxrnn.typing import Params

__all__ = ["from_element_research", "to_element_research"]

_GATES = ("forgetGate", "inputGate", "hiddenLayer", "outputGate")
_PEEPHOLES = {gate: f"{gate}.cell2gate.weight" for gate in _GATES if gate != "hiddenLayer"}


def _gate(gate: str, peephole: bool) -> tuple[str, ...]:
    side = "hidden" if gate == "hiddenLayer" else "gate"
    names = f"{gate}.input2{side}.weight", f"{gate}.input2{side}.bias", f"{gate}.output2{side}.weight"
    return (*names, _PEEPHOLES[gate]) if peephole and gate in _PEEPHOLES else names


_LINEARS = ("i2g.weight", "i2g.bias", "o2g.weight")
_NAMES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "LSTM": tuple(tuple(name for gate in _GATES for name in _gate(gate, peephole)) for peephole in (True, False)),
    "FastLSTM": (_LINEARS,),
    "SeqLSTM": (("weight", "bias"),),
    "SeqLSTMP": (("weight", "bias", "weightO"),),
    "GRU": ((*_LINEARS, "t1.weight", "t1.bias", "t2.weight"),),
    "SeqGRU": (("weight", "bias"),),
}


def from_element_research(module: str, arrays: Mapping[str, Any] | Sequence[Any]) -> tuple[Layer, Params]:
    """Turns the parameters of a recurrent module of Element-Research's rnn into a cell.

    Modules with dropout (p > 0) have other parameters: `GRU` and `FastLSTM` then have separate gates.

    Args:
        module: its class, "LSTM", "FastLSTM", "SeqLSTM", "SeqLSTMP", "GRU" or "SeqGRU".
        arrays: what `module:parameters()` returns first, in its order; or by name: "weight", "bias" and "weightO" of
            the sequence modules, "i2g.weight", "i2g.bias", "o2g.weight" of `FastLSTM` and `GRU`, whose candidate has
            "t1.weight", "t1.bias" and "t2.weight", and "inputGate.input2gate.weight", "inputGate.input2gate.bias",
            "inputGate.output2gate.weight", "inputGate.cell2gate.weight" of each gate of an `LSTM`.

    Returns:
        `(cell, params)`: a `VanillaLSTM` for `LSTM` with peepholes, an `LSTM`, a `Projected(LSTM)` or a
        `GRU(reset="before")`. `Masked(cell, "reset")` does what `maskZero` does.

    Raises:
        ValueError: an unknown module, a name is missing or unknown, a shape does not fit, or JAX would round arrays.

    Example:
        >>> arrays = [np.ones((7, 16), np.float32), np.zeros(16, np.float32)]
        >>> from_element_research("SeqLSTM", arrays)[0]
        LSTM(input_size=3, hidden_size=4)
    """
    check_choice(module=module, among=tuple(_NAMES))
    layouts = _NAMES[module]
    if not isinstance(arrays, Mapping):
        lengths = {len(names): names for names in layouts}
        if len(arrays) not in lengths:
            raise ValueError(f"arrays: got {len(arrays)} for {module}, needs {' or '.join(map(str, lengths))}")
        arrays = dict(zip(lengths[len(arrays)], arrays, strict=True))
    found = {name: to_numpy(name, array) for name, array in arrays.items()}
    names = layouts[0] if len(layouts) == 1 or any("cell2gate" in name for name in found) else layouts[1]
    check_names(module, found, names)
    return fitting(*_cell(module, found))


def _cell(module: str, found: Mapping[str, np.ndarray]) -> Direction:
    if module == "LSTM":
        return _lstm(found)
    if module == "GRU":
        return _gru(found)
    if module == "FastLSTM":
        w_x, w_h, order = found["i2g.weight"].T, found["o2g.weight"].T, IGFO
        b, size = found["i2g.bias"], found["i2g.bias"].size // 4
    else:
        b, w = found["bias"], found["weight"]
        size = b.size // (3 if module == "SeqGRU" else 4)
        recurrent = found["weightO"].shape[1] if module == "SeqLSTMP" else size
        w_x, w_h, order = w[:-recurrent], w[-recurrent:], (0, 1, 3, 2)
    if module == "SeqGRU":
        return _gru_of(w_x, w_h[:, : 2 * size], w_h[:, 2 * size :], b)
    check_shape("weight", w_x, (len(w_x), 4 * size))
    check_shape("weight", w_h, (len(w_h), 4 * size))
    cell, params = LSTM(len(w_x), size), LSTMParams(*(to_jax("weight", reorder(a, order)) for a in (w_x, w_h, b)))
    if module != "SeqLSTMP":
        return cell, params
    check_shape("weightO", found["weightO"], (size, len(w_h)))
    return Projected(cell, len(w_h)), ProjectedParams(params, to_jax("weightO", found["weightO"]), None)


def _lstm(found: Mapping[str, np.ndarray]) -> Direction:
    order = ("inputGate", "forgetGate", "hiddenLayer", "outputGate")
    weights_x, bs, weights_h = ([found[_gate(gate, False)[k]] for gate in order] for k in range(3))
    size, inputs = weights_x[0].shape
    for name, array in found.items():
        shape = {"input2": (size, inputs), "output": (size, size)}.get(name.split(".")[1][:6], (size,))
        check_shape(name, array, (size,) if name.endswith("bias") else shape)
    shared = [to_jax("weight", np.concatenate([a.T for a in parts], axis=-1)) for parts in (weights_x, weights_h, bs)]
    if len(found) == 12:
        return LSTM(inputs, size), LSTMParams(*shared)
    peepholes = [found[_PEEPHOLES[gate]] for gate in order if gate in _PEEPHOLES]
    w_c = to_jax("cell2gate.weight", np.concatenate(peepholes))
    w_x, w_h, b = shared
    return VanillaLSTM(inputs, size), VanillaLSTMParams(w_x, w_h, b, w_c, None)


def _gru(found: Mapping[str, np.ndarray]) -> Direction:
    w_x = np.concatenate([found["i2g.weight"].T, found["t1.weight"].T], axis=1)
    b = np.concatenate([found["i2g.bias"], found["t1.bias"]])
    return _gru_of(w_x, found["o2g.weight"].T, found["t2.weight"].T, b)


def _gru_of(w_x: np.ndarray, w_h: np.ndarray, w_n: np.ndarray, b: np.ndarray) -> Direction:
    size = b.size // 3
    for name, array, shape in (("w_x", w_x, (len(w_x), 3 * size)), ("w_h", w_h, (size, 2 * size))):
        check_shape(name, array, shape)
    check_shape("w_n", w_n, (size, size))
    parts = {"w_x": w_x, "w_h": w_h, "b": b, "w_n": w_n}
    return GRU(len(w_x), size, reset="before"), GRUParams(**{name: to_jax(name, a) for name, a in parts.items()})


def to_element_research(module: str, cell: Layer, params: Params) -> dict[str, np.ndarray]:
    """Turns a cell into the arrays of a module by name, in the order of `module:parameters()`.

    Args:
        module: the class, "LSTM", "FastLSTM", "SeqLSTM", "SeqLSTMP", "GRU" or "SeqGRU".
        cell: an `LSTM`, a `VanillaLSTM`, a `Projected(LSTM)` or a `GRU(reset="before")`.
        params: its parameters.

    Raises:
        TypeError: `cell` is no cell, or `params` are not its parameters.
        ValueError: the module is another cell.

    Example:
        >>> import jaxrnn
        >>> cell = jaxrnn.GRU(3, 4, reset="before")
        >>> arrays = to_element_research("SeqGRU", cell, cell.init(jax.random.key(0)))
        >>> {name: array.shape for name, array in arrays.items()}
        {'weight': (7, 12), 'bias': (12,)}
    """
    check_choice(module=module, among=tuple(_NAMES))
    check_layer(cell)
    check_params(cell, params)
    cell, params = plain(cell, params)
    p, inner = jax.tree.map(np.asarray, params), cell
    if module == "SeqLSTMP" and isinstance(cell, Projected):
        check_options(cell, module, nonrecurrent_size=None, clip=None)
        p, inner = p.cell, cell.cell
    kinds = {"GRU": GRU, "SeqGRU": GRU, "LSTM": VanillaLSTM if isinstance(cell, VanillaLSTM) else LSTM}
    if not isinstance(inner, kinds.get(module, LSTM)) or (module == "SeqLSTMP") != isinstance(cell, Projected):
        raise ValueError(f"module: got {module} for {cell}, which it is not")
    check_options(inner, module, use_bias=True)
    if isinstance(inner, GRU):
        check_options(inner, module, reset="before", **PLAIN_GRU)
        return _of_gru(module, p)
    check_options(inner, module, **PLAIN_LSTM)
    if module == "LSTM":
        return _of_lstm(inner, p)
    w, b = np.concatenate([p.w_x, p.w_h]), p.b
    if module == "FastLSTM":
        w_x, w_h, b = (reorder(a, IGFO) for a in (p.w_x, p.w_h, b))
        return dict(zip(_LINEARS, (w_x.T, b, w_h.T), strict=True))
    arrays = {"weight": reorder(w, (0, 1, 3, 2)), "bias": reorder(b, (0, 1, 3, 2))}
    return arrays if module == "SeqLSTM" else arrays | {"weightO": np.asarray(params.w_p)}


def _of_lstm(cell: Any, p: Any) -> dict[str, np.ndarray]:
    peephole = isinstance(cell, VanillaLSTM)
    if peephole:
        only = {"peephole": True, "gate_recurrence": False, "cell_clip": None, "output_gate_activation": "sigmoid"}
        check_options(cell, "LSTM", input_gate=True, forget_gate=True, output_gate=True, peephole_gradient=True, **only)
    parts = (np.split(a, 4, axis=-1) for a in (p.w_x, p.b, p.w_h))
    order = ("inputGate", "forgetGate", "hiddenLayer", "outputGate")
    gates = {g: [a.T for a in arrays] for g, arrays in zip(order, zip(*parts, strict=True), strict=True)}
    if peephole:
        for gate, w in zip([g for g in order if g in _PEEPHOLES], blocks(p.w_c, 3), strict=True):
            gates[gate].append(w)
    return {n: a for g in _GATES for n, a in zip(_gate(g, peephole), gates[g], strict=True)}


def _of_gru(module: str, p: Any) -> dict[str, np.ndarray]:
    size = len(p.w_n)
    if module == "SeqGRU":
        return {"weight": np.concatenate([p.w_x, np.concatenate([p.w_h, p.w_n], axis=1)]), "bias": p.b}
    (w, w_n), (b, b_n) = np.split(p.w_x, [2 * size], axis=1), np.split(p.b, [2 * size])
    return dict(zip(_NAMES["GRU"][0], (w.T, b, p.w_h.T, w_n.T, b_n, p.w_n.T), strict=True))
