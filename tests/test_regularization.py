"""Regularizers: masked steps against NumPy loops, what is shared and what is not, and penalties by hand."""

import functools
import itertools
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jaxrnn
from bench.loops import equations, innermost_loops, products
from jaxrnn import networks, penalties
from jaxrnn import regularization as reg
from jaxrnn.cells import LSTMState
from tests import functions, reference
from tests.cells import Diagonal, Token
from tests.registry import B, T, example, in_loops, rare, unrolled
from tests.test_guards import gradient

LSTM, GRU = jaxrnn.LSTM(3, 4), jaxrnn.GRU(3, 4)
BEFORE = jaxrnn.GRU(3, 4, reset="before")
KEY = jax.random.key(7)
close = functools.partial(chex.assert_trees_all_close, rtol=1e-6, atol=1e-6)

WRAPPERS = [
    jaxrnn.RecurrentDropout(LSTM, 0.5),
    jaxrnn.RecurrentDropout(LSTM, 0.5, tied=False, share=()),
    jaxrnn.RecurrentDropout(BEFORE, 0.5, tied=False),
    networks.CandidateDropout(LSTM, 0.5),
    jaxrnn.Zoneout(LSTM, LSTMState(h=0.3, c=0.6)),
    jaxrnn.WeightDrop(LSTM, 0.5),
    networks.WeightNoise(GRU, 0.1),
    jaxrnn.Dropout(LSTM, 0.5, share=("time",)),
    jaxrnn.WeightDrop(jaxrnn.Zoneout(jaxrnn.RecurrentDropout(networks.CandidateDropout(LSTM, 0.3), 0.3), 0.3), 0.3),
]
OFTEN = WRAPPERS[1], WRAPPERS[4], WRAPPERS[7]
every_wrapper = pytest.mark.parametrize("cell", [*OFTEN, *rare(*(w for w in WRAPPERS if w not in OFTEN))], ids=repr)


def answers(seed):
    """A `Draw` of NumPy's coins, and the list of what it gave."""
    rng, given = np.random.default_rng(seed), []

    def draw(request):
        given.append(rng.random(request.shape) >= request.rate)
        return jnp.asarray(given[-1])

    return draw, given


# The masked steps, row by row in NumPy


def first_step(cell, seed=0):
    """One step with masks, and all that it was made of."""
    params, xs, state = example(cell)
    draw, given = answers(seed)
    to_numpy = functools.partial(jax.tree.map, np.asarray)
    params, x, state = to_numpy((params, xs[0], state))
    new, y = jax.jit(lambda *args: cell.step_with(*args[:2], cell.project(args[0], args[2]), draw))(params, state, x)
    return params, x, state, given, to_numpy(new), np.asarray(y)


def block(a, gate):
    return a[..., 4 * gate : 4 * gate + 4]


@pytest.mark.parametrize("tied", [True, False])
def test_recurrent_dropout_masks_what_every_gate_of_an_lstm_sees(tied):
    params, x, state, given, new, _ = first_step(jaxrnn.RecurrentDropout(LSTM, 0.25, tied=tied))
    (mask,) = given
    assert mask.shape == ((B, 4) if tied else (B, 4, 4))
    for row in range(B):
        z = []
        for gate in range(4):
            kept = mask[row] if tied else mask[row, gate]
            h = state.h[row] * kept / 0.75
            z.append(x[row] @ block(params.w_x, gate) + h @ block(params.w_h, gate) + block(params.b, gate))
        i, f, o = (reference.sigmoid(z[gate]) for gate in (0, 1, 3))
        c = f * state.c[row] + i * np.tanh(z[2])
        np.testing.assert_allclose(new.c[row], c, rtol=1e-5)
        np.testing.assert_allclose(new.h[row], o * np.tanh(c), rtol=1e-5)


def test_recurrent_dropout_of_a_gru_masks_h_gate_by_gate_and_its_reset_part():
    """Element-Research's BGRU: masks on h for r and z, and on r ⊙ h for n."""
    params, x, state, given, new, _ = first_step(jaxrnn.RecurrentDropout(BEFORE, 0.25, tied=False))
    gates, candidate = given
    for row in range(B):
        (h,) = (leaf[row] for leaf in state)
        seen = [x[row] @ block(params.w_x, gate) + block(params.b, gate) for gate in range(3)]
        r, z = (
            reference.sigmoid(seen[gate] + (h * gates[row, gate] / 0.75) @ block(params.w_h, gate)) for gate in (0, 1)
        )
        n = np.tanh(seen[2] + (r * h * candidate[row] / 0.75) @ params.w_n)
        np.testing.assert_allclose(new.h[row], (1 - z) * n + z * h, rtol=1e-5)


def test_candidate_dropout_finds_the_candidate():
    params, x, state, given, new, _ = first_step(networks.CandidateDropout(GRU, 0.25))
    (mask,) = given
    zx, zh = x @ params.w_x + params.b, state.h @ params.w_h
    r, z = (reference.sigmoid(block(zx, gate) + block(zh, gate)) for gate in (0, 1))
    n = np.tanh(block(zx, 2) + r * (block(zh, 2) + params.b_n)) * mask / 0.75
    np.testing.assert_allclose(new.h, (1 - z) * n + z * state.h, rtol=1e-5, atol=1e-7)


def test_candidate_dropout_leaves_the_memory_alone():
    params, x, state, given, new, _ = first_step(networks.CandidateDropout(LSTM, 0.25))
    (mask,) = given
    z = x @ params.w_x + state.h @ params.w_h + params.b
    i, f = reference.sigmoid(block(z, 0)), reference.sigmoid(block(z, 1))
    np.testing.assert_allclose(new.c, f * state.c + i * np.tanh(block(z, 2)) * mask / 0.75, rtol=1e-5)


def test_zoneout_keeps_old_units_and_the_output_is_the_state():
    cell = jaxrnn.Zoneout(LSTM, LSTMState(h=0.5, c=0.5))
    params, x, state, (keep_h, keep_c), new, y = first_step(cell)
    plain, _ = jax.jit(LSTM)(params, state, x)
    np.testing.assert_allclose(new.h, np.where(keep_h, plain.h, state.h), rtol=1e-6)
    np.testing.assert_allclose(new.c, np.where(keep_c, plain.c, state.c), rtol=1e-6)
    np.testing.assert_array_equal(y, new.h)
    assert not keep_h.all()
    assert not keep_c.all()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "cell",
    [functions.FEEDBACK, Token(3, 4), *rare(jaxrnn.GRU(3, 4, heads=2), jaxrnn.ConvLSTM((4, 3), 2, 3))],
    ids=lambda cell: type(cell).__name__,
)
def test_recurrent_dropout_is_for_any_cell(cell, tied):
    """With all kept at rate 1/2, the state acts as if it were doubled in the products alone; dropped, as if zero."""
    net = jaxrnn.RecurrentDropout(cell, 0.5, tied=tied)
    params, xs, state = example(net)
    asked = []

    def draw(kept, request):
        asked.append(request.shape)
        return jnp.broadcast_to(kept, request.shape)

    @jax.jit
    def three_ways(params, xs, state):
        drive = net.project(params, jax.tree.map(lambda x: x[0], xs))
        outputs = [net.step_with(params, state, drive, functools.partial(draw, kept))[1] for kept in (True, False)]
        return [*outputs, net.step(params, state, drive)[1]]

    outputs = three_ways(params, xs, state)
    assert asked
    assert all(shape[0] == B for shape in asked)
    for a, b in itertools.combinations(outputs, 2):
        assert not np.allclose(jax.tree.leaves(a)[0], jax.tree.leaves(b)[0])


# The draws of a sequence


def eye_cell(rate, width=50, **options):
    """h' = d ⊙ h / (1 - rate) + x: with ones for a start and zeros for input, h' tells the masks so far."""
    cell = jaxrnn.RecurrentDropout(jaxrnn.Elman(1, width, activation=lambda z: z, use_bias=False), rate, **options)
    params = jaxrnn.cells.ElmanParams(jnp.zeros((1, width)), jnp.eye(width), None)
    return cell, params, jaxrnn.cells.ElmanState(jnp.ones((B, width)))


@pytest.mark.parametrize("share", [(), ("time",), ("batch",), ("time", "batch")], ids=str)
def test_masks_are_shared_over_the_axes_that_are_named(share):
    rate = 0.2
    cell, params, state = eye_cell(rate, 400, share=share)
    _, ys = unrolled(cell, params, jnp.zeros((T, B, 1)), state, key=KEY)
    ys = np.asarray(ys)
    alive = ys != 0  # after t + 1 masks
    # 800 coins: four standard deviations are 0.06; one mask for all times stays, others wear away.
    steps = np.arange(1, T + 1) if "time" not in share else np.ones(T)
    np.testing.assert_allclose(alive.mean((1, 2)), (1 - rate) ** steps, atol=0.08)
    assert bool((alive == alive[:1]).all()) == ("time" in share)
    assert bool((alive == alive[:, :1]).all()) == ("batch" in share)
    kept = ys[0][alive[0]]
    np.testing.assert_allclose(kept, 1 / (1 - rate), rtol=1e-6)


def test_the_sequence_is_the_loop_of_masked_steps():
    """The mask that the identity shows, put into a NumPy loop of other parameters."""
    shown, params, ones = eye_cell(0.5, 4)
    _, ys = unrolled(shown, params, jnp.zeros((1, B, 1)), ones, key=KEY)
    mask = np.asarray(ys[0] / 2, np.float64)
    assert set(mask.ravel()) == {0.0, 1.0}
    cell = jaxrnn.RecurrentDropout(jaxrnn.Elman(3, 4), 0.5)
    params, xs, state = example(cell)
    final, ys = unrolled(cell, params, xs, state, key=KEY)
    params, xs = jax.tree.map(np.asarray, (params, xs))
    h = np.asarray(state.h, np.float64)
    for t in range(T):
        h = np.tanh(xs[t] @ params.w_x + (2 * mask * h) @ params.w_h + params.b)
        np.testing.assert_allclose(ys[t], h, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(final.h, h, rtol=1e-5, atol=1e-6)


@every_wrapper
def test_nothing_is_random_without_a_key_and_all_with_one_is_repeatable(cell):
    params, xs, state = example(cell)
    quiet = unrolled(cell, params, xs, state)
    noisy = unrolled(cell, params, xs, state, key=KEY)
    chex.assert_trees_all_equal(noisy, unrolled(cell, params, xs, state, key=KEY))
    assert not np.allclose(noisy[1], quiet[1])
    assert not np.allclose(noisy[1], unrolled(cell, params, xs, state, key=jax.random.key(8))[1])
    if "Zoneout" not in repr(cell):
        chex.assert_trees_all_equal(quiet, unrolled(cell.cell, params, xs, state))
    # How time is cut does not matter.
    close(unrolled(cell, params, xs, state, key=KEY, chunk=2), noisy)


@every_wrapper
def test_rate_zero_is_the_cell(cell):
    while not isinstance(cell.cell, jaxrnn.LSTM | jaxrnn.GRU):
        cell = cell.cell
    none = type(cell)(cell.cell, 0.0)
    params, xs, state = example(none)
    close(unrolled(none, params, xs, state, key=KEY), unrolled(cell.cell, params, xs, state))


@every_wrapper
def test_no_wrapper_adds_a_product_to_the_loops(cell):
    args = example(cell)
    run = functools.partial(in_loops, key=KEY)
    recurrent = 2 if cell.cell == BEFORE else 1
    assert set(products(functools.partial(run, cell), *args)) == {recurrent}
    assert set(products(gradient(run, cell), *args)) == {recurrent}
    inside = {eqn.primitive.name for _, body in innermost_loops(functools.partial(run, cell), *args) for eqn in body}
    everywhere = {eqn.primitive.name for eqn in equations(jax.make_jaxpr(functools.partial(run, cell))(*args).jaxpr)}
    assert "random_bits" in everywhere - inside


@dataclass(frozen=True)
class Doubled(networks.Wrapper):
    """A user's wrapper of a run, as documented."""

    def run(self, params, xs, state, options):
        state, ys = self.cell.run(params, xs, state, options)
        return state, 2 * ys


@pytest.mark.parametrize(
    "cell",
    [
        jaxrnn.Stack((LSTM, jaxrnn.GRU(4, 4)), dropout=0.5),
        *rare(jaxrnn.Zoneout(LSTM, 0.5), jaxrnn.Dropout(LSTM, 0.5), jaxrnn.WeightDrop(LSTM, 0.5)),
    ],
    ids=repr,
)
def test_a_users_wrapper_hands_a_key_on(cell):
    params, xs, state = example(cell)
    for options in ({}, {"key": KEY}):
        final, ys = unrolled(cell, params, xs, state, **options)
        close(unrolled(Doubled(cell), params, xs, state, **options), (final, 2 * ys))
    loops = products(functools.partial(in_loops, Doubled(cell), key=KEY), params, xs, state)
    assert loops == [1] * (2 if isinstance(cell, jaxrnn.Stack) else 1)


NETWORK = jaxrnn.Stack(
    (jaxrnn.Dropout(LSTM, 0.5), jaxrnn.WeightDrop(jaxrnn.Zoneout(jaxrnn.Elman(4, 4), 0.5), 0.5)), 0.5
)


def test_a_network_that_is_stepped_drops_as_one_that_runs():
    """The deterministic network is the same; what is drawn is drawn before the loop, anew for every key."""
    net = networks.Stepped(NETWORK)
    params, xs, state = example(net)
    close(unrolled(net, params, xs, state), unrolled(NETWORK, params, xs, state))
    one, again, other = (unrolled(net, params, xs, state, key=jax.random.key(n))[1] for n in (0, 0, 1))
    assert (one == again).all()
    assert (one != other).any()
    loops = innermost_loops(functools.partial(in_loops, net, key=KEY), params, xs)
    assert "random_bits" not in {e.primitive.name for _, body in loops for e in body}


@pytest.mark.parametrize("cell", [WRAPPERS[4], *rare(WRAPPERS[2])], ids=repr)
@pytest.mark.usefixtures("x64")
def test_derivatives_with_a_key_are_those_of_finite_differences(cell):
    args = example(cell, steps=3, dtype=jnp.float64)

    @jax.jit
    def run(*args):
        return jaxrnn.unroll(cell, *args, key=KEY)

    check_grads(run, args, order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)


@every_wrapper
def test_padding_with_nan_reaches_nothing(cell):
    params, xs, state = example(cell)
    lengths = jnp.array([T, 2])

    @jax.jit
    @jax.value_and_grad
    def loss(params, xs):
        return jnp.sum(jaxrnn.unroll(cell, params, xs, state, lengths=lengths, key=KEY)[1] ** 2)

    close(loss(params, xs.at[2:, 1].set(jnp.nan)), loss(params, xs))


@pytest.mark.parametrize("cell", [jaxrnn.Zoneout(LSTM, 0.3), jaxrnn.RecurrentDropout(LSTM, 0.5, share=())], ids=repr)
def test_averages_over_keys_tend_to_the_expectation(cell):
    """One step is linear enough: exactly so for zoneout, and for dropout in the pre-activations only."""
    params, xs, state = example(cell, steps=1)
    keys = jax.random.split(KEY, 2000)
    final = jax.jit(jax.vmap(lambda key: jaxrnn.unroll(cell, params, xs, state, key=key)[0]))(keys)
    expected, _ = unrolled(cell, params, xs, state)
    difference = np.abs(np.mean(final.c, 0) - expected.c).max()
    assert difference < 4 * np.std(final.c, 0).max() / 2000**0.5 + (0 if isinstance(cell, jaxrnn.Zoneout) else 0.05)
    assert np.std(final.c, 0).max() > 0.01


def test_wrappers_work_as_layers():
    """In a stack and in both directions."""
    layer = jaxrnn.Zoneout(jaxrnn.GRU(4, 4), 0.5)
    net = jaxrnn.Stack((jaxrnn.Bidirectional(jaxrnn.Zoneout(jaxrnn.GRU(3, 2), 0.5)), layer, jaxrnn.Residual(layer)))
    params, xs, state = example(net)
    quiet, noisy = (unrolled(net, params, xs, state, key=key)[1] for key in (None, KEY))
    assert not np.allclose(quiet, noisy)


def test_layers_and_directions_have_draws_of_their_own():
    """Layers that hand on what they get: two masks in a row keep a quarter, one mask twice would keep half."""
    layer = jaxrnn.Dropout(jaxrnn.Elman(40, 40, activation=lambda z: z, use_bias=False), 0.5)
    params = jaxrnn.cells.ElmanParams(jnp.eye(40), jnp.zeros((40, 40)), None)
    xs = jnp.ones((5, 8, 40))
    stacked = unrolled(jaxrnn.Stack((layer, layer)), (params, params), xs, key=KEY)[1]
    assert abs((stacked != 0).mean() - 0.25) < 0.05  # 1600 coins
    net = jaxrnn.Bidirectional(layer, merge="sum")
    both = unrolled(net, networks.BidirectionalParams(params, params), xs, key=KEY)[1]
    assert abs((both != 0).mean() - 0.75) < 0.05


@pytest.mark.parametrize("rate", [0.0, 0.6])
def test_weights_dropped_are_those_named_and_the_rest_is_scaled(rate):
    """Seen through one step: h' = h W_h."""
    cell = jaxrnn.WeightDrop(jaxrnn.Elman(40, 40, activation=lambda z: z, use_bias=False), rate)
    params = jaxrnn.cells.ElmanParams(jnp.eye(40), jnp.ones((40, 40)), None)
    state = jaxrnn.cells.ElmanState(jnp.eye(40))
    ys = np.asarray(unrolled(cell, params, jnp.zeros((2, 40, 40)), state, key=KEY)[1])
    w = ys[0]
    np.testing.assert_allclose(w[w != 0], 1 / (1 - rate), rtol=1e-6)
    assert abs((w != 0).mean() - (1 - rate)) < 0.05  # 1600 coins
    np.testing.assert_allclose(ys[1], w @ w, rtol=1e-4)  # the same matrix at every step
    inputs = unrolled(cell, params, jnp.ones((1, 40, 40)), cell.initial_state((40,)), key=KEY)[1]
    np.testing.assert_array_equal(inputs, 1.0)


def test_weight_noise_has_its_standard_deviation():
    cell = networks.WeightNoise(jaxrnn.Elman(40, 40, activation=lambda z: z), 0.1, names=("w_h",))
    params = jaxrnn.cells.ElmanParams(jnp.eye(40), jnp.ones((40, 40)), jnp.zeros(40))
    state = jaxrnn.cells.ElmanState(jnp.eye(40))
    _, ys = unrolled(cell, params, jnp.zeros((1, 40, 40)), state, key=KEY)
    assert abs(np.std(ys[0]) - 0.1) < 0.01
    assert abs(np.mean(ys[0]) - 1) < 0.01


def test_locked_dropout_of_the_input():
    cell = jaxrnn.Dropout(jaxrnn.Elman(50, 50, activation=lambda z: z, use_bias=False), 0.4, share=("time",))
    params = jaxrnn.cells.ElmanParams(jnp.eye(50), jnp.zeros((50, 50)), None)
    _, ys = unrolled(cell, params, jnp.ones((T, B, 50)), key=KEY)
    ys = np.asarray(ys)
    assert (ys == ys[:1]).all()
    assert not (ys == ys[:, :1]).all()
    assert set(ys.ravel().round(4)) == {np.float32(0), np.float32(1.6667)}


def test_axes_of_one_mask_may_be_counted_from_the_end():
    ys = np.asarray(jaxrnn.ops.dropout(KEY, 0.5, jnp.ones((T, B, 40)), broadcast=(0, -2)))
    assert (ys == ys[:1, :1]).all()
    assert set(ys.ravel()) == {0.0, 2.0}


def test_a_word_dropped_is_dropped_everywhere_in_its_row():
    tokens = np.random.default_rng(0).integers(0, 30, (200, 4))

    @functools.partial(jax.jit, static_argnames="share")
    def dropped(tokens, **options):
        return reg.embedding_dropout(KEY, 0.3, tokens, jnp.ones((200, 4, 2)), **options)

    tables = []
    for ys in (np.asarray(dropped(tokens)), np.asarray(dropped(tokens, share=("batch",)))):
        table = np.full((4, 30), -1.0)
        for row in range(4):
            for word in range(30):
                values = np.unique(ys[:, row][tokens[:, row] == word])
                assert len(values) == 1
                table[row, word] = values[0]
        tables.append(table)
    assert np.allclose(np.unique(tables[0]), [0, 1 / 0.7])
    assert abs((tables[0] == 0).mean() - 0.3) < 0.17  # 120 coins
    assert not (tables[0] == tables[0][:1]).all()
    assert (tables[1] == tables[1][:1]).all()


def test_monte_carlo_is_the_mean_over_keys():
    def predict(key):
        return jax.random.normal(key, (3,))

    found = reg.monte_carlo(KEY, predict, 5)
    each = np.stack([predict(k) for k in jax.random.split(KEY, 5)])
    np.testing.assert_allclose(found.mean, each.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.std, each.std(0), rtol=1e-5)


# Penalties


@pytest.mark.usefixtures("x64")
def test_norm_stabilizer_by_hand():
    rng, penalty = np.random.default_rng(0), jax.jit(penalties.norm_stabilizer)
    hs, initial = rng.normal(size=(T, B, 4)), rng.normal(size=(B, 4))
    lengths = [5, 3]
    norms = [[np.sqrt((hs[t, b] ** 2).sum()) for t in range(T)] for b in range(B)]
    start = [np.sqrt((initial[b] ** 2).sum()) for b in range(B)]
    pairs = [(norms[b][t] - norms[b][t - 1]) ** 2 for b in range(B) for t in range(1, T)]
    first = [(norms[b][0] - start[b]) ** 2 for b in range(B)]
    valid = [(norms[b][t] - norms[b][t - 1]) ** 2 for b in range(B) for t in range(1, lengths[b])]
    mask = jnp.asarray(np.arange(T)[:, None] < np.asarray(lengths))
    np.testing.assert_allclose(penalty(hs, 50.0), 50 * np.mean(pairs))
    np.testing.assert_allclose(penalty(hs, 50.0, initial=initial), 50 * np.mean(pairs + first))
    np.testing.assert_allclose(penalty(hs, 2.0, mask=mask), 2 * np.mean(valid))
    check_grads(lambda hs: penalty(hs, 2.0, mask=mask), (jnp.asarray(hs),), order=1, modes=("rev",))


def test_activation_penalties_by_hand():
    hs = np.random.default_rng(0).normal(size=(T, B, 4)).astype(np.float32)
    mask = np.arange(T)[:, None] < np.array([5, 3])
    np.testing.assert_allclose(penalties.activation_regularization(hs, 2.0), 2 * np.mean(hs**2), rtol=1e-6)
    np.testing.assert_allclose(
        penalties.activation_regularization(jnp.asarray(hs), 2.0, mask=mask), 2 * np.mean(hs[mask] ** 2), rtol=1e-6
    )
    np.testing.assert_allclose(
        penalties.temporal_activation_regularization(hs, 3.0), 3 * np.mean((hs[1:] - hs[:-1]) ** 2), rtol=1e-6
    )
    pairs = (hs[1:] - hs[:-1])[mask[1:]]
    np.testing.assert_allclose(
        penalties.temporal_activation_regularization(jnp.asarray(hs), 3.0, mask=mask), 3 * np.mean(pairs**2), rtol=1e-6
    )


PENALTIES = [
    penalties.norm_stabilizer,
    penalties.activation_regularization,
    penalties.temporal_activation_regularization,
]


@pytest.mark.parametrize("penalty", PENALTIES, ids=lambda f: f.__name__)
def test_penalties_are_finite_where_states_are_zero_and_padding_is_not(penalty):
    hs = jnp.zeros((T, B, 4)).at[3:, 1].set(jnp.nan)
    mask = jnp.asarray(np.arange(T)[:, None] < np.array([5, 3]))
    value, grads = jax.jit(jax.value_and_grad(lambda hs: penalty(hs, 1.0, mask=mask)))(hs)
    assert float(value) == 0.0
    assert not grads.any()
    assert float(jax.jit(penalty)(np.ones((1, B, 4), np.float32), 0.0)) == 0.0


@pytest.mark.usefixtures("x64")
def test_batch_entropy_is_that_of_the_mean():
    logits = np.random.default_rng(0).normal(size=(5, 2, 3))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    mean = p.reshape(-1, 3).mean(0)
    entropy = -(mean * np.log(mean)).sum()
    np.testing.assert_allclose(jax.jit(penalties.batch_entropy)(logits), np.log(3) - entropy, rtol=1e-9)
    assert float(jax.jit(functools.partial(penalties.batch_entropy, minimum=0.5))(logits)) == 0.0
    # All rows one class: the penalty pushes that class down.
    grads = jax.jit(jax.grad(penalties.batch_entropy))(np.tile(np.float32([2, 0, 0]), (4, 1)))
    assert (np.asarray(grads)[:, 0] > 0).all()


# What cannot be built


STACK = jaxrnn.Stack((LSTM, jaxrnn.GRU(4, 4)))


def unused(cell):
    return jaxrnn.unroll(cell, cell.init(KEY), jnp.ones((5, 2, 3)), key=KEY)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: jaxrnn.Zoneout(LSTM, 1.0), ValueError, r"rate: got 1.0, needs a rate in \[0, 1\)"),
        (lambda: jaxrnn.Zoneout(LSTM, -0.1), ValueError, r"rate: got -0.1, needs a rate in \[0, 1\)"),
        (lambda: jaxrnn.Zoneout(LSTM, (0.1, 0.2, 0.3)), ValueError, r"rate: got \(0.1, 0.2, 0.3\), needs a number"),
        (lambda: jaxrnn.Zoneout(3, 0.1), TypeError, "cell: got int, needs a jaxrnn.Cell"),
        (lambda: jaxrnn.Zoneout(STACK, 0.1), ValueError, "cell: got Stack.*Zoneout changes single steps and needs"),
        (
            lambda: jaxrnn.Zoneout(jaxrnn.WeightDrop(LSTM, 0.5), 0.1),
            ValueError,
            "cell: got WeightDrop.*needs to be inside of it",
        ),
        (lambda: jaxrnn.RecurrentDropout(LSTM, 0.1, share=("row",)), ValueError, "share: got 'row', needs one of"),
        (lambda: jaxrnn.RecurrentDropout(LSTM, 0.1, share="time"), TypeError, "share: got 'time', needs a tuple"),
        (
            lambda: networks.CandidateDropout(GRU, 0.1, "candidate_activation"),
            ValueError,
            "activation: got 'candidate_activation', needs one of 'gate_activation', 'activation'",
        ),
        (
            lambda: networks.CandidateDropout(jaxrnn.SRU(3, 4), 0.1),
            ValueError,
            "cell: got SRU.*, needs one with a field",
        ),
        (
            lambda: networks.CandidateDropout(jaxrnn.MinGRU(3, 4), 0.1),
            ValueError,
            "activation: got 'activation', which the step of MinGRU.* does not call",
        ),
        (
            lambda: unused(networks.CandidateDropout(jaxrnn.MinGRU(3, 4, activation=jnp.tanh), 0.1, "activation")),
            ValueError,
            "activation: got 'activation', which the step of MinGRU.* does not call",
        ),
        (lambda: jaxrnn.WeightDrop(LSTM, 0.1, ("w_y",)), ValueError, r"names: got \['w_y'\], the parameters are"),
        (lambda: jaxrnn.WeightDrop(LSTM, 0.1, "w_h"), TypeError, "names: got 'w_h', needs a tuple"),
        (lambda: networks.WeightNoise(LSTM, -1.0), ValueError, "std: got -1.0, needs a number of at least 0"),
        (lambda: networks.WeightNoise(LSTM, True), ValueError, "std: got True, needs a number of at least 0"),
        (lambda: jaxrnn.ops.dropout(0, 0.5, jnp.ones(3)), TypeError, "key: got 0, needs a key"),
        (
            lambda: reg.embedding_dropout(None, 0.5, jnp.ones(3, int), jnp.ones((3, 4))),
            TypeError,
            "key: got None, needs a key",
        ),
        (lambda: jaxrnn.ops.dropout(KEY, 1.5, jnp.ones(3)), ValueError, r"rate: got 1.5, needs a rate in \[0, 1\)"),
        (
            lambda: jaxrnn.ops.dropout(KEY, 0.5, jnp.ones(3), (1,)),
            ValueError,
            r"broadcast: got \(1,\), needs axes of",
        ),
        (
            lambda: reg.embedding_dropout(KEY, 0.5, jnp.ones((3, 2), int), jnp.ones((2, 3, 4))),
            ValueError,
            r"embedded: got the shape \(2, 3, 4\), needs",
        ),
        (
            lambda: penalties.norm_stabilizer(jnp.ones((3, 2, 4)), 1.0, mask=jnp.ones((2, 3), bool)),
            ValueError,
            r"mask: got the shape \(2, 3\), needs \[T, \*batch\] = \(3, 2\)",
        ),
        (lambda: reg.monte_carlo(KEY, lambda k: k, 0), ValueError, "samples: got 0, needs a positive integer"),
    ],
)
def test_bad_regularizers_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_recurrent_dropout_needs_a_product_to_act_on():
    """It is refused where it is made."""
    for cell in (Diagonal(3, 4), jaxrnn.MinGRU(3, 4)):
        with pytest.raises(ValueError, match=rf"{type(cell).__name__}.*has no product of its state with a parameter"):
            jaxrnn.RecurrentDropout(cell, 0.5)


# Given masks


def test_given_masks_are_used_step_by_step():
    """Against the equations of an Elman unit with dropout before the product and zoneout after the step."""
    cell = reg.GivenMasks(jaxrnn.Zoneout(jaxrnn.RecurrentDropout(jaxrnn.Elman(3, 4), 0.25), 0.5))
    params, (xs, masks), state = example(cell)
    assert [m.shape for m in masks] == [(T, B, 4)] * 2
    lengths = np.array([5, 3])

    def by_hand(params, xs, state):
        h, hs = state.h, []
        for t in range(T):
            kept = jnp.where(masks[0][t], h / 0.75, 0.0)
            new = jnp.where(masks[1][t], jnp.tanh(xs[t] @ params.w_x + params.b[None] + kept @ params.w_h), h)
            valid = (t < lengths)[:, None] & np.ones((B, 4), bool)
            h = jnp.where(valid, new, h)
            hs.append(jnp.where(valid, new, 0.0))
        return h, jnp.stack(hs)

    def ours(params, xs, state):
        final, ys = jaxrnn.unroll(cell, params, (xs, masks), state, lengths=lengths)
        return final.h, ys

    @jax.jit
    def both(params, xs, state):
        def cubes(run, *args):
            return jnp.sum(run(*args)[1] ** 3)

        runs, args = (ours, by_hand), (params, xs, state)
        slopes = jax.grad(cubes, (1, 2, 3))
        return [run(*args) for run in runs], [slopes(run, *args) for run in runs]

    for mine, expected in both(params, xs, state):
        close(mine, expected)


def test_masks_that_cannot_be_given():
    for cell, message in [
        (GRU, "cell: got GRU.*, which has no dropout and no zoneout"),
        (
            networks.Stepped(jaxrnn.WeightDrop(GRU, 0.5)),
            "cell: got .*, which draws KeptWeights, needs masks of values",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            reg.GivenMasks(cell)
