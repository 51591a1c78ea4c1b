"""Batches by number: each is a function of its number alone, so that a resumed run sees what it would have seen.

`training.fit` asks for `batches(start)`, an iterator from batch number `start` on, and its checkpoints hold the number
of the next batch. Each function here returns such a `batches`.

    shuffled        examples of equal shape, in epochs
    padded          sequences of different length with their labels, padded, with boundaries in few shapes
    packed          the same, several in a row, in one shape
    streams         windows of one long sequence for truncated backpropagation, the state carried from each to the next
    windows         windows of series, for forecasts

Grain, the loader of the JAX project, resumes by the state of an iterator, which has to be saved beside the model. Here
the step that a checkpoint holds anyway is all there is to save. Grain is the better choice for data that does not fit
into memory, for worker processes and for many hosts; `lambda start: iter(dataset.slice(slice(start, None)))` hands one
of its datasets to `fit`.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from jaxrnn.checks import check_boundaries, check_counts, check_functions, check_sizes
from jaxrnn.sequences import pack, pad
from jaxrnn.sequences.lists import array_of, arrays_of
from jaxrnn.typing import PyTree

__all__ = ["PackedRows", "PaddedRows", "Window", "numbered", "packed", "padded", "shuffled", "streams", "windows"]

B = TypeVar("B")


def numbered(batch: Callable[[int], B]) -> Callable[[int], Iterator[B]]:
    """Turns a function of a batch's number into `batches(start)`.

    Raises:
        TypeError, ValueError: `batch` is no function, or (from `batches`) `start` no integer of at least 0.

    Example:
        >>> batches = numbered(lambda number: number * number)
        >>> list(itertools.islice(batches(3), 2))
        [9, 16]
    """
    check_functions("of a batch's number", 1, batch=batch)

    def batches(start: int) -> Iterator[B]:
        check_counts(start=start)
        return map(batch, itertools.count(start))

    return batches


def _order(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(n)


def _shuffle(n: int, batch_size: int, seed: int) -> Callable[[int], np.ndarray]:
    """Batch number -> its examples, of epochs that follow each other without a gap."""
    epochs: dict[int, np.ndarray] = {}

    def numbers(batch: int) -> np.ndarray:
        epoch, place = np.divmod(np.arange(batch * batch_size, (batch + 1) * batch_size), n)
        found = np.empty(batch_size, int)
        for e in np.unique(epoch).tolist():
            if e not in epochs:
                if len(epochs) > 1:
                    epochs.clear()
                epochs[e] = _order(seed, e, n)
            found[epoch == e] = epochs[e][place[epoch == e]]
        return found

    return numbers


def shuffled(data: PyTree, batch_size: int, *, seed: int = 0, axis: int = 0) -> Callable[[int], Iterator[PyTree]]:
    """Draws batches of examples in a new order for each epoch.

    Each epoch has each example once. A batch may hold the end of one epoch and the beginning of the next, so all are of
    one size and nothing is left out.

    Args:
        data: a pytree of arrays with N examples along `axis`.
        batch_size: B.
        seed: of the orders.
        axis: of the examples, 1 in time-major data `[T, N, ...]`.

    Raises:
        TypeError, ValueError: leaves of different N, or none, or an argument of another kind or range.

    Example:
        >>> batches = shuffled({"x": np.arange(10), "y": np.arange(10) ** 2}, batch_size=4)
        >>> first = list(itertools.islice(batches(0), 5))
        >>> epochs = np.concatenate([batch["x"] for batch in first]).reshape(2, 10)
        >>> bool((np.sort(epochs) == np.arange(10)).all()), bool((epochs[0] == epochs[1]).all())
        (True, False)
        >>> bool((next(batches(3))["x"] == first[3]["x"]).all())
        True
    """
    check_sizes(batch_size=batch_size)
    check_counts(seed=seed)
    if not isinstance(axis, int):
        raise TypeError(f"axis: got {axis!r}, needs an integer")
    arrays = jax.tree.map(np.asarray, data)
    shapes = [leaf.shape for leaf in jax.tree.leaves(arrays)]
    sizes = {shape[axis] if -len(shape) <= axis < len(shape) else 0 for shape in shapes}
    if len(sizes) != 1 or not (n := sizes.pop()):
        way = "; labels [N] become [1, N] by labels[None]" if axis == 1 and any(len(s) == 1 for s in shapes) else ""
        if () in shapes:
            way = "; a list is a pytree of its elements, np.asarray makes an array of it"
        got = ", ".join(map(str, shapes[:4])) + ", ..." * (len(shapes) > 4)
        raise ValueError(
            f"data: got the shapes {got or 'of no arrays'}, needs as many examples along axis {axis} in each, one at "
            f"least{way}"
        )
    numbers = _shuffle(n, batch_size, seed)
    return numbered(lambda batch: jax.tree.map(lambda leaf: leaf.take(numbers(batch), axis), arrays))


class PaddedRows(NamedTuple):
    """Sequences side by side, with their labels: `unroll(cell, params, xs, lengths=lengths)`."""

    xs: np.ndarray  # [T, B, ...], zero beyond the lengths
    lengths: np.ndarray  # [B]
    numbers: np.ndarray  # [B], the number of the sequence in each row; -1: none, the row has length 0
    labels: np.ndarray | None  # [B, ...], zero where there is no sequence; None: no labels were given


def padded(
    sequences: Sequence[Any],
    batch_size: int,
    *,
    labels: Any = None,
    boundaries: Sequence[int] | None = None,
    seed: int = 0,
) -> Callable[[int], Iterator[PaddedRows]]:
    """Pads sequences `[T_i, ...]` into batches, in a new order for each epoch, and brings the label of each along.

    Args:
        sequences: of equal dtype and shape but for the first axis.
        batch_size: B.
        labels: `[N, ...]`, what belongs to each of the N sequences, such as its class; None: nothing. Labels of single
            steps are sequences themselves: a second `padded` of the same batch size, boundaries and seed pads them
            alike.
        boundaries: rising lengths; a batch has the sequences that fit into one of them and not the one before, so a
            compiled function traces that many shapes at most. In each epoch the last batch of a boundary is filled up
            with rows of length 0 and number -1, which a loss leaves out: `losses.mean(where=numbers >= 0)`. None: one
            shape, as long as the longest, and no filling.
        seed: of the orders.

    Raises:
        TypeError, ValueError: no sequences, different shapes or dtypes, or one longer than the last boundary; as many
            labels as there are sequences are needed.

    Example:
        >>> data, labels = [np.full(n, n) for n in (2, 4, 1, 3)], np.array([20, 40, 10, 30])
        >>> rows = next(padded(data, 2, labels=labels)(0))
        >>> rows.xs.shape, bool((rows.labels == 10 * rows.lengths).all())
        ((4, 2), True)
        >>> sorted(b.xs.shape for b in itertools.islice(padded(data, 2, boundaries=(2, 4))(0), 2))
        [(2, 2), (4, 2)]
    """
    check_sizes(batch_size=batch_size)
    check_counts(seed=seed)
    arrays = arrays_of(sequences)
    lengths = np.array([len(a) for a in arrays])
    known = None if labels is None else _labels_of(labels, len(arrays))

    def rows(numbers: np.ndarray, steps: int) -> PaddedRows:
        """The rows of these sequences; those of number -1 are empty."""
        real = numbers >= 0
        xs, lengths, _ = pad([arrays[i] if i >= 0 else arrays[0][:0] for i in numbers], steps)
        if known is None:
            return PaddedRows(xs, lengths, numbers, None)
        found = np.zeros((len(numbers), *known.shape[1:]), known.dtype)
        found[real] = known[numbers[real]]
        return PaddedRows(xs, lengths, numbers, found)

    longest = int(lengths.max())
    if boundaries is None:
        numbers = _shuffle(len(arrays), batch_size, seed)
        return numbered(lambda batch: rows(numbers(batch), longest))
    limits = check_boundaries(boundaries)
    if longest > limits[-1]:
        raise ValueError(f"boundaries: got {limits}, needs rising lengths up to {longest}, the longest sequence")
    bucket = np.searchsorted(limits, lengths)
    per_epoch = sum(-(-n // batch_size) for n in np.bincount(bucket).tolist())

    @functools.lru_cache(maxsize=1)  # the batches of an epoch come one after the other
    def plan(epoch: int) -> list[tuple[int, np.ndarray]]:
        order = _order(seed, epoch, len(arrays))
        batches = []
        for b in np.unique(bucket).tolist():
            members = order[bucket[order] == b]
            batches += [(limits[b], members[i : i + batch_size]) for i in range(0, len(members), batch_size)]
        return [batches[i] for i in np.random.default_rng((seed, epoch, 1)).permutation(len(batches))]

    def bucketed(batch: int) -> PaddedRows:
        epoch, place = divmod(batch, per_epoch)
        steps, found = plan(epoch)[place]
        return rows(np.concatenate([found, np.full(batch_size - len(found), -1)]), steps)

    return numbered(bucketed)


def _labels_of(labels: Any, count: int) -> np.ndarray:
    """Returns the labels as an array; raises unless there is one for each of `count` sequences."""
    try:
        known = np.asarray(labels)
    except ValueError:
        known = np.empty((), object)
    if known.dtype.kind in "OSU":
        way = "; np.unique(labels, return_inverse=True)[1] numbers words" if known.dtype.kind != "O" else ""
        raise TypeError(f"labels: got {known.dtype} values, needs numbers [N, ...]{way}")
    if known.shape[:1] != (count,):
        raise ValueError(
            f"labels: got the shape {known.shape}, needs [N, ...], one for each of the N = {count} sequences"
        )
    return known


class PackedRows(NamedTuple):
    """Rows of several sequences each: `unroll(cell, params, xs, lengths=lengths, resets=resets)`."""

    xs: np.ndarray  # [T, B, ...]
    lengths: np.ndarray  # [B], the filled part of each row
    resets: np.ndarray  # [T, B] bool, the first step of each sequence
    segments: np.ndarray  # [T, B], the sequence's number from 1; 0: padding


def packed(
    sequences: Sequence[Any], batch_size: int, *, steps: int | None = None, seed: int = 0
) -> Callable[[int], Iterator[PackedRows]]:
    """Packs several sequences into each row of a batch, with little padding, in a new order for each epoch.

    Which sequences share a row stays as `sequences.pack` lays it out.

    Args:
        sequences: of equal dtype and shape but for the first axis, each of at least one step.
        batch_size: B, rows.
        steps: T, length of a row; None: the longest sequence.
        seed: of the orders.

    Example:
        >>> rows = next(packed([np.full(2, 1.0), np.full(5, 2.0), np.full(3, 3.0)], batch_size=2)(0))
        >>> sorted(rows.segments.T.tolist())
        [[2, 2, 2, 2, 2], [3, 3, 3, 1, 1]]
    """
    whole = pack(sequences, steps)
    by_row = shuffled((whole.xs, whole.lengths[None], whole.resets, whole.segments), batch_size, seed=seed, axis=1)
    return lambda start: (PackedRows(xs, lengths[0], *flags) for xs, lengths, *flags in by_row(start))


class Window(NamedTuple):
    """A window of a stream: `xs[:-1]` are inputs, `xs[1:]` targets."""

    xs: np.ndarray  # [T + 1, B, ...]
    resets: np.ndarray  # [T, B] bool, true in the first step of rows that do not go on from the window before


def streams(
    stream: Any, batch_size: int, window: int, *, stretch: int | None = None, seed: int = 0
) -> Callable[[int], Iterator[Window]]:
    """Cuts one long sequence `[N, ...]` into windows, each going on where the one before ended: for a carried state.

    Args:
        stream: `[N, ...]`, such as the tokens of a text.
        batch_size: B, places that are read at once.
        window: T, steps of a window.
        stretch: windows that a row reads on end before it goes to another place, drawn at random, and round at the end
            of the stream; None: each row reads its own N / B of the stream from beginning to end, then again.
        seed: of the places.

    Raises:
        ValueError: a stream that is too short.

    Example:
        >>> first, second, third = itertools.islice(streams(np.arange(14), 2, 3)(0), 3)
        >>> first.xs.T.tolist(), second.xs.T.tolist()
        ([[0, 1, 2, 3], [7, 8, 9, 10]], [[3, 4, 5, 6], [10, 11, 12, 13]])
        >>> first.resets[0].tolist(), second.resets[0].tolist(), third.xs[0].tolist()
        ([True, True], [False, False], [0, 7])
    """
    check_sizes(batch_size=batch_size, window=window)
    check_counts(seed=seed)
    symbols = array_of(stream, "stream")
    part = len(symbols) // batch_size if stretch is None else len(symbols)
    if part <= window:
        raise ValueError(
            f"stream: got {len(symbols)} steps, needs more than {window} for each of the rows, window = {window}"
        )
    if stretch is None:
        turns = (part - 1) // window
    else:
        check_sizes(stretch=stretch)
        turns = stretch

    def one(batch: int) -> Window:
        number, turn = divmod(batch, turns)
        if stretch is None:
            places = np.arange(batch_size) * part
        else:
            places = np.random.default_rng((seed, number)).integers(len(symbols), size=batch_size)
        times = places + turn * window + np.arange(window + 1)[:, None]
        resets = np.zeros((window, batch_size), bool)
        resets[0] = turn == 0
        return Window(symbols[times % len(symbols)], resets)

    return numbered(one)


def windows(
    series: Any, length: int, batch_size: int, *, stride: int = 1, seed: int = 0
) -> Callable[[int], Iterator[np.ndarray]]:
    """Draws windows `[length, B, ...]` of series in a new order for each epoch: a forecast's inputs and targets in one.

    Args:
        series: `[N, ...]`, or a list of series `[N_i, ...]` of one dtype; no window reaches from one into another.
        length: of a window, the steps of the forecast included.
        batch_size: B.
        stride: steps from the beginning of one window to that of the next.
        seed: of the orders.

    Raises:
        ValueError: no series is as long as a window, or they are of different shapes or dtypes.

    Example:
        >>> sorted(next(windows(np.arange(6.0), 4, batch_size=3)(0)).T.tolist())
        [[0.0, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0]]
    """
    check_sizes(length=length, batch_size=batch_size, stride=stride)
    check_counts(seed=seed)
    parts = arrays_of(series, "series") if isinstance(series, list | tuple) else [array_of(series, "series")]
    starts = [(i, at) for i, part in enumerate(parts) for at in range(0, len(part) - length + 1, stride)]
    if not starts:
        longest = max(map(len, parts))
        raise ValueError(f"series: got lengths of at most {longest}, needs one of {length} or more (length)")
    numbers = _shuffle(len(starts), batch_size, seed)

    def one(batch: int) -> np.ndarray:
        return np.stack([parts[i][at : at + length] for i, at in (starts[n] for n in numbers(batch))], axis=1)

    return numbered(one)
