"""Minimal GRU and LSTM, linear in their state (Feng et al. 2024)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import LinearCell
from jaxrnn.checks import check_activations, check_bools, check_initializers, check_sizes
from jaxrnn.ops import affine, gates
from jaxrnn.typing import Activation, Array, DTypeLike, Initializer, Key

__all__ = ["MinGRU", "MinGRUParams", "MinGRUState", "MinLSTM", "MinLSTMParams", "MinLSTMState", "positive"]


def positive(x: Array) -> Array:
    """Returns the paper's `g(x)`, a candidate above zero: x + 1/2 for x >= 0, else σ(x).

    Example:
        >>> positive(jnp.array([0.0, 1.0])).tolist()
        [0.5, 1.5]
    """
    return jnp.where(x >= 0, x + 0.5, jax.nn.sigmoid(x))


class MinGRUParams(NamedTuple):
    """Parameters of `MinGRU`."""

    w_x: Array  # [I, 2H], blocks z, n
    b: Array | None  # [2H]


class MinGRUState(NamedTuple):
    """State of `MinGRU`."""

    h: Array  # [*batch, H]


@dataclass(frozen=True)
class MinGRU(LinearCell[MinGRUParams, MinGRUState]):
    """Minimal gated recurrent unit, linear in its state.

        z, n = x W_x + b
        h' = (1 - σ(z)) ⊙ h + σ(z) ⊙ φ(n)       y = h'

    With tanh for φ it is the gated impulse linear recurrence (GILR) of Martin & Cundy, whose gate is 1 - σ(z), and the
    QRNN's f-pooling. The paper computes in log-space, because it divides by products of gates, which underflow. The
    associative scan here only multiplies and adds gates, and gives the same values.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units.
        activation: φ, by default the paper's `positive`; `jax.nn.identity` is the paper's first form.
        use_bias: whether there is a `b`.
        scan: "sequential" or "associative", see `LinearCell`.

    Params:
        w_x: `[I, 2H]`, blocks z, n.
        b: `[2H]`, or None.

    Raises:
        TypeError: an activation is not a function, or `use_bias` is not a bool.
        ValueError: a size is not a positive integer, or `scan` is unknown.

    Example:
        >>> import jaxrnn
        >>> cell = MinGRU(input_size=3, hidden_size=4, scan="associative")
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.h.shape
        ((5, 2, 4), (2, 4))

    Reference: Feng et al. 2024, "Were RNNs all we needed?", section 3.1; Martin & Cundy 2018, "Parallelizing linear
    recurrent neural nets over sequence length".
    """

    input_size: int
    hidden_size: int
    activation: Activation = positive
    use_bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_bools(use_bias=self.use_bias)
        check_activations(activation=self.activation)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        bias_init: Initializer = initializers.zeros,
    ) -> MinGRUParams:
        """Returns fresh parameters, initialized gate by gate.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`; by default `lecun_normal`.
            bias_init: of `b`; sees `[2, H]`, one row per gate; by default zeros. Ignored without bias.
        """
        check_initializers(input_init=input_init, bias_init=bias_init)
        i, h = self.input_size, self.hidden_size
        kx, kb = jax.random.split(key)
        return MinGRUParams(
            w_x=initializers.blocks(kx, input_init, (i, h), 2, dtype),
            b=bias_init(kb, (2, h), dtype).reshape(2 * h) if self.use_bias else None,
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> MinGRUState:
        """Returns zeros `[*batch_shape, H]`."""
        return MinGRUState(h=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: MinGRUParams, x: Array) -> tuple[Array, Array]:
        """Returns `σ(z)` and `φ(n)`."""
        z, n = gates(affine(x, params.w_x, params.b), 2)
        return jax.nn.sigmoid(z), self.activation(n)

    def coefficients(self, params: MinGRUParams, drive: tuple[Array, Array]) -> tuple[MinGRUState, MinGRUState]:
        """Returns `1 - z` and `z ⊙ n`."""
        del params
        z, n = drive
        return MinGRUState(1 - z), MinGRUState(z * n)

    def readout(self, params: MinGRUParams, output: MinGRUState, drive: tuple[Array, Array]) -> Array:
        """Returns `h'`."""
        del params, drive
        return output.h


class MinLSTMParams(NamedTuple):
    """Parameters of `MinLSTM`."""

    w_x: Array  # [I, 3H], blocks f, i, n
    b: Array | None  # [3H]


class MinLSTMState(NamedTuple):
    """State of `MinLSTM`."""

    h: Array  # [*batch, H]


@dataclass(frozen=True)
class MinLSTM(LinearCell[MinLSTMParams, MinLSTMState]):
    """Minimal long short-term memory, linear in its state.

        f, i, n = x W_x + b
        f̄, ī = σ(f) / (σ(f) + σ(i)), σ(i) / (σ(f) + σ(i))      with normalize, else σ(f), σ(i)
        h' = f̄ ⊙ h + ī ⊙ φ(n)                                  y = h'

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units.
        normalize: whether the two gates sum to one, so that the scale of `h` does not grow with time.
        activation: φ, by default the paper's `positive`; `jax.nn.identity` is the paper's first form.
        use_bias: whether there is a `b`.
        scan: "sequential" or "associative", see `LinearCell`.

    Params:
        w_x: `[I, 3H]`, blocks f, i, n.
        b: `[3H]`, or None.

    Raises:
        TypeError: an activation is not a function, or a flag is not a bool.
        ValueError: a size is not a positive integer, or `scan` is unknown.

    Example:
        >>> import jaxrnn
        >>> cell = MinLSTM(input_size=3, hidden_size=4)
        >>> params = cell.init(jax.random.key(0), forget_bias=1.0)
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.h.shape
        ((5, 2, 4), (2, 4))

    Reference: Feng et al. 2024, "Were RNNs all we needed?", section 3.2.
    """

    input_size: int
    hidden_size: int
    normalize: bool = True
    activation: Activation = positive
    use_bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_bools(normalize=self.normalize, use_bias=self.use_bias)
        check_activations(activation=self.activation)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        bias_init: Initializer = initializers.zeros,
        forget_bias: float = 0.0,
    ) -> MinLSTMParams:
        """Returns fresh parameters, initialized gate by gate.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`; by default `lecun_normal`.
            bias_init: of `b`; sees `[3, H]`, one row per gate; by default zeros. Ignored without bias.
            forget_bias: added to the bias of f. Ignored without bias.
        """
        check_initializers(input_init=input_init, bias_init=bias_init)
        i, h = self.input_size, self.hidden_size
        kx, kb = jax.random.split(key)
        b = bias_init(kb, (3, h), dtype).at[0].add(forget_bias).reshape(3 * h)
        return MinLSTMParams(w_x=initializers.blocks(kx, input_init, (i, h), 3, dtype), b=b if self.use_bias else None)

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> MinLSTMState:
        """Returns zeros `[*batch_shape, H]`."""
        return MinLSTMState(h=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: MinLSTMParams, x: Array) -> tuple[Array, Array, Array]:
        """Returns `f̄`, `ī` and `φ(n)`."""
        f, i, n = gates(affine(x, params.w_x, params.b), 3)
        if self.normalize:
            # σ(f) / (σ(f) + σ(i)), finite where both round to zero.
            f = jax.nn.log_sigmoid(f) - jax.nn.log_sigmoid(i)
            i = -f
        return jax.nn.sigmoid(f), jax.nn.sigmoid(i), self.activation(n)

    def coefficients(
        self, params: MinLSTMParams, drive: tuple[Array, Array, Array]
    ) -> tuple[MinLSTMState, MinLSTMState]:
        """Returns `f̄` and `ī ⊙ φ(n)`."""
        del params
        f, i, n = drive
        return MinLSTMState(f), MinLSTMState(i * n)

    def readout(self, params: MinLSTMParams, output: MinLSTMState, drive: tuple[Array, Array, Array]) -> Array:
        """Returns `h'`."""
        del params, drive
        return output.h
