"""What users run: programs compiled as by default, where the rest of the suite has little optimized.

A compiler's fault shows at some sizes only, so gradients are compared over sizes that nobody would choose.
"""

import dataclasses
import functools
import itertools
import os

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from bench.loops import innermost_loops
from jaxrnn.jaxprs import any_equation
from tests.registry import CELLS, FEW, NETWORKS, T, example, expensive, in_loops, rare
from tests.test_guards import gradient, scanned

pytestmark = pytest.mark.usefixtures("optimized")

# Pairs of rows and units, each in 1..9, that every kind of cell is tried at: `JAXRNN_SWEEP=81` tries them all, in some
# hours. Without it, the cells that a compiler's fault was seen in are tried at the sizes where it was.
SWEEP = int(os.environ.get("JAXRNN_SWEEP", "0"))
SEEN = ("GRU", "MGU", "UGRNN", "LEM", "Highway", "MUT", "LayerNormGRU")
PAIRS = list(itertools.product(range(1, 10), repeat=2))


def resized(cell: jaxrnn.Cell, hidden_size: int) -> jaxrnn.Cell | None:
    """The cell with other sizes, where it has fields of these names and they allow it."""
    names = {f.name for f in dataclasses.fields(cell)}
    if not {"input_size", "hidden_size"} <= names or not isinstance(cell.input_size, int):
        return None
    input_size = hidden_size if cell.input_size == cell.hidden_size else cell.input_size
    try:
        return dataclasses.replace(cell, hidden_size=hidden_size, input_size=input_size)
    except ValueError:
        return None


def cases() -> list[tuple[jaxrnn.Cell, int]]:
    """Cells of the registry in other sizes, and numbers of rows."""
    if not SWEEP:
        cells = {type(entry.cell).__name__: entry.cell for entry in reversed(CELLS)}
        return [(resized(cells[name], 5), 4) for name in SEEN]
    rng = np.random.default_rng(0)
    sized = [(resized(e.cell, h), rows) for e in CELLS for rows, h in rng.permutation(PAIRS)[:SWEEP].tolist()]
    return [(cell, rows) for cell, rows in sized if cell is not None]


@pytest.mark.parametrize("dtype", [jnp.float32, *rare(jnp.float64)], ids=["f32", "f64"])
@pytest.mark.parametrize(("cell", "rows"), [cases()[0], *rare(*cases()[1:])], ids=repr)
def test_gradients_are_those_of_a_scan_at_any_size(optimized, cell, rows, dtype):
    with jax.enable_x64(dtype == jnp.float64):
        args = example(cell, batch=(rows,), dtype=dtype)

        @functools.partial(jax.jit, compiler_options=optimized)
        def both(*args):
            return [gradient(run, cell, allow_int=True)(*args) for run in (jaxrnn.unroll, scanned)]

        for ours, theirs in zip(*map(jax.tree.leaves, both(*args)), strict=True):
            if theirs.dtype != jax.dtypes.float0:
                scale = max(1.0, float(np.max(np.abs(theirs))))
                np.testing.assert_allclose(ours / scale, theirs / scale, rtol=0, atol=4e3 * np.finfo(dtype).eps)


@pytest.mark.parametrize("reset", ["after", "before"])
@pytest.mark.usefixtures("x64")
def test_the_backward_loop_joins_nothing(reset):
    """XLA's CPU compiler up to jaxlib 0.10.2 fills a join in a loop with wrong values on some CPUs (AVX-512).

    Where this was seen, in the gradients of a GRU of 5 units and 4 rows, they were off by half.
    """
    cell = jaxrnn.GRU(3, 5, reset=reset)
    args = example(cell, batch=(4,), dtype=jnp.float64)
    backward = innermost_loops(gradient(in_loops, cell), *args)[-1][1]
    assert "concatenate" not in {e.primitive.name for e in backward}
    assert "concatenate" in {e.primitive.name for e in innermost_loops(gradient(scanned, cell), *args)[-1][1]}


@pytest.mark.parametrize("entry", expensive(CELLS + NETWORKS, FEW))
def test_no_backward_loop_joins_anything(entry):
    """Of any cell; as many loops go back as have gone forth."""
    cell = entry.cell
    args = example(cell)

    def loss(*args):
        state, ys = jaxrnn.unroll(cell, *args, path="scan")
        return sum(jnp.sum(jnp.real(leaf).astype(jnp.float32)) for leaf in jax.tree.leaves((state, ys)))

    loops = innermost_loops(jax.grad(loss, allow_int=True), *args)
    back = loops[len(loops) // 2 :]
    assert "concatenate" not in {e.primitive.name for _, body in back for e in body}


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("kind", [jaxrnn.GRU, jaxrnn.LSTM, jaxrnn.UGRNN])
def test_nor_is_anything_joined_after_the_loop(kind, devices, monkeypatch):
    """But steps: the same compiler fills such a join with wrong values at some sizes."""
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    cell = kind(3, 4 + devices)  # of another size, or it would be traced already

    def joins(eqn):
        return eqn.primitive.name == "concatenate" and eqn.params["dimension"] > 0

    for run, expected in ((functools.partial(jaxrnn.unroll, path="scan"), False), (scanned, True)):
        closed = jax.make_jaxpr(gradient(run, cell))(*example(cell))
        assert any_equation(closed.jaxpr, joins) == expected


def test_unroll_outside_of_jit_is_compiled_once():
    """For all equal cells; as an argument of `jit`, a cell needs no mark."""
    traced = []

    def function(params, state, x):
        traced.append(x.shape)
        return jnp.tanh(state + x @ params), state

    cells = [jaxrnn.Function(function, lambda key, dtype: W, lambda batch, dtype: jnp.zeros((*batch, 4)), 3)] * 2
    runs = []
    for cell in cells:
        jaxrnn.unroll(cell, W, jnp.ones((5, 2, 3)))
        runs.append(len(traced))
    assert runs[0] == runs[1]
    cell = jaxrnn.LSTM(3, 4)
    params, xs, state = example(cell)
    chex.assert_trees_all_equal(jax.jit(jaxrnn.unroll)(cell, params, xs, state), jaxrnn.unroll(cell, params, xs, state))


W = jnp.ones((3, 4))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", [jaxrnn.LSTM(3, 4), *rare(jaxrnn.LRU(3, 4, scan="associative"))], ids=repr)
def test_unroll_is_the_loop_of_single_calls(optimized, cell, reverse):
    """With lengths and resets, in both directions of time."""
    params, xs, state = example(cell)
    lengths, resets = jnp.array([5, 3]), jnp.zeros((5, 2), bool).at[2, 0].set(True)
    run = jax.jit(functools.partial(jaxrnn.unroll, cell, reverse=reverse), compiler_options=optimized)
    final, ys = run(params, xs, state, lengths=lengths, resets=resets)
    start, outputs = cell.initial_state((2,)), [None] * T
    for t in reversed(range(T)) if reverse else range(T):
        boundary = t + 1 if reverse else t
        flags = resets[boundary] if boundary < T else jnp.zeros(2, bool)
        state = jax.tree.map(lambda a, s, flags=flags: jnp.where(flags[:, None], a, s), start, state)
        new, y = cell(params, state, xs[t])
        valid = (t < lengths)[:, None]
        state = jax.tree.map(lambda n, o, valid=valid: jnp.where(valid, n, o), new, state)
        outputs[t] = jnp.where(valid, y, 0)
    chex.assert_trees_all_close((final, ys), (state, jnp.stack(outputs)), rtol=1e-5, atol=1e-6)
