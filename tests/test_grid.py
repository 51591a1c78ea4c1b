"""Recurrence over a plane: along one axis it is the LSTM, in four directions it is itself turned; one loop."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from bench.loops import innermost_loops
from jaxrnn import networks
from tests import reference
from tests.reference import grid
from tests.registry import B, example, rare, unrolled

CELL = jaxrnn.MDLSTM((4, 3), 2)
STABLE = jaxrnn.MDLSTM((9, 1), 2, stable=True)
ROWS = 5

close = functools.partial(chex.assert_trees_all_close, rtol=1e-12, atol=1e-12)


@pytest.fixture(params=["cpu", "gpu"])
def device(request, monkeypatch):
    """A plane runs row after row on a CPU, and by anti-diagonals, which a CPU can do as well, elsewhere."""
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)
    return request.param


def run(cell, *args, **options):
    return jax.jit(lambda *args: jaxrnn.unroll(cell, *args, **options))(*args)


def lstm(params, direction):
    """The gates i, f, g, o of one direction."""

    def pick(w):
        i, above, left, g, o = np.split(np.asarray(w), 5, axis=-1)
        return np.concatenate([i, (above, left)[direction], g, o], axis=-1)

    return jaxrnn.cells.LSTMParams(pick(params.w_x), pick(np.split(params.w_h, 2)[direction]), pick(params.b))


@pytest.mark.usefixtures("x64", "device")
def test_one_row_is_an_lstm_along_it():
    cell = jaxrnn.MDLSTM((6, 3), 2)
    params, xs, _ = example(cell, steps=1, dtype=jnp.float64)
    _, ys = run(cell, params, xs)
    _, want = unrolled(jaxrnn.LSTM(3, 2), lstm(params, 1), jnp.moveaxis(xs[0], -2, 0))
    close(jnp.moveaxis(ys[0], -2, 0), want)


@pytest.mark.usefixtures("x64", "device")
def test_one_column_is_an_lstm_down_it():
    cell = jaxrnn.MDLSTM((1, 3), 2)
    params, xs, state = example(cell, dtype=jnp.float64)
    _, ys = run(cell, params, xs, state)
    _, want = unrolled(
        jaxrnn.LSTM(3, 2), lstm(params, 0), xs[..., 0, :], jaxrnn.cells.LSTMState(state.h[:, 0], state.c[:, 0])
    )
    close(ys[..., 0, :], want)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("x64")
def test_four_directions_are_four_planes_turned():
    net = jaxrnn.Bidirectional(networks.Mirrored(CELL))
    assert net.output_size == (4, 8)
    params, xs, _ = example(net, dtype=jnp.float64)
    _, ys = unrolled(net, params, xs)
    turns = [(), (-2,), (0,), (0, -2)]
    each = [params.forward.forward, params.forward.backward, params.backward.forward, params.backward.backward]
    want = [jnp.flip(unrolled(CELL, p, jnp.flip(xs, axes))[1], axes) for p, axes in zip(each, turns, strict=True)]
    close(ys, jnp.concatenate(want, axis=-1))


@pytest.mark.parametrize("reverse", [False, *rare(True)])
@pytest.mark.usefixtures("x64", "device")
def test_planes_of_different_height_and_several_in_one(reverse):
    """Lengths and resets are of rows."""
    params, xs, state = example(CELL, batch=(4,), dtype=jnp.float64)
    options = {
        "lengths": np.array([5, 0, 3, 1]),
        "resets": np.random.default_rng(0).uniform(size=(ROWS, 4)) < 0.4,
        "reverse": reverse,
    }
    want = reference.unroll(grid.mdlstm, CELL, params, xs, state, **options)
    close(run(CELL, params, xs, state, **options), want)
    close(run(CELL, params, xs, state, **options, chunk=3, save="boundaries"), want)


@pytest.mark.parametrize("reverse", [False, *rare(True)])
@pytest.mark.usefixtures("x64")
def test_both_ways_have_the_same_derivatives(reverse, monkeypatch):
    params, xs, state = example(CELL, batch=(4,), dtype=jnp.float64)
    resets = jnp.asarray(np.random.default_rng(0).uniform(size=(ROWS, 4)) < 0.4)

    def derived():
        def loss(*args):
            final, ys = run(CELL, *args, lengths=jnp.array([5, 0, 3, 1]), resets=resets, reverse=reverse)
            return jnp.sum(jnp.sin(ys)) + jnp.sum(final.c**2)

        return jax.jit(jax.grad(loss, (0, 1, 2)))(params, xs, state)

    rows = derived()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    close(rows, derived())


@pytest.mark.parametrize("columns", [7, *rare(4)])  # fewer than rows, and more
@pytest.mark.usefixtures("device")
def test_what_is_beyond_the_rows_is_not_seen(columns):
    """NaN there, and in the state above a flagged row, stays out of values and gradients."""
    cell = jaxrnn.MDLSTM((columns, 3), 2)
    params, xs, state = example(cell)
    xs = xs.at[3:, 0].set(jnp.nan)
    state = jax.tree.map(lambda s: s.at[1].set(jnp.nan), state)
    resets = np.zeros((ROWS, B), bool)
    resets[0, 1] = True

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def loss(params, xs):
        final, ys = jaxrnn.unroll(cell, params, xs, state, lengths=np.array([3, 5]), resets=resets)
        return jnp.sum(ys) + jnp.sum(final.c)

    chex.assert_tree_all_finite(loss(params, xs))


def test_a_loop_has_the_recurrent_products_alone(device):
    """The product with the row above comes before a loop over places, and is in a loop over anti-diagonals."""
    args = example(CELL)

    def total(*args):
        return jnp.sum(jaxrnn.unroll(CELL, *args, path="scan", chunk=100 if device == "gpu" else None)[1])

    length, products = {"cpu": (4, 1), "gpu": (ROWS + 4 - 1, 2)}[device]
    for program, count in ((total, 1), (jax.grad(total), 2)):
        loops = innermost_loops(program, *args)
        assert [e.params["length"] for e, _ in loops] == [length] * count
        assert [sum(b.primitive.name == "dot_general" for b in body) for _, body in loops] == [products] * count


@pytest.mark.parametrize("path", ["auto", "native"])
def test_a_row_is_a_kernel(path):
    """Also in a call of one row, unless that is a part of another step."""
    cell = jaxrnn.MDRNN((3, 2), 4)
    kernel = f"{cell}: native"
    net = networks.Mirrored(cell)
    assert [str(choice) for choice in jaxrnn.explain(net, steps=4, batch=32, path=path)] == [kernel] * 2
    assert [str(choice) for choice in jaxrnn.explain(cell, steps=None, batch=2)] == [kernel]
    for inside in (cell, networks.Stepped(net)):
        asked = jaxrnn.explain(inside, steps=None, batch=2, path="scan")
        assert {choice[1:] for choice in asked} == {("scan", "asked for")}
    params, xs, state = example(cell)
    chex.assert_trees_all_close(cell(params, state, xs[0]), cell(params, state, xs[0], path="scan"), rtol=1e-5)


def test_a_call_is_traced_once(monkeypatch):
    """Outside of `jax.jit`, too, where a loop over places would be compiled anew at each call."""
    traces, place = [], jaxrnn.MDRNN.place
    monkeypatch.setattr(jaxrnn.MDRNN, "place", lambda *args: traces.append(1) or place(*args))
    cell = jaxrnn.MDRNN((5, 2), 3)
    params, xs, state = example(cell)
    for path in ("auto", "scan"):
        state, _ = cell(params, state, xs[0], path=path)
        before = len(traces)
        state, _ = cell(params, state, xs[1], path=path)
        assert len(traces) == before


def test_inputs_are_projected_row_by_row():
    """Not those of all rows before the first."""
    cell = jaxrnn.MDLSTM((8, 3), 32)
    params, xs, _ = jax.eval_shape(lambda: example(cell, steps=64, batch=(8,)))
    compiled = jax.jit(functools.partial(jaxrnn.unroll, cell)).lower(params, xs).compile()
    projected = 4 * 64 * 8 * 8 * 5 * 32
    assert compiled.memory_analysis().temp_size_in_bytes < projected / 2


@pytest.mark.usefixtures("device")
def test_a_state_keeps_its_dtypes():
    params, xs, state = example(CELL)
    state = state._replace(h=state.h.astype(jnp.bfloat16))
    with jax.numpy_dtype_promotion("standard"):
        finals = run(CELL, params, xs, state)[0], jax.eval_shape(CELL, params, state, xs[0])[0]
    for final in finals:
        assert [leaf.dtype for leaf in final] == [jnp.bfloat16, jnp.float32]


@pytest.mark.exhaustive
def test_boundaries_bound_the_memory_of_planes():
    """States of a few rows in place of all; also where a row is a kernel."""
    cell = jaxrnn.MDRNN((8, 3), 32)

    def memory(**options):
        def loss(params, xs):
            return jnp.sum(jaxrnn.unroll(cell, params, xs, **options)[1])

        params, xs, _ = jax.eval_shape(lambda: example(cell, steps=256, batch=(8,)))
        return jax.jit(jax.grad(loss)).lower(params, xs).compile().memory_analysis().temp_size_in_bytes

    for path in ("scan", "native"):
        assert memory(path=path, save="boundaries", chunk=16) < 0.5 * memory(path=path, save="states")


def test_newton_along_a_row():
    params, xs, state = example(CELL)
    solved = run(CELL, params, xs, state, solver=jaxrnn.Newton())
    chex.assert_trees_all_close(solved, run(CELL, params, xs, state), rtol=1e-5, atol=1e-6)


def test_elsewhere_planes_take_the_scan_and_say_so(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    cell = jaxrnn.MDRNN((3, 2), 4)
    assert jaxrnn.explain(cell, steps=4) == ((cell, "scan", "on this device a loop runs over the anti-diagonals"),)


def test_parameter_counts():
    def size(cell):
        return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(cell.init, jax.random.key(0))))

    assert size(CELL) == 5 * 2 * (3 + 2 * 2 + 1)
    assert size(jaxrnn.MDRNN((4, 3), 2)) == 2 * (3 + 2 * 2 + 1)
    assert size(networks.Mirrored(CELL)) == 2 * size(CELL)


def test_no_rows():
    params, xs, state = example(CELL)
    final, ys = unrolled(CELL, params, xs[:0], state)
    assert ys.shape == (0, B, 4, 2)
    chex.assert_trees_all_equal(final, state)


def test_wrong_sizes():
    with pytest.raises(ValueError, match=r"input_size: got 3, needs \(columns, values at a place\)"):
        jaxrnn.MDLSTM(3, 4)
    with pytest.raises(ValueError, match="columns: got 0, needs a positive integer"):
        jaxrnn.MDRNN((0, 3), 4)
    with pytest.raises(ValueError, match=r"cell: got LSTM\(.*\) of the size 3, needs \(columns, values at a place\)"):
        networks.Mirrored(jaxrnn.LSTM(3, 4))
    with pytest.raises(TypeError, match=r"cell: got str, needs a jaxrnn\.Cell"):
        networks.Mirrored("MDLSTM")


@pytest.mark.exhaustive
def test_a_stable_memory_stays_within_what_it_saw():
    """Where a plain one grows with the number of ways through the plane; also where every forget gate is shut."""

    @functools.partial(jax.jit, static_argnums=0)
    def slopes_and_state(cell, params):
        def loss(params):
            state, ys = jaxrnn.unroll(cell, params, jnp.ones((9, 1, 9, 1)))
            return jnp.sum(ys), state

        return jax.grad(loss, has_aux=True)(params)

    for cell, bias in ((STABLE, 3.0), (STABLE, -200.0), (jaxrnn.MDLSTM((9, 1), 2), 3.0)):
        params = jax.jit(functools.partial(cell.init, forget_bias=bias))(jax.random.key(0))
        params = params._replace(w_h=jnp.zeros_like(params.w_h))
        slopes, state = slopes_and_state(cell, params)
        chex.assert_tree_all_finite(slopes)
        assert (np.max(np.abs(state.c)) <= 1.0) == cell.stable
