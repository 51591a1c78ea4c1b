"""Batches by number: epochs are whole, streams go on, and what follows a resume is what would have followed."""

import itertools

import jax
import numpy as np
import pytest

from jaxrnn import batches

SEQUENCES = [np.full((n, 2), i + 1.0, np.float32) for i, n in enumerate((3, 1, 4, 2, 7, 5, 2))]

ALL = {
    "shuffled": batches.shuffled({"x": np.arange(14).reshape(7, 2), "y": np.arange(7)}, 3),
    "shuffled by columns": batches.shuffled(np.arange(14).reshape(2, 7), 3, axis=1),
    "padded": batches.padded(SEQUENCES, 3),
    "padded in buckets": batches.padded(SEQUENCES, 3, labels=range(7), boundaries=(2, 4, 8)),
    "packed": batches.packed(SEQUENCES, 2, steps=8),
    "streams": batches.streams(np.arange(100), 3, 7),
    "streams that jump": batches.streams(np.arange(100), 3, 7, stretch=4),
    "windows": batches.windows([np.arange(9), np.arange(20, 26)], 4, 3),
    "numbered": batches.numbered(lambda number: np.full(2, number)),
}


@pytest.mark.parametrize("name", ALL)
def test_a_resumed_run_sees_what_it_would_have_seen(name):
    whole = list(itertools.islice(ALL[name](0), 30))
    for start in (1, 7, 23):  # in any order, also back
        for got, want in zip(ALL[name](start), whole[start : start + 5], strict=False):
            jax.tree.map(np.testing.assert_array_equal, got, want)
    assert len({str(jax.tree.map(np.ndarray.tolist, batch)) for batch in whole}) > 3, "not always the same"


@pytest.mark.parametrize("seed", [0, 1])
def test_each_epoch_has_each_example_once(seed):
    made = list(itertools.islice(batches.shuffled(np.arange(7), 3, seed=seed)(0), 14))
    epochs = np.concatenate(made).reshape(6, 7)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(7), (6, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 6
    first = next(batches.shuffled(np.arange(1000), 1000, seed=seed)(0))
    assert not np.array_equal(first, next(batches.shuffled(np.arange(1000), 1000, seed=1 - seed)(0)))


def test_a_batch_may_be_larger_than_the_data():
    made = list(itertools.islice(batches.shuffled(np.arange(3), 8)(0), 3))
    np.testing.assert_array_equal(np.sort(np.concatenate(made).reshape(8, 3)), np.tile(np.arange(3), (8, 1)))


@pytest.mark.parametrize("boundaries", [None, (2, 4, 8)])
def test_padded_sequences_are_whole(boundaries):
    per_epoch = (
        7 if boundaries is None else 4
    )  # of three boundaries: 3, 2 and 2 sequences; of 1, 7 epochs in 7 x 3 rows
    made = list(
        itertools.islice(batches.padded(SEQUENCES, 3 if boundaries is None else 2, boundaries=boundaries)(0), per_epoch)
    )
    seen = []
    for xs, lengths, numbers, labels in made:
        assert labels is None
        assert xs.shape[0] == (7 if boundaries is None else min(b for b in boundaries if b >= lengths.max()))
        for row, (n, number) in enumerate(zip(lengths, numbers, strict=True)):
            if number < 0:
                assert n == 0
                continue
            np.testing.assert_array_equal(xs[:n, row], SEQUENCES[number])
            assert not xs[n:, row].any()
            seen.append(number)
    assert sorted(seen) == sorted(list(range(7)) * (3 if boundaries is None else 1))


def test_an_epoch_of_buckets_is_planned_once(monkeypatch):
    orders = []
    monkeypatch.setattr(batches, "_order", lambda *arguments: orders.append(arguments) or np.arange(7))
    made = list(itertools.islice(batches.padded(SEQUENCES, 1, boundaries=(2, 4, 8), seed=3)(5), 16))  # from 5 to 20
    assert sorted(made[i].numbers.item() for i in range(2, 9)) == list(range(7))
    assert orders == [(3, epoch, 7) for epoch in (0, 1, 2)]


@pytest.mark.parametrize("boundaries", [None, (2, 4, 8)])
def test_each_row_has_its_label(boundaries):
    labels = [[10 * i, i] for i in range(7)]  # lists, as they come from a file
    seen = set()
    for rows in itertools.islice(batches.padded(SEQUENCES, 2, labels=labels, boundaries=boundaries)(0), 4):
        assert rows.labels.shape == (2, 2)
        for number, label in zip(rows.numbers.tolist(), rows.labels.tolist(), strict=True):
            assert label == (labels[number] if number >= 0 else [0, 0])
            seen.add(number)
    assert seen >= set(range(7))


def test_labels_of_steps_are_padded_alike():
    tags = [np.full(len(sequence), 10 * i) for i, sequence in enumerate(SEQUENCES)]
    options = {"boundaries": (2, 4, 8), "seed": 1}
    for xs, ys in zip(batches.padded(SEQUENCES, 2, **options)(3), batches.padded(tags, 2, **options)(3), strict=False):
        np.testing.assert_array_equal(ys.xs, np.where(xs.xs[..., 0] > 0, 10 * (xs.xs[..., 0] - 1), 0))
        if xs.numbers.max() == 6:
            break


def test_packed_rows_hold_each_sequence_once_an_epoch():
    rows = next(batches.packed(SEQUENCES, 3, steps=8)(0))  # 24 steps in three rows of 8
    assert rows.lengths.tolist() == [8, 8, 8]
    found = []
    for row in range(3):
        for part in np.split(np.arange(8), np.flatnonzero(rows.resets[:, row])[1:]):
            number = int(rows.segments[part[0], row])
            np.testing.assert_array_equal(rows.xs[part, row], SEQUENCES[number - 1])
            found.append(number)
    assert sorted(found) == list(range(1, 8))


@pytest.mark.parametrize("stretch", [None, 4])
def test_windows_of_a_stream_go_on_where_the_one_before_ended(stretch):
    stream = np.arange(103)
    made = list(itertools.islice(batches.streams(stream, 3, 7, stretch=stretch)(0), 12))
    turns = 4  # (103 // 3 - 1) // 7 is 4, too
    for n, window in enumerate(made):
        assert (window.xs.shape, window.resets.shape) == ((8, 3), (7, 3))
        np.testing.assert_array_equal(window.xs[1:], (window.xs[:-1] + 1) % 103)
        assert (window.resets[0] == (n % turns == 0)).all()
        assert not window.resets[1:].any()
        if n % turns:
            np.testing.assert_array_equal(window.xs[0], made[n - 1].xs[-1])
    places = {tuple(made[n].xs[0]) for n in (0, turns, 2 * turns)}
    assert len(places) == (1 if stretch is None else 3)
    if stretch is None:
        assert places == {(0, 34, 68)}


def test_windows_of_series_do_not_reach_from_one_into_another():
    series = [np.arange(9), np.arange(20, 26)]
    made = np.concatenate(list(itertools.islice(batches.windows(series, 4, 3)(0), 3)), axis=1)
    assert made.shape == (4, 9)
    assert sorted(made[0].tolist()) == [0, 1, 2, 3, 4, 5, 20, 21, 22]
    assert (np.diff(made, axis=0) == 1).all()
    strided = next(batches.windows(np.arange(9), 3, 3, stride=3)(0))
    assert sorted(strided[0].tolist()) == [0, 3, 6]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: batches.shuffled(np.arange(3), 0), "batch_size: got 0, needs a positive integer"),
        (
            lambda: batches.shuffled((np.arange(3), np.arange(4)), 2),
            r"data: got the shapes \(3,\), \(4,\), needs as many",
        ),
        (
            lambda: batches.shuffled((np.ones((5, 3, 2)), np.arange(3)), 2, axis=1),
            r"along axis 1 in each, one at least; labels \[N\] become \[1, N\] by labels\[None\]",
        ),
        (
            lambda: batches.shuffled(np.zeros((0, 2)), 2),
            r"data: got the shapes \(0, 2\), needs as many examples along axis 0",
        ),
        (
            lambda: batches.padded(SEQUENCES, 2, boundaries=(4, 2)),
            r"boundaries: got \(4, 2\), needs rising lengths, such as",
        ),
        (
            lambda: batches.padded(SEQUENCES, 2, boundaries=(2, 4)),
            r"boundaries: got \(2, 4\), needs rising lengths up to 7",
        ),
        (lambda: batches.padded([], 2), "sequences: got none"),
        (lambda: batches.streams(np.arange(20), 3, 6), "stream: got 20 steps, needs more than 6 for each of the rows"),
        (lambda: batches.streams(np.arange(20), 3, 6, stretch=0), "stretch: got 0, needs a positive integer"),
        (lambda: batches.windows(np.arange(3), 4, 2), r"series: got .* at most 3, needs one of 4 or more \(length\)"),
        (lambda: batches.windows([1.0, 2.0], 1, 2), r"series\[0\]: got the shape \(\) of float64, needs an array"),
        (lambda: batches.windows((np.ones((5, 2)), np.ones((5, 3))), 2, 2), r"series\[1\]: got the shape \(5, 3\)"),
        (lambda: batches.streams("a text of some length", 2, 3), r"stream: got the shape \(\) of <U21, needs an array"),
        (lambda: batches.padded(SEQUENCES, 2, boundaries=50), "boundaries: got 50, needs rising lengths, such as"),
        (lambda: batches.padded(SEQUENCES, 2, boundaries=()), r"boundaries: got \(\), needs rising lengths, such as"),
        (
            lambda: batches.padded(SEQUENCES, 2, boundaries=(2, 8.5)),
            r"boundaries\[1\]: got 8.5, needs a positive integer",
        ),
        (lambda: batches.padded(2, SEQUENCES), "batch_size: got list, needs a positive integer"),
        (lambda: batches.padded(SEQUENCES, 2, labels=[0, 1]), r"labels: got .* \(2,\), needs \[N, ...\], .* N = 7"),
        (lambda: batches.padded(SEQUENCES, 2, labels=[[0, 1], [0]]), r"labels: got object values, needs numbers \[N, "),
        (
            lambda: batches.padded(SEQUENCES, 2, labels="ab"),
            r"labels: got <U2 values, .*return_inverse=True\)\[1\] numbers",
        ),
        (lambda: batches.padded(SEQUENCES, 2, seed=None), "seed: got None, needs an integer of at least 0"),
        (lambda: batches.shuffled([1, 2], 2), r"data: got the shapes \(\), \(\), .*np.asarray makes an array"),
        (lambda: batches.shuffled(np.arange(3), 2, axis="x"), "axis: got 'x', needs an integer"),
        (lambda: batches.shuffled(np.arange(3), 2)(-1), "start: got -1, needs an integer of at least 0"),
        (lambda: batches.numbered(3), "batch: got 3, needs a function of a batch's number"),
        (lambda: batches.numbered(lambda: 3), r"batch: got <lambda>\(\), needs a function of a batch's number"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
