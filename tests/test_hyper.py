"""HyperLSTM: the limit in which it is an LSTM, counts, initialization."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from bench.loops import products
from tests.registry import example, in_loops, rare, unrolled
from tests.test_guards import gradient

CELL = jaxrnn.HyperLSTM(3, 4, hyper_size=2, embedding_size=3)


@pytest.mark.exhaustive
@pytest.mark.parametrize("scale", [0.1, *rare(1.0)])
@pytest.mark.usefixtures("x64")
def test_at_first_it_is_an_lstm_of_scaled_weights(scale):
    """The small LSTM has no say yet."""
    params = jax.tree.map(np.asarray, CELL.init(jax.random.key(0), dtype=jnp.float64, scale=scale))
    _, xs, state = example(CELL, dtype=jnp.float64)
    lstm = jaxrnn.cells.LSTMParams(scale * params.w_x[:, :16], scale * params.w_h[:, :16], params.b)
    _, expected = unrolled(jaxrnn.LSTM(3, 4), lstm, xs, jaxrnn.cells.LSTMState(state.h, state.c))
    np.testing.assert_allclose(unrolled(CELL, params, xs, state)[1], expected, rtol=1e-12, atol=1e-12)
    assert params.b.tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8


def test_parameters_and_products_are_counted():
    """On h, on ĥ, on ĥ' and on the twelve parts of z; as many backward."""
    args = example(CELL)
    count = 4 * (4 + 2) * (3 + 4) + 4 * 2 * 2 + 4 * (4 + 2) + 12 * 3 * (2 + 4) + 8 * 3
    assert sum(leaf.size for leaf in jax.tree.leaves(args[0])) == count
    assert set(products(functools.partial(in_loops, CELL), *args)) == {15}
    assert set(products(gradient(in_loops, CELL), *args)) == {15}


@pytest.mark.parametrize("name", ["hyper_size", "embedding_size"])
def test_sizes_are_positive(name):
    with pytest.raises(ValueError, match=f"{name}: got 0, needs a positive integer"):
        jaxrnn.HyperLSTM(3, 4, **({"hyper_size": 2, "embedding_size": 3} | {name: 0}))
