"""`Window`, whose run is not a loop, and the QRNN's convolution made of it."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from tests import reference
from tests.reference import qrnn
from tests.registry import example, rare, unrolled

close = functools.partial(chex.assert_trees_all_close, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reverse", [True, *rare(False)])
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("lengths", [None, [5, 0, 3, 1]], ids=["whole", "lengths"])
@pytest.mark.parametrize("flagged", [False, True], ids=["no resets", "resets"])
@pytest.mark.usefixtures("x64")
def test_windows(lengths, flagged, steps, reverse):
    """Longer than the sequence, too."""
    cell = jaxrnn.Window(2, 4)
    params, xs, state = example(cell, steps=steps, batch=(4,), dtype=jnp.float64)
    options = {
        "lengths": None if lengths is None else np.minimum(lengths, steps),
        "resets": np.random.default_rng(0).uniform(size=(steps, 4)) < 0.4 if flagged else None,
    }
    got = unrolled(cell, params, xs, state, reverse=reverse, **options)
    close(got, reference.unroll(qrnn.window, cell, params, xs, state, reverse=reverse, **options))


def test_windows_take_no_loop():
    cell = jaxrnn.Window(3, 2)
    assert "scan[" not in str(jax.make_jaxpr(functools.partial(jaxrnn.unroll, cell))(*example(cell)))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_window_shows_no_padding(reverse):
    cell = jaxrnn.Window(3, 3)
    params, xs, state = example(cell)
    xs = np.array(xs)
    xs[2:, 1] = np.nan

    @jax.jit
    @jax.grad
    def slopes(xs):
        return jnp.sum(jaxrnn.unroll(cell, params, xs, state, lengths=np.array([5, 2]), reverse=reverse)[1] ** 2)

    assert np.isfinite(slopes(xs)).all()
    assert not np.asarray(slopes(xs))[2:, 1].any()


@pytest.mark.usefixtures("x64")
def test_a_window_before_a_cell_is_the_paper_s_masked_convolution():
    net = jaxrnn.Stack((jaxrnn.Window(3, 2), jaxrnn.QRNN(6, 4, scan="associative")))
    params, xs, _ = example(net, dtype=jnp.float64)
    xs, ys = np.asarray(xs), np.asarray(unrolled(net, params, xs)[1])
    w_x, b = jax.tree.map(np.asarray, params[1])
    for row in range(xs.shape[1]):
        z, f, o = np.split(qrnn.convolution(w_x.reshape(2, 3, 12), b, xs[:, row]), 3, axis=-1)
        c = np.zeros(4)
        for t in range(len(xs)):
            c = reference.sigmoid(f[t]) * c + (1 - reference.sigmoid(f[t])) * np.tanh(z[t])
            np.testing.assert_allclose(ys[t, row], reference.sigmoid(o[t]) * c, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_f_pooling_is_gilr_is_a_mingru_with_tanh():
    """Bradbury et al. 2016, equation 3, whose gate keeps the old state; Martin & Cundy 2018."""
    cell = jaxrnn.MinGRU(3, 4, activation=jnp.tanh)
    params, xs, _ = example(cell, dtype=jnp.float64)
    ys = np.asarray(unrolled(cell, params, xs)[1])
    params, xs = jax.tree.map(np.asarray, (params, xs))
    z, n = np.split(xs @ params.w_x + params.b, 2, axis=-1)
    f, h = 1 - reference.sigmoid(z), np.zeros((2, 4))
    for t in range(5):
        h = f[t] * h + (1 - f[t]) * np.tanh(n[t])
        close(ys[t], h)


def test_poolings_are_those_there_are():
    with pytest.raises(ValueError, match="pooling: got 'f', needs one of 'fo', 'ifo'"):
        jaxrnn.QRNN(3, 4, pooling="f")
    with pytest.raises(ValueError, match="width: got 0, needs a positive integer"):
        jaxrnn.Window(3, 0)
