"""The `ConvLSTM` of Flax and Haiku: gates i, g, f, o, two biases, and 1 added to f when it runs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrnn.cells import ConvLSTM, ConvLSTMParams
from jaxrnn.convert.arrays import IGFO, check_shape, opened, reorder, to_jax
from jaxrnn.convert.layers import Direction, check_options

__all__ = ["check_space", "conv_lstm", "conv_lstm_arrays"]


def check_space(space: tuple[int, ...] | None, axes: int) -> tuple[int, ...]:
    """Returns the spatial sizes of an input, which arrays don't tell; raises unless there are so many."""
    if space is None or len(space) != axes:
        raise ValueError(f"space: got {space}, needs the sizes of the {axes} spatial axes of the input")
    return space


def conv_lstm(
    w_x: np.ndarray, w_h: np.ndarray, biases: Mapping[str, np.ndarray], space: tuple[int, ...] | None
) -> Direction:
    """Returns the cell and its parameters; `biases`: both or none, by their names."""
    *kernel, channels, columns = w_x.shape
    for name, bias in biases.items():
        check_shape(name, bias, (columns,))
    b = opened(reorder(sum(biases.values(), np.zeros(columns, w_x.dtype)), IGFO), 1)
    cell = ConvLSTM((*check_space(space, len(kernel)), channels), columns // 4, tuple(kernel))
    return cell, ConvLSTMParams(*(to_jax("params", a) for a in (reorder(w_x, IGFO), reorder(w_h, IGFO), b)))


def conv_lstm_arrays(cell: ConvLSTM, p: Any, target: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the kernels and the bias; raises unless `target`, a cell of these libraries, has the cell's options."""
    check_options(cell, target, peephole=False)
    if cell.stride not in (1, (1,) * (len(cell.input_size) - 1)):
        raise ValueError(f"cell: got stride={cell.stride}, {target} has 1 only")
    w_x, w_h, b = (reorder(a, IGFO) for a in (p.w_x, p.w_h, opened(p.b, -1)))
    return w_x, w_h, b
