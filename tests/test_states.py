"""Where rows start: the states themselves, learned ones, and the truth table of carrying over."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import states
from tests import reference
from tests.cells import Counter
from tests.registry import T, example, rare, unrolled

GRU, LSTM = jaxrnn.GRU(3, 4), jaxrnn.LSTM(3, 4)
close = functools.partial(chex.assert_trees_all_close, rtol=1e-6, atol=1e-6)


def test_constant_and_noisy_states():
    state = states.constant_state(Counter(3, 40), 0.5, (100,))
    assert (state.h == 0.5).all()
    assert (state.count == 0).all()
    noisy = states.noisy_state(jax.random.key(0), 0.1, state)
    assert abs(np.std(noisy.h) - 0.1) < 0.01  # 4000 draws
    assert abs(np.mean(noisy.h) - 0.5) < 0.01
    assert (noisy.count == 0).all()
    both = states.noisy_state(jax.random.key(0), 1.0, LSTM.initial_state((2,)))
    assert not np.allclose(both.h, both.c)


@pytest.mark.parametrize("reverse", [True, *rare(False)])
def test_a_learned_state_is_where_every_sequence_starts(reverse):
    cell = jaxrnn.LearnedState(LSTM)
    params, xs, _ = example(cell)
    resets = np.zeros((T, 2), bool)
    resets[3, 0] = True
    final, ys = unrolled(cell, params, xs, resets=resets, lengths=np.array([5, 4]), reverse=reverse)
    final, ys, inputs, start = jax.tree.map(np.asarray, (final, ys, xs, params.initial))
    rows = jax.tree.map(lambda s: np.broadcast_to(s, (1, 4)), start)

    def run(xs):
        return reference.unroll(reference.lstm, LSTM, params.cell, xs, rows, reverse=reverse)

    close(ys[:3, :1], run(inputs[:3, :1])[1])
    close(ys[3:, :1], run(inputs[3:, :1])[1])
    close(ys[:4, 1:], run(inputs[:4, 1:])[1])
    close(final.h[1:], run(inputs[:4, 1:])[0].h)
    # Its gradient is that of the state given to each row.
    learned = jax.jit(jax.grad(lambda start: jnp.sum(jaxrnn.unroll(cell, params._replace(initial=start), xs)[1] ** 2)))
    given = jax.jit(jax.grad(lambda s: jnp.sum(jaxrnn.unroll(LSTM, params.cell, xs, s)[1] ** 2)))
    each = given(jax.tree.map(lambda s: np.broadcast_to(s, (2, 4)), start))
    close(learned(params.initial), jax.tree.map(lambda g: g.sum(0), each))


def test_a_row_without_a_step_ends_in_the_learned_state():
    """With its gradient; and one step at a time from there equals the sequence."""
    cell = jaxrnn.LearnedState(GRU)
    params, xs, _ = example(cell)
    whole, ys = unrolled(cell, params, xs)
    state, _ = unrolled(cell, params, xs, lengths=np.array([0, 0]))
    close(state.h, np.broadcast_to(params.initial.h, (2, 4)))
    final = jax.jit(jax.grad(lambda p: jnp.sum(jaxrnn.unroll(cell, p, xs, lengths=np.array([0, 5]))[0].h[0])))(params)
    close(final.initial.h, np.ones(4))
    call, xs, ys = jax.jit(cell), np.asarray(xs), np.asarray(ys)
    for t in range(T):
        state, y = call(params, state, xs[t])
        close(y, ys[t])
    close(state, whole)


def test_a_learned_state_may_hold_integers_and_stand_inside_of_others():
    """The integers of a state are those of the cell, and no parameters: `jax.grad` and Optax take none."""
    cell = jaxrnn.LearnedState(Counter(3, 4))
    params, xs, _ = example(cell)
    assert params.initial.count is None
    resets = np.zeros((T, 2), bool)
    resets[3, 0] = True

    @jax.jit
    @jax.grad
    def grad(params):
        return jnp.sum(jaxrnn.unroll(cell, params, xs, resets=resets)[1] ** 2)

    assert (np.abs(grad(params).initial.h) > 0).all()
    final, _ = unrolled(cell, params, xs, resets=resets)
    assert final.count.tolist() == [T - 3, T]
    outside, inside = jaxrnn.Zoneout(jaxrnn.LearnedState(GRU), 0.25), jaxrnn.LearnedState(jaxrnn.Zoneout(GRU, 0.25))
    params, xs, _ = example(outside)
    close(unrolled(outside, params, xs), unrolled(inside, params, xs))
    assert unrolled(inside, params, xs, key=jax.random.key(0))[1].shape == (5, 2, 4)


def test_remember_is_its_truth_table():
    """Element-Research's: which phase keeps its state; the gradient is cut at the boundary of the calls."""
    state = GRU.initial_state((2,))._replace(h=jnp.ones((2, 4)))
    table = {("both", True): 1, ("both", False): 1, ("train", True): 1, ("train", False): 0}
    table |= {("eval", True): 0, ("eval", False): 1, ("neither", True): 0, ("neither", False): 0}
    for (mode, training), kept in table.items():
        given = states.remember(mode, training, state)
        assert (given is None) != bool(kept)
        if kept:
            chex.assert_trees_all_equal(given, state)
    grads = jax.grad(lambda s: jnp.sum(states.remember("both", True, s).h))(state)
    assert not grads.h.any()


def test_windows_with_a_remembered_state_have_the_values_of_the_whole():
    params, xs, _ = example(GRU)
    _, whole = unrolled(GRU, params, xs)
    state, first = unrolled(GRU, params, xs[:3])
    _, second = unrolled(GRU, params, xs[3:], states.remember("train", True, state))
    close(jnp.concatenate([first, second]), whole)


def test_bad_states_are_refused():
    with pytest.raises(ValueError, match="mode: got 'always', needs one of 'both', 'train', 'eval', 'neither'"):
        states.remember("always", True, None)
    with pytest.raises(ValueError, match=r"cell: got Stack.*runs a sequence in its own way; LearnedState"):
        jaxrnn.LearnedState(jaxrnn.Stack((GRU,)))
