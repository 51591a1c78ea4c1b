"""Lists of sequences as arrays: side by side, packed into rows, in batches of few shapes, in PyTorch's form. NumPy."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrnn.checks import check_arrays, check_boundaries, check_lengths, check_sizes
from jaxrnn.typing import Array

__all__ = [
    "Packed",
    "Padded",
    "buckets",
    "from_packed_sequence",
    "last_of_each",
    "pack",
    "pad",
    "to_packed_sequence",
    "unpack",
]


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
    arrays = arrays_of(sequences)
    sizes = np.array([len(a) for a in arrays], np.int32)
    steps = _steps(sizes, steps)
    xs = np.zeros((steps, len(arrays), *arrays[0].shape[1:]), arrays[0].dtype)
    for row, a in enumerate(arrays):
        xs[: len(a), row] = a
    return Padded(xs, sizes, np.arange(len(arrays)))


def arrays_of(sequences: Any, name: str = "sequences") -> list[np.ndarray]:
    """Returns sequences as arrays; raises unless they are `[T_i, ...]` of one dtype, one at least."""
    needs = "needs a list of arrays [T_i, ...] of one dtype"
    if not isinstance(sequences, Iterable) or isinstance(sequences, str | bytes | Mapping):
        raise TypeError(f"{name}: got {type(sequences).__name__}, {needs}")
    arrays = [array_of(a, f"{name}[{i}]") for i, a in enumerate(sequences)]
    if not arrays:
        raise ValueError(f"{name}: got none, needs at least one")
    for i, (a, first) in enumerate(zip(arrays, arrays[:1] * len(arrays), strict=True)):
        if (a.shape[1:], a.dtype) != (first.shape[1:], first.dtype):
            like = f"[T_i, ...] as {name}[0], {first.shape} of {first.dtype}"
            raise ValueError(f"{name}[{i}]: got the shape {a.shape} of {a.dtype}, needs {like}")
    return arrays


def array_of(sequence: Any, name: str) -> np.ndarray:
    """Returns a sequence as an array; raises unless it is `[T, ...]`."""
    try:
        array = np.asarray(sequence)
    except ValueError:
        raise ValueError(f"{name}: got lists of different lengths, needs an array [T, ...]") from None
    if not array.ndim:
        raise ValueError(f"{name}: got the shape () of {array.dtype}, needs an array [T, ...]")
    return array


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
    arrays = arrays_of(sequences)
    sizes = np.array([len(a) for a in arrays], np.int32)
    if not sizes.all():
        raise ValueError(f"sequences[{int(np.argmin(sizes))}]: got no steps, needs one at least")
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
    _check_outputs(packed, ys)
    return [ys[s : s + n, r] for r, s, n in zip(packed.rows, packed.starts, packed.sizes, strict=True)]


def last_of_each(packed: Packed, ys: Array) -> Array:
    """Returns `ys` `[T, R, ...]` at the last step of each packed sequence: `[N, ...]`."""
    _check_outputs(packed, ys)
    return ys[packed.starts + packed.sizes - 1, packed.rows]


def _check_outputs(packed: Any, ys: Any) -> None:
    if not isinstance(packed, Packed):
        raise TypeError(f"packed: got {type(packed).__name__}, needs what pack gives")
    check_arrays(ys=ys)
    if np.shape(ys)[:2] != packed.resets.shape:
        raise ValueError(f"ys: got the shape {np.shape(ys)}, needs [T, R, ...] of packed, {packed.resets.shape}")


def buckets(sequences: Iterable[Any], boundaries: Sequence[int], batch_size: int) -> Iterator[Padded]:
    """Groups a stream of arrays `[T_i, ...]` into batches: T is one of `boundaries`, B is `batch_size`.

    A compiled function traces at most one shape for each boundary. The last batches are filled up with rows of length
    0, whose `numbers` are -1.

    Args:
        sequences: any iterable; read as needed.
        boundaries: rising lengths; a sequence goes to the smallest one that fits.
        batch_size: B.

    Raises:
        TypeError, ValueError: boundaries that do not rise, or a sequence longer than the last.

    Example:
        >>> stream = (np.ones(n) for n in [2, 7, 3, 8, 4])
        >>> [(b.xs.shape, b.numbers.tolist()) for b in buckets(stream, (4, 8), batch_size=2)]
        [((4, 2), [0, 2]), ((8, 2), [1, 3]), ((4, 2), [4, -1])]
    """
    check_sizes(batch_size=batch_size)
    if not isinstance(sequences, Iterable):
        raise TypeError(f"sequences: got {type(sequences).__name__}, needs an iterable of arrays [T_i, ...]")
    return _buckets(sequences, check_boundaries(boundaries), batch_size)


def _buckets(sequences: Iterable[Any], boundaries: Sequence[int], batch_size: int) -> Iterator[Padded]:
    waiting: dict[int, list[tuple[int, np.ndarray]]] = {steps: [] for steps in boundaries}

    def batch(steps: int) -> Padded:
        numbers, arrays = zip(*waiting[steps], strict=True)
        waiting[steps] = []
        fill = batch_size - len(arrays)
        padded = pad([*arrays, *[arrays[0][:0]] * fill], steps)
        return padded._replace(numbers=np.array([*numbers, *[-1] * fill]))

    for i, sequence in enumerate(sequences):
        array = array_of(sequence, f"sequences[{i}]")
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
    if xs.ndim < 2:
        raise ValueError(f"xs: got the shape {xs.shape}, needs [T, B, ...]")
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

    Of `packed` in PyTorch: `from_packed_sequence(packed.data, packed.batch_sizes, packed.unsorted_indices)`.

    Args:
        data: `[sum(batch_sizes), ...]`.
        batch_sizes: `[T]`, how many rows reach each step.
        unsorted_indices: `[B]`, where each row stands in the order of falling lengths; None: the rows are in it, as
            those that PyTorch packed with `enforce_sorted=True`.

    Raises:
        ValueError: they are not of one `PackedSequence`.

    Example:
        >>> from_packed_sequence([5, 1, 6, 7], [2, 1, 1], [1, 0]).xs.tolist()
        [[1, 5], [0, 6], [0, 7]]
    """
    data, sizes = array_of(data, "data"), array_of(batch_sizes, "batch_sizes")
    whole = np.issubdtype(sizes.dtype, np.integer) or not sizes.size
    if not whole or sizes.ndim != 1 or (np.diff(sizes) > 0).any():
        raise ValueError(f"batch_sizes: got {sizes.tolist()}, needs integers [T] that never rise")
    sizes = sizes.astype(np.int64)
    if len(data) != sizes.sum():
        raise ValueError(f"data: got the shape {data.shape}, needs [{sizes.sum()}, ...], the sum of batch_sizes")
    batch = int(sizes.max(initial=0))
    valid = np.arange(batch)[None] < sizes[:, None]
    xs = np.zeros((*valid.shape, *data.shape[1:]), data.dtype)
    xs[valid] = data
    back = np.arange(batch) if unsorted_indices is None else np.asarray(unsorted_indices, np.int64)
    if not np.array_equal(np.sort(back), np.arange(batch)):
        raise ValueError(f"unsorted_indices: got {back.tolist()}, needs each of 0..{batch - 1} once")
    return Padded(xs[:, back], valid.sum(0)[back].astype(np.int32), np.arange(batch))
