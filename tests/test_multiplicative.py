"""Multiplicative networks: parameter counts, the cell within, and the cells they are for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import LSTM, Elman, Multiplicative
from jaxrnn.cells import Projected
from tests.registry import example, unrolled


def count(cell):
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(cell.init, jax.random.key(0))))


@pytest.mark.parametrize("inner", [Elman(3, 4), LSTM(3, 4), Projected(LSTM(3, 4), 2, nonrecurrent_size=3)], ids=repr)
def test_parameters(inner):
    """A matrix of the input and one of the state more than the cell."""
    r = inner.initial_state().h.size
    assert count(Multiplicative(inner)) == count(inner) + r * (3 + r)


@pytest.mark.parametrize("inner", [Elman(3, 4), Projected(LSTM(3, 4), 2, nonrecurrent_size=3)], ids=repr)
@pytest.mark.usefixtures("x64")
def test_factors_of_one_leave_the_cell(inner):
    """An input with a one in it, factors that see it alone, and the identity for the state's matrix."""
    cell = Multiplicative(inner)
    params, xs, state = example(cell, dtype=jnp.float64)
    r, xs = state.h.shape[-1], np.array(xs)
    xs[..., 0] = 1.0
    plain = params._replace(w_x=np.eye(3, 1) * np.ones(r), w_h=np.eye(r))
    _, ys = unrolled(cell, plain, xs, state)
    _, zs = unrolled(inner, params.cell, xs, state)
    np.testing.assert_allclose(ys, zs, rtol=1e-12)


def test_the_cell_s_initializers_reach_it():
    params = Multiplicative(LSTM(3, 4)).init(jax.random.key(0), forget_bias=2.0)
    assert params.cell.b[4:8].tolist() == [2.0] * 4


@pytest.mark.parametrize("inner", [jaxrnn.GRU(3, 4), LSTM, None])
def test_cells_that_use_h_otherwise(inner):
    with pytest.raises(TypeError, match=r"cell: got .*, needs an Elman, LSTM, VanillaLSTM or Projected"):
        Multiplicative(inner)
