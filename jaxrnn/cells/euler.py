"""A step of an ordinary differential equation (AntisymmetricRNN: Chang, Chen, Haber & Chi 2019)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_bools, check_initializers, check_positive, check_sizes
from jaxrnn.ops import affine, dot, gates
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["Euler", "EulerParams", "EulerState"]


class EulerParams(NamedTuple):
    """Parameters of `Euler`."""

    w_x: Array  # [I, nH], n = 2 blocks z, h with a gate, else 1
    w_h: Array  # [H, H], one for both blocks
    b: Array  # [nH]


class EulerState(NamedTuple):
    """State of `Euler`."""

    h: Array  # [*batch, H]


@dataclass(frozen=True)
class Euler(Cell[EulerParams, EulerState]):
    """A forward Euler step of an ordinary differential equation, with or without a gate on its speed.

        z = σ(x W_xz + h W_h + b_z), or 1 without a gate
        h' = h + ε z ⊙ tanh(x W_x + h W_h + b)        y = h'

    Gate and candidate share the recurrent matrix. `jaxrnn.networks.Antisymmetric(Euler(3, 4))` is the AntisymmetricRNN,
    whose differential equation neither grows nor forgets.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units.
        step_size: ε.
        gated: whether there is a z.

    Params:
        w_x: `[I, nH]`, n = 2 blocks z, h with a gate, else 1.
        w_h: `[H, H]`, one for both blocks.
        b: `[nH]`.

    Raises:
        TypeError: `gated` is not a bool.
        ValueError: a size is not a positive integer, or ε is not positive.

    Example:
        >>> cell = Euler(input_size=3, hidden_size=4)
        >>> params = cell.init(jax.random.key(0))
        >>> state, y = cell(params, cell.initial_state((2,)), jnp.ones((2, 3)))
        >>> y.shape
        (2, 4)

    Reference: Chang, Chen, Haber & Chi 2019, "AntisymmetricRNN: a dynamical system view on recurrent neural networks".
    """

    input_size: int
    hidden_size: int
    step_size: float = 0.01
    gated: bool = True

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_positive(step_size=self.step_size)
        check_bools(gated=self.gated)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.lecun_normal(),
        bias_init: Initializer = initializers.zeros,
    ) -> EulerParams:
        """Returns fresh parameters.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`; by default `lecun_normal`.
            recurrent_init: of `w_h`; by default `lecun_normal`.
            bias_init: of `b`; sees `[n, H]`, one row per block; by default zeros.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init, bias_init=bias_init)
        i, h, n = self.input_size, self.hidden_size, 2 if self.gated else 1
        kx, kh, kb = jax.random.split(key, 3)
        return EulerParams(
            w_x=initializers.blocks(kx, input_init, (i, h), n, dtype),
            w_h=recurrent_init(kh, (h, h), dtype),
            b=bias_init(kb, (n, h), dtype).reshape(n * h),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> EulerState:
        """Returns zeros `[*batch_shape, H]`."""
        return EulerState(h=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: EulerParams, x: Array) -> tuple[Array, ...]:
        """Returns `x W_x + b` as the tuple z, h, or the tuple h without a gate."""
        return gates(affine(x, params.w_x, params.b), 2 if self.gated else 1)

    def step(self, params: EulerParams, state: EulerState, drive: tuple[Array, ...]) -> tuple[EulerState, Array]:
        """Takes one step from `h` to `h'`."""
        *x_z, x_h = drive
        seen = dot(state.h, params.w_h)
        slope = jnp.tanh(x_h + seen)
        for z in x_z:
            slope = jax.nn.sigmoid(z + seen) * slope
        h = state.h + self.step_size * slope
        return EulerState(h), h
