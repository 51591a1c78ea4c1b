"""Batches, units or time steps spread over eight devices of the CPU: values, gradients, and what is sent."""

import json
import os
import subprocess
import sys

import jax
import pytest

import jaxrnn
from jaxrnn import sharding
from tests.conftest import QUICK_FLAGS


def run(program: str) -> str:
    """What a program prints, run in a process of its own."""
    env = os.environ | {"XLA_FLAGS": QUICK_FLAGS, "PYTHONPATH": "."}
    done = subprocess.run([sys.executable, "-m", program], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def found():
    """What `on_eight_devices.py` prints, by name: the error against one device, and collectives."""
    return json.loads(run("tests.on_eight_devices"))


@pytest.mark.exhaustive
def test_all_of_it_equals_one_device(found):
    """Values and gradients, without a state, with lengths and resets, in float64."""
    assert len(found) == 8
    assert {name: f["error"] for name, f in found.items() if f["error"] > 1e-10} == {}


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["auto", "explicit", "shard_map"])
def test_data_parallel_training_sums_gradients_and_sends_nothing_else(found, kind):
    outside, inside = found[f"training, {kind}"]["outside"], found[f"training, {kind}"]["inside"]
    assert inside == {}
    assert outside.keys() == {"all-reduce"}
    assert outside["all-reduce"] <= 3  # one a dtype and one of the value, for all parameters of all cells


@pytest.mark.exhaustive
def test_units_gather_their_state_once_a_step(found):
    assert found["LSTM(input_size=3, hidden_size=8)"]["inside"] == {
        "all-gather": 1,
        "reduce-scatter": 1,
    }  # forward, and backward


@pytest.mark.exhaustive
@pytest.mark.parametrize("way", ["", " by Newton"])
def test_heads_send_nothing_in_the_loop(found, way):
    assert found[f"LSTM(input_size=3, hidden_size=8, heads=4){way}"]["inside"] == {}


@pytest.mark.exhaustive
def test_time_is_joined_by_two_gathers(found):
    lru = found["LRU(scan='associative', input_size=3, hidden_size=4)"]
    assert lru["inside"] == {}
    assert lru["outside"]["all-gather"] == 2


def test_what_cannot_be_spread_is_refused():
    mesh, xs = jax.make_mesh((1,), ("model",)), jax.numpy.ones((4, 2, 3))

    def units(cell, axis="model"):
        return sharding.split_units(cell, cell.init(jax.random.key(0)), mesh, axis)

    with pytest.raises(TypeError, match=r"cell: got LayerNormLSTM.*needs one whose hidden units are alike"):
        units(jaxrnn.LayerNormLSTM(3, 4))
    with pytest.raises(ValueError, match="axis: got 'data', needs one of"):
        units(jaxrnn.GRU(3, 4), "data")
    with pytest.raises(ValueError, match="batch: got 'data', needs one of"):
        sharding.unroll_time(jaxrnn.LRU(3, 4), (), xs, mesh=mesh, axis="model", batch="data")
    split, solver = units(jaxrnn.GRU(3, 4)), jaxrnn.Newton()
    with pytest.raises(ValueError, match=r"solver: got Newton.*of GRU.*sees those on other devices, needs heads"):
        sharding.unroll_units(jaxrnn.GRU(3, 4), split, xs, mesh=mesh, axis="model", solver=solver)
    with pytest.raises(TypeError, match=r"cell: got GRU, needs a jaxrnn\.LinearCell"):
        sharding.unroll_time(jaxrnn.GRU(3, 4), (), xs, mesh=mesh, axis="model")


@pytest.mark.exhaustive
def test_training_by_two_processes():
    """It equals that of one; checkpoints, too."""
    run("tests.two_processes")
