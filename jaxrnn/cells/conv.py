"""Convolutional LSTM (Shi et al. 2015) and GRU (Ballas et al. 2016), over any number of spatial axes."""

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
from jaxrnn.checks import check_bools, check_initializers, check_sizes
from jaxrnn.ops import add, add_bias, gates, weigh
from jaxrnn.typing import Array, DTypeLike, Initializer, Key, P, S

__all__ = ["ConvGRU", "ConvGRUParams", "ConvGRUState", "ConvLSTM", "ConvLSTMParams", "ConvLSTMState"]


@dataclass(frozen=True)
class Conv(Cell[P, S]):
    """Base class for cells whose products are convolutions: sizes, and kernels gate by gate.

    Raises:
        ValueError: a size is not a positive integer, or there are not as many as there are spatial axes.
    """

    input_size: tuple[int, ...]
    hidden_size: int
    kernel_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] = 1

    def __post_init__(self) -> None:
        if not isinstance(self.input_size, Sequence) or len(self.input_size) < 2:
            raise ValueError(f"input_size: got {self.input_size!r}, needs (*space, channels)")
        check_sizes(hidden_size=self.hidden_size)
        axes = len(self.input_size) - 1
        for name, length in (("input_size", axes + 1), ("kernel_size", axes), ("stride", axes)):
            size = getattr(self, name)
            if not isinstance(size, Sequence):
                check_sizes(**{name: size})
                continue
            # A list becomes a tuple, so that the cell hashes.
            object.__setattr__(self, name, tuple(size))
            if len(size) != length:
                raise ValueError(f"{name}: got {size!r}, needs an integer, or one for each of {axes} spatial axes")
            for one in size:
                check_sizes(**{name: one})

    @property
    def output_size(self) -> tuple[int, ...]:
        """`(*space, F)`."""
        *space, _ = self.input_size
        strides = _each(self.stride, len(space))
        return *(-(-n // stride) for n, stride in zip(space, strides, strict=True)), self.hidden_size

    def _kernel(self, initializer: Initializer, key: Key, channels: int, n: int, dtype: DTypeLike) -> Array:
        """Returns the kernels of `n` gates side by side, `[*kernel, channels, nF]`, each drawn as a matrix."""
        kernel, f = _each(self.kernel_size, len(self.input_size) - 1), self.hidden_size
        matrix = initializers.blocks(key, initializer, (math.prod(kernel) * channels, f), n, dtype)
        return matrix.reshape(*kernel, channels, n * f)


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
class ConvLSTM(Conv[ConvLSTMParams, ConvLSTMState]):
    """Convolutional long short-term memory in one, two, three or more spatial dimensions.

        i, f, g, o = x * W_x + h * W_h + b      convolutions that keep the size, channels last
        i, f += c ⊙ w_ci, c ⊙ w_cf              with peephole
        c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
        o += c' ⊙ w_co                          with peephole
        h' = σ(o) ⊙ tanh(c')                    y = h'

    Args:
        input_size: `(*space, C)`, the shape of one example's input, channels last.
        hidden_size: F, channels of the state and of the output `(*space, F)`.
        kernel_size: of both convolutions, one integer for all spatial axes or one for each.
        stride: of the input's convolution, one integer or one for each axis; the state has ⌈space / stride⌉ places.
        peephole: whether the gates see the memory, through a weight for every place and channel.
        use_bias: whether there is a `b`.

    Params:
        w_x: `[*kernel, C, 4F]`, blocks i, f, g, o.
        w_h: `[*kernel, F, 4F]`.
        b: `[4F]`, or None.
        w_c: `[*space, 3F]`, peepholes of every place, blocks i, f, o, or None.

    Raises:
        TypeError: a flag is not a bool.
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

    peephole: bool = False
    use_bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bools(peephole=self.peephole, use_bias=self.use_bias)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.orthogonal(),
        bias_init: Initializer = initializers.zeros,
        forget_bias: float = 1.0,
        peephole_init: Initializer = initializers.zeros,
    ) -> ConvLSTMParams:
        """Returns fresh parameters, initialized gate by gate.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each block of `w_x`, as a matrix `[kernel places x C, F]`; by default `lecun_normal`.
            recurrent_init: of each block of `w_h`, as a matrix `[kernel places x F, F]`; by default `orthogonal`.
            bias_init: of `b`; sees `[4, F]`, one row per gate; by default zeros. Ignored without bias.
            forget_bias: added to the bias of f. Ignored without bias.
            peephole_init: of `w_c`; sees `[*space, 3F]`; by default zeros.
        """
        check_initializers(
            input_init=input_init, recurrent_init=recurrent_init, bias_init=bias_init, peephole_init=peephole_init
        )
        (*space, f), channels = self.output_size, self.input_size[-1]
        kx, kh, kb, kc = jax.random.split(key, 4)
        b = bias_init(kb, (4, f), dtype).at[1].add(forget_bias).reshape(4 * f)
        return ConvLSTMParams(
            w_x=self._kernel(input_init, kx, channels, 4, dtype),
            w_h=self._kernel(recurrent_init, kh, f, 4, dtype),
            b=b if self.use_bias else None,
            w_c=peephole_init(kc, (*space, 3 * f), dtype) if self.peephole else None,
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> ConvLSTMState:
        """Returns zeros, `h` and `c` `[*batch_shape, *space, F]`."""
        shape = (*batch_shape, *self.output_size)
        return ConvLSTMState(h=jnp.zeros(shape, dtype), c=jnp.zeros(shape, dtype))

    def project(self, params: ConvLSTMParams, x: Array) -> tuple[Array, ...]:
        """Returns `x * W_x + b` as the tuple i, f, g, o."""
        return gates(add_bias(convolve(x, params.w_x, self.stride), params.b), 4)

    def step(
        self, params: ConvLSTMParams, state: ConvLSTMState, drive: tuple[Array, ...]
    ) -> tuple[ConvLSTMState, Array]:
        """Takes one step from `(h, c)` to `(h', c')`."""
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
    """Parameters of `ConvGRU`; `b` is None without bias."""

    w_x: Array  # [*kernel, C, 3F], blocks r, z, n
    w_h: Array  # [*kernel, F, 2F], blocks r, z
    w_n: Array  # [*kernel, F, F]
    b: Array | None  # [3F]


class ConvGRUState(NamedTuple):
    """State of `ConvGRU`."""

    h: Array  # [*batch, *space, F]


@dataclass(frozen=True)
class ConvGRU(Conv[ConvGRUParams, ConvGRUState]):
    """Convolutional gated recurrent unit in one, two, three or more spatial dimensions; `z` keeps the old state.

        r, z = σ(x * W_x + h * W_h + b)         convolutions that keep the size, channels last
        n = tanh(x * W_xn + (r ⊙ h) * W_n + b_n)
        h' = (1 - z) ⊙ n + z ⊙ h                y = h'

    Args:
        input_size: `(*space, C)`, the shape of one example's input, channels last.
        hidden_size: F, channels of the state and of the output `(*space, F)`.
        kernel_size: of all convolutions, one integer for all spatial axes or one for each.
        stride: of the input's convolution, one integer or one for each axis; the state has ⌈space / stride⌉ places.
        use_bias: whether there is a `b`.

    Params:
        w_x: `[*kernel, C, 3F]`, blocks r, z, n.
        w_h: `[*kernel, F, 2F]`, blocks r, z.
        w_n: `[*kernel, F, F]`.
        b: `[3F]`, or None.

    Raises:
        TypeError: `use_bias` is not a bool.
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

    use_bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bools(use_bias=self.use_bias)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.orthogonal(),
        bias_init: Initializer = initializers.zeros,
    ) -> ConvGRUParams:
        """Returns fresh parameters, initialized gate by gate.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each block of `w_x`, as a matrix `[kernel places x C, F]`; by default `lecun_normal`.
            recurrent_init: of `w_n` and of each block of `w_h`, as a matrix `[kernel places x F, F]`; by default
                `orthogonal`.
            bias_init: of `b`; sees `[3, F]`, one row per gate; by default zeros. Ignored without bias.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init, bias_init=bias_init)
        f, channels = self.hidden_size, self.input_size[-1]
        kx, kh, kn, kb = jax.random.split(key, 4)
        return ConvGRUParams(
            w_x=self._kernel(input_init, kx, channels, 3, dtype),
            w_h=self._kernel(recurrent_init, kh, f, 2, dtype),
            w_n=self._kernel(recurrent_init, kn, f, 1, dtype),
            b=bias_init(kb, (3, f), dtype).reshape(3 * f) if self.use_bias else None,
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> ConvGRUState:
        """Returns zeros `[*batch_shape, *space, F]`."""
        return ConvGRUState(h=jnp.zeros((*batch_shape, *self.output_size), dtype))

    def project(self, params: ConvGRUParams, x: Array) -> tuple[Array, ...]:
        """Returns `x * W_x + b` as the tuple r, z, n."""
        return gates(add_bias(convolve(x, params.w_x, self.stride), params.b), 3)

    def step(self, params: ConvGRUParams, state: ConvGRUState, drive: tuple[Array, ...]) -> tuple[ConvGRUState, Array]:
        """Takes one step from `h` to `h'`."""
        x_r, x_z, x_n = drive
        h_r, h_z = gates(convolve(state.h, params.w_h), 2)
        r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
        n = jnp.tanh(x_n + convolve(r * state.h, params.w_n))
        h = (1 - z) * n + z * state.h
        return ConvGRUState(h), h


def convolve(x: Array, w: Array, stride: int | tuple[int, ...] = 1) -> Array:
    """Returns `x * w` of the same size, in the dtype of the kernel: `[..., *space, C]` by `[*kernel, C, F]`.

    As everywhere in this field it is a correlation: the kernel is not flipped. Places outside of `x` are zero.
    """
    x, strides = x.astype(w.dtype), _each(stride, w.ndim - 2)
    # XLA's CPU compiler takes twenty to thirty times as long for a convolution's derivatives as for a product's.
    return _by_windows(x, w, strides) if jax.default_backend() == "cpu" else _by_convolution(x, w, strides)


def _by_convolution(x: Array, w: Array, strides: tuple[int, ...]) -> Array:
    split = x.ndim - len(strides) - 1
    leading, axes = x.shape[:split], "0123456789"[: len(strides)]
    images = x.reshape(math.prod(leading), *x.shape[split:])
    layout = f"N{axes}C", f"{axes}IO", f"N{axes}C"
    y = lax.conv_general_dilated(images, w, strides, "SAME", dimension_numbers=layout)
    return y.reshape(*leading, *y.shape[1:])


def _by_windows(x: Array, w: Array, strides: tuple[int, ...]) -> Array:
    """Convolves by one product: the kernel as a matrix, with what it sees from every place side by side."""
    *kernel, channels, features = w.shape
    split = x.ndim - len(kernel) - 1
    leading, space = x.shape[:split], x.shape[split:-1]
    pads = lax.padtype_to_pads(space, kernel, strides, "SAME")
    x = jnp.pad(x, [(0, 0)] * split + pads + [(0, 0)])
    spans = [(-(-n // stride) - 1) * stride + 1 for n, stride in zip(space, strides, strict=True)]

    def seen(offset: tuple[int, ...]) -> Array:
        """Returns what one place of the kernel sees: every stride-th place from `offset`."""
        ends = [first + span for first, span in zip(offset, spans, strict=True)]
        return lax.slice(x, (*[0] * split, *offset, 0), (*leading, *ends, channels), (*[1] * split, *strides, 1))

    windows = [seen(offset) for offset in itertools.product(*map(range, kernel))]
    return jnp.concatenate(windows, axis=-1) @ w.reshape(-1, features)


def _each(size: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    return size if isinstance(size, tuple) else (size,) * axes
