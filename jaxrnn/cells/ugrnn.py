"""Update gate RNN (Collins, Sohl-Dickstein & Sussillo 2017)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_activations, check_initializers, check_sizes
from jaxrnn.ops import add, affine, dot, gates
from jaxrnn.typing import Activation, Array, DTypeLike, Initializer, Key

__all__ = ["UGRNN", "UGRNNParams", "UGRNNState"]


class UGRNNParams(NamedTuple):
    """Parameters of `UGRNN`."""

    w_x: Array  # [I, 2H], blocks g, n
    w_h: Array  # [H, 2H]
    b: Array  # [2H]


class UGRNNState(NamedTuple):
    """State of `UGRNN`."""

    h: Array  # [*batch, H]


@dataclass(frozen=True)
class UGRNN(Cell[UGRNNParams, UGRNNState]):
    """Update gate RNN: a simple recurrent unit with a gate that keeps the old state.

        g = σ(x W_xg + h W_hg + b_g)
        n = φ(x W_xn + h W_hn + b_n)
        h' = g ⊙ h + (1 - g) ⊙ n                y = h'

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units.
        activation: φ, by default tanh.

    Params:
        w_x: `[I, 2H]`, blocks g, n.
        w_h: `[H, 2H]`.
        b: `[2H]`.

    Raises:
        TypeError: an activation is not a function.
        ValueError: a size is not a positive integer.

    Example:
        >>> cell = UGRNN(input_size=3, hidden_size=4)
        >>> cell.init(jax.random.key(0)).b.tolist()
        [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]

    Reference: Collins, Sohl-Dickstein & Sussillo 2017, "Capacity and trainability in recurrent neural networks".
    """

    input_size: int
    hidden_size: int
    activation: Activation = jnp.tanh

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_activations(activation=self.activation)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.orthogonal(),
        bias_init: Initializer = initializers.zeros,
        gate_bias: float = 1.0,
    ) -> UGRNNParams:
        """Returns fresh parameters, initialized block by block.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`; by default `lecun_normal`.
            recurrent_init: of each `[H, H]` block of `w_h`; by default `orthogonal`.
            bias_init: of `b`; sees `[2, H]`, rows g, n; by default zeros.
            gate_bias: added to the bias of g, so that the unit keeps its state at first.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init, bias_init=bias_init)
        i, h = self.input_size, self.hidden_size
        kx, kh, kb = jax.random.split(key, 3)
        return UGRNNParams(
            w_x=initializers.blocks(kx, input_init, (i, h), 2, dtype),
            w_h=initializers.blocks(kh, recurrent_init, (h, h), 2, dtype),
            b=bias_init(kb, (2, h), dtype).at[0].add(gate_bias).reshape(2 * h),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> UGRNNState:
        """Returns zeros `[*batch_shape, H]`."""
        return UGRNNState(h=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: UGRNNParams, x: Array) -> tuple[Array, ...]:
        """Returns `x W_x + b` as the tuple g, n."""
        return gates(affine(x, params.w_x, params.b), 2)

    def step(self, params: UGRNNParams, state: UGRNNState, drive: tuple[Array, ...]) -> tuple[UGRNNState, Array]:
        """Takes one step from `h` to `h'`."""
        g, n = add(drive, gates(dot(state.h, params.w_h), 2))
        g = jax.nn.sigmoid(g)
        h = g * state.h + (1 - g) * self.activation(n)
        return UGRNNState(h), h
