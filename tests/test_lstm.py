"""Options of the dense cells: heads, peepholes, projections, clipping, the shield."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import GRU, LSTM, Elman
from tests.registry import B, T, example, unrolled

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
        (Elman(3, 4, heads=2), Elman(3, 4), {"w_h": 1}),
        (LSTM(3, 4, heads=2), LSTM(3, 4), {"w_h": 4}),
        (LSTM(3, 6, 3, heads=3), LSTM(3, 6, 3), {"w_h": 4}),
        (GRU(3, 4, heads=4), GRU(3, 4), {"w_h": 3}),
        (GRU(3, 4, reset="before", heads=2), GRU(3, 4, reset="before"), {"w_h": 2, "w_n": 1}),
    ],
    ids=repr,
)
@pytest.mark.usefixtures("x64")
def test_heads_are_a_block_diagonal_matrix(cell, plain, n):
    params, xs, state = example(cell, dtype=jnp.float64)
    same = params._replace(**{name: dense(getattr(params, name), k) for name, k in n.items()})
    close(unrolled(cell, params, xs, state), unrolled(plain, same, xs, state))


def test_heads_are_initialized_one_by_one():
    w = np.asarray(jax.jit(LSTM(3, 4, heads=2).init)(jax.random.key(0)).w_h)
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


# Peepholes


@pytest.mark.usefixtures("x64")
def test_full_peepholes_of_diagonal_matrices_are_diagonal_ones():
    cell, full = LSTM(3, 4, peephole=True), LSTM(3, 4, peephole="full")
    params, xs, state = example(cell, dtype=jnp.float64)
    w_c = np.concatenate([np.diag(w) for w in np.split(np.asarray(params.w_c), 3)], axis=1)
    close(unrolled(full, params._replace(w_c=w_c), xs, state), unrolled(cell, params, xs, state))
    assert count(full) == 4 * 4 * (3 + 4 + 1) + 3 * 4**2


@pytest.mark.usefixtures("x64")
def test_a_shield_cuts_the_gradient_through_the_peepholes_only():
    """Values stay; the gradient is that of a step whose gates take another copy of the memory."""
    cell, plain = LSTM(3, 4, peephole=True, shield=True), LSTM(3, 4, peephole=True)
    params, xs, state = example(cell, dtype=jnp.float64)
    close(unrolled(cell, params, xs, state), unrolled(plain, params, xs, state))

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def slopes(params, state, watched):
        """One step from the memory c, whose gates watch another."""
        w_i, w_f, w_o = jnp.split(params.w_c, 3)
        i, f, g, o = jnp.split(xs[0] @ params.w_x + state.h @ params.w_h + params.b[None], 4, axis=-1)
        c = jax.nn.sigmoid(f + watched[0] * w_f[None]) * state.c
        c = c + jax.nn.sigmoid(i + watched[0] * w_i[None]) * jnp.tanh(g)
        return jnp.sum(jax.nn.sigmoid(o + watched[1] * w_o[None]) * jnp.tanh(c))

    after = jax.jit(plain)(params, state, xs[0])[0].c
    found = jax.jit(jax.grad(lambda p, s: jnp.sum(jaxrnn.unroll(cell, p, xs[:1], s)[1]), (0, 1)))(params, state)
    close(found, slopes(params, state, (state.c, after)))


# Projections and clipping


@pytest.mark.usefixtures("x64")
def test_a_readout_projection_stands_beside_the_output():
    cell, plain = LSTM(3, 4, 2, readout_size=3), LSTM(3, 4, 2)
    params, xs, state = example(cell, dtype=jnp.float64)
    final, ys = unrolled(cell, params, xs, state)
    close((final, ys[..., :2]), unrolled(plain, params._replace(w_q=None), xs, state))
    assert ys.shape == (T, B, 2 + 3)
    assert count(cell) == 4 * 4 * (3 + 2 + 1) + 4 * 2 + 4 * 3


@pytest.mark.usefixtures("x64")
def test_sak_s_count():
    """Section 2.2 without biases and peepholes: 4H(I + R) + H(R + Q)."""
    assert count(LSTM(3, 4, 2, use_bias=False, readout_size=5)) == 4 * 4 * (3 + 2) + 4 * (2 + 5)


@pytest.mark.usefixtures("x64")
def test_clips():
    """The oracle's values of the next step from a state that is within the bounds; beyond them, no gradient."""
    cell = LSTM(3, 4, 2, cell_clip=0.3, projection_clip=0.1)
    params, xs, state = example(cell, dtype=jnp.float64)
    final, ys = unrolled(cell, params, xs, state)
    assert np.max(np.abs(final.c)) == 0.3
    assert np.max(np.abs(ys)) == 0.1
    loose = LSTM(3, 4, 2, cell_clip=50.0, projection_clip=50.0)
    close(unrolled(loose, params, xs, state), unrolled(LSTM(3, 4, 2), params, xs, state))
    slopes = np.asarray(jax.jit(jax.grad(lambda s: jnp.sum(cell(params, s, xs[0])[0].c)))(state).c)
    clipped = np.abs(jax.jit(LSTM(3, 4, 2))(params, state, xs[0])[0].c) > 0.3
    assert clipped.any()
    assert not clipped.all()
    assert ((slopes == 0) == clipped).all()


@pytest.mark.parametrize("option", ["cell_clip", "projection_clip"])
@pytest.mark.parametrize("bound", [0, -1.0, float("inf"), "1"])
def test_bounds_are_positive(option, bound):
    with pytest.raises(ValueError, match=f"{option}: got {bound!r}, needs a positive number"):
        LSTM(3, 4, 2, **{option: bound})


def test_options_that_need_others():
    with pytest.raises(ValueError, match=r"projection_clip: got 1.0, needs a projection_size"):
        LSTM(3, 4, projection_clip=1.0)
    with pytest.raises(ValueError, match="shield: got True, needs a peephole"):
        LSTM(3, 4, shield=True)
    with pytest.raises(ValueError, match="peephole: got 'diagonal', needs one of False, True, 'full'"):
        LSTM(3, 4, peephole="diagonal")
