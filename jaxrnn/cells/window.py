"""The last inputs side by side, the masked convolution of the QRNN (Bradbury, Merity, Xiong & Socher 2016)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp

from jaxrnn.cell import Cell
from jaxrnn.checks import check_sizes
from jaxrnn.engine.chunks import StepData
from jaxrnn.engine.masks import at, flip
from jaxrnn.ops import keep, spread_like
from jaxrnn.typing import Array, DTypeLike, Key

__all__ = ["Window", "WindowState"]


class WindowState(NamedTuple):
    """State of `Window`."""

    xs: Array  # [*batch, k - 1, I], the inputs before, from first to last


@dataclass(frozen=True)
class Window(Cell[tuple[()], WindowState]):
    """The last inputs side by side, a layer without parameters.

        y_t = [x_{t-k+1}, …, x_t]               zero before the first step

    It turns the input product of the next layer into a masked convolution of width k, as in
    `Stack((Window(I, k), QRNN(k * I, H)))`. `unroll` makes all windows at once, by shifts.

    Args:
        input_size: I, length of the last axis of the input.
        width: k, number of inputs in a window.

    Raises:
        ValueError: a size is not a positive integer.

    Example:
        >>> import jax, jaxrnn
        >>> cell = Window(input_size=1, width=3)
        >>> state, ys = jaxrnn.unroll(cell, cell.init(jax.random.key(0)), jnp.array([[1.0], [2.0], [3.0], [4.0]]))
        >>> ys.tolist()
        [[0.0, 0.0, 1.0], [0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]

    Reference: Bradbury, Merity, Xiong & Socher 2016, "Quasi-recurrent neural networks", section 2.1.
    """

    input_size: int
    width: int

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, width=self.width)

    @property
    def hidden_size(self) -> int:
        """`(k - 1) I`, number of values in the state."""
        return (self.width - 1) * self.input_size

    @property
    def output_size(self) -> int:
        """`k I`."""
        return self.width * self.input_size

    @property
    def chunkwise(self) -> bool:
        """True: `unroll` computes all steps of a chunk at once."""
        return True

    def init(self, key: Key, *, dtype: DTypeLike = jnp.float32) -> tuple[()]:
        """Returns no parameters: `()`."""
        del key, dtype
        return ()

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> WindowState:
        """Returns zeros `[*batch_shape, k - 1, I]`."""
        return WindowState(jnp.zeros((*batch_shape, self.width - 1, self.input_size), dtype))

    def project(self, params: tuple[()], x: Array) -> Array:
        """Returns the input unchanged."""
        del params
        return x

    def step(self, params: tuple[()], state: WindowState, drive: Array) -> tuple[WindowState, Array]:
        """Appends the input; the output is the window, and the state its last k - 1 inputs."""
        del params
        window = jnp.concatenate([state.xs, drive[..., None, :].astype(state.xs.dtype)], axis=-2)
        return WindowState(window[..., 1:, :]), window.reshape(*drive.shape[:-1], self.output_size)

    def run_chunk(
        self, params: tuple[()], state: WindowState, data: StepData, reverse: bool
    ) -> tuple[WindowState, Array]:
        """Makes all windows of a chunk at once, by shifts."""
        del params
        xs, valid, resets, _ = data
        steps, k, batch_shape = xs.shape[0], self.width, xs.shape[1:-1]
        nowhere = spread_like(jnp.zeros((steps, *batch_shape), bool), xs)
        flags = nowhere if resets is None else resets
        # Valid steps come first, also after the flip of a run in reverse.
        lengths = jnp.sum(~nowhere if valid is None else valid, axis=0)
        if reverse:
            xs, flags = flip(xs, lengths), flip(flags, lengths)
        line = jnp.concatenate([jnp.moveaxis(state.xs, -2, 0), xs.astype(state.xs.dtype)])
        before = spread_like(jnp.zeros((k - 1, *batch_shape), bool), flags[:1])
        flags = jnp.concatenate([before, flags])
        # From the newest input of a window to the oldest: inputs before a reset are masked.
        seen = ~nowhere
        window = [line[k - 1 :]]
        for first in range(k - 2, -1, -1):
            seen = seen & ~flags[first + 1 : first + 1 + steps]
            window.insert(0, keep(seen, line[first : first + steps]))
        windows = jnp.stack(window, axis=-2)
        states = jnp.concatenate([state.xs[None], windows[..., 1:, :]])
        ys = windows.reshape(*xs.shape[:-1], self.output_size)
        return WindowState(at(states, lengths[None])[0]), flip(ys, lengths) if reverse else ys
