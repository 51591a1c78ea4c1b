"""xLSTM's cells, gated linear attention and the delta rule: limits, memories and sizes."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from tests.registry import example

KEY = jax.random.key(0)
close = functools.partial(chex.assert_trees_all_close, rtol=1e-10, atol=1e-10)


def size(cell):
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(cell.init, KEY)))


def test_parameter_counts():
    assert size(jaxrnn.SLSTM(3, 4)) == 4 * 4 * (3 + 4 + 1)
    assert size(jaxrnn.SLSTM(3, 4, heads=2)) == 4 * 4 * (3 + 4 // 2 + 1)
    assert size(jaxrnn.MLSTM(3, 4, heads=2)) == 4 * 4 * (3 + 1) + 2 * 2 * (3 + 1)
    assert size(jaxrnn.GatedLinearAttention(3, 4, heads=2, rank=5)) == 3 * 3 * 4 + 5 * (3 + 4) + 4
    assert size(jaxrnn.DeltaNet(3, 4, heads=2)) == 3 * 3 * 4 + 3 * 2


@pytest.mark.parametrize("shift", [-200.0, 200.0])
@pytest.mark.usefixtures("x64")
def test_slstm_does_not_see_the_scale_of_its_input_gates(shift):
    """Numerator and normaliser share it; without the running maximum both would over- or underflow in float32."""
    cell = jaxrnn.SLSTM(3, 4)
    params, xs, _ = example(cell, dtype=jnp.float64)
    shifted = params._replace(b=params.b.at[:4].add(shift))
    close(jaxrnn.unroll(cell, shifted, xs)[1], jaxrnn.unroll(cell, params, xs)[1])
    single = jax.tree.map(lambda a: a.astype(jnp.float32), (shifted, xs))
    chex.assert_tree_all_finite(jax.grad(lambda args: jnp.sum(jaxrnn.unroll(cell, *args)[1]))(single))


@pytest.mark.parametrize("shift", [-200.0, 200.0])
def test_an_mlstm_whose_input_gates_are_shut_has_derivatives(shift):
    """Shut, exp(-m') overflows: the output is zero, and so is every derivative; also of a row that has no step."""
    cell = jaxrnn.MLSTM(3, 4)
    params, xs, _ = example(cell)
    params = params._replace(b_g=params.b_g.at[0].add(shift))

    def loss(params, xs, state):
        return jnp.sum(jaxrnn.unroll(cell, params, xs, state, lengths=np.array([5, 0]))[1])

    value, grads = jax.value_and_grad(loss, argnums=(0, 1, 2))(params, xs, cell.initial_state((2,)))
    chex.assert_tree_all_finite((value, grads))
    assert (abs(value) < 1e-30) == (shift < 0)


@pytest.mark.usefixtures("x64")
def test_an_slstm_of_ones_is_a_running_mean():
    """Gates that let all in and keep all: h is σ(o) times the mean of what was seen."""
    cell = jaxrnn.SLSTM(1, 1, forget_gate="exponential")
    params = jaxrnn.SLSTMParams(jnp.array([[0.0, 0.0, 1.0, 0.0]]), jnp.zeros((1, 4)), jnp.array([0.0, 0.0, 0.0, 50.0]))
    xs = jnp.array([[0.5], [-1.0], [2.0]])
    _, ys = jaxrnn.unroll(cell, params, xs)
    means = np.cumsum(np.tanh(xs), axis=0) / np.arange(1, 4)[:, None]
    close(ys, means)


def remember(cell, params, pairs, query, width):
    """What a memory answers to a query after it saw pairs of a key and a value, each an input of its own."""
    xs = jnp.stack([jnp.concatenate([jnp.zeros(width), k, v]) for k, v in pairs] + [query])
    return jaxrnn.unroll(cell, params, xs)[1][-1]


@pytest.mark.usefixtures("x64")
def test_a_delta_rule_overwrites_and_keeps_the_rest():
    """q, k, v are parts of the input; β is one. A key is written twice: the last value stays, others are untouched."""
    d = 3
    cell = jaxrnn.DeltaNet(3 * d, d)
    params = jaxrnn.DeltaNetParams(jnp.eye(3 * d), jnp.full((3 * d, 1), 50.0))
    # Keys far above zero, where SiLU is the identity, and at a right angle to each other.
    a, b = 30 * jnp.array([1.0, 0.0, 0.0]), 30 * jnp.array([0.0, 1.0, 0.0])
    one, two, three = jnp.array([1.0, 2.0, 3.0]), jnp.array([4.0, 5.0, 6.0]), jnp.array([7.0, 8.0, 9.0])

    def query(key):
        return jnp.concatenate([key, jnp.array([0.0, 0.0, 30.0]), jnp.zeros(d)])

    for key, value in ((a, three), (b, two)):
        close(remember(cell, params, [(a, one), (b, two), (a, three)], query(key), d), value)


@pytest.mark.usefixtures("x64")
def test_linear_attention_adds_and_forgets():
    """With α near one, the sum of values by the products of query and keys; with α of zero the last pair alone."""
    cell = jaxrnn.GatedLinearAttention(6, 2, rank=1, temperature=1.0, scan="associative")
    params = jaxrnn.GLAParams(jnp.eye(6), jnp.zeros((6, 1)), jnp.zeros((1, 2)), jnp.full(2, 50.0))
    xs = jax.random.normal(KEY, (4, 6))
    q, k, v = jnp.split(xs, 3, axis=-1)
    _, ys = jaxrnn.unroll(cell, params, xs)
    close(ys[-1], (q[-1] @ k.T) @ v / 2**0.5)
    _, ys = jaxrnn.unroll(cell, params._replace(b=jnp.full(2, -50.0)), xs)
    close(ys[-1], (q[-1] @ k[-1]) * v[-1] / 2**0.5)


@pytest.mark.parametrize("kind", [jaxrnn.SLSTM, jaxrnn.MLSTM, jaxrnn.DeltaNet, jaxrnn.GatedLinearAttention])
def test_heads_divide(kind):
    with pytest.raises(ValueError, match="heads: got 3, needs a divisor of hidden_size = 4"):
        kind(3, 4, heads=3)


@pytest.mark.parametrize("kind", [jaxrnn.SLSTM, jaxrnn.MLSTM])
def test_forget_gates_are_those_there_are(kind):
    with pytest.raises(ValueError, match="forget_gate: got 'tanh', needs one of 'sigmoid', 'exponential'"):
        kind(3, 4, forget_gate="tanh")
