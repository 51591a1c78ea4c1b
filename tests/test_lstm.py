"""Heads of the dense cells."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import GRU, LSTM, Elman, VanillaLSTM
from tests.registry import T, example, rare, unrolled

close = functools.partial(chex.assert_trees_all_close, rtol=1e-12, atol=1e-12)


def count(cell):
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(cell.init, jax.random.key(0))))


# Heads


def dense(w, n):
    """The block-diagonal `[R, nH]` of `[heads, R / heads, nH / heads]`, gate by gate."""
    heads, rows, columns = w.shape
    size = columns // n
    out = np.zeros((heads * rows, n, heads * size))
    for k in range(heads):
        for gate in range(n):
            part = w[k, :, gate * size : (gate + 1) * size]
            out[k * rows : (k + 1) * rows, gate, k * size : (k + 1) * size] = part
    return out.reshape(heads * rows, n * heads * size)


@pytest.mark.parametrize(
    ("cell", "plain", "n"),
    [
        (LSTM(3, 4, heads=2), LSTM(3, 4), {"w_h": 4}),
        (GRU(3, 4, reset="before", heads=2), GRU(3, 4, reset="before"), {"w_h": 2, "w_n": 1}),
        *rare(
            (Elman(3, 4, heads=2), Elman(3, 4), {"w_h": 1}),
            (VanillaLSTM(3, 4, heads=2), VanillaLSTM(3, 4), {"w_h": 4}),
            (GRU(3, 4, heads=4), GRU(3, 4), {"w_h": 3}),
        ),
    ],
    ids=repr,
)
@pytest.mark.usefixtures("x64")
def test_heads_are_a_block_diagonal_matrix(cell, plain, n):
    params, xs, state = example(cell, dtype=jnp.float64)
    same = params._replace(**{name: dense(getattr(params, name), k) for name, k in n.items()})
    close(unrolled(cell, params, xs, state), unrolled(plain, same, xs, state))


def test_heads_are_initialized_one_by_one():
    w = np.asarray(LSTM(3, 4, heads=2).init(jax.random.key(0)).w_h)
    assert w.shape == (2, 2, 8)
    for head in w:
        for block in np.split(head, 4, axis=1):
            np.testing.assert_allclose(block.T @ block, np.eye(2), atol=1e-6)
    assert not np.allclose(w[0], w[1])
    assert count(LSTM(3, 4, heads=2)) == 4 * 4 * (3 + 2 + 1)


def test_rows_need_not_exist():
    cell = LSTM(3, 4, heads=2)
    _, ys = unrolled(cell, *example(cell, batch=(0,)))
    assert ys.shape == (T, 0, 4)


@pytest.mark.parametrize(
    "make",
    [lambda heads: LSTM(3, 4, heads=heads), lambda heads: GRU(3, 4, heads=heads), lambda h: Elman(3, 4, heads=h)],
)
@pytest.mark.parametrize("heads", [3, 8])
def test_heads_divide(make, heads):
    with pytest.raises(ValueError, match=f"heads: got {heads}, needs a divisor of hidden_size = 4"):
        make(heads)
    with pytest.raises(ValueError, match="heads: got 0, needs a positive integer"):
        make(0)
