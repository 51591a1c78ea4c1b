"""Cells whose inputs are spread over devices: their programs are made on two devices of the CPU."""

import os
import subprocess
import sys

from tests.conftest import QUICK_FLAGS

PROGRAM = """
import jax, jax.numpy as jnp
from jax import shard_map
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import jaxrnn
from tests.registry import example

CELLS = [
    jaxrnn.LSTM(3, 4), jaxrnn.GRU(3, 4, reset="before"), jaxrnn.LRU(3, 4, scan="associative"), jaxrnn.SLSTM(3, 4),
    jaxrnn.LearnedState(jaxrnn.GRU(3, 4)), jaxrnn.Masked(jaxrnn.LSTM(3, 4)), jaxrnn.Bidirectional(jaxrnn.GRU(3, 4)),
    jaxrnn.Stack((jaxrnn.Zoneout(jaxrnn.LSTM(3, 4), 0.5), jaxrnn.MinGRU(4, 4)), dropout=0.5),
]
explicit, auto = (jax.make_mesh((2,), ("data",), axis_types=(kind,)) for kind in (AxisType.Explicit, AxisType.Auto))
for cell in CELLS:
    params, xs, _ = example(cell, batch=(4,))

    def loss(params, xs, lengths, resets, cell=cell):
        final, ys = jaxrnn.unroll(cell, params, xs, lengths=lengths, resets=resets)
        return sum(jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves((final, ys)))

    def spread(*args, loss=loss):
        return jax.lax.psum(loss(*args), "data")

    args = params, xs, jnp.array([5, 3, 0, 2]), jnp.arange(20).reshape(5, 4) % 7 == 3
    specs = P(), P(None, "data"), P("data"), P(None, "data")
    expected = jax.jit(jax.value_and_grad(loss))(*args)
    found = {}
    with jax.set_mesh(explicit):
        put = [jax.device_put(x, NamedSharding(explicit, spec)) for x, spec in zip(args, specs)]
        found["explicit"] = jax.jit(jax.value_and_grad(loss))(*put)
    with jax.set_mesh(auto):
        run = shard_map(spread, mesh=auto, in_specs=specs, out_specs=P())
        found["shard_map"] = jax.jit(jax.value_and_grad(run))(*args)
    for axes, tree in found.items():
        for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected)):
            assert jnp.allclose(jax.device_get(a), jax.device_get(b), rtol=1e-4, atol=1e-5), (axes, cell)
print("equal")
"""


def test_a_run_without_a_state_is_that_of_one_device():
    """Values and gradients, with lengths and resets, on an explicit mesh and in `shard_map`.

    The fresh state is spread as the inputs are.
    """
    flags = {"XLA_FLAGS": f"{QUICK_FLAGS} --xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    flags["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=os.environ | flags)
    assert run.stdout.split() == ["equal"], run.stderr
