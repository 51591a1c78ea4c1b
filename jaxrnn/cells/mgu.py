"""Minimal gated unit (Zhou, Wu, Zhang & Zhou 2016)."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_activations, check_choice, check_initializers, check_sizes
from jaxrnn.ops import add_bias, affine, dot, gates
from jaxrnn.typing import Activation, Array, DTypeLike, Initializer, Key

__all__ = ["MGU", "MGUParams", "MGUState"]


class MGUParams(NamedTuple):
    """Parameters of `MGU`; what an option leaves out is None."""

    w_x: Array  # [I, 2H], blocks f, n
    w_h: Array  # [H, 2H], blocks f, n; reset before: [H, H], block f
    b: Array  # [2H]
    b_n: Array | None = None  # [H], the recurrent candidate bias, reset after only
    w_n: Array | None = None  # [H, H], reset before only


class MGUState(NamedTuple):
    """State of `MGU`."""

    h: Array  # [*batch, H]


@dataclass(frozen=True)
class MGU(Cell[MGUParams, MGUState]):
    """Minimal gated unit: one gate is the reset gate and the update gate of a GRU.

        f = σ(x W_xf + h W_hf + b_f)

        reset="before", the paper's:
        n = φ(x W_xn + b_n + (f ⊙ h) W_n)               h' = (1 - f) ⊙ h + f ⊙ n        y = h'

        reset="after", Flax's:
        n = φ(x W_xn + b_xn + f ⊙ (h W_hn + b_n))       h' = f ⊙ h + (1 - f) ⊙ n        y = h'

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units.
        reset: whether f resets h "before" or "after" the recurrent product of the candidate. It also decides which of h
            and n an open f takes. Their weights cannot be converted into each other.
        activation: φ, by default tanh.

    Params:
        w_x: `[I, 2H]`, blocks f, n.
        w_h: `[H, 2H]`, blocks f, n; reset before: `[H, H]`, block f.
        b: `[2H]`.
        b_n: `[H]`, the recurrent candidate bias, reset after only, or None.
        w_n: `[H, H]`, reset before only, or None.

    Raises:
        TypeError: an activation is not a function.
        ValueError: a size is not a positive integer, or `reset` is neither "before" nor "after".

    Example:
        >>> cell = MGU(input_size=3, hidden_size=4)
        >>> params = cell.init(jax.random.key(0))
        >>> state, y = cell(params, cell.initial_state((2,)), jnp.ones((2, 3)))
        >>> y.shape
        (2, 4)

    Reference: Zhou, Wu, Zhang & Zhou 2016, "Minimal gated unit for recurrent neural networks".
    """

    input_size: int
    hidden_size: int
    reset: Literal["before", "after"] = "before"
    activation: Activation = jnp.tanh

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_choice(reset=self.reset, among=("before", "after"))
        check_activations(activation=self.activation)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.orthogonal(),
        bias_init: Initializer = initializers.zeros,
    ) -> MGUParams:
        """Returns fresh parameters, initialized block by block.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`; by default `lecun_normal`.
            recurrent_init: of each `[H, H]` block of `w_h`, and of `w_n`; by default `orthogonal`.
            bias_init: of `b` and of `b_n`; sees `[2, H]`, rows f, n, and `[1, H]`; by default zeros.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init, bias_init=bias_init)
        i, h = self.input_size, self.hidden_size
        after = self.reset == "after"
        kx, kh, kb, kr, kn = jax.random.split(key, 5)
        return MGUParams(
            w_x=initializers.blocks(kx, input_init, (i, h), 2, dtype),
            w_h=initializers.blocks(kh, recurrent_init, (h, h), 2 if after else 1, dtype),
            b=bias_init(kb, (2, h), dtype).reshape(2 * h),
            b_n=bias_init(kr, (1, h), dtype)[0] if after else None,
            w_n=None if after else recurrent_init(kn, (h, h), dtype),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> MGUState:
        """Returns zeros `[*batch_shape, H]`."""
        return MGUState(h=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: MGUParams, x: Array) -> tuple[Array, ...]:
        """Returns `x W_x + b` as the tuple f, n."""
        return gates(affine(x, params.w_x, params.b), 2)

    def step(self, params: MGUParams, state: MGUState, drive: tuple[Array, ...]) -> tuple[MGUState, Array]:
        """Takes one step from `h` to `h'`."""
        (h,), (x_f, x_n) = state, drive
        if params.w_n is not None:
            f = jax.nn.sigmoid(x_f + dot(h, params.w_h))
            n = self.activation(x_n + dot(f * h, params.w_n))
            h = (1 - f) * h + f * n
        else:
            h_f, h_n = gates(dot(h, params.w_h), 2)
            f = jax.nn.sigmoid(x_f + h_f)
            n = self.activation(x_n + f * add_bias(h_n, params.b_n))
            h = f * h + (1 - f) * n
        return MGUState(h), h
