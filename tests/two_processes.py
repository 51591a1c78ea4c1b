"""A training run of two processes on one machine against the same run of one process.

    python -m tests.two_processes

Each process has half of the rows. They train with a carry that crosses windows, write checkpoints together, go on from
one, and one of them logs. Slow: an exhaustive case.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":  # and not where doctests are looked for
    os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxrnn
from jaxrnn import sharding, training

T, B, SIZE, HIDDEN = 12, 8, 3, 16


def work(rank: int, count: int, port: int, directory: str) -> None:
    if count > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", count, rank)
    mesh = jax.make_mesh((count,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    net = jaxrnn.Stack((jaxrnn.LSTM(SIZE, HIDDEN), jaxrnn.GRU(HIDDEN, SIZE)))
    rows = slice(rank * B // count, (rank + 1) * B // count)

    def loss_fn(params, carry, batch, key):
        carry, ys = jaxrnn.unroll(net, params, batch, carry)
        return jnp.mean((ys[:-1] - batch[1:]) ** 2), (carry, {})

    def batches(start):
        while True:
            batch = np.random.default_rng(start).normal(size=(T, B, SIZE)).astype(np.float32)
            yield sharding.spread(batch[:, rows], mesh, "data", at=1)
            start += 1

    optimizer = optax.adam(1e-2)

    def fresh(seed):
        state = training.init_state(jax.random.key(0), net.init(jax.random.key(seed)), optimizer)
        carry = sharding.spread(net.initial_state((B // count,)), mesh, "data")
        return sharding.replicate(state, mesh)._replace(carry=carry)

    step = training.make_train_step(loss_fn, optimizer)
    training.fit(fresh(0), step, batches, steps=3, directory=directory, log_every=1)
    state = training.restore(directory, fresh(1))
    state = training.fit(state, step, batches, steps=5, directory=directory, log_every=1)
    assert len(jax.tree.leaves(state.carry)[0].addressable_shards) == 1
    if rank == 0:
        np.savez(f"{directory}/params.npz", *[leaf.addressable_data(0) for leaf in jax.tree.leaves(state.params)])


def compare() -> None:
    """Run both, and the two processes' checkpoint in one process."""
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for count in (1, 2):
            directory = f"{folder}/{count}"
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                port = str(s.getsockname()[1])
            me = [sys.executable, "-m", "tests.two_processes"]
            processes = [
                subprocess.Popen([*me, str(rank), str(count), port, directory], stdout=subprocess.PIPE, text=True)
                for rank in range(count)
            ]
            said = [process.communicate(timeout=600)[0] for process in processes]
            assert not any(process.returncode for process in processes)
            assert ["loss" in text for text in said] == [rank == 0 for rank in range(count)], said
            lines = [json.loads(line) for line in Path(f"{directory}/metrics.jsonl").read_text().splitlines()]
            assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
            with np.load(f"{directory}/params.npz") as arrays:
                found[count] = [arrays[name] for name in arrays.files], np.array([line["loss"] for line in lines])
        for one, two in zip(jax.tree.leaves(found[1]), jax.tree.leaves(found[2]), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
        net = jaxrnn.Stack((jaxrnn.LSTM(SIZE, HIDDEN), jaxrnn.GRU(HIDDEN, SIZE)))
        params = training.restore_params(f"{folder}/2", net.init(jax.random.key(1)))
        for here, there in zip(jax.tree.leaves(params), found[2][0], strict=True):
            np.testing.assert_array_equal(here, there)
    print("two processes equal one")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        work(*map(int, sys.argv[1:4]), sys.argv[4])
    else:
        compare()
