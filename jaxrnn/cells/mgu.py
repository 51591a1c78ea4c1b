"""Cells with one gate: the minimal gated unit (Zhou et al. 2016) and the update gate RNN (Collins et al. 2017).

    f = σ(x W_xf + h W_hf + b_f)

    MGU, reset before    n = φ(x W_xn + b_xn + (f ⊙ h) W_n)             h' = (1 - f) ⊙ h + f ⊙ n
    MGU, reset after     n = φ(x W_xn + b_xn + f ⊙ (h W_hn + b_n))      h' = f ⊙ h + (1 - f) ⊙ n
    UGRNN                n = φ(x W_xn + b_xn + h W_hn)                  h' = f ⊙ h + (1 - f) ⊙ n

The gate of the UGRNN is named g in its paper and below.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_choice, check_sizes
from jaxrnn.ops import add, add_bias, affine, dot, gates
from jaxrnn.typing import Activation, Array, DTypeLike, Initializer, Key

__all__ = ["MGU", "UGRNN", "MGUParams", "MGUState", "UGRNNParams", "UGRNNState"]


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
class MGU(Cell):
    """Minimal gated unit: one gate is the reset gate and the update gate of a GRU.

        f = σ(x W_xf + h W_hf + b_f)

        reset="before", the paper's:
        n = φ(x W_xn + b_n + (f ⊙ h) W_n)               h' = (1 - f) ⊙ h + f ⊙ n        y = h'

        reset="after", Flax's:
        n = φ(x W_xn + b_xn + f ⊙ (h W_hn + b_n))       h' = f ⊙ h + (1 - f) ⊙ n        y = h'

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units.
        reset: "before" or "after" the recurrent product of the candidate; with it goes which of h and n the gate takes.
            Weights of one cannot be turned into weights of the other.
        activation: φ, by default tanh.

    Raises:
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

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.glorot_uniform(),
        recurrent_init: Initializer = initializers.orthogonal(),
        bias_init: Initializer = initializers.zeros,
    ) -> MGUParams:
        """Fresh parameters, block by block; `bias_init` sees `[2, H]`, rows f, n, and of `b_n` `[1, H]`."""
        i, h = self.input_size, self.hidden_size
        after = self.reset == "after"
        kx, kh, kb, kr, kn = jax.random.split(key, 5)
        return MGUParams(
            w_x=initializers.blocks(input_init, kx, (i, h), 2, dtype),
            w_h=initializers.blocks(recurrent_init, kh, (h, h), 2 if after else 1, dtype),
            b=bias_init(kb, (2, h), dtype).reshape(2 * h),
            b_n=bias_init(kr, (1, h), dtype)[0] if after else None,
            w_n=None if after else recurrent_init(kn, (h, h), dtype),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> MGUState:
        """Zeros `[*batch_shape, H]`."""
        return MGUState(h=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: MGUParams, x: Array) -> tuple[Array, ...]:
        """`x W_x + b`, as the tuple f, n."""
        return gates(affine(x, params.w_x, params.b), 2)

    def step(self, params: MGUParams, state: MGUState, drive: tuple[Array, ...]) -> tuple[MGUState, Array]:
        """One step from `h` to `h'`."""
        (h,), (x_f, x_n) = state, drive
        h_f, *h_n = gates(dot(h, params.w_h), 2 if params.w_n is None else 1)
        f = jax.nn.sigmoid(x_f + h_f)
        if params.w_n is not None:
            h = (1 - f) * h + f * self.activation(x_n + dot(f * h, params.w_n))
        else:
            h = f * h + (1 - f) * self.activation(x_n + f * add_bias(h_n[0], params.b_n))
        return MGUState(h), h


class UGRNNParams(NamedTuple):
    """Parameters of `UGRNN`."""

    w_x: Array  # [I, 2H], blocks g, n
    w_h: Array  # [H, 2H]
    b: Array  # [2H]


class UGRNNState(NamedTuple):
    """State of `UGRNN`."""

    h: Array  # [*batch, H]


@dataclass(frozen=True)
class UGRNN(Cell):
    """Update gate RNN: an Elman unit with a gate that keeps the old state.

        g = σ(x W_xg + h W_hg + b_g)
        n = φ(x W_xn + h W_hn + b_n)
        h' = g ⊙ h + (1 - g) ⊙ n                y = h'

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units.
        activation: φ, by default tanh.

    Raises:
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

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.glorot_uniform(),
        recurrent_init: Initializer = initializers.orthogonal(),
        bias_init: Initializer = initializers.zeros,
        gate_bias: float = 1.0,
    ) -> UGRNNParams:
        """Fresh parameters, block by block; `bias_init` sees `[2, H]`, rows g, n, and `gate_bias` is added to g's."""
        i, h = self.input_size, self.hidden_size
        kx, kh, kb = jax.random.split(key, 3)
        return UGRNNParams(
            w_x=initializers.blocks(input_init, kx, (i, h), 2, dtype),
            w_h=initializers.blocks(recurrent_init, kh, (h, h), 2, dtype),
            b=bias_init(kb, (2, h), dtype).at[0].add(gate_bias).reshape(2 * h),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> UGRNNState:
        """Zeros `[*batch_shape, H]`."""
        return UGRNNState(h=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: UGRNNParams, x: Array) -> tuple[Array, ...]:
        """`x W_x + b`, as the tuple g, n."""
        return gates(affine(x, params.w_x, params.b), 2)

    def step(self, params: UGRNNParams, state: UGRNNState, drive: tuple[Array, ...]) -> tuple[UGRNNState, Array]:
        """One step from `h` to `h'`."""
        g, n = add(drive, gates(dot(state.h, params.w_h), 2))
        g = jax.nn.sigmoid(g)
        h = g * state.h + (1 - g) * self.activation(n)
        return UGRNNState(h), h
