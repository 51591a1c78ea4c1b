"""Batches, units or time steps spread over eight devices of the CPU: values, gradients, and what is sent."""

import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxrnn
from jaxrnn import native, sharding
from jaxrnn.engine.paths import recorded_choices
from tests.conftest import QUICK_FLAGS
from tests.registry import example
from tests.test_operation import needs_native


def run(program: str, *args: str) -> str:
    """What a program prints, run in a process of its own."""
    env = os.environ | {"XLA_FLAGS": QUICK_FLAGS, "PYTHONPATH": "."}
    done = subprocess.run([sys.executable, "-m", program, *args], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def found():
    """What `on_eight_devices.py` prints, by name: the error against one device, and collectives."""
    return json.loads(run("tests.on_eight_devices"))


@pytest.mark.exhaustive
def test_all_of_it_equals_one_device(found):
    """Values and gradients, without a state, with lengths and resets, in float64."""
    assert len(found) == (11 if native.obstacle() else 22)
    assert {name: f["error"] for name, f in found.items() if f["error"] > 1e-12} == {}


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["auto", "explicit", "shard_map"])
def test_data_parallel_training_sums_gradients_and_sends_nothing_else(found, kind):
    outside, inside = found[f"training, {kind}"]["outside"], found[f"training, {kind}"]["inside"]
    assert inside == {}
    assert outside.keys() == {"all-reduce"}
    assert outside["all-reduce"] <= 3  # one a dtype and one of the value, for all parameters of all cells


@needs_native
@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["auto", "two axes", "explicit", "shard_map"])
def test_every_device_has_kernels(found, kind):
    """Two a cell and no loop, and one sum of the gradients."""
    cells = found[f"native training, {kind}"]
    assert (cells["kernels"], cells["loops"], cells["inside"]) == (2 * 5, 0, {})
    assert cells["outside"].keys() == {"all-reduce"}
    assert cells["outside"]["all-reduce"] <= 3


@needs_native
@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["auto", "explicit", "shard_map"])
def test_every_device_has_kernels_of_other_derivatives(found, kind):
    others = found[f"derivatives, {kind}"]
    assert (others["kernels"], others["loops"]) == ((5, 0) if kind == "auto" else (8, 2))
    assert (others["outside"], others["inside"]) == ({"all-reduce": 1}, {})


@needs_native
@pytest.mark.exhaustive
def test_one_device_of_many_has_kernels(found):
    one, again = found["derivatives, one device"], found["back on one device"]
    assert (one["kernels"], one["loops"], one["outside"]) == (8, 2, {})
    assert (again["kernels"], again["loops"], again["outside"]) == (5, 0, {})
    assert found["LSTM(input_size=3, hidden_size=8, heads=4), 32 steps"]["kernels"] == 2


@pytest.mark.exhaustive
def test_a_cell_of_every_kind_equals_one_device():
    run("tests.on_eight_devices", "typical")


@pytest.mark.exhaustive
def test_a_solver_asks_all_devices_once_a_round(found):
    """Whether the rows of all have converged."""
    assert found["training by Newton, explicit"]["inside"] == {"all-reduce": 1}


@pytest.mark.exhaustive
def test_units_gather_their_state_once_a_step(found):
    assert found["LSTM(input_size=3, hidden_size=8)"]["inside"] == {
        "all-gather": 1,
        "reduce-scatter": 1,
    }  # forward, and backward


@pytest.mark.exhaustive
def test_units_inside_of_a_network_send_what_they_send_alone(found):
    inside, alone = found["SpreadUnits in a network"]["inside"], found["LSTM(input_size=3, hidden_size=8)"]["inside"]
    assert inside == alone


@pytest.mark.exhaustive
@pytest.mark.parametrize("way", ["", " by Newton"])
def test_heads_send_nothing_in_the_loop(found, way):
    assert found[f"LSTM(input_size=3, hidden_size=8, heads=4){way}"]["inside"] == {}


@pytest.mark.exhaustive
def test_time_is_joined_by_two_gathers(found):
    lru = found["LRU(scan='associative', input_size=3, hidden_size=4)"]
    assert lru["inside"] == {}
    assert lru["outside"]["all-gather"] == 2


def test_stretches_of_time_of_a_cell_whose_factors_do_not_see_its_input():
    """They are the same on all devices, while states are not: JAX refused the types."""
    cell, mesh = jaxrnn.LRU(3, 4), jax.make_mesh((1,), ("time",), axis_types=(AxisType.Auto,))
    params, xs, state = example(cell)
    run = functools.partial(sharding.unroll_time, cell, mesh=mesh, axis="time")
    np.testing.assert_allclose(run(params, xs, state)[1], jaxrnn.unroll(cell, params, xs, state)[1], rtol=1e-5)


@needs_native
def test_a_kernel_is_refused_where_devices_do_not_know_their_rows():
    cell = jaxrnn.Elman(4, 4)

    def traced(sizes, kind, xs=(None, "data"), params=(), shape=(64, 8, 4), run=jaxrnn.unroll, **options):
        kinds = kind if isinstance(kind, tuple) else (kind,) * len(sizes)
        mesh = AbstractMesh(sizes, ("data", "model")[: len(sizes)], axis_types=kinds)

        def at(a, spec):
            return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=NamedSharding(mesh, P(*spec)))

        given = jax.tree.map(lambda a: at(a, params), jax.eval_shape(cell.init, jax.random.key(0)))
        inputs = at(jax.ShapeDtypeStruct(shape, jnp.float32), xs)
        with jax.sharding.use_abstract_mesh(mesh), recorded_choices() as choices:
            jax.eval_shape(lambda params, xs: run(cell, params, xs, path="native", **options), given, inputs)
        return choices

    def rows(cell, params, xs, **options):
        return jax.vmap(lambda x: jaxrnn.unroll(cell, params, x, **options), 1, 1)(xs)

    def stretches(cell, params, xs, **options):
        run = jax.shard_map(
            lambda *args: jaxrnn.unroll(cell, *args, **options)[1],
            in_specs=(P(), P(None, "data")),
            out_specs=P(None, "data"),
            axis_names={"data"},
        )
        return run(params, xs)

    auto, explicit = AxisType.Auto, AxisType.Explicit
    for sizes, kind in (
        ((8,), auto),
        ((8, 1), auto),
        ((2, 4), auto),
        ((8,), explicit),
        ((2, 4), explicit),
        ((8, 1), (explicit, auto)),
        ((1, 8), (explicit, auto)),
        ((1, 1), (explicit, auto)),
    ):
        assert [choice.path for choice in traced(sizes, kind)] == ["native"]
    for sizes, kind, options, reason in (
        ((8,), auto, {"shape": (64, 6, 4), "xs": ()}, r"its batch axes \(6,\) are not one that 8 devices divide"),
        ((2, 4), auto, {"shape": (64, 4, 4)}, r"its batch axes \(4,\) are not one that 8 devices divide"),
        ((8,), auto, {"save": "boundaries"}, "every chunk would add up gradients"),
        ((2, 4), auto, {"run": stretches}, "of several kinds .'data': Manual, 'model': Auto"),
        ((8, 1), auto, {"run": stretches}, "of several kinds .'data': Manual, 'model': Auto"),
        ((2, 4), (explicit, auto), {}, "of several kinds .'data': Explicit, 'model': Auto"),
        ((8,), explicit, {"xs": ("data",)}, "spread by more than its rows: float32.64@data,8,4"),
        ((2, 4), explicit, {"params": ("model",)}, "spread by more than its rows"),
        ((8,), explicit, {"run": rows}, "`jax.vmap` goes along an axis"),
    ):
        with pytest.raises(ValueError, match=reason):
            traced(sizes, kind, **options)


def test_a_map_over_some_axes_of_a_mesh_trains_by_a_scan():
    """XLA divides over the others."""
    cell = jaxrnn.LSTM(3, 4)
    mesh = AbstractMesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)

    def loss(params, xs):
        run = jax.shard_map(
            lambda *args: jaxrnn.unroll(cell, *args)[1],
            in_specs=(P(), P(None, "data")),
            out_specs=P(None, "data"),
            axis_names={"data"},
        )
        return run(params, xs).sum()

    params, xs = jax.eval_shape(cell.init, jax.random.key(0)), jax.ShapeDtypeStruct((5, 6, 3), jnp.float32)
    with jax.sharding.use_abstract_mesh(mesh), recorded_choices() as choices:
        grads = jax.eval_shape(jax.grad(loss), params, xs)
    assert [choice.path for choice in choices] == ["scan"]
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)


def test_what_cannot_be_spread_is_refused():
    mesh, xs = jax.make_mesh((1,), ("model",)), jnp.ones((4, 2, 3))

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
