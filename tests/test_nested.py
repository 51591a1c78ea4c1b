"""The nested LSTM: parameter counts, any depth, and the memory that a plain LSTM has."""

import chex
import jax
import jax.numpy as jnp
import pytest

from jaxrnn import NestedLSTM
from tests.reference import nested, unroll
from tests.registry import example, unrolled


@pytest.mark.parametrize("depth", [2, 3])
def test_parameters(depth):
    params = jax.eval_shape(NestedLSTM(3, 4, depth).init, jax.random.key(0))
    assert sum(p.size for p in jax.tree.leaves(params)) == 4 * 4 * (3 + 4 + 1) + (depth - 1) * 4 * 4 * (4 + 4 + 1)


@pytest.mark.usefixtures("x64")
def test_depth_three():
    cell = NestedLSTM(3, 4, depth=3)
    params, xs, state = example(cell, dtype=jnp.float64)
    got = unrolled(cell, params, xs, state)
    chex.assert_trees_all_close(got, unroll(nested.nested_lstm, cell, params, xs, state), rtol=1e-12)


def test_the_forget_gates_start_open():
    params = NestedLSTM(3, 4, depth=3).init(jax.random.key(0))
    for level in (params, params.inner, params.inner.inner):
        assert level.b.tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8


@pytest.mark.parametrize("depth", [1, 0, 2.5])
def test_depths(depth):
    with pytest.raises(ValueError, match=f"depth: got {depth}, needs"):
        NestedLSTM(3, 4, depth=depth)
