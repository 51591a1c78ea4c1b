"""Cells with one gate: Flax's MGU, with and without its reset, and parameter counts."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import MGU, UGRNN
from tests.oracles import oracle
from tests.registry import example, unrolled


def count(cell):
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(cell.init, jax.random.key(0))))


def flax_weights(params, reset):
    f, n = slice(0, 4), slice(4, 8)
    dense = {
        "if": {"kernel": params.w_x[:, f], "bias": params.b[f]},
        "in": {"kernel": params.w_x[:, n], "bias": params.b[n]},
        "hf": {"kernel": params.w_h[:, f]},
        "hn": {"kernel": params.w_h[:, n]},
    }
    if reset:
        dense["hn"]["bias"] = params.b_n
    return {"params": dense}


@pytest.mark.parametrize(("cell", "reset"), [(MGU(3, 4, "after"), True), (UGRNN(3, 4), False)], ids=repr)
@pytest.mark.usefixtures("x64")
def test_flax(cell, reset):
    """Its MGU, which without its reset is the update gate RNN."""
    linen = oracle("flax.linen")
    params, xs, state = example(cell, dtype=jnp.float64)
    theirs = linen.MGUCell(4, reset_gate=reset, dtype=jnp.float64, param_dtype=jnp.float64)
    final, ys = unrolled(cell, params, xs, state)
    h = state.h
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        run = jax.jit(theirs.apply)
        for x, y in zip(xs, ys, strict=True):
            h, out = run(flax_weights(params, reset), h, x)
            chex.assert_trees_all_close(y, out, rtol=1e-12)
    chex.assert_trees_all_close(final.h, h, rtol=1e-12)


def test_parameters():
    """Two thirds of a GRU's."""
    assert count(MGU(3, 4)) == 2 * 4 * (3 + 4 + 1)
    assert count(MGU(3, 4, reset="after")) == 2 * 4 * (3 + 4 + 1) + 4
    assert count(UGRNN(3, 4)) == 2 * 4 * (3 + 4 + 1)
    assert 3 * count(MGU(3, 4)) == 2 * count(jaxrnn.GRU(3, 4, reset="before"))


@pytest.mark.parametrize(("cell", "kept"), [(MGU(3, 4), 0.0), (MGU(3, 4, "after"), 1.0), (UGRNN(3, 4), 1.0)], ids=repr)
@pytest.mark.usefixtures("x64")
def test_an_open_gate(cell, kept):
    """The paper's takes the candidate, the others keep the state."""
    params, xs, state = example(cell, dtype=jnp.float64)
    params = params._replace(b=params.b.at[:4].set(1000.0))
    new, _ = cell(params, state, xs[0])
    assert np.allclose(new.h, state.h) == bool(kept)


def test_unknown_resets():
    with pytest.raises(ValueError, match="reset: got None, needs one of 'before', 'after'"):
        MGU(3, 4, reset=None)
