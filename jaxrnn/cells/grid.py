"""Recurrence over a plane (Graves, Fernández & Schmidhuber 2007)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.checks import check_activations, check_bools, check_initializers
from jaxrnn.ops import add, affine, gates, recurrent, weigh
from jaxrnn.plane import Plane
from jaxrnn.typing import Activation, Array, DTypeLike, Initializer, Key

__all__ = ["MDLSTM", "MDRNN", "MDLSTMParams", "MDLSTMState", "MDRNNParams", "MDRNNState"]


class MDRNNParams(NamedTuple):
    """Parameters of `MDRNN`."""

    w_x: Array  # [I, H]
    w_h: Array  # [2H, H], rows for the state above, then for the state to the left
    b: Array  # [H]


class MDRNNState(NamedTuple):
    """State of `MDRNN` for one row."""

    h: Array  # [*batch, C, H]


@dataclass(frozen=True)
class MDRNN(Plane[MDRNNParams, MDRNNState]):
    """Two-dimensional recurrent network; a time step of `unroll` is a row, `xs` `[R, *batch, C, I]`.

        h = φ(x W_x + h_above W_a + h_left W_l + b)             states outside of the plane are zero; y = h

    On a GPU or TPU the loop is one over anti-diagonals, which `chunk` of `unroll` counts there; the projected plane is
    in memory as a whole.

    Args:
        input_size: `(C, I)`, places in a row and values at a place.
        hidden_size: H, units.
        activation: φ, by default tanh.

    Params:
        w_x: `[I, H]`.
        w_h: `[2H, H]`, rows for the state above, then for the state to the left.
        b: `[H]`.

    Raises:
        TypeError: `activation` is not a function.
        ValueError: a size is not a positive integer, or `input_size` is not a pair.

    Example:
        >>> import jaxrnn
        >>> cell = MDRNN(input_size=(6, 3), hidden_size=4)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 6, 3)))         # 5 rows of 6 places
        >>> ys.shape, state.h.shape
        ((5, 2, 6, 4), (2, 6, 4))

    Reference: Graves, Fernández & Schmidhuber 2007, "Multi-dimensional recurrent neural networks", section 2.
    """

    activation: Activation = jnp.tanh

    def __post_init__(self) -> None:
        super().__post_init__()
        check_activations(activation=self.activation)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.orthogonal(0.5**0.5),
        bias_init: Initializer = initializers.zeros,
    ) -> MDRNNParams:
        """Returns fresh parameters.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of `w_x`; by default `lecun_normal`.
            recurrent_init: of the `[H, H]` of each direction, by default scaled, because two products add up.
            bias_init: of `b` `[H]`; by default zeros.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init, bias_init=bias_init)
        (_, i), h = self.input_size, self.hidden_size
        kx, kb, *kh = jax.random.split(key, 4)
        return MDRNNParams(
            w_x=input_init(kx, (i, h), dtype),
            w_h=jnp.concatenate([recurrent_init(k, (h, h), dtype) for k in kh]),
            b=bias_init(kb, (h,), dtype),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> MDRNNState:
        """Returns zeros `[*batch_shape, C, H]`, the row above the first."""
        return MDRNNState(h=jnp.zeros((*batch_shape, *self.output_size), dtype))

    def project(self, params: MDRNNParams, x: Array) -> tuple[Array, ...]:
        """Returns `x W_x + b` as a tuple of one."""
        return (affine(x, params.w_x, params.b),)

    def place(self, params: MDRNNParams, above: MDRNNState, left: MDRNNState, drive: tuple[Array, ...]) -> MDRNNState:
        w_a, w_l = jnp.split(params.w_h, 2)
        (z,) = add(add(drive, recurrent(above.h, w_a, 1)), recurrent(left.h, w_l, 1))
        return MDRNNState(self.activation(z))


class MDLSTMParams(NamedTuple):
    """Parameters of `MDLSTM`."""

    w_x: Array  # [I, 5H], blocks i, f_above, f_left, g, o
    w_h: Array  # [2H, 5H], rows for the state above, then for the state to the left
    b: Array  # [5H]
    w_c: Array | None = None  # [4H], diagonal peepholes, blocks i, f_above, f_left, o


class MDLSTMState(NamedTuple):
    """State of `MDLSTM` for one row."""

    h: Array  # [*batch, C, H]
    c: Array  # [*batch, C, H]


@dataclass(frozen=True)
class MDLSTM(Plane[MDLSTMParams, MDLSTMState]):
    """Two-dimensional long short-term memory; a time step of `unroll` is a row, `xs` `[R, *batch, C, I]`.

        i, f_a, f_l, g, o = x W_x + h_above W_a + h_left W_l + b
        i += (c_above + c_left) ⊙ w_i                                       with peephole
        f_a, f_l += c_above ⊙ w_a, c_left ⊙ w_l                             with peephole
        c = σ(i) ⊙ tanh(g) + σ(f_a) ⊙ c_above + σ(f_l) ⊙ c_left; or, if stable,
        c = σ(i) ⊙ tanh(g) + (1 - σ(i)) ⊙ (σ(f_a) ⊙ c_above + σ(f_l) ⊙ c_left) / (σ(f_a) + σ(f_l))
        o += c ⊙ w_o                                                        with peephole
        h = σ(o) ⊙ tanh(c)                      states outside of the plane are zero; y = h

    On a single row or column it is `LSTM`. `Bidirectional(networks.Mirrored(cell))` runs in all four directions. A
    memory may grow with the number of paths through the plane, which is exponential; a stable memory is a mean. On a
    GPU or TPU the loop is one over anti-diagonals, which `chunk` of `unroll` counts there; the projected plane is in
    memory as a whole.

    Args:
        input_size: `(C, I)`, places in a row and values at a place.
        hidden_size: H, memory cells.
        peephole: whether the gates see the memories through diagonal weights.
        stable: whether the memory is a convex combination of the candidate and the two memories before.

    Params:
        w_x: `[I, 5H]`, blocks i, f_above, f_left, g, o.
        w_h: `[2H, 5H]`, rows for the state above, then for the state to the left.
        b: `[5H]`.
        w_c: `[4H]`, diagonal peepholes, blocks i, f_above, f_left, o, or None.

    Raises:
        TypeError: a flag is not a bool.
        ValueError: a size is not a positive integer, or `input_size` is not a pair.

    Example:
        >>> import jaxrnn
        >>> cell = MDLSTM(input_size=(6, 3), hidden_size=4)
        >>> net = jaxrnn.Bidirectional(jaxrnn.networks.Mirrored(cell))
        >>> params = net.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(net, params, jnp.ones((5, 2, 6, 3)))          # 5 rows of 6 places
        >>> ys.shape
        (5, 2, 6, 16)

    Reference: Graves, Fernández & Schmidhuber 2007, "Multi-dimensional recurrent neural networks", section 3; stable:
    Leifert, Strauß, Grüning, Wustlich & Labahn 2016, "Cells in multidimensional recurrent neural networks".
    """

    peephole: bool = False
    stable: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bools(peephole=self.peephole, stable=self.stable)

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
    ) -> MDLSTMParams:
        """Returns fresh parameters, initialized gate by gate.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`; by default `lecun_normal`.
            recurrent_init: of each `[H, H]` block of `w_h`, for each direction; by default `orthogonal`.
            bias_init: of `b`; sees `[5, H]`, one row per gate; by default zeros.
            forget_bias: added to the biases of f_above and f_left.
            peephole_init: of `w_c`; sees `[4, H]`, one row per gate; by default zeros.
        """
        check_initializers(
            input_init=input_init, recurrent_init=recurrent_init, bias_init=bias_init, peephole_init=peephole_init
        )
        (_, i), h = self.input_size, self.hidden_size
        kx, kb, kc, *kh = jax.random.split(key, 5)
        return MDLSTMParams(
            w_x=initializers.blocks(kx, input_init, (i, h), 5, dtype),
            w_h=jnp.concatenate([initializers.blocks(k, recurrent_init, (h, h), 5, dtype) for k in kh]),
            b=bias_init(kb, (5, h), dtype).at[1:3].add(forget_bias).reshape(5 * h),
            w_c=peephole_init(kc, (4, h), dtype).reshape(4 * h) if self.peephole else None,
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> MDLSTMState:
        """Returns zeros, `h` and `c` `[*batch_shape, C, H]`, the row above the first."""
        shape = (*batch_shape, *self.output_size)
        return MDLSTMState(h=jnp.zeros(shape, dtype), c=jnp.zeros(shape, dtype))

    def project(self, params: MDLSTMParams, x: Array) -> tuple[Array, ...]:
        """Returns `x W_x + b` as the tuple i, f_above, f_left, g, o."""
        return gates(affine(x, params.w_x, params.b), 5)

    def place(
        self, params: MDLSTMParams, above: MDLSTMState, left: MDLSTMState, drive: tuple[Array, ...]
    ) -> MDLSTMState:
        w_a, w_l = jnp.split(params.w_h, 2)
        i, f_a, f_l, g, o = add(add(drive, recurrent(above.h, w_a, 5)), recurrent(left.h, w_l, 5))
        if params.w_c is not None:
            p_i, p_a, p_l, p_o = gates(params.w_c, 4)
            i, f_a, f_l = i + weigh(above.c + left.c, p_i), f_a + weigh(above.c, p_a), f_l + weigh(left.c, p_l)
        c = jax.nn.sigmoid(i) * jnp.tanh(g)
        if self.stable:
            # σ(f_a) / (σ(f_a) + σ(f_l)), finite where both round to zero.
            share = jax.nn.sigmoid(jax.nn.log_sigmoid(f_a) - jax.nn.log_sigmoid(f_l))
            c = c + (1 - jax.nn.sigmoid(i)) * (share * above.c + (1 - share) * left.c)
        else:
            c = c + jax.nn.sigmoid(f_a) * above.c + jax.nn.sigmoid(f_l) * left.c
        if params.w_c is not None:
            o = o + weigh(c, p_o)
        return MDLSTMState(jax.nn.sigmoid(o) * jnp.tanh(c), c)
