"""The flat weights of cuDNN's LSTM, as `jax.experimental.rnn` takes them, and their order for ROCm.

    W_ih, W_hh of each layer and direction, then b_ih, b_hh of each layer and direction

with PyTorch's matrices `[4H, in]`, gates i, f, g, o; for ROCm i, f, o, g.
"""

import math

import numpy as np

from jaxrnn.cells import LSTM
from jaxrnn.checks import check_choice, check_sizes
from jaxrnn.convert.arrays import check_shape, reorder, to_numpy
from jaxrnn.convert.layers import directions
from jaxrnn.convert.torch import from_torch, torch_arrays
from jaxrnn.engine.layer import Layer
from jaxrnn.typing import Array, Params

__all__ = ["from_cudnn", "to_cudnn"]


def from_cudnn(
    weights: Array,
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    bidirectional: bool = False,
    *,
    order: str = "cudnn",
    dropout: float = 0.0,
) -> tuple[Layer, Params]:
    """Turns the flat weights of `jax.experimental.rnn.lstm` into a cell or network.

    Args:
        weights: as from `jax.experimental.rnn.init_lstm_weight`.
        input_size: I.
        hidden_size: H.
        num_layers: layers.
        bidirectional: whether there are two directions.
        order: "cudnn", gates i, f, g, o; "rocm", gates i, f, o, g, as from `jax.experimental.rnn.swap_lstm_gates`.
        dropout: rate between layers.

    Raises:
        ValueError: a size is not a positive integer, an unknown order, or as many weights as these sizes don't have.

    Example:
        >>> from_cudnn(np.zeros(4 * 4 * (3 + 4 + 2), np.float32), input_size=3, hidden_size=4)[0]
        LSTM(input_size=3, hidden_size=4)
    """
    check_choice(order=order, among=("cudnn", "rocm"))
    flat, shapes = to_numpy("weights", weights), _shapes(input_size, hidden_size, num_layers, bidirectional)
    check_shape("weights", flat, (sum(map(math.prod, shapes.values())),))
    parts = np.split(flat, np.cumsum([math.prod(shape) for shape in shapes.values()])[:-1])
    arrays = {name: a.reshape(shape) for (name, shape), a in zip(shapes.items(), parts, strict=True)}
    if order == "rocm":
        arrays = {name: _swapped(a) for name, a in arrays.items()}
    return from_torch(arrays, dropout=dropout)


def _shapes(inputs: int, size: int, layers: int, bidirectional: bool) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the arrays in their order, under PyTorch's names."""
    check_sizes(input_size=inputs, hidden_size=size, num_layers=layers)
    ways = ("", "_reverse") if bidirectional else ("",)
    suffixes = {f"l{i}{way}": inputs if i == 0 else len(ways) * size for i in range(layers) for way in ways}
    shapes: dict[str, tuple[int, ...]] = {}
    for suffix, seen in suffixes.items():
        shapes |= {f"weight_ih_{suffix}": (4 * size, seen), f"weight_hh_{suffix}": (4 * size, size)}
    for suffix in suffixes:
        shapes |= {f"bias_ih_{suffix}": (4 * size,), f"bias_hh_{suffix}": (4 * size,)}
    return shapes


def _swapped(a: np.ndarray) -> np.ndarray:
    """Swaps the third and the fourth gate of the first axis."""
    return reorder(a.T, (0, 1, 3, 2)).T


def to_cudnn(cell: Layer, params: Params, *, order: str = "cudnn") -> np.ndarray:
    """Turns an `LSTM`, a `Bidirectional` or a `Stack` of such into the flat weights of `jax.experimental.rnn.lstm`.

    Our bias becomes the first of cuDNN's two, and the second is zero.

    Raises:
        TypeError: `cell` is no cell, or `params` are not its parameters.
        ValueError: cuDNN's LSTM has no such layer, or an unknown order.

    Example:
        >>> import jax
        >>> import jaxrnn
        >>> net = jaxrnn.Bidirectional(jaxrnn.LSTM(3, 4))
        >>> to_cudnn(net, net.init(jax.random.key(0))).shape
        (288,)
    """
    check_choice(order=order, among=("cudnn", "rocm"))
    layers = directions(cell, params)
    cells = [one for layer in layers for one, _ in layer]
    first = cells[0]
    if any(not isinstance(one, LSTM) or not one.use_bias for one in cells):
        raise ValueError(f"cell: got {cell}, jax.experimental.rnn has LSTM with bias only")
    arrays = torch_arrays(cell, params)
    shapes = _shapes(first.input_size, first.hidden_size, len(layers), len(layers[0]) > 1)
    if order == "rocm":
        arrays = {name: _swapped(a) for name, a in arrays.items()}
    return np.concatenate([arrays[name].ravel() for name in shapes])
