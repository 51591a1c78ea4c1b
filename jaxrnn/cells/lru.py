"""Linear recurrent unit (Orvieto et al. 2023)."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxrnn.cell import LinearCell
from jaxrnn.checks import check_positive, check_sizes
from jaxrnn.ops import complex_dtype, dot, repeat_like, to_complex, to_real, weigh, wide
from jaxrnn.typing import Array, DTypeLike, Key

__all__ = ["LRU", "LRUParams", "LRUState"]


class LRUParams(NamedTuple):
    """Parameters of `LRU`, all real."""

    nu: Array  # [H], ν: log of minus the log of |λ|
    theta: Array  # [H], θ: log of the phase of λ
    gamma: Array  # [H], γ: log of the input's scale
    w_x: Array  # [I, 2H], blocks Re, Im
    w_y: Array  # [2H, I], blocks Re, Im of rows
    d: Array  # [I]


class LRUState(NamedTuple):
    """State of `LRU`."""

    h: Array  # [*batch, H] complex


@dataclass(frozen=True)
class LRU(LinearCell[LRUParams, LRUState]):
    """Linear recurrent unit: a complex diagonal recurrence, stable by its parametrization; the output is as long as x.

        λ = exp(-exp(ν) + i exp(θ))             |λ| < 1
        h' = λ ⊙ h + exp(γ) ⊙ (x W_x)
        y = Re(h' W_y) + d ⊙ x

    In the paper's layer a nonlinear unit such as a GLU follows `y`. In bfloat16 the rounding of `nu` changes 1 - |λ|,
    and so how long the state remembers.

    Args:
        input_size: I, length of the last axis of the input and of the output.
        hidden_size: H, complex values of state.
        scan: "sequential" or "associative", see `LinearCell`.

    Params:
        nu: `[H]`, ν: log of minus the log of |λ|.
        theta: `[H]`, θ: log of the phase of λ.
        gamma: `[H]`, γ: log of the input's scale.
        w_x: `[I, 2H]`, blocks Re, Im.
        w_y: `[2H, I]`, blocks Re, Im of rows.
        d: `[I]`.

    Raises:
        ValueError: a size is not a positive integer, or `scan` is unknown.

    Example:
        >>> import jaxrnn
        >>> cell = LRU(input_size=3, hidden_size=4, scan="associative")
        >>> params = cell.init(jax.random.key(0), r_min=0.9, r_max=0.999)
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.h.shape, state.h.dtype
        ((5, 2, 3), (2, 4), dtype('complex64'))

    Reference: Orvieto et al. 2023, "Resurrecting recurrent neural networks for long sequences", section 3.
    """

    input_size: int
    hidden_size: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)

    @property
    def output_size(self) -> int:
        """I, `input_size`."""
        return self.input_size

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * math.pi,
    ) -> LRUParams:
        """Returns fresh parameters, λ uniform on a ring; white noise gives `h` the variance of the input product.

        Args:
            key: a typed key.
            dtype: of every parameter.
            r_min: inner radius of the ring.
            r_max: outer radius of the ring.
            max_phase: the greatest phase of λ, in radians; the least is 0.

        Raises:
            ValueError: not 0 <= r_min < r_max <= 1, or `max_phase` is not positive.
        """
        if not 0 <= r_min < r_max <= 1:
            raise ValueError(f"r_min, r_max: got {r_min} and {r_max}, needs 0 <= r_min < r_max <= 1")
        check_positive(max_phase=max_phase)
        i, h = self.input_size, self.hidden_size
        kr, kp, kx, ky, kd = jax.random.split(key, 5)
        draw = np.promote_types(dtype, np.float32)
        # Just above zero, for the logarithms.
        u_r, u_p = (jax.random.uniform(k, (h,), draw, 1e-6, 1.0 - 1e-6) for k in (kr, kp))
        square = u_r * (r_max**2 - r_min**2) + r_min**2  # |λ|²
        w_x = jax.random.normal(kx, (i, 2 * h), dtype) / (2 * i) ** 0.5
        return LRUParams(
            nu=jnp.log(-0.5 * jnp.log(square)).astype(dtype),
            theta=jnp.log(max_phase * u_p).astype(dtype),
            gamma=(0.5 * jnp.log(1 - square)).astype(dtype),
            w_x=w_x,
            w_y=jax.random.normal(ky, (2 * h, i), dtype) / h**0.5,
            d=jax.random.normal(kd, (i,), dtype),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> LRUState:
        """Returns complex zeros `[*batch_shape, H]`."""
        return LRUState(h=jnp.zeros((*batch_shape, self.hidden_size), complex_dtype(dtype)))

    def project(self, params: LRUParams, x: Array) -> tuple[Array, Array]:
        """Returns `exp(γ) ⊙ (x W_x)`, blocks Re and Im, and the input for `readout`."""
        scale = jnp.exp(jnp.concatenate([params.gamma, params.gamma]))
        return weigh(jnp.matmul(x, params.w_x), scale), x

    def coefficients(self, params: LRUParams, drive: tuple[Array, Array]) -> tuple[LRUState, LRUState]:
        """Returns `λ` and `exp(γ) ⊙ (x W_x)`."""
        b = to_complex(drive[0])
        a = jnp.exp(lax.complex(-jnp.exp(wide(params.nu)), jnp.exp(wide(params.theta))))
        return LRUState(repeat_like(a, b)), LRUState(b)

    def readout(self, params: LRUParams, output: LRUState, drive: tuple[Array, Array]) -> Array:
        """Returns `Re(h' W_y) + d ⊙ x`, as one real product."""
        x = drive[1]
        return dot(to_real(jnp.conj(output.h)), params.w_y).astype(x.dtype) + weigh(x, params.d)
