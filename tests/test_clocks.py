"""Cells with clocks and depth of their own: limits in which they are other cells, counts, and what they refuse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from bench.loops import products
from jaxrnn import initializers
from jaxrnn.cells.legendre import legendre
from jaxrnn.cells.ordered import cumax
from tests import reference
from tests.oracles import oracle
from tests.reference.highway import highway
from tests.reference.legendre import discretized
from tests.registry import B, T, example, in_loops, rare, unrolled

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_clockwork_of_one_period_is_an_elman_network():
    cell = jaxrnn.Clockwork(3, 4, periods=(1,))
    params, xs, state = example(cell, dtype=jnp.float64)
    _, ys = unrolled(jaxrnn.Elman(3, 4), jaxrnn.cells.ElmanParams(*params), xs, jaxrnn.cells.ElmanState(state.h))
    close(unrolled(cell, params, xs, state)[1], ys)


def test_a_clockwork_has_fewer_weights_and_modules_keep_still():
    """H²/2 + Hk/2 recurrent weights for modules of k units, as in the paper; and each works at its period."""
    cell = jaxrnn.Clockwork(3, 6, periods=(1, 2, 4))
    params, xs, _ = example(cell, steps=9)
    ys = np.asarray(unrolled(cell, params, xs)[1])
    for i, period in enumerate(cell.periods):
        moved = (np.diff(ys[:, 0, 2 * i : 2 * i + 2], axis=0) != 0).any(axis=1)
        assert moved.tolist() == [(t + 1) % period == 0 for t in range(8)]
    slopes = jax.jit(jax.grad(lambda p: jnp.sum(jaxrnn.unroll(cell, p, xs)[1])))(params)
    assert np.count_nonzero(slopes.w_h) == 6 * 6 // 2 + 6 * 2 // 2


@pytest.mark.exhaustive
@pytest.mark.usefixtures("x64")
def test_a_phased_lstm_counts_the_times_it_could_be_given():
    counted, timed = jaxrnn.PhasedLSTM(3, 4, leak=0.1), jaxrnn.PhasedLSTM(3, 4, timed=True, leak=0.1)
    params, xs, state = example(counted, dtype=jnp.float64)
    state = state._replace(t=jnp.array([0, 7], jnp.int32))
    final, ys = unrolled(counted, params, xs, state)
    times = jnp.asarray(np.arange(T)[:, None] + np.array([0.0, 7.0]))
    _, same = unrolled(timed, params, {"x": xs, "t": times}, state._replace(t=None))
    close(ys, same)
    assert final.t.tolist() == [T, 7 + T]


@pytest.mark.usefixtures("x64")
def test_a_phased_lstm_that_is_open_is_an_lstm():
    """At the peak of its cycle, k = 1."""
    cell = jaxrnn.PhasedLSTM(3, 4, timed=True)
    params, xs, state = example(cell, dtype=jnp.float64)
    params = params._replace(ratio=jnp.full(4, 0.5), shift=jnp.zeros(4), log_period=jnp.zeros(4))
    xs = {"x": xs["x"], "t": jnp.full((T, B), 3.25)}
    lstm = jaxrnn.cells.LSTMParams(params.w_x, params.w_h, params.b)
    _, ys = unrolled(jaxrnn.LSTM(3, 4), lstm, xs["x"], jaxrnn.cells.LSTMState(state.h, state.c))
    close(unrolled(cell, params, xs, state)[1], ys)


def test_a_phased_lstm_that_is_closed_keeps_its_state():
    cell = jaxrnn.PhasedLSTM(3, 4, timed=True, leak=0.0)
    params, xs, state = example(cell)
    params = params._replace(ratio=jnp.full(4, 0.5), shift=jnp.zeros(4), log_period=jnp.zeros(4))
    final, _ = unrolled(cell, params, {"x": xs["x"], "t": jnp.full((T, B), 3.75)}, state)
    np.testing.assert_array_equal(final.c, state.c)


def test_periods_of_a_phased_lstm_are_drawn_in_their_range():
    weights = {"input_init": initializers.zeros, "recurrent_init": initializers.zeros}
    params = jaxrnn.PhasedLSTM(3, 512).init(jax.random.key(0), periods=(2.0, 50.0), **weights)
    params = jax.tree.map(np.asarray, params)
    periods = np.exp(params.log_period)
    assert periods.min() >= 2
    assert periods.max() <= 50.001
    assert 9 < np.median(periods) < 11
    assert (params.shift < periods).all()
    assert (params.shift >= 0).all()
    assert (params.ratio == np.float32(0.05)).all()


@pytest.mark.usefixtures("x64")
def test_a_highway_whose_gates_are_shut_carries():
    cell = jaxrnn.Highway(3, 4, depth=2)
    params, xs, state = example(cell, dtype=jnp.float64)
    shut = tuple(b.at[4:].set(-1e3) for b in params.b)
    close(unrolled(cell, params._replace(b=shut), xs, state)[0].h, state.h)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.usefixtures("x64")
def test_a_highway_with_a_carry_gate_of_its_own_is_that_of_the_equations(depth):
    cell = jaxrnn.Highway(3, 4, depth=depth, coupled=False)
    params, xs, state = example(cell, dtype=jnp.float64)
    _, expected = reference.unroll(highway, cell, params, xs, state)
    close(unrolled(cell, params, xs, state)[1], expected)


@pytest.mark.exhaustive
def test_the_cumax_rises_to_one():
    torch = oracle("torch")
    z = jax.random.normal(jax.random.key(0), (3, 6))
    theirs = torch.cumsum(torch.softmax(torch.tensor(np.asarray(z)), -1), -1).numpy()
    np.testing.assert_allclose(cumax(z), theirs, rtol=1e-5)
    np.testing.assert_allclose(cumax(z)[:, -1], 1.0, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_an_ordered_lstm_whose_master_gates_overlap_fully_is_an_lstm():
    """Master forget gates are one from the first unit on, master input gates down to the last but one."""
    cell = jaxrnn.OrderedLSTM(3, 4)
    params, xs, state = example(cell, dtype=jnp.float64)
    masters = jnp.array([500.0, 0, 0, 0, 0, 0, 0, 500.0])
    ordered = params._replace(b=params.b.at[16:].set(masters))
    lstm = jaxrnn.cells.LSTMParams(params.w_x[:, :16], params.w_h[:, :16], params.b[:16])
    params, x, state = jax.tree.map(np.asarray, (params, xs[0], state))
    _, expected = jax.tree.map(np.asarray, jax.jit(jaxrnn.LSTM(3, 4))(lstm, jaxrnn.cells.LSTMState(*state), x))
    _, y = jax.jit(cell)(ordered, state, x)
    close(np.asarray(y)[:, :3], expected[:, :3])
    # At the last unit the master input gate is zero: it keeps what it has.
    o = reference.sigmoid((x @ params.w_x + state.h @ params.w_h + params.b)[:, 15])
    close(np.asarray(y)[:, 3], o * np.tanh(state.c[:, 3]))


@pytest.mark.parametrize(("order", "theta"), [(1, 2.0), (6, 20.0), (64, 784.0), (12, 1.5), *rare((256, 784.0))])
def test_the_legendre_memory_is_discretized_as_scipy_does(order, theta):
    for ours, theirs in zip(legendre(order, theta), discretized(order, theta), strict=True):
        np.testing.assert_allclose(ours, theirs.reshape(ours.shape), rtol=1e-9, atol=1e-11)


def test_the_legendre_memory_holds_the_window():
    """What it was given θ' θ steps ago is Σ m_i P_i(2θ' - 1)."""
    order, theta = 12, 100.0
    a, b = legendre(order, theta)
    signal = np.sin(np.arange(300) / 15)
    m = np.zeros(order)
    for u in signal:
        m = a @ m + b * u
    for ago in (10, 30, 50, 90):
        value = np.polynomial.legendre.legval(2 * ago / theta - 1, m)
        np.testing.assert_allclose(value, np.interp(299.5 - ago, np.arange(300), signal), atol=0.02)


@pytest.mark.parametrize(
    ("cell", "count", "in_the_loop"),
    [
        (jaxrnn.CoRNN(3, 4), 4 * (3 + 2 * 4 + 1), 1),
        (jaxrnn.LEM(3, 4), 4 * 4 * (3 + 4 + 1), 2),
        (jaxrnn.Highway(3, 4, depth=5), 2 * 4 * (3 + 5 * (4 + 1)), 5),
        (jaxrnn.Highway(3, 4, depth=2, coupled=False), 3 * 4 * (3 + 2 * (4 + 1)), 2),
        (jaxrnn.Clockwork(3, 4, periods=(1, 2)), 4 * (3 + 4 + 1), 1),
        (jaxrnn.PhasedLSTM(3, 4), 4 * 4 * (3 + 4 + 1) + 3 * 4, 1),
        (jaxrnn.OrderedLSTM(3, 4, chunk=2), (4 * 4 + 2 * 2) * (3 + 4 + 1), 1),
        (jaxrnn.LMU(3, 4, order=5, theta=6.0), (3 + 4 + 5) * (4 + 1), 3),
    ],
    ids=repr,
)
def test_parameters_and_products_are_counted(cell, count, in_the_loop):
    args = example(cell)
    assert sum(leaf.size for leaf in jax.tree.leaves(args[0])) == count
    assert set(products(functools.partial(in_loops, cell), *args)) == {in_the_loop}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jaxrnn.Clockwork(3, 4, periods=(2, 1)), r"periods: got \(2, 1\), needs one or more that grow"),
        (lambda: jaxrnn.Clockwork(3, 4, periods=2), "periods: got 2, needs a tuple of integers that grow"),
        (lambda: jaxrnn.Clockwork(3, 4, periods=()), r"periods: got \(\), needs one or more that grow"),
        (lambda: jaxrnn.Clockwork(3, 4, periods=(0, 1)), r"periods\[0\]: got 0, needs a positive integer"),
        (lambda: jaxrnn.Clockwork(3, 5, periods=(1, 2)), "hidden_size: got 5, needs a multiple of the 2 periods"),
        (lambda: jaxrnn.OrderedLSTM(3, 4, chunk=3), "chunk: got 3, needs a divisor of hidden_size = 4"),
        (lambda: jaxrnn.Highway(3, 4, depth=0), "depth: got 0, needs a positive integer"),
        (lambda: jaxrnn.PhasedLSTM(3, 4, leak=-0.1), "leak: got -0.1, needs a number of at least 0"),
        (
            lambda: jaxrnn.PhasedLSTM(3, 4).init(jax.random.key(0), periods=(0.0, 9.0)),
            r"periods: got \(0.0, 9.0\), needs 0 < shortest",
        ),
        (
            lambda: jaxrnn.PhasedLSTM(3, 4).init(jax.random.key(0), ratio=0.0),
            r"ratio: got 0.0, needs a part of the period in",
        ),
        (lambda: jaxrnn.LMU(3, 4, order=5, theta=0.0), "theta: got 0.0, needs a positive number"),
        (lambda: jaxrnn.CoRNN(3, 4, damping=-1.0), "damping: got -1.0, needs a positive number"),
        (lambda: jaxrnn.LEM(3, 4, step_size=0.0), "step_size: got 0.0, needs a positive number"),
    ],
)
def test_wrong_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
