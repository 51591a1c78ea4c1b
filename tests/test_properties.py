"""Any run: random lengths, resets, direction and chunks, against the loop over rows of `tests/reference`."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxrnn
from tests import reference
from tests.registry import example, unrolled

CELL = jaxrnn.GRU(3, 4)
ROWS = 3


@st.composite
def runs(draw):
    steps = draw(st.sampled_from([1, 2, 7]))
    lengths = draw(st.lists(st.integers(0, steps), min_size=ROWS, max_size=ROWS))
    resets = draw(st.lists(st.lists(st.booleans(), min_size=ROWS, max_size=ROWS), min_size=steps, max_size=steps))
    return steps, {
        "lengths": np.array(lengths),
        "resets": np.array(resets),
        "reverse": draw(st.booleans()),
        "chunk": draw(st.sampled_from([None, 1, 3])),
    }


@pytest.mark.exhaustive
@settings(max_examples=60, deadline=None, derandomize=True)
@given(runs())
@pytest.mark.usefixtures("x64")
def test_a_run_is_that_of_each_row_alone(run):
    steps, options = run
    params, xs, state = example(CELL, steps=steps, batch=(ROWS,), dtype=jnp.float64)
    expected = reference.unroll(
        reference.gru_after, CELL, params, xs, state, **{k: v for k, v in options.items() if k != "chunk"}
    )
    chex.assert_trees_all_close(unrolled(CELL, params, xs, state, **options), expected, rtol=1e-12, atol=1e-12)
