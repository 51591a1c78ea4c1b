"""Simple recurrent unit (Lei, Zhang, Wang, Dai & Artzi 2018)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_initializers, check_sizes
from jaxrnn.ops import add_bias, gates, weigh
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["SRU", "SRUParams", "SRUState"]


class SRUParams(NamedTuple):
    """Parameters of `SRU`."""

    w_x: Array  # [I, 4H], blocks n, f, r, s; if I = H [I, 3H], blocks n, f, r
    w_c: Array  # [2H], diagonal, blocks f, r
    b: Array  # [2H], blocks f, r


class SRUState(NamedTuple):
    """State of `SRU`."""

    c: Array  # [*batch, H]


@dataclass(frozen=True)
class SRU(Cell[SRUParams, SRUState]):
    """Simple recurrent unit: gates see the memory through diagonal weights, and a highway goes from input to output.

        n, f, r, s = x W_x                      s = x if I = H
        f = σ(f + v_f ⊙ c + b_f)
        r = σ(r + v_r ⊙ c + b_r)
        c' = f ⊙ c + (1 - f) ⊙ n
        h' = r ⊙ c' + (1 - r) ⊙ α s             y = h'

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units.
        highway_scale: α. The paper has √(1 + 2 exp(b_r)) for the first bias of r, which is √3 for a zero bias.

    Params:
        w_x: `[I, 4H]`, blocks n, f, r, s; if I = H `[I, 3H]`, blocks n, f, r.
        w_c: `[2H]`, diagonal, blocks f, r.
        b: `[2H]`, blocks f, r.

    Raises:
        ValueError: a size is not a positive integer.

    Example:
        >>> import jaxrnn
        >>> cell = SRU(input_size=3, hidden_size=4)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.c.shape
        ((5, 2, 4), (2, 4))

    Reference: Lei, Zhang, Wang, Dai & Artzi 2018, "Simple recurrent units for highly parallelizable recurrence".
    """

    input_size: int
    hidden_size: int
    highway_scale: float = 3**0.5

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer | None = None,
        bias_init: Initializer = initializers.zeros,
        memory_init: Initializer = initializers.zeros,
    ) -> SRUParams:
        """Returns fresh parameters, initialized gate by gate.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`; None: uniform of variance 1/I, as in the paper.
            bias_init: of `b`; sees `[2, H]`, one row per gate; by default zeros.
            memory_init: of `w_c`; sees `[2, H]`, one row per gate; by default zeros.
        """
        i, h = self.input_size, self.hidden_size
        input_init = initializers.uniform((3 / i) ** 0.5) if input_init is None else input_init
        check_initializers(input_init=input_init, bias_init=bias_init, memory_init=memory_init)
        kx, kc, kb = jax.random.split(key, 3)
        return SRUParams(
            w_x=initializers.blocks(kx, input_init, (i, h), 3 if i == h else 4, dtype),
            w_c=memory_init(kc, (2, h), dtype).reshape(2 * h),
            b=bias_init(kb, (2, h), dtype).reshape(2 * h),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> SRUState:
        """Returns zeros `[*batch_shape, H]`."""
        return SRUState(c=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: SRUParams, x: Array) -> tuple[Array, ...]:
        """Returns `x W_x` as the tuple n, f, r, s, with the biases of f and r."""
        n, f, r, *s = gates(jnp.matmul(x, params.w_x), 3 if self.input_size == self.hidden_size else 4)
        b_f, b_r = gates(params.b, 2)
        return n, add_bias(f, b_f), add_bias(r, b_r), s[0] if s else x

    def step(
        self, params: SRUParams, state: SRUState, drive: tuple[Array, ...]
    ) -> tuple[SRUState, tuple[Array, Array]]:
        """Takes one step from `c` to `c'`; the output is both, because r sees `c`."""
        n, f, *_ = drive
        f = jax.nn.sigmoid(f + weigh(state.c, gates(params.w_c, 2)[0]))
        c = f * state.c + (1 - f) * n
        return SRUState(c), (state.c, c)

    def readout(self, params: SRUParams, output: tuple[Array, Array], drive: tuple[Array, ...]) -> Array:
        """Returns `h'`."""
        before, c = output
        _, _, r, s = drive
        r = jax.nn.sigmoid(r + weigh(before, gates(params.w_c, 2)[1]))
        return r * c + (1 - r) * (self.highway_scale * s)
