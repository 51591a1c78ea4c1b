"""Regularizers, masks and learned states inside of the Flax modules: plain arguments, streams as keys once a call."""

import inspect

import jax
import numpy as np
import pytest
from flax import nnx

import jaxrnn
import jaxrnn.linen
import jaxrnn.nnx
from jaxrnn.engine.paths import recorded_choices
from tests.registry import rare, unrolled

XS = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)  # [B, T, I]
MASK = np.array([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1]], bool)
STOCHASTIC = [
    jaxrnn.WeightDrop(jaxrnn.RecurrentDropout(jaxrnn.LSTM(3, 4), 0.5), 0.5),
    jaxrnn.Stack((jaxrnn.Zoneout(jaxrnn.GRU(3, 4), 0.5), jaxrnn.Dropout(jaxrnn.GRU(4, 4), 0.5, ("time",)))),
]


@pytest.mark.parametrize("cell", [STOCHASTIC[0], *rare(*STOCHASTIC[1:])], ids=repr)
def test_streams_are_keys(cell):
    rnn = jaxrnn.nnx.RNN(cell, rngs=nnx.Rngs(0))
    params = nnx.as_pure(rnn.cell.params)
    linen = jaxrnn.linen.RNN(cell)
    variables = {"params": {"cell": jaxrnn.linen.to_dict(params)}}
    key = jax.random.key(3)
    call = nnx.jit(lambda rnn, rngs: rnn(XS, rngs=rngs)[1])
    apply = jax.jit(lambda variables, rngs: linen.apply(variables, XS, rngs=rngs)[1])
    quiet, noisy = call(rnn, None), call(rnn, nnx.Rngs(dropout=3))
    np.testing.assert_allclose(quiet, np.swapaxes(unrolled(cell, params, np.swapaxes(XS, 0, 1))[1], 0, 1), rtol=1e-6)
    np.testing.assert_allclose(apply(variables, None), quiet, rtol=1e-6)
    assert not np.allclose(noisy, quiet)
    drawn = apply(variables, {"dropout": key})
    np.testing.assert_array_equal(drawn, apply(variables, {"dropout": key}))
    with jax.legacy_prng_key("allow"):
        np.testing.assert_array_equal(drawn, apply(variables, {"dropout": jax.random.PRNGKey(3)}))
    assert not np.allclose(drawn, quiet)
    rngs = nnx.Rngs(dropout=3)
    assert not np.allclose(call(rnn, rngs), call(rnn, rngs))  # a key a call


def test_masks_and_learned_states():
    cell = jaxrnn.Stack((jaxrnn.LearnedState(jaxrnn.GRU(3, 4)),))
    net = jaxrnn.Masked(cell, "hold")
    rnn = jaxrnn.nnx.RNN(net, rngs=nnx.Rngs(0), initializers={"state_init": jaxrnn.initializers.uniform(1.0)})
    ys = np.asarray(nnx.jit(lambda rnn: rnn((XS, MASK))[1])(rnn))
    params = nnx.as_pure(rnn.cell.params)
    for row in range(2):
        _, expected = unrolled(cell, params, XS[row][MASK[row]])
        np.testing.assert_allclose(ys[row][MASK[row]], expected, rtol=1e-5, atol=1e-6)
    linen = jaxrnn.linen.RNN(net, initializers={"state_init": jaxrnn.initializers.uniform(1.0)})
    variables = jax.jit(linen.init)(jax.random.key(0), (XS, MASK))
    assert variables["params"]["cell"]["0"]["initial"]["h"].any()
    assert jax.eval_shape(linen.apply, variables, (XS, MASK))[1].shape == (2, 5, 4)


def test_every_option_of_unroll_is_one_of_the_modules():
    own = {"cell", "params", "xs", "state", "lengths", "key"}  # which have other names, or are the module's
    options = set(inspect.signature(jaxrnn.unroll).parameters) - own
    for module in (jaxrnn.nnx.RNN, jaxrnn.linen.RNN):
        assert options < set(inspect.signature(module.__call__).parameters)


def test_the_modules_hand_the_solver_down():
    rnn = jaxrnn.nnx.RNN(jaxrnn.GRU(3, 4), rngs=nnx.Rngs(0))
    linen = jaxrnn.linen.RNN(jaxrnn.GRU(3, 4))
    with recorded_choices() as choices:
        nnx.eval_shape(lambda rnn: rnn(XS, solver=jaxrnn.Newton()), rnn)
        jax.eval_shape(lambda key: linen.init(key, XS, solver=jaxrnn.Newton()), jax.random.key(0))
    assert {choice.path for choice in choices} == {"newton"}
