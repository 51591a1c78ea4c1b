"""Long expressive memory (Rusch, Mishra, Erichson & Mahoney 2022)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_initializers, check_positive, check_sizes
from jaxrnn.ops import affine, dot, gates
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["LEM", "LEMParams", "LEMState"]


class LEMParams(NamedTuple):
    """Parameters of `LEM`."""

    w_x: Array  # [I, 4H], blocks α, β, c, h
    w_h: Array  # [H, 3H], blocks α, β, c
    w_c: Array  # [H, H]
    b: Array  # [4H]


class LEMState(NamedTuple):
    """State of `LEM`; the paper's y is `h`, its z is `c`."""

    h: Array  # [*batch, H]
    c: Array  # [*batch, H]


@dataclass(frozen=True)
class LEM(Cell[LEMParams, LEMState]):
    """Long expressive memory: two coupled states; each unit learns its own steps in time.

        α, β = Δt σ(x W_x + h W_h + b)                       blocks α, β
        c' = (1 - α) ⊙ c + α ⊙ tanh(x W_xc + h W_hc + b_c)
        h' = (1 - β) ⊙ h + β ⊙ tanh(x W_xh + c' W_c + b_h)        y = h'

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units of each state.
        step_size: Δt, the longest step.

    Params:
        w_x: `[I, 4H]`, blocks α, β, c, h.
        w_h: `[H, 3H]`, blocks α, β, c.
        w_c: `[H, H]`.
        b: `[4H]`.

    Raises:
        ValueError: a size is not a positive integer, or `step_size` is not positive.

    Example:
        >>> cell = LEM(input_size=3, hidden_size=4)
        >>> params = cell.init(jax.random.key(0))
        >>> state, y = cell(params, cell.initial_state((2,)), jnp.ones((2, 3)))
        >>> y.shape, state.c.shape
        ((2, 4), (2, 4))

    Reference: Rusch, Mishra, Erichson & Mahoney 2022, "Long expressive memory for sequence modeling".
    """

    input_size: int
    hidden_size: int
    step_size: float = 1.0

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_positive(step_size=self.step_size)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
    ) -> LEMParams:
        """Returns fresh parameters, all uniform in ±1/sqrt(H) by default.

        Args:
            key: a typed key.
            dtype: of every parameter.
            weight_init: of each block of `w_x` and `w_h`, and of `w_c`.
            bias_init: of `b`; sees `[4, H]`, one row per block.
        """
        i, h = self.input_size, self.hidden_size
        kx, kh, kc, kb = jax.random.split(key, 4)
        default = initializers.uniform(h**-0.5)
        weight_init, bias_init = weight_init or default, bias_init or default
        check_initializers(weight_init=weight_init, bias_init=bias_init)
        return LEMParams(
            w_x=initializers.blocks(kx, weight_init, (i, h), 4, dtype),
            w_h=initializers.blocks(kh, weight_init, (h, h), 3, dtype),
            w_c=weight_init(kc, (h, h), dtype),
            b=bias_init(kb, (4, h), dtype).reshape(4 * h),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> LEMState:
        """Returns zeros, `h` and `c` `[*batch_shape, H]`."""
        shape = (*batch_shape, self.hidden_size)
        return LEMState(h=jnp.zeros(shape, dtype), c=jnp.zeros(shape, dtype))

    def project(self, params: LEMParams, x: Array) -> tuple[Array, ...]:
        """Returns `x W_x + b` as the tuple α, β, c, h."""
        return gates(affine(x, params.w_x, params.b), 4)

    def step(self, params: LEMParams, state: LEMState, drive: tuple[Array, ...]) -> tuple[LEMState, Array]:
        """Takes one step from `(h, c)` to `(h', c')`."""
        x_a, x_b, x_c, x_h = drive
        h_a, h_b, h_c = gates(dot(state.h, params.w_h), 3)
        alpha = self.step_size * jax.nn.sigmoid(x_a + h_a)
        beta = self.step_size * jax.nn.sigmoid(x_b + h_b)
        c = (1 - alpha) * state.c + alpha * jnp.tanh(x_c + h_c)
        h = (1 - beta) * state.h + beta * jnp.tanh(x_h + dot(c, params.w_c))
        return LEMState(h, c), h
