"""IndRNN and SCRN: units with weights of their own only, and units that forget at a given rate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import SCRN, IndRNN
from tests.registry import example, unrolled


def count(cell):
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(cell.init, jax.random.key(0))))


@pytest.mark.usefixtures("x64")
def test_indrnn_is_an_elman_unit_with_a_diagonal_matrix():
    params, xs, state = example(IndRNN(3, 4), dtype=jnp.float64)
    elman = jaxrnn.cells.ElmanParams(params.w_x, jnp.diag(params.u), params.b)
    _, ys = unrolled(IndRNN(3, 4), params, xs, state)
    _, zs = unrolled(jaxrnn.Elman(3, 4, jax.nn.relu), elman, xs, jaxrnn.cells.ElmanState(state.h))
    np.testing.assert_allclose(ys, zs, rtol=1e-12)
    assert ys.any()


def test_indrnn_starts_as_the_paper_says():
    u = IndRNN(3, 1000).init(jax.random.key(0), recurrent_init=jax.nn.initializers.uniform(2 ** (1 / 50))).u
    assert 0 <= u.min() < 0.01
    assert 1 < u.max() < 2 ** (1 / 50)
    assert count(IndRNN(3, 4)) == 4 * (3 + 2)


def test_a_context_without_input_decays():
    cell = SCRN(3, 4, 2, alpha=0.5)
    params, xs, state = example(cell)
    _, ys = unrolled(cell, params, jnp.zeros_like(xs), state)
    np.testing.assert_allclose(ys[:, :, 4:], 0.5 ** np.arange(1, 6)[:, None, None] * np.asarray(state.s), rtol=1e-6)
    assert count(cell) == 4 * (3 + 4) + 2 * (3 + 4)


@pytest.mark.usefixtures("x64")
def test_an_adaptive_context_starts_as_a_fixed_one():
    cell, fixed = SCRN(3, 4, 2, alpha=0.9, adaptive=True), SCRN(3, 4, 2, alpha=0.9)
    params = jax.jit(functools.partial(cell.init, dtype=jnp.float64))(jax.random.key(0))
    _, xs, state = example(cell, dtype=jnp.float64)
    _, ys = unrolled(cell, params, xs, state)
    _, zs = unrolled(fixed, params._replace(beta=None), xs, state)
    np.testing.assert_allclose(ys, zs, rtol=1e-12)
    assert count(cell) == count(fixed) + 2
    with pytest.raises(ValueError, match="alpha: got 0, needs a positive number with adaptive=True"):
        SCRN(3, 4, 2, alpha=0.0, adaptive=True)


@pytest.mark.parametrize("alpha", [1, -0.1, None])
def test_what_stays_of_a_context_is_less_than_all(alpha):
    with pytest.raises(ValueError, match=rf"alpha: got {alpha}, needs a rate in \[0, 1\)"):
        SCRN(3, 4, 2, alpha=alpha)
