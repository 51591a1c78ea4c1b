"""Masks over time for rows of different length, and masked means, flips and lookups."""

import jax.numpy as jnp
import numpy as np

from jaxrnn.ops import keep
from jaxrnn.typing import Array

__all__ = ["at", "flip", "mean", "valid_steps"]


def valid_steps(times: Array, lengths: Array) -> Array:
    """Returns the mask `[T, *batch]` of the `times` `[T]` that lie within `lengths` `[*batch]`."""
    return times.reshape((-1,) + (1,) * lengths.ndim) < lengths[None]


def mean(values: Array, mask: Array, axis: int | tuple[int, ...] | None = None) -> Array:
    """Averages `values` `[T, *batch, ...]` over the true entries of `mask` `[T, *batch]`; zero if there are none.

    Sums in float32 or wider, as `jnp.mean` does.
    """
    wide = np.promote_types(values.dtype, np.float32)
    flags = jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim)), values.shape)
    count = jnp.maximum(jnp.sum(flags, axis=axis), 1).astype(wide)
    return (jnp.sum(keep(mask, values), axis=axis, dtype=wide) / count).astype(values.dtype)


def flip(xs: Array, lengths: Array | None) -> Array:
    """Reverses the valid steps of each row of `xs` `[T, *batch, ...]`; the padding stays in place.

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
    """Picks the steps `times` `[n, *batch]`, in 0..T-1, of each row of `xs` `[T, *batch, ...]`: `[n, *batch, ...]`."""
    times = times.reshape(times.shape + (1,) * (xs.ndim - times.ndim))
    return jnp.take_along_axis(xs, times, axis=0, mode="clip")
