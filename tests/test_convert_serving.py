"""Exported programs in another process, which has JAX and no jaxrnn: `docs/serving.md` as a test."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxrnn
from tests.registry import draw

NET = jaxrnn.Stack((jaxrnn.Embedding(7, 8), jaxrnn.LSTM(8, 4), jaxrnn.GRU(4, 5)))

SERVER = """
import pathlib, sys
import numpy as np
from jax import export
from jax.random import key, key_data

folder = pathlib.Path(sys.argv[1])
run, step = (export.deserialize((folder / name).read_bytes()).call for name in ("run", "step"))
with np.load(folder / "inputs.npz") as file:
    arrays = dict(file)
found = {f"ys{i}": run(arrays[f"tokens{i}"], arrays[f"lengths{i}"]) for i in range(2)}
tokens, state = arrays["tokens0"][0], [arrays[f"state{i}"] for i in range(3)]
written = []
for i in range(4):
    tokens, *state = step(tokens, key_data(key(i)), *state)
    written.append(tokens)
np.savez(folder / "outputs.npz", written=np.stack(written), **found)
assert "jaxrnn" not in sys.modules
"""


@pytest.mark.exhaustive
def test_a_server_without_jaxrnn(tmp_path):
    params = draw(0, jax.eval_shape(NET.init, jax.random.key(0)), jnp.float32)
    tree = jax.tree.structure(NET.initial_state((1,)))

    @jax.jit
    def run(tokens, lengths):
        return jaxrnn.unroll(NET, params, tokens, lengths=lengths)[1]

    @jax.jit
    def step(tokens, key, *leaves):
        state, y = NET(params, jax.tree.unflatten(tree, leaves), tokens)
        drawn = jax.random.categorical(jax.random.wrap_key_data(key), y).astype(jnp.int32)
        return drawn, *jax.tree.leaves(state)

    def spec(shape, dtype):
        return jax.ShapeDtypeStruct(export.symbolic_shape(shape, scope=scope), dtype)

    scope = export.SymbolicScope()
    whole = export.export(run)(spec("t, b", jnp.int32), spec("b", jnp.int32))
    states = [spec(f"b, {size}", jnp.float32) for size in (4, 4, 5)]
    single = export.export(step)(spec("b", jnp.int32), jax.ShapeDtypeStruct((2,), jnp.uint32), *states)
    (tmp_path / "run").write_bytes(whole.serialize())
    (tmp_path / "step").write_bytes(single.serialize())

    rng = np.random.default_rng(0)
    inputs = {f"state{i}": np.zeros((3, size), np.float32) for i, size in enumerate((4, 4, 5))}
    for i, (steps, rows) in enumerate(((6, 3), (2, 1))):
        inputs[f"tokens{i}"] = rng.integers(0, 5, (steps, rows), np.int32)
        inputs[f"lengths{i}"] = rng.integers(0, steps + 1, rows, np.int32)
    np.savez(tmp_path / "inputs.npz", **inputs)
    subprocess.run([sys.executable, "-c", SERVER, tmp_path], check=True, cwd=Path(__file__).parent)

    with np.load(tmp_path / "outputs.npz") as file:
        outputs = dict(file)
    for i in range(2):
        np.testing.assert_allclose(
            outputs[f"ys{i}"], run(inputs[f"tokens{i}"], inputs[f"lengths{i}"]), rtol=1e-5, atol=1e-6
        )
    tokens, state = jnp.asarray(inputs["tokens0"][0]), [jnp.zeros((3, size)) for size in (4, 4, 5)]
    for i in range(4):
        tokens, *state = step(tokens, jax.random.key_data(jax.random.key(i)), *state)
        np.testing.assert_array_equal(outputs["written"][i], tokens)
