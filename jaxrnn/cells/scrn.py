"""Structurally constrained recurrent network (Mikolov et al. 2015)."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_bools, check_initializers, check_rate, check_sizes
from jaxrnn.ops import dot, repeat_like
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["SCRN", "SCRNParams", "SCRNState"]


class SCRNParams(NamedTuple):
    """Parameters of `SCRN`."""

    w_x: Array  # [I, H]
    w_h: Array  # [H, H]
    w_s: Array  # [I, S]
    w_c: Array  # [S, H]
    beta: Array | None  # [S], adaptive context only


class SCRNState(NamedTuple):
    """State of `SCRN`."""

    h: Array  # [*batch, H]
    s: Array  # [*batch, S]


@dataclass(frozen=True)
class SCRN(Cell[SCRNParams, SCRNState]):
    """Structurally constrained recurrent network: hidden units, and context units that change slowly.

        s' = (1 - α) x W_s + α s
        h' = σ(x W_x + h W_h + s' W_c)          y = [h', s']

    The paper's output layer sees both, so `y` has both. With an adaptive context α is σ(β), one value for each unit.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, hidden units.
        context_size: S, context units.
        alpha: α, the share of the context that is kept, in [0, 1).
        adaptive: whether the share is learned for each unit, starting from `alpha`.

    Params:
        w_x: `[I, H]`.
        w_h: `[H, H]`.
        w_s: `[I, S]`.
        w_c: `[S, H]`.
        beta: `[S]`, adaptive context only, or None.

    Raises:
        TypeError: `adaptive` is not a bool.
        ValueError: a size is not a positive integer, `alpha` is not in [0, 1), or it is 0 with `adaptive`.

    Example:
        >>> cell = SCRN(input_size=3, hidden_size=4, context_size=2)
        >>> params = cell.init(jax.random.key(0))
        >>> state, y = cell(params, cell.initial_state((2,)), jnp.ones((2, 3)))
        >>> y.shape, state.s.shape
        ((2, 6), (2, 2))

    Reference: Mikolov, Joulin, Chopra, Mathieu & Ranzato 2015, "Learning longer memory in recurrent neural networks".
    """

    input_size: int
    hidden_size: int
    context_size: int
    alpha: float = 0.95
    adaptive: bool = False

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size, context_size=self.context_size)
        check_rate(alpha=self.alpha)
        check_bools(adaptive=self.adaptive)
        if self.adaptive and not self.alpha:
            raise ValueError("alpha: got 0, needs a positive number with adaptive=True")

    @property
    def output_size(self) -> int:
        """H + S."""
        return self.hidden_size + self.context_size

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.orthogonal(),
    ) -> SCRNParams:
        """Returns fresh parameters.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of `w_x`, `w_s` and `w_c`; by default `lecun_normal`.
            recurrent_init: of `w_h`; by default `orthogonal`.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init)
        i, h, s = self.input_size, self.hidden_size, self.context_size
        kx, kh, ks, kc = jax.random.split(key, 4)
        return SCRNParams(
            w_x=input_init(kx, (i, h), dtype),
            w_h=recurrent_init(kh, (h, h), dtype),
            w_s=input_init(ks, (i, s), dtype),
            w_c=input_init(kc, (s, h), dtype),
            beta=jnp.full((s,), math.log(self.alpha / (1 - self.alpha)), dtype) if self.adaptive else None,
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> SCRNState:
        """Returns zeros: `h` `[*batch_shape, H]` and `s` `[*batch_shape, S]`."""
        return SCRNState(
            h=jnp.zeros((*batch_shape, self.hidden_size), dtype),
            s=jnp.zeros((*batch_shape, self.context_size), dtype),
        )

    def project(self, params: SCRNParams, x: Array) -> tuple[Array, Array]:
        """Returns `x W_x` and `(1 - α) x W_s`."""
        s = jnp.matmul(x, params.w_s)
        return jnp.matmul(x, params.w_x), (1 - self._alpha(params, s)) * s

    def step(
        self, params: SCRNParams, state: SCRNState, drive: tuple[Array, Array]
    ) -> tuple[SCRNState, tuple[Array, Array]]:
        """Takes one step from `(h, s)` to `(h', s')`; the output is both."""
        x_h, x_s = drive
        s = x_s + self._alpha(params, state.s) * state.s
        h = jax.nn.sigmoid(x_h + dot(state.h, params.w_h) + dot(s, params.w_c))
        return SCRNState(h, s), (h, s)

    def readout(self, params: SCRNParams, output: tuple[Array, Array], drive: tuple[Array, Array]) -> Array:
        """Returns `[h', s']`."""
        del params, drive
        h, s = output
        return jnp.concatenate([h, s.astype(h.dtype)], axis=-1)

    def _alpha(self, params: SCRNParams, s: Array) -> Array | float:
        """Returns the share of a context `s` `[*batch, S]` that is kept."""
        return self.alpha if params.beta is None else repeat_like(jax.nn.sigmoid(params.beta), s)
