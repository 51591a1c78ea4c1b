"""Time in chunks: how long they are, the loop over them, and all steps of a chunk at once where pairs of steps decide.

The last is for cells whose memory is a sum of outer products and whose gates see the input only: the outputs over a
chunk are products over all pairs of its steps, and only the memory after the chunk is passed on.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxrnn.recurrence import STATES
from jaxrnn.rows import Save, keep, select
from jaxrnn.typing import Array, Params, PyTree, State

__all__ = [
    "POLICIES",
    "StepData",
    "at_once",
    "chunk_of_pairs",
    "default_chunk",
    "even_chunk",
    "in_chunks",
    "since_reset",
]

POLICIES: dict[Save, Any] = {
    "states": jax.checkpoint_policies.save_only_these_names(STATES),
    "boundaries": jax.checkpoint_policies.nothing_saveable,
    "residuals": jax.checkpoint_policies.everything_saveable,
}
"""What `jax.checkpoint` keeps of a chunk."""


class StepData(NamedTuple):
    """What steps are given beside the state: leaves `[T, ...]`, or without the axis of time for one step."""

    drives: PyTree  # from `project`
    valid: Array | None  # [T, *batch], which steps lie within their row's length; None: all
    resets: Array | None  # [T, *batch], before which steps the walk begins anew; None: none


def default_chunk(steps: int, bytes_per_step: int) -> int:
    """Steps whose drives fill the cache (CPU) or the cores (elsewhere): a divisor of `steps` where one is near.

    On the CPU a chunk of 1 MiB also keeps many programs' temporary memory below the 32 MB from which glibc gives
    memory back after every call, to be paid for in page faults at the next.
    """
    if not isinstance(bytes_per_step, int):
        return even_chunk(steps, 32)  # of a symbolic batch (`jax.export`): between the bounds
    budget = 2**20 if jax.default_backend() == "cpu" else 2**25
    fit = budget // max(bytes_per_step, 1)
    # Where not even eight fit, more are as good, and what is done once a chunk is done less often.
    return even_chunk(steps, min(256, fit) if fit >= 8 else 16)


def even_chunk(steps: int, wanted: int) -> int:
    """About `wanted` steps: a divisor of `steps` where one is near, so that no shorter chunk is left over."""
    if not isinstance(steps, int):
        return steps  # a symbolic number cannot be divided
    wanted = min(steps, wanted)
    near = [c for c in range(wanted, wanted // 2, -1) if steps % c == 0]
    near += [c for c in range(wanted, 2 * wanted) if steps % c == 0]
    return near[0] if near else wanted


def chunk_of_pairs(steps: int) -> int:
    """The steps that are best taken at once."""
    # On a core of a CPU, with heads of 16, 32 and 64, chunks of 16 and 32 train about as fast; with 64 what is made for
    # pairs of steps leaves its cache and half as much time is added. Elsewhere a round of the loop has its own price.
    return even_chunk(steps, 32 if jax.default_backend() == "cpu" else 64)


def in_chunks(
    segment: Any, params: Params, state: State, whole: PyTree, chunk: int, *, reverse: bool = False, save: Save
) -> tuple[State, PyTree]:
    """`segment` over consecutive chunks of the leading axis; the last chunk may be shorter."""
    segment = jax.checkpoint(segment, policy=POLICIES[save], prevent_cse=False)
    steps = jax.tree.leaves(whole)[0].shape[0]
    full = steps - steps % chunk
    if steps <= chunk:
        return segment(params, state, whole)

    def many(state: State, whole: PyTree) -> tuple[State, PyTree]:
        folded = jax.tree.map(lambda x: x.reshape(full // chunk, chunk, *x.shape[1:]), whole)
        state, ys = lax.scan(functools.partial(segment, params), state, folded, reverse=reverse)
        return state, jax.tree.map(lambda y: y.reshape(full, *y.shape[2:]), ys)

    if full == steps:
        return many(state, whole)
    body, tail = (jax.tree.map(lambda x, s=s: x[s], whole) for s in (slice(full), slice(full, None)))
    if reverse:
        state, ys_tail = segment(params, state, tail)
        state, ys_body = many(state, body)
    else:
        state, ys_body = many(state, body)
        state, ys_tail = segment(params, state, tail)
    return state, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys_body, ys_tail)


S = TypeVar("S", bound=State)


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
