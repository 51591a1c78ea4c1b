"""Masks, packing and pooling: each row against a run of its own, PyTorch's packing against PyTorch."""

import functools
import itertools
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from bench.loops import products
from jaxrnn import networks
from jaxrnn import sequences as seq
from tests import reference
from tests.oracles import oracle
from tests.registry import T, example, in_loops, rare, unrolled
from tests.test_guards import gradient

GRU, LSTM = jaxrnn.GRU(3, 4), jaxrnn.LSTM(3, 4)
close = functools.partial(chex.assert_trees_all_close, rtol=1e-6, atol=1e-6)
# Gaps in the middle, at the start, at the end, everywhere and nowhere.
STEPS = {jaxrnn.GRU: reference.gru_after, jaxrnn.LSTM: reference.lstm}
MASK = np.array([[1, 0, 1, 1, 0, 1], [0, 1, 1, 0, 1, 0], [0] * 6, [1] * 6], bool).T


def pick(tree, row):
    return jax.tree.map(lambda a: a[row], tree)


to_numpy = functools.partial(jax.tree.map, np.asarray)


def alone(net, params, xs, state=None, reverse=False):
    """One sequence without batch, options or padding, in the NumPy of `tests/reference`."""
    state = net.initial_state() if state is None else state
    if isinstance(net, jaxrnn.Stack):
        states = []
        for layer, p, s in zip(net.cells, params, state, strict=True):
            s, xs = alone(layer, p, xs, s, reverse)
            states.append(s)
        return tuple(states), xs
    if isinstance(net, jaxrnn.Bidirectional):
        run = functools.partial(reference.bidirectional, *(STEPS[type(cell)] for cell in net.cells))
    else:
        run = functools.partial(reference.unroll, STEPS[type(net)])
    state, ys = run(net, params, xs[:, None], jax.tree.map(lambda a: np.asarray(a)[None], state), reverse=reverse)
    return pick(state, 0), ys[:, 0]


# Masks


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [np.array([5, 6, 3, 4]), *rare(None)], ids=["lengths", "whole"])
@pytest.mark.parametrize("net", [LSTM, jaxrnn.Stack((GRU, jaxrnn.Bidirectional(jaxrnn.LSTM(4, 2))))], ids=repr)
def test_held_steps_are_left_out_of_runs_of_each_row(net, lengths, reverse):
    cell = jaxrnn.Masked(net, "hold")
    params, (xs, _), state = example(cell, steps=6, batch=(4,))
    final, ys = to_numpy(unrolled(cell, params, (xs, MASK), state, lengths=lengths, reverse=reverse))
    for row in range(4):
        steps = [t for t in range(6) if MASK[t, row] and (lengths is None or t < lengths[row])]
        one, expected = alone(net, params, to_numpy(xs)[steps, row], pick(to_numpy(state), row), reverse=reverse)
        close(pick(final, row), one)
        close(ys[steps, row], expected)
        assert not np.delete(ys[:, row], steps, axis=0).any()


def test_no_nan_of_a_gap_is_moved():
    """Not even into what is thrown away."""
    params, (xs, mask), state = example(jaxrnn.Masked(GRU, "hold"))
    with jax.debug_nans(True):
        jaxrnn.unroll(jaxrnn.Masked(GRU, "hold"), params, (np.where(mask[..., None], xs, np.nan), mask), state)


@pytest.mark.parametrize("reverse", [False, True])
def test_gaps_reset_between_runs_of_each_stretch(reverse):
    """Element-Research's MaskZero: what a gap separates are sequences of their own."""
    cell = jaxrnn.Masked(LSTM, "reset")
    params, (xs, _), state = example(cell, steps=6, batch=(4,))
    final, ys = to_numpy(unrolled(cell, params, (xs, MASK), state, reverse=reverse))
    for row in range(4):
        s = pick(to_numpy(state), row)
        for valid, steps in itertools.groupby(range(6)[:: -1 if reverse else 1], key=lambda t: bool(MASK[t, row])):
            steps = sorted(steps)
            if valid:
                s, expected = alone(LSTM, params, to_numpy(xs)[steps, row], s, reverse=reverse)
                close(ys[steps, row], expected)
            else:
                s = to_numpy(LSTM.initial_state())
                assert not ys[np.array(steps), row].any()
        close(pick(final, row), s)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("policies", ["hold", "reset", *rare("reset hold", "hold reset")])
def test_gaps_and_resets_anywhere_are_the_loop_of_single_steps(policies, reverse):
    """At the ends of rows as well, and before and after the first valid step and the last one."""
    net = GRU
    for policy in policies.split():
        net = jaxrnn.Masked(net, policy)
    params, xs, state = example(net, steps=5, batch=(64,))
    rng = np.random.default_rng(3)
    xs = jax.tree.map(lambda x: rng.random(x.shape) < 0.5 if x.dtype == bool else x, to_numpy(xs))
    options = {"lengths": rng.integers(0, 6, 64), "resets": rng.random((5, 64)) < 0.4, "reverse": reverse}
    found = unrolled(net, params, xs, state, **options)
    chex.assert_trees_all_close(found, unrolled(jaxrnn.networks.Stepped(net), params, xs, state, **options), atol=1e-6)


@pytest.mark.parametrize("policy", ["hold", "reset"])
@pytest.mark.parametrize("reverse", [False, True])
def test_resets_and_gaps_together_are_the_loop_of_single_steps(policy, reverse):
    cell = jaxrnn.Masked(GRU, policy)
    params, (xs, _), state = example(cell, steps=6, batch=(4,))
    resets = np.random.default_rng(1).random((6, 4)) < 0.4
    lengths, call = np.array([6, 4, 5, 6]), jax.jit(cell)
    final, ys = to_numpy(unrolled(cell, params, (xs, MASK), state, lengths=lengths, resets=resets, reverse=reverse))
    for row in range(4):
        s = pick(to_numpy(state), row)
        steps = range(lengths[row])
        for t in reversed(steps) if reverse else steps:
            flag = t + 1 if reverse else t
            if flag < lengths[row] and resets[flag, row]:
                s = to_numpy(GRU.initial_state())
            s, y = call(params, s, pick((to_numpy(xs), MASK), (t, row)))
            close(ys[t, row], y)
        close(pick(final, row), s)


@pytest.mark.exhaustive
@pytest.mark.parametrize("policy", ["hold", "reset"])
@pytest.mark.parametrize("reverse", [True, *rare(False)])
def test_gaps_around_both_directions_are_gaps_in_each(policy, reverse):
    """What stands at an end of a row is before the run of one direction and after that of the other."""
    around = jaxrnn.Masked(jaxrnn.Stack((jaxrnn.Bidirectional(GRU, jaxrnn.LSTM(3, 2)),)), policy)
    params, (xs, _), state = example(around, steps=6, batch=(40,))
    inside = jaxrnn.Bidirectional(jaxrnn.Masked(GRU, policy), jaxrnn.Masked(jaxrnn.LSTM(3, 2), policy))
    rng = np.random.default_rng(2)
    mask, resets = rng.random((6, 40)) < 0.5, rng.random((6, 40)) < 0.3
    options = {"resets": resets, "lengths": rng.integers(0, 7, 40), "reverse": reverse}
    (final,), ys = unrolled(around, params, (xs, mask), state, **options)
    close((final, ys), unrolled(inside, params[0], (xs, mask), state[0], **options))


@pytest.mark.parametrize("policy", ["hold", "reset"])
def test_what_gaps_hold_reaches_nothing(policy):
    cell = jaxrnn.Masked(LSTM, policy)
    params, (xs, _), state = example(cell, steps=6, batch=(4,))

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def loss(params, xs):
        return jnp.sum(jaxrnn.unroll(cell, params, (xs, MASK), state)[1] ** 2)

    spoiled = jnp.where(MASK[..., None] & np.ones(3, bool), xs, jnp.nan)
    chex.assert_trees_all_equal(loss(params, spoiled), loss(params, jnp.nan_to_num(spoiled)))


def test_gaps_stay_on_the_fast_path():
    cell = jaxrnn.Masked(LSTM, "reset")
    params, (xs, _), state = example(cell, steps=6, batch=(4,))

    def run(cell, params, xs, state):
        return in_loops(cell, params, (xs, MASK), state)

    assert set(products(gradient(run, cell), params, xs, state)) == {1}


def test_masks_to_lengths_and_back():
    lengths = np.array([[3, 0], [5, 1]])
    mask = seq.mask_from_lengths(lengths, 5)
    np.testing.assert_array_equal(mask, np.arange(5)[:, None, None] < lengths)
    np.testing.assert_array_equal(seq.lengths_from_mask(mask), lengths)
    np.testing.assert_array_equal(jax.jit(seq.lengths_from_mask)(mask), lengths)
    xs = np.zeros((3, 2, 4))
    xs[1, 0, 3] = 5
    np.testing.assert_array_equal(seq.mask_from_zeros(xs), [[False, False], [True, False], [False, False]])


# Pooling


POOLS = [seq.last_output, seq.mean_output, seq.max_output, seq.bidirectional_last_output]


def test_pooling_reads_valid_steps_only():
    ys = np.random.default_rng(0).normal(size=(6, 4, 4)).astype(np.float32)
    spoiled = np.where(MASK[..., None], ys, np.float32(np.nan))

    @jax.jit
    def pooled_and_slopes(ys):
        return [(pool(ys, MASK), jax.grad(lambda ys, pool=pool: jnp.sum(pool(ys, MASK) ** 2))(ys)) for pool in POOLS]

    found = pooled_and_slopes(spoiled)
    for row in range(4):
        valid = ys[MASK[:, row], row]
        some = len(valid) > 0
        expected = [
            valid[-1] if some else np.zeros(4),
            valid.mean(0) if some else np.zeros(4),
            valid.max(0) if some else np.zeros(4),
            np.concatenate([valid[-1, :2], valid[0, 2:]]) if some else np.zeros(4),
        ]
        for (pooled, _), value in zip(found, expected, strict=True):
            np.testing.assert_allclose(pooled[row], value, rtol=1e-6)
    for _, slopes in found:
        assert not np.asarray(slopes)[~MASK].any()
        assert np.isfinite(slopes).all()
    np.testing.assert_allclose(seq.mean_output(ys), ys.mean(0), rtol=1e-5)
    np.testing.assert_allclose(seq.max_output(ys), ys.max(0))


@pytest.mark.parametrize("reverse", [False, True])
def test_held_outputs_are_the_last_valid_ones(reverse):
    """`test_convert.py` compares them with Keras's."""
    ys = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(np.float32)
    held = jax.jit(functools.partial(seq.held_output, reverse=reverse))(np.where(MASK[..., None], ys, np.nan), MASK)
    for row in range(4):
        last = np.zeros(3)
        for t in range(6)[:: -1 if reverse else 1]:
            last = ys[t, row] if MASK[t, row] else last
            np.testing.assert_array_equal(held[t, row], last)
    assert seq.held_output(ys[:0], MASK[:0], reverse=reverse).shape == (0, 4, 3)


@pytest.mark.parametrize("pool", POOLS)
def test_pooling_of_no_steps_is_zero(pool):
    pooled = jax.jit(pool)(jnp.ones((0, 2, 4), jnp.bfloat16), jnp.ones((0, 2), bool))
    assert (pooled.shape, pooled.dtype) == ((2, 4), jnp.bfloat16)
    assert not pooled.any()
    assert pool(jnp.ones((0, 4))).tolist() == [0] * 4


def test_each_direction_ends_where_its_final_state_says():
    net = jaxrnn.Bidirectional(GRU, jaxrnn.LSTM(3, 2))
    params, xs, _ = example(net)
    lengths = np.array([5, 2])
    state, ys = unrolled(net, params, xs, lengths=lengths)
    pooled = seq.bidirectional_last_output(ys, seq.mask_from_lengths(lengths, T), forward_size=4)
    close(pooled, jnp.concatenate([state.forward.h, state.backward.h], -1))
    close(seq.last_output(ys[..., :4], seq.mask_from_lengths(lengths, T)), state.forward.h)
    pair = state.forward.h[:, 2:], state.backward.h
    for merge, merged in [("sum", np.add(*pair)), (jnp.multiply, np.multiply(*pair))]:
        close(seq.bidirectional_last_output(ys[..., 2:], seq.mask_from_lengths(lengths, T), merge=merge), merged)
    with pytest.raises(ValueError, match="merge: got 'mean', needs one of 'concat', 'sum'"):
        seq.bidirectional_last_output(ys, merge="mean")


def test_reverse_sequence_is_within_lengths():
    xs = np.arange(30.0).reshape(5, 3, 2)
    lengths = np.array([5, 0, 3])
    expected = xs.copy()
    for row, n in enumerate(lengths):
        expected[:n, row] = xs[:n, row][::-1]
    np.testing.assert_array_equal(seq.reverse_sequence(xs, lengths), expected)
    np.testing.assert_array_equal(seq.reverse_sequence(seq.reverse_sequence(xs, lengths), lengths), xs)
    np.testing.assert_array_equal(seq.reverse_sequence(xs), xs[::-1])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint32", "int64"])
def test_lengths_may_be_of_any_integer_dtype(dtype):
    """Also of one that T does not fit into."""
    lengths = np.array([5, 100])
    xs = np.arange(600).reshape(300, 2)
    expected = np.asarray(seq.reverse_sequence(xs, lengths))
    np.testing.assert_array_equal(seq.reverse_sequence(xs, lengths.astype(dtype)), expected)
    np.testing.assert_array_equal(expected[:5, 0], xs[4::-1, 0])


# Lists


def ragged(sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, 3)).astype(np.float32) for n in sizes]


@pytest.mark.parametrize("net", [jaxrnn.Bidirectional(GRU), *rare(LSTM)], ids=repr)
def test_packed_sequences_are_runs_of_their_own(net):
    sizes = [2, 5, 1, 3, 4, 1]
    samples = ragged(sizes)
    packed = seq.pack(samples)
    assert packed.xs.shape[1] == 4  # 16 steps in rows of 5, the longest first: 5, 4+1, 3+2, 1
    params = net.init(jax.random.key(0))
    _, ys = unrolled(net, params, packed.xs, lengths=packed.lengths, resets=packed.resets)
    parts = seq.unpack(packed, ys)
    last = seq.last_of_each(packed, ys)
    for i, sample in enumerate(samples):
        _, expected = alone(net, params, sample)
        close(parts[i], expected)
        close(last[i], expected[-1])
    assert [(packed.segments == i + 1).sum() for i in range(6)] == sizes
    assert packed.resets.sum() == 6
    np.testing.assert_array_equal((packed.segments > 0).sum(0), packed.lengths)


def test_packing_puts_each_sequence_into_the_first_row_with_room():
    rng = np.random.default_rng(0)
    for number in (1, 2, 3, 64, 65, 300):
        sizes = rng.integers(1, 30, number)
        packed, filled = seq.pack([np.full(n, n) for n in sizes], 40), []
        for i in sorted(range(number), key=lambda i: -sizes[i]):
            row = next((r for r, n in enumerate(filled) if n + sizes[i] <= 40), len(filled))
            filled += [0] * (row == len(filled))
            assert (packed.rows[i], packed.starts[i]) == (row, filled[row])
            filled[row] += sizes[i]
        np.testing.assert_array_equal(packed.lengths, filled)


def test_packing_does_not_take_quadratic_time():
    """A second on an idle machine; a comparison with every row there is takes minutes."""
    sizes = np.random.default_rng(0).integers(1, 200, 100_000).astype(np.int32)
    begin = time.process_time()
    rows, starts = seq.lists._first_fit(sizes, 512)
    assert time.process_time() - begin < 20
    assert rows.max() < 1.01 * sizes.sum() / 512
    assert (starts + sizes <= 512).all()


def test_padded_sequences_are_runs_of_their_own():
    samples = ragged([2, 0, 5])
    padded = seq.pad(samples, steps=7)
    assert padded.xs.shape == (7, 3, 3)
    for row, sample in enumerate(samples):
        np.testing.assert_array_equal(padded.xs[: padded.lengths[row], row], sample)
        assert not padded.xs[padded.lengths[row] :, row].any()


def test_buckets_bound_the_shapes_and_lose_nothing():
    sizes = np.random.default_rng(0).integers(0, 21, 50)
    samples = ragged(sizes)
    traces, seen = [], []

    @jax.jit
    def run(xs, lengths):
        traces.append(xs.shape)
        return jnp.sum(xs), jnp.sum(lengths)

    for batch in seq.buckets(iter(samples), (5, 10, 20), batch_size=4):
        run(batch.xs, batch.lengths)
        for row, number in enumerate(batch.numbers):
            n = batch.lengths[row]
            assert n == (0 if number < 0 else sizes[number])
            if number >= 0:
                np.testing.assert_array_equal(batch.xs[:n, row], samples[number])
                seen.append(number)
    assert sorted(seen) == list(range(50))
    assert set(traces) == {(5, 4, 3), (10, 4, 3), (20, 4, 3)}
    assert len(traces) == 3


@pytest.mark.exhaustive
def test_packed_sequences_are_pytorch_s():
    torch = oracle("torch")
    rnn = torch.nn.utils.rnn
    samples = ragged([2, 5, 3])
    padded = seq.pad(samples)
    theirs = rnn.pack_sequence([torch.as_tensor(s) for s in samples], enforce_sorted=False)
    ours = seq.to_packed_sequence(padded.xs, padded.lengths)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b.numpy())
    again = seq.from_packed_sequence(theirs.data, theirs.batch_sizes, theirs.unsorted_indices)
    for a, b in zip(again, padded, strict=True):
        np.testing.assert_array_equal(a, b)
    back, lengths = rnn.pad_packed_sequence(rnn.PackedSequence(*map(torch.as_tensor, ours)))
    np.testing.assert_array_equal(back.numpy(), padded.xs)
    np.testing.assert_array_equal(lengths.numpy(), padded.lengths)
    # By default its rows are sorted already, and there are no indices.
    rows = [samples[1], samples[2], samples[0]]
    theirs = rnn.pack_sequence(list(map(torch.as_tensor, rows)))
    assert theirs.unsorted_indices is None
    again = seq.from_packed_sequence(theirs.data, theirs.batch_sizes, theirs.unsorted_indices)
    for a, b in zip(again, seq.pad(rows), strict=True):
        np.testing.assert_array_equal(a, b)


def test_packed_sequences_of_no_rows():
    data, sizes, order, back = seq.to_packed_sequence(np.ones((3, 0, 4), np.float32), np.zeros(0, int))
    assert (data.shape, sizes.tolist(), order.tolist(), back.tolist()) == ((0, 4), [], [], [])
    again = seq.from_packed_sequence(data, sizes, back)
    assert (again.xs.shape, again.xs.dtype, again.lengths.tolist(), again.numbers.tolist()) == ((0, 0, 4), "f4", [], [])
    assert seq.from_packed_sequence(np.ones((0, 2)), []).xs.shape == (0, 0, 2)


# Networks


def test_a_bidirectional_language_model_is_two_shifted_runs():
    net = networks.BidirectionalLM(jaxrnn.Bidirectional(GRU, jaxrnn.LSTM(3, 2)))
    params, xs, _ = example(net)
    lengths = [5, 3]
    ys = np.asarray(unrolled(net, params, xs, lengths=np.array(lengths))[1])
    for row, n in enumerate(lengths):
        _, f = alone(GRU, params.forward, to_numpy(xs)[: n - 1, row])
        _, b = alone(jaxrnn.LSTM(3, 2), params.backward, to_numpy(xs)[1:n, row], reverse=True)
        close(ys[:n, row, :4], np.concatenate([np.zeros((1, 4)), f]))
        close(ys[:n, row, 4:], np.concatenate([b, np.zeros((1, 2))]))
        assert not ys[n:, row].any()


@pytest.mark.parametrize("reverse", [False, *rare(True)])
def test_a_bidirectional_language_model_never_sees_the_step_it_predicts(reverse):
    net = networks.BidirectionalLM(jaxrnn.Bidirectional(GRU))
    params, xs, _ = example(net, batch=())
    resets = np.arange(T) == 3
    jacobian = jax.jacobian(lambda xs: unrolled(net, params, xs, resets=resets, reverse=reverse)[1].sum(-1))
    sees = (np.asarray(jax.jit(jacobian)(xs)) != 0).any(-1)
    same = np.array([[(s < 3) == (t < 3) for s in range(T)] for t in range(T)])
    np.testing.assert_array_equal(sees, same & ~np.eye(T, dtype=bool))
    _, ys = unrolled(net, params, xs[:1])
    assert ys.shape == (1, 8)
    assert not ys.any()


def test_repeat_is_the_same_input_at_every_step():
    params, xs, state = example(LSTM)
    x, xs = np.asarray(xs)[0], np.stack([np.asarray(xs)[0]] * 3)
    repeated = jax.jit(lambda params, x, state: seq.repeat(LSTM, params, x, 3, state))
    close(repeated(params, x, state), reference.unroll(reference.lstm, LSTM, params, xs, state))
    # Element-Research's Repeater: the input's gradient is the sum over steps.
    tied = jax.jit(jax.grad(lambda x: jnp.sum(seq.repeat(LSTM, params, x, 3)[1])))(x)
    each = jax.jit(jax.grad(lambda xs: jnp.sum(jaxrnn.unroll(LSTM, params, xs)[1])))(xs)
    close(tied, each.sum(0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: jaxrnn.Masked(GRU, "skip"), ValueError, "policy: got 'skip', needs one of 'hold', 'reset'"),
        (
            lambda: unrolled(jaxrnn.Masked(GRU), GRU.init(jax.random.key(0)), (jnp.ones((5, 2, 3)), jnp.ones((5, 2)))),
            TypeError,
            "xs: got the dtype float32, .* needs boolean values",
        ),
        (
            lambda: unrolled(jaxrnn.Masked(GRU), GRU.init(jax.random.key(0)), (jnp.ones((5, 2, 3)), MASK)),
            ValueError,
            "xs: got leaves of different leading axes",
        ),
        (lambda: seq.lengths_from_mask(MASK), ValueError, "mask: got a valid step after one that is not"),
        (lambda: seq.lengths_from_mask(jnp.ones(3)), TypeError, "mask: got the dtype float32, needs booleans"),
        (
            lambda: seq.mask_from_lengths(np.array([6]), 5),
            ValueError,
            "lengths: got values from 6 to 6, needs 0 to T = 5",
        ),
        (
            lambda: seq.last_output(jnp.ones((5, 2, 3)), jnp.ones((2, 5), bool)),
            ValueError,
            r"mask: got the shape \(2, 5\), needs \[T, \*batch\] = \(5, 2\)",
        ),
        (lambda: seq.pad([]), ValueError, "sequences: got none, needs at least one"),
        (lambda: seq.pad(ragged([2, 3]), steps=2), ValueError, "steps: got 2, needs 3, the longest sequence"),
        (lambda: seq.pad([np.ones((2, 3)), np.ones((2, 4))]), ValueError, r"sequences\[1\]: got .*\(2, 4\)"),
        (
            lambda: seq.pad([np.ones(2), np.ones(2, int)]),
            ValueError,
            r"sequences\[1\]: got .* of int.*0\], .* of float",
        ),
        (lambda: seq.pad(3), TypeError, r"sequences: got int, needs a list of arrays \[T_i, ...\]"),
        (lambda: seq.pad("text"), TypeError, "sequences: got str, needs a list"),
        (lambda: seq.pad([[[1, 2], [3]]]), ValueError, r"sequences\[0\]: got lists of different lengths"),
        (lambda: seq.pack([]), ValueError, "sequences: got none, needs at least one"),
        (lambda: seq.pack(ragged([2, 0])), ValueError, r"sequences\[1\]: got no steps, needs one at least"),
        (lambda: seq.buckets([], (5, 3), 2), ValueError, r"boundaries: got \(5, 3\), needs rising lengths"),
        (lambda: seq.buckets([], 50, 2), TypeError, "boundaries: got 50, needs rising lengths"),
        (lambda: seq.buckets(3, (5,), 2), TypeError, "sequences: got int, needs an iterable of arrays"),
        (lambda: seq.unpack(seq.pad(ragged([2])), jnp.ones((2, 1))), TypeError, "packed: got Padded, needs what pack"),
        (lambda: seq.last_of_each(seq.pack(ragged([2])), jnp.ones((1, 2))), ValueError, r"ys: got .*\(1, 2\), needs"),
        (lambda: seq.to_packed_sequence(np.ones(3), [1]), ValueError, r"xs: got the shape \(3,\), needs \[T, B, ...\]"),
        (lambda: seq.from_packed_sequence([5, 1, 6], [2, 2]), ValueError, r"data: got .*\(3,\), needs \[4, ...\]"),
        (lambda: seq.from_packed_sequence([5, 1, 6], [1, 2]), ValueError, r"batch_sizes: got \[1, 2\], needs .* never"),
        (
            lambda: seq.from_packed_sequence([5, 1], [2], [0, 0]),
            ValueError,
            r"unsorted_indices: got \[0, 0\], needs each",
        ),
        (
            lambda: list(seq.buckets(ragged([6]), (5,), 2)),
            ValueError,
            "sequences: got one of length 6, needs at most 5",
        ),
        (lambda: seq.to_packed_sequence(np.ones((3, 2)), [0, 3]), ValueError, r"lengths: got \[0, 3\], PyTorch needs"),
        (lambda: networks.BidirectionalLM(GRU), TypeError, "cell: got GRU.*, needs a jaxrnn.Bidirectional"),
        (lambda: seq.repeat(GRU, None, jnp.ones((2, 3)), 0), ValueError, "steps: got 0, needs a positive integer"),
    ],
)
def test_bad_calls_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
