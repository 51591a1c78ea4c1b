"""LSTM with recurrent batch normalization (Cooijmans et al. 2016)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_initializers, check_positive, check_sizes
from jaxrnn.ops import add, add_bias, dot, gates, look_up, weigh
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["BatchNormLSTM", "BatchNormLSTMParams", "BatchNormLSTMState", "Moments", "Statistics"]


class Moments(NamedTuple):
    """Mean and standard deviation of units, as stored."""

    mean: Array
    std: Array  # squared where it is used, so its sign is ignored


class Spread(NamedTuple):
    """Mean and variance of units, as a step uses them."""

    mean: Array
    var: Array


class Statistics(NamedTuple):
    """Moments of the values that are normalized."""

    x: Moments  # [S, 4H], of x W_x
    h: Moments  # [S, 4H], of h W_h
    c: Moments  # [S, H], of c'


class BatchNormLSTMParams(NamedTuple):
    """Parameters of `BatchNormLSTM`, and its statistics."""

    w_x: Array  # [I, 4H], blocks i, f, g, o
    w_h: Array  # [H, 4H]
    b: Array  # [4H]
    b_c: Array  # [H]
    s_x: Array  # [4H]
    s_h: Array  # [4H]
    s_c: Array  # [H]
    statistics: Statistics  # [S, 4H] of x W_x and h W_h, [S, H] of c'; not trained: `batch_unroll` returns new ones


class BatchNormLSTMState(NamedTuple):
    """State of `BatchNormLSTM`; `c` is the memory before its norm."""

    h: Array  # [*batch, H]
    c: Array  # [*batch, H]
    t: Array  # [*batch] integers, steps taken


@dataclass(frozen=True)
class BatchNormLSTM(Cell[BatchNormLSTMParams, BatchNormLSTMState]):
    """Long short-term memory with recurrent batch normalization.

        i, f, g, o = BN_t(x W_x; s_x) + BN_t(h W_h; s_h) + b
        c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
        h' = σ(o) ⊙ tanh(BN_t(c'; s_c) + b_c)              y = h'

    with BN_t(z; s) = (z - mean_t) / sqrt(std_t² + ε) ⊙ s, whose statistics are the step's own.

    The cell uses the statistics of the population, so rows do not see each other. For training,
    `jaxrnn.networks.batch_unroll` normalizes by the statistics of the batch and returns new ones.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, memory cells.
        steps: S, the number of steps with statistics of their own; later steps use the last ones. 1: one estimate
            pooled over time, as in Element-Research's FastLSTM.
        momentum: weight of the latest batch in the moving averages; Element-Research has 0.1.
        epsilon: ε, added to the variance.

    Params:
        w_x: `[I, 4H]`, blocks i, f, g, o.
        w_h: `[H, 4H]`.
        b: `[4H]`.
        b_c: `[H]`.
        s_x: `[4H]`.
        s_h: `[4H]`.
        s_c: `[H]`.
        statistics: `[S, 4H]` of x W_x and h W_h, `[S, H]` of c'; not trained: `batch_unroll` returns new ones.

    Raises:
        ValueError: a size or `steps` is not a positive integer, or `momentum` or `epsilon` is not positive.

    Example:
        >>> import jaxrnn
        >>> cell = BatchNormLSTM(input_size=3, hidden_size=4, steps=5)
        >>> params = cell.init(jax.random.key(0))
        >>> xs = jax.random.normal(jax.random.key(1), (5, 8, 3))
        >>> run = jax.jit(jaxrnn.networks.batch_unroll)
        >>> state, ys, statistics = run(cell, params, xs)                          # training: the batch's statistics
        >>> params = params._replace(statistics=statistics)
        >>> state, ys = jaxrnn.unroll(cell, params, xs)                            # evaluation: the population's
        >>> ys.shape, state.t.tolist()
        ((5, 8, 4), [5, 5, 5, 5, 5, 5, 5, 5])

    Reference: Cooijmans, Ballas, Laurent, Gülçehre & Courville 2016, "Recurrent batch normalization".
    """

    input_size: int
    hidden_size: int
    steps: int
    momentum: float = 0.01
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size, steps=self.steps)
        check_positive(momentum=self.momentum, epsilon=self.epsilon)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.orthogonal(),
        recurrent_init: Initializer = initializers.orthogonal(),
        candidate_init: Initializer = initializers.identity(),
        forget_bias: float = 1.0,
        scale: float = 0.1,
    ) -> BatchNormLSTMParams:
        """Returns fresh parameters as in the authors' code; the statistics are mean 0 and standard deviation 1.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`; by default `orthogonal`.
            recurrent_init: of the blocks i, f, o of `w_h`, each `[H, H]`; by default `orthogonal`.
            candidate_init: of the block g of `w_h`; by default the identity.
            forget_bias: the bias of f; the other biases are zero.
            scale: of every norm; with 1 the tanh saturates and gradients vanish (the paper).
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init, candidate_init=candidate_init)
        i, h = self.input_size, self.hidden_size
        kx, kh, kg = jax.random.split(key, 3)
        w_i, w_f, w_o = gates(initializers.blocks(kh, recurrent_init, (h, h), 3, dtype), 3)
        w_g = candidate_init(kg, (h, h), dtype)

        def moments(units: int) -> Moments:
            return Moments(jnp.zeros((self.steps, units), dtype), jnp.ones((self.steps, units), dtype))

        return BatchNormLSTMParams(
            w_x=initializers.blocks(kx, input_init, (i, h), 4, dtype),
            w_h=jnp.concatenate([w_i, w_f, w_g, w_o], axis=1),
            b=jnp.zeros((4, h), dtype).at[1].set(forget_bias).reshape(4 * h),
            b_c=jnp.zeros(h, dtype),
            s_x=jnp.full(4 * h, scale, dtype),
            s_h=jnp.full(4 * h, scale, dtype),
            s_c=jnp.full(h, scale, dtype),
            statistics=Statistics(moments(4 * h), moments(4 * h), moments(h)),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> BatchNormLSTMState:
        """Returns zeros: `h` and `c` `[*batch_shape, H]`, `t` `[*batch_shape]`."""
        shape = (*batch_shape, self.hidden_size)
        return BatchNormLSTMState(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros(batch_shape, jnp.int32))

    def project(self, params: BatchNormLSTMParams, x: Array) -> tuple[Array, ...]:
        """Returns `x W_x` as the tuple i, f, g, o; their norm needs the number of the step."""
        return gates(jnp.matmul(x, params.w_x), 4)

    def step(
        self, params: BatchNormLSTMParams, state: BatchNormLSTMState, drive: tuple[Array, ...]
    ) -> tuple[BatchNormLSTMState, Array]:
        """Takes one step from `(h, c)` to `(h', c')` with the population's statistics."""
        state, _ = self.normalized_step(params, state, drive, lambda name, z, population: population)
        return state, state.h

    def normalized_step(
        self,
        params: BatchNormLSTMParams,
        state: BatchNormLSTMState,
        drive: tuple[Array, ...],
        choose: Callable[[str, tuple[Array, ...], Spread], Spread],
    ) -> tuple[BatchNormLSTMState, tuple[Spread, Spread, Spread]]:
        """Takes one step with the moments `choose(name, z, population)` for z = x W_x, h W_h and c', named x, h and c.

        Returns the new state and the chosen moments.
        """
        at = jnp.minimum(state.t, self.steps - 1)
        population = (Spread(look_up(m.mean, at), look_up(m.std, at) ** 2) for m in params.statistics)
        z_h = gates(dot(state.h, params.w_h), 4)
        of_x, of_h = choose("x", drive, next(population)), choose("h", z_h, next(population))
        z = add(self._norm(drive, params.s_x, of_x), self._norm(z_h, params.s_h, of_h))
        i, f, g, o = (add_bias(z_k, b) for z_k, b in zip(z, gates(params.b, 4), strict=True))
        c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        of_c = choose("c", (c,), next(population))
        (seen,) = self._norm((c,), params.s_c, of_c)
        h = jax.nn.sigmoid(o) * jnp.tanh(add_bias(seen, params.b_c))
        return BatchNormLSTMState(h, c, state.t + 1), (of_x, of_h, of_c)

    def _norm(self, z: tuple[Array, ...], scale: Array, of: Spread) -> tuple[Array, ...]:
        """Returns `BN(z; scale)` of each block, computed in float32 or wider."""
        wide = np.promote_types(z[0].dtype, np.float32)

        def one(z: Array, scale: Array, mean: Array, var: Array) -> Array:
            centered = z.astype(wide) - mean.astype(wide)
            return weigh((centered * jax.lax.rsqrt(var.astype(wide) + self.epsilon)).astype(z.dtype), scale)

        return tuple(map(one, z, *(gates(a, len(z)) for a in (scale, *of))))
