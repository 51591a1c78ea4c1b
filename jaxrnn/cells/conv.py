"""Convolutional LSTM (Shi et al. 2015) and GRU (Ballas et al. 2016), over any number of spatial axes.

ConvLSTM:  i, f, g, o = x * W_x + h * W_h + b               * a convolution of kept size, channels last
           c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
           h' = σ(o) ⊙ tanh(c')

ConvGRU:   r, z = σ(x * W_x + h * W_h + b)
           n = tanh(x * W_xn + (r ⊙ h) * W_n + b_n)
           h' = (1 - z) ⊙ n + z ⊙ h
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_sizes
from jaxrnn.ops import add, add_bias, gates, weigh
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["ConvGRU", "ConvGRUParams", "ConvGRUState", "ConvLSTM", "ConvLSTMParams", "ConvLSTMState"]


class ConvLSTMParams(NamedTuple):
    """Parameters of `ConvLSTM`; what an option leaves out is None."""

    w_x: Array  # [*kernel, C, 4F], blocks i, f, g, o
    w_h: Array  # [*kernel, F, 4F]
    b: Array | None  # [4F]
    w_c: Array | None = None  # [*space, 3F], peepholes of every place, blocks i, f, o


class ConvLSTMState(NamedTuple):
    """State of `ConvLSTM`."""

    h: Array  # [*batch, *space, F]
    c: Array  # [*batch, *space, F]


@dataclass(frozen=True)
class ConvLSTM(Cell):
    """Convolutional long short-term memory in one, two, three or more spatial dimensions.

        i, f, g, o = x * W_x + h * W_h + b
        i, f += c ⊙ w_ci, c ⊙ w_cf              with peephole
        c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
        o += c' ⊙ w_co                          with peephole
        h' = σ(o) ⊙ tanh(c')                    y = h'

    Args:
        input_size: `(*space, C)`, the shape of one example's input, channels last.
        hidden_size: F, channels of the state and of the output `(*space, F)`.
        kernel_size: of both convolutions, an integer for all spatial axes or one each.
        stride: of the input's convolution, an integer or one each; the state then has ⌈space / stride⌉ places.
        peephole: whether the gates see the memory through weights of every place and channel.
        use_bias: whether there is a `b`.

    Raises:
        ValueError: a size is not a positive integer, or there are not as many as there are spatial axes.

    Example:
        >>> import jaxrnn
        >>> cell = ConvLSTM(input_size=(8, 6, 3), hidden_size=4, kernel_size=3)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 8, 6, 3)))
        >>> ys.shape, state.c.shape
        ((5, 2, 8, 6, 4), (2, 8, 6, 4))

    Reference: Shi et al. 2015, "Convolutional LSTM network: a machine learning approach for precipitation nowcasting".
    """

    input_size: tuple[int, ...]
    hidden_size: int
    kernel_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    peephole: bool = False
    use_bias: bool = True

    def __post_init__(self) -> None:
        _check(self)

    @property
    def output_size(self) -> tuple[int, ...]:
        """`(*space, F)`."""
        return _output_size(self)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.glorot_uniform(),
        recurrent_init: Initializer = initializers.orthogonal(),
        bias_init: Initializer = initializers.zeros,
        forget_bias: float = 1.0,
        peephole_init: Initializer = initializers.zeros,
    ) -> ConvLSTMParams:
        """Fresh parameters, gate block by gate block.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each block of `w_x`, as a matrix `[kernel places x C, F]`.
            recurrent_init: of each block of `w_h`, as a matrix `[kernel places x F, F]`.
            bias_init: sees `[4, F]`, a row a gate; of no effect without bias.
            forget_bias: added to the forget gate's bias; of no effect without bias.
            peephole_init: sees `[*space, 3F]`.
        """
        f = self.hidden_size
        kx, kh, kb, kc = jax.random.split(key, 4)
        b = bias_init(kb, (4, f), dtype).at[1].add(forget_bias).reshape(4 * f)
        space = self.output_size[:-1]
        return ConvLSTMParams(
            w_x=_kernel(self, input_init, kx, self.input_size[-1], 4, dtype),
            w_h=_kernel(self, recurrent_init, kh, f, 4, dtype),
            b=b if self.use_bias else None,
            w_c=peephole_init(kc, (*space, 3 * f), dtype) if self.peephole else None,
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> ConvLSTMState:
        """Zeros `[*batch_shape, *space, F]`."""
        shape = (*batch_shape, *self.output_size)
        return ConvLSTMState(h=jnp.zeros(shape, dtype), c=jnp.zeros(shape, dtype))

    def project(self, params: ConvLSTMParams, x: Array) -> tuple[Array, ...]:
        """`x * W_x + b`, as the tuple i, f, g, o."""
        return gates(add_bias(convolve(x, params.w_x, self.stride), params.b), 4)

    def step(
        self, params: ConvLSTMParams, state: ConvLSTMState, drive: tuple[Array, ...]
    ) -> tuple[ConvLSTMState, Array]:
        """One step from `(h, c)` to `(h', c')`."""
        i, f, g, o = add(drive, gates(convolve(state.h, params.w_h), 4))
        if params.w_c is not None:
            w_ci, w_cf, w_co = gates(params.w_c, 3)
            i, f = i + weigh(state.c, w_ci), f + weigh(state.c, w_cf)
        c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        if params.w_c is not None:
            o = o + weigh(c, w_co)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return ConvLSTMState(h, c), h


class ConvGRUParams(NamedTuple):
    """Parameters of `ConvGRU`."""

    w_x: Array  # [*kernel, C, 3F], blocks r, z, n
    w_h: Array  # [*kernel, F, 2F], blocks r, z
    w_n: Array  # [*kernel, F, F]
    b: Array | None  # [3F]


class ConvGRUState(NamedTuple):
    """State of `ConvGRU`."""

    h: Array  # [*batch, *space, F]


@dataclass(frozen=True)
class ConvGRU(Cell):
    """Convolutional gated recurrent unit in one, two, three or more spatial dimensions; `z` keeps the old state.

        r, z = σ(x * W_x + h * W_h + b)
        n = tanh(x * W_xn + (r ⊙ h) * W_n + b_n)
        h' = (1 - z) ⊙ n + z ⊙ h                y = h'

    Args:
        input_size: `(*space, C)`, the shape of one example's input, channels last.
        hidden_size: F, channels of the state and of the output `(*space, F)`.
        kernel_size: of all convolutions, an integer for all spatial axes or one each.
        stride: of the input's convolution, an integer or one each; the state then has ⌈space / stride⌉ places.
        use_bias: whether there is a `b`.

    Raises:
        ValueError: a size is not a positive integer, or there are not as many as there are spatial axes.

    Example:
        >>> import jaxrnn
        >>> cell = ConvGRU(input_size=(8, 3), hidden_size=4, kernel_size=3)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 8, 3)))
        >>> ys.shape, state.h.shape
        ((5, 2, 8, 4), (2, 8, 4))

    Reference: Ballas, Yao, Pal & Courville 2016, "Delving deeper into convolutional networks for learning video
    representations", whose `z` lets the new state in.
    """

    input_size: tuple[int, ...]
    hidden_size: int
    kernel_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    use_bias: bool = True

    def __post_init__(self) -> None:
        _check(self)

    @property
    def output_size(self) -> tuple[int, ...]:
        """`(*space, F)`."""
        return _output_size(self)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.glorot_uniform(),
        recurrent_init: Initializer = initializers.orthogonal(),
        bias_init: Initializer = initializers.zeros,
    ) -> ConvGRUParams:
        """Fresh parameters, gate block by gate block.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each block of `w_x`, as a matrix `[kernel places x C, F]`.
            recurrent_init: of `w_n` and of each block of `w_h`, as a matrix `[kernel places x F, F]`.
            bias_init: sees `[3, F]`, a row a gate; of no effect without bias.
        """
        f = self.hidden_size
        kx, kh, kn, kb = jax.random.split(key, 4)
        return ConvGRUParams(
            w_x=_kernel(self, input_init, kx, self.input_size[-1], 3, dtype),
            w_h=_kernel(self, recurrent_init, kh, f, 2, dtype),
            w_n=_kernel(self, recurrent_init, kn, f, 1, dtype),
            b=bias_init(kb, (3, f), dtype).reshape(3 * f) if self.use_bias else None,
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> ConvGRUState:
        """Zeros `[*batch_shape, *space, F]`."""
        return ConvGRUState(h=jnp.zeros((*batch_shape, *self.output_size), dtype))

    def project(self, params: ConvGRUParams, x: Array) -> tuple[Array, ...]:
        """`x * W_x + b`, as the tuple r, z, n."""
        return gates(add_bias(convolve(x, params.w_x, self.stride), params.b), 3)

    def step(self, params: ConvGRUParams, state: ConvGRUState, drive: tuple[Array, ...]) -> tuple[ConvGRUState, Array]:
        """One step from `h` to `h'`."""
        *x_rz, x_n = drive
        r, z = (jax.nn.sigmoid(g) for g in add(tuple(x_rz), gates(convolve(state.h, params.w_h), 2)))
        n = jnp.tanh(x_n + convolve(r * state.h, params.w_n))
        h = (1 - z) * n + z * state.h
        return ConvGRUState(h), h


def convolve(x: Array, w: Array, stride: int | tuple[int, ...] = 1) -> Array:
    """`x * w`, of kept size, in the dtype of the kernel: `[..., *space, C]` by `[*kernel, C, F]`.

    As everywhere in this field it is a correlation, the kernel not turned; places outside of `x` are zero.
    """
    x, strides = x.astype(w.dtype), _each(stride, w.ndim - 2)
    # Of XLA's CPU compiler the derivatives of a convolution take twenty to thirty times as long as those of a product.
    return _by_windows(x, w, strides) if jax.default_backend() == "cpu" else _by_convolution(x, w, strides)


def _by_convolution(x: Array, w: Array, strides: tuple[int, ...]) -> Array:
    axes = len(strides)
    leading = x.shape[: x.ndim - axes - 1]
    images = x.reshape(math.prod(leading), *x.shape[len(leading) :])
    # Where batch and channels, output and input channels stand, and then the spatial axes.
    last = (0, axes + 1, *range(1, axes + 1))
    layout = lax.ConvDimensionNumbers(last, (axes + 1, axes, *range(axes)), last)
    y = lax.conv_general_dilated(images, w, strides, "SAME", dimension_numbers=layout)
    return y.reshape(*leading, *y.shape[1:])


def _by_windows(x: Array, w: Array, strides: tuple[int, ...]) -> Array:
    """One product: the kernel as a matrix, with what it sees from every place side by side."""
    *kernel, _, features = w.shape
    space = x.shape[x.ndim - len(strides) - 1 : -1]
    pads = [(0, 0)] * (x.ndim - len(strides) - 1) + lax.padtype_to_pads(space, kernel, strides, "SAME") + [(0, 0)]
    x = jnp.pad(x, pads)
    spans = [(-(-n // s) - 1) * s + 1 for n, s in zip(space, strides, strict=True)]
    windows = [
        x[(..., *(slice(o, o + n, s) for o, n, s in zip(offset, spans, strides, strict=True)), slice(None))]
        for offset in itertools.product(*map(range, kernel))
    ]
    return jnp.concatenate(windows, axis=-1) @ w.reshape(-1, features)


def _each(size: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    return size if isinstance(size, tuple) else (size,) * axes


def _kernel(
    cell: ConvLSTM | ConvGRU, initializer: Initializer, key: Key, channels: int, n: int, dtype: DTypeLike
) -> Array:
    kernel, f = _each(cell.kernel_size, len(cell.input_size) - 1), cell.hidden_size
    matrix = initializers.blocks(initializer, key, (math.prod(kernel) * channels, f), n, dtype)
    return matrix.reshape(*kernel, channels, n * f)


def _output_size(cell: ConvLSTM | ConvGRU) -> tuple[int, ...]:
    *space, _ = cell.input_size
    return *(-(-n // s) for n, s in zip(space, _each(cell.stride, len(space)), strict=True)), cell.hidden_size


def _check(cell: ConvLSTM | ConvGRU) -> None:
    """Raise unless the sizes fit together; lists of sizes become tuples."""
    if not isinstance(cell.input_size, Sequence) or len(cell.input_size) < 2:
        raise ValueError(f"input_size: got {cell.input_size!r}, needs (*space, channels)")
    axes = len(cell.input_size) - 1
    for name in ("input_size", "kernel_size", "stride"):
        size = getattr(cell, name)
        if isinstance(size, Sequence):
            object.__setattr__(cell, name, tuple(size))
            if len(size) != axes + (name == "input_size"):
                raise ValueError(f"{name}: got {size!r}, needs an integer, or one for each of {axes} spatial axes")
        for one in size if isinstance(size, Sequence) else (size,):
            check_sizes(**{name: one})
    check_sizes(hidden_size=cell.hidden_size)
