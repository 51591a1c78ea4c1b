"""Rows of different length along the axis of time: how they are walked, which steps count, what is read off them."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.typing import Array, Key, PyTree

__all__ = ["Save", "Walk", "at", "flip", "keep", "mean", "select", "starts", "valid_steps"]

Save = Literal["states", "boundaries", "residuals"]


class Walk(NamedTuple):
    """How a sequence is walked: the options of `unroll`, checked."""

    lengths: Array | None = None
    resets: Array | None = None
    reverse: bool = False
    key: Key | None = None
    chunk: int | None = None
    save: Save = "states"


def valid_steps(times: Array, lengths: Array) -> Array:
    """Which of `times` `[T]` lie within `lengths` `[*batch]`: `[T, *batch]` booleans."""
    return times.reshape((-1,) + (1,) * lengths.ndim) < lengths[None]


def starts(how: Walk, steps: int) -> Array | None:
    """The steps `[T, *batch]` before which, in the direction of the walk, a row is reset; None: there are no flags."""
    resets = how.resets
    if resets is None:
        return None
    if how.lengths is not None:
        resets = resets & valid_steps(jnp.arange(steps), how.lengths)
    # A flag stands between two steps: seen from the later one, it stands before the earlier one.
    return jnp.concatenate([resets[1:], jnp.zeros_like(resets[:1])]) if how.reverse else resets


def select(flags: Array, a: Array, b: Array) -> Array:
    """`where` with flags `[*leading]` over `[*leading, ...]`."""
    flags = flags.reshape(flags.shape + (1,) * (a.ndim - flags.ndim))
    return jnp.where(jnp.broadcast_to(flags, a.shape), a, b)


def keep(valid: Array, xs: PyTree) -> PyTree:
    """`xs` where `valid` `[*leading]`, else zero, for leaves `[*leading, ...]`; NaN in the rest stays there."""
    return jax.tree.map(lambda x: select(valid, x, jnp.zeros_like(x)), xs)


def mean(values: Array, mask: Array, axis: int | tuple[int, ...] | None = None) -> Array:
    """The mean of `values` `[T, *batch, ...]` where `mask` `[T, *batch]` holds; zero where it holds nowhere.

    Summed in float32 at least, as by `jnp.mean`.
    """
    wide = np.promote_types(values.dtype, np.float32)
    flags = jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim)), values.shape)
    count = jnp.maximum(jnp.sum(flags, axis=axis), 1).astype(wide)
    return (jnp.sum(keep(mask, values), axis=axis, dtype=wide) / count).astype(values.dtype)


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
    """Of each row of `xs` `[T, *batch, ...]` the steps `times` `[n, *batch]`, each in 0..T-1: `[n, *batch, ...]`."""
    times = times.reshape(times.shape + (1,) * (xs.ndim - times.ndim))
    return jnp.take_along_axis(xs, times, axis=0, mode="clip")
