"""Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000)."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_activations, check_bools, check_heads, check_initializers, check_sizes
from jaxrnn.ops import add, affine, gates, recurrent
from jaxrnn.typing import Activation, Array, DTypeLike, Initializer, Key

__all__ = ["LSTM", "LSTMParams", "LSTMState"]


class LSTMParams(NamedTuple):
    """Parameters of `LSTM`; `b` is None without bias."""

    w_x: Array  # [I, 4H], blocks i, f, g, o
    w_h: Array  # [H, 4H]; with several heads [heads, H / heads, 4H / heads]
    b: Array | None  # [4H]


class LSTMState(NamedTuple):
    """State of `LSTM`, in PyTorch's order."""

    h: Array  # [*batch, H]
    c: Array  # [*batch, H]


@dataclass(frozen=True)
class LSTM(Cell[LSTMParams, LSTMState]):
    """Long short-term memory; gate order i, f, g, o, as in PyTorch, Keras and Flax.

        i, f, g, o = x W_x + h W_h + b
        c' = σ(f) ⊙ c + σ(i) ⊙ φ(g)
        h' = σ(o) ⊙ ψ(c')                       y = h'

    `VanillaLSTM` has peepholes, fewer gates, or a clipped memory; `Projected(LSTM(I, H), R)` projects `h'` (PyTorch's
    `proj_size`).

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, memory cells.
        use_bias: whether there is a `b`.
        gate_activation: σ, by default the logistic function.
        candidate_activation: φ, by default tanh.
        output_activation: ψ, by default tanh.
        heads: number of groups of units; the recurrent product connects the units of a group only.

    Params:
        w_x: `[I, 4H]`, blocks i, f, g, o.
        w_h: `[H, 4H]`; with several heads `[heads, H / heads, 4H / heads]`.
        b: `[4H]`, or None.

    Raises:
        TypeError: an activation is not a function, or `use_bias` is not a bool.
        ValueError: a size is not a positive integer, or `heads` does not divide `hidden_size`.

    Example:
        >>> import jaxrnn
        >>> cell = LSTM(input_size=3, hidden_size=4)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.c.shape
        ((5, 2, 4), (2, 4))

    Reference: Hochreiter & Schmidhuber 1997, "Long short-term memory"; Gers, Schmidhuber & Cummins 2000, "Learning to
    forget".
    """

    input_size: int
    hidden_size: int
    use_bias: bool = True
    gate_activation: Activation = jax.nn.sigmoid
    candidate_activation: Activation = jnp.tanh
    output_activation: Activation = jnp.tanh
    heads: int = 1
    alike: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_heads(self.heads, hidden_size=self.hidden_size)
        check_bools(use_bias=self.use_bias)
        check_activations(
            gate_activation=self.gate_activation,
            candidate_activation=self.candidate_activation,
            output_activation=self.output_activation,
        )

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.orthogonal(),
        bias_init: Initializer = initializers.zeros,
        forget_bias: float = 1.0,
    ) -> LSTMParams:
        """Returns fresh parameters, initialized gate by gate.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`; by default `lecun_normal`.
            recurrent_init: of each `[H, H]` block of `w_h`; with several heads, of each head's block; by default
                `orthogonal`.
            bias_init: of `b`; sees `[4, H]`, one row per gate; by default zeros. Ignored without bias.
            forget_bias: added to the bias of f, so that the memory starts open. Ignored without bias.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init, bias_init=bias_init)
        i, h = self.input_size, self.hidden_size
        kx, kh, kb = jax.random.split(key, 3)
        b = bias_init(kb, (4, h), dtype).at[1].add(forget_bias).reshape(4 * h)
        return LSTMParams(
            w_x=initializers.blocks(kx, input_init, (i, h), 4, dtype),
            w_h=initializers.blocks(kh, recurrent_init, (h, h), 4, dtype, self.heads),
            b=b if self.use_bias else None,
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> LSTMState:
        """Returns zeros, `h` and `c` `[*batch_shape, H]`."""
        shape = (*batch_shape, self.hidden_size)
        return LSTMState(h=jnp.zeros(shape, dtype), c=jnp.zeros(shape, dtype))

    def project(self, params: LSTMParams, x: Array) -> tuple[Array, ...]:
        """Returns `x W_x + b` as the tuple i, f, g, o."""
        return gates(affine(x, params.w_x, params.b), 4)

    def step(self, params: LSTMParams, state: LSTMState, drive: tuple[Array, ...]) -> tuple[LSTMState, Array]:
        """Takes one step from `(h, c)` to `(h', c')`."""
        i, f, g, o = add(drive, recurrent(state.h, params.w_h, 4))
        c = self.gate_activation(f) * state.c + self.gate_activation(i) * self.candidate_activation(g)
        h = self.gate_activation(o) * self.output_activation(c)
        return LSTMState(h, c), h
