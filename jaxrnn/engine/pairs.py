"""All steps of a chunk at once, where pairs of steps decide.

For cells whose memory is a sum of outer products and whose gates see the input only: the outputs over a chunk are
products over all pairs of its steps, and only the memory after the chunk is passed on.
"""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxrnn.engine.chunks import StepData, even_chunk
from jaxrnn.ops import keep, select
from jaxrnn.typing import Array, PyTree, State

__all__ = ["at_once", "chunk_of_pairs", "since_reset"]

S = TypeVar("S", bound=State)


def chunk_of_pairs(steps: int) -> int:
    """The steps that are best taken at once."""
    # On a core of a CPU, with heads of 16, 32 and 64, chunks of 16 and 32 train about as fast; with 64 what is made for
    # pairs of steps leaves its cache and half as much time is added. Elsewhere a round of the loop has its own price.
    return even_chunk(steps, 32 if jax.default_backend() == "cpu" else 64)


def at_once(
    solve: Callable[[S, StepData], tuple[S, PyTree]], state: S, data: StepData, reverse: bool, batch_axes: int
) -> tuple[S, PyTree]:
    """The state after a chunk and its outputs `[T, ...]` by `solve(state, data)`.

    What `solve` sees is in the order of the walk, in float32 or wider, and finite. A product takes in every step, those
    that a row has nothing to do with by a weight of zero, and zero times NaN is NaN. So what is not finite is taken out
    before, and NaN put where the recurrence would have brought it.
    """
    if not isinstance(steps := jax.tree.leaves(data.drives)[0].shape[0], int):
        raise ValueError(f"xs: got {steps} steps, a cell that takes them at once needs a number that is known")
    if reverse:
        data = _backwards(data)
    dtypes = jax.tree.map(lambda s: s.dtype, state)
    wide = np.result_type(np.float32, *(a.dtype for a in jax.tree.leaves((state, data.drives))))
    drives, before = jax.tree.map(lambda a: a.astype(wide), (data.drives, state))
    finite = jnp.concatenate([_finite(before, batch_axes)[None], _finite(drives, batch_axes + 1)])
    after, outputs = solve(keep(finite[0], before), data._replace(drives=keep(finite[1:], drives)))
    lost = _lost(finite, data.resets)
    # Selected, so that no cotangent comes back from there either.
    after = jax.tree.map(lambda a, dtype: _lose(lost[-1], a).astype(dtype), after, dtypes)
    outputs = jax.tree.map(lambda a: _lose(lost, a).astype(jax.tree.leaves(dtypes)[0]), outputs)
    return after, _backwards(outputs) if reverse else outputs


def since_reset(data: StepData, batch_shape: tuple[int, ...], steps: int) -> Array:
    """Whether a step sees what an earlier one has written, and step 0, the memory before: `[*batch, T, 1 + T]`."""
    seen = jnp.broadcast_to(np.tri(steps, steps + 1, 1, bool), (*batch_shape, steps, steps + 1))
    if data.resets is None:
        return seen
    sequence = jnp.moveaxis(jnp.cumsum(data.resets, axis=0), 0, -1)
    before = jnp.pad(sequence, [(0, 0)] * len(batch_shape) + [(1, 0)])
    return seen & (sequence[..., :, None] == before[..., None, :])


def _backwards(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda a: jnp.flip(a, axis=0), tree)


def _finite(tree: PyTree, axes: int) -> Array:
    """Whether all is finite, for each index of the first `axes` axes."""
    flags = (jnp.all(jnp.isfinite(a), axis=tuple(range(axes, a.ndim))) for a in jax.tree.leaves(tree))
    return functools.reduce(jnp.logical_and, flags)


def _lost(finite: Array, resets: Array | None) -> Array:
    """The steps `[T, *batch]` that have met since their last reset what is not finite, `finite` `[1 + T, *batch]`."""
    times = jnp.broadcast_to(jnp.arange(len(finite)).reshape(-1, *[1] * (finite.ndim - 1)), finite.shape)
    met = lax.cummax(jnp.where(finite, -1, times))[1:]
    start = jnp.zeros_like(met) if resets is None else lax.cummax(jnp.where(resets, times[1:], 0))
    return met >= start


def _lose(flags: Array, a: Array) -> Array:
    """NaN where flagged."""
    return select(flags, jnp.full_like(a, jnp.nan), a)
