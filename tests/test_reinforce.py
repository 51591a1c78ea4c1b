"""REINFORCE: score functions by the formulas, gradients that are unbiased, glimpses by NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import digamma

from jaxrnn import reinforce

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def test_log_probabilities_are_scipy_s():
    logits, coins = RNG.normal(size=(3, 4)).astype(np.float32), RNG.integers(0, 2, (3, 4))
    p = 1 / (1 + np.exp(-logits))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
    close(reinforce.bernoulli_log_prob(logits, coins), stats.bernoulli.logpmf(coins, p))
    classes = RNG.integers(0, 4, 3)
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    close(reinforce.categorical_log_prob(logits, classes), np.log(softmax[np.arange(3), classes]))
    close(reinforce.normal_log_prob(logits, 0.3, logits + 0.1), stats.norm.logpdf(logits + 0.1, logits, 0.3))
    shape, x = np.exp(logits), RNG.uniform(0.1, 3, (3, 4)).astype(np.float32)
    close(reinforce.gamma_log_prob(shape, 0.7, x), stats.gamma.logpdf(x, shape, scale=0.7), atol=1e-5)
    extreme = reinforce.bernoulli_log_prob(jnp.array([1e4, -1e4]), jnp.array([0, 1]))
    assert np.isfinite(extreme).all()


@pytest.mark.usefixtures("x64")
def test_score_functions_are_those_of_element_research():
    """Section 6.1's table: derivatives of log p with respect to what each module takes."""
    p, x = np.array([0.3, 0.8]), np.array([1.0, 0.0])
    logit = np.log(p / (1 - p))

    def slopes(log_prob, *args):
        return jax.jit(jax.grad(lambda *args: jnp.sum(log_prob(*args)), tuple(range(len(args)))))(*args)

    (by_p,) = slopes(lambda p: reinforce.bernoulli_log_prob(jnp.log(p / (1 - p)), x), p)
    np.testing.assert_allclose(by_p, (x - p) / (p * (1 - p)))
    (by_logit,) = slopes(lambda z: reinforce.bernoulli_log_prob(z, x), logit)
    np.testing.assert_allclose(by_logit, x - p)
    u, s, seen = np.array([0.5, -1.0]), np.array([0.3, 2.0]), np.array([0.7, 1.0])
    by_mean, by_std = slopes(lambda u, s: reinforce.normal_log_prob(u, s, seen), u, s)
    np.testing.assert_allclose(by_mean, (seen - u) / s**2)
    np.testing.assert_allclose(by_std, ((seen - u) ** 2 - s**2) / s**3, atol=1e-15)
    k, theta = np.array([0.5, 2.0]), np.array([0.3, 2.0])
    by_shape, by_scale = slopes(lambda k, t: reinforce.gamma_log_prob(k, t, seen), k, theta)
    np.testing.assert_allclose(by_shape, np.log(seen) - digamma(k) - np.log(theta))
    np.testing.assert_allclose(by_scale, seen / theta**2 - k / theta)


SAMPLERS = {
    "bernoulli": (
        lambda key, z: jax.random.bernoulli(key, jax.nn.sigmoid(z)).astype(z.dtype),
        reinforce.bernoulli_log_prob,
    ),
    "normal": (
        lambda key, z: z + 0.5 * jax.random.normal(key, z.shape),
        lambda z, x: reinforce.normal_log_prob(z, 0.5, x),
    ),
    "gamma": (
        lambda key, z: 0.5 * jax.random.gamma(key, jnp.exp(z)),
        lambda z, x: reinforce.gamma_log_prob(jnp.exp(z), 0.5, x),
    ),
}
MEANS = {"bernoulli": jax.nn.sigmoid, "normal": lambda z: z, "gamma": lambda z: 0.5 * jnp.exp(z)}


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.usefixtures("x64")
def test_estimates_are_unbiased_and_a_baseline_makes_them_less_noisy(kind):
    """Of the reward 2 + x, whose expectation is 2 + the mean, where the gradient is known."""
    sample, log_prob = SAMPLERS[kind]
    n = 40000
    z = jnp.asarray(0.4)

    @jax.jit
    def estimate(baseline):
        def loss(z):
            zs = jnp.broadcast_to(z, (n,))
            x = jax.lax.stop_gradient(sample(KEY, zs))
            return reinforce.surrogate(log_prob(zs, x), 2 + x, jnp.broadcast_to(baseline, (n,))) * n, x

        grads, x = jax.grad(loss, has_aux=True)(z)
        return grads, jax.vmap(jax.grad(log_prob), (None, 0))(z, x) * -(2 + x - baseline)

    mean, exact = jax.jit(jax.value_and_grad(MEANS[kind]))(z)
    estimates = [jax.tree.map(np.asarray, estimate(baseline)) for baseline in (0.0, 2 + mean)]
    for grads, each in estimates:
        np.testing.assert_allclose(grads, each.sum(), rtol=1e-9)
        assert abs(each.mean() + exact) < 4 * each.std() / n**0.5
    (_, noisy), (_, calm) = estimates
    assert calm.std() < noisy.std()


def test_surrogate_takes_rewards_and_baselines_as_constants():
    log_prob, reward, baseline = (np.float32(RNG.normal(size=s)) for s in ((5, 3), (3,), (3,)))
    value, grads = jax.jit(jax.value_and_grad(reinforce.surrogate, (0, 1, 2)))(log_prob, reward, baseline)
    expected = -sum(log_prob[t, b] * (reward[b] - baseline[b]) for t in range(5) for b in range(3)) / 3
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(grads[0], np.tile(-(reward - baseline) / 3, (5, 1)), rtol=1e-5)
    assert not grads[1].any()
    assert not grads[2].any()
    by_baseline, by_reward = jax.jit(jax.grad(reinforce.baseline_loss, (0, 1)))(baseline, reward)
    np.testing.assert_allclose(by_baseline, 2 * (baseline - reward) / 3, rtol=1e-5)
    assert not by_reward.any()
    each = np.float32(RNG.normal(size=(5, 3)))
    np.testing.assert_allclose(jax.jit(reinforce.surrogate)(log_prob, each), -(log_prob * each).sum() / 3, rtol=1e-5)


@pytest.mark.parametrize("size", [3, 8])
def test_glimpses_are_crops_averaged_down(size):
    images = RNG.normal(size=(2, 9, 11, 2)).astype(np.float32)
    locations = np.array([[0.1, -0.7], [1.0, -1.0]], np.float32)

    @jax.jit
    def glimpsed(images, locations):
        slopes = jax.grad(lambda image, at: jnp.sum(reinforce.glimpse(image, at, size, 2) ** 2), (0, 1))
        return reinforce.glimpse(images, locations, size=size, depth=2, scale=2), slopes(images, locations)

    found, (by_image, by_location) = jax.tree.map(np.asarray, glimpsed(images, locations))
    for row in range(2):
        for d in range(2):
            wide = size * 2**d
            pad = (wide - 1) // 2
            big = np.zeros((100, 100, 2), np.float32)
            big[pad : pad + 9, pad : pad + 11] = images[row]
            extent = [max(n + 2 * pad, wide) for n in (9, 11)]
            y, x = (int(np.floor((locations[row, a] + 1) / 2 * (extent[a] - wide))) for a in (0, 1))
            crop = big[y : y + wide, x : x + wide]
            expected = np.array(
                [
                    [crop[i * 2**d : (i + 1) * 2**d, j * 2**d : (j + 1) * 2**d].mean((0, 1)) for j in range(size)]
                    for i in range(size)
                ]
            )
            np.testing.assert_allclose(found[row, :, :, 2 * d : 2 * d + 2], expected, rtol=1e-5, atol=1e-6)
    assert by_image.any()
    assert not by_location.any()


def test_bad_calls_are_refused():
    with pytest.raises(ValueError, match=r"reward: got the shape \(5,\), needs the last axes of log_prob, \(5, 3\)"):
        reinforce.surrogate(jnp.ones((5, 3)), jnp.ones(5))
    with pytest.raises(ValueError, match=r"baseline: got the shape \(1,\), needs that of the reward, \(3,\)"):
        reinforce.surrogate(jnp.ones((5, 3)), jnp.ones(3), jnp.ones(1))
    with pytest.raises(ValueError, match=r"locations: got the shape \(2,\), needs \[\*batch, 2\] .* = \(2, 2\)"):
        reinforce.glimpse(jnp.ones((2, 8, 8, 1)), jnp.ones(2), 4)
    assert reinforce.class_reward(jnp.eye(3), jnp.array([0, 1, 0]), 2.0).tolist() == [2.0, 2.0, 0.0]
