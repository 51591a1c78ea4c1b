"""Clockwork recurrent network (Koutník, Greff, Gomez & Schmidhuber 2014).

module i of g, with the period T_i, works where t mod T_i = 0:
h_i' = tanh(x W_xi + Σ_{j ≥ i} h_j W_ji + b_i)             periods grow with i: from the slower to the faster
h_i' = h_i                                                 elsewhere
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_sizes
from jaxrnn.ops import affine, dot
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["Clockwork", "ClockworkParams", "ClockworkState"]


class ClockworkParams(NamedTuple):
    """Parameters of `Clockwork`."""

    w_x: Array  # [I, H]
    w_h: Array  # [H, H], of which only the blocks of slower rows and faster columns, or equal ones, are used
    b: Array  # [H]


class ClockworkState(NamedTuple):
    """State of `Clockwork`."""

    h: Array  # [*batch, H]
    t: Array  # [*batch] integers, steps made


@dataclass(frozen=True)
class Clockwork(Cell):
    """Clockwork recurrent network: modules that work at their own periods and see themselves and slower ones.

        h_i' = tanh(x W_xi + Σ_{j ≥ i} h_j W_ji + b_i) where t mod T_i = 0, else h_i        y = h'

    At the first step, t = 0, all modules work.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units, in equal modules.
        periods: T_1 < T_2 < …, one a module; the paper's are powers of two.

    Raises:
        ValueError: a size is not a positive integer, the periods are not growing positive integers, or their number
            does not divide `hidden_size`.

    Example:
        >>> cell = Clockwork(input_size=3, hidden_size=8, periods=(1, 2, 4, 8))
        >>> params = cell.init(jax.random.key(0))
        >>> state, y = cell(params, cell.initial_state((2,)), jnp.ones((2, 3)))
        >>> y.shape, state.t.tolist()
        ((2, 8), [1, 1])

    Reference: Koutník, Greff, Gomez & Schmidhuber 2014, "A clockwork RNN".
    """

    input_size: int
    hidden_size: int
    periods: tuple[int, ...]

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        if not isinstance(self.periods, Sequence):
            raise ValueError(f"periods: got {self.periods!r}, needs a tuple of integers that grow")
        object.__setattr__(self, "periods", tuple(self.periods))
        check_sizes(**{f"periods[{i}]": period for i, period in enumerate(self.periods)})
        if not self.periods or any(a >= b for a, b in itertools.pairwise(self.periods)):
            raise ValueError(f"periods: got {self.periods}, needs one or more that grow")
        if self.hidden_size % len(self.periods):
            raise ValueError(
                f"hidden_size: got {self.hidden_size}, needs a multiple of the {len(self.periods)} periods"
            )

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = jax.nn.initializers.normal(0.1),
        recurrent_init: Initializer = jax.nn.initializers.normal(0.1),
        bias_init: Initializer = initializers.zeros,
    ) -> ClockworkParams:
        """Fresh parameters, weights from N(0, 0.1²) as in the paper; `bias_init` sees `[1, H]`."""
        kx, kh, kb = jax.random.split(key, 3)
        return ClockworkParams(
            w_x=input_init(kx, (self.input_size, self.hidden_size), dtype),
            w_h=recurrent_init(kh, (self.hidden_size, self.hidden_size), dtype),
            b=bias_init(kb, (1, self.hidden_size), dtype)[0],
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> ClockworkState:
        """Zeros: `h` `[*batch_shape, H]`, `t` `[*batch_shape]`."""
        return ClockworkState(h=jnp.zeros((*batch_shape, self.hidden_size), dtype), t=jnp.zeros(batch_shape, jnp.int32))

    def project(self, params: ClockworkParams, x: Array) -> Array:
        """`x W_x + b`."""
        return affine(x, params.w_x, params.b)

    def step(self, params: ClockworkParams, state: ClockworkState, drive: Array) -> tuple[ClockworkState, Array]:
        """One step from `h` to `h'` of the modules that work."""
        period = np.repeat(np.array(self.periods, np.int32), self.hidden_size // len(self.periods))
        # It depends on the weights alone, so that the compiler takes it out of the loop.
        w_h = jnp.where(period[:, None] >= period, params.w_h, jnp.zeros_like(params.w_h))
        new = jnp.tanh(drive + dot(state.h, w_h))
        t = jnp.broadcast_to(state.t[..., None], state.h.shape)
        works = t % jnp.broadcast_to(period, t.shape) == 0
        h = jnp.where(works, new.astype(state.h.dtype), state.h)
        return ClockworkState(h, state.t + 1), h
