"""The laws of the cell protocol, run over every cell of the registry."""

import copy
import dataclasses
import functools
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jaxrnn
from tests.cells import Token
from tests.registry import CELLS, FEW, NETWORKS, B, Entry, T, draw, example, expensive, name, unrolled

every_cell = pytest.mark.parametrize("entry", CELLS, ids=name)
every_network = pytest.mark.parametrize("entry", CELLS + NETWORKS, ids=name)
# Of laws that take seconds a cell; `-m exhaustive` has the others.
typical_cells = pytest.mark.parametrize("entry", expensive([e for e in CELLS if isinstance(e.cell, jaxrnn.Cell)]))
few_cells = pytest.mark.parametrize("entry", expensive(CELLS, FEW))
few_networks = pytest.mark.parametrize("entry", expensive(CELLS + NETWORKS, FEW))

close = functools.partial(chex.assert_trees_all_close, rtol=1e-12, atol=1e-12)


@every_network
def test_values_are_those_of_the_equations(entry: Entry):
    """In float64, over two batch axes."""
    check_values(entry, jnp.float64, (2, 4), 1e-12)


@few_networks
def test_values_in_float32_are_those_of_the_equations(entry: Entry):
    """Over one batch axis."""
    check_values(entry, jnp.float32, (B,), 1e-6)


def check_values(entry, dtype, batch, tolerance):
    """Those of a cell are those of its reference."""
    with jax.enable_x64(dtype == jnp.float64):
        params, xs, state = example(entry.cell, batch=batch, dtype=dtype)
        for path in ("auto", "scan"):
            final, ys = unrolled(entry.cell, params, xs, state, path=path)
            assert ys.dtype == dtype
            chex.assert_trees_all_equal_shapes_and_dtypes(final, state)
            rows = jax.tree.map(lambda a: np.asarray(a).reshape(T, -1, *a.shape[1 + len(batch) :]), (xs, ys))
            states = jax.tree.map(lambda a: np.asarray(a).reshape(-1, *a.shape[len(batch) :]), (state, final))
            expected_final, expected_ys = entry.reference(params, rows[0], states[0])
            np.testing.assert_allclose(rows[1], expected_ys, rtol=tolerance, atol=tolerance)
            chex.assert_trees_all_close(states[1], expected_final, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("entry", expensive(NETWORKS))
@pytest.mark.usefixtures("x64")
def test_derivatives_are_those_of_finite_differences(entry: Entry):
    """Those of the cells, which have single steps, are in `test_unroll.py`."""
    params, xs, state = example(entry.cell, dtype=jnp.float64)
    leaves, tree = jax.tree.flatten((params, xs, state))
    real = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    @jax.jit
    def outputs(moved):
        moved = iter(moved)
        args = jax.tree.unflatten(tree, [next(moved) if r else leaf for r, leaf in zip(real, leaves, strict=True)])
        return [a for a in jax.tree.leaves(jaxrnn.unroll(entry.cell, *args)) if jnp.issubdtype(a.dtype, jnp.floating)]

    moved = [leaf for r, leaf in zip(real, leaves, strict=True) if r]
    check_grads(outputs, (moved,), order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("x64")
def test_second_derivatives_are_those_of_finite_differences():
    """Forward and reverse mode over the gradient."""
    cell = jaxrnn.VanillaLSTM(3, 4)
    params, xs, state = example(cell, steps=3, dtype=jnp.float64)

    @jax.jit
    @jax.grad
    def gradient(args):
        return jnp.sum(jaxrnn.unroll(cell, *args)[1] ** 2)

    check_grads(gradient, ((params, xs, state),), order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)


@every_cell
@pytest.mark.parametrize(
    "dtypes", ["bf16 f32", *(pytest.param(dtypes, marks=pytest.mark.exhaustive) for dtypes in ("bf16 bf16", "f32 f64"))]
)
def test_step_keeps_structure_shapes_and_dtypes_of_the_state(entry: Entry, dtypes):
    """Dtypes of the parameters and input, and of the state; where all are one, the test of the values sees it."""
    named = {"f32": jnp.float32, "bf16": jnp.bfloat16, "f64": jnp.float64}
    compute, kept = (named[d] for d in dtypes.split())
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        params, xs, _ = jax.eval_shape(lambda: example(entry.cell, dtype=compute))
        state = jax.eval_shape(lambda: entry.cell.initial_state((B,), kept))
        x = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), xs)
        shape = entry.cell.output_spec.shape
        new, y = jax.eval_shape(entry.cell, params, state, x)
        chex.assert_trees_all_equal_structs(new, state)
        chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
        assert (y.dtype, y.shape) == (compute, (B, *shape))
        final, ys = jax.eval_shape(functools.partial(jaxrnn.unroll, entry.cell), params, xs, state)
        chex.assert_trees_all_equal_shapes_and_dtypes(final, new)
        assert (ys.dtype, ys.shape) == (compute, (T, B, *shape))


@typical_cells
@pytest.mark.usefixtures("x64")
def test_project_and_readout_act_on_each_leading_index_alone(entry: Entry):
    """As `vmap` over the leading axes does, which cannot mix them."""
    cell = entry.cell
    params, xs, state = example(cell, dtype=jnp.float64)
    states = jax.tree.map(lambda s: np.broadcast_to(s, (T, *s.shape)), state)

    @jax.jit
    def both(params, xs, states):
        drives = cell.project(params, xs)
        outputs = jax.vmap(cell.step, in_axes=(None, 0, 0))(params, states, drives)[1]
        project = jax.vmap(jax.vmap(functools.partial(cell.project, params)))
        readout = jax.vmap(jax.vmap(functools.partial(cell.readout, params)))
        return (drives, cell.readout(params, outputs, drives)), (project(xs), readout(outputs, drives))

    close(*both(params, xs, states))


@few_cells
@pytest.mark.usefixtures("x64")
def test_unroll_is_the_loop_of_single_calls(entry: Entry):
    """A loop of T, and of one, in which some rows begin anew."""
    params, xs, state = example(entry.cell, batch=(2, 4), dtype=jnp.float64)
    resets = np.arange(T * 8).reshape(T, 2, 4) % 3 == 1
    final, ys = unrolled(entry.cell, params, xs, state, resets=resets)
    call = jax.jit(entry.cell)
    for t in range(T):
        before = state
        state, y = call(params, state, jax.tree.map(lambda x, t=t: np.asarray(x)[t], xs), reset=resets[t])
        close(y, ys[t])
    close(state, final)
    last = unrolled(entry.cell, params, jax.tree.map(lambda x: x[-1:], xs), before, resets=resets[-1:])
    close(last, (state, y[None]))


@few_networks
@pytest.mark.usefixtures("x64")
def test_batch_axes_are_vmap(entry: Entry):
    """None and two leading batch axes; the test of the values has one, and two."""
    params, xs, state = example(entry.cell, batch=(2, 4), dtype=jnp.float64)

    def mapped(batched):
        return jax.vmap(batched, (1, 0), (0, 1))

    @jax.jit
    def rowwise(params, xs, state):
        return mapped(mapped(functools.partial(jaxrnn.unroll, entry.cell, params)))(xs, state)

    close(rowwise(params, xs, state), unrolled(entry.cell, params, xs, state))


def rebuilt(value):
    """A cell made again from its fields, the cells in it too."""
    if isinstance(value, jaxrnn.Layer):
        return type(value)(**{f.name: rebuilt(getattr(value, f.name)) for f in dataclasses.fields(value)})
    return tuple(map(rebuilt, value)) if isinstance(value, tuple) else value


@every_network
def test_no_array_stands_for_two(entry: Entry):
    """Neither in the parameters nor in the state: each may be donated, and a buffer be donated once alone."""
    for made in (lambda: entry.cell.init(jax.random.key(0)), lambda: entry.cell.initial_state((B,))):
        leaves = jax.make_jaxpr(made)().jaxpr.outvars
        assert len(set(leaves)) == len(leaves)


@every_network
def test_a_cell_is_a_value(entry: Entry):
    """It compares, hashes and prints by its fields, cannot be changed, and equal ones share a compilation."""
    cell, twin = entry.cell, rebuilt(entry.cell)
    assert twin is not cell
    assert twin == cell
    assert hash(twin) == hash(cell)
    assert repr(twin) == repr(cell)
    assert pickle.loads(pickle.dumps(cell)) == copy.deepcopy(cell) == copy.copy(cell) == cell
    with pytest.raises(dataclasses.FrozenInstanceError):
        cell.surprise = 1
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def initial(cell):
        traces.append(cell)
        return cell.initial_state((1,))

    initial.trace(cell), initial.trace(twin)
    assert len(traces) == 1


def test_every_cell_is_another_value():
    cells = [entry.cell for entry in CELLS + NETWORKS]
    assert len(set(cells)) == len(set(map(repr, cells))) == len(cells)


@few_cells
def test_a_call_is_pure_and_finite(entry: Entry):
    """No effects in the trace, and values as well as gradients stay finite for inputs that saturate every gate."""
    params, xs, state = example(entry.cell)
    assert not unrolled.trace(entry.cell, params, xs, state).jaxpr.effects
    params = draw(3, params, jnp.float32, 30.0)

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        return jnp.sum(entry.cell(params, state, jax.tree.map(lambda x: x[0], xs))[1])

    chex.assert_tree_all_finite(loss(params))


def test_a_cell_may_print_as_its_author_likes():
    @dataclasses.dataclass(frozen=True)
    class Named(Token):
        def __repr__(self):
            return "a cell with a name"

    assert repr(Named(3, 4)) == "a cell with a name"
