"""PyTorch's `nn.RNN`, `nn.LSTM` and `nn.GRU`, and their cells.

Matrices are `[out, in]`, gates i, f, g, o and r, z, n. There are two biases, whose sum is ours, but for the GRU's
candidate, whose recurrent bias is inside of the product with r.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrnn.cells import GRU, LSTM, Elman, ElmanParams, GRUParams, LSTMParams, Projected, ProjectedParams
from jaxrnn.checks import check_installed
from jaxrnn.convert.activations import ACTIVATIONS, activation_name
from jaxrnn.convert.arrays import (
    check_axes,
    check_names,
    check_shape,
    of_two_biases,
    shared_dtype,
    to_jax,
    to_numpy,
    two_biases,
)
from jaxrnn.convert.layers import PLAIN_GRU, PLAIN_LSTM, Direction, check_options, directions, network
from jaxrnn.engine.layer import Layer
from jaxrnn.networks.stack import Stack
from jaxrnn.typing import Params

__all__ = ["from_torch", "to_torch", "torch_arrays"]

_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
_NAME = re.compile(rf"({'|'.join(_NAMES)})(?:_l(\d+)(_reverse)?)?")


def from_torch(
    source: Any, *, nonlinearity: str = "tanh", dropout: float = 0.0, prefix: str = ""
) -> tuple[Layer, Params]:
    """Turns a recurrent layer or cell of PyTorch into a cell or network.

    `unroll` is time-major: inputs of a module with `batch_first=True` are swapped, `jnp.swapaxes(xs, 0, 1)`. States are
    per layer and direction in place of one array `[layers * directions, B, H]`.

    Args:
        source: an `nn.RNN`, `nn.LSTM`, `nn.GRU`, `nn.RNNCell`, `nn.LSTMCell` or `nn.GRUCell`; or its state dict, whose
            arrays may be of any kind, so that PyTorch need not be installed.
        nonlinearity: "tanh" or "relu", of an RNN's state dict; a module has its own.
        dropout: rate between layers, of a state dict; a module has its own.
        prefix: what stands before the names of a larger model's state dict, "encoder.rnn."; other names are ignored.

    Returns:
        `(cell, params)`: an `Elman`, `LSTM`, `GRU` or `Projected`, in a `Bidirectional` if there are two directions, in
        a `Stack` if there are several layers.

    Raises:
        TypeError: `source` is another module.
        ValueError: a name is missing or unknown, a shape does not fit, or JAX would round the arrays.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxrnn
        >>> weights = {"weight_ih_l0": (16, 3), "weight_hh_l0": (16, 4), "bias_ih_l0": (16,), "bias_hh_l0": (16,)}
        >>> cell, params = from_torch({name: np.ones(shape, np.float32) for name, shape in weights.items()})
        >>> cell
        LSTM(input_size=3, hidden_size=4)
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape
        (5, 2, 4)
    """
    if isinstance(source, Mapping):
        weights = {name.removeprefix(prefix): w for name, w in source.items() if name.startswith(prefix)}
    else:
        weights, nonlinearity, dropout = _of_module(source)
    groups: dict[tuple[int, bool], dict[str, np.ndarray]] = {}
    for name, weight in weights.items():
        found = _NAME.fullmatch(name)
        if found is None:
            dot = f"; prefix: got {prefix!r}, needs its last dot, {prefix + '.'!r}" * name.startswith(".")
            raise ValueError(f"source: got the name {prefix + name!r}, needs names such as 'weight_ih_l0'{dot}")
        kind, layer, back = found.groups()
        groups.setdefault((int(layer or 0), bool(back)), {})[kind] = to_numpy(name, weight)
    depth, ways = len({layer for layer, _ in groups}), len({back for _, back in groups})
    wanted = {(layer, bool(back)) for layer in range(depth) for back in range(ways)}
    if not groups or groups.keys() != wanted:
        raise ValueError(f"source: got the weights {sorted(weights)}, needs those of every layer and direction")
    layers = [[_cell(groups[layer, bool(back)], nonlinearity) for back in range(ways)] for layer in range(depth)]
    return network(layers, dropout)


def _of_module(module: Any) -> tuple[dict[str, Any], str, float]:
    """Returns the weights by name, the nonlinearity and the dropout of a module."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(module, torch.nn.RNN | torch.nn.LSTM | torch.nn.GRU):
        ways = ("", "_reverse") if module.bidirectional else ("",)
        suffixes = [f"_l{layer}{way}" for layer in range(module.num_layers) for way in ways]
        dropout = module.dropout
    elif torch is not None and isinstance(module, torch.nn.RNNCellBase):
        suffixes, dropout = [""], 0.0
    else:
        got = f"the class {module.__name__}" if isinstance(module, type) else type(module).__name__
        raise TypeError(f"source: got {got}, needs an nn.RNN, nn.LSTM, nn.GRU, a cell of these, or a state dict")
    # Attributes, not the state dict, which holds what parametrizations such as weight_norm compute the weights from.
    found = {kind + suffix: getattr(module, kind + suffix, None) for suffix in suffixes for kind in _NAMES}
    weights = {name: weight for name, weight in found.items() if weight is not None}
    return weights, getattr(module, "nonlinearity", "tanh"), dropout


def _cell(weights: Mapping[str, np.ndarray], nonlinearity: str) -> Direction:
    """Returns the cell of one layer and direction."""
    biases = ("bias_ih", "bias_hh") if "bias_ih" in weights else ()
    projection = ("weight_hr",) if "weight_hr" in weights else ()
    check_names("source", weights, ("weight_ih", "weight_hh", *biases, *projection))
    w_ih, w_hh = weights["weight_ih"], weights["weight_hh"]
    for name in ("weight_ih", "weight_hh", *projection):
        check_axes(name, weights[name], 2)
        check_shape(name, weights[name], weights[name].shape[:2])
    rows, recurrent = w_hh.shape
    size = weights["weight_hr"].shape[1] if projection else recurrent
    if rows not in (size, 3 * size, 4 * size):
        raise ValueError(f"weight_hh: got the shape {w_hh.shape}, needs [H, H], [3H, H] or [4H, H], H = {size}")
    check_shape("weight_ih", w_ih, (rows, w_ih.shape[-1]))
    for name in biases:
        check_shape(name, weights[name], (rows,))
    w_x, w_h = to_jax("weight_ih", w_ih.T), to_jax("weight_hh", w_hh.T)
    inputs, use_bias = w_ih.shape[1], bool(biases)
    both = [weights[name] for name in biases]
    if rows == 3 * size:
        own = map(to_jax, biases, of_two_biases(*both)) if biases else (None, None)
        return GRU(inputs, size, use_bias=use_bias), GRUParams(w_x, w_h, *own)
    b = to_jax("bias_ih", np.add(*both)) if biases else None
    if rows == size:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity: got {nonlinearity!r}, needs 'tanh' or 'relu'")
        return Elman(inputs, size, ACTIVATIONS[nonlinearity], use_bias), ElmanParams(w_x, w_h, b)
    cell, params = LSTM(inputs, size, use_bias=use_bias), LSTMParams(w_x, w_h, b)
    if not projection:
        return cell, params
    check_shape("weight_hr", weights["weight_hr"], (recurrent, size))
    return Projected(cell, recurrent), ProjectedParams(params, to_jax("weight_hr", weights["weight_hr"].T), None)


def to_torch(cell: Layer, params: Params, *, batch_first: bool = False, step: bool = False) -> Any:
    """Turns a cell or network into a recurrent layer of PyTorch, with the parameters in their dtype.

    Args:
        cell: an `Elman`, `LSTM`, `GRU` or `Projected(LSTM)`; a `Bidirectional` or a `Stack` of such.
        params: its parameters.
        batch_first: whether the module's inputs are `[B, T, I]`.
        step: whether to make an `nn.RNNCell`, `nn.LSTMCell` or `nn.GRUCell`.

    Returns:
        An `nn.RNN`, `nn.LSTM` or `nn.GRU` in training mode, as PyTorch makes them. Our bias becomes `bias_ih`, and
        `bias_hh` is zero, but for the GRU's candidate.

    Raises:
        ModuleNotFoundError: PyTorch is not installed; `torch_arrays` does not need it.
        TypeError: `cell` is no cell, or `params` are not its parameters.
        ValueError: PyTorch has no such layer, or parameters are of several dtypes.

    Example:
        >>> import jax
        >>> import jaxrnn
        >>> net = jaxrnn.Stack((jaxrnn.Bidirectional(jaxrnn.GRU(3, 4)), jaxrnn.Bidirectional(jaxrnn.GRU(8, 4))))
        >>> to_torch(net, net.init(jax.random.key(0)))                                          # doctest: +SKIP
        GRU(3, 4, num_layers=2, bidirectional=True)
    """
    check_installed("torch")
    import torch

    arrays = torch_arrays(cell, params, step=step)
    layers = directions(cell, params)
    kind, options = _options(layers)
    if not step:
        options |= {"num_layers": len(layers), "bidirectional": len(layers[0]) > 1, "batch_first": batch_first}
        options["dropout"] = _dropout(cell)
    dtype = getattr(torch, shared_dtype(params, "bfloat16", "float16", "float32", "float64"))
    module = getattr(torch.nn, kind + "Cell" * step)(**options, dtype=dtype)
    with torch.no_grad():
        for name, array in arrays.items():
            # From float32, because PyTorch does not read NumPy's bfloat16.
            source = array.astype(np.float32) if array.dtype.itemsize < 4 else array
            getattr(module, name).copy_(torch.tensor(source))
    return module


def _dropout(cell: Layer) -> float:
    """Returns the rate between layers; raises unless the Stacks of a Stack have the same, as PyTorch has one."""

    def rates(one: Any) -> set[float]:
        if not isinstance(one, Stack):
            return set()
        return set().union({one.dropout} if len(one.cells) > 1 else (), *map(rates, one.cells))

    found = sorted(rates(cell))
    if len(found) > 1:
        raise ValueError(f"cell: got Stacks in a Stack with dropout={found}, PyTorch has one rate between all layers")
    return found[0] if found else 0.0


def torch_arrays(cell: Layer, params: Params, *, step: bool = False) -> dict[str, np.ndarray]:
    """Returns the state dict of `to_torch`, as NumPy arrays; needs no PyTorch.

    Example:
        >>> import jax
        >>> import jaxrnn
        >>> cell = jaxrnn.LSTM(3, 4)
        >>> arrays = torch_arrays(cell, cell.init(jax.random.key(0)))
        >>> {name: array.shape for name, array in arrays.items()}
        {'weight_ih_l0': (16, 3), 'weight_hh_l0': (16, 4), 'bias_ih_l0': (16,), 'bias_hh_l0': (16,)}
    """
    layers = directions(cell, params)
    _options(layers)
    if step and (len(layers) > 1 or len(layers[0]) > 1 or isinstance(layers[0][0][0], Projected)):
        raise ValueError(f"step: got True for {cell}, PyTorch's cells have one layer, one direction and no projection")
    arrays: dict[str, np.ndarray] = {}
    for i, layer in enumerate(layers):
        for way, (one, own) in zip(("", "_reverse"), layer, strict=False):
            suffix = "" if step else f"_l{i}{way}"
            arrays |= {name + suffix: array for name, array in _arrays(one, own).items()}
    return arrays


def _arrays(cell: Layer, params: Params) -> dict[str, np.ndarray]:
    """Returns the arrays of one layer and direction by name."""
    projection = {}
    if isinstance(cell, Projected):
        projection["weight_hr"] = np.asarray(params.w_p).T
        params = params.cell
    arrays = {"weight_ih": np.asarray(params.w_x).T, "weight_hh": np.asarray(params.w_h).T}
    if params.b is not None:
        arrays["bias_ih"], arrays["bias_hh"] = two_biases(np.asarray(params.b), getattr(params, "b_n", None))
    return arrays | projection


def _options(layers: Sequence[Sequence[Direction]]) -> tuple[str, dict[str, Any]]:
    """Returns the name of PyTorch's layer and its options; raises unless all layers and directions share them."""
    found = [_options_of(cell) for layer in layers for cell, _ in layer]
    name, options = found[0]
    for other in found[1:]:
        if other[0] != name or {**other[1], "input_size": 0} != {**options, "input_size": 0}:
            raise ValueError(f"cell: got layers {found[0]} and {other}, PyTorch's are all of one kind and size")
    if len({len(layer) for layer in layers}) > 1:
        raise ValueError("cell: got layers of one and of two directions, PyTorch's have all the same")
    return name, options


def _options_of(cell: Layer) -> tuple[str, dict[str, Any]]:
    """Returns the name of PyTorch's layer and its options, for one layer and direction."""
    inner: Any = cell
    more: dict[str, Any] = {}
    if isinstance(cell, Projected):
        check_options(cell, "nn.LSTM", nonrecurrent_size=None, clip=None)
        inner = cell.cell
    if isinstance(inner, LSTM):
        check_options(inner, "nn.LSTM", **PLAIN_LSTM)
        name = "LSTM"
        if isinstance(cell, Projected):
            more["proj_size"] = cell.projection_size
    elif isinstance(cell, GRU):
        check_options(cell, "nn.GRU", reset="after", **PLAIN_GRU)
        name = "GRU"
    elif isinstance(cell, Elman):
        check_options(cell, "nn.RNN", heads=1)
        if activation_name(cell.activation) not in ("tanh", "relu"):
            raise ValueError(f"cell: got {cell}, nn.RNN has the activations tanh and relu only")
        name, more = "RNN", {"nonlinearity": activation_name(cell.activation)}
    else:
        raise ValueError(f"cell: got {cell}, PyTorch has Elman, LSTM, GRU and Projected(LSTM) only")
    return name, {"input_size": inner.input_size, "hidden_size": inner.hidden_size, "bias": inner.use_bias} | more
