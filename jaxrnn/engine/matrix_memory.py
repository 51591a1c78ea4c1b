"""Runs matrix memories a chunk of steps at once, by products over all pairs of its steps.

    S' = exp(log_decay) ⊙ S + b (a S) + k v^T
    y  = q S'

A cell whose gates see the input only makes a `MatrixDrive` in `project`. `matrix_step` takes one step, `matrix_chunk`
the steps of a chunk at once: only the memory after a chunk is passed on.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxrnn.engine.chunks import StepData, even_chunk
from jaxrnn.ops import keep, repeat_like, select, spread_like
from jaxrnn.typing import Array, DTypeLike, PyTree

__all__ = [
    "NOTHING",
    "MatrixDrive",
    "MatrixMemory",
    "Read",
    "matrix_chunk",
    "matrix_chunk_size",
    "matrix_step",
]

NOTHING = -1e30
"""A running maximum far below any gate, of a memory that holds nothing."""


class MatrixDrive(NamedTuple):
    """What a step does to the memories `[d, e]` of all heads: leaves `[*batch, heads, ...]`, in chunks `[T, ...]`.

    Which leaves there are, and of which width, decides what is computed.
    """

    q: Array  # [d]
    k: Array  # [d]
    v: Array  # [e]
    log_decay: Array | None = None  # [d], or [1] for all entries of a key; None: 0, all is kept
    a: Array | None = None  # [d]; None: 0, nothing is erased
    b: Array | None = None  # [d]; None: k
    log_input: Array | None = None  # [1], of a factor of k without a bound; needs `log_decay` [1] and no a; None: 0


class MatrixMemory(NamedTuple):
    """The memories of all heads, `exp(m) S`."""

    s: Array  # [*batch, heads, d, e]
    m: PyTree = None  # [*batch, heads], the running maximum, where there is `log_input`; else None for 0


class Read(NamedTuple):
    """What a step reads from the memories, `exp(m) y`."""

    y: Array  # [*batch, heads, e]
    m: PyTree  # [*batch, heads], as in the memory


def matrix_step(memory: MatrixMemory, drive: MatrixDrive) -> tuple[MatrixMemory, Read]:
    """Takes one step, and reads while the memory is at hand.

    With `log_input` a running maximum keeps every factor at or below one:

        m' = max(log_decay + m, log_input)
        S' = exp(log_decay + m - m') S + exp(log_input - m') k v^T
    """
    (s, m), (q, k, v, log_decay, a, b, log_input) = _widened(memory, drive)
    if log_decay is not None and log_input is not None:
        old = log_decay[..., 0] + m
        m = _floor(jnp.maximum(old, log_input[..., 0]), NOTHING)
        log_decay, k = (old - m)[..., None], jnp.exp(log_input - m[..., None]) * k
    kept = s if log_decay is None else jnp.exp(log_decay)[..., :, None] * s
    if a is not None and b is None:
        v = v + _row(a, s)
    elif a is not None and b is not None:
        kept = kept + b[..., :, None] * _row(a, s)[..., None, :]
    s = kept + k[..., :, None] * v[..., None, :]
    return MatrixMemory(s, m), Read(_row(q, s), m)


def matrix_chunk(memory: MatrixMemory, data: StepData, reverse: bool) -> tuple[MatrixMemory, Read]:
    """Takes all steps of a chunk at once: the memory after it, and what every step reads, `[T, ...]`.

    A step beyond its row's length changes nothing; a reset empties the memory before its step. Masked steps enter the
    products with weight zero, but 0 · NaN is NaN, so non-finite values are zeroed first, and NaN is put where the
    recurrence would have brought it.
    """
    if not isinstance(steps := data.drives.q.shape[0], int):
        raise ValueError(
            f"xs: got {steps} steps, a cell that takes them at once needs a number that is known; "
            "jaxrnn.networks.Stepped(cell) takes any"
        )
    dtype, batch_axes = memory.s.dtype, memory.s.ndim - 3
    drives, valid, resets = _backwards(data[:3]) if reverse else data[:3]
    before, drive = _widened(memory, drives)
    # Minus infinity forgets all, as the least number does.
    before = before._replace(m=_floor(before.m, NOTHING))
    drive = drive._replace(log_decay=_floor(drive.log_decay, NOTHING), log_input=_floor(drive.log_input, 2 * NOTHING))
    usable = finite = jnp.concatenate([_finite(before, batch_axes)[None], _finite(drive, batch_axes + 1)])
    if valid is not None:
        past = jnp.concatenate([jnp.zeros_like(valid[:1]), ~valid])
        usable, finite = finite & ~past, finite | past
    drive = keep(usable[1:], drive)
    if valid is not None and drive.log_input is not None:
        drive = drive._replace(log_input=select(valid, drive.log_input, jnp.full_like(drive.log_input, 2 * NOTHING)))
    drive = jax.tree.map(lambda x: jnp.moveaxis(x, 0, -2), drive)
    after, read = _all_steps(keep(usable[0], before), drive, _seen(memory, steps, resets))
    lost = _lost(finite, resets)
    # Selected, so that no cotangent comes back from there either.
    after = jax.tree.map(lambda x, old: _lose(lost[-1], x).astype(old.dtype), after, memory)
    read = Read(jnp.moveaxis(read.y, -2, 0), None if read.m is None else jnp.moveaxis(read.m, -1, 0))
    read = jax.tree.map(lambda x: _lose(lost, x).astype(dtype), read)
    return after, _backwards(read) if reverse else read


def matrix_chunk_size(steps: int, drive: MatrixDrive) -> int:
    """Returns the default number of steps in a chunk, from one step's drive."""
    if drive.log_decay is not None and drive.log_decay.shape[-1] > 1:
        return even_chunk(steps, 16)  # strong decays make one for each pair of steps and entry of the key
    # On a CPU what is made for pairs of steps should be no more than the memory, and stay in a core's cache: with heads
    # of 16, 32 and 64, chunks of 8, 16 and 32 train the fastest. Elsewhere a round of the loop has its own price.
    return even_chunk(steps, min(32, max(8, drive.q.shape[-1] // 2)) if jax.default_backend() == "cpu" else 64)


MODERATE = 60.0
"""A sum of decays over a chunk up to which factors are far from the ends of float32."""


def _all_steps(memory: MatrixMemory, drive: MatrixDrive, seen: Array) -> tuple[MatrixMemory, Read]:
    """All steps of a chunk, in the fastest way: leaves of `drive` as `_at_once` takes them."""
    decay = drive.log_decay
    if decay is None or decay.shape[-1] == 1 or drive.a is not None:
        return _at_once(memory, drive, seen)
    total = jnp.cumsum(decay, axis=-2)
    # Of each way there would be residuals, those of one for each pair of steps and entry of the key.
    by_factors = jax.checkpoint(functools.partial(_by_factors, total))
    return lax.cond(
        jnp.max(jnp.abs(total), initial=0) < MODERATE, by_factors, jax.checkpoint(_at_once), memory, drive, seen
    )


def _by_factors(total: Array, memory: MatrixMemory, drive: MatrixDrive, seen: Array) -> tuple[MatrixMemory, Read]:
    """As `_at_once`, where each entry of a key decays by itself, and moderately: a decay between steps as a quotient.

    A_ts = (A_t0 / m) ⊙ (m / A_s0),  m = √A_T0           so that neither factor is large
    """
    last, sees = total[..., -1:, :], seen[..., 0]
    pairs = jnp.matmul(drive.q * jnp.exp(total - last / 2), jnp.swapaxes(drive.k * jnp.exp(last / 2 - total), -1, -2))
    pairs = jnp.where(sees[..., 1:], pairs, jnp.zeros_like(pairs))
    kept = jnp.where(sees[..., :1], jnp.exp(total), jnp.zeros_like(total))
    writes = jnp.where(sees[..., -1, 1:, None], drive.k * jnp.exp(last - total), jnp.zeros_like(drive.k))
    y = jnp.matmul(drive.q * kept, memory.s) + jnp.matmul(pairs, drive.v)
    s = jnp.swapaxes(kept[..., -1:, :], -1, -2) * memory.s + jnp.matmul(jnp.swapaxes(writes, -1, -2), drive.v)
    return MatrixMemory(s), Read(y, None)


def _at_once(memory: MatrixMemory, drive: MatrixDrive, seen: Array) -> tuple[MatrixMemory, Read]:
    """All steps of a chunk: leaves of `drive` `[*batch, heads, T, ...]`, `seen` `[*batch, 1, T, 1 + T, 1]`.

        A_ts = exp(log_decay_{s+1} + … + log_decay_t)   of s ≤ t; s = 0 stands for the memory before
        r_t  = a_t S_{t-1}                              what is found before step t is written
             = (a_t ⊙ A_{t-1,0}) S_0 + Σ_{s<t} (a_t · A_{t-1,s} ⊙ k_s) v_s + (a_t · A_{t-1,s} ⊙ b_s) r_s
        y_t  = (q_t ⊙ A_t0) S_0      + Σ_{s≤t} (q_t · A_ts ⊙ k_s) v_s      + (q_t · A_ts ⊙ b_s) r_s
        S_t  = A_t0 ⊙ S_0            + Σ_{s≤t} (A_ts ⊙ k_s) v_s^T          + (A_ts ⊙ b_s) r_s^T

    The r solve one triangular system. Where b is k, v + r solve another, with half of the products. `log_input_s` and
    `-m_t` are terms of the exponents.

    References: Yang et al. 2024, "Gated linear attention transformers with hardware-efficient training", section 4, and
    "Parallelizing linear transformers with the delta rule over sequence length"; Beck et al. 2024, "xLSTM: extended
    long short-term memory", appendix A.3.
    """
    (s, m), (q, k, v, log_decay, a, b, log_input) = memory, drive
    exponents = None if log_decay is None else _sums(log_decay)
    if exponents is not None and log_input is not None:
        exponents, m = _stabilized(exponents, log_input, m, seen)
    old, new = _weights(exponents, seen, k.dtype)
    writes = [(k, v)]
    if a is not None:
        # A step finds what the one before it has left.
        if exponents is not None:
            exponents = jnp.concatenate([jnp.zeros_like(exponents[..., :1, :, :]), exponents[..., :-1, :, :]], axis=-3)
        old_a, new_a = _weights(exponents, seen & _lower(seen.ndim, q.shape[-2], 0), k.dtype)
        found = jnp.matmul(a * old_a, s)
        if b is None:
            writes = [(k, jnp.matmul(_inverse(-_pairs(a, k, new_a)), v + found))]
        else:
            r = jnp.matmul(_inverse(-_pairs(a, b, new_a)), found + jnp.matmul(_pairs(a, k, new_a), v))
            writes.append((b, r))
    y = jnp.matmul(q * old, s)
    s = jnp.swapaxes(old[..., -1:, :], -1, -2) * s
    for x, u in writes:
        y += jnp.matmul(_pairs(q, x, new), u)
        s += jnp.matmul(jnp.swapaxes(x * new[..., -1, :, :], -1, -2), u)
    return MatrixMemory(s, None if m is None else m[..., -1]), Read(y, m)


def _sums(log_decay: Array) -> Array:
    """The sums of `[..., T, n]` over the steps s + 1 … t, `[..., T, 1 + T, n]`."""
    *batch, steps, n = log_decay.shape
    if n > 1:
        # A factor below exp(-50) is as good as zero, and sums of such would take the digits of others in the chunk.
        total = jnp.cumsum(jnp.maximum(log_decay, -50.0), axis=-2)
        before = jnp.concatenate([jnp.zeros_like(total[..., :1, :]), total], axis=-2)
        return total[..., :, None, :] - before[..., None, :, :]
    # Added up for each s: the differences of sums from the start on would lose all digits to one large decay.
    # Without the last axis: on a TPU a sum along another would have memory for 128 numbers in the place of each.
    each = jnp.broadcast_to(log_decay, (*batch, steps, steps + 1))
    each = jnp.where(_lower(each.ndim + 1, steps, 0)[..., 0], each, jnp.zeros_like(each))
    return lax.cumsum(each, axis=each.ndim - 2)[..., None]


def _stabilized(exponents: Array, log_input: Array, m: Array, seen: Array) -> tuple[Array, Array]:
    """The exponents less the running maximum, and that of each step `[..., T]`."""
    exponents += jnp.concatenate([m[..., None, None], log_input], axis=-2)[..., None, :, :]
    exponents = jnp.where(seen, exponents, jnp.full_like(exponents, 2 * NOTHING))
    m = _floor(jnp.max(exponents, axis=(-2, -1)), NOTHING)
    return exponents - m[..., None, None], m


def _weights(exponents: Array | None, seen: Array, dtype: DTypeLike) -> tuple[Array, Array]:
    """The weights of the memory before the chunk `[..., T, n]` and of each of its steps `[..., T, T, n]`."""
    if exponents is None:
        weights = seen.astype(dtype)
    else:
        # Selected before the exponential, which may overflow elsewhere, so that its derivative would be NaN.
        weights = jnp.exp(jnp.where(seen, exponents, jnp.full_like(exponents, 2 * NOTHING)))
    return weights[..., 0, :], weights[..., 1:, :]


def _pairs(x: Array, y: Array, weights: Array) -> Array:
    """`Σ_i x_ti y_si weights_tsi`: `[..., T, d]` twice, and `[..., T, T, d]` or `[..., T, T, 1]`, to `[..., T, T]`."""
    if weights.shape[-1] == 1:
        return jnp.matmul(x, jnp.swapaxes(y, -1, -2)) * weights[..., 0]
    return jnp.sum(x[..., :, None, :] * (weights * y[..., None, :, :]), axis=-1)


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
    inverse = spread_like(jnp.ones((*batch, size, 1, 1), a.dtype), a[..., :1])
    while (m := inverse.shape[-1]) < size:
        pairs = size // (2 * m)
        # One axis at a time, or a mesh with explicit axes refuses.
        below = a.reshape(*batch, pairs, 2, m, size).reshape(*batch, pairs, 2, m, pairs, 2, m)[..., 1, :, :, 0, :]
        same = spread_like(jnp.broadcast_to(np.eye(pairs, dtype=bool)[:, None, :, None], below.shape), below)
        below = jnp.sum(jnp.where(same, below, jnp.zeros_like(below)), axis=-2)
        first, second = inverse[..., ::2, :, :], inverse[..., 1::2, :, :]
        corner = -jnp.matmul(jnp.matmul(second, below), first)
        upper = jnp.concatenate([first, jnp.zeros_like(first)], axis=-1)
        inverse = jnp.concatenate([upper, jnp.concatenate([corner, second], axis=-1)], axis=-2)
    return inverse[..., 0, :steps, :steps]


def _seen(memory: MatrixMemory, steps: int, resets: Array | None) -> Array:
    """Whether a step sees what an earlier one has written; step 0: the memory before. `[*batch, 1, T, 1 + T, 1]`."""
    seen = _lower(memory.s.ndim + 1, steps, 1)
    if resets is None:
        return seen
    sequence = jnp.moveaxis(jnp.cumsum(resets, axis=0), 0, -1)[..., None, :, None]
    before = jnp.concatenate([jnp.zeros_like(sequence[..., :1, :]), sequence], axis=-2)
    return seen & (sequence[..., :, None, :] == before[..., None, :, :])


def _lower(rank: int, steps: int, diagonal: int) -> Array:
    """The entries `[T, 1 + T]` of the axes before the last that lie on or below a diagonal."""
    return jnp.asarray(np.tri(steps, steps + 1, diagonal, bool).reshape(*(1,) * (rank - 3), steps, steps + 1, 1))


def _row(q: Array, s: Array) -> Array:
    """`q S`, head by head: `[..., d] x [..., d, e] -> [..., e]`."""
    return jnp.sum(q[..., :, None] * s, axis=-2)


def _widened(memory: MatrixMemory, drive: MatrixDrive) -> tuple[MatrixMemory, MatrixDrive]:
    """Both in one dtype, float32 or wider."""
    if drive.log_input is not None and (
        drive.a is not None or drive.log_decay is None or drive.log_decay.shape[-1] > 1
    ):
        raise ValueError("drive: got log_input, needs with it a log_decay of one number a head, and no a")
    tree = memory, drive
    wide = np.result_type(np.float32, *(x.dtype for x in jax.tree.leaves(tree)))
    return jax.tree.map(lambda x: x.astype(wide), tree)


def _backwards(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jnp.flip(x, axis=0), tree)


def _floor(x: Any, low: float) -> Any:
    """`x`, or `low` where it is lower; NaN stays, and so does the derivative of an `x` that is as low."""
    return None if x is None else jnp.where(x < low, jnp.full_like(x, low), x)


def _finite(tree: PyTree, axes: int) -> Array:
    """Whether all is finite, for each index of the first `axes` axes."""
    flags = (jnp.all(jnp.isfinite(x), axis=tuple(range(axes, x.ndim))) for x in jax.tree.leaves(tree))
    return functools.reduce(jnp.logical_and, flags)


def _lost(finite: Array, resets: Array | None) -> Array:
    """The steps `[T, *batch]` that have met since their last reset what is not finite, `finite` `[1 + T, *batch]`."""
    times = jnp.broadcast_to(jnp.arange(len(finite)).reshape(-1, *[1] * (finite.ndim - 1)), finite.shape)
    met = lax.cummax(jnp.where(finite, -1, times))[1:]
    start = jnp.zeros_like(met) if resets is None else lax.cummax(jnp.where(resets, times[1:], 0))
    return met >= start


def _lose(flags: Array, x: Array) -> Array:
    """NaN where flagged."""
    x = spread_like(x, flags)
    flags = flags.reshape(flags.shape + (1,) * (x.ndim - flags.ndim))
    # An array of NaN would stop a program under `jax_debug_nans`, whether it is chosen from or not.
    return jnp.where(repeat_like(flags, x), jnp.nan, x)
