"""What is read off the outputs of a run: the last one, a mean, the greatest, and more."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import check_arrays, check_axes, check_bools, check_flags, check_inexact
from jaxrnn.engine.masks import at, mean
from jaxrnn.networks.bidirectional import Merge, check_merge, merge_outputs
from jaxrnn.ops import keep, select
from jaxrnn.typing import Array

__all__ = ["bidirectional_last_output", "held_output", "last_output", "max_output", "mean_output"]


def last_output(ys: Array, mask: Array | None = None) -> Array:
    """Returns the output at each row's last valid step: `[T, *batch, H] -> [*batch, H]`; zero if there is none.

    Args:
        ys: `[T, *batch, H]`, or any history `[T, *batch, H]` of a state.
        mask: `[T, *batch]` booleans, such as `mask_from_lengths(lengths, T)`; None: all steps are valid.

    Example:
        >>> last_output(jnp.array([[1.0], [2.0], [3.0]]), jnp.array([True, True, False])).tolist()
        [2.0]
    """
    return _output_at_end(ys, _mask_of(ys, mask), reverse=False)


def held_output(ys: Array, mask: Array, *, reverse: bool = False) -> Array:
    """Repeats at each masked step the output of the last valid step before it, as Keras does; zero if there is none.

    Args:
        ys: `[T, *batch, H]`, such as the outputs of a `Masked`, which are zero at masked steps.
        mask: `[T, *batch]` booleans.
        reverse: for outputs of a reverse run, whose last valid step is the one that follows in time.

    Example:
        >>> ys, mask = jnp.array([[0.0], [1.0], [0.0], [2.0]]), jnp.array([False, True, False, True])
        >>> held_output(ys, mask)[:, 0].tolist(), held_output(ys, mask, reverse=True)[:, 0].tolist()
        ([0.0, 1.0, 1.0, 2.0], [1.0, 1.0, 2.0, 2.0])
    """
    check_bools(reverse=reverse)
    mask = _mask_of(ys, mask)
    steps = ys.shape[0]
    if not steps:
        return jnp.asarray(ys)
    nothing = steps if reverse else -1
    times = jnp.arange(steps).reshape(steps, *[1] * (mask.ndim - 1))
    times = jnp.where(mask, jnp.broadcast_to(times, mask.shape), nothing)
    last = jax.lax.cummin(times, reverse=True) if reverse else jax.lax.cummax(times)
    return keep(last != nothing, at(ys, last))


def mean_output(ys: Array, mask: Array | None = None) -> Array:
    """Averages over each row's valid steps: `[T, *batch, H] -> [*batch, H]`; zero if there are none.

    Example:
        >>> mean_output(jnp.array([[1.0], [2.0], [9.0]]), jnp.array([True, True, False])).tolist()
        [1.5]
    """
    check_inexact(ys=ys)
    return mean(ys, _mask_of(ys, mask), axis=0)


def max_output(ys: Array, mask: Array | None = None) -> Array:
    """Returns the maximum over each row's valid steps: `[T, *batch, H] -> [*batch, H]`; zero if there are none.

    Example:
        >>> max_output(jnp.array([[1.0], [2.0], [9.0]]), jnp.array([True, True, False])).tolist()
        [2.0]
    """
    check_inexact(ys=ys)
    mask = _mask_of(ys, mask)
    if not ys.shape[0]:
        return jnp.zeros(ys.shape[1:], ys.dtype)
    lowest = jnp.full_like(ys, -jnp.inf)
    return keep(jnp.any(mask, axis=0), jnp.max(select(mask, ys, lowest), axis=0))


def bidirectional_last_output(
    ys: Array,
    mask: Array | None = None,
    forward_size: int | None = None,
    merge: Merge = "concat",
) -> Array:
    """Merges each direction's last output: the forward part at the last valid step, the backward part at the first.

    Args:
        ys: `[T, *batch, F + G]`, outputs of a `Bidirectional` that concatenates them. Outputs that are merged otherwise
            cannot be taken apart.
        mask: `[T, *batch]` booleans; None: all steps are valid.
        forward_size: F, length of the forward part; None: half.
        merge: "concat", "sum", or a function, such as `jnp.multiply`, as in `Bidirectional`.

    Raises:
        ValueError: another `merge`, or no `forward_size` of a part of the outputs.

    Example:
        >>> ys = jnp.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
        >>> bidirectional_last_output(ys).tolist(), bidirectional_last_output(ys, merge=jnp.multiply).tolist()
        ([3.0, 10.0], [30.0])
    """
    check_merge(merge)
    mask = _mask_of(ys, mask)
    whole = ys.shape[-1]
    size = whole // 2 if forward_size is None and whole % 2 == 0 else forward_size
    if not isinstance(size, int | np.integer) or not 0 < size < whole:
        raise ValueError(f"forward_size: got {forward_size!r}, needs the length of the forward part of {whole} outputs")
    forward = _output_at_end(ys[..., :size], mask, reverse=False)
    return merge_outputs(merge, forward, _output_at_end(ys[..., size:], mask, reverse=True))


def _mask_of(ys: Array, mask: Array | None) -> Array:
    """Returns the mask of outputs; raises unless they and it are `[T, *batch, H]` and `[T, *batch]`."""
    check_arrays(ys=ys)
    check_axes(ys, "ys", "[T, *batch, H]", 2)
    if mask is None:
        return jnp.ones(ys.shape[:-1], bool)
    return check_flags(mask, ys.shape[:-1], "mask")


def _output_at_end(ys: Array, mask: Array, reverse: bool) -> Array:
    """Returns the output at each row's last valid step, or at its first."""
    steps = ys.shape[0]
    if not steps:
        return jnp.zeros(ys.shape[1:], ys.dtype)
    end = jnp.argmax(mask, axis=0) if reverse else steps - 1 - jnp.argmax(mask[::-1], axis=0)
    return keep(jnp.any(mask, axis=0), at(ys, end[None])[0])
