"""Fast weights: gated linear attention (Yang et al. 2024), linear in its matrix state, and the delta rule's memory.

q, k, v = x W_x                             of each head
gated linear attention:  S' = α ⊙ S + k v^T                 α one number for each entry of the key
delta rule:              S' = S + β k (v - k S)^T           writes v over what k finds
y = q S'
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell, affine, gates
from jaxrnn.checks import check_heads, check_positive, check_sizes
from jaxrnn.linear import LinearCell
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["DeltaNet", "DeltaNetParams", "DeltaNetState", "GLAParams", "GLAState", "GatedLinearAttention"]


class GLAParams(NamedTuple):
    """Parameters of `GatedLinearAttention`."""

    w_x: Array  # [I, 3H], blocks q, k, v, of each the heads side by side
    w_a: Array  # [I, L], into few dimensions
    w_b: Array  # [L, H], and out of them
    b: Array  # [H]


class GLAState(NamedTuple):
    """State of `GatedLinearAttention`; d = H / heads."""

    s: Array  # [*batch, heads, d, d], a row for each entry of the key


@dataclass(frozen=True)
class GatedLinearAttention(LinearCell):
    """Gated linear attention: a matrix for a memory whose rows decay at rates that the input sets.

        q, k, v = x W_x                         of each head d = H / heads
        α = σ(x W_a W_b + b)^(1/τ)
        S' = α ⊙ S + k v^T
        y = q S' / √d

    The paper's layer goes on with a normalisation of each head, a gate and a projection.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units of all heads together.
        heads: memories, each of d x d numbers.
        rank: L, dimensions that the decay sees the input through.
        temperature: τ; the greater, the slower the memory decays.
        scan: "sequential" or "associative", see `LinearCell`.

    Raises:
        ValueError: a size is not a positive integer, `heads` does not divide H, `temperature` is not positive, or
            `scan` is unknown.

    Example:
        >>> import jaxrnn
        >>> cell = GatedLinearAttention(input_size=3, hidden_size=4, heads=2)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.s.shape
        ((5, 2, 4), (2, 2, 2, 2))

    Reference: Yang et al. 2024, "Gated linear attention transformers with hardware-efficient training", section 4.
    """

    input_size: int
    hidden_size: int
    heads: int = 1
    rank: int = 16
    temperature: float = 16.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size, rank=self.rank)
        check_heads(self.heads, hidden_size=self.hidden_size)
        check_positive(temperature=self.temperature)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.glorot_uniform(),
        bias_init: Initializer = initializers.zeros,
    ) -> GLAParams:
        """Fresh parameters.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`, of `w_a` and of `w_b`.
            bias_init: of `b` `[H]`.
        """
        i, h = self.input_size, self.hidden_size
        kx, ka, kb, kc = jax.random.split(key, 4)
        return GLAParams(
            w_x=initializers.blocks(input_init, kx, (i, h), 3, dtype),
            w_a=input_init(ka, (i, self.rank), dtype),
            w_b=input_init(kb, (self.rank, h), dtype),
            b=bias_init(kc, (h,), dtype),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> GLAState:
        """Zeros `[*batch_shape, heads, d, d]`."""
        d = self.hidden_size // self.heads
        return GLAState(s=jnp.zeros((*batch_shape, self.heads, d, d), dtype))

    def project(self, params: GLAParams, x: Array) -> tuple[Array, ...]:
        """The tuple q / √d, k, v, log α, head by head."""
        q, k, v = gates(jnp.matmul(x, params.w_x), 3)
        log_a = jax.nn.log_sigmoid(affine(jnp.matmul(x, params.w_a), params.w_b, params.b)) / self.temperature
        q = q / (self.hidden_size // self.heads) ** 0.5
        return tuple(a.reshape(*a.shape[:-1], self.heads, -1) for a in (q, k, v, log_a))

    def coefficients(self, params: GLAParams, drive: tuple[Array, ...]) -> tuple[GLAState, GLAState]:
        """`α`, the same for a whole row, and `k v^T`."""
        del params
        _, k, v, log_a = drive
        return GLAState(jnp.exp(log_a)[..., :, None]), GLAState(k[..., :, None] * v[..., None, :])

    def readout(self, params: GLAParams, output: GLAState, drive: tuple[Array, ...]) -> Array:
        """`q S'`, the heads side by side."""
        del params
        y = _row(drive[0], output.s)
        return y.reshape(*y.shape[:-2], -1)


class DeltaNetParams(NamedTuple):
    """Parameters of `DeltaNet`."""

    w_x: Array  # [I, 3H], blocks q, k, v, of each the heads side by side
    w_b: Array  # [I, heads]


class DeltaNetState(NamedTuple):
    """State of `DeltaNet`; d = H / heads."""

    s: Array  # [*batch, heads, d, d], a row for each entry of the key


@dataclass(frozen=True)
class DeltaNet(Cell):
    """The delta rule's fast weights: a memory of which a key's old value is taken out as its new one is put in.

        q, k, v = x W_x                         of each head d = H / heads
        q, k = φ(q) / ‖φ(q)‖, φ(k) / ‖φ(k)‖     φ = SiLU
        β = σ(x W_b)                            a number a head
        S' = S + β k (v - k S)^T
        y = q S'

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units of all heads together.
        heads: memories, each of d x d numbers.

    Raises:
        ValueError: a size is not a positive integer, or `heads` does not divide H.

    Example:
        >>> import jaxrnn
        >>> cell = DeltaNet(input_size=3, hidden_size=4, heads=2)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.s.shape
        ((5, 2, 4), (2, 2, 2, 2))

    Reference: Schlag, Irie & Schmidhuber 2021, "Linear transformers are secretly fast weight programmers"; SiLU and the
    norm: Yang et al. 2024, "Parallelizing linear transformers with the delta rule over sequence length".
    """

    input_size: int
    hidden_size: int
    heads: int = 1

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_heads(self.heads, hidden_size=self.hidden_size)

    def init(
        self, key: Key, *, dtype: DTypeLike = jnp.float32, input_init: Initializer = initializers.glorot_uniform()
    ) -> DeltaNetParams:
        """Fresh parameters.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`, and of `w_b`.
        """
        i, h = self.input_size, self.hidden_size
        kx, kb = jax.random.split(key)
        return DeltaNetParams(
            w_x=initializers.blocks(input_init, kx, (i, h), 3, dtype), w_b=input_init(kb, (i, self.heads), dtype)
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> DeltaNetState:
        """Zeros `[*batch_shape, heads, d, d]`."""
        d = self.hidden_size // self.heads
        return DeltaNetState(s=jnp.zeros((*batch_shape, self.heads, d, d), dtype))

    def project(self, params: DeltaNetParams, x: Array) -> tuple[Array, ...]:
        """The tuple q, k, v, head by head, and β."""
        q, k, v = (a.reshape(*a.shape[:-1], self.heads, -1) for a in gates(jnp.matmul(x, params.w_x), 3))
        return _unit(jax.nn.silu(q)), _unit(jax.nn.silu(k)), v, jax.nn.sigmoid(jnp.matmul(x, params.w_b))

    def step(
        self, params: DeltaNetParams, state: DeltaNetState, drive: tuple[Array, ...]
    ) -> tuple[DeltaNetState, Array]:
        """One step from `S` to `S'`; the output is read while the memory is at hand."""
        del params
        q, k, v, b = drive
        error = b[..., None] * (v - _row(k, state.s))
        s = state.s + k[..., :, None] * error[..., None, :]
        return DeltaNetState(s), _row(q, s)

    def readout(self, params: DeltaNetParams, output: Array, drive: tuple[Array, ...]) -> Array:
        """The heads side by side."""
        del params, drive
        return output.reshape(*output.shape[:-2], -1)


def _row(q: Array, s: Array) -> Array:
    """`q S`, head by head: `[..., d] x [..., d, d] -> [..., d]`."""
    return jnp.sum(q[..., :, None] * s, axis=-2)


def _unit(k: Array) -> Array:
    """`k` of length one, or zero; the derivative at zero is zero."""
    square = jnp.sum(k * k, axis=-1, keepdims=True)
    some = square > 0
    return k / jnp.where(some, jnp.sqrt(jnp.where(some, square, jnp.ones_like(square))), jnp.ones_like(square))
