"""Edges of what `unroll` takes: lengths out of range at run time, states of mixed dtypes, cells without drives."""

import functools
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import native
from tests.registry import T, example, rare
from tests.test_guards import gradient, scanned

OUT_OF_RANGE = [
    jaxrnn.LSTM(3, 4),
    jaxrnn.Window(3, 2),
    jaxrnn.MDLSTM((4, 3), 2),
    jaxrnn.Masked(jaxrnn.GRU(3, 4)),
    jaxrnn.MinGRU(3, 4, scan="associative"),
    jaxrnn.MLSTM(3, 4, heads=2),
]


@pytest.mark.parametrize("reverse", [False, *rare(True)])
@pytest.mark.parametrize("cell", OUT_OF_RANGE, ids=lambda cell: type(cell).__name__)
def test_lengths_out_of_range_act_as_the_nearest_in_range(cell, reverse):
    """Their values are known at run time only."""
    params, xs, state = example(cell)

    @jax.jit
    def run(lengths):
        return jaxrnn.unroll(cell, params, xs, state, lengths=lengths, reverse=reverse)

    chex.assert_trees_all_equal(run(jnp.array([-2, T + 3])), run(jnp.array([0, T])))


def test_leaves_of_one_shape_and_two_dtypes():
    """They are not written as one array."""
    cell = jaxrnn.LSTM(3, 4)
    params, xs, state = example(cell)
    state = state._replace(c=state.c.astype(jnp.bfloat16))
    with jax.numpy_dtype_promotion("standard"):
        final, _ = jaxrnn.unroll(cell, params, xs, state)
        assert (final.h.dtype, final.c.dtype) == (jnp.float32, jnp.bfloat16)
        ours, theirs = (jax.jit(gradient(run, cell))(params, xs, state)[0] for run in (jaxrnn.unroll, scanned))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        scale = np.abs(b).max()
        # bfloat16 rounds the memory's cotangent at every step, in either order of sums.
        np.testing.assert_allclose(a / scale, b / scale, atol=2**-7)


def test_a_state_that_is_known_at_run_time_only_may_be_donated():
    cell = jaxrnn.GRU(3, 4)
    params, xs, _ = example(cell)
    run = jax.jit(functools.partial(jaxrnn.unroll, cell), donate_argnums=2)
    state, _ = run(params, xs, cell.initial_state((2,)))
    state, _ = run(params, xs, state)
    assert jnp.isfinite(state.h).all()


@pytest.mark.parametrize(("dtype", "state_dtype"), [(jnp.bfloat16, None), (jnp.float32, jnp.bfloat16)])
def test_dtypes_that_strict_promotion_refuses_are_named(dtype, state_dtype):
    """A fresh state is float32, whatever the parameters are, so a user need not have mixed anything."""
    cell = jaxrnn.LSTM(3, 4)
    params, xs, _ = example(cell, dtype=dtype)
    state = state_dtype and cell.initial_state((2,), state_dtype)
    other = "float32 \\(from None\\)" if state is None else "bfloat16"
    name = jnp.dtype(dtype).name
    message = (
        f"got params of {name}, {{}} of {name}, state of {other}, jax_numpy_dtype_promotion='strict' needs one dty"
    )
    for run in (jaxrnn.unroll, functools.partial(jaxrnn.unroll, path="scan"), jax.jit(jaxrnn.unroll)):
        with pytest.raises(TypeError, match=f"^params, xs, state: {message.format('xs')}"):
            run(cell, params, xs, state)
    if state is not None:
        with pytest.raises(TypeError, match=f"^params, x, state: {message.format('x')}"):
            cell(params, state, xs[0])
    with pytest.raises(TypeError, match=r"^params, xs, state: got params of float32, xs of bfloat16, state of"):
        jaxrnn.unroll(cell, jaxrnn.cast(params, jnp.float32), jaxrnn.cast(xs, jnp.bfloat16), state)
    # The ways on.
    _, ys = jaxrnn.unroll(cell, params, xs, cell.initial_state((2,), dtype))
    with jax.numpy_dtype_promotion("standard"):
        _, mixed = jaxrnn.unroll(cell, params, xs, state)
    assert ys.dtype == mixed.dtype == dtype


@dataclass(frozen=True)
class Clock(jaxrnn.Elman):
    """A cell that does not look at its input, as a generator of patterns."""

    def initial_state(self, batch_shape=(), dtype=jnp.float32):
        return type(super().initial_state())(jnp.ones((*batch_shape, self.hidden_size), dtype))

    def project(self, params, x):
        return ()

    def step(self, params, state, drive):
        h = jnp.tanh(jaxrnn.ops.add_bias(jaxrnn.ops.dot(state.h, params.w_h), params.b))
        return type(state)(h), h


@dataclass(frozen=True)
class Driven(Clock):
    """The same with a drive, which it does not look at either."""

    def project(self, params, x):
        return x


needs_native = pytest.mark.skipif(bool(native.obstacle()), reason=native.obstacle() or "none")
DRIVELESS = {
    "scan": {"path": "scan"},
    "residuals": {"path": "scan", "save": "residuals", "resets": np.arange(10).reshape(5, 2) % 3 == 0},
    "boundaries": {"path": "scan", "chunk": 2, "save": "boundaries", "reverse": True},
    "lengths": {"path": "scan", "lengths": np.array([5, 2])},
    "newton": {"solver": jaxrnn.Newton(tolerance=1e-6)},
}


@pytest.mark.parametrize(
    "options",
    [*map(pytest.param, DRIVELESS.values()), pytest.param({"path": "native"}, marks=needs_native)],
    ids=[*DRIVELESS, "native"],
)
def test_a_cell_without_drives(options):
    """`project` returns (): T is that of the input."""
    params, xs, _ = example(Clock(3, 4))
    state = Clock(3, 4).initial_state((2,))

    def slopes(cell, **options):
        return jax.jit(gradient(functools.partial(jaxrnn.unroll, **options), cell))(params, xs, state)

    found = slopes(Clock(3, 4), **options)
    options = {name: option for name, option in options.items() if name in ("lengths", "resets", "reverse")}
    chex.assert_trees_all_close(found, slopes(Driven(3, 4), path="scan", **options), rtol=1e-4, atol=1e-5)
    assert jnp.abs(found[0].w_h).max() > 0
