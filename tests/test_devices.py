"""What is written otherwise for the CPU equals what other devices run: the other tests see this device's form alone."""

import chex
import jax
import jax.numpy as jnp
import pytest

import jaxrnn
from tests.registry import example, rare


@pytest.mark.parametrize(
    "cell",
    [
        jaxrnn.LSTM(3, 4, heads=2),
        *rare(
            jaxrnn.LSTM(3, 4),
            jaxrnn.HyperLSTM(3, 4, hyper_size=2, embedding_size=3),
            jaxrnn.RGLRU(4, heads=2),
            jaxrnn.ConvLSTM((5, 3, 2), 3, (3, 2), stride=(2, 1)),
            jaxrnn.ConvGRU((5, 2), 3, 2),
        ),
    ],
    ids=repr,
)
@pytest.mark.usefixtures("x64")
def test_values_and_gradients(cell, monkeypatch):
    args = example(cell, dtype=jnp.float64)

    def run(device):
        monkeypatch.setattr(jax, "default_backend", lambda: device)

        def loss(params, xs, state):
            return jnp.sum(jaxrnn.unroll(cell, params, xs, state, chunk=3)[1] ** 2)

        traced = jax.jit(jax.value_and_grad(loss, (0, 1, 2))).trace(*args)
        return str(traced.jaxpr), traced.lower().compile()(*args)

    (there, ours), (here, want) = run("gpu"), run("cpu")
    assert there != here
    chex.assert_trees_all_close(ours, want, rtol=1e-10, atol=1e-10)
