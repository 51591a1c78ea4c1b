"""A cell whose equations come as a whole is divided as one that says what sees the input only."""

import functools
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxrnn
from bench.loops import products
from jaxrnn.engine.hoist import hoist
from tests.registry import B, example, in_loops, rare
from tests.test_guards import gradient


@dataclass(frozen=True)
class Whole(jaxrnn.Cell):
    """Another cell with all of it in the step."""

    cell: jaxrnn.Cell

    @property
    def input_size(self):
        return self.cell.input_size

    @property
    def hidden_size(self):
        return self.cell.hidden_size

    def init(self, key, *, dtype=jnp.float32):
        return self.cell.init(key, dtype=dtype)

    def initial_state(self, batch_shape=(), dtype=jnp.float32):
        return self.cell.initial_state(batch_shape, dtype)

    def project(self, params, x):
        return x

    def step(self, params, state, drive):
        return self.cell.step(params, state, jax.jit(self.cell.project)(params, drive))


CELLS = [jaxrnn.LSTM(3, 4), jaxrnn.GRU(3, 4, reset="before"), jaxrnn.Elman(3, 4, activation=jax.nn.relu)]


@pytest.mark.parametrize("cell", [CELLS[1], *rare(CELLS[0], CELLS[2])], ids=repr)
def test_the_loop_has_the_recurrent_products_alone(cell):
    args = example(cell)
    for run in (in_loops, functools.partial(in_loops, lengths=np.array([5, 2]), chunk=2)):
        loops = products(gradient(run, Whole(cell)), *args)
        assert loops == products(gradient(run, cell), *args)
        assert loops


@pytest.mark.parametrize("cell", [CELLS[1], *rare(CELLS[0], CELLS[2])], ids=repr)
@pytest.mark.usefixtures("x64")
def test_values_and_derivatives_stay(cell):
    args = example(cell, steps=4, dtype=jnp.float64)
    options = {"lengths": np.array([4, 2]), "resets": np.arange(8).reshape(4, B) == 3, "chunk": 2}

    @functools.partial(jax.jit, static_argnums=0)
    def derived(cell, args):
        def loss(args):
            final, ys = jaxrnn.unroll(cell, *args, **options)
            return jnp.sum(jnp.sin(ys)) + sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(final))

        return jax.jvp(jax.value_and_grad(loss), (args,), (jax.tree.map(jnp.cos, args),))

    chex.assert_trees_all_close(derived(Whole(cell), args), derived(cell, args), rtol=1e-12, atol=1e-12)


def test_effects_are_had_once_a_step():
    """Also those of the input alone, and of what is made of it ahead of the loop."""
    seen = []

    def function(params, state, x):
        z = x @ params
        jax.debug.callback(seen.append, jnp.sum(x))
        jax.debug.callback(seen.append, jnp.sum(z))
        state = jnp.tanh(state + z)
        return state, state

    args = jnp.ones((3, 4)), jnp.arange(30.0).reshape(5, 2, 3), jnp.zeros((2, 4))
    cell = jaxrnn.Function(function, lambda key, dtype: args[0], lambda batch, dtype: jnp.zeros((*batch, 4), dtype), 3)
    assert products(functools.partial(in_loops, cell), *args) == [0]
    jaxrnn.unroll(cell, *args)
    jax.effects_barrier()
    sums = np.arange(30).reshape(5, 6).sum(1)
    assert sorted(map(float, seen)) == sorted([*sums, *(4 * sums)])


def test_only_products_of_the_input_alone_move():
    """With what follows from them; a sum over the input stays, and so does what has nothing to give."""

    def step(params, state, x):
        ahead = jnp.tanh(x @ params)
        kept = x + jnp.ones_like(x)
        state = state + lax.dot(kept * state, params) + ahead
        return state, (state, kept)

    args = jnp.ones((4, 4)), jnp.ones((2, 4)), jnp.ones((2, 4))
    ahead, rest = hoist(step, *args)
    _, given = ahead(args[0], args[2])
    chex.assert_trees_all_equal(given, [jnp.tanh(args[2] @ args[0])])
    chex.assert_trees_all_equal(rest(*args[:2], (args[2], given)), step(*args))
    assert hoist(lambda params, state, x: (state + x, state @ params), *args) is None


def test_a_step_may_return_a_constant():
    """Of a single example: its output is a literal of the jaxpr."""

    def step(params, state, x):
        return jnp.tanh(state + x @ params), 1.0

    args = jnp.ones((3, 4)), jnp.zeros(4), jnp.ones(3)
    ahead, rest = hoist(step, *args)
    state, output = rest(args[0], args[1], ahead(args[0], args[2]))
    np.testing.assert_allclose(state, np.tanh(3.0) * np.ones(4), rtol=1e-6)
    assert output == 1.0


def test_a_hoisted_step_passes_the_checks_of_jax():
    """`jax_enable_checks` looks through every program that is made."""
    cell = Whole(jaxrnn.LSTM(3, 4))
    args = example(cell)
    jax.config.update("jax_enable_checks", True)
    try:
        assert set(products(gradient(in_loops, cell), *args)) == {1}
    finally:
        jax.config.update("jax_enable_checks", False)
