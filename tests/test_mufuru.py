"""MuFuRu: the GRU within it, its operations, and the slope of a square root at zero."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import GRU, MuFuRu
from jaxrnn.cells.mufuru import OPERATIONS
from tests.reference import mufuru as table
from tests.registry import example, unrolled

close = functools.partial(chex.assert_trees_all_close, rtol=1e-12, atol=1e-12)


def mean(h, v):
    return (h + v) / 2


@pytest.mark.usefixtures("x64")
def test_keep_and_replace_are_a_gru():
    """Whose update gate sees the difference of the two logits."""
    cell, gru = MuFuRu(3, 4, operations=("keep", "replace"), activation=jnp.tanh), GRU(3, 4, reset="before")
    params, xs, state = example(cell, dtype=jnp.float64)

    def gates(z, n):
        return np.split(np.asarray(z), n, axis=-1)

    x_r, x_v, x_keep, x_replace = gates(params.w_x, 4)
    b_r, b_v, b_keep, b_replace = gates(params.b, 4)
    h_r, h_keep, h_replace = gates(params.w_h, 3)
    same = jaxrnn.cells.GRUParams(
        w_x=jnp.concatenate([x_r, x_keep - x_replace, x_v], axis=1),
        w_h=jnp.concatenate([h_r, h_keep - h_replace], axis=1),
        b=jnp.concatenate([b_r, b_keep - b_replace, b_v]),
        w_n=params.w_v,
    )
    final, ys = unrolled(cell, params, xs, state)
    other, zs = unrolled(gru, same, xs, jaxrnn.cells.GRUState(state.h))
    close((final.h, ys), (other.h, zs))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.usefixtures("x64")
def test_operations(name):
    h, v = jnp.array([0.5, -0.25, 0.75]), jnp.array([0.125, 0.5, 0.75])
    close(OPERATIONS[name](h, v), table.OPERATIONS[name](np.asarray(h), np.asarray(v)))
    assert set(OPERATIONS) == set(table.OPERATIONS)


@pytest.mark.usefixtures("x64")
def test_one_operation_alone_is_that_operation():
    """Of the user's own: the state is drawn halfway to the feature, which a large bias holds at one."""
    cell = MuFuRu(3, 4, operations=(mean,))
    params, xs, state = example(cell, dtype=jnp.float64)
    params = params._replace(b=params.b.at[4:8].set(1000.0))
    _, ys = unrolled(cell, params, xs, state)
    for t, y in enumerate(ys):
        close(1 - y, (1 - state.h) / 2 ** (t + 1))


def test_the_slope_of_the_root_where_there_is_no_difference():
    slopes = jax.vmap(jax.grad(OPERATIONS["sqrt_diff"], (0, 1)))(jnp.array([0.5, 0.5]), jnp.array([0.5, 0.25]))
    np.testing.assert_allclose(slopes[0], [0, 0.25], rtol=1e-6)
    np.testing.assert_allclose(slopes[1], [0, -0.25], rtol=1e-6)


def test_gradients_are_finite_where_the_feature_is_the_state():
    """A feature that saturates at one keeps a state of one there."""
    cell = MuFuRu(3, 4, operations=("keep", "replace", "sqrt_diff"))
    args = jax.eval_shape(lambda: (cell.init(jax.random.key(0)), jnp.ones((5, 2, 3)), cell.initial_state((2,))))
    params, xs, state = (
        jax.tree.map(lambda s, fill=fill: np.full(s.shape, fill, s.dtype), a)
        for a, fill in zip(args, (0, 1, 1), strict=True)
    )
    params = params._replace(b=np.float32([0, 100, 0, 0, -200]).repeat(4))
    loss = jax.value_and_grad(lambda *args: jnp.sum(jaxrnn.unroll(cell, *args)[1]), (0, 1, 2))
    ys, slopes = jax.jit(loss)(params, xs, state)
    assert ys == 5 * 2 * 4
    chex.assert_tree_all_finite(slopes)


@pytest.mark.parametrize("j", [1, 8])
def test_parameters(j):
    cell = MuFuRu(3, 4, operations=("keep",) * j)
    sizes = [leaf.size for leaf in jax.tree.leaves(jax.eval_shape(cell.init, jax.random.key(0)))]
    assert sum(sizes) == (2 + j) * 4 * (3 + 4 + 1)


@pytest.mark.parametrize("operations", [("keep", "half"), (), "keep", ["keep"], (3,), (["keep"],)])
def test_unknown_operations(operations):
    with pytest.raises(ValueError, match=r"operations: got .* needs"):
        MuFuRu(3, 4, operations=operations)
