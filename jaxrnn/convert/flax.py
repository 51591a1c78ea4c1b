"""Flax's linen and nnx cells: `SimpleCell`, `LSTMCell`, `OptimizedLSTMCell`, `GRUCell`, `MGUCell`, `ConvLSTMCell`.

Kernels are `[in, out]`, in linen and in nnx's `LSTMCell` one for each gate, gates i, f, g, o and r, z, n. The LSTM has
its bias beside the recurrent product, the others beside the input's; a linen GRU also has `hn`'s, our `b_n`, an nnx GRU
none. A `ConvLSTMCell` has the gates i, g, f, o, two biases, and adds 1 to f when it runs.

`jaxrnn.nnx.from_flax` and `jaxrnn.linen.from_flax` take any cell under Flax's own parameter names; these converters
bring the parameters into a jaxrnn cell's.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.cells import (
    GRU,
    LSTM,
    MGU,
    ConvLSTM,
    Elman,
    ElmanParams,
    GRUParams,
    LSTMParams,
    MGUParams,
)
from jaxrnn.checks import check_params
from jaxrnn.convert.activations import activation_name
from jaxrnn.convert.arrays import blocks, check_axes, check_names, check_shape, to_jax, to_numpy, two_biases
from jaxrnn.convert.conv_lstm import conv_lstm, conv_lstm_arrays
from jaxrnn.convert.layers import Direction, check_options, fitting, plain
from jaxrnn.engine.layer import Layer, check_layer
from jaxrnn.typing import Activation, Params

__all__ = ["from_flax", "to_flax"]

Tree = Mapping[str, Any]


def from_flax(
    source: Any,
    params: Tree | None = None,
    *,
    gate_fn: Activation = jax.nn.sigmoid,
    activation_fn: Activation = jnp.tanh,
    space: tuple[int, ...] | None = None,
) -> tuple[Layer, Params]:
    """Turns a Flax cell into a cell.

    A carry `(c, h)` is our state `(h, c)`, with names. Beyond `seq_lengths` our outputs are zero.

    Args:
        source: an nnx cell; a linen cell, with `params`; or the parameters of either, a nested dict.
        params: the collection "params" of a linen cell.
        gate_fn: of a nested dict, σ; a cell has its own.
        activation_fn: of a nested dict, φ; a cell has its own.
        space: sizes of the spatial axes of the input of a `ConvLSTMCell`, which it does not know.

    Returns:
        `(cell, params)`: an `Elman`, `LSTM`, `GRU`, `MGU` or `ConvLSTM`. The `b_n` of an nnx `GRUCell` is zero.

    Raises:
        TypeError: `source` is another module.
        ValueError: an option that cannot be expressed, a name that is missing or unknown, a shape that does not fit, or
            arrays that JAX would round.

    Example:
        >>> from flax import nnx
        >>> cell, params = from_flax(nnx.OptimizedLSTMCell(3, 4, rngs=nnx.Rngs(0)))
        >>> cell
        LSTM(input_size=3, hidden_size=4)
    """
    if isinstance(source, Mapping):
        if params is not None:
            raise ValueError("params: got parameters beside a nested dict of parameters, needs one")
        named: Tree = source
    else:
        named, gate_fn, activation_fn = _of_module(source, params)
    if not all(isinstance(arrays, Mapping) for arrays in named.values()):
        raise ValueError(f"params: got arrays under {sorted(named)}, needs a nested dict, as of a cell of Flax's own")
    dense = {
        f"{gate.rstrip('_')}/{name}": to_numpy(f"{gate}/{name}", array)
        for gate, arrays in named.items()
        for name, array in arrays.items()
    }
    gates = tuple(sorted({name.split("/")[0] for name in dense}))
    if gates == ("dense_h", "dense_i"):
        dense = _split(dense)
        gates = tuple(sorted({name.split("/")[0] for name in dense}))
    for names, build in _LAYOUTS.items():
        if gates == tuple(sorted(names)):
            return fitting(*build(dense, gate_fn, activation_fn, space))
    raise ValueError(f"params: got the names {sorted(named)}, needs those of a cell of Flax's own")


def _of_module(module: Any, params: Tree | None) -> tuple[Tree, Activation, Activation]:
    """Returns the parameters and the activations of a cell."""
    from flax import linen, nnx

    if isinstance(module, nnx.RNNCellBase):
        if params is not None:
            raise ValueError("params: got parameters for an nnx cell, which has its own")
        params = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    elif not isinstance(module, linen.RNNCellBase):
        raise TypeError(f"source: got {type(module).__name__}, needs a cell of Flax, or its parameters")
    elif params is None:
        raise ValueError("params: got None for a linen cell, needs its collection 'params'")
    name = type(module).__name__
    if name not in ("SimpleCell", "LSTMCell", "OptimizedLSTMCell", "GRUCell", "MGUCell", "ConvLSTMCell"):
        raise TypeError(f"source: got {name}, needs a cell of Flax's own; jaxrnn.linen.from_flax takes any")
    alone: dict[str, Any] = {"residual": False, "reset_gate": True, "strides": None, "padding": "SAME"}
    for option, want in alone.items():
        got = getattr(module, option, want)
        if got != want and not (option == "strides" and set(got) == {1}):
            raise ValueError(f"source: got {name} with {option}={got!r}, jaxrnn has {want!r} only")
    gate_fn = getattr(module, "gate_fn", jax.nn.sigmoid)
    return params, gate_fn, getattr(module, "activation_fn", jnp.tanh)


def _split(dense: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays of nnx's fused cells under the names of one for each gate."""
    kernel = dense["dense_h/kernel"]
    names = {1: ("",), 3: "rzn", 4: "ifgo"}.get(kernel.shape[1] // len(kernel), ())
    parts = {name: blocks(array, len(names)) for name, array in dense.items() if names}
    return {
        f"{name[6]}{gate}/{name[8:]}": array
        for name, arrays in parts.items()
        for gate, array in zip(names, arrays, strict=True)
    }


def _joined(dense: Mapping[str, np.ndarray], side: str, gates: Sequence[str], name: str = "kernel") -> Any:
    return to_jax(f"{side}/{name}", np.concatenate([dense[f"{side}{gate}/{name}"] for gate in gates], axis=-1))


def _kernels(dense: Mapping[str, np.ndarray], gates: Sequence[str], biased: Sequence[str]) -> tuple[int, int, Any, Any]:
    """Returns I, H and the matrices; raises unless the names are these and all shapes fit."""
    kernels = [f"{side}{gate}/kernel" for side in "ih" for gate in gates]
    check_names("params", dense, [*kernels, *(f"{gate}/bias" for gate in biased)])
    check_axes(f"i{gates[0]}/kernel", dense[f"i{gates[0]}/kernel"], 2)
    inputs, size = dense[f"i{gates[0]}/kernel"].shape[:2]
    for name, array in dense.items():
        shape = (size,) if name.endswith("bias") else (inputs if name[0] == "i" else size, size)
        check_shape(name, array, shape)
    return inputs, size, _joined(dense, "i", gates), _joined(dense, "h", gates)


def _lstm(dense: dict[str, np.ndarray], gate_fn: Activation, activation_fn: Activation, space: Any) -> Direction:
    inputs, size, w_x, w_h = _kernels(dense, "ifgo", ("hi", "hf", "hg", "ho"))
    cell = LSTM(inputs, size, True, gate_fn, activation_fn, activation_fn)
    return cell, LSTMParams(w_x, w_h, _joined(dense, "h", "ifgo", "bias"))


def _gru(dense: dict[str, np.ndarray], gate_fn: Activation, activation_fn: Activation, space: Any) -> Direction:
    # nnx's has no bias beside the recurrent candidate.
    dense = {"hn/bias": np.zeros_like(dense["in/bias"])} | dense if "in/bias" in dense else dense
    inputs, size, w_x, w_h = _kernels(dense, "rzn", ("ir", "iz", "in", "hn"))
    b, b_n = _joined(dense, "i", "rzn", "bias"), _joined(dense, "h", "n", "bias")
    return GRU(inputs, size, "after", True, gate_fn, activation_fn), GRUParams(w_x, w_h, b, b_n)


def _mgu(dense: dict[str, np.ndarray], gate_fn: Activation, activation_fn: Activation, space: Any) -> Direction:
    inputs, size, w_x, w_h = _kernels(dense, "fn", ("if", "in", "hn"))
    if activation_name(gate_fn) != "sigmoid":
        raise ValueError(f"gate_fn: got {gate_fn}, jaxrnn.MGU has the sigmoid only")
    b, b_n = _joined(dense, "i", "fn", "bias"), _joined(dense, "h", "n", "bias")
    return MGU(inputs, size, "after", activation_fn), MGUParams(w_x, w_h, b, b_n)


def _elman(dense: dict[str, np.ndarray], gate_fn: Activation, activation_fn: Activation, space: Any) -> Direction:
    inputs, size, w_x, w_h = _kernels(dense, ("",), ("i",))
    return Elman(inputs, size, activation_fn), ElmanParams(w_x, w_h, _joined(dense, "i", ("",), "bias"))


def _conv(dense: dict[str, np.ndarray], gate_fn: Activation, activation_fn: Activation, space: Any) -> Direction:
    biases = ("ih/bias", "hh/bias") if "ih/bias" in dense else ()
    check_names("params", dense, ("ih/kernel", "hh/kernel", *biases))
    return conv_lstm(dense["ih/kernel"], dense["hh/kernel"], {name: dense[name] for name in biases}, space)


_LAYOUTS: Mapping[tuple[str, ...], Callable[..., Direction]] = {
    ("ii", "if", "ig", "io", "hi", "hf", "hg", "ho"): _lstm,
    ("ir", "iz", "in", "hr", "hz", "hn"): _gru,
    ("if", "in", "hf", "hn"): _mgu,
    ("i", "h"): _elman,
    ("ih", "hh"): _conv,
}


def to_flax(cell: Layer, params: Params, kind: Any) -> Any:
    """Turns a cell into a cell of Flax.

    Args:
        cell: an `Elman`, `LSTM`, `GRU`, `MGU` or `ConvLSTM`.
        params: its parameters.
        kind: the class to make, `nnx.LSTMCell`, `linen.GRUCell` and so on.

    Returns:
        The nnx cell with its parameters; of linen, `(cell, params)` with the collection "params". A `ConvLSTMCell`'s
        forget bias has one less, because Flax adds 1: a rounding of half a unit in the last place of 1.

    Raises:
        TypeError: `kind` is no cell of Flax, or `params` are not the parameters of `cell`.
        ValueError: Flax's class is another cell.

    Example:
        >>> import jaxrnn
        >>> from flax import linen
        >>> cell = jaxrnn.Elman(3, 4)
        >>> flax_cell, params = to_flax(cell, cell.init(jax.random.key(0)), linen.SimpleCell)
        >>> flax_cell.features, sorted(params)
        (4, ['h', 'i'])
    """
    from flax import linen, nnx

    check_layer(cell)
    check_params(cell, params)
    cell, params = plain(cell, params)
    bases: tuple[type, ...] = nnx.RNNCellBase, linen.RNNCellBase
    if not (inspect.isclass(kind) and issubclass(kind, bases)):
        raise TypeError(f"kind: got {kind}, needs a class of Flax's cells, such as nnx.LSTMCell")
    name, make = kind.__name__, cast("Callable[..., Any]", kind)
    options, dense = _of_cell(cell, params, name)
    dtype = jax.tree.leaves(params)[0].dtype
    if issubclass(kind, linen.RNNCellBase):
        return make(features=cell.hidden_size, **options, param_dtype=dtype), jax.tree.map(jnp.asarray, dense)
    if name == "GRUCell" and np.any(dense["hn"].pop("bias")):
        raise ValueError("params: got a recurrent bias b_n, nnx.GRUCell has none; linen.GRUCell has it")
    if name != "LSTMCell":
        dense = _fused(dense)
    elif "if" in dense:
        dense["if_"] = dense.pop("if")
    sizes, dtypes = (cell.input_size, cell.hidden_size), {"dtype": dtype, "param_dtype": dtype}
    # Initializers are not run.
    module = nnx.eval_shape(lambda: make(*sizes, **options, **dtypes, rngs=nnx.Rngs(0)))
    nnx.update(module, jax.tree.map(jnp.asarray, dense))
    return module


def _fused(dense: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
    """Returns the arrays of nnx's fused cells, the inverse of `_split`."""
    sides: dict[str, list[dict[str, np.ndarray]]] = {"i": [], "h": []}
    for gate, arrays in dense.items():
        sides[gate[0]].append(arrays)
    return {
        f"dense_{side}": {name: np.concatenate([gate[name] for gate in gates], axis=-1) for name in gates[0]}
        for side, gates in sides.items()
    }


def _of_cell(cell: Layer, params: Params, name: str) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Returns the options of Flax's cell and its arrays, one for each gate."""
    p = jax.tree.map(np.asarray, params)
    inner: Any = cell
    kinds = {"LSTMCell": LSTM, "OptimizedLSTMCell": LSTM, "GRUCell": GRU, "SimpleCell": Elman}
    kind = (kinds | {"MGUCell": MGU, "ConvLSTMCell": ConvLSTM}).get(name)
    if kind is None or not isinstance(cell, kind):
        raise ValueError(f"kind: got {name} for {cell}, which Flax's cell of that name is not")
    if not isinstance(inner, MGU):
        check_options(inner, name, use_bias=True)
    if isinstance(inner, ConvLSTM):
        return _of_conv(inner, p, name)
    if isinstance(inner, MGU):
        check_options(inner, name, reset="after")
        return {"activation_fn": inner.activation}, _dense(p, "fn", "i", ("n",))
    check_options(inner, name, heads=1)
    if isinstance(inner, LSTM):
        check_options(inner, name, output_activation=activation_name(inner.candidate_activation))
        options = {"gate_fn": inner.gate_activation, "activation_fn": inner.candidate_activation}
        return options, _dense(p, "ifgo", "h")
    if isinstance(inner, GRU):
        check_options(inner, name, reset="after")
        options = {"gate_fn": inner.gate_activation, "activation_fn": inner.activation}
        return options, _dense(p, "rzn", "i", ("n",))
    return {"activation_fn": inner.activation}, _dense(p, ("",), "i")


def _dense(
    p: Any, gates: Sequence[str], biased: str, recurrent: Sequence[str] = ()
) -> dict[str, dict[str, np.ndarray]]:
    """Returns the arrays one for each gate, with biases on the side `biased`, and for `recurrent` gates `b_n`."""
    dense: dict[str, dict[str, np.ndarray]] = {}
    for side, w in (("i", p.w_x), ("h", p.w_h)):
        for gate, kernel in zip(gates, blocks(w, len(gates)), strict=True):
            dense[side + gate] = {"kernel": kernel}
    for gate, bias in zip(gates, blocks(p.b, len(gates)), strict=True):
        dense[biased + gate]["bias"] = bias
    for gate in recurrent:
        dense["h" + gate]["bias"] = p.b_n
    return dense


def _of_conv(cell: ConvLSTM, p: Any, name: str) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    w_x, w_h, b = conv_lstm_arrays(cell, p, name)
    b_x, b_h = two_biases(b)
    return {"kernel_size": w_x.shape[:-2]}, {"ih": {"kernel": w_x, "bias": b_x}, "hh": {"kernel": w_h, "bias": b_h}}
