"""The mutated cells: parameter counts, the limits, and the sizes they need."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import MUT
from tests.reference import jozefowicz, unroll
from tests.registry import example


def count(cell):
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(cell.init, jax.random.key(0))))


@pytest.mark.parametrize(("variant", "of_x", "of_h"), [(1, 2, 2), (2, 2, 3), (3, 3, 3)])
def test_parameters(variant, of_x, of_h):
    """The matrices of the printed equations and three biases; projected, each variant has three matrices of x."""
    assert count(MUT(4, 4, variant)) == of_x * 4 * 4 + of_h * 4**2 + 3 * 4
    assert count(MUT(3, 4, variant, project_input=True)) == 3 * 3 * 4 + of_h * 4**2 + 3 * 4


@pytest.mark.parametrize("cell", [MUT(4, 4, 2), MUT(3, 4, 1, project_input=True)], ids=repr)
@pytest.mark.usefixtures("x64")
def test_values(cell):
    """Of the variants that are not in the registry."""
    params, xs, state = example(cell, dtype=jnp.float64)
    _, expected = unroll(jozefowicz.mut, cell, params, xs, state)
    for x, wanted in zip(xs, expected, strict=True):
        state, y = cell(params, state, x)
        np.testing.assert_allclose(y, wanted, rtol=1e-12)


@pytest.mark.parametrize("variant", [1, 2])
def test_a_bare_input_has_as_many_values_as_the_state(variant):
    with pytest.raises(ValueError, match=f"input_size: got 3, MUT{variant} needs hidden_size = 4, or project_input"):
        MUT(3, 4, variant)


@pytest.mark.parametrize("variant", [0, 4, "MUT1", None])
def test_unknown_variants(variant):
    with pytest.raises(ValueError, match=f"variant: got {variant!r}, needs one of 1, 2, 3"):
        MUT(4, 4, variant)
