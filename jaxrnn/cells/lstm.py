"""Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000).

    i, f, g, o = x W_x + h W_h + b              four blocks of H
    c' = σ(f) ⊙ c + σ(i) ⊙ φ(g)
    h' = σ(o) ⊙ ψ(c')

Options add peepholes and a projection.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell, add, affine, dot, gates, weigh
from jaxrnn.checks import check_sizes
from jaxrnn.typing import Activation, Array, DTypeLike, Initializer, Key

__all__ = ["LSTM", "LSTMParams", "LSTMState"]


class LSTMParams(NamedTuple):
    """Parameters of `LSTM`; what an option leaves out is None."""

    w_x: Array  # [I, 4H], blocks i, f, g, o
    w_h: Array  # [R, 4H]
    b: Array | None  # [4H]
    w_c: Array | None = None  # [3H], diagonal peepholes, blocks i, f, o
    w_p: Array | None = None  # [H, R], the projection


class LSTMState(NamedTuple):
    """State of `LSTM`, in PyTorch's order."""

    h: Array  # [*batch, R], R = H without projection
    c: Array  # [*batch, H]


@dataclass(frozen=True)
class LSTM(Cell):
    """Long short-term memory.

        i, f, g, o = x W_x + h W_h + b
        i, f += c ⊙ w_ci, c ⊙ w_cf              with peephole
        c' = σ(f) ⊙ c + σ(i) ⊙ φ(g)
        o += c' ⊙ w_co                          with peephole
        m = σ(o) ⊙ ψ(c')
        h' = m, or m W_p with projection_size   y = h'

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, memory cells.
        projection_size: R, length of the projected `h`; None: no projection, R = H.
        peephole: whether the gates see the memory through diagonal weights (i and f see `c`, o sees `c'`).
        use_bias: whether there is a `b`.
        gate_activation: σ, by default the logistic function.
        candidate_activation: φ, by default tanh.
        output_activation: ψ, by default tanh.

    Raises:
        ValueError: a size is not a positive integer.

    Example:
        >>> import jaxrnn
        >>> cell = LSTM(input_size=3, hidden_size=4)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.c.shape
        ((5, 2, 4), (2, 4))

    Reference: Hochreiter & Schmidhuber 1997, "Long short-term memory"; Gers, Schmidhuber & Cummins 2000, "Learning to
    forget"; peepholes: Gers & Schmidhuber 2000, in the form of Graves 2013; projection: Sak, Senior & Beaufays 2014.
    """

    input_size: int
    hidden_size: int
    projection_size: int | None = None
    peephole: bool = False
    use_bias: bool = True
    gate_activation: Activation = jax.nn.sigmoid
    candidate_activation: Activation = jnp.tanh
    output_activation: Activation = jnp.tanh

    def __post_init__(self) -> None:
        check_sizes(
            input_size=self.input_size,
            hidden_size=self.hidden_size,
            projection_size=1 if self.projection_size is None else self.projection_size,
        )

    @property
    def output_size(self) -> int:
        """R: `projection_size`, or `hidden_size` where there is none."""
        return self.hidden_size if self.projection_size is None else self.projection_size

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
    ) -> LSTMParams:
        """Fresh parameters, gate block by gate block.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`.
            recurrent_init: of each `[R, H]` block of `w_h`, and of `w_p` `[H, R]`.
            bias_init: sees `[4, H]`, a row a gate; of no effect without bias.
            forget_bias: added to the forget gate's bias, so that the memory starts open; of no effect without bias.
            peephole_init: sees `[3, H]`.
        """
        i, h, r = self.input_size, self.hidden_size, self.output_size
        kx, kh, kb, kc, kp = jax.random.split(key, 5)
        b = bias_init(kb, (4, h), dtype).at[1].add(forget_bias).reshape(4 * h)
        return LSTMParams(
            w_x=initializers.blocks(input_init, kx, (i, h), 4, dtype),
            w_h=initializers.blocks(recurrent_init, kh, (r, h), 4, dtype),
            b=b if self.use_bias else None,
            w_c=peephole_init(kc, (3, h), dtype).reshape(3 * h) if self.peephole else None,
            w_p=None if self.projection_size is None else recurrent_init(kp, (h, r), dtype),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> LSTMState:
        """Zeros: `h` `[*batch_shape, R]` and `c` `[*batch_shape, H]`."""
        return LSTMState(
            h=jnp.zeros((*batch_shape, self.output_size), dtype),
            c=jnp.zeros((*batch_shape, self.hidden_size), dtype),
        )

    def project(self, params: LSTMParams, x: Array) -> tuple[Array, ...]:
        """`x W_x + b`, as the tuple i, f, g, o."""
        return gates(affine(x, params.w_x, params.b), 4)

    def step(self, params: LSTMParams, state: LSTMState, drive: tuple[Array, ...]) -> tuple[LSTMState, Array]:
        """One step from `(h, c)` to `(h', c')`."""
        i, f, g, o = add(drive, gates(dot(state.h, params.w_h), 4))
        if params.w_c is not None:
            w_ci, w_cf, w_co = gates(params.w_c, 3)
            i, f = i + weigh(state.c, w_ci), f + weigh(state.c, w_cf)
        c = self.gate_activation(f) * state.c + self.gate_activation(i) * self.candidate_activation(g)
        if params.w_c is not None:
            o = o + weigh(c, w_co)
        h = self.gate_activation(o) * self.output_activation(c)
        if params.w_p is not None:
            h = dot(h, params.w_p)
        return LSTMState(h, c), h
