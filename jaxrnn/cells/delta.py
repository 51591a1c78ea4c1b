"""Fast weights: gated linear attention (Yang et al. 2024) and the delta rule's memory (Schlag et al. 2021).

q, k, v = x W_x                             of each head
gated linear attention:  S' = α ⊙ S + k v^T                 α one number for each entry of the key
delta rule:              S' = S + β k (v - k S)^T           writes v over what k finds
y = q S'
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_heads, check_positive, check_sizes
from jaxrnn.engine.chunks import StepData, even_chunk
from jaxrnn.engine.pairs import at_once, chunk_of_pairs, since_reset
from jaxrnn.ops import affine, gates, keep, safe_sqrt
from jaxrnn.typing import Array, DTypeLike, Initializer, Key, PyTree

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
class GatedLinearAttention(Cell):
    """Gated linear attention: a matrix for a memory whose rows decay at rates that the input sets.

        q, k, v = x W_x                         of each head d = H / heads
        α = σ(x W_a W_b + b)^(1/τ)
        S' = α ⊙ S + k v^T
        y = q S' / √d

    `unroll` computes the outputs of a chunk of steps at once, from products over all of its pairs of steps.

    The paper's layer goes on with a normalization of each head, a gate and a projection.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units of all heads together.
        heads: memories, each of d x d numbers.
        rank: L, dimensions that the decay sees the input through.
        temperature: τ; the greater, the slower the memory decays.

    Raises:
        ValueError: a size is not a positive integer, `heads` does not divide H, or `temperature` is not positive.

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

    def step(self, params: GLAParams, state: GLAState, drive: tuple[Array, ...]) -> tuple[GLAState, Array]:
        """One step from `S` to `S'`; the output is read while the memory is at hand."""
        del params
        q, k, v, log_a = drive
        s = jnp.exp(log_a)[..., :, None] * state.s + k[..., :, None] * v[..., None, :]
        return GLAState(s), _row(q, s)

    def readout(self, params: GLAParams, output: Array, drive: tuple[Array, ...]) -> Array:
        """The heads side by side."""
        del params, drive
        return output.reshape(*output.shape[:-2], -1)

    def run_chunk(self, params: GLAParams, state: GLAState, data: StepData, reverse: bool) -> tuple[GLAState, Array]:
        """All steps of a chunk at once."""
        del params
        return at_once(_gla_at_once, state, data, reverse, state.s.ndim - 3)

    def chunk_size(self, steps: int, drive: PyTree, state: GLAState) -> int:
        """Steps a chunk by default: few, each pair of them has a decay for each entry of the key."""
        del drive, state
        return even_chunk(steps, 8)


def _gla_at_once(state: GLAState, data: StepData) -> tuple[GLAState, Array]:
    """All steps of a chunk.

        A_ts = α_{s+1} ⊙ … ⊙ α_t                        of s ≤ t; s = 0 stands for the memory before
        y_t  = (q_t ⊙ A_t0) S_0 + Σ_s (q_t · A_ts ⊙ k_s) v_s
        S_t  = A_t0 ⊙ S_0 + Σ_s (A_ts ⊙ k_s) v_s^T      needed of the last t alone

    Reference: Yang et al. 2024, "Gated linear attention transformers with hardware-efficient training", section 4.
    """
    (q, k, v, log_a), valid = data.drives, data.valid
    if valid is not None:
        k, log_a = keep(valid, (k, log_a))
    q, k, v, log_a = (jnp.moveaxis(a, 0, -2) for a in (q, k, v, log_a))
    *batch, _, steps, _ = q.shape
    seen = since_reset(data, tuple(batch), steps)[..., None, :, :, None]
    # A factor below exp(-50) is as good as zero, and sums of such would take the digits of others in the chunk.
    total = jnp.cumsum(jnp.maximum(log_a, jnp.full_like(log_a, -50.0)), axis=-2)
    since = total[..., :, None, :] - jnp.pad(total, [(0, 0)] * (total.ndim - 2) + [(1, 0), (0, 0)])[..., None, :, :]
    seen = jnp.broadcast_to(seen, since.shape)
    decay = jnp.where(seen, jnp.exp(jnp.where(seen, since, jnp.zeros_like(since))), jnp.zeros_like(since))
    old, new = decay[..., 0, :], decay[..., 1:, :] * k[..., None, :, :]
    y = jnp.matmul(q * old, state.s) + jnp.matmul(jnp.sum(q[..., :, None, :] * new, axis=-1), v)
    s = old[..., -1, :, None] * state.s + jnp.matmul(jnp.swapaxes(new[..., -1, :, :], -1, -2), v)
    return GLAState(s), jnp.moveaxis(y, -2, 0)


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

    `unroll` computes the outputs of a chunk of steps at once, from products over all of its pairs of steps.

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

    def run_chunk(
        self, params: DeltaNetParams, state: DeltaNetState, data: StepData, reverse: bool
    ) -> tuple[DeltaNetState, Array]:
        """All steps of a chunk at once."""
        del params
        return at_once(_delta_at_once, state, data, reverse, state.s.ndim - 3)

    def chunk_size(self, steps: int, drive: PyTree, state: DeltaNetState) -> int:
        """Steps a chunk by default."""
        del drive, state
        return chunk_of_pairs(steps)


def _delta_at_once(state: DeltaNetState, data: StepData) -> tuple[DeltaNetState, Array]:
    """All steps of a chunk. What the steps write, the rows of U, is the solution of one triangular system.

        u_t = β_t (v_t - k_t S_{t-1}),                  S_t = S_0 + Σ_{s ≤ t} k_s u_s^T
        u_t + β_t Σ_{s < t} (k_t · k_s) u_s = β_t (v_t - k_t S_0)
        y_t = q_t S_0 + Σ_{s ≤ t} (q_t · k_s) u_s

    Reference: Yang et al. 2024, "Parallelizing linear transformers with the delta rule over sequence length".
    """
    (q, k, v, b), valid = data.drives, data.valid
    if valid is not None:
        b = keep(valid, b)
    q, k, v = (jnp.moveaxis(a, 0, -2) for a in (q, k, v))
    b = jnp.moveaxis(b, 0, -1)[..., None]
    *batch, _, steps, _ = q.shape
    seen = since_reset(data, tuple(batch), steps)[..., None, :, :]
    old, new = seen[..., :1].astype(k.dtype), seen[..., 1:].astype(k.dtype)
    keys = jnp.swapaxes(k, -1, -2)
    found = old * jnp.matmul(k, state.s)
    u = jnp.matmul(_inverse(b * new * jnp.matmul(k, keys)), b * (v - found))
    y = old * jnp.matmul(q, state.s) + jnp.matmul(new * jnp.matmul(q, keys), u)
    s = old[..., -1:, :] * state.s + jnp.matmul(keys * new[..., -1:, :], u)
    return DeltaNetState(s), jnp.moveaxis(y, -2, 0)


def _inverse(a: Array) -> Array:
    """`(1 + A)^-1` of the `A` below the diagonal of `a` `[..., T, T]`; what stands elsewhere is not read.

    Blocks of twice the size at each round, all of them at once:

        ( L_1   0  )^-1     (       L_1^-1          0    )
        (  A   L_2 )     =  ( -L_2^-1 A L_1^-1   L_2^-1  )

    (XLA's CPU runtime can wait forever for LAPACK's triangular solve within a loop.)
    """
    *batch, steps, _ = a.shape
    size = 1 << (steps - 1).bit_length()
    a = jnp.pad(a, [(0, 0)] * len(batch) + [(0, size - steps)] * 2)
    inverse = jnp.ones((*batch, size, 1, 1), a.dtype)
    while (m := inverse.shape[-1]) < size:
        pairs = size // (2 * m)
        below = a.reshape(*batch, pairs, 2, m, pairs, 2, m)[..., 1, :, :, 0, :]
        same = jnp.broadcast_to(np.eye(pairs, dtype=bool)[:, None, :, None], below.shape)
        below = jnp.sum(jnp.where(same, below, jnp.zeros_like(below)), axis=-2)
        first, second = inverse[..., ::2, :, :], inverse[..., 1::2, :, :]
        corner = -jnp.matmul(jnp.matmul(second, below), first)
        upper = jnp.concatenate([first, jnp.zeros_like(first)], axis=-1)
        inverse = jnp.concatenate([upper, jnp.concatenate([corner, second], axis=-1)], axis=-2)
    return inverse[..., 0, :steps, :steps]


def _row(q: Array, s: Array) -> Array:
    """`q S`, head by head: `[..., d] x [..., d, d] -> [..., d]`."""
    return jnp.sum(q[..., :, None] * s, axis=-2)


def _unit(k: Array) -> Array:
    """`k` of length one, or zero; the derivative at zero is zero."""
    length = safe_sqrt(jnp.sum(k * k, axis=-1, keepdims=True))
    return k / jnp.where(length == 0, jnp.ones_like(length), length)
