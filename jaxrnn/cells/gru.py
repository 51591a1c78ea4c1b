"""Gated recurrent unit (Cho et al. 2014)."""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_activations, check_bools, check_choice, check_heads, check_initializers, check_sizes
from jaxrnn.ops import add_bias, affine, gates, recurrent
from jaxrnn.typing import Activation, Array, DTypeLike, Initializer, Key

__all__ = ["GRU", "GRUParams", "GRUState"]


class GRUParams(NamedTuple):
    """Parameters of `GRU`; what an option leaves out is None."""

    w_x: Array  # [I, 3H], blocks r, z, n
    w_h: Array  # [H, kH], k = 3 blocks r, z, n, reset before r, z; with several heads [heads, H / heads, kH / heads]
    b: Array | None  # [3H]
    b_n: Array | None = None  # [H], the recurrent candidate bias, reset after only
    w_n: Array | None = None  # [H, H], reset before only; with several heads [heads, H / heads, H / heads]


class GRUState(NamedTuple):
    """State of `GRU`."""

    h: Array  # [*batch, H]


@dataclass(frozen=True)
class GRU(Cell[GRUParams, GRUState]):
    """Gated recurrent unit; `z` keeps the old state.

        r = σ(x W_xr + h W_hr + b_r)
        z = σ(x W_xz + h W_hz + b_z)
        n = φ(x W_xn + b_xn + r ⊙ (h W_hn + b_n))     reset="after": PyTorch, cuDNN, Flax, Keras
        n = φ(x W_xn + b_xn + (r ⊙ h) W_n)            reset="before": the paper, Haiku, Element-Research
        h' = (1 - z) ⊙ n + z ⊙ h                      y = h'

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units.
        reset: whether the reset gate acts "after" the recurrent product of the candidate (one product a step) or
            "before" it (two). Their weights cannot be converted into each other.
        use_bias: whether there are `b` and `b_n`.
        gate_activation: σ, by default the logistic function.
        activation: φ, by default tanh.
        heads: number of groups of units; the recurrent products connect the units of a group only.

    Params:
        w_x: `[I, 3H]`, blocks r, z, n.
        w_h: `[H, kH]`, k = 3 blocks r, z, n, reset before r, z; with several heads `[heads, H / heads, kH / heads]`.
        b: `[3H]`, or None.
        b_n: `[H]`, the recurrent candidate bias, reset after only, or None.
        w_n: `[H, H]`, reset before only; with several heads `[heads, H / heads, H / heads]`, or None.

    Raises:
        TypeError: an activation is not a function, or `use_bias` is not a bool.
        ValueError: a size is not a positive integer, `reset` is neither "after" nor "before", or `heads` does not
            divide `hidden_size`.

    Example:
        >>> import jaxrnn
        >>> cell = GRU(input_size=3, hidden_size=4)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.h.shape
        ((5, 2, 4), (2, 4))

    Reference: Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder".
    """

    input_size: int
    hidden_size: int
    reset: Literal["after", "before"] = "after"
    use_bias: bool = True
    gate_activation: Activation = jax.nn.sigmoid
    activation: Activation = jnp.tanh
    heads: int = 1
    alike: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_choice(reset=self.reset, among=("after", "before"))
        check_heads(self.heads, hidden_size=self.hidden_size)
        check_bools(use_bias=self.use_bias)
        check_activations(gate_activation=self.gate_activation, activation=self.activation)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.orthogonal(),
        bias_init: Initializer = initializers.zeros,
        recurrent_bias_init: Initializer = initializers.zeros,
    ) -> GRUParams:
        """Returns fresh parameters, initialized gate by gate.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`; by default `lecun_normal`.
            recurrent_init: of each `[H, H]` block of `w_h`, and of `w_n`; with several heads, of each head's block; by
                default `orthogonal`.
            bias_init: of `b`; sees `[3, H]`, one row per gate; by default zeros. Ignored without bias.
            recurrent_bias_init: of `b_n` `[H]`; by default zeros. Ignored without bias, or with the reset before.
        """
        check_initializers(
            input_init=input_init,
            recurrent_init=recurrent_init,
            bias_init=bias_init,
            recurrent_bias_init=recurrent_bias_init,
        )
        i, h = self.input_size, self.hidden_size
        after = self.reset == "after"
        kx, kh, kb, kr, kn = jax.random.split(key, 5)
        return GRUParams(
            w_x=initializers.blocks(kx, input_init, (i, h), 3, dtype),
            w_h=initializers.blocks(kh, recurrent_init, (h, h), 3 if after else 2, dtype, self.heads),
            b=bias_init(kb, (3, h), dtype).reshape(3 * h) if self.use_bias else None,
            b_n=recurrent_bias_init(kr, (h,), dtype) if self.use_bias and after else None,
            w_n=None if after else initializers.blocks(kn, recurrent_init, (h, h), 1, dtype, self.heads),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> GRUState:
        """Returns zeros `[*batch_shape, H]`."""
        return GRUState(h=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: GRUParams, x: Array) -> tuple[Array, ...]:
        """Returns `x W_x + b` as the tuple r, z, n."""
        return gates(affine(x, params.w_x, params.b), 3)

    def step(self, params: GRUParams, state: GRUState, drive: tuple[Array, ...]) -> tuple[GRUState, Array]:
        """Takes one step from `h` to `h'`."""
        x_r, x_z, x_n = drive
        h_r, h_z, *rest = recurrent(state.h, params.w_h, 3 if params.w_n is None else 2)
        r = self.gate_activation(x_r + h_r)
        z = self.gate_activation(x_z + h_z)
        if params.w_n is not None:
            (h_n,) = recurrent(r * state.h, params.w_n, 1)
            n = self.activation(x_n + h_n)
        else:
            n = self.activation(x_n + r * add_bias(rest[0], params.b_n))
        h = (1 - z) * n + z * state.h
        return GRUState(h), h
