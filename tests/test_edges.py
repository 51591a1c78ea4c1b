"""Edges of what `unroll` takes: lengths out of range at run time, states of mixed dtypes."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from tests.registry import T, example, rare
from tests.test_guards import gradient, scanned

OUT_OF_RANGE = [
    jaxrnn.LSTM(3, 4),
    jaxrnn.Window(3, 2),
    jaxrnn.MDLSTM((4, 3), 2),
    jaxrnn.Masked(jaxrnn.GRU(3, 4)),
    jaxrnn.MinGRU(3, 4, scan="associative"),
    jaxrnn.MLSTM(3, 4, heads=2),
]


@pytest.mark.parametrize("reverse", [False, *rare(True)])
@pytest.mark.parametrize("cell", OUT_OF_RANGE, ids=lambda cell: type(cell).__name__)
def test_lengths_out_of_range_act_as_the_nearest_in_range(cell, reverse):
    """Their values are known at run time only."""
    params, xs, state = example(cell)

    @jax.jit
    def run(lengths):
        return jaxrnn.unroll(cell, params, xs, state, lengths=lengths, reverse=reverse)

    chex.assert_trees_all_equal(run(jnp.array([-2, T + 3])), run(jnp.array([0, T])))


def test_leaves_of_one_shape_and_two_dtypes():
    """They are not written as one array."""
    cell = jaxrnn.LSTM(3, 4)
    params, xs, state = example(cell)
    state = state._replace(c=state.c.astype(jnp.bfloat16))
    with jax.numpy_dtype_promotion("standard"):
        final, _ = jaxrnn.unroll(cell, params, xs, state)
        assert (final.h.dtype, final.c.dtype) == (jnp.float32, jnp.bfloat16)
        ours, theirs = (jax.jit(gradient(run, cell))(params, xs, state)[0] for run in (jaxrnn.unroll, scanned))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        scale = np.abs(b).max()
        # bfloat16 rounds the memory's cotangent at every step, in either order of sums.
        np.testing.assert_allclose(a / scale, b / scale, atol=2**-7)


def test_a_state_that_is_known_at_run_time_only_may_be_donated():
    cell = jaxrnn.GRU(3, 4)
    params, xs, _ = example(cell)
    run = jax.jit(functools.partial(jaxrnn.unroll, cell), donate_argnums=2)
    state, _ = run(params, xs, cell.initial_state((2,)))
    state, _ = run(params, xs, state)
    assert jnp.isfinite(state.h).all()
