"""Guards of the one idea: what a loop contains, carries and keeps is counted; every count tells a plain scan."""

import functools
import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import pytest
from jax import lax

import jaxrnn
from bench.loops import carried, equations, innermost_loops, products
from jaxrnn.engine.linearize import linearize
from tests.registry import example, in_loops, rare

LSTM, GRU, ELMAN = jaxrnn.LSTM(3, 4), jaxrnn.GRU(3, 4), jaxrnn.Elman(3, 4)


def scanned(cell, params, xs, state):
    """The peers' way, which every count here must tell from ours: a scan over whole cells."""
    return lax.scan(functools.partial(cell, params, path="scan"), state, xs)


def gradient(run, cell, **options):
    def loss(*args):
        leaves = jax.tree.leaves(run(cell, *args))
        return sum(jnp.sum(jnp.real(leaf)) for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact))

    return jax.grad(loss, (0, 1, 2), **options)


def carried_shapes(fn, *args):
    """Shapes that each innermost loop carries."""
    return [{v.aval.shape for v in carried(loop)} for loop, _ in innermost_loops(fn, *args)]


@pytest.mark.parametrize(
    ("cell", "ours", "theirs"),
    [
        (LSTM, 1, 2),
        (jaxrnn.GRU(3, 4, reset="before"), 2, 3),
        (jaxrnn.Projected(LSTM, 2), 2, 3),
        (jaxrnn.MinGRU(3, 4), 0, 1),
        *rare(
            (GRU, 1, 2),
            (ELMAN, 1, 2),
            (jaxrnn.LayerNormLSTM(3, 4), 1, 2),
            (jaxrnn.VanillaLSTM(3, 4, peephole="full"), 3, 4),
            (jaxrnn.Projected(LSTM, 2, nonrecurrent_size=3), 2, 4),
            (jaxrnn.SRU(3, 4), 0, 1),
            (jaxrnn.VanillaLSTM(3, 4, gate_recurrence=True), 2, 3),
            (jaxrnn.MUT(4, 4, 2), 2, 3),
            (jaxrnn.MGU(3, 4), 2, 3),
            (jaxrnn.Multiplicative(LSTM), 2, 4),
            (jaxrnn.NestedLSTM(3, 4), 3, 4),
            (jaxrnn.UGRNN(3, 4), 1, 2),
            (jaxrnn.MuFuRu(3, 4), 2, 3),
            (jaxrnn.LSTM(3, 4, heads=2), 2, 3),
        ),
    ],
    ids=lambda value: repr(value),
)
def test_only_recurrent_products_are_in_the_loops(cell, ours, theirs):
    """Forward, and backward: the scan's own backward adds the products of the parameter gradients too."""
    args = example(cell)
    for chunk in (2, 5):
        unroll = functools.partial(in_loops, chunk=chunk)
        assert set(products(functools.partial(unroll, cell), *args)) == {ours}
        assert set(products(gradient(unroll, cell), *args)) == {ours}
    assert set(products(functools.partial(scanned, cell), *args)) == {theirs}
    assert max(products(gradient(scanned, cell), *args)) == 2 * theirs


@pytest.mark.parametrize("options", ["lengths", "resets", "reverse"])
def test_options_stay_on_the_fast_path(options):
    args = example(LSTM)
    given = {"lengths": jnp.array([5, 3]), "resets": jnp.zeros((5, 2), bool), "reverse": True}
    unroll = functools.partial(in_loops, **{options: given[options]})
    assert set(products(gradient(unroll, LSTM), *args)) == {1}


@pytest.mark.parametrize("cell", [LSTM, GRU, ELMAN], ids=repr)
def test_no_loop_carries_parameters(cell):
    """The backward loop carries the state's cotangent; a scan's carries the gradients of all parameters."""
    args = example(cell)
    shapes = {leaf.shape for leaf in jax.tree.leaves(args[0])}
    assert not set.union(*carried_shapes(gradient(in_loops, cell), *args)) & shapes
    assert set.union(*carried_shapes(gradient(scanned, cell), *args)) >= shapes


def test_a_step_writes_its_state_at_once():
    """h and c in one array forward, and their cotangents in one backward; a scan writes each, and what it keeps."""
    args = example(LSTM)

    def written(unroll):
        return [len(loop.outvars) - len(carried(loop)) for loop, _ in innermost_loops(gradient(unroll, LSTM), *args)]

    assert written(in_loops) == [1, 1]
    assert max(written(scanned)) > 2


def test_layers_of_a_stack_are_hoisted_one_by_one():
    """One product a loop, two layers: stepped as one cell it takes three in one loop."""
    net = jaxrnn.Stack((LSTM, jaxrnn.GRU(4, 4)))
    args = example(net)
    assert products(functools.partial(in_loops, net), *args) == [1, 1]
    assert products(functools.partial(scanned, net), *args) == [4]


def test_one_trace_serves_all_values():
    """Of lengths, resets, inputs and parameters; another shape is another trace."""
    traces = []

    @jax.jit
    def run(params, xs, lengths):
        traces.append(xs.shape)
        return in_loops(LSTM, params, xs, lengths=lengths)

    for seed in range(3):
        params = LSTM.init(jax.random.key(seed))
        run(params, jnp.full((5, 2, 3), seed, jnp.float32), jnp.array([seed, 5 - seed]))
    assert len(traces) == 1
    run(params, jnp.ones((6, 2, 3)), jnp.array([1, 2]))
    assert len(traces) == 2


def test_a_step_of_training_compiles_once_for_equal_cells():
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def step(cell, params, xs):
        traces.append(cell)
        return jax.grad(lambda p: jnp.sum(in_loops(cell, p, xs)[1]))(params)

    params, xs, _ = example(GRU)
    step(jaxrnn.GRU(3, 4), params, xs)
    step(jaxrnn.GRU(3, 4), params, xs)
    assert len(traces) == 1
    step(jaxrnn.GRU(3, 4, activation=jax.nn.relu), params, xs)
    assert len(traces) == 2


@pytest.mark.parametrize("path", ["scan", *rare("auto")])
@pytest.mark.parametrize(
    "cell", [LSTM, jaxrnn.networks.Orthogonal(jaxrnn.ModReLU(3, 4)), *rare(jaxrnn.MLSTM(3, 4), jaxrnn.MDRNN((2, 3), 4))]
)
def test_outside_of_jit_derivatives_compile_once(cell, path, caplog):
    """And so do single calls; those of a `lax.scan` over a function made anew compile at every call."""

    def call(params, xs, state):
        return cell(params, state, xs[0])

    args = example(cell, steps=4)
    run = gradient(functools.partial(jaxrnn.unroll, path=path), cell)
    for again, programs in ((False, (run, call)), (True, (gradient(scanned, cell),))):
        for program in programs:
            program(*args)
            with jax.log_compiles():
                caplog.clear()
                program(*args)
            assert ("Compiling" in caplog.text) == again


def test_outside_of_jit_nothing_is_moved_to_the_device():
    params, xs, state = example(LSTM)
    for given in ((), (state,)):
        want = jaxrnn.unroll(LSTM, params, xs, *given)
        with jax.transfer_guard("disallow"):
            again = jaxrnn.unroll(LSTM, params, xs, *given)
        chex.assert_trees_all_equal(again, want)


def compiled(run, cell, steps, batch):
    shapes = jax.eval_shape(lambda: example_like(cell, steps, batch))
    return jax.jit(gradient(run, cell)).lower(*shapes).compile()


def example_like(cell, steps, batch):
    return cell.init(jax.random.key(0)), jnp.zeros((steps, batch, cell.input_size)), cell.initial_state((batch,))


def temporary_bytes(run, cell, steps, batch):
    return compiled(run, cell, steps, batch).memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("kind", rare(jaxrnn.LSTM, jaxrnn.GRU), ids=lambda kind: kind.__name__)
def test_a_training_step_needs_less_memory_than_a_plain_scan(kind):
    cell = kind(64, 128)
    plain = temporary_bytes(scanned, cell, 128, 32)

    def share(**options):
        return temporary_bytes(functools.partial(jaxrnn.unroll, **options), cell, 128, 32) / plain

    assert share(path="scan") < 0.45
    assert share(save="states") < 0.45
    assert share() < 0.95


@pytest.mark.exhaustive
def test_saving_boundaries_alone_takes_memory_by_the_chunk():
    """A row of states a chunk, where "states" takes one a step."""

    def grown(save):
        run = functools.partial(in_loops, save=save, chunk=64)
        return temporary_bytes(run, LSTM, 1024, 8) - temporary_bytes(run, LSTM, 256, 8)

    assert grown("boundaries") * 64 < 1.1 * grown("states")


def test_residuals_that_are_kept_are_not_computed_again():
    """Not the input's product, which "states" makes again, nor the states' run, which "boundaries" does too."""

    def made(save):
        program = jax.make_jaxpr(gradient(functools.partial(in_loops, save=save), LSTM))(*example(LSTM))
        return sum(e.primitive.name == "dot_general" for e in equations(program.jaxpr))

    assert made("residuals") < made("states") < made("boundaries")


@pytest.mark.exhaustive
def test_residuals_may_be_complex():
    """The gradient is that of a plain scan."""
    cell = jaxrnn.S5(3, 4)
    runs = functools.partial(in_loops, save="residuals"), scanned

    @jax.jit
    def both(*args):
        return [jax.grad(lambda params, run=run: jnp.sum(run(cell, params, *args[1:])[1]))(args[0]) for run in runs]

    chex.assert_trees_all_close(*both(*example(cell)), rtol=1e-4, atol=1e-5)


@pytest.mark.exhaustive
def test_memory_and_work_grow_linearly_with_time():
    """From T to 2T to 4T: each doubling adds no more than twice what the one before added.

    The compiler counts the work of a loop's body once, whatever the number of rounds, so that the work counted is
    that of the products outside of the loops, chunk by chunk; within one chunk it is the sequence's.
    """
    bytes_, flops = [], []
    for steps in (128, 256, 512):
        bytes_.append(temporary_bytes(in_loops, LSTM, steps, 8))
        one_chunk = functools.partial(in_loops, chunk=steps)
        flops.append(compiled(one_chunk, LSTM, steps, 8).cost_analysis()["flops"])
    for a, b, c in (bytes_, flops):
        assert b > a
        assert c - b <= 2.2 * (b - a)

    def quadratic(cell, params, xs, state):
        final, ys = scanned(cell, params, xs, state)
        return final, jnp.tensordot(jnp.tensordot(ys, ys, ((1, 2), (1, 2))), ys, 1)

    a, b, c = (temporary_bytes(quadratic, LSTM, steps, 8) for steps in (128, 256, 512))
    assert c - b > 2.2 * (b - a)


@pytest.mark.exhaustive
def test_import_needs_jax_alone():
    """Neither Flax nor Optax; what does import Flax is seen."""
    show = "import sys; print([m for m in ('flax', 'optax', 'orbax', 'rich') if m in sys.modules])"

    def loaded(code):
        return subprocess.run(
            [sys.executable, "-c", f"{code}; {show}"], capture_output=True, text=True, check=True
        ).stdout

    assert loaded("import jaxrnn").strip() == "[]"
    assert "flax" in loaded("import flax.core")


@pytest.mark.exhaustive
def test_a_batch_spread_over_two_devices_is_not_gathered():
    program = """
import jax, jax.numpy as jnp, jaxrnn
from jax.sharding import AxisType, NamedSharding, PartitionSpec
mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
cell = jaxrnn.LSTM(8, 16)
params = cell.init(jax.random.key(0))
xs = jax.device_put(jnp.ones((6, 4, 8)), NamedSharding(mesh, PartitionSpec(None, "data")))
loss = lambda params, xs: jnp.sum(jaxrnn.unroll(cell, params, xs, chunk=3, path="scan")[1] ** 2)
text = jax.jit(jax.grad(loss, (0, 1))).lower(params, xs).compile().as_text()
print("all-reduce" in text, "all-gather" in text)
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | flags)
    assert run.stdout.split() == ["True", "False"], run.stderr


def test_the_linear_program_of_an_lstm_reads_six_arrays_a_step():
    """Products of known arrays are taken ahead of the loop: `jax.linearize` alone would keep fourteen."""
    params, xs, state = example(LSTM)
    states = jax.tree.map(lambda s: jnp.broadcast_to(s, (5, *s.shape)), state)
    coefficients, _ = linearize(LSTM.step, params, states, LSTM.project(params, xs))
    assert len(coefficients) == 6


def test_a_policy_of_the_users_keeps_more_than_the_states():
    """With the input's product kept, it is not computed again."""

    def count(save):
        program = jax.make_jaxpr(gradient(functools.partial(in_loops, save=save), LSTM))(*example(LSTM))
        return sum(e.primitive.name == "dot_general" for e in equations(program.jaxpr))

    assert count("states") - count(jax.checkpoint_policies.dots_saveable) == 1
    reason = "a kernel has no values for a checkpoint policy"
    assert jaxrnn.explain(LSTM, steps=64, save=jax.checkpoint_policies.dots_saveable)[0].reason == reason


@pytest.mark.parametrize("cell", [LSTM, GRU], ids=repr)
def test_the_backward_loop_multiplies_by_a_transposed_weight(cell):
    """Its products contract the first axis of a matrix, which takes two thirds of the time on a CPU."""
    backward = innermost_loops(gradient(in_loops, cell), *example(cell))[-1][1]
    contracted = [e.params["dimension_numbers"] for e in backward if e.primitive.name == "dot_general"]
    assert contracted == [(((1,), (0,)), ((), ()))]


@pytest.mark.parametrize("cell", [LSTM, jaxrnn.LRU(3, 4), jaxrnn.S5(3, 4)], ids=lambda cell: type(cell).__name__)
def test_states_are_saved_complex_ones_too(cell):
    """One loop forward and one backward; states that were not saved would be computed by a third."""
    grad = jax.grad(lambda *args: jnp.sum(in_loops(cell, *args)[1]))
    assert len(innermost_loops(grad, *example(cell))) == 2
