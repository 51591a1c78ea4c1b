"""The flow of gradients: against windows cut by hand, a plain loop with clipping, and finite differences."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from bench.loops import products
from jaxrnn import networks
from tests.registry import T, example, in_loops, rare
from tests.test_guards import gradient

LSTM, GRU = jaxrnn.LSTM(3, 4), jaxrnn.GRU(3, 4)
close = functools.partial(chex.assert_trees_all_close, rtol=1e-9, atol=1e-12)


def loss(run, params, xs, state):
    final, ys = run(params, xs, state)
    return jnp.sum(ys**2) + sum(jnp.sum(s**3) for s in jax.tree.leaves(final))


def grads(run, *args):
    return jax.jit(jax.value_and_grad(functools.partial(loss, run), (0, 1, 2)))(*args)


@pytest.mark.parametrize("reverse", [False, *rare(True)])
@pytest.mark.parametrize("every", [2, *rare(1, 7)])
@pytest.mark.usefixtures("x64")
def test_truncation_is_that_of_windows_cut_by_hand(every, reverse):
    args = example(LSTM, dtype=jnp.float64)

    def windows(params, xs, state):
        ys = [None] * T
        for t in reversed(range(T)) if reverse else range(T):
            # Element-Research's first step may still reach the state given: only boundaries between steps are cut.
            boundary = t + 1 if reverse else t
            if boundary % every == 0 and 0 < boundary < T:
                state = jax.tree.map(jax.lax.stop_gradient, state)
            state, ys[t] = LSTM(params, state, xs[t])
        return state, jnp.stack(ys)

    cell = networks.Truncated(LSTM, every)
    close(grads(functools.partial(jaxrnn.unroll, cell, reverse=reverse, chunk=3), *args), grads(windows, *args))


@pytest.mark.exhaustive
@pytest.mark.usefixtures("x64")
def test_clipping_is_that_of_a_loop_with_a_custom_derivative():
    limit = 0.05
    args = example(LSTM, dtype=jnp.float64)

    @jax.custom_vjp
    def clip(x):
        return x

    clip.defvjp(lambda x: (x, None), lambda _, ct: (jnp.clip(ct, -limit, limit),))

    def plain(params, xs, state):
        return jax.lax.scan(lambda s, x: LSTM(params, jax.tree.map(clip, s), x), state, xs)

    cell = networks.ClippedGradient(LSTM, limit)
    clipped = grads(functools.partial(jaxrnn.unroll, cell, chunk=2), *args)
    close(clipped, grads(plain, *args))
    free = grads(functools.partial(jaxrnn.unroll, LSTM), *args)
    close(clipped[0], free[0])
    assert np.abs(clipped[1][2].h).max() <= limit
    assert np.abs(free[1][2].h).max() > limit
    # Under vmap too, and not in forward mode.
    run = functools.partial(jaxrnn.unroll, cell)
    each = jax.jit(jax.vmap(jax.grad(functools.partial(loss, run), 2), (None, 1, 0)))(*args)
    close(each, clipped[1][2])
    tangents = jax.tree.map(jnp.ones_like, args)
    push = jax.jit(lambda cell: jax.jvp(functools.partial(jaxrnn.unroll, cell), args, tangents), static_argnums=0)
    close(push(cell), push(LSTM))


@pytest.mark.parametrize("cell", [networks.Truncated(LSTM, 2), networks.ClippedGradient(LSTM, 0.1)], ids=repr)
def test_the_loops_have_the_products_of_the_cell(cell):
    assert set(products(gradient(in_loops, cell), *example(cell))) == {1}


@pytest.mark.usefixtures("x64")
def test_norms_are_those_of_finite_differences():
    """Of the loss with respect to the state after each step, the rest of the sequence run from there."""
    params, xs, state = example(LSTM, steps=3, dtype=jnp.float64)

    def loss_of(ys):
        return jnp.sum(ys**2)

    norms = jax.jit(lambda *args: jaxrnn.inspection.state_gradient_norms(LSTM, params, xs, loss_of, *args))(state)
    s, call = state, jax.jit(LSTM)
    for t in range(3):
        s, _ = call(params, s, np.asarray(xs)[t])

        def rest(s, t=t):
            return loss_of(s.h) + loss_of(jaxrnn.unroll(LSTM, params, xs[t + 1 :], s)[1])

        g = jax.jit(jax.grad(rest))(s)
        g = jax.tree.map(np.asarray, g)
        np.testing.assert_allclose(np.asarray(norms)[t], np.sqrt((g.h**2).sum(-1) + (g.c**2).sum(-1)), rtol=1e-9)


def test_norms_vanish_and_explode_as_the_weights_say():
    cell = jaxrnn.Elman(1, 3, activation=lambda z: z, use_bias=False)
    xs = jnp.ones((6, 1))

    @jax.jit
    def norms_of(scale):
        params = jaxrnn.cells.ElmanParams(jnp.ones((1, 3)), scale * jnp.eye(3), None)
        return jaxrnn.inspection.state_gradient_norms(cell, params, xs, lambda ys: jnp.sum(ys[-1]))

    for scale in (0.5, 1.0, 2.0):
        norms = norms_of(scale)
        np.testing.assert_allclose(norms, 3**0.5 * scale ** np.arange(5, -1, -1), rtol=1e-5)


def test_norms_are_of_any_network_that_steps_and_of_valid_steps():
    net = jaxrnn.Stack((jaxrnn.GRU(3, 4), jaxrnn.Residual(jaxrnn.LSTM(4, 4))))
    params, xs, _ = example(net)
    lengths = np.array([5, 2])
    norms = np.asarray(
        jax.jit(lambda *args: jaxrnn.inspection.state_gradient_norms(net, *args, jnp.sum, lengths=lengths))(params, xs)
    )
    assert norms.shape == (5, 2)
    # The output of the last layer is not a part of the state: at the last step nothing waits for it.
    assert ((norms > 0) == np.array([[1, 1], [1, 0], [1, 0], [1, 0], [0, 0]], bool)).all()


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="every: got 0, needs a positive integer"):
        networks.Truncated(GRU, 0)
    assert networks.ClippedGradient(LSTM, np.float32(1)).limit == 1
    for limit in (0, True, np.inf):
        with pytest.raises(ValueError, match=f"limit: got {limit}, needs a positive number"):
            networks.ClippedGradient(LSTM, limit)
    with pytest.raises(ValueError, match=r"cell: got LRU.*needs none that is complex"):
        networks.ClippedGradient(jaxrnn.LRU(3, 4), 1.0)
