"""Gates and states: against the equations by hand."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

import jaxrnn
from bench.loops import products
from jaxrnn import inspection, networks
from tests.reference import sigmoid
from tests.registry import T, example, rare, unrolled

LSTM = jaxrnn.VanillaLSTM(3, 4)
MASKED = jaxrnn.Masked(LSTM)


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_gates_of_an_lstm_are_those_of_its_equations():
    params, xs, state = example(LSTM)
    plain = unrolled(LSTM, params, xs, state)
    final, seen = unrolled(networks.Inspected(LSTM), params, xs, state)
    chex.assert_trees_all_close((final, seen.y), plain, rtol=1e-6)
    xs, seen = jax.tree.map(np.asarray, (xs, seen))
    w_x, w_h, b, w_c = map(np.asarray, params[:4])
    h, c = np.asarray(state.h), np.asarray(state.c)
    for t in range(T):
        z = [xs[t] @ w_x[:, s] + h @ w_h[:, s] + b[s] for s in (slice(4 * k, 4 * k + 4) for k in range(4))]
        i, f, g = sigmoid(z[0] + c * w_c[:4]), sigmoid(z[1] + c * w_c[4:8]), np.tanh(z[2])
        c = f * c + i * g
        o = sigmoid(z[3] + c * w_c[8:])
        h = o * np.tanh(c)
        for found, gate in zip(seen.gates, (i, f, g, o), strict=True):
            close(found[t], gate)
        close(seen.state.c[t], c)
        close(seen.state.h[t], h)


@pytest.mark.parametrize("reset", ["after", "before"])
def test_the_gates_of_a_gru_make_its_state(reset):
    cell = jaxrnn.GRU(3, 4, reset=reset)
    params, xs, state = example(cell)
    history = jax.jit(functools.partial(inspection.state_history, cell))(params, xs, state)
    seen, before = jax.tree.map(np.asarray, (unrolled(networks.Inspected(cell), params, xs, state)[1], history.h[:-1]))
    _, z, n = seen.gates
    close(seen.state.h, (1 - z) * n + z * before)
    assert all(((g > -1) & (g < 1)).all() for g in seen.gates)


def named_tanh(z):
    return jnp.tanh(checkpoint_name(z, "z"))


@pytest.mark.parametrize("activation", [jax.nn.relu, named_tanh])
def test_a_users_own_activation_is_a_gate_too(activation):
    cell = jaxrnn.Elman(3, 4, activation=activation)
    params, xs, state = example(cell)
    _, seen = unrolled(networks.Inspected(cell), params, xs, state)
    close(seen.gates[0] if isinstance(seen.gates, tuple) else seen.gates, seen.y)


def test_a_part_of_a_drive_is_no_gate():
    """Here the drive is the input; a function of some of its values is no gate of the drive, either."""

    def step(params, h, x):
        h = jnp.tanh(h + x[..., :2])
        return h, h

    cell = jaxrnn.Function(step, lambda key, dtype: (), lambda shape, dtype: jnp.zeros((*shape, 2), dtype), 3)
    params, xs, state = example(cell)
    assert jaxrnn.unroll(networks.Inspected(cell), params, xs, state)[1].gates is None


def test_a_history_holds_every_state():
    params, xs, state = example(LSTM)
    lengths = np.array([5, 2])
    states = jax.jit(functools.partial(inspection.state_history, LSTM))(params, xs, state, lengths=lengths)
    states, state, inputs = jax.tree.map(np.asarray, (states, state, xs))
    s, call = state, jax.jit(LSTM)
    chex.assert_trees_all_equal(jax.tree.map(lambda a: a[0], states), state)
    for t in range(T):
        s, _ = call(params, s, inputs[t])
        close(states.c[t + 1, 0], np.asarray(s.c)[0])
    close(states.c[2:, 1], np.broadcast_to(states.c[2, 1], (4, 4)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("reverse", [False, True])
def test_the_history_of_a_network_is_that_of_its_cells(reverse):
    """Layer by layer with the layers' own keys, the backward cell's in the order of time."""
    net = jaxrnn.Stack(
        (jaxrnn.Bidirectional(jaxrnn.GRU(3, 4)), networks.WeightNorm(jaxrnn.Dropout(jaxrnn.GRU(8, 4), 0.5))),
        dropout=0.5,
    )
    params, xs, state = example(net)
    options = {"lengths": np.array([5, 2]), "key": jax.random.key(1), "reverse": reverse}
    history = jax.jit(functools.partial(inspection.state_history, net, reverse=reverse))
    states = history(params, xs, state, lengths=options["lengths"], key=options["key"])
    final, ys = unrolled(net, params, xs, state, **options)
    states, final, ys, state = jax.tree.map(np.asarray, (states, final, ys, state))
    (forward, backward), top = states
    first, last = (-1, 0) if reverse else (0, -1)
    ends = (forward.h, first, last), (backward.h, last, first), (top.h, first, last)
    starts_and_finals = zip(jax.tree.leaves(state), jax.tree.leaves(final), strict=True)
    for (h, start, end), (before, after) in zip(ends, starts_and_finals, strict=True):
        assert h.shape[0] == T + 1
        np.testing.assert_array_equal(h[start], before)
        close(h[end], after)
        np.testing.assert_array_equal(h[2:, 1], np.broadcast_to(h[2, 1], (4, 4)))
    # The output of a GRU is its state after the step.
    after = top.h[:-1] if reverse else top.h[1:]
    close(after[:, 0], ys[:, 0])
    close(after[:2, 1], ys[:2, 1])


@pytest.mark.usefixtures("without_kernels")
def test_a_history_is_taken_layer_by_layer():
    net = jaxrnn.Stack((jaxrnn.GRU(3, 4), jaxrnn.Residual(jaxrnn.GRU(4, 4))))
    assert products(functools.partial(inspection.state_history, net), *example(net)) == [1, 1]
    with pytest.raises(ValueError, match=r"Inspected.* gives Inspection\(y=4, .*GRU.* above it needs 4"):
        jaxrnn.Stack((networks.Inspected(LSTM), jaxrnn.GRU(4, 4)))


@dataclasses.dataclass(frozen=True)
class Passing(networks.Wrapper):
    """A user's wrapper that changes nothing."""


@pytest.mark.parametrize(
    "net",
    [
        MASKED,
        Passing(LSTM),
        *rare(networks.Mirrored(jaxrnn.MDRNN((3, 2), 4)), jaxrnn.Attention(jaxrnn.GRU(6, 4), 4, 3)),
    ],
    ids=lambda net: type(net).__name__,
)
def test_a_history_is_that_of_single_steps(net):
    """Of any network that has them."""
    params, xs, state = example(net)
    states = jax.jit(functools.partial(inspection.state_history, net))(params, xs, state)
    call = jax.jit(net)
    for t in range(T):
        jax.tree.map(close, jax.tree.map(lambda s, t=t: s[t], states), state)
        state, _ = call(params, state, jax.tree.map(lambda x, t=t: x[t], xs))
    jax.tree.map(close, jax.tree.map(lambda s: s[T], states), state)


def test_inspection_shows_what_a_regularizer_does():
    cell = networks.Inspected(jaxrnn.Zoneout(jaxrnn.LSTM(3, 4), 0.5))
    params, xs, _ = example(cell)
    quiet = jax.tree.map(np.asarray, unrolled(cell, params, xs)[1])
    seen = jax.tree.map(np.asarray, unrolled(cell, params, xs, key=jax.random.key(0))[1])
    kept = seen.state.c[1:] == seen.state.c[:-1]
    assert 0.2 < kept.mean() < 0.8
    assert not (quiet.state.c[1:] == quiet.state.c[:-1]).any()


def test_a_summary_counts_the_products_of_a_step_and_of_a_loop_within_it():
    def step(params, h, x):
        inner, _ = jax.lax.scan(lambda z, _: (z @ params, None), h + x, None, length=3)
        h = jax.numpy.tanh(inner @ params + h @ params)
        return h, h

    def zeros(batch_shape, dtype):
        return jax.numpy.zeros((*batch_shape, 4), dtype)

    cell = jaxrnn.Function(step, lambda key, dtype: jax.numpy.ones((4, 4), dtype), zeros, 4)
    assert inspection.summary(cell).split()[-1] == "3"


def test_a_summary_counts_what_is_there():
    """Parameters, the state of a row, and the products that stay in the loop, of every cell and of the whole."""
    net = jaxrnn.Stack(
        (jaxrnn.Bidirectional(jaxrnn.GRU(3, 4, reset="before")), networks.WeightNorm(jaxrnn.IndRNN(8, 4)))
    )
    *parts, whole = [line.split()[-3:] for line in inspection.summary(net).splitlines()[1:]]
    assert parts == [["96", "4", "2"], ["96", "4", "2"], ["40", "4", "0"]]
    size = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(net.init, jax.random.key(0))))
    assert whole == [str(size), "12", "4"]
