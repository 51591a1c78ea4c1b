"""Independently recurrent neural network (Li et al. 2018)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_activations, check_initializers, check_sizes
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
class IndRNN(Cell[IndRNNParams, IndRNNState]):
    """Independently recurrent neural network: each unit sees only its own old value.

        h' = φ(x W_x + u ⊙ h + b)        y = h'

    There is no product in its step; units mix in the layers of a stack. A gradient over T steps grows at most by the
    factor γ if |u| <= γ^(1/T). The paper has γ = 2 and draws u uniformly from 0 to that bound:
    `init(key, recurrent_init=jax.nn.initializers.uniform(2 ** (1 / T)))`.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units.
        activation: φ, by default the ReLU.

    Params:
        w_x: `[I, H]`.
        u: `[H]`.
        b: `[H]`.

    Raises:
        TypeError: an activation is not a function.
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
        check_activations(activation=self.activation)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = jax.nn.initializers.uniform(1.0),
        bias_init: Initializer = initializers.zeros,
    ) -> IndRNNParams:
        """Returns fresh parameters.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of `w_x`; by default `lecun_normal`.
            recurrent_init: of `u` `[H]`, by default uniform on [0, 1).
            bias_init: of `b`; sees `[1, H]`; by default zeros.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init, bias_init=bias_init)
        i, h = self.input_size, self.hidden_size
        kx, ku, kb = jax.random.split(key, 3)
        return IndRNNParams(
            w_x=input_init(kx, (i, h), dtype),
            u=recurrent_init(ku, (h,), dtype),
            b=bias_init(kb, (1, h), dtype)[0],
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> IndRNNState:
        """Returns zeros `[*batch_shape, H]`."""
        return IndRNNState(h=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: IndRNNParams, x: Array) -> Array:
        """Returns `x W_x + b`."""
        return affine(x, params.w_x, params.b)

    def step(self, params: IndRNNParams, state: IndRNNState, drive: Array) -> tuple[IndRNNState, Array]:
        """Takes one step from `h` to `h'`."""
        h = self.activation(drive + weigh(state.h, params.u))
        return IndRNNState(h), h
