"""Clockwork recurrent network (Koutník, Greff, Gomez & Schmidhuber 2014)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_initializers, check_sizes
from jaxrnn.ops import affine, dot
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["Clockwork", "ClockworkParams", "ClockworkState"]


class ClockworkParams(NamedTuple):
    """Parameters of `Clockwork`."""

    w_x: Array  # [I, H]
    w_h: Array  # [H, H]; used are blocks from a module (rows) to itself and to faster ones (columns)
    b: Array  # [H]


class ClockworkState(NamedTuple):
    """State of `Clockwork`."""

    h: Array  # [*batch, H]
    t: Array  # [*batch] integers, steps taken


@dataclass(frozen=True)
class Clockwork(Cell[ClockworkParams, ClockworkState]):
    """Clockwork recurrent network: modules with periods of their own, each of which sees itself and slower ones.

        h_i' = tanh(x W_xi + Σ_{j ≥ i} h_j W_ji + b_i) if t mod T_i = 0, else h_i        y = h'

    Module i has the period T_i, and periods grow with i. At the first step, t = 0, all modules work.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units, in equal modules.
        periods: T_1 < T_2 < …, one for each module; the paper has powers of two.

    Params:
        w_x: `[I, H]`.
        w_h: `[H, H]`; used are blocks from a module (rows) to itself and to faster ones (columns).
        b: `[H]`.

    Raises:
        ValueError: a size is not a positive integer, the periods are not positive integers that grow, or their
            number does not divide `hidden_size`.

    Example:
        >>> cell = Clockwork(input_size=3, hidden_size=8, periods=(1, 2, 4, 8))
        >>> params = cell.init(jax.random.key(0))
        >>> state, y = jax.jit(cell)(params, cell.initial_state((2,)), jnp.ones((2, 3)))
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
        """Returns fresh parameters; weights are normal with deviation 0.1, as in the paper.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of `w_x`; by default normal with deviation 0.1.
            recurrent_init: of `w_h`; by default normal with deviation 0.1.
            bias_init: of `b`; sees `[1, H]`; by default zeros.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init, bias_init=bias_init)
        kx, kh, kb = jax.random.split(key, 3)
        return ClockworkParams(
            w_x=input_init(kx, (self.input_size, self.hidden_size), dtype),
            w_h=recurrent_init(kh, (self.hidden_size, self.hidden_size), dtype),
            b=bias_init(kb, (1, self.hidden_size), dtype)[0],
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> ClockworkState:
        """Returns zeros: `h` `[*batch_shape, H]`, `t` `[*batch_shape]`."""
        return ClockworkState(h=jnp.zeros((*batch_shape, self.hidden_size), dtype), t=jnp.zeros(batch_shape, jnp.int32))

    def project(self, params: ClockworkParams, x: Array) -> Array:
        """Returns `x W_x + b`."""
        return affine(x, params.w_x, params.b)

    def step(self, params: ClockworkParams, state: ClockworkState, drive: Array) -> tuple[ClockworkState, Array]:
        """Takes one step from `h` to `h'` ; modules that do not work keep theirs."""
        period = np.repeat(np.array(self.periods, np.int32), self.hidden_size // len(self.periods))
        # The mask sees only the weights, so the compiler moves it out of the loop.
        w_h = jnp.where(period[:, None] >= period, params.w_h, jnp.zeros_like(params.w_h))
        new = jnp.tanh(drive + dot(state.h, w_h))
        t = jnp.broadcast_to(state.t[..., None], state.h.shape)
        works = t % jnp.broadcast_to(period, t.shape) == 0
        h = jnp.where(works, new.astype(state.h.dtype), state.h)
        return ClockworkState(h, state.t + 1), h
