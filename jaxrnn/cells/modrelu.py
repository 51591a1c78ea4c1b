"""Recurrent network with modReLU (Arjovsky, Shah & Bengio 2016)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_initializers, check_sizes
from jaxrnn.ops import add_bias, dot
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["ModReLU", "ModReLUParams", "ModReLUState"]


class ModReLUParams(NamedTuple):
    """Parameters of `ModReLU`."""

    w_x: Array  # [I, H]
    w_h: Array  # [H, H]
    b: Array  # [H]


class ModReLUState(NamedTuple):
    """State of `ModReLU`."""

    h: Array  # [*batch, H]


@dataclass(frozen=True)
class ModReLU(Cell[ModReLUParams, ModReLUState]):
    """Simple recurrent network with modReLU, which keeps the sign and adds a learned bias to the magnitude.

        z = x W_x + h W_h
        h' = sign(z) ⊙ max(|z| + b, 0)        y = h'

    Its recurrent matrix is meant to stay orthogonal: `jaxrnn.networks.Orthogonal(ModReLU(3, 4))` is the expRNN.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units.

    Params:
        w_x: `[I, H]`.
        w_h: `[H, H]`.
        b: `[H]`.

    Raises:
        ValueError: a size is not a positive integer.

    Example:
        >>> cell = ModReLU(input_size=3, hidden_size=4)
        >>> params = cell.init(jax.random.key(0))
        >>> state, y = cell(params, cell.initial_state((2,)), jnp.ones((2, 3)))
        >>> y.shape
        (2, 4)

    Reference: Arjovsky, Shah & Bengio 2016, "Unitary evolution recurrent neural networks"; real and orthogonal:
    Lezcano-Casado & Martínez-Rubio 2019, "Cheap orthogonal constraints in neural networks".
    """

    input_size: int
    hidden_size: int

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = jax.nn.initializers.variance_scaling(2.0, "fan_in", "normal"),
        recurrent_init: Initializer = initializers.orthogonal(),
        bias_init: Initializer = initializers.uniform(0.01),
    ) -> ModReLUParams:
        """Returns fresh parameters, as in the code of Lezcano-Casado & Martínez-Rubio.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of `w_x`; by default normal with variance 2 / I.
            recurrent_init: of `w_h`; by default `orthogonal`.
            bias_init: of `b`; sees `[1, H]`; by default uniform in ±0.01.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init, bias_init=bias_init)
        kx, kh, kb = jax.random.split(key, 3)
        return ModReLUParams(
            w_x=input_init(kx, (self.input_size, self.hidden_size), dtype),
            w_h=recurrent_init(kh, (self.hidden_size, self.hidden_size), dtype),
            b=bias_init(kb, (1, self.hidden_size), dtype)[0],
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> ModReLUState:
        """Returns zeros `[*batch_shape, H]`."""
        return ModReLUState(h=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: ModReLUParams, x: Array) -> Array:
        """Returns `x W_x`."""
        return jnp.matmul(x, params.w_x)

    def step(self, params: ModReLUParams, state: ModReLUState, drive: Array) -> tuple[ModReLUState, Array]:
        """Takes one step from `h` to `h'`."""
        z = drive + dot(state.h, params.w_h)
        h = jnp.sign(z) * jax.nn.relu(add_bias(jnp.abs(z), params.b))
        return ModReLUState(h), h
