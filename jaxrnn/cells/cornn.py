"""Coupled oscillatory recurrent network (Rusch & Mishra 2021)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_initializers, check_positive, check_sizes
from jaxrnn.ops import affine, dot
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["CoRNN", "CoRNNParams", "CoRNNState"]


class CoRNNParams(NamedTuple):
    """Parameters of `CoRNN`."""

    w_x: Array  # [I, H]
    w_h: Array  # [2H, H], W_h above W_z
    b: Array  # [H]


class CoRNNState(NamedTuple):
    """State of `CoRNN`."""

    h: Array  # [*batch, H], positions
    z: Array  # [*batch, H], velocities


@dataclass(frozen=True)
class CoRNN(Cell[CoRNNParams, CoRNNState]):
    """Coupled oscillatory recurrent network: every unit is a driven and damped oscillator.

        z' = z + Δt (tanh(x W_x + h W_h + z W_z + b) - γ h - ε z)        velocities
        h' = h + Δt z'                                                   positions; y = h'

    The three constants depend on the task; by default they are the authors' for sequential MNIST.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, oscillators.
        step_size: Δt.
        frequency: γ, the square of the oscillators' frequency.
        damping: ε.

    Params:
        w_x: `[I, H]`.
        w_h: `[2H, H]`, W_h above W_z.
        b: `[H]`.

    Raises:
        ValueError: a size is not a positive integer, or a constant is not positive.

    Example:
        >>> cell = CoRNN(input_size=3, hidden_size=4)
        >>> params = cell.init(jax.random.key(0))
        >>> state, y = cell(params, cell.initial_state((2,)), jnp.ones((2, 3)))
        >>> y.shape, state.z.shape
        ((2, 4), (2, 4))

    Reference: Rusch & Mishra 2021, "Coupled oscillatory recurrent neural network (coRNN)", in the explicit
    form of the authors' code.
    """

    input_size: int
    hidden_size: int
    step_size: float = 0.042
    frequency: float = 2.7
    damping: float = 4.7

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_positive(step_size=self.step_size, frequency=self.frequency, damping=self.damping)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
    ) -> CoRNNParams:
        """Returns fresh parameters, all uniform in ±1/sqrt(I + 2H) by default.

        Args:
            key: a typed key.
            dtype: of every parameter.
            weight_init: of `w_x` and of `w_h` `[2H, H]`.
            bias_init: of `b`; sees `[1, H]`.
        """
        i, h = self.input_size, self.hidden_size
        kx, kh, kb = jax.random.split(key, 3)
        default = initializers.uniform((i + 2 * h) ** -0.5)
        weight_init, bias_init = weight_init or default, bias_init or default
        check_initializers(weight_init=weight_init, bias_init=bias_init)
        return CoRNNParams(
            w_x=weight_init(kx, (i, h), dtype),
            w_h=weight_init(kh, (2 * h, h), dtype),
            b=bias_init(kb, (1, h), dtype)[0],
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> CoRNNState:
        """Returns oscillators at rest: zeros, `h` and `z` `[*batch_shape, H]`."""
        shape = (*batch_shape, self.hidden_size)
        return CoRNNState(h=jnp.zeros(shape, dtype), z=jnp.zeros(shape, dtype))

    def project(self, params: CoRNNParams, x: Array) -> Array:
        """Returns `x W_x + b`."""
        return affine(x, params.w_x, params.b)

    def step(self, params: CoRNNParams, state: CoRNNState, drive: Array) -> tuple[CoRNNState, Array]:
        """Takes one step from `(h, z)` to `(h', z')`."""
        force = jnp.tanh(drive + dot(jnp.concatenate([state.h, state.z], axis=-1), params.w_h))
        z = state.z + self.step_size * (force - self.frequency * state.h - self.damping * state.z)
        h = state.h + self.step_size * z
        return CoRNNState(h, z), h
