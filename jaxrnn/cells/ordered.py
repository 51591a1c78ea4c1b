"""Ordered-neurons LSTM (Shen, Tan, Sordoni & Courville 2019)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_initializers, check_sizes
from jaxrnn.ops import add, affine, dot
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["OrderedLSTM", "OrderedLSTMParams", "OrderedLSTMState"]


class OrderedLSTMParams(NamedTuple):
    """Parameters of `OrderedLSTM`."""

    w_x: Array  # [I, 4H + 2H/chunk], blocks i, f, g, o, p, q
    w_h: Array  # [H, 4H + 2H/chunk]
    b: Array  # [4H + 2H/chunk]


class OrderedLSTMState(NamedTuple):
    """State of `OrderedLSTM`."""

    h: Array  # [*batch, H]
    c: Array  # [*batch, H]


@dataclass(frozen=True)
class OrderedLSTM(Cell[OrderedLSTMParams, OrderedLSTMState]):
    """Ordered-neurons LSTM (ON-LSTM): master gates order the units by how long they keep their memory.

        i, f, g, o, p, q = x W_x + h W_h + b
        p̂ = cumax(p),  q̂ = 1 - cumax(q),  ω = p̂ ⊙ q̂                 each entry serves `chunk` units
        c' = (σ(f) ⊙ ω + p̂ - ω) ⊙ c + (σ(i) ⊙ ω + q̂ - ω) ⊙ tanh(g)
        h' = σ(o) ⊙ tanh(c')                                        y = h'

    with cumax z = cumsum(softmax z).

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, memory cells.
        chunk: units that share a master gate.

    Params:
        w_x: `[I, 4H + 2H/chunk]`, blocks i, f, g, o, p, q.
        w_h: `[H, 4H + 2H/chunk]`.
        b: `[4H + 2H/chunk]`.

    Raises:
        ValueError: a size is not a positive integer, or `chunk` does not divide `hidden_size`.

    Example:
        >>> cell = OrderedLSTM(input_size=3, hidden_size=4, chunk=2)
        >>> params = cell.init(jax.random.key(0))
        >>> state, y = jax.jit(cell)(params, cell.initial_state((2,)), jnp.ones((2, 3)))
        >>> y.shape, state.c.shape
        ((2, 4), (2, 4))

    Reference: Shen, Tan, Sordoni & Courville 2019, "Ordered neurons: integrating tree structures into recurrent neural
    networks".
    """

    input_size: int
    hidden_size: int
    chunk: int = 1

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size, chunk=self.chunk)
        if self.hidden_size % self.chunk:
            raise ValueError(f"chunk: got {self.chunk}, needs a divisor of hidden_size = {self.hidden_size}")

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
        recurrent_init: Initializer = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
        forget_bias: float = 0.0,
    ) -> OrderedLSTMParams:
        """Returns fresh parameters; weights are uniform in ±1/sqrt(inputs) by default, as in the authors' code.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` or `[I, H / chunk]` block of `w_x`.
            recurrent_init: of each `[H, H]` or `[H, H / chunk]` block of `w_h`.
            forget_bias: the bias of f; the other biases are zero. The master gates keep the memory without one.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init)
        i, h, n = self.input_size, self.hidden_size, self.hidden_size // self.chunk
        kx, kh, kp, kq = jax.random.split(key, 4)

        def fused(init: Initializer, inputs: int, unit_key: Key, master_key: Key) -> Array:
            units = initializers.blocks(unit_key, init, (inputs, h), 4, dtype)
            return jnp.concatenate([units, initializers.blocks(master_key, init, (inputs, n), 2, dtype)], axis=1)

        return OrderedLSTMParams(
            w_x=fused(input_init, i, kx, kp),
            w_h=fused(recurrent_init, h, kh, kq),
            b=jnp.zeros(4 * h + 2 * n, dtype).at[h : 2 * h].set(forget_bias),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> OrderedLSTMState:
        """Returns zeros, `h` and `c` `[*batch_shape, H]`."""
        shape = (*batch_shape, self.hidden_size)
        return OrderedLSTMState(h=jnp.zeros(shape, dtype), c=jnp.zeros(shape, dtype))

    def project(self, params: OrderedLSTMParams, x: Array) -> tuple[Array, ...]:
        """Returns `x W_x + b` as the tuple i, f, g, o, p, q."""
        return self._gates(affine(x, params.w_x, params.b))

    def step(
        self, params: OrderedLSTMParams, state: OrderedLSTMState, drive: tuple[Array, ...]
    ) -> tuple[OrderedLSTMState, Array]:
        """Takes one step from `(h, c)` to `(h', c')`."""
        i, f, g, o, p, q = add(drive, self._gates(dot(state.h, params.w_h)))
        forget, write = (jnp.repeat(m, self.chunk, axis=-1) for m in (cumax(p), 1 - cumax(q)))
        both = forget * write
        kept = jax.nn.sigmoid(f) * both + (forget - both)
        written = jax.nn.sigmoid(i) * both + (write - both)
        c = kept * state.c + written * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return OrderedLSTMState(h, c), h

    def _gates(self, z: Array) -> tuple[Array, ...]:
        h = self.hidden_size
        return tuple(jnp.split(z, [h, 2 * h, 3 * h, 4 * h, 4 * h + h // self.chunk], axis=-1))


def cumax(z: Array) -> Array:
    """Returns the cumulative sum of the softmax over the last axis, which rises from near 0 to 1."""
    return jnp.cumsum(jax.nn.softmax(z, axis=-1), axis=-1)
