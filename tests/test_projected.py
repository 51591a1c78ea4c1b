"""Projections: the cell itself, counts, heads, what only the output has, bounds, and what does not fit."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import LSTM, Elman, VanillaLSTM
from jaxrnn.cells import Projected
from tests import reference
from tests.reference import ablations
from tests.registry import B, T, example, rare, unrolled

close = functools.partial(chex.assert_trees_all_close, rtol=1e-12, atol=1e-12)


def count(cell):
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(cell.init, jax.random.key(0))))


@pytest.mark.parametrize(
    ("cell", "inner"),
    [
        *rare((Projected(Elman(3, 4), 2, nonrecurrent_size=3), reference.elman)),
        (Projected(LSTM(3, 4, heads=2), 2, clip=0.1), reference.lstm),
        (Projected(VanillaLSTM(3, 4, gate_recurrence=True, forget_gate="coupled"), 2), ablations.vanilla_lstm),
        (Projected(VanillaLSTM(3, 4, peephole="full"), nonrecurrent_size=3), ablations.vanilla_lstm),
    ],
    ids=lambda value: repr(value) if isinstance(value, Projected) else value.__name__,
)
@pytest.mark.usefixtures("x64")
def test_values_are_those_of_the_equations(cell, inner):
    """Of options that are not in the registry."""
    params, xs, state = example(cell, dtype=jnp.float64)
    close(unrolled(cell, params, xs, state), reference.unroll(reference.projected(inner), cell, params, xs, state))


@pytest.mark.parametrize("inner", [LSTM(3, 4, heads=2), *rare(Elman(3, 4), VanillaLSTM(3, 4))], ids=repr)
@pytest.mark.usefixtures("x64")
def test_the_identity_leaves_the_cell(inner):
    cell = Projected(inner, 4)
    params, xs, state = example(cell, dtype=jnp.float64)
    got = unrolled(cell, params._replace(w_p=jnp.eye(4)), xs, state)
    close(got, unrolled(inner, params.cell, xs, state))


@pytest.mark.usefixtures("x64")
def test_a_nonrecurrent_projection_stands_beside_the_output():
    cell, plain = Projected(LSTM(3, 4), 2, nonrecurrent_size=3), Projected(LSTM(3, 4), 2)
    params, xs, state = example(cell, dtype=jnp.float64)
    final, ys = unrolled(cell, params, xs, state)
    close((final, ys[..., :2]), unrolled(plain, params._replace(w_q=None), xs, state))
    assert ys.shape == (T, B, 2 + 3)
    assert count(cell) == 4 * 4 * (3 + 2 + 1) + 4 * 2 + 4 * 3


def test_sak_s_count():
    """Section 2.2 without biases and peepholes: 4H(I + R) + H(R + Q)."""
    cell = Projected(LSTM(3, 4, use_bias=False), 2, nonrecurrent_size=5)
    assert count(cell) == 4 * 4 * (3 + 2) + 4 * (2 + 5)


def test_heads_of_narrow_blocks():
    params = jax.eval_shape(Projected(LSTM(3, 6, heads=3), 3).init, jax.random.key(0))
    assert params.cell.w_h.shape == (3, 1, 8)
    assert params.w_p.shape == (6, 3)


def test_the_cell_s_initializers_reach_it():
    zeros = jaxrnn.initializers.zeros
    params = Projected(VanillaLSTM(3, 4), 2).init(jax.random.key(0), forget_bias=2.0, peephole_init=zeros)
    assert params.cell.b[4:8].tolist() == [2.0] * 4
    assert not params.cell.w_c.any()


@pytest.mark.usefixtures("x64")
def test_a_clipped_projection():
    """A bound that is out of reach changes nothing."""
    cell, loose, plain = (Projected(LSTM(3, 4), 2, clip=bound) for bound in (0.1, 50.0, None))
    params, xs, state = example(cell, dtype=jnp.float64)
    assert np.max(np.abs(unrolled(cell, params, xs, state)[1])) == 0.1
    close(unrolled(loose, params, xs, state), unrolled(plain, params, xs, state))


@pytest.mark.parametrize("bound", [0, -1.0, float("inf"), "1"])
def test_bounds_are_positive(bound):
    with pytest.raises(ValueError, match=f"clip: got {bound!r}, needs a positive number"):
        Projected(LSTM(3, 4), 2, clip=bound)


def test_what_does_not_fit():
    with pytest.raises(TypeError, match=r"cell: got GRU\(.*, needs an Elman, LSTM or VanillaLSTM"):
        Projected(jaxrnn.GRU(3, 4), 2)
    with pytest.raises(ValueError, match="projection_size: got None, needs a size, or a nonrecurrent_size"):
        Projected(LSTM(3, 4))
    with pytest.raises(ValueError, match="nonrecurrent_size: got 0, needs a positive integer"):
        Projected(LSTM(3, 4), 2, nonrecurrent_size=0)
    with pytest.raises(ValueError, match=r"clip: got 1.0, needs a projection_size"):
        Projected(LSTM(3, 4), nonrecurrent_size=2, clip=1.0)
    with pytest.raises(ValueError, match="heads: got 2, needs a divisor of projection_size = 3"):
        Projected(LSTM(3, 4, heads=2), 3)
