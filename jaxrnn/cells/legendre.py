"""Legendre memory unit (Voelker, Kajić & Eliasmith 2019)."""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_initializers, check_positive, check_sizes
from jaxrnn.ops import dot, repeat_like
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["LMU", "LMUParams", "LMUState"]


class LMUParams(NamedTuple):
    """Parameters of `LMU`."""

    w_x: Array  # [I, H + 1], W_x and e_x
    e: Array  # [H + d, 1], e_h above e_m
    w_h: Array  # [H + d, H], W_h above W_m


class LMUState(NamedTuple):
    """State of `LMU`."""

    h: Array  # [*batch, H]
    m: Array  # [*batch, d]


@dataclass(frozen=True)
class LMU(Cell[LMUParams, LMUState]):
    """Legendre memory unit: a fixed linear memory of a time window, and a nonlinear state that reads and writes it.

        u  = x e_x + h e_h + m e_m               one number
        m' = m Āᵀ + u B̄ᵀ                         the last θ steps of u as d Legendre polynomials; Ā, B̄ are fixed
        h' = tanh(x W_x + h W_h + m' W_m)        y = h'

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units.
        order: d, polynomials of the memory.
        theta: θ, steps that the memory spans.

    Params:
        w_x: `[I, H + 1]`, W_x and e_x.
        e: `[H + d, 1]`, e_h above e_m.
        w_h: `[H + d, H]`, W_h above W_m.

    Raises:
        ValueError: a size is not a positive integer, or `theta` is not positive.

    Example:
        >>> cell = LMU(input_size=3, hidden_size=4, order=6, theta=20.0)
        >>> params = cell.init(jax.random.key(0))
        >>> state, y = jax.jit(cell)(params, cell.initial_state((2,)), jnp.ones((2, 3)))
        >>> y.shape, state.m.shape
        ((2, 4), (2, 6))

    Reference: Voelker, Kajić & Eliasmith 2019, "Legendre memory units: continuous-time representation in recurrent
    neural networks".
    """

    input_size: int
    hidden_size: int
    order: int
    theta: float

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size, order=self.order)
        check_positive(theta=self.theta)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        weight_init: Initializer = jax.nn.initializers.glorot_normal(),
        encoder_init: Initializer = jax.nn.initializers.lecun_uniform(),
        memory_encoder_init: Initializer = initializers.zeros,
    ) -> LMUParams:
        """Returns fresh parameters, as in the authors' code.

        Args:
            key: a typed key.
            dtype: of every parameter.
            weight_init: of W_x `[I, H]`, W_h `[H, H]` and W_m `[d, H]`; by default `glorot_normal`.
            encoder_init: of e_x `[I, 1]` and e_h `[H, 1]`; by default `lecun_uniform`.
            memory_encoder_init: of e_m `[d, 1]`; by default zeros.
        """
        check_initializers(weight_init=weight_init, encoder_init=encoder_init, memory_encoder_init=memory_encoder_init)
        i, h, d = self.input_size, self.hidden_size, self.order
        kx, kh, km, ex, eh, em = jax.random.split(key, 6)
        return LMUParams(
            w_x=jnp.concatenate([weight_init(kx, (i, h), dtype), encoder_init(ex, (i, 1), dtype)], axis=1),
            e=jnp.concatenate([encoder_init(eh, (h, 1), dtype), memory_encoder_init(em, (d, 1), dtype)]),
            w_h=jnp.concatenate([weight_init(kh, (h, h), dtype), weight_init(km, (d, h), dtype)]),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> LMUState:
        """Returns zeros: `h` `[*batch_shape, H]`, `m` `[*batch_shape, d]`."""
        return LMUState(
            h=jnp.zeros((*batch_shape, self.hidden_size), dtype), m=jnp.zeros((*batch_shape, self.order), dtype)
        )

    def project(self, params: LMUParams, x: Array) -> tuple[Array, Array]:
        """Returns `x W_x` and `x e_x`."""
        x_h, x_u = jnp.split(jnp.matmul(x, params.w_x), [self.hidden_size], axis=-1)
        return x_h, x_u

    def step(self, params: LMUParams, state: LMUState, drive: tuple[Array, Array]) -> tuple[LMUState, Array]:
        """Takes one step from `(h, m)` to `(h', m')`."""
        x_h, x_u = drive
        # In the precision of the state, because the memory is a long sum.
        a, b = (jnp.asarray(c.T, state.m.dtype) for c in legendre(self.order, self.theta))
        u = x_u + dot(jnp.concatenate([state.h, state.m], axis=-1), params.e)
        m = jnp.matmul(state.m, a) + u.astype(a.dtype) * repeat_like(b, state.m)
        h = jnp.tanh(x_h + dot(jnp.concatenate([state.h, m], axis=-1), params.w_h))
        return LMUState(h, m), h


@functools.lru_cache(maxsize=64)
def legendre(order: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns Ā `[d, d]` and B̄ `[d]` in float64.

    A_ij = (2i + 1) / θ · (-1 if i < j else (-1)^(i - j + 1))
    B_i = (2i + 1) / θ · (-1)^i
    [Ā B̄; 0 1] = exp [A B; 0 0]          the input is held constant over each step
    """
    i = np.arange(order)[:, None]
    scale = (2 * i + 1) / theta
    a = np.where(i < i.T, -1.0, (-1.0) ** (i - i.T + 1)) * scale
    continuous = np.block([[a, (-1.0) ** i * scale], [np.zeros((1, order + 1))]])
    # The matrix exponential by scaling and squaring.
    halvings = max(0, int(np.ceil(np.log2(np.abs(continuous).sum(axis=0).max()))) + 3)
    small = continuous / 2.0**halvings
    term = total = np.eye(order + 1)
    for k in range(1, 16):
        term = term @ small / k
        total = total + term
    for _ in range(halvings):
        total = total @ total
    return total[:order, :order], total[:order, order]
