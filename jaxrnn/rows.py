"""Rows of different length along the axis of time: where they begin, turned round, and picked from."""

import jax.numpy as jnp

from jaxrnn.typing import Array
from jaxrnn.unroll import Walk, valid_steps

__all__ = ["at", "flip", "starts"]


def starts(how: Walk, steps: int) -> Array | None:
    """The steps `[T, *batch]` before which, in the direction of the walk, a row is reset; None: there are no flags."""
    resets = how.resets
    if resets is None:
        return None
    if how.lengths is not None:
        resets = resets & valid_steps(jnp.arange(steps), how.lengths)
    # A flag stands between two steps: seen from the later one, it stands before the earlier one.
    return jnp.concatenate([resets[1:], jnp.zeros_like(resets[:1])]) if how.reverse else resets


def flip(xs: Array, lengths: Array | None) -> Array:
    """Each row of `xs` `[T, *batch, ...]` from its last valid step to its first; what is beyond stays there.

    Example:
        >>> flip(jnp.array([[1, 1], [2, 2], [3, 0]]), jnp.array([3, 2])).T.tolist()
        [[3, 2, 1], [2, 1, 0]]
    """
    if lengths is None:
        return jnp.flip(xs, axis=0)
    times = jnp.arange(xs.shape[0], dtype=lengths.dtype).reshape((-1,) + (1,) * lengths.ndim)
    back = jnp.minimum(lengths, xs.shape[0])[None] - 1 - times
    return at(xs, jnp.where(back >= 0, back, jnp.broadcast_to(times, back.shape)))


def at(xs: Array, times: Array) -> Array:
    """Of each row of `xs` `[T, *batch, ...]` the steps `times` `[n, *batch]`: `[n, *batch, ...]`."""
    times = times.reshape(times.shape + (1,) * (xs.ndim - times.ndim))
    return jnp.take_along_axis(xs, jnp.broadcast_to(times, (times.shape[0], *xs.shape[1:])), axis=0)
