"""`triggered_average`, against its algorithm written as a loop over floats."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrnn import training


def by_the_paper(w, rate, gradients, validate, every, patience):
    """Algorithm 1 of Merity, Keskar & Socher 2017: the average and the step at which it begins (None: never)."""
    logs, since, run = [], None, []
    for k, gradient in enumerate(gradients, start=1):
        w = w - rate * gradient(w)
        if k % every == 0 and since is None:
            v = validate(w)
            if len(logs) > patience and v > min(logs[: len(logs) - patience]):
                since = k
            logs.append(v)
        if since is not None:
            run.append(w)
    return (np.mean(run, axis=0) if run else w), w, since


@pytest.mark.parametrize(("every", "patience", "steps"), [(1, 1, 40), (3, 2, 60), (4, 3, 14)])
def test_with_sgd_it_is_the_algorithm_of_the_paper(every, patience, steps, x64):
    targets = np.random.default_rng(0).normal(size=(steps, 2))
    batches = [lambda w, target=target: w - target for target in targets]
    start = np.array([3.0, -2.0])
    want, last, since = by_the_paper(start, 0.9, batches, lambda w: (w**2).sum(), every, patience)
    assert (since is not None) == (steps != 14)

    optimizer = optax.chain(optax.sgd(0.9), training.triggered_average(lambda w: (w**2).sum(), every, patience))
    step = training.make_train_step(
        lambda w, carry, target, key: (0.5 * jnp.sum((w - target) ** 2), (carry, {})), optimizer
    )
    state = training.init_state(jax.random.key(0), jnp.array(start), optimizer)
    for target in targets:
        state, _ = step(state, target)
    np.testing.assert_allclose(state.params, last, rtol=1e-12)
    np.testing.assert_allclose(training.averaged_params(state.opt_state), want, rtol=1e-12)


def test_a_loss_that_is_nan_is_passed_over():
    losses = jnp.array([jnp.nan, 3.0, 2.0, jnp.nan, 4.0, 5.0])
    averaging = training.triggered_average(lambda w: losses[w.astype(int) - 1], every=1, patience=1)
    w, begins = jnp.float32(0), []
    state = averaging.init(w)
    for _ in losses:
        updates, state = averaging.update(jnp.float32(1), state, w)
        w = optax.apply_updates(w, updates)
        begins.append(int(state.averaged))
    assert begins == [0, 0, 0, 0, 1, 2]


def test_fit_evaluates_the_average_and_resumes_with_it(tmp_path):
    targets = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
    optimizer = optax.chain(optax.sgd(0.9), training.triggered_average(lambda w: (w**2).sum(), 1, 1))
    seen = []

    def run(directory, *steps):
        state = training.init_state(jax.random.key(0), jnp.zeros(2), optimizer)
        step = training.make_train_step(
            lambda w, carry, target, key: (0.5 * jnp.sum((w - target) ** 2), (carry, {})), optimizer
        )
        for until in steps:
            if int(state.step):
                state = training.restore(directory, state)
            state = training.fit(
                state,
                step,
                lambda start: itertools.islice(iter(targets), start, None),
                steps=until,
                directory=directory,
                evaluate=lambda w: seen.append(np.asarray(w)) or {},
                params_of=lambda state: training.averaged_params(state.opt_state),
                progress=False,
            )
        return state

    whole, parts = run(tmp_path / "whole", 12), run(tmp_path / "parts", 7, 12)
    for a, b in zip(jax.tree.leaves(whole.opt_state), jax.tree.leaves(parts.opt_state), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(seen[0], training.averaged_params(whole.opt_state))
    assert not np.array_equal(seen[0], whole.params)


def test_it_names_what_is_wrong():
    with pytest.raises(ValueError, match="every: got 0, needs a positive integer"):
        training.triggered_average(jnp.sum, every=0)
    optimizer = training.triggered_average(jnp.sum, every=1)
    with pytest.raises(ValueError, match="params: got None, triggered_average needs update"):
        optimizer.update(jnp.zeros(2), optimizer.init(jnp.zeros(2)))
    with pytest.raises(ValueError, match="opt_state: got 0 averages of triggered_average in it, needs one"):
        training.averaged_params(optax.sgd(1.0).init(jnp.zeros(2)))
