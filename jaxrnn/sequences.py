"""Sequences of different length: masks, pooling, padding and packing.

A mask is `[T, *batch]` booleans, true at valid steps. No function guesses a mask from the data. Three ways:

    lengths=    rows are valid from the start; beyond, the state is held and the output is zero (`unroll`)
    resets=     rows hold several sequences, one after the other (`unroll`; `pack` makes them)
    Masked      gaps anywhere; the state is held over them (Keras) or reset by them (Element-Research's MaskZero)

`pad`, `pack`, `buckets` and the conversions of PyTorch's `PackedSequence` use NumPy. All other functions work under
`jit`.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import check_arrays, check_flags, check_input, check_lengths, check_sizes
from jaxrnn.engine.driver import unroll
from jaxrnn.engine.layer import Layer
from jaxrnn.engine.masks import at, flip, mean, valid_steps
from jaxrnn.networks.bidirectional import Merge, check_merge, merge_outputs
from jaxrnn.ops import keep, select
from jaxrnn.typing import Array, Key, Params, PyTree, State

__all__ = [
    "Packed",
    "Padded",
    "bidirectional_last_output",
    "buckets",
    "from_packed_sequence",
    "held_output",
    "last_of_each",
    "last_output",
    "lengths_from_mask",
    "mask_from_lengths",
    "mask_from_zeros",
    "max_output",
    "mean_output",
    "pack",
    "pad",
    "repeat",
    "reverse_sequence",
    "to_packed_sequence",
    "unpack",
]


# Masks and lengths


def mask_from_lengths(lengths: Array, steps: int) -> Array:
    """Returns the mask `[T, *batch]` of the steps within `lengths` `[*batch]`.

    Example:
        >>> mask_from_lengths(jnp.array([2, 0]), 3).T.tolist()
        [[True, True, False], [False, False, False]]
    """
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
    if not isinstance(mask, jax.core.Tracer) and bool(jnp.any(mask[1:] & ~mask[:-1])):
        raise ValueError("mask: got a valid step after one that is not, needs rows valid from the start; see Masked")
    return jnp.sum(mask, axis=0, dtype=jnp.int32)


# Read off the outputs


def _mask_of(ys: Array, mask: Array | None) -> Array:
    check_arrays(ys=ys)
    if jnp.ndim(ys) < 2:
        raise ValueError(f"ys: got the shape {jnp.shape(ys)}, needs [T, *batch, H]")
    if mask is None:
        return jnp.ones(ys.shape[:-1], bool)
    return check_flags(mask, ys.shape[:-1], "mask")


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


def _output_at_end(ys: Array, mask: Array, reverse: bool) -> Array:
    """Returns the output at each row's last valid step, or at its first."""
    steps = ys.shape[0]
    if not steps:
        return jnp.zeros(ys.shape[1:], ys.dtype)
    end = jnp.argmax(mask, axis=0) if reverse else steps - 1 - jnp.argmax(mask[::-1], axis=0)
    return keep(jnp.any(mask, axis=0), at(ys, end[None])[0])


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
    return mean(ys, _mask_of(ys, mask), axis=0)


def max_output(ys: Array, mask: Array | None = None) -> Array:
    """Returns the maximum over each row's valid steps: `[T, *batch, H] -> [*batch, H]`; zero if there are none.

    Example:
        >>> max_output(jnp.array([[1.0], [2.0], [9.0]]), jnp.array([True, True, False])).tolist()
        [2.0]
    """
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
        ValueError: another `merge`.

    Example:
        >>> ys = jnp.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
        >>> bidirectional_last_output(ys).tolist(), bidirectional_last_output(ys, merge=jnp.multiply).tolist()
        ([3.0, 10.0], [30.0])
    """
    check_merge(merge)
    mask = _mask_of(ys, mask)
    size = ys.shape[-1] // 2 if forward_size is None else forward_size
    forward = _output_at_end(ys[..., :size], mask, reverse=False)
    return merge_outputs(merge, forward, _output_at_end(ys[..., size:], mask, reverse=True))


def reverse_sequence(xs: PyTree, lengths: Array | None = None) -> PyTree:
    """Reverses `xs`, leaves `[T, *batch, ...]`, in time within each row's length; the padding stays in place.

    Example:
        >>> reverse_sequence(jnp.array([[1, 1], [2, 2], [3, 3]]), jnp.array([3, 2])).T.tolist()
        [[3, 2, 1], [2, 1, 3]]
    """
    for leaf in [xs] if isinstance(xs, list) else jax.tree.leaves(xs):
        check_arrays(xs=leaf)
    if lengths is not None:
        steps, *rest = jnp.shape(jax.tree.leaves(xs)[0])
        lengths = check_lengths(lengths, steps, tuple(rest[: jnp.ndim(lengths)]))
    return jax.tree.map(lambda x: flip(jnp.asarray(x), lengths), xs)


# Lists of sequences


class Padded(NamedTuple):
    """Sequences side by side."""

    xs: np.ndarray  # [T, B, ...], zero beyond the lengths
    lengths: np.ndarray  # [B]
    numbers: np.ndarray  # [B], the number of the sequence in each row; -1: none, the row has length 0


def pad(sequences: Sequence[Any], steps: int | None = None) -> Padded:
    """Sets arrays `[T_i, ...]` side by side as one `[T, B, ...]`, with their lengths.

    Args:
        sequences: of equal dtype and shape but for the first axis.
        steps: T; None: the longest.

    Raises:
        ValueError: no sequences, different shapes or dtypes, or one longer than `steps`.

    Example:
        >>> xs, lengths, _ = pad([np.ones((2, 3)), np.ones((4, 3))])
        >>> xs.shape, lengths.tolist()
        ((4, 2, 3), [2, 4])
    """
    arrays = _arrays(sequences)
    sizes = np.array([len(a) for a in arrays], np.int32)
    steps = _steps(sizes, steps)
    xs = np.zeros((steps, len(arrays), *arrays[0].shape[1:]), arrays[0].dtype)
    for row, a in enumerate(arrays):
        xs[: len(a), row] = a
    return Padded(xs, sizes, np.arange(len(arrays)))


def _arrays(sequences: Sequence[Any]) -> list[np.ndarray]:
    arrays = [np.asarray(a) for a in sequences]
    if not arrays:
        raise ValueError("sequences: got none, needs at least one")
    kinds = {(a.shape[1:] if a.ndim else None, a.dtype) for a in arrays}
    if len(kinds) != 1 or not arrays[0].ndim:
        raise ValueError(
            f"sequences: got arrays of the shapes {[a.shape for a in arrays]}, needs [T_i, ...] of one dtype"
        )
    return arrays


def _steps(sizes: np.ndarray, steps: int | None) -> int:
    longest = int(sizes.max())
    if steps is not None:
        check_sizes(steps=steps)
        if steps < longest:
            raise ValueError(f"steps: got {steps}, needs {longest}, the longest sequence, at least")
    return longest if steps is None else steps


class Packed(NamedTuple):
    """Sequences after and beside each other: `unroll(cell, params, xs, lengths=lengths, resets=resets)`."""

    xs: np.ndarray  # [T, R, ...]
    lengths: np.ndarray  # [R], the filled part of each row
    resets: np.ndarray  # [T, R] bool, the first step of each sequence
    segments: np.ndarray  # [T, R], the sequence's number from 1; 0: padding
    rows: np.ndarray  # [N], where each sequence is
    starts: np.ndarray  # [N]
    sizes: np.ndarray  # [N]


def pack(sequences: Sequence[Any], steps: int | None = None) -> Packed:
    """Packs arrays `[T_i, ...]` into few rows: the longest first, each into the first row with room for it.

    Args:
        sequences: of equal dtype and shape but for the first axis, each of at least one step.
        steps: T, length of a row; None: the longest sequence.

    Raises:
        ValueError: no sequences, an empty one, different shapes or dtypes, or one longer than `steps`.

    Example:
        >>> packed = pack([np.full(2, 1.0), np.full(5, 2.0), np.full(3, 3.0)])
        >>> packed.segments.T.tolist()
        [[2, 2, 2, 2, 2], [3, 3, 3, 1, 1]]
        >>> [part.tolist() for part in unpack(packed, packed.xs)]
        [[1.0, 1.0], [2.0, 2.0, 2.0, 2.0, 2.0], [3.0, 3.0, 3.0]]
    """
    arrays = _arrays(sequences)
    sizes = np.array([len(a) for a in arrays], np.int32)
    if not sizes.all():
        raise ValueError(f"sequences: got lengths {sizes.tolist()}, needs one step in each at least")
    steps = _steps(sizes, steps)
    rows, starts = _first_fit(sizes, steps)
    filled = np.bincount(rows, sizes).astype(np.int32)
    xs = np.zeros((steps, len(filled), *arrays[0].shape[1:]), arrays[0].dtype)
    segments = np.zeros(xs.shape[:2], np.int32)
    for i, (a, row, start) in enumerate(zip(arrays, rows, starts, strict=True)):
        xs[start : start + len(a), row] = a
        segments[start : start + len(a), row] = i + 1
    resets = np.zeros(segments.shape, bool)
    resets[starts, rows] = True
    return Packed(xs, filled, resets, segments, rows, starts, sizes)


def _first_fit(sizes: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The row and the start of each sequence: the longest first, each into the first row that has room for it."""
    rows, starts = [0] * len(sizes), [0] * len(sizes)
    leaves = 1 << (len(sizes) - 1).bit_length()
    # A binary tree over as many rows as there may be: `room[n]` is the most that a row below the node n has.
    room = [steps] * (2 * leaves)
    order = np.argsort(-sizes, kind="stable")
    for i, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        node = 1
        while node < leaves:
            node *= 2
            node += room[node] < size
        rows[i], starts[i] = node - leaves, steps - room[node]
        most = room[node] - size  # up to where nothing changes, which is `room[0]` at the latest
        while room[node] != most:
            room[node] = most
            most = max(most, room[node ^ 1])
            node //= 2
    return np.array(rows, np.int32), np.array(starts, np.int32)


def unpack(packed: Packed, ys: Array) -> list[Array]:
    """Splits `ys` `[T, R, ...]` into the packed sequences: a list of `[T_i, ...]` in their original order."""
    check_arrays(ys=ys)
    return [ys[s : s + n, r] for r, s, n in zip(packed.rows, packed.starts, packed.sizes, strict=True)]


def last_of_each(packed: Packed, ys: Array) -> Array:
    """Returns `ys` `[T, R, ...]` at the last step of each packed sequence: `[N, ...]`."""
    check_arrays(ys=ys)
    return ys[packed.starts + packed.sizes - 1, packed.rows]


def buckets(sequences: Iterable[Any], boundaries: Sequence[int], batch_size: int) -> Iterator[Padded]:
    """Groups a stream of arrays `[T_i, ...]` into batches: T is one of `boundaries`, B is `batch_size`.

    A compiled function traces at most one shape for each boundary. The last batches are filled up with rows of length
    0, whose `numbers` are -1.

    Args:
        sequences: any iterable; read as needed.
        boundaries: rising lengths; a sequence goes to the smallest one that fits.
        batch_size: B.

    Raises:
        ValueError: boundaries that do not rise, or a sequence longer than the last.

    Example:
        >>> stream = (np.ones(n) for n in [2, 7, 3, 8, 4])
        >>> [(b.xs.shape, b.numbers.tolist()) for b in buckets(stream, (4, 8), batch_size=2)]
        [((4, 2), [0, 2]), ((8, 2), [1, 3]), ((4, 2), [4, -1])]
    """
    check_sizes(batch_size=batch_size, **{f"boundaries[{i}]": n for i, n in enumerate(boundaries)})
    if not len(boundaries) or any(a >= b for a, b in itertools.pairwise(boundaries)):
        raise ValueError(f"boundaries: got {boundaries}, needs rising lengths")
    return _buckets(sequences, boundaries, batch_size)


def _buckets(sequences: Iterable[Any], boundaries: Sequence[int], batch_size: int) -> Iterator[Padded]:
    waiting: dict[int, list[tuple[int, np.ndarray]]] = {steps: [] for steps in boundaries}

    def batch(steps: int) -> Padded:
        numbers, arrays = zip(*waiting[steps], strict=True)
        waiting[steps] = []
        fill = batch_size - len(arrays)
        padded = pad([*arrays, *[arrays[0][:0]] * fill], steps)
        return padded._replace(numbers=np.array([*numbers, *[-1] * fill]))

    for i, sequence in enumerate(sequences):
        (array,) = _arrays([sequence])
        steps = next((n for n in boundaries if len(array) <= n), None)
        if steps is None:
            raise ValueError(f"sequences: got one of length {len(array)}, needs at most {boundaries[-1]}")
        waiting[steps].append((i, array))
        if len(waiting[steps]) == batch_size:
            yield batch(steps)
    for steps in boundaries:
        if waiting[steps]:
            yield batch(steps)


def to_packed_sequence(xs: Any, lengths: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the four arrays of a PyTorch `PackedSequence`: data, batch_sizes, sorted_indices, unsorted_indices.

    `data` `[sum(lengths), ...]` holds the valid steps of all rows, ordered by time, the longest row first.
    `batch_sizes[t]` is the number of rows that reach step t. In PyTorch:
    `PackedSequence(*map(torch.as_tensor, to_packed_sequence(xs, lengths)))`.

    Args:
        xs: `[T, B, ...]`.
        lengths: `[B]` integers in 1..T, as PyTorch needs them.

    Example:
        >>> data, sizes, order, _ = to_packed_sequence(np.array([[1, 5], [0, 6], [0, 7]]), [1, 3])
        >>> data.tolist(), sizes.tolist(), order.tolist()
        ([5, 1, 6, 7], [2, 1, 1], [1, 0])
    """
    xs, lengths = np.asarray(xs), np.asarray(lengths)
    check_lengths(lengths, len(xs), xs.shape[1:2])
    if not lengths.all():
        raise ValueError(f"lengths: got {lengths.tolist()}, PyTorch needs at least 1")
    order = np.argsort(-lengths, kind="stable")
    longest = lengths.max(initial=0)
    valid = np.arange(longest)[:, None] < lengths[order]
    data = xs[:longest][:, order][valid]
    return data, valid.sum(1), order, np.argsort(order, kind="stable")


def from_packed_sequence(data: Any, batch_sizes: Any, unsorted_indices: Any = None) -> Padded:
    """Pads a PyTorch `PackedSequence`; rows are in their original order.

    Example:
        >>> from_packed_sequence([5, 1, 6, 7], [2, 1, 1], [1, 0]).xs.tolist()
        [[1, 5], [0, 6], [0, 7]]
    """
    data, sizes = np.asarray(data), np.asarray(batch_sizes, np.int64)
    batch = sizes.max(initial=0)
    valid = np.arange(batch)[None] < sizes[:, None]
    xs = np.zeros((*valid.shape, *data.shape[1:]), data.dtype)
    xs[valid] = data
    back = np.arange(batch) if unsorted_indices is None else np.asarray(unsorted_indices, np.int64)
    return Padded(xs[:, back], valid.sum(0)[back].astype(np.int32), np.arange(batch))


def repeat(
    cell: Layer, params: Params, x: PyTree, steps: int, state: State | None = None, *, key: Key | None = None
) -> tuple[State, PyTree]:
    """Runs a cell with the same input at each of `steps` steps: `(state, ys)`, as `unroll` does.

    Args:
        cell: any cell.
        params: from `cell.init`.
        x: one step's input, leaves `[*batch, ...]`.
        steps: T.
        state: before the first step; None: the initial state.
        key: for cells with randomness.

    Example:
        >>> import jaxrnn
        >>> cell = jaxrnn.GRU(3, 4)
        >>> state, ys = repeat(cell, cell.init(jax.random.key(0)), jnp.ones((2, 3)), steps=5)
        >>> ys.shape
        (5, 2, 4)

    Reference: Element-Research/rnn, `Repeater`.
    """
    check_sizes(steps=steps)
    check_input(cell, x)
    xs = jax.tree.map(lambda a: jnp.broadcast_to(jnp.asarray(a)[None], (steps, *jnp.shape(a))), x)
    return unroll(cell, params, xs, state, key=key)
