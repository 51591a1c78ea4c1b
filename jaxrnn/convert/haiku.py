"""Haiku's `VanillaRNN`, `LSTM`, `GRU` and `Conv1DLSTM`, `Conv2DLSTM`, `Conv3DLSTM`.

The LSTM has one matrix on `[x, h]`, gates i, g, f, o, and adds 1 to f when it runs. The GRU has the gates z, r, n, and
its z takes the new state where ours keeps the old one. The vanilla RNN has two biases and a relu.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxrnn.cells import (
    GRU,
    LSTM,
    ConvLSTM,
    Elman,
    ElmanParams,
    GRUParams,
    LSTMParams,
)
from jaxrnn.convert.arrays import (
    IGFO,
    blocks,
    check_axes,
    check_names,
    check_shape,
    opened,
    reorder,
    to_jax,
    to_numpy,
    two_biases,
)
from jaxrnn.convert.conv_lstm import conv_lstm, conv_lstm_arrays
from jaxrnn.convert.layers import PLAIN_GRU, PLAIN_LSTM, Direction, check_options, directions, network
from jaxrnn.engine.layer import Layer
from jaxrnn.typing import Params

__all__ = ["from_haiku", "to_haiku"]

Tree = Mapping[str, Mapping[str, Any]]
_SUBMODULES = ("linear", "linear_1", "input_to_hidden", "hidden_to_hidden")


def from_haiku(
    params: Tree, *, layers: Sequence[str] | None = None, space: tuple[int, ...] | None = None
) -> tuple[Layer, Params]:
    """Turns the parameters of Haiku's recurrent cores into a cell, or a `Stack` of as many as there are.

    Args:
        params: Haiku's parameters, `{"lstm/linear": {"w": ..., "b": ...}}`.
        layers: the names of the cores from the first layer to the last, "lstm", "gru" or with the names of modules
            around them; other parameters are then ignored. None: there is one core, or several of one kind that Haiku
            numbered, "lstm", "lstm_1" and so on.
        space: sizes of the spatial axes of a convolutional core, which its parameters don't tell.

    Returns:
        `(cell, params)`: an `Elman` (with a relu), `LSTM`, `GRU` or `ConvLSTM`, or a `Stack` of these.

    Raises:
        ValueError: parameters of other modules, an unknown order, a shape that does not fit, or arrays that JAX would
            round.

    Example:
        >>> weights = {"gru": {"w_i": np.ones((3, 12)), "w_h": np.ones((4, 12)), "b": np.zeros(12)}}
        >>> cell, params = from_haiku(jax.tree.map(np.float32, weights))
        >>> cell
        GRU(input_size=3, hidden_size=4, reset='before')
    """
    cores: dict[str, dict[str, np.ndarray]] = {}
    for path, arrays in params.items():
        core, _, last = path.rpartition("/")
        core, part = (core, last + "/") if last in _SUBMODULES else (path, "")
        for name, array in arrays.items():
            if layers is None or core in layers:
                cores.setdefault(core, {})[part + name] = to_numpy(f"{path}/{name}", array)
    order = _numbered(cores) if layers is None else layers
    missing = [name for name in order if name not in cores]
    if missing or not order:
        raise ValueError(f"params: got {sorted(params)}, needs the cores {missing or '(at least one)'}")
    return network([[_cell(name, cores[name], space)] for name in order])


def _numbered(cores: Mapping[str, Any]) -> list[str]:
    """Returns the names of cores of one kind in the order of their numbers."""
    parts = {name: re.fullmatch(r"(.*?)(?:_(\d+))?", name) for name in cores}
    if len({found[1] for found in parts.values() if found}) > 1:
        raise ValueError(f"layers: got None for the cores {sorted(cores)}, needs their order")
    return sorted(cores, key=lambda name: int((parts[name] or "")[2] or 0))


def _cell(core: str, arrays: dict[str, np.ndarray], space: tuple[int, ...] | None) -> Direction:
    if "w_i" in arrays:
        return _gru(core, arrays)
    if "input_to_hidden/w" in arrays:
        return _conv(core, arrays, space)
    if "linear_1/w" in arrays:
        return _elman(core, arrays)
    return _lstm(core, arrays)


def _lstm(core: str, arrays: dict[str, np.ndarray]) -> Direction:
    check_names(core, arrays, ("linear/w", "linear/b"))
    check_axes(f"{core}/linear/w", arrays["linear/w"], 2)
    w, b = reorder(arrays["linear/w"], IGFO), reorder(arrays["linear/b"], IGFO)
    size = w.shape[1] // 4
    inputs = len(w) - size
    check_shape(f"{core}/linear/w", w, (inputs + size, 4 * size))
    check_shape(f"{core}/linear/b", b, (4 * size,))
    return LSTM(inputs, size), LSTMParams(*(to_jax(core, a) for a in (w[:inputs], w[inputs:], opened(b, 1))))


def _gru(core: str, arrays: dict[str, np.ndarray]) -> Direction:
    check_names(core, arrays, ("w_i", "w_h", "b"))
    for name in ("w_i", "w_h"):
        check_axes(f"{core}/{name}", arrays[name], 2)
    inputs, size = len(arrays["w_i"]), len(arrays["w_h"])
    for name, shape in (("w_i", (inputs, 3 * size)), ("w_h", (size, 3 * size)), ("b", (3 * size,))):
        check_shape(f"{core}/{name}", arrays[name], shape)
    w_x, w_h, b = (to_jax(core, _turned(arrays[name])) for name in ("w_i", "w_h", "b"))
    params = GRUParams(w_x, w_h[:, : 2 * size], b, w_n=w_h[:, 2 * size :])
    return GRU(inputs, size, reset="before"), params


def _turned(a: np.ndarray) -> np.ndarray:
    """Swaps the gates z and r and turns the sign of z, from one convention to the other."""
    first, second, n = blocks(a, 3)
    return np.concatenate([second, -first, n], axis=-1)


def _turned_back(a: np.ndarray) -> np.ndarray:
    r, z, n = blocks(a, 3)
    return np.concatenate([-z, r, n], axis=-1)


def _elman(core: str, arrays: dict[str, np.ndarray]) -> Direction:
    double = ("linear_1/b",) if "linear_1/b" in arrays else ()
    check_names(core, arrays, ("linear/w", "linear/b", "linear_1/w", *double))
    check_axes(f"{core}/linear/w", arrays["linear/w"], 2)
    inputs, size = arrays["linear/w"].shape[:2]
    b = arrays["linear/b"] + arrays["linear_1/b"] if double else arrays["linear/b"]
    check_shape(f"{core}/linear_1/w", arrays["linear_1/w"], (size, size))
    check_shape(f"{core}/linear/b", b, (size,))
    params = ElmanParams(*(to_jax(core, a) for a in (arrays["linear/w"], arrays["linear_1/w"], b)))
    return Elman(inputs, size, jax.nn.relu), params


def _conv(core: str, arrays: dict[str, np.ndarray], space: tuple[int, ...] | None) -> Direction:
    check_names(core, arrays, [f"{way}_to_hidden/{name}" for way in ("input", "hidden") for name in ("w", "b")])
    biases = {f"{core}/{name}": arrays[name] for name in ("input_to_hidden/b", "hidden_to_hidden/b")}
    return conv_lstm(arrays["input_to_hidden/w"], arrays["hidden_to_hidden/w"], biases, space)


def to_haiku(cell: Layer, params: Params) -> dict[str, dict[str, np.ndarray]]:
    """Turns a cell, or a `Stack` of cells, into the parameters of Haiku's cores under their default names.

    They are those of `hk.LSTM(H)`, `hk.GRU(H)`, `hk.VanillaRNN(H)` and `hk.Conv2DLSTM(space, F, kernel)` inside of
    `hk.transform`; of a `Stack`, of as many cores in its order. The LSTM's forget bias has one less, because Haiku adds
    1: a rounding of half a unit in the last place of 1.

    Raises:
        TypeError: `cell` is no cell, or `params` are not its parameters.
        ValueError: Haiku has no such core.

    Example:
        >>> import jaxrnn
        >>> cell = jaxrnn.LSTM(3, 4)
        >>> jax.tree.map(np.shape, to_haiku(cell, cell.init(jax.random.key(0))))
        {'lstm/linear': {'b': (16,), 'w': (7, 16)}}
    """
    count: dict[str, int] = {}
    tree: dict[str, dict[str, np.ndarray]] = {}
    for layer in directions(cell, params):
        if len(layer) > 1:
            raise ValueError("cell: got a Bidirectional, Haiku has no such core; convert its directions one by one")
        kind, arrays = _of_cell(*layer[0])
        number = count[kind] = count.get(kind, -1) + 1
        core = f"{kind}_{number}" if number else kind
        for name, array in arrays.items():
            path, _, name = f"{core}/{name}".rpartition("/")
            tree.setdefault(path, {})[name] = array
    return tree


def _of_cell(cell: Layer, params: Params) -> tuple[str, dict[str, np.ndarray]]:
    """Returns Haiku's name of a core and its arrays."""
    p = jax.tree.map(np.asarray, params)
    if getattr(p, "b", None) is None:
        raise ValueError(f"cell: got {cell}, Haiku has Elman (relu), LSTM, GRU (reset before) and ConvLSTM with bias")
    if isinstance(cell, LSTM):
        check_options(cell, "hk.LSTM", **PLAIN_LSTM)
        w, b = np.concatenate([p.w_x, p.w_h]), opened(p.b, -1)
        return "lstm", {"linear/w": reorder(w, IGFO), "linear/b": reorder(b, IGFO)}
    if isinstance(cell, GRU):
        check_options(cell, "hk.GRU", reset="before", **PLAIN_GRU)
        w_h = np.concatenate([p.w_h, p.w_n], axis=1)
        return "gru", {"w_i": _turned_back(p.w_x), "w_h": _turned_back(w_h), "b": _turned_back(p.b)}
    if isinstance(cell, Elman):
        check_options(cell, "hk.VanillaRNN", heads=1, activation="relu")
        b_x, b_h = two_biases(p.b)
        return "vanilla_rnn", {"linear/w": p.w_x, "linear/b": b_x, "linear_1/w": p.w_h, "linear_1/b": b_h}
    if isinstance(cell, ConvLSTM):
        if (axes := len(cell.input_size) - 1) > 3:
            raise ValueError(f"cell: got {cell}, Haiku has up to 3 spatial axes only")
        w_x, w_h, b = conv_lstm_arrays(cell, p, f"hk.Conv{axes}DLSTM")
        b_x, b_h = two_biases(b)
        arrays = {"input_to_hidden/w": w_x, "input_to_hidden/b": b_x}
        return f"conv{axes}_dlstm", arrays | {"hidden_to_hidden/w": w_h, "hidden_to_hidden/b": b_h}
    raise ValueError(f"cell: got {cell}, Haiku has Elman (relu), LSTM, GRU (reset before) and ConvLSTM only")
