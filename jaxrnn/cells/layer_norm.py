"""Layer-normalized LSTM and GRU (Ba, Kiros & Hinton 2016)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_bools, check_initializers, check_positive, check_sizes
from jaxrnn.ops import add, add_bias, dot, gates, weigh
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = [
    "LayerNormGRU",
    "LayerNormGRUParams",
    "LayerNormGRUState",
    "LayerNormLSTM",
    "LayerNormLSTMParams",
    "LayerNormLSTMState",
]


class LayerNormLSTMParams(NamedTuple):
    """Parameters of `LayerNormLSTM`; without a norm on the memory `s_c` and `b_c` are None."""

    w_x: Array  # [I, 4H], blocks i, f, g, o
    w_h: Array  # [H, 4H]
    b: Array  # [4H]
    s_x: Array  # [4H]
    s_h: Array  # [4H]
    s_c: Array | None  # [H]
    b_c: Array | None  # [H]


class LayerNormLSTMState(NamedTuple):
    """State of `LayerNormLSTM`; `c` is the memory before its norm."""

    h: Array  # [*batch, H]
    c: Array  # [*batch, H]


@dataclass(frozen=True)
class LayerNormLSTM(Cell[LayerNormLSTMParams, LayerNormLSTMState]):
    """Layer-normalized long short-term memory.

        i, f, g, o = LN(x W_x; s_x) + LN(h W_h; s_h) + b
        c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
        h' = σ(o) ⊙ tanh(LN(c'; s_c) + b_c)              y = h'

    with LN(z; s) = (z - mean z) / sqrt(var z + ε) ⊙ s over the units of one example at one time step.

    The defaults are the paper's: one mean and variance for all four gates together, and a norm on the memory. The other
    convention in use is `per_gate=True, normalize_memory=False`: each gate has its own mean and variance, and the
    memory no norm. The paper gives each norm a bias, and the LSTM one more; only their sum matters, which is `b`.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, memory cells.
        per_gate: whether each gate's H units are normalized separately, or all 4H together.
        normalize_memory: whether `h'` sees `c'` normalized.
        epsilon: ε, added to the variance.

    Params:
        w_x: `[I, 4H]`, blocks i, f, g, o.
        w_h: `[H, 4H]`.
        b: `[4H]`.
        s_x: `[4H]`.
        s_h: `[4H]`.
        s_c: `[H]`, or None.
        b_c: `[H]`, or None.

    Raises:
        TypeError: a flag is not a bool.
        ValueError: a size is not a positive integer, or ε is not positive.

    Example:
        >>> import jaxrnn
        >>> cell = LayerNormLSTM(input_size=3, hidden_size=4)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.c.shape
        ((5, 2, 4), (2, 4))

    Reference: Ba, Kiros & Hinton 2016, "Layer normalization", equations 20 to 22 of the appendix.
    """

    input_size: int
    hidden_size: int
    per_gate: bool = False
    normalize_memory: bool = True
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_positive(epsilon=self.epsilon)
        check_bools(per_gate=self.per_gate, normalize_memory=self.normalize_memory)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.orthogonal(),
        forget_bias: float = 0.0,
    ) -> LayerNormLSTMParams:
        """Returns fresh parameters; scales are one and biases zero, as in the authors' code.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`; by default `lecun_normal`.
            recurrent_init: of each `[H, H]` block of `w_h`; by default `orthogonal`.
            forget_bias: the bias of f.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init)
        i, h = self.input_size, self.hidden_size
        kx, kh = jax.random.split(key)
        return LayerNormLSTMParams(
            w_x=initializers.blocks(kx, input_init, (i, h), 4, dtype),
            w_h=initializers.blocks(kh, recurrent_init, (h, h), 4, dtype),
            b=jnp.zeros((4, h), dtype).at[1].set(forget_bias).reshape(4 * h),
            s_x=jnp.ones(4 * h, dtype),
            s_h=jnp.ones(4 * h, dtype),
            s_c=jnp.ones(h, dtype) if self.normalize_memory else None,
            b_c=jnp.zeros(h, dtype) if self.normalize_memory else None,
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> LayerNormLSTMState:
        """Returns zeros, `h` and `c` `[*batch_shape, H]`."""
        shape = (*batch_shape, self.hidden_size)
        return LayerNormLSTMState(h=jnp.zeros(shape, dtype), c=jnp.zeros(shape, dtype))

    def project(self, params: LayerNormLSTMParams, x: Array) -> tuple[Array, ...]:
        """Returns `LN(x W_x; s_x) + b`, as the tuple i, f, g, o."""
        return gates(add_bias(self._norm(jnp.matmul(x, params.w_x), params.s_x), params.b), 4)

    def step(
        self, params: LayerNormLSTMParams, state: LayerNormLSTMState, drive: tuple[Array, ...]
    ) -> tuple[LayerNormLSTMState, Array]:
        """Takes one step from `(h, c)` to `(h', c')`."""
        i, f, g, o = add(drive, gates(self._norm(dot(state.h, params.w_h), params.s_h), 4))
        c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        seen = c if params.s_c is None else add_bias(layer_norm(c, params.s_c, self.epsilon), params.b_c)
        h = jax.nn.sigmoid(o) * jnp.tanh(seen)
        return LayerNormLSTMState(h, c), h

    def _norm(self, z: Array, scale: Array) -> Array:
        return layer_norm(z, scale, self.epsilon, 4 if self.per_gate else 1)


class LayerNormGRUParams(NamedTuple):
    """Parameters of `LayerNormGRU`."""

    w_x: Array  # [I, 3H], blocks r, z, n
    w_h: Array  # [H, 3H]
    b: Array  # [3H]
    b_n: Array  # [H], on the recurrent side of the candidate
    s_x: Array  # [3H]
    s_h: Array  # [3H]


class LayerNormGRUState(NamedTuple):
    """State of `LayerNormGRU`."""

    h: Array  # [*batch, H]


@dataclass(frozen=True)
class LayerNormGRU(Cell[LayerNormGRUParams, LayerNormGRUState]):
    """Layer-normalized gated recurrent unit; `z` keeps the old state.

        r, z = σ(LN(x W_x; s_x) + LN(h W_h; s_h) + b)                  r and z together
        n = tanh(LN(x W_xn; s_xn) + b_xn + r ⊙ (LN(h W_hn; s_hn) + b_n))
        h' = (1 - z) ⊙ n + z ⊙ h                                      y = h'

    with LN as in `LayerNormLSTM`. The reset gate acts after the product. In the paper an open `z` takes the new state;
    here, as in the authors' code, it keeps the old one.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units.
        per_gate: whether r and z are normalized separately, or together as in the paper; n is always separate.
        epsilon: ε, added to the variance.

    Params:
        w_x: `[I, 3H]`, blocks r, z, n.
        w_h: `[H, 3H]`.
        b: `[3H]`.
        b_n: `[H]`, on the recurrent side of the candidate.
        s_x: `[3H]`.
        s_h: `[3H]`.

    Raises:
        TypeError: `per_gate` is not a bool.
        ValueError: a size is not a positive integer, or ε is not positive.

    Example:
        >>> import jaxrnn
        >>> cell = LayerNormGRU(input_size=3, hidden_size=4)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.h.shape
        ((5, 2, 4), (2, 4))

    Reference: Ba, Kiros & Hinton 2016, "Layer normalization", appendix.
    """

    input_size: int
    hidden_size: int
    per_gate: bool = False
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_positive(epsilon=self.epsilon)
        check_bools(per_gate=self.per_gate)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.orthogonal(),
    ) -> LayerNormGRUParams:
        """Returns fresh parameters; scales are one and biases zero, as in the authors' code.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`; by default `lecun_normal`.
            recurrent_init: of each `[H, H]` block of `w_h`; by default `orthogonal`.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init)
        i, h = self.input_size, self.hidden_size
        kx, kh = jax.random.split(key)
        return LayerNormGRUParams(
            w_x=initializers.blocks(kx, input_init, (i, h), 3, dtype),
            w_h=initializers.blocks(kh, recurrent_init, (h, h), 3, dtype),
            b=jnp.zeros(3 * h, dtype),
            b_n=jnp.zeros(h, dtype),
            s_x=jnp.ones(3 * h, dtype),
            s_h=jnp.ones(3 * h, dtype),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> LayerNormGRUState:
        """Returns zeros `[*batch_shape, H]`."""
        return LayerNormGRUState(h=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: LayerNormGRUParams, x: Array) -> tuple[Array, ...]:
        """Returns `LN(x W_x; s_x) + b`, as the tuple r, z, n."""
        normal = self._norm(jnp.matmul(x, params.w_x), params.s_x)
        return tuple(add_bias(z, b) for z, b in zip(normal, gates(params.b, 3), strict=True))

    def step(
        self, params: LayerNormGRUParams, state: LayerNormGRUState, drive: tuple[Array, ...]
    ) -> tuple[LayerNormGRUState, Array]:
        """Takes one step from `h` to `h'`."""
        x_r, x_z, x_n = drive
        h_r, h_z, h_n = self._norm(dot(state.h, params.w_h), params.s_h)
        r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
        n = jnp.tanh(x_n + r * add_bias(h_n, params.b_n))
        h = (1 - z) * n + z * state.h
        return LayerNormGRUState(h), h

    def _norm(self, z: Array, scale: Array) -> tuple[Array, ...]:
        """Returns the norm of r and z and the norm of n, as the tuple r, z, n."""
        both = 2 * self.hidden_size
        r_z = layer_norm(z[..., :both], scale[:both], self.epsilon, 2 if self.per_gate else 1)
        return *gates(r_z, 2), layer_norm(z[..., both:], scale[both:], self.epsilon)


def layer_norm(z: Array, scale: Array, epsilon: float, blocks: int = 1) -> Array:
    """Returns `LN(z; scale)` of each of `blocks` equal blocks of the last axis, with statistics in float32 or wider."""
    wide = z.reshape(*z.shape[:-1], blocks, z.shape[-1] // blocks).astype(np.promote_types(z.dtype, np.float32))
    centered = wide - jnp.mean(wide, axis=-1, keepdims=True)
    normal = centered * jax.lax.rsqrt(jnp.mean(centered * centered, axis=-1, keepdims=True) + epsilon)
    return weigh(normal.reshape(z.shape).astype(z.dtype), scale)
