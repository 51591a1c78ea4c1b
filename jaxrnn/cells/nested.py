"""Nested LSTM (Moniz & Krueger 2017)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.cells.lstm import LSTM
from jaxrnn.checks import check_activations, check_initializers, check_sizes
from jaxrnn.ops import add, affine, dot, gates
from jaxrnn.typing import Activation, Array, DTypeLike, Initializer, Key, Params, State

__all__ = ["NestedLSTM", "NestedLSTMParams", "NestedLSTMState"]


class NestedLSTMParams(NamedTuple):
    """Parameters of `NestedLSTM`."""

    w_x: Array  # [I, 4H], blocks i, f, g, o
    w_h: Array  # [H, 4H]
    b: Array  # [4H]
    inner: Params  # LSTMParams for H inputs, or NestedLSTMParams if depth > 2


class NestedLSTMState(NamedTuple):
    """State of `NestedLSTM`; the memory c is `inner.h`."""

    h: Array  # [*batch, H]
    inner: State  # LSTMState, or NestedLSTMState if depth > 2


@dataclass(frozen=True)
class NestedLSTM(Cell[NestedLSTMParams, NestedLSTMState]):
    """Nested LSTM: an inner LSTM replaces `c' = f ⊙ c + i ⊙ g`.

        i = σ(x W_xi + h W_hi + b_i)    f = σ(x W_xf + h W_hf + b_f)    o = σ(x W_xo + h W_ho + b_o)
        g = φ(x W_xg + h W_hg + b_g)
        c', inner' = the inner LSTM, from the input i ⊙ g and the hidden state f ⊙ c
        h' = o ⊙ tanh(c')                                               y = h'

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, memory cells of each LSTM.
        depth: number of LSTMs inside one another, at least 2.
        candidate_activation: φ of the outermost LSTM, by default the identity as in the paper; further in it is tanh.

    Params:
        w_x: `[I, 4H]`, blocks i, f, g, o.
        w_h: `[H, 4H]`.
        b: `[4H]`.
        inner: LSTMParams for H inputs, or NestedLSTMParams if depth > 2.

    Raises:
        TypeError: an activation is not a function.
        ValueError: a size is not a positive integer, or `depth` is less than 2.

    Example:
        >>> cell = NestedLSTM(input_size=3, hidden_size=4)
        >>> params = cell.init(jax.random.key(0))
        >>> state, y = cell(params, cell.initial_state((2,)), jnp.ones((2, 3)))
        >>> y.shape, state.inner.c.shape
        ((2, 4), (2, 4))

    Reference: Moniz & Krueger 2017, "Nested LSTMs".
    """

    input_size: int
    hidden_size: int
    depth: int = 2
    candidate_activation: Activation = jax.nn.identity

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size, depth=self.depth)
        check_activations(candidate_activation=self.candidate_activation)
        if self.depth < 2:
            raise ValueError(f"depth: got {self.depth}, needs 2 or more; for depth 1 use LSTM")

    @property
    def inner(self) -> Any:
        """The LSTM whose output is the memory: an `LSTM`, or a `NestedLSTM` if depth > 2."""
        h = self.hidden_size
        return LSTM(h, h) if self.depth == 2 else NestedLSTM(h, h, self.depth - 1, jnp.tanh)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.orthogonal(),
        bias_init: Initializer = initializers.zeros,
        forget_bias: float = 1.0,
    ) -> NestedLSTMParams:
        """Returns fresh parameters, initialized gate by gate, with the same initializers for every LSTM.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each block of `w_x`, `[I, H]`, and `[H, H]` further in; by default `lecun_normal`.
            recurrent_init: of each `[H, H]` block of `w_h`; by default `orthogonal`.
            bias_init: of each `b`; sees `[4, H]`, one row per gate; by default zeros.
            forget_bias: added to the bias of every f.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init, bias_init=bias_init)
        i, h = self.input_size, self.hidden_size
        kx, kh, kb, ki = jax.random.split(key, 4)
        return NestedLSTMParams(
            w_x=initializers.blocks(kx, input_init, (i, h), 4, dtype),
            w_h=initializers.blocks(kh, recurrent_init, (h, h), 4, dtype),
            b=bias_init(kb, (4, h), dtype).at[1].add(forget_bias).reshape(4 * h),
            inner=self.inner.init(
                ki,
                dtype=dtype,
                input_init=input_init,
                recurrent_init=recurrent_init,
                bias_init=bias_init,
                forget_bias=forget_bias,
            ),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> NestedLSTMState:
        """Returns zeros: `h` and every memory `[*batch_shape, H]`."""
        return NestedLSTMState(
            h=jnp.zeros((*batch_shape, self.hidden_size), dtype),
            inner=self.inner.initial_state(batch_shape, dtype),
        )

    def project(self, params: NestedLSTMParams, x: Array) -> tuple[Array, ...]:
        """Returns `x W_x + b` as the tuple i, f, g, o."""
        return gates(affine(x, params.w_x, params.b), 4)

    def step(
        self, params: NestedLSTMParams, state: NestedLSTMState, drive: tuple[Array, ...]
    ) -> tuple[NestedLSTMState, Array]:
        """Takes one step from `(h, inner)` to `(h', inner')`."""
        i, f, g, o = add(drive, gates(dot(state.h, params.w_h), 4))
        drive = self.inner.project(params.inner, sigmoid(i) * self.candidate_activation(g))
        before = state.inner._replace(h=sigmoid(f) * state.inner.h)
        inner, c = self.inner.step(params.inner, before, drive)
        h = sigmoid(o) * jnp.tanh(c)
        return NestedLSTMState(h, inner), h
