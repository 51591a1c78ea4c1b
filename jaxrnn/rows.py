"""Rows of different length along the axis of time: turned round, and picked from."""

import jax.numpy as jnp

from jaxrnn.typing import Array

__all__ = ["at", "flip"]


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
