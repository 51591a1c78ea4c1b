"""Equinox's `nn.LSTMCell` and `nn.GRUCell`.

Matrices are `[out, in]`, gates i, f, g, o and r, z, n, each with one bias; the GRU's `bias_n` is our `b_n`.
"""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrnn.cells import GRU, LSTM, GRUParams, LSTMParams
from jaxrnn.checks import check_installed, check_params
from jaxrnn.convert.arrays import check_axes, check_names, check_shape, to_jax, to_numpy
from jaxrnn.convert.layers import PLAIN_GRU, PLAIN_LSTM, check_options, fitting, plain
from jaxrnn.engine.layer import Layer, check_layer
from jaxrnn.typing import Params

__all__ = ["equinox_arrays", "from_equinox", "to_equinox"]

_NAMES = ("weight_ih", "weight_hh", "bias", "bias_n")


def from_equinox(source: Any) -> tuple[Layer, Params]:
    """Turns an Equinox cell into a cell.

    Args:
        source: an `equinox.nn.LSTMCell` or `equinox.nn.GRUCell`, or its arrays by name: "weight_ih", "weight_hh", and
            with bias "bias" and, of a GRU, "bias_n".

    Raises:
        TypeError: `source` is another module.
        ValueError: a name is missing or unknown, a shape does not fit, or JAX would round the arrays.

    Example:
        >>> from_equinox({"weight_ih": np.ones((16, 3), np.float32), "weight_hh": np.ones((16, 4), np.float32)})[0]
        LSTM(input_size=3, hidden_size=4, use_bias=False)
    """
    equinox = sys.modules.get("equinox")
    if isinstance(source, Mapping):
        found = dict(source)
    elif equinox is not None and isinstance(source, equinox.nn.LSTMCell | equinox.nn.GRUCell):
        found = {name: getattr(source, name, None) for name in _NAMES}
        found = {name: array for name, array in found.items() if array is not None}
    else:
        raise TypeError(f"source: got {type(source).__name__}, needs an nn.LSTMCell, an nn.GRUCell, or arrays by name")
    arrays = {name: to_numpy(name, array) for name, array in found.items()}
    for name in ("weight_ih", "weight_hh"):
        if name in arrays:
            check_axes(name, arrays[name], 2)
    is_gru = "weight_hh" in arrays and len(arrays["weight_hh"]) == 3 * arrays["weight_hh"].shape[-1]
    biases = {True: ("bias", "bias_n"), False: ("bias",)}[is_gru] if "bias" in arrays else ()
    check_names("source", arrays, ("weight_ih", "weight_hh", *biases))
    inputs, size = arrays["weight_ih"].shape[-1], arrays["weight_hh"].shape[-1]
    rows = (3 if is_gru else 4) * size
    for name, shape in (("weight_ih", (rows, inputs)), ("weight_hh", (rows, size)), ("bias", (rows,))):
        if name in arrays:
            check_shape(name, arrays[name], shape)
    w_x, w_h = (to_jax(name, arrays[name].T) for name in ("weight_ih", "weight_hh"))
    b = to_jax("bias", arrays["bias"]) if biases else None
    if not is_gru:
        return fitting(LSTM(inputs, size, use_bias=b is not None), LSTMParams(w_x, w_h, b))
    b_n = to_jax("bias_n", arrays["bias_n"]) if biases else None
    return fitting(GRU(inputs, size, use_bias=b is not None), GRUParams(w_x, w_h, b, b_n))


def to_equinox(cell: Layer, params: Params) -> Any:
    """Turns an `LSTM` or a `GRU` into an Equinox cell.

    Raises:
        ModuleNotFoundError: Equinox is not installed; `equinox_arrays` does not need it.
        TypeError: `params` are not the parameters of `cell`.
        ValueError: Equinox has no such cell.
    """
    check_installed("equinox")
    import equinox as eqx
    import jax

    arrays = equinox_arrays(cell, params)
    kind = eqx.nn.GRUCell if isinstance(cell, GRU) else eqx.nn.LSTMCell
    module = kind(cell.input_size, cell.hidden_size, use_bias="bias" in arrays, key=jax.random.key(0))
    return eqx.tree_at(
        lambda m: [getattr(m, name) for name in arrays], module, [to_jax(name, a) for name, a in arrays.items()]
    )


def equinox_arrays(cell: Layer, params: Params) -> dict[str, np.ndarray]:
    """Returns the arrays of `to_equinox` by name; needs no Equinox.

    Example:
        >>> import jax
        >>> import jaxrnn
        >>> cell = jaxrnn.GRU(3, 4)
        >>> sorted(equinox_arrays(cell, cell.init(jax.random.key(0))))
        ['bias', 'bias_n', 'weight_hh', 'weight_ih']
    """
    check_layer(cell)
    check_params(cell, params)
    cell, params = plain(cell, params)
    if isinstance(cell, LSTM):
        check_options(cell, "equinox.nn.LSTMCell", **PLAIN_LSTM)
    elif isinstance(cell, GRU):
        check_options(cell, "equinox.nn.GRUCell", reset="after", **PLAIN_GRU)
    else:
        raise ValueError(f"cell: got {cell}, Equinox has LSTM and GRU only")
    arrays = {"weight_ih": np.asarray(params.w_x).T, "weight_hh": np.asarray(params.w_h).T}
    if params.b is not None:
        arrays["bias"] = np.asarray(params.b)
        if isinstance(params, GRUParams):
            arrays["bias_n"] = np.asarray(params.b_n)
    return arrays
