"""HyperLSTM, an LSTM scaled by a smaller LSTM (Ha, Dai & Le 2017)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_initializers, check_sizes
from jaxrnn.ops import add, add_bias, blockwise, dot, gates
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["HyperLSTM", "HyperLSTMParams", "HyperLSTMState"]


class HyperLSTMParams(NamedTuple):
    """Parameters of `HyperLSTM`."""

    w_x: Array  # [I, 4H + 4Ĥ], blocks i, f, g, o of the large LSTM, then of the small one
    w_h: Array  # [H, 4H + 4Ĥ]
    w_s: Array  # [Ĥ, 4Ĥ], the small one's own recurrence
    b: Array  # [4H]
    b_s: Array  # [4Ĥ]
    w_z: Array  # [Ĥ, 12E], blocks i, f, g, o of z_x, of z_h and of z_b
    b_z: Array  # [8E], of z_x and z_h
    d: Array  # [12, E, H], D_x, D_h and D_b, a matrix each for i, f, g, o


class HyperLSTMState(NamedTuple):
    """State of `HyperLSTM`; `h_s` and `c_s` belong to the small LSTM."""

    h: Array  # [*batch, H]
    c: Array  # [*batch, H]
    h_s: Array  # [*batch, Ĥ]
    c_s: Array  # [*batch, Ĥ]


@dataclass(frozen=True)
class HyperLSTM(Cell[HyperLSTMParams, HyperLSTMState]):
    """LSTM whose gates are scaled at every time step by a small LSTM.

        ĥ', ĉ' = LSTM of [x, h] from ĥ, ĉ                                Ĥ units
        z_x, z_h, z_b = ĥ' W_z + b_z                                     E numbers each per gate, no bias for z_b
        i, f, g, o = (z_x D_x) ⊙ x W_x + (z_h D_h) ⊙ h W_h + z_b D_b + b
        c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
        h' = σ(o) ⊙ tanh(c')                                             y = h'

    As in the authors' code the scales come from the small LSTM's new state. The layer norm of their experiments is left
    out.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, memory cells.
        hyper_size: Ĥ, memory cells of the small LSTM.
        embedding_size: E, length of each z.

    Params:
        w_x: `[I, 4H + 4Ĥ]`, blocks i, f, g, o of the large LSTM, then of the small one.
        w_h: `[H, 4H + 4Ĥ]`.
        w_s: `[Ĥ, 4Ĥ]`, the small one's own recurrence.
        b: `[4H]`.
        b_s: `[4Ĥ]`.
        w_z: `[Ĥ, 12E]`, blocks i, f, g, o of z_x, of z_h and of z_b.
        b_z: `[8E]`, of z_x and z_h.
        d: `[12, E, H]`, D_x, D_h and D_b, a matrix each for i, f, g, o.

    Raises:
        ValueError: a size is not a positive integer.

    Example:
        >>> cell = HyperLSTM(input_size=3, hidden_size=8, hyper_size=4, embedding_size=2)
        >>> params = cell.init(jax.random.key(0))
        >>> state, y = jax.jit(cell)(params, cell.initial_state((2,)), jnp.ones((2, 3)))
        >>> y.shape, state.h_s.shape
        ((2, 8), (2, 4))

    Reference: Ha, Dai & Le 2017, "HyperNetworks"; initialization and timing: the authors' code.
    """

    input_size: int
    hidden_size: int
    hyper_size: int
    embedding_size: int = 4

    def __post_init__(self) -> None:
        check_sizes(
            input_size=self.input_size,
            hidden_size=self.hidden_size,
            hyper_size=self.hyper_size,
            embedding_size=self.embedding_size,
        )

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.orthogonal(),
        forget_bias: float = 1.0,
        scale: float = 0.1,
    ) -> HyperLSTMParams:
        """Returns fresh parameters; at first the small LSTM scales all gates alike and shifts none.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each block of `w_x`, and of the small LSTM's blocks of `w_h`; by default `lecun_normal`.
            recurrent_init: of the large LSTM's blocks of `w_h`, and of each block of `w_s`; by default `orthogonal`.
            forget_bias: the bias of both f; the bias of z_x and z_h is one, all others are zero.
            scale: the first scale of `x W_x` and `h W_h`, like the γ of recurrent batch normalization.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init)
        i, h, s, e = self.input_size, self.hidden_size, self.hyper_size, self.embedding_size
        kx, kx_s, kh, kh_s, ks, kz = jax.random.split(key, 6)

        def fused(init: Initializer, inputs: int, large: Key, small: Key) -> Array:
            blocks = initializers.blocks
            return jnp.concatenate(
                [blocks(large, init, (inputs, h), 4, dtype), blocks(small, input_init, (inputs, s), 4, dtype)], axis=1
            )

        def bias(units: int) -> Array:
            return jnp.zeros((4, units), dtype).at[1].set(forget_bias).reshape(4 * units)

        of_b = 0.01 * jax.random.normal(kz, (s, 4 * e), dtype)
        return HyperLSTMParams(
            w_x=fused(input_init, i, kx, kx_s),
            w_h=fused(recurrent_init, h, kh, kh_s),
            w_s=initializers.blocks(ks, recurrent_init, (s, s), 4, dtype),
            b=bias(h),
            b_s=bias(s),
            w_z=jnp.concatenate([jnp.zeros((s, 8 * e), dtype), of_b], axis=1),
            b_z=jnp.ones(8 * e, dtype),
            d=jnp.concatenate([jnp.full((8, e, h), scale / e, dtype), jnp.zeros((4, e, h), dtype)]),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> HyperLSTMState:
        """Returns zeros: `h` and `c` `[*batch_shape, H]`, `h_s` and `c_s` `[*batch_shape, Ĥ]`."""
        h, s = (*batch_shape, self.hidden_size), (*batch_shape, self.hyper_size)
        return HyperLSTMState(*(jnp.zeros(shape, dtype) for shape in (h, h, s, s)))

    def project(self, params: HyperLSTMParams, x: Array) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Returns `x W_x` as the tuples i, f, g, o of the large LSTM and, with its bias, of the small one."""
        large, small = self._both(jnp.matmul(x, params.w_x))
        return large, tuple(add_bias(z, b) for z, b in zip(small, gates(params.b_s, 4), strict=True))

    def step(
        self,
        params: HyperLSTMParams,
        state: HyperLSTMState,
        drive: tuple[tuple[Array, ...], tuple[Array, ...]],
    ) -> tuple[HyperLSTMState, Array]:
        """Takes one step of the small LSTM, then one of the large LSTM with its output."""
        x_large, x_small = drive
        h_large, h_small = self._both(dot(state.h, params.w_h))
        own = gates(dot(state.h_s, params.w_s), 4)
        h_s, c_s = _lstm(add(add(x_small, h_small), own), state.c_s)
        z_xh, z_b = jnp.split(dot(h_s, params.w_z), [8 * self.embedding_size], axis=-1)
        z = jnp.concatenate([add_bias(z_xh, params.b_z), z_b], axis=-1)
        scaled = blockwise(gates(z, 12), params.d)
        d_x, d_h, d_b = scaled[:4], scaled[4:8], scaled[8:]
        b = gates(params.b, 4)
        mixed = (d_x[k] * x_large[k] + d_h[k] * h_large[k] + add_bias(d_b[k], b[k]) for k in range(4))
        h, c = _lstm(tuple(mixed), state.c)
        return HyperLSTMState(h, c, h_s, c_s), h

    def _both(self, z: Array) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Returns the gates of the large LSTM and of the small one."""
        large, small = jnp.split(z, [4 * self.hidden_size], axis=-1)
        return gates(large, 4), gates(small, 4)


def _lstm(z: tuple[Array, ...], c: Array) -> tuple[Array, Array]:
    """Returns `(h', c')` from the gates i, f, g, o before their activations."""
    i, f, g, o = z
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c
