"""Real-gated linear recurrent unit of Griffin and RecurrentGemma (De et al. 2024)."""

from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import initializers
from jaxrnn.cell import LinearCell
from jaxrnn.checks import check_heads, check_initializers, check_positive, check_sizes
from jaxrnn.ops import add_bias, gates, recurrent, safe_sqrt, weigh
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["RGLRU", "RGLRUParams", "RGLRUState"]


class RGLRUParams(NamedTuple):
    """Parameters of `RGLRU`."""

    decay: Array  # [H], λ
    w_x: Array  # [H, 2H], blocks r, i; with several heads [heads, H / heads, 2H / heads]
    b: Array  # [2H], blocks r, i


class RGLRUState(NamedTuple):
    """State of `RGLRU`."""

    h: Array  # [*batch, H]


@dataclass(frozen=True)
class RGLRU(LinearCell[RGLRUParams, RGLRUState]):
    """Real-gated linear recurrent unit, linear in its state; input, state and output have the same length.

        r, i = σ(x W_x + b)
        log a = -c r ⊙ softplus(-λ)             a = σ(λ)^(c r)
        h' = a ⊙ h + √(1 - a²) ⊙ i ⊙ x          y = h'

    Args:
        hidden_size: H, length of the last axis of input, state and output.
        heads: number of groups of units; a gate sees only the inputs of its group. Griffin has 16.
        power: c, by default the paper's 8.
        scan: "sequential" or "associative", see `LinearCell`.

    Params:
        decay: `[H]`, λ.
        w_x: `[H, 2H]`, blocks r, i; with several heads `[heads, H / heads, 2H / heads]`.
        b: `[2H]`, blocks r, i.

    Raises:
        ValueError: a size is not a positive integer, `heads` does not divide `hidden_size`, `power` is not positive, or
            `scan` is unknown.

    Example:
        >>> import jaxrnn
        >>> cell = RGLRU(hidden_size=4, heads=2)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 4)))
        >>> ys.shape, state.h.shape
        ((5, 2, 4), (2, 4))

    Reference: De et al. 2024, "Griffin: mixing gated linear recurrences with local attention for efficient language
    models", section 2.4 and appendix A.
    """

    hidden_size: int
    _: KW_ONLY
    heads: int = 1
    power: float = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(hidden_size=self.hidden_size)
        check_heads(self.heads, hidden_size=self.hidden_size)
        check_positive(power=self.power)

    @property
    def input_size(self) -> int:
        """H, `hidden_size`."""
        return self.hidden_size

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        bias_init: Initializer = initializers.zeros,
        a_min: float = 0.9,
        a_max: float = 0.999,
    ) -> RGLRUParams:
        """Returns fresh parameters.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[H, H]` block of `w_x`; with several heads, of each head's block; by default
                `lecun_normal`.
            bias_init: of `b`; sees `[2, H]`, one row per gate; by default zeros.
            a_min: the least `a` at an open gate, r = 1; λ is drawn so that `a` is uniform.
            a_max: the greatest `a` at an open gate.

        Raises:
            ValueError: not 0 < a_min < a_max < 1.
        """
        check_initializers(input_init=input_init, bias_init=bias_init)
        if not 0 < a_min < a_max < 1:
            raise ValueError(f"a_min, a_max: got {a_min} and {a_max}, needs 0 < a_min < a_max < 1")
        h = self.hidden_size
        ka, kx, kb = jax.random.split(key, 3)
        draw = np.promote_types(dtype, np.float32)
        log_a = jnp.log(jax.random.uniform(ka, (h,), draw, a_min, a_max)) / self.power
        return RGLRUParams(
            # The inverse of the logistic function at a.
            decay=(log_a - jnp.log(-jnp.expm1(log_a))).astype(dtype),
            w_x=initializers.blocks(kx, input_init, (h, h), 2, dtype, self.heads),
            b=bias_init(kb, (2, h), dtype).reshape(2 * h),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> RGLRUState:
        """Returns zeros `[*batch_shape, H]`."""
        return RGLRUState(h=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: RGLRUParams, x: Array) -> tuple[Array, Array]:
        """Returns `log a` and `i ⊙ x`."""
        z = recurrent(x, params.w_x, 2)
        r, i = (jax.nn.sigmoid(add_bias(g, b)) for g, b in zip(z, gates(params.b, 2), strict=True))
        return weigh(r, -self.power * jax.nn.softplus(-params.decay)), i * x

    def coefficients(self, params: RGLRUParams, drive: tuple[Array, Array]) -> tuple[RGLRUState, RGLRUState]:
        """Returns `a` and `√(1 - a²) ⊙ i ⊙ x`."""
        del params
        log_a, x = drive
        root = safe_sqrt(-jnp.expm1(2 * log_a))  # √(1 - a²), zero where the gate is closed
        return RGLRUState(jnp.exp(log_a)), RGLRUState(root * x)

    def readout(self, params: RGLRUParams, output: RGLRUState, drive: tuple[Array, Array]) -> Array:
        """Returns `h'`."""
        del params, drive
        return output.h
