"""LRU, S5 and RG-LRU: their initializations, their stability, and S5's discretization by matrix exponentials."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

import jaxrnn
from jaxrnn.cells.s5 import hippo_normal
from tests.reference import sigmoid
from tests.registry import example, unrolled

KEY = jax.random.key(0)


def size(cell):
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(cell.init, KEY)))


def test_parameter_counts():
    assert size(jaxrnn.LRU(3, 4)) == 4 * 3 * 4 + 3 * 4 + 3
    assert size(jaxrnn.S5(3, 4)) == 4 * 3 * 4 + 3 * 4 + 3
    assert size(jaxrnn.RGLRU(4, heads=2)) == 2 * 4 * 4 // 2 + 3 * 4


@pytest.mark.usefixtures("x64")
def test_lru_starts_on_a_ring_and_keeps_the_variance_of_white_noise():
    cell = jaxrnn.LRU(8, 400)
    init = functools.partial(cell.init, dtype=jnp.float64, r_min=0.5, r_max=0.9, max_phase=0.3)
    params = jax.tree.map(np.asarray, jax.jit(init)(KEY))
    radius, phase = np.exp(-np.exp(params.nu)), np.exp(params.theta)
    assert radius.min() > 0.5
    assert radius.max() < 0.9
    # Uniform on the ring: the squares are uniform.
    np.testing.assert_allclose(np.mean(radius**2), (0.5**2 + 0.9**2) / 2, atol=0.02)
    assert phase.max() < 0.3
    np.testing.assert_allclose(np.mean(phase), 0.15, atol=0.02)
    np.testing.assert_allclose(np.exp(params.gamma) ** 2, 1 - radius**2, rtol=1e-12)
    xs = np.random.default_rng(0).normal(size=(30, 256, 8))
    final, _ = unrolled(cell, params, xs)
    # Re and Im of the input product have the variance one half each; three standard deviations are 0.1.
    np.testing.assert_allclose(np.mean(np.abs(final.h) ** 2), 1.0, atol=0.1)


def test_lru_starts_in_a_real_ring():
    with pytest.raises(ValueError, match=r"r_min, r_max: got 0\.9 and 0\.5, needs"):
        jaxrnn.LRU(3, 4).init(KEY, r_min=0.9, r_max=0.5)
    with pytest.raises(ValueError, match="max_phase: got 0, needs a positive number"):
        jaxrnn.LRU(3, 4).init(KEY, max_phase=0)


@pytest.mark.usefixtures("x64")
def test_hippo_n_is_the_normal_part_of_legs():
    """LegS: A_nk = -√(2n+1)√(2k+1) below the diagonal, -(n+1) on it (Gu et al. 2020); N adds √(n+½)√(k+½)."""
    size = 6
    a = np.zeros((size, size))
    for n in range(size):
        for k in range(n + 1):
            a[n, k] = -(n + 1) if n == k else -((2 * n + 1) ** 0.5) * (2 * k + 1) ** 0.5
    for n in range(size):
        for k in range(size):
            a[n, k] += (n + 0.5) ** 0.5 * (k + 0.5) ** 0.5
    eigenvalues, vectors = hippo_normal(size)
    np.testing.assert_allclose(vectors @ np.diag(eigenvalues) @ np.conj(vectors.T), a, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_s5_starts_as_the_dense_real_system_in_hippo_s_basis():
    """One of each conjugate pair and twice the real part are the whole: a real impulse response of 2H dimensions."""
    cell = jaxrnn.S5(3, 4)
    params = jax.tree.map(np.asarray, jax.jit(functools.partial(cell.init, dtype=jnp.float64, blocks=2))(KEY))
    eigenvalues = params.decay + 1j * params.frequency
    every, vectors = hippo_normal(4)
    np.testing.assert_allclose(eigenvalues, np.tile(every[:2], 2), atol=1e-12)
    half = np.kron(np.eye(2), vectors[:, :2])
    # What is left of the whole basis after the other halves went: real matrices come back as twice the real part.
    b = (params.w_x[:, :4] + 1j * params.w_x[:, 4:]).T
    np.testing.assert_allclose(np.conj(half.T) @ (2 * (half @ b).real), b, atol=1e-12)
    c = (params.w_y[:4] + 1j * params.w_y[4:]).T
    np.testing.assert_allclose(2 * (c @ np.conj(half.T)).real @ half, c, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_s5_holds_the_input_over_a_step():
    """Against the matrix exponential of each mode as a real system of its two parts and the held input."""
    cell = jaxrnn.S5(1, 4)
    params = jax.jit(functools.partial(cell.init, dtype=jnp.float64))(KEY)
    state = example(cell, dtype=jnp.float64)[2]
    new, _ = jax.jit(cell)(params, state, np.full((2, 1), 0.7))
    params, state, new = jax.tree.map(np.asarray, (params, state, new))
    for k in range(4):
        re, im = params.decay[k], params.frequency[k]
        held = np.array([[re, -im, params.w_x[0, k]], [im, re, params.w_x[0, 4 + k]], [0, 0, 0]])
        for row in range(2):
            before = np.array([state.h[row, k].real, state.h[row, k].imag, 0.7])
            after = expm(held * np.exp(params.log_step[k])) @ before
            np.testing.assert_allclose(new.h[row, k], after[0] + 1j * after[1], rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_s5_holds_the_input_as_well_in_single_precision():
    """Of a slow mode and a short step, where exp(λ Δ) - 1 has no digits left."""
    cell = jaxrnn.S5(1, 2)
    params = example(cell, dtype=jnp.float64)[0]._replace(
        decay=np.full(2, -1e-4), frequency=np.array([1e-4, 1.0]), log_step=np.full(2, np.log(1e-3))
    )
    discrete = jax.jit(cell.discrete)
    single = discrete(jax.tree.map(np.float32, params))[1]
    assert single.dtype == jnp.complex64
    np.testing.assert_allclose(single, discrete(params)[1], rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_s5_s_discretizations_agree_for_small_steps():
    zoh, bilinear = (jaxrnn.S5(3, 4, discretization=d) for d in ("zoh", "bilinear"))
    params = example(zoh, dtype=jnp.float64)[0]._replace(log_step=np.full(4, np.log(1e-4)))
    a, b = (jax.jit(c.discrete)(params) for c in (zoh, bilinear))
    chex.assert_trees_all_close(a, b, rtol=1e-6)


def test_s5_refuses():
    with pytest.raises(ValueError, match="discretization: got 'euler', needs one of 'zoh', 'bilinear'"):
        jaxrnn.S5(3, 4, discretization="euler")
    with pytest.raises(ValueError, match="blocks: got 3, needs a divisor of hidden_size = 4"):
        jaxrnn.S5(3, 4).init(KEY, blocks=3)
    with pytest.raises(ValueError, match=r"min_step, max_step: got 0\.1 and 0\.01"):
        jaxrnn.S5(3, 4).init(KEY, min_step=0.1, max_step=0.01)


@pytest.mark.parametrize("cell", [jaxrnn.LRU(3, 4), jaxrnn.S5(3, 4), jaxrnn.RGLRU(3)], ids=repr)
def test_no_parameters_make_it_unstable(cell):
    params = jax.tree.map(lambda p: np.full(p.shape, 3.0, p.dtype), jax.eval_shape(cell.init, KEY))
    start = jax.tree.map(lambda s: np.ones(s.shape, s.dtype), jax.eval_shape(cell.initial_state))
    final, _ = unrolled(cell, params, np.zeros((200, 3), np.float32), start)
    assert np.abs(final.h).max() <= 1


@pytest.mark.usefixtures("x64")
def test_rg_lru_starts_with_the_given_memory():
    cell = jaxrnn.RGLRU(2000, heads=16, power=4.0)
    decay = jax.jit(lambda key: cell.init(key, dtype=jnp.float64).decay)(KEY)
    a = sigmoid(np.asarray(decay)) ** 4
    assert a.min() > 0.9
    assert a.max() < 0.999
    np.testing.assert_allclose(np.mean(a), (0.9 + 0.999) / 2, atol=0.002)


def test_rg_lru_with_a_shut_gate_holds_its_state_and_has_derivatives():
    """There a is one and the root is of zero."""
    cell = jaxrnn.RGLRU(4)
    params = example(cell)[0]._replace(b=np.full(8, -200.0, np.float32))
    state = cell.initial_state()._replace(h=jnp.ones(4))

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def run(params):
        final, _ = cell(params, state, jnp.ones(4))
        return jnp.sum(final.h), final

    slopes, final = run(params)
    chex.assert_tree_all_finite(slopes)
    chex.assert_trees_all_equal(final, state)


def test_rg_lru_refuses():
    with pytest.raises(ValueError, match="heads: got 3, needs a divisor of hidden_size = 4"):
        jaxrnn.RGLRU(4, heads=3)
    with pytest.raises(ValueError, match="power: got 0, needs a positive number"):
        jaxrnn.RGLRU(4, power=0)
    with pytest.raises(ValueError, match=r"a_min, a_max: got 0\.9 and 1"):
        jaxrnn.RGLRU(4).init(KEY, a_max=1)
