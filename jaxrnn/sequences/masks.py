"""Masks, lengths, and what they do to inputs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import check_arrays, check_axes, check_flags, check_lengths
from jaxrnn.engine.masks import flip, valid_steps
from jaxrnn.typing import Array, PyTree

__all__ = ["lengths_from_mask", "mask_from_lengths", "mask_from_zeros", "reverse_sequence"]


def mask_from_lengths(lengths: Array, steps: int) -> Array:
    """Returns the mask `[T, *batch]` of the steps within `lengths` `[*batch]`.

    Example:
        >>> mask_from_lengths(jnp.array([2, 0]), 3).T.tolist()
        [[True, True, False], [False, False, False]]
    """
    if isinstance(steps, bool | float | str | None) or np.ndim(steps):  # T may be a symbol of `jax.export`
        raise TypeError(f"steps: got {type(steps).__name__}, needs T, an integer")
    lengths = jnp.asarray(lengths)
    return valid_steps(jnp.arange(steps), check_lengths(lengths, steps, lengths.shape))


def mask_from_zeros(xs: Array) -> Array:
    """Returns the mask of the steps of `xs` `[T, *batch, I]` that are not all zero, as in Element-Research's MaskZero.

    Use it only for data in which a zero vector means padding.

    Example:
        >>> mask_from_zeros(jnp.array([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]])).tolist()
        [True, False, True]
    """
    check_arrays(xs=xs)
    check_axes(xs, "xs", "[T, *batch, I]", 2)
    return jnp.any(xs != 0, axis=-1)


def lengths_from_mask(mask: Array) -> Array:
    """Returns the lengths `[*batch]` of a mask `[T, *batch]` whose rows are valid from the start; else use `Masked`.

    Raises:
        ValueError: a row has a gap. A traced mask cannot be checked; then the length is the number of valid steps.

    Example:
        >>> lengths_from_mask(jnp.array([[True, True], [True, False]])).tolist()
        [2, 1]
    """
    mask = check_flags(mask, jnp.shape(mask), "mask")
    check_axes(mask, "mask", "[T, *batch]", 1)
    if not isinstance(mask, jax.core.Tracer) and bool(jnp.any(mask[1:] & ~mask[:-1])):
        raise ValueError("mask: got a valid step after one that is not, needs rows valid from the start; see Masked")
    return jnp.sum(mask, axis=0, dtype=jnp.int32)


def reverse_sequence(xs: PyTree, lengths: Array | None = None) -> PyTree:
    """Reverses `xs`, leaves `[T, *batch, ...]`, in time within each row's length; the padding stays in place.

    Example:
        >>> reverse_sequence(jnp.array([[1, 1], [2, 2], [3, 3]]), jnp.array([3, 2])).T.tolist()
        [[3, 2, 1], [2, 1, 3]]
    """
    leaves: list[Any] = [xs] if isinstance(xs, list) else jax.tree.leaves(xs)
    for leaf in leaves:
        check_arrays(xs=leaf)
        check_axes(leaf, "xs", "[T, *batch, ...]", 1)
    if len({jnp.shape(leaf)[0] for leaf in leaves}) > 1:
        raise ValueError(f"xs: got the shapes {[jnp.shape(leaf) for leaf in leaves]}, needs the same T in each")
    if lengths is not None and leaves:
        steps, *rest = jnp.shape(leaves[0])
        lengths = check_lengths(lengths, steps, tuple(rest[: jnp.ndim(lengths)]))
    return jax.tree.map(lambda x: flip(jnp.asarray(x), lengths), xs)
