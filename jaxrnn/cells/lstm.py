"""Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000).

    i, f, g, o = x W_x + h W_h + b              four blocks of H
    c' = σ(f) ⊙ c + σ(i) ⊙ φ(g)
    h' = σ(o) ⊙ ψ(c')

Options add peepholes, projections, clipping, and heads.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_choice, check_heads, check_positive, check_sizes
from jaxrnn.ops import add, affine, dot, gates, recurrent, weigh
from jaxrnn.typing import Activation, Array, DTypeLike, Initializer, Key

__all__ = ["LSTM", "LSTMParams", "LSTMState"]


class LSTMParams(NamedTuple):
    """Parameters of `LSTM`; what an option leaves out is None."""

    w_x: Array  # [I, 4H], blocks i, f, g, o
    w_h: Array  # [R, 4H], with several heads [heads, R / heads, 4H / heads]
    b: Array | None  # [4H]
    w_c: Array | None = None  # peepholes, blocks i, f, o: [3H] if diagonal, [H, 3H] if full
    w_p: Array | None = None  # [H, R], the projection
    w_q: Array | None = None  # [H, Q], the projection that does not recur


class LSTMState(NamedTuple):
    """State of `LSTM`, in PyTorch's order."""

    h: Array  # [*batch, R], R = H without projection
    c: Array  # [*batch, H]


@dataclass(frozen=True)
class LSTM(Cell):
    """Long short-term memory; gate order i, f, g, o, as in PyTorch, Keras and Flax.

        i = σ(x W_xi + h W_hi + w_ci ⊙ c + b_i)
        f = σ(x W_xf + h W_hf + w_cf ⊙ c + b_f)
        g = φ(x W_xg + h W_hg + b_g)
        c' = f ⊙ c + i ⊙ g
        o = σ(x W_xo + h W_ho + w_co ⊙ c' + b_o)
        m = o ⊙ ψ(c')
        h' = m W_p, or m without projection         y = h', or h' beside m W_q with a readout projection

    That of Gers & Schmidhuber 2000, for timing, has peepholes and no ψ, `output_activation=jax.nn.identity`; for those
    without some gate see `VanillaLSTM`.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, memory cells.
        projection_size: R, length of the projected `h`; None: no projection, R = H.
        peephole: whether the gates see the memory (i and f see `c`, o sees `c'`): False, True through diagonal weights,
            "full" through matrices, c W_c for w_c ⊙ c.
        use_bias: whether there is a `b`.
        gate_activation: σ, by default the logistic function.
        candidate_activation: φ, by default tanh.
        output_activation: ψ, by default tanh.
        readout_size: Q, length of a further projection of m that only the output has, made after the loop; None: none.
        heads: groups of units in the product with h; a unit sees those of its own group only.
        cell_clip: `c'` is kept within ± this; None: not.
        projection_clip: the projected `h'` is kept within ± this; None: not.
        shield: whether no gradient passes from the gates through the peepholes into the memory, as in Gers, Schraudolph
            & Schmidhuber 2002.

    Raises:
        ValueError: a size is not a positive integer, `heads` does not divide H and R, an unknown kind of peephole, or a
            clip that is not positive or has nothing to clip.

    Example:
        >>> import jaxrnn
        >>> cell = LSTM(input_size=3, hidden_size=4)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.c.shape
        ((5, 2, 4), (2, 4))

    Reference: Hochreiter & Schmidhuber 1997, "Long short-term memory"; Gers, Schmidhuber & Cummins 2000, "Learning to
    forget"; peepholes: Gers & Schmidhuber 2000, in the form of Graves 2013; projections: Sak, Senior & Beaufays 2014.
    """

    input_size: int
    hidden_size: int
    projection_size: int | None = None
    peephole: bool | Literal["full"] = False
    use_bias: bool = True
    gate_activation: Activation = jax.nn.sigmoid
    candidate_activation: Activation = jnp.tanh
    output_activation: Activation = jnp.tanh
    readout_size: int | None = None
    heads: int = 1
    cell_clip: float | None = None
    projection_clip: float | None = None
    shield: bool = False

    def __post_init__(self) -> None:
        check_sizes(
            input_size=self.input_size,
            hidden_size=self.hidden_size,
            projection_size=1 if self.projection_size is None else self.projection_size,
            readout_size=1 if self.readout_size is None else self.readout_size,
        )
        check_heads(self.heads, hidden_size=self.hidden_size, projection_size=self.recurrent_size)
        check_choice(peephole=self.peephole, among=(False, True, "full"))
        check_positive(
            cell_clip=1 if self.cell_clip is None else self.cell_clip,
            projection_clip=1 if self.projection_clip is None else self.projection_clip,
        )
        if self.projection_clip is not None and self.projection_size is None:
            raise ValueError(f"projection_clip: got {self.projection_clip}, needs a projection_size")
        if self.shield and not self.peephole:
            raise ValueError("shield: got True, needs a peephole")

    @property
    def recurrent_size(self) -> int:
        """R: `projection_size`, or `hidden_size` where there is none."""
        return self.hidden_size if self.projection_size is None else self.projection_size

    @property
    def output_size(self) -> int:
        """R, or R + Q with a readout projection."""
        return self.recurrent_size + (self.readout_size or 0)

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
            recurrent_init: of each `[R, H]` block of `w_h`, with several heads of each head's, and of `w_p`, `w_q`.
            bias_init: sees `[4, H]`, a row a gate; of no effect without bias.
            forget_bias: added to the forget gate's bias, so that the memory starts open; of no effect without bias.
            peephole_init: sees `[3, H]`; full peepholes: each `[H, H]` block.
        """
        i, h, r = self.input_size, self.hidden_size, self.recurrent_size
        kx, kh, kb, kc, kp, kq = jax.random.split(key, 6)
        b = bias_init(kb, (4, h), dtype).at[1].add(forget_bias).reshape(4 * h)
        w_c = None
        if self.peephole == "full":
            w_c = initializers.blocks(peephole_init, kc, (h, h), 3, dtype)
        elif self.peephole:
            w_c = peephole_init(kc, (3, h), dtype).reshape(3 * h)
        return LSTMParams(
            w_x=initializers.blocks(input_init, kx, (i, h), 4, dtype),
            w_h=initializers.blocks(recurrent_init, kh, (r, h), 4, dtype, self.heads),
            b=b if self.use_bias else None,
            w_c=w_c,
            w_p=None if self.projection_size is None else recurrent_init(kp, (h, r), dtype),
            w_q=None if self.readout_size is None else recurrent_init(kq, (h, self.readout_size), dtype),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> LSTMState:
        """Zeros: `h` `[*batch_shape, R]` and `c` `[*batch_shape, H]`."""
        return LSTMState(
            h=jnp.zeros((*batch_shape, self.recurrent_size), dtype),
            c=jnp.zeros((*batch_shape, self.hidden_size), dtype),
        )

    def project(self, params: LSTMParams, x: Array) -> tuple[Array, ...]:
        """`x W_x + b`, as the tuple i, f, g, o."""
        return gates(affine(x, params.w_x, params.b), 4)

    def step(self, params: LSTMParams, state: LSTMState, drive: tuple[Array, ...]) -> tuple[LSTMState, Any]:
        """One step from `(h, c)` to `(h', c')`; the output is h', with a readout projection the pair of h' and m."""
        i, f, g, o = add(drive, recurrent(state.h, params.w_h, 4))
        if params.w_c is not None:
            w_if, w_o = jnp.split(params.w_c, [2 * self.hidden_size], axis=-1)
            i, f = add((i, f), self._seen(state.c, w_if, 2))
        c = self.gate_activation(f) * state.c + self.gate_activation(i) * self.candidate_activation(g)
        c = _clip(c, self.cell_clip)
        if params.w_c is not None:
            (o,) = add((o,), self._seen(c, w_o, 1))
        m = h = self.gate_activation(o) * self.output_activation(c)
        if params.w_p is not None:
            h = _clip(dot(m, params.w_p), self.projection_clip)
        return LSTMState(h, c), h if params.w_q is None else (h, m)

    def readout(self, params: LSTMParams, output: Any, drive: tuple[Array, ...]) -> Array:
        """`h'`, with a readout projection `[h', m W_q]`."""
        del drive
        if params.w_q is None:
            return output
        h, m = output
        return jnp.concatenate([h.astype(params.w_q.dtype), dot(m, params.w_q)], axis=-1)

    def _seen(self, c: Array, w: Array, n: int) -> tuple[Array, ...]:
        """What `n` gates see of the memory, through diagonal weights `[nH]` or matrices `[H, nH]`."""
        c = jax.lax.stop_gradient(c) if self.shield else c
        return tuple(weigh(c, one) for one in gates(w, n)) if w.ndim == 1 else gates(dot(c, w), n)


def _clip(z: Array, bound: float | None) -> Array:
    return z if bound is None else jnp.clip(z, -bound, bound)
