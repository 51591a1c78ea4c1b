"""Simple recurrent network (Elman 1990)."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_activations, check_bools, check_heads, check_initializers, check_sizes
from jaxrnn.ops import affine, recurrent
from jaxrnn.typing import Activation, Array, DTypeLike, Initializer, Key

__all__ = ["Elman", "ElmanParams", "ElmanState"]


class ElmanParams(NamedTuple):
    """Parameters of `Elman`; `b` is None without bias."""

    w_x: Array  # [I, H]
    w_h: Array  # [H, H], with several heads [heads, H / heads, H / heads]
    b: Array | None  # [H]


class ElmanState(NamedTuple):
    """State of `Elman`."""

    h: Array  # [*batch, H]


@dataclass(frozen=True)
class Elman(Cell[ElmanParams, ElmanState]):
    """Elman's simple recurrent network.

        h' = φ(x W_x + h W_h + b)        y = h'

    With `activation=jax.nn.relu` and `init(key, recurrent_init=jaxrnn.initializers.identity())` it is the IRNN of Le,
    Jaitly & Hinton 2015.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units.
        activation: φ, by default tanh.
        use_bias: whether there is a `b`.
        heads: number of groups of units; `W_h` connects the units of a group only.

    Params:
        w_x: `[I, H]`.
        w_h: `[H, H]`, with several heads `[heads, H / heads, H / heads]`.
        b: `[H]`, or None.

    Raises:
        TypeError: an activation is not a function, or `use_bias` is not a bool.
        ValueError: a size is not a positive integer, or `heads` does not divide `hidden_size`.

    Example:
        >>> cell = Elman(input_size=3, hidden_size=4)
        >>> params = cell.init(jax.random.key(0))
        >>> state, y = cell(params, cell.initial_state((2,)), jnp.ones((2, 3)))
        >>> y.shape
        (2, 4)

    Reference: Elman 1990, "Finding structure in time".
    """

    input_size: int
    hidden_size: int
    activation: Activation = jnp.tanh
    use_bias: bool = True
    heads: int = 1
    alike: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_heads(self.heads, hidden_size=self.hidden_size)
        check_bools(use_bias=self.use_bias)
        check_activations(activation=self.activation)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.orthogonal(),
        bias_init: Initializer = initializers.zeros,
    ) -> ElmanParams:
        """Returns fresh parameters.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of `w_x`; by default `lecun_normal`.
            recurrent_init: of `w_h`; with several heads, of each head's block; by default `orthogonal`.
            bias_init: of `b`; sees `[1, H]`; by default zeros. Ignored without bias.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init, bias_init=bias_init)
        i, h = self.input_size, self.hidden_size
        kx, kh, kb = jax.random.split(key, 3)
        return ElmanParams(
            w_x=input_init(kx, (i, h), dtype),
            w_h=initializers.blocks(kh, recurrent_init, (h, h), 1, dtype, self.heads),
            b=bias_init(kb, (1, h), dtype)[0] if self.use_bias else None,
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> ElmanState:
        """Returns zeros `[*batch_shape, H]`."""
        return ElmanState(h=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: ElmanParams, x: Array) -> Array:
        """Returns `x W_x + b`."""
        return affine(x, params.w_x, params.b)

    def step(self, params: ElmanParams, state: ElmanState, drive: Array) -> tuple[ElmanState, Array]:
        """Takes one step from `h` to `h'`."""
        (seen,) = recurrent(state.h, params.w_h, 1)
        h = self.activation(drive + seen)
        return ElmanState(h), h
