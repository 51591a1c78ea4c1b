"""Independently recurrent neural network (Li et al. 2018).

    h' = φ(x W_x + u ⊙ h + b)

Each unit sees its own old value alone; units mix in the layers of a stack. φ is the ReLU, or any activation.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_sizes
from jaxrnn.ops import affine, weigh
from jaxrnn.typing import Activation, Array, DTypeLike, Initializer, Key

__all__ = ["IndRNN", "IndRNNParams", "IndRNNState"]


class IndRNNParams(NamedTuple):
    """Parameters of `IndRNN`."""

    w_x: Array  # [I, H]
    u: Array  # [H]
    b: Array  # [H]


class IndRNNState(NamedTuple):
    """State of `IndRNN`."""

    h: Array  # [*batch, H]


@dataclass(frozen=True)
class IndRNN(Cell):
    """Independently recurrent neural network: no product in its step.

        h' = φ(x W_x + u ⊙ h + b)        y = h'

    Over T steps a gradient stays within a factor of γ where |u| is at most γ^(1/T). The paper draws u uniformly from 0
    to that, with γ = 2: `init(key, recurrent_init=jax.nn.initializers.uniform(2 ** (1 / T)))`.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units.
        activation: φ, by default the ReLU.

    Raises:
        ValueError: a size is not a positive integer.

    Example:
        >>> import jaxrnn
        >>> net = jaxrnn.Stack((IndRNN(3, 4), IndRNN(4, 4)))
        >>> params = net.init(jax.random.key(0))
        >>> bool(jnp.all((params[0].u >= 0) & (params[0].u < 1)))
        True

    Reference: Li, Li, Cook, Zhu & Gao 2018, "Independently recurrent neural network (IndRNN): Building a longer and
    deeper RNN".
    """

    input_size: int
    hidden_size: int
    activation: Activation = jax.nn.relu

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.glorot_uniform(),
        recurrent_init: Initializer = jax.nn.initializers.uniform(1.0),
        bias_init: Initializer = initializers.zeros,
    ) -> IndRNNParams:
        """Fresh parameters; `recurrent_init` sees `[H]`, by default uniform on [0, 1), and `bias_init` `[1, H]`."""
        i, h = self.input_size, self.hidden_size
        kx, ku, kb = jax.random.split(key, 3)
        return IndRNNParams(
            w_x=input_init(kx, (i, h), dtype),
            u=recurrent_init(ku, (h,), dtype),
            b=bias_init(kb, (1, h), dtype)[0],
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> IndRNNState:
        """Zeros `[*batch_shape, H]`."""
        return IndRNNState(h=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: IndRNNParams, x: Array) -> Array:
        """`x W_x + b`."""
        return affine(x, params.w_x, params.b)

    def step(self, params: IndRNNParams, state: IndRNNState, drive: Array) -> tuple[IndRNNState, Array]:
        """`h' = φ(drive + u ⊙ h)`."""
        h = self.activation(drive + weigh(state.h, params.u))
        return IndRNNState(h), h
