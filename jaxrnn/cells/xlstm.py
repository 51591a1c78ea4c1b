"""The extended LSTM's two cells (Beck et al. 2024): exponential gates, kept finite by a running maximum.

    sLSTM:  i, f, z, o = x W_x + h W_h + b
            m' = max(log f + m, i)                              log f = f, or log σ(f)
            c' = exp(log f + m - m') ⊙ c + exp(i - m') ⊙ tanh(z)
            n' = exp(log f + m - m') ⊙ n + exp(i - m')
            h' = σ(o) ⊙ c' / n'

    mLSTM:  q, k, v, o = x W_x + b          i, f = x W_g + b_g, one of each a head
            m' = max(log f + m, i)
            C' = exp(log f + m - m') C + exp(i - m') k v^T / √d
            n' = exp(log f + m - m') n + exp(i - m') k / √d
            h' = σ(o) ⊙ (q C') / max(|q · n'|, exp(-m'))

`m` cancels in `h'`: c exp(m) and n exp(m) are the paper's c and n. A fresh `m` is a number far below any gate, so that
nothing is remembered from before the first step.

The sLSTM's gates see h and it is walked step by step. The mLSTM's see the input only: `unroll` takes a chunk of steps
at once, from products of its queries, keys and values, and only the memory after the chunk is passed on (`_in_chunk`).
"""

import functools
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_choice, check_heads, check_sizes
from jaxrnn.engine.chunks import StepData
from jaxrnn.engine.pairs import at_once, chunk_of_pairs
from jaxrnn.ops import add, affine, gates, keep, recurrent, select
from jaxrnn.typing import Array, DTypeLike, Initializer, Key, PyTree

__all__ = ["MLSTM", "SLSTM", "MLSTMParams", "MLSTMState", "SLSTMParams", "SLSTMState"]

_NOTHING = -1e30


class SLSTMParams(NamedTuple):
    """Parameters of `SLSTM`."""

    w_x: Array  # [I, 4H], blocks i, f, z, o
    w_h: Array  # [H, 4H], with several heads [heads, H / heads, 4H / heads]
    b: Array  # [4H]


class SLSTMState(NamedTuple):
    """State of `SLSTM`."""

    h: Array  # [*batch, H]
    c: Array  # [*batch, H], times exp(m) the memory
    n: Array  # [*batch, H], times exp(m) the normalizer
    m: Array  # [*batch, H]


@dataclass(frozen=True)
class SLSTM(Cell):
    """The scalar LSTM with exponential gates.

        i, f, z, o = x W_x + h W_h + b
        m' = max(log f + m, i)                  log f = log σ(f), or f itself
        c' = exp(log f + m - m') ⊙ c + exp(i - m') ⊙ tanh(z)
        n' = exp(log f + m - m') ⊙ n + exp(i - m')
        h' = σ(o) ⊙ c' / n'                     y = h'

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units.
        heads: groups of units in the product with h; a unit sees those of its own group only.
        forget_gate: "sigmoid" or "exponential".

    Raises:
        ValueError: a size is not a positive integer, `heads` does not divide H, or an unknown forget gate.

    Example:
        >>> import jaxrnn
        >>> cell = SLSTM(input_size=3, hidden_size=4, heads=2)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.n.shape
        ((5, 2, 4), (2, 4))

    Reference: Beck et al. 2024, "xLSTM: extended long short-term memory", section 2.2.
    """

    input_size: int
    hidden_size: int
    heads: int = 1
    forget_gate: Literal["sigmoid", "exponential"] = "sigmoid"

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_heads(self.heads, hidden_size=self.hidden_size)
        check_choice(forget_gate=self.forget_gate, among=("sigmoid", "exponential"))

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.glorot_uniform(),
        recurrent_init: Initializer = initializers.orthogonal(),
        bias_init: Initializer = initializers.zeros,
        forget_bias: float = 1.0,
    ) -> SLSTMParams:
        """Fresh parameters, gate block by gate block.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`.
            recurrent_init: of each `[H, H]` block of `w_h`, with several heads of each head's.
            bias_init: sees `[4, H]`, a row a gate.
            forget_bias: added to the forget gate's bias, so that the memory starts open.
        """
        i, h = self.input_size, self.hidden_size
        kx, kh, kb = jax.random.split(key, 3)
        return SLSTMParams(
            w_x=initializers.blocks(input_init, kx, (i, h), 4, dtype),
            w_h=initializers.blocks(recurrent_init, kh, (h, h), 4, dtype, self.heads),
            b=bias_init(kb, (4, h), dtype).at[1].add(forget_bias).reshape(4 * h),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> SLSTMState:
        """Zeros `[*batch_shape, H]`, and an `m` far below any gate."""
        shape = (*batch_shape, self.hidden_size)
        h, c, n = (jnp.zeros(shape, dtype) for _ in range(3))
        return SLSTMState(h, c, n, m=_fresh(shape, dtype))

    def project(self, params: SLSTMParams, x: Array) -> tuple[Array, ...]:
        """`x W_x + b`, as the tuple i, f, z, o."""
        return gates(affine(x, params.w_x, params.b), 4)

    def step(self, params: SLSTMParams, state: SLSTMState, drive: tuple[Array, ...]) -> tuple[SLSTMState, Array]:
        """One step from `(h, c, n, m)` to the next."""
        i, f, z, o = add(drive, recurrent(state.h, params.w_h, 4))
        keep, write, m = _stable_gates(self.forget_gate, i, f, state.m)
        c = keep * state.c + write * jnp.tanh(z)
        n = keep * state.n + write
        h = jax.nn.sigmoid(o) * c / n
        return SLSTMState(h, c, n, m), h


class MLSTMParams(NamedTuple):
    """Parameters of `MLSTM`."""

    w_x: Array  # [I, 4H], blocks q, k, v, o, of each the heads side by side
    b: Array  # [4H]
    w_g: Array  # [I, 2 heads], blocks i, f
    b_g: Array  # [2 heads]


class MLSTMState(NamedTuple):
    """State of `MLSTM`; d = H / heads."""

    c: Array  # [*batch, heads, d, d], times exp(m) the memory, a row for each entry of the key
    n: Array  # [*batch, heads, d], times exp(m) the normalizer
    m: Array  # [*batch, heads]


@dataclass(frozen=True)
class MLSTM(Cell):
    """The LSTM with a matrix for a memory and exponential gates that see the input only.

        q, k, v, o = x W_x + b                  of each head d = H / heads
        i, f = x W_g + b_g                      a number a head
        m' = max(log f + m, i)                  log f = log σ(f), or f itself
        C' = exp(log f + m - m') C + exp(i - m') k v^T / √d
        n' = exp(log f + m - m') n + exp(i - m') k / √d
        h' = σ(o) ⊙ (q C') / max(|q · n'|, exp(-m'))            y = h'

    `unroll` computes the outputs of a chunk of steps by products over all of its pairs of steps: work grows with
    T (chunk + d), and reverse mode keeps the memory before every chunk alone, whatever `save` says.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units of all heads together.
        heads: memories, each of d x d numbers.
        forget_gate: "sigmoid" or "exponential".

    Raises:
        ValueError: a size is not a positive integer, `heads` does not divide H, or an unknown forget gate.

    Example:
        >>> import jaxrnn
        >>> cell = MLSTM(input_size=3, hidden_size=4, heads=2)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.c.shape
        ((5, 2, 4), (2, 2, 2, 2))

    Reference: Beck et al. 2024, "xLSTM: extended long short-term memory", section 2.3.
    """

    input_size: int
    hidden_size: int
    heads: int = 1
    forget_gate: Literal["sigmoid", "exponential"] = "sigmoid"

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_heads(self.heads, hidden_size=self.hidden_size)
        check_choice(forget_gate=self.forget_gate, among=("sigmoid", "exponential"))

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.glorot_uniform(),
        bias_init: Initializer = initializers.zeros,
        forget_bias: float = 1.0,
    ) -> MLSTMParams:
        """Fresh parameters, block by block.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x` and each `[I, heads]` block of `w_g`.
            bias_init: sees `[4, H]`, and `[2, heads]` for the gates.
            forget_bias: added to the forget gate's bias, so that the memory starts open.
        """
        i, h, heads = self.input_size, self.hidden_size, self.heads
        kx, kb, kg, kc = jax.random.split(key, 4)
        return MLSTMParams(
            w_x=initializers.blocks(input_init, kx, (i, h), 4, dtype),
            b=bias_init(kb, (4, h), dtype).reshape(4 * h),
            w_g=initializers.blocks(input_init, kg, (i, heads), 2, dtype),
            b_g=bias_init(kc, (2, heads), dtype).at[1].add(forget_bias).reshape(2 * heads),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> MLSTMState:
        """Zeros, and an `m` far below any gate."""
        shape, d = (*batch_shape, self.heads), self.hidden_size // self.heads
        return MLSTMState(c=jnp.zeros((*shape, d, d), dtype), n=jnp.zeros((*shape, d), dtype), m=_fresh(shape, dtype))

    def project(self, params: MLSTMParams, x: Array) -> tuple[Array, ...]:
        """The tuple q, k / √d, v, σ(o), i, f, the first three and the gates head by head."""
        q, k, v, o = gates(affine(x, params.w_x, params.b), 4)
        i, f = gates(affine(x, params.w_g, params.b_g), 2)
        q, k, v = (a.reshape(*a.shape[:-1], self.heads, -1) for a in (q, k, v))
        return q, k / (self.hidden_size // self.heads) ** 0.5, v, jax.nn.sigmoid(o), i, f

    def step(
        self, params: MLSTMParams, state: MLSTMState, drive: tuple[Array, ...]
    ) -> tuple[MLSTMState, tuple[Array, Array, Array]]:
        """One step; the output is `q C'`, `q · n'` and `m'`, read while the memory is at hand."""
        del params
        q, k, v, _, i, f = drive
        keep, write, m = _stable_gates(self.forget_gate, i, f, state.m)
        c = keep[..., None, None] * state.c + (write[..., None] * k)[..., :, None] * v[..., None, :]
        n = keep[..., None] * state.n + write[..., None] * k
        return MLSTMState(c, n, m), (jnp.sum(q[..., :, None] * c, axis=-2), jnp.sum(q * n, axis=-1), m)

    def readout(self, params: MLSTMParams, output: tuple[Array, Array, Array], drive: tuple[Array, ...]) -> Array:
        """`σ(o) ⊙ (q C') / max(|q · n'|, exp(-m'))`."""
        del params
        read, weight, m = output
        # What is divided by exp(80) is zero, and where exp(-m') overflows, a derivative would be zero times infinity.
        h = read / jnp.maximum(jnp.abs(weight), jnp.exp(jnp.minimum(-m, 80.0)))[..., None]
        return drive[3] * h.reshape(*h.shape[:-2], -1)

    def run_chunk(
        self, params: MLSTMParams, state: MLSTMState, data: StepData, reverse: bool
    ) -> tuple[MLSTMState, tuple[Array, Array, Array]]:
        """All steps of a chunk at once."""
        del params
        # Lower than a fresh m is as good as fresh, minus infinity too.
        fresh = _fresh(state.m.shape, state.m.dtype)
        state = state._replace(m=jnp.where(state.m < fresh, fresh, state.m))
        return at_once(functools.partial(_in_chunk, self), state, data, reverse, state.m.ndim - 1)

    def chunk_size(self, steps: int, drive: PyTree, state: MLSTMState) -> int:
        """Steps a chunk by default."""
        del drive, state
        return chunk_of_pairs(steps)


def _in_chunk(cell: MLSTM, state: MLSTMState, data: StepData) -> tuple[MLSTMState, tuple[Array, Array, Array]]:
    """All steps of a chunk at once: the memory after it, and what `step` puts out, of every step.

        D_ts = log f_{s+1} + … + log f_t + i_s          of s ≤ t; s = 0 stands for the memory before, i_0 = m_0
        m_t  = max_s D_ts                               over s = 0 … t
        A_ts = exp(D_ts - m_t)
        q_t C_t   = A_t0 q_t C_0   + Σ_s A_ts (q_t · k_s) v_s
        q_t · n_t = A_t0 q_t · n_0 + Σ_s A_ts (q_t · k_s)
        C_t = A_t0 C_0 + Σ_s A_ts k_s v_s^T,    n_t = A_t0 n_0 + Σ_s A_ts k_s       needed of the last t alone

    A step beyond a row's length has log f = 0, and an i so low that nothing is written. A reset before a step is a gate
    that forgets all: log f is as low as a fresh m.

    Reference: Beck et al. 2024, appendix A.3; by chunks: Beck, Pöppel, Lippe & Hochreiter 2025, "Tiled flash linear
    attention: more efficient linear RNN and xLSTM kernels", section 2.
    """
    (q, k, v, _, i, f), valid, resets, _ = data
    c, n, m = state
    log_f = _log_forget(cell.forget_gate, f)
    if valid is not None:
        log_f, i = keep(valid, log_f), select(valid, i, jnp.full_like(i, 2 * _NOTHING))
    if resets is not None:
        log_f = select(resets, jnp.full_like(log_f, _NOTHING), log_f)
    q, k, v = (jnp.moveaxis(a, 0, -2) for a in (q, k, v))
    i, log_f = (jnp.moveaxis(a, 0, -1) for a in (i, log_f))

    steps = i.shape[-1]
    since = jnp.broadcast_to(np.tri(steps, steps + 1, 0, bool), (*i.shape, steps + 1))
    seen = jnp.broadcast_to(np.tri(steps, steps + 1, 1, bool), since.shape)
    # Added up for each s: the differences of sums from the start on would lose all digits to one large log f.
    decay = jnp.where(since, log_f[..., None], jnp.zeros_like(log_f[..., None]))
    decay = lax.associative_scan(jnp.add, decay, axis=decay.ndim - 2)
    d = decay + jnp.concatenate([m[..., None], i], axis=-1)[..., None, :]
    # Below a fresh m, so that nothing is written also where there is no more than that.
    d = jnp.where(seen, d, jnp.full_like(d, 2 * _NOTHING))
    m = jnp.max(d, axis=-1)
    old, new = jnp.split(jnp.exp(d - m[..., None]), [1], axis=-1)

    pairs = new * jnp.matmul(q, _transposed(k))
    read = old * jnp.matmul(q, c) + jnp.matmul(pairs, v)
    weight = old[..., 0] * jnp.sum(q * n[..., None, :], axis=-1) + jnp.sum(pairs, axis=-1)
    kept, written = old[..., -1, :], new[..., -1, :, None] * k
    c = kept[..., None] * c + jnp.matmul(_transposed(written), v)
    n = kept * n + jnp.sum(written, axis=-2)
    outputs = jnp.moveaxis(read, -2, 0), jnp.moveaxis(weight, -1, 0), jnp.moveaxis(m, -1, 0)
    return MLSTMState(c, n, m[..., -1]), outputs


def _transposed(a: Array) -> Array:
    return jnp.swapaxes(a, -1, -2)


def _fresh(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """A running maximum far below any gate."""
    return jnp.full(shape, max(_NOTHING, float(jnp.finfo(dtype).min)), dtype)


def _log_forget(forget_gate: str, f: Array) -> Array:
    """`log f`."""
    return jax.nn.log_sigmoid(f) if forget_gate == "sigmoid" else f


def _stable_gates(forget_gate: str, i: Array, f: Array, m: Array) -> tuple[Array, Array, Array]:
    """The factors of the old memory and of the new value, neither above one, and `m'`."""
    log_f = _log_forget(forget_gate, f)
    new = jnp.maximum(log_f + m, i)
    return jnp.exp(log_f + m - new), jnp.exp(i - new), new
