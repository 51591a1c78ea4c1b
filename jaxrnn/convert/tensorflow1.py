"""TensorFlow 1's `BasicRNNCell`, `BasicLSTMCell`, `LSTMCell`, `LSTMBlockCell`, `GRUCell` and what `CudnnGRU` saves.

Kernels are on `[x, h]`, gates i, g, f, o and r, z. The LSTM adds `forget_bias` to f when it runs, 1.0 by default, and
it is in no variable. The GRU resets before the product; `CudnnGRU`, which saves the variables of
`CudnnCompatibleGRUCell`, after it.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxrnn.cells import (
    GRU,
    LSTM,
    Elman,
    ElmanParams,
    GRUParams,
    LSTMParams,
    Projected,
    ProjectedParams,
    VanillaLSTM,
    VanillaLSTMParams,
)
from jaxrnn.checks import check_params
from jaxrnn.convert.activations import activation_name
from jaxrnn.convert.arrays import IGFO, blocks, check_axes, check_names, check_shape, opened, reorder, to_jax, to_numpy
from jaxrnn.convert.layers import PLAIN_GRU, Direction, check_options, fitting, network, plain
from jaxrnn.engine.layer import Layer, check_layer
from jaxrnn.networks.bidirectional import Bidirectional
from jaxrnn.networks.stack import Stack
from jaxrnn.typing import Activation, Params

__all__ = ["from_tensorflow1", "to_tensorflow1"]

_LSTM = ("kernel", "bias", "w_i_diag", "w_f_diag", "w_o_diag", "projection/kernel")
_GRU = ("gates/kernel", "gates/bias", "candidate/kernel", "candidate/bias")
_CUDNN = tuple(f"candidate/{side}_projection/{name}" for side in ("input", "hidden") for name in ("kernel", "bias"))
_NAME = re.compile(rf"(?:(.*?)/)??({'|'.join((*_LSTM, *_GRU, *_CUDNN))})(?::0)?")


def from_tensorflow1(
    variables: Mapping[str, Any],
    *,
    scope: str = "",
    forget_bias: float = 1.0,
    cell_clip: float | None = None,
    proj_clip: float | None = None,
    activation: Activation = jax.numpy.tanh,
) -> tuple[Layer, Params]:
    """Turns the variables of TensorFlow 1's recurrent cells into a cell or network.

    Args:
        variables: arrays by the names of a checkpoint or a graph, "rnn/lstm_cell/kernel". `cell_0`, `cell_1` in a name
            are layers of a `MultiRNNCell`, `fw` and `bw` the directions of `bidirectional_dynamic_rnn`. A cell with
            "kernel" and "bias" alone is an LSTM, unless the name has "basic_rnn_cell".
        scope: what stands before the names of a larger model, "encoder/"; other variables are ignored.
        forget_bias: the cell's argument; `CudnnLSTM` has 0.0.
        cell_clip: the cell's argument.
        proj_clip: the cell's argument.
        activation: the cell's argument, as a function of JAX.

    Returns:
        `(cell, params)`: an `Elman`, `LSTM`, `GRU`, or a `VanillaLSTM` where there are peepholes or clips, in a
        `Projected` with `num_proj`, in a `Bidirectional` or a `Stack`.

    Raises:
        ValueError: a name is missing or unknown, a shape does not fit, or JAX would round the arrays.

    Example:
        >>> variables = {"rnn/basic_lstm_cell/kernel": np.ones((7, 16)), "rnn/basic_lstm_cell/bias": np.zeros(16)}
        >>> cell, params = from_tensorflow1(jax.tree.map(np.float32, variables))
        >>> cell, params.b[4].item()
        (LSTM(input_size=3, hidden_size=4), 1.0)
    """
    cells: dict[str, dict[str, np.ndarray]] = {}
    for name, array in variables.items():
        if not name.startswith(scope):
            continue
        found = _NAME.fullmatch(name.removeprefix(scope))
        if found is None:
            raise ValueError(f"variables: got the name {name!r}, needs those of recurrent cells alone (see scope)")
        cells.setdefault(found[1] or "", {})[found[2]] = to_numpy(name, array)
    if not cells:
        raise ValueError(f"variables: got none in the scope {scope!r}, the names are {sorted(variables)}")

    def one(path: str, arrays: Mapping[str, np.ndarray]) -> Direction:
        if "gates/kernel" in arrays:
            return _gru(path, arrays, activation)
        if "basic_rnn_cell" in path:
            return _elman(path, arrays, activation)
        return _lstm(path, arrays, forget_bias, cell_clip, proj_clip, activation)

    return fitting(*_grouped({path: one(path, arrays) for path, arrays in cells.items()}))


def _grouped(cells: Mapping[str, Direction]) -> Direction:
    """Builds layers and directions from the scopes of cells, from the outermost scope to the innermost."""
    if len(cells) == 1:
        return next(iter(cells.values()))
    keys = {path: re.search(r"(?:^|/)(?:cell_(\d+)|(fw|bw))(?=/|$)", path) for path in cells}
    groups: dict[tuple[str, int], dict[str, Direction]] = {}
    for path, key in keys.items():
        if key is None:
            raise ValueError(f"variables: got cells in the scopes {sorted(cells)}, needs cell_0, cell_1 … or fw, bw")
        place = ("layer", int(key[1])) if key[1] else ("way", ("fw", "bw").index(key[2]))
        groups.setdefault(place, {})[path[key.end() :]] = cells[path]
    kind = {place[0] for place in groups}
    whole = {place[1] for place in groups} == set(range(2 if kind == {"way"} else len(groups)))
    if len(kind) > 1 or not whole:
        raise ValueError(f"variables: got cells in the scopes {sorted(cells)}, needs every layer and both directions")
    members = [_grouped(groups[place]) for place in sorted(groups)]
    return network([members] if kind == {"way"} else [[member] for member in members])


def _parts(path: str, kernel: np.ndarray, size: int, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits a kernel on `[x, h]`."""
    inputs = len(kernel) - rows
    if inputs < 1:
        raise ValueError(f"{path}/kernel: got the shape {kernel.shape}, needs [I + {rows}, {columns * size}]")
    check_shape(f"{path}/kernel", kernel, (inputs + rows, columns * size))
    return kernel[:inputs], kernel[inputs:]


def _lstm(
    path: str,
    arrays: Mapping[str, np.ndarray],
    forget_bias: float,
    cell_clip: float | None,
    proj_clip: float | None,
    activation: Activation,
) -> Direction:
    peepholes = ("w_i_diag", "w_f_diag", "w_o_diag") if "w_i_diag" in arrays else ()
    projection = ("projection/kernel",) if "projection/kernel" in arrays else ()
    check_names(path, arrays, ("kernel", "bias", *peepholes, *projection))
    for name in ("kernel", *projection):
        check_axes(f"{path}/{name}", arrays[name], 2)
    size = arrays["kernel"].shape[1] // 4
    rows = arrays["projection/kernel"].shape[1] if projection else size
    w_x, w_h = _parts(path, reorder(arrays["kernel"], IGFO), size, rows, 4)
    check_shape(f"{path}/bias", arrays["bias"], (4 * size,))
    shared = [to_jax(path, a) for a in (w_x, w_h, opened(reorder(arrays["bias"], IGFO), forget_bias))]
    cell: Any
    params: Any
    if peepholes or cell_clip is not None:
        for name in peepholes:
            check_shape(f"{path}/{name}", arrays[name], (size,))
        w_c = to_jax(path, np.concatenate([arrays[name] for name in peepholes])) if peepholes else None
        cell = VanillaLSTM(
            len(w_x),
            size,
            peephole=bool(peepholes),
            cell_clip=cell_clip,
            candidate_activation=activation,
            output_activation=activation,
        )
        params = VanillaLSTMParams(w_x=shared[0], w_h=shared[1], b=shared[2], w_c=w_c, w_g=None)
    else:
        cell = LSTM(len(w_x), size, candidate_activation=activation, output_activation=activation)
        params = LSTMParams(*shared)
    if not projection:
        return cell, params
    check_shape(f"{path}/projection/kernel", arrays["projection/kernel"], (size, rows))
    w_p = to_jax(path, arrays["projection/kernel"])
    return Projected(cell, rows, clip=proj_clip), ProjectedParams(params, w_p, None)


def _gru(path: str, arrays: Mapping[str, np.ndarray], activation: Activation) -> Direction:
    after = _CUDNN[0] in arrays
    check_names(path, arrays, (*_GRU[:2], *_CUDNN) if after else _GRU)
    size = len(arrays["gates/bias"]) // 2
    w_x, w_h = _parts(f"{path}/gates", arrays["gates/kernel"], size, size, 2)
    b_n = None
    if after:
        w_n, w_hn = arrays[_CUDNN[0]], arrays[_CUDNN[2]]
        b, b_n = arrays[_CUDNN[1]], to_jax(path, arrays[_CUDNN[3]])
    else:
        w_n, w_hn = _parts(f"{path}/candidate", arrays["candidate/kernel"], size, size, 1)
        b = arrays["candidate/bias"]
    check_shape(f"{path}/candidate", w_n, (len(w_x), size))
    check_shape(f"{path}/candidate", w_hn, (size, size))
    w_x, b = np.concatenate([w_x, w_n], axis=1), np.concatenate([arrays["gates/bias"], b])
    cell = GRU(len(w_x), size, "after" if after else "before", activation=activation)
    if after:
        w_h = np.concatenate([w_h, w_hn], axis=1)
        return cell, GRUParams(to_jax(path, w_x), to_jax(path, w_h), to_jax(path, b), b_n)
    return cell, GRUParams(to_jax(path, w_x), to_jax(path, w_h), to_jax(path, b), w_n=to_jax(path, w_hn))


def _elman(path: str, arrays: Mapping[str, np.ndarray], activation: Activation) -> Direction:
    check_names(path, arrays, ("kernel", "bias"))
    size = len(arrays["bias"])
    w_x, w_h = _parts(path, arrays["kernel"], size, size, 1)
    return Elman(len(w_x), size, activation), ElmanParams(*(to_jax(path, a) for a in (w_x, w_h, arrays["bias"])))


def to_tensorflow1(cell: Layer, params: Params, *, forget_bias: float = 1.0) -> dict[str, np.ndarray]:
    """Turns a cell or network into the variables of TensorFlow 1's cells, by their names inside of the cell's scope.

    An LSTM's variables are those of `LSTMCell` and `LSTMBlockCell`, a GRU's those of `GRUCell`, with the reset after
    those of `CudnnCompatibleGRUCell`. Activations and clips are arguments of these classes, and in no variable.

    Args:
        cell: an `Elman`, `LSTM`, `VanillaLSTM` (with all gates), `GRU`, `Projected`; a `Stack` or a `Bidirectional`.
        params: its parameters.
        forget_bias: the argument that TensorFlow's cell is given. It is subtracted, which rounds by half a unit in the
            last place of itself; with 0.0 nothing is.

    Raises:
        TypeError: `cell` is no cell, or `params` are not its parameters.
        ValueError: TensorFlow 1 has no such cell.

    Example:
        >>> import jaxrnn
        >>> net = jaxrnn.Stack((jaxrnn.LSTM(3, 4), jaxrnn.LSTM(4, 4)))
        >>> sorted(to_tensorflow1(net, net.init(jax.random.key(0))))
        ['cell_0/bias', 'cell_0/kernel', 'cell_1/bias', 'cell_1/kernel']
    """
    check_layer(cell)
    check_params(cell, params)
    cell, params = plain(cell, params)
    if isinstance(cell, Stack):
        parts = {f"cell_{i}": pair for i, pair in enumerate(zip(cell.cells, params, strict=True))}
    elif isinstance(cell, Bidirectional):
        check_options(cell, "bidirectional_dynamic_rnn", merge="concat")
        parts = dict(zip(("fw", "bw"), zip(cell.cells, params, strict=True), strict=True))
    else:
        return _of_cell(cell, jax.tree.map(np.asarray, params), forget_bias)
    named = {scope: to_tensorflow1(*pair, forget_bias=forget_bias) for scope, pair in parts.items()}
    return {f"{scope}/{name}": array for scope, arrays in named.items() for name, array in arrays.items()}


def _of_cell(cell: Layer, p: Any, forget_bias: float) -> dict[str, np.ndarray]:
    inner: Any = cell
    projection = {}
    if isinstance(inner, Projected):
        check_options(inner, "TensorFlow 1", nonrecurrent_size=None)
        projection = {"projection/kernel": p.w_p}
        inner, p = inner.cell, p.cell
    if not isinstance(inner, Elman | LSTM | VanillaLSTM | GRU) or (projection and isinstance(inner, Elman)):
        raise ValueError(f"cell: got {cell}, TensorFlow 1 has Elman, LSTM, VanillaLSTM, GRU and Projected LSTMs only")
    check_options(inner, "TensorFlow 1", heads=1, use_bias=True)
    if isinstance(inner, Elman):
        return {"kernel": np.concatenate([p.w_x, p.w_h]), "bias": p.b}
    if isinstance(inner, GRU):
        return _of_gru(inner, p)
    name = activation_name(inner.candidate_activation)
    check_options(inner, "TensorFlow 1", gate_activation="sigmoid", output_activation=name)
    peepholes = {}
    if isinstance(inner, VanillaLSTM):
        if not all(inner.own_gates) or inner.gate_recurrence or inner.peephole == "full":
            raise ValueError(f"cell: got {inner}, TensorFlow 1's LSTM has three gates and diagonal peepholes only")
        check_options(inner, "TensorFlow 1", output_gate_activation="sigmoid", peephole_gradient=True)
        if p.w_c is not None:
            peepholes = dict(zip(("w_i_diag", "w_f_diag", "w_o_diag"), blocks(p.w_c, 3), strict=True))
    kernel, bias = np.concatenate([p.w_x, p.w_h]), opened(p.b, -forget_bias)
    return {"kernel": reorder(kernel, IGFO), "bias": reorder(bias, IGFO)} | peepholes | projection


def _of_gru(cell: GRU, p: Any) -> dict[str, np.ndarray]:
    check_options(cell, "TensorFlow 1", **{**PLAIN_GRU, "activation": activation_name(cell.activation)})
    size = cell.hidden_size
    w, b, w_n, b_x = p.w_x[:, : 2 * size], p.b[: 2 * size], p.w_x[:, 2 * size :], p.b[2 * size :]
    gates = {"gates/kernel": np.concatenate([w, p.w_h[:, : 2 * size]]), "gates/bias": b}
    if p.w_n is not None:
        return gates | {"candidate/kernel": np.concatenate([w_n, p.w_n]), "candidate/bias": b_x}
    return gates | dict(zip(_CUDNN, (w_n, b_x, p.w_h[:, 2 * size :], p.b_n), strict=True))
