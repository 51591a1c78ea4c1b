"""Layer-normalized cells: conventions, invariances, parameter counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn.cells.layer_norm import layer_norm as ours
from tests import reference
from tests.oracles import oracle
from tests.reference import layer_norm
from tests.registry import example, rare, unrolled

LSTM, GRU = jaxrnn.LayerNormLSTM, jaxrnn.LayerNormGRU


@pytest.mark.parametrize(
    ("cell", "step"),
    [
        (LSTM(3, 4, per_gate=True, normalize_memory=False), layer_norm.layer_norm_lstm),
        *rare((LSTM(3, 4, per_gate=True, epsilon=0.1), layer_norm.layer_norm_lstm)),
        (GRU(3, 4, per_gate=True, epsilon=0.1), layer_norm.layer_norm_gru),
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
@pytest.mark.usefixtures("x64")
def test_the_other_conventions_are_those_of_the_equations(cell, step):
    params, xs, state = example(cell, dtype=jnp.float64)
    _, expected = reference.unroll(step, cell, params, xs, state)
    np.testing.assert_allclose(unrolled(cell, params, xs, state)[1], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.usefixtures("x64")
def test_the_norm_is_that_of_torch(blocks):
    torch = oracle("torch")
    rng = np.random.default_rng(0)
    z, scale = rng.normal(3.0, 2.0, (5, 2, 12)), rng.normal(size=12)
    grouped = torch.tensor(z.reshape(5, 2, blocks, -1))
    theirs = torch.nn.functional.layer_norm(grouped, grouped.shape[-1:], eps=1e-3).numpy().reshape(z.shape)
    np.testing.assert_allclose(ours(z, jnp.asarray(scale), 1e-3, blocks), theirs * scale, rtol=1e-12, atol=1e-12)


def outputs(cell, params, xs, state):
    return unrolled(cell, params, xs, state)[1]


@pytest.mark.parametrize("name", ["w_x", "w_h"])
@pytest.mark.parametrize("kind", [LSTM, *rare(GRU)], ids=lambda kind: kind.__name__)
@pytest.mark.usefixtures("x64")
def test_the_size_of_a_weight_matrix_is_of_no_account(kind, name):
    """The paper's table 1. One gate's block alone counts where gates are normalized jointly, and does not otherwise."""
    for per_gate in (False, True):
        cell = kind(3, 4, per_gate=per_gate, epsilon=1e-14)
        params, xs, state = example(cell, dtype=jnp.float64)
        run = functools.partial(outputs, cell)
        before, w = run(params, xs, state), getattr(params, name)
        close = functools.partial(np.allclose, before, rtol=1e-8, atol=1e-8)
        assert close(run(params._replace(**{name: 10 * w}), xs, state))
        assert close(run(params._replace(**{name: w.at[:, :4].multiply(10)}), xs, state)) == per_gate


@pytest.mark.parametrize(
    ("cell", "count"),
    [
        (LSTM(3, 4), 4 * 4 * (3 + 4 + 3) + 2 * 4),
        (LSTM(3, 4, normalize_memory=False), 4 * 4 * (3 + 4 + 3)),
        (GRU(3, 4), 3 * 4 * (3 + 4 + 3) + 4),
    ],
    ids=repr,
)
def test_parameters_are_counted(cell, count):
    assert sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(cell.init, jax.random.key(0)))) == count


def test_statistics_are_float32_in_bfloat16():
    """A mean of a hundred leaves bfloat16 three digits; the norm of what stands around it needs more."""
    z = (100 + jnp.arange(8.0)).astype(jnp.bfloat16)
    got = ours(z, jnp.ones(8, jnp.bfloat16), 1e-5)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(jnp.float32), (np.arange(8) - 3.5) / np.sqrt(5.25), rtol=2**-8)


@pytest.mark.parametrize("kind", [LSTM, GRU], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("epsilon", [0.0, -1e-5, np.inf, "1e-5"])
def test_epsilon_is_positive(kind, epsilon):
    with pytest.raises(ValueError, match=f"epsilon: got {epsilon!r}, needs a positive number"):
        kind(3, 4, epsilon=epsilon)
