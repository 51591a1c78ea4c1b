"""Quasi-recurrent network (Bradbury et al. 2016): gates from a masked convolution, and a pooling linear in its state.

z, f, o = window W_x + b                    window: the last k inputs, by `Window` before the cell
c' = σ(f) ⊙ c + (1 - σ(f)) ⊙ tanh(z)        fo-pooling
c' = σ(f) ⊙ c + σ(i) ⊙ tanh(z)              ifo-pooling
h = σ(o) ⊙ c'
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell, LinearCell
from jaxrnn.checks import check_choice, check_sizes
from jaxrnn.engine.chunks import StepData
from jaxrnn.engine.masks import at, flip
from jaxrnn.ops import affine, gates, keep
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["QRNN", "QRNNParams", "QRNNState", "Window", "WindowState"]


class WindowState(NamedTuple):
    """State of `Window`."""

    xs: Array  # [*batch, k - 1, I], the inputs before, first to last


@dataclass(frozen=True)
class Window(Cell):
    """The last inputs side by side, a layer without parameters.

        y_t = [x_{t-k+1}, …, x_t]               zero before the first step

    Before a cell with an input product, as in `Stack((Window(I, k), QRNN(k * I, H)))`, it is that cell with a masked
    convolution of width k. `unroll` makes all windows at once, by shifts.

    Args:
        input_size: I, length of the last axis of the input.
        width: k, the inputs in a window.

    Raises:
        ValueError: a size is not a positive integer.

    Example:
        >>> import jaxrnn
        >>> cell = Window(input_size=1, width=3)
        >>> state, ys = jaxrnn.unroll(cell, cell.init(jax.random.key(0)), jnp.array([[1.0], [2.0], [3.0], [4.0]]))
        >>> ys.tolist()
        [[0.0, 0.0, 1.0], [0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]
    """

    input_size: int
    width: int

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, width=self.width)

    @property
    def hidden_size(self) -> int:
        """`(k - 1) I`, the values that are kept."""
        return (self.width - 1) * self.input_size

    @property
    def output_size(self) -> int:
        """`k I`."""
        return self.width * self.input_size

    def init(self, key: Key, *, dtype: DTypeLike = jnp.float32) -> tuple[()]:
        """There are no parameters."""
        del key, dtype
        return ()

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> WindowState:
        """Zeros `[*batch_shape, k - 1, I]`."""
        return WindowState(jnp.zeros((*batch_shape, self.width - 1, self.input_size), dtype))

    def project(self, params: tuple[()], x: Array) -> Array:
        """The input."""
        del params
        return x

    def step(self, params: tuple[()], state: WindowState, drive: Array) -> tuple[WindowState, Array]:
        """The input behind those before it, and without the first of them."""
        del params
        window = jnp.concatenate([state.xs, drive[..., None, :].astype(state.xs.dtype)], axis=-2)
        return WindowState(window[..., 1:, :]), window.reshape(*drive.shape[:-1], -1)

    def run_chunk(
        self, params: tuple[()], state: WindowState, data: StepData, reverse: bool
    ) -> tuple[WindowState, Array]:
        """All windows at once, by shifts."""
        del params
        xs, valid, resets, _ = data
        steps, k, batch_shape = xs.shape[0], self.width, xs.shape[1:-1]
        flags = jnp.zeros((steps, *batch_shape), bool) if resets is None else resets
        # The valid steps stand before the others, also in the order of a walk back.
        lengths = jnp.full(batch_shape, steps) if valid is None else jnp.sum(valid, axis=0)
        if reverse:
            xs, flags = flip(xs, lengths), flip(flags, lengths)
        line = jnp.concatenate([jnp.moveaxis(state.xs, -2, 0), xs.astype(state.xs.dtype)])
        flags = jnp.concatenate([jnp.zeros((k - 1, *batch_shape), bool), flags])
        # From the newest to the oldest of a window: what is before a flag is out of sight from then on.
        seen = jnp.ones((steps, *batch_shape), bool)
        window = [line[k - 1 :]]
        for first in range(k - 2, -1, -1):
            seen = seen & ~flags[first + 1 : first + 1 + steps]
            window.insert(0, keep(seen, line[first : first + steps]))
        windows = jnp.stack(window, axis=-2)
        states = jnp.concatenate([state.xs[None], windows[..., 1:, :]])
        ys = windows.reshape(*xs.shape[:-1], -1)
        return WindowState(at(states, lengths[None])[0]), flip(ys, lengths) if reverse else ys


class QRNNParams(NamedTuple):
    """Parameters of `QRNN`."""

    w_x: Array  # [I, 3H], blocks z, f, o; ifo-pooling: [I, 4H], blocks z, f, o, i
    b: Array | None  # [3H] or [4H]


class QRNNState(NamedTuple):
    """State of `QRNN`."""

    c: Array  # [*batch, H]


@dataclass(frozen=True)
class QRNN(LinearCell):
    """Quasi-recurrent pooling, linear in its state; `Stack((Window(I, k), QRNN(k * I, H)))` is the paper's layer.

        z, f, o[, i] = x W_x + b
        c' = σ(f) ⊙ c + (1 - σ(f)) ⊙ tanh(z)    pooling="fo"
        c' = σ(f) ⊙ c + σ(i) ⊙ tanh(z)          pooling="ifo"
        y = σ(o) ⊙ c'

    The paper's f-pooling, without `o`, is `MinGRU(activation=jnp.tanh)`.

    Args:
        input_size: I, length of the last axis of the input: that of a window, where a `Window` is before it.
        hidden_size: H, units.
        pooling: "fo", or "ifo" with an input gate of its own.
        use_bias: whether there is a `b`.
        scan: "sequential" or "associative", see `LinearCell`.

    Raises:
        ValueError: a size is not a positive integer, or `pooling` or `scan` is unknown.

    Example:
        >>> import jaxrnn
        >>> net = jaxrnn.Stack((Window(3, 2), QRNN(input_size=6, hidden_size=4)))
        >>> params = net.init(jax.random.key(0))
        >>> (window, pool), ys = jaxrnn.unroll(net, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, pool.c.shape, window.xs.shape
        ((5, 2, 4), (2, 4), (2, 1, 3))

    Reference: Bradbury, Merity, Xiong & Socher 2016, "Quasi-recurrent neural networks", section 2.
    """

    input_size: int
    hidden_size: int
    pooling: Literal["fo", "ifo"] = "fo"
    use_bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_choice(pooling=self.pooling, among=("fo", "ifo"))

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.glorot_uniform(),
        bias_init: Initializer = initializers.zeros,
    ) -> QRNNParams:
        """Fresh parameters, gate block by gate block.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`.
            bias_init: sees `[n, H]`, a row a gate; of no effect without bias.
        """
        i, h, n = self.input_size, self.hidden_size, 1 + len(self.pooling)
        kx, kb = jax.random.split(key)
        return QRNNParams(
            w_x=initializers.blocks(input_init, kx, (i, h), n, dtype),
            b=bias_init(kb, (n, h), dtype).reshape(n * h) if self.use_bias else None,
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> QRNNState:
        """Zeros `[*batch_shape, H]`."""
        return QRNNState(c=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: QRNNParams, x: Array) -> tuple[Array, ...]:
        """`tanh(z)` and the gates f, o and, with ifo-pooling, i."""
        z, *rest = gates(affine(x, params.w_x, params.b), 1 + len(self.pooling))
        return jnp.tanh(z), *map(jax.nn.sigmoid, rest)

    def coefficients(self, params: QRNNParams, drive: tuple[Array, ...]) -> tuple[QRNNState, QRNNState]:
        """`f` and the gated `z`."""
        del params
        z, f, _, *i = drive
        return QRNNState(f), QRNNState((i[0] if i else 1 - f) * z)

    def readout(self, params: QRNNParams, output: QRNNState, drive: tuple[Array, ...]) -> Array:
        """`o ⊙ c'`."""
        del params
        return drive[2].astype(output.c.dtype) * output.c
