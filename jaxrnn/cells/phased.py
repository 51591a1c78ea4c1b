"""Phased LSTM (Neil, Pfeiffer & Liu 2016)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_at_least, check_bools, check_initializers, check_sizes
from jaxrnn.ops import add, affine, dot, gates, repeat_like
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["PhasedLSTM", "PhasedLSTMParams", "PhasedLSTMState"]


class PhasedLSTMParams(NamedTuple):
    """Parameters of `PhasedLSTM`."""

    w_x: Array  # [I, 4H], blocks i, f, g, o
    w_h: Array  # [H, 4H]
    b: Array  # [4H]
    log_period: Array  # [H], log τ
    shift: Array  # [H], s
    ratio: Array  # [H], r, the share of the period in which the unit is open


class PhasedLSTMState(NamedTuple):
    """State of `PhasedLSTM`; `t` is None if the times are an input."""

    h: Array  # [*batch, H]
    c: Array  # [*batch, H]
    t: Array | None  # [*batch] integers, steps taken


@dataclass(frozen=True)
class PhasedLSTM(Cell[PhasedLSTMParams, PhasedLSTMState]):
    """Long short-term memory whose units are open only during a part of their own cycle.

        p = ((t - s) mod τ) / τ                      phase of each unit's cycle
        k = 2 p / r if p < r / 2                     opens
            2 - 2 p / r if p < r                     closes
            α p else                                 leaks
        d = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
        c' = k ⊙ d + (1 - k) ⊙ c
        h' = k ⊙ σ(o) ⊙ tanh(d) + (1 - k) ⊙ h        y = h'

    There are no peepholes. Time is the number of steps from 0, or an input: `{"x": [*batch, I], "t": [*batch]}`.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, memory cells.
        timed: whether the input has times; in bfloat16 they have about three significant digits.
        leak: α. The paper has 0.001 in training and 0 in evaluation: use two cells with the same parameters.

    Params:
        w_x: `[I, 4H]`, blocks i, f, g, o.
        w_h: `[H, 4H]`.
        b: `[4H]`.
        log_period: `[H]`, log τ.
        shift: `[H]`, s.
        ratio: `[H]`, r, the share of the period in which the unit is open.

    Raises:
        TypeError: `timed` is not a bool.
        ValueError: a size is not a positive integer, or `leak` is negative.

    Example:
        >>> import jaxrnn
        >>> cell = PhasedLSTM(input_size=3, hidden_size=4, timed=True)
        >>> params = cell.init(jax.random.key(0))
        >>> xs = {"x": jnp.ones((5, 2, 3)), "t": jnp.cumsum(jnp.full((5, 2), 0.7), axis=0)}
        >>> state, ys = jaxrnn.unroll(cell, params, xs)
        >>> ys.shape
        (5, 2, 4)

    Reference: Neil, Pfeiffer & Liu 2016, "Phased LSTM: accelerating recurrent network training for long or event-based
    sequences".
    """

    input_size: int
    hidden_size: int
    timed: bool = False
    leak: float = 0.001

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_at_least(0, leak=self.leak)
        check_bools(timed=self.timed)

    @property
    def input_spec(self) -> Any:
        """`[I]`, or a dict of `x` `[I]` and `t` `[]` if timed."""
        x = jax.ShapeDtypeStruct((self.input_size,), jnp.float32)
        return {"x": x, "t": jax.ShapeDtypeStruct((), jnp.float32)} if self.timed else x

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.orthogonal(),
        forget_bias: float = 1.0,
        periods: tuple[float, float] = (1.0, 1000.0),
        ratio: float = 0.05,
    ) -> PhasedLSTMParams:
        """Returns fresh parameters, initialized gate by gate.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`; by default `lecun_normal`.
            recurrent_init: of each `[H, H]` block of `w_h`; by default `orthogonal`.
            forget_bias: the bias of f; the other biases are zero.
            periods: the shortest and the longest τ, in units of time; log τ is uniform, and s is uniform in [0, τ).
            ratio: r of all units.

        Raises:
            ValueError: not 0 < shortest <= longest, or `ratio` is not in (0, 1].
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init)
        if not 0 < periods[0] <= periods[1]:
            raise ValueError(f"periods: got {periods}, needs 0 < shortest <= longest")
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio: got {ratio}, needs a part of the period in (0, 1]")
        i, h = self.input_size, self.hidden_size
        kx, kh, kp, ks = jax.random.split(key, 4)
        shortest, longest = (jnp.log(jnp.asarray(p, dtype)) for p in periods)
        log_period = jax.random.uniform(kp, (h,), dtype, shortest, longest)
        return PhasedLSTMParams(
            w_x=initializers.blocks(kx, input_init, (i, h), 4, dtype),
            w_h=initializers.blocks(kh, recurrent_init, (h, h), 4, dtype),
            b=jnp.zeros((4, h), dtype).at[1].set(forget_bias).reshape(4 * h),
            log_period=log_period,
            shift=jax.random.uniform(ks, (h,), dtype) * jnp.exp(log_period),
            ratio=jnp.full(h, ratio, dtype),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> PhasedLSTMState:
        """Returns zeros: `h` and `c` `[*batch_shape, H]`, `t` `[*batch_shape]`."""
        shape = (*batch_shape, self.hidden_size)
        t = None if self.timed else jnp.zeros(batch_shape, jnp.int32)
        return PhasedLSTMState(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), t)

    def project(self, params: PhasedLSTMParams, x: Any) -> tuple[tuple[Array, ...], Array | None]:
        """Returns `x W_x + b` as the tuple i, f, g, o, and `k` if timed."""
        k = self._openness(params, x["t"]) if self.timed else None
        return gates(affine(x["x"] if self.timed else x, params.w_x, params.b), 4), k

    def step(
        self, params: PhasedLSTMParams, state: PhasedLSTMState, drive: tuple[tuple[Array, ...], Any]
    ) -> tuple[PhasedLSTMState, Array]:
        """Takes one step from `(h, c)` to `(h', c')`."""
        i, f, g, o = add(drive[0], gates(dot(state.h, params.w_h), 4))
        k = drive[1] if state.t is None else self._openness(params, state.t)
        d = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        c = k * d + (1 - k) * state.c
        h = k * jax.nn.sigmoid(o) * jnp.tanh(d) + (1 - k) * state.h
        return PhasedLSTMState(h, c, None if state.t is None else state.t + 1), h

    def _openness(self, params: PhasedLSTMParams, t: Array) -> Array:
        """Returns `k` `[*leading, H]` at the times `t` `[*leading]`."""
        dtype = params.shift.dtype
        # t - s has too many digits for half precision.
        log_period, shift, ratio, t = (
            a.astype(np.promote_types(dtype, np.float32))
            for a in (params.log_period, params.shift, params.ratio, t[..., None])
        )
        t = jnp.broadcast_to(t, (*t.shape[:-1], self.hidden_size))
        period, shift, ratio = (repeat_like(a, t) for a in (jnp.exp(log_period), shift, ratio))
        phase = ((t - shift) % period) / period
        closing = jnp.where(phase < ratio, 2 - 2 * phase / ratio, self.leak * phase)
        return jnp.where(phase < ratio / 2, 2 * phase / ratio, closing).astype(dtype)
