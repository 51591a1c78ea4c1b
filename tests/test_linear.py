"""Cells linear in their state: an associative run is the sequential one, under all options and in all derivatives."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from tests.reference import mingru
from tests.registry import B, T, example, rare

# Those whose associative run is not in the registry, where every law runs over it.
CELLS = [
    jaxrnn.MinGRU(3, 4),
    jaxrnn.S5(3, 4, discretization="bilinear"),
    jaxrnn.RGLRU(4, heads=2),
]

close = functools.partial(chex.assert_trees_all_close, rtol=1e-10, atol=1e-10)
# A real and a complex state.
two_cells = pytest.mark.parametrize("cell", [jaxrnn.MinGRU(3, 4), jaxrnn.LRU(3, 4)], ids=repr)


def associative(cell):
    return dataclasses.replace(cell, scan="associative")


@functools.partial(jax.jit, static_argnums=0, static_argnames=("reverse", "chunk", "save"))
def derived(cell, params, xs, state, **options):
    """Gradients of a loss that sees all outputs and the final state, and these."""

    def loss(args):
        final, ys = jaxrnn.unroll(cell, *args, **options)
        return sum(jnp.sum(jnp.sin(to_real(leaf))) for leaf in jax.tree.leaves((final, ys))), (final, ys)

    return jax.grad(loss, has_aux=True)((params, xs, state))


def to_real(leaf):
    return jnp.stack([leaf.real, leaf.imag]) if jnp.iscomplexobj(leaf) else leaf


RESETS = np.array([[0, 1], [1, 0], [0, 0], [0, 1], [1, 1]], bool)
OPTIONS = {
    "lengths": {"lengths": np.array([4, 0])},
    "resets": {"resets": RESETS},
    "chunk": {"chunk": 3, "lengths": np.array([5, 2]), "save": "boundaries"},
    "all": {"lengths": np.array([5, 3]), "resets": RESETS, "reverse": True, "chunk": 2},
}


@pytest.mark.parametrize("cell", [*rare(*CELLS[:-1]), CELLS[-1]], ids=repr)
@pytest.mark.usefixtures("x64")
def test_associative_is_sequential(cell):
    """Values, and gradients of the parameters, the inputs and the initial state."""
    args = example(cell, dtype=jnp.float64)
    close(derived(associative(cell), *args, **OPTIONS["all"]), derived(cell, *args, **OPTIONS["all"]))


@pytest.mark.parametrize("cell", [*rare(jaxrnn.MinGRU(3, 4)), jaxrnn.LRU(3, 4)], ids=repr)
@pytest.mark.parametrize("options", [*rare(*list(OPTIONS.values())[:-1]), OPTIONS["all"]], ids=OPTIONS)
@pytest.mark.usefixtures("x64")
def test_options_of_an_associative_run(cell, options):
    args = example(cell, dtype=jnp.float64)
    close(derived(associative(cell), *args, **options), derived(cell, *args, **options))


@pytest.mark.parametrize("batch", [(2, 3), *rare(((),))], ids=str)
@pytest.mark.parametrize("steps", [0, 1, 7])
@pytest.mark.usefixtures("x64")
def test_any_number_of_steps_and_batch_axes(steps, batch):
    cell = CELLS[0]
    args = example(cell, steps=steps, batch=batch, dtype=jnp.float64)
    close(derived(associative(cell), *args), derived(cell, *args))


@pytest.mark.parametrize("reverse", [False, *rare(True)])
@two_cells
def test_nothing_depends_on_the_padding(cell, reverse):
    """Neither values nor any gradient, also where the padding holds NaN; its own gradient is zero."""
    lengths = np.array([3, 0])
    params, xs, state = example(cell)
    padding = np.broadcast_to((np.arange(T)[:, None] >= lengths)[..., None], xs.shape)
    poisoned = jnp.where(padding, jnp.full_like(xs, jnp.nan), xs)
    options = {"lengths": lengths, "reverse": reverse}
    clean = derived(associative(cell), params, xs, state, **options)
    dirty = derived(associative(cell), params, poisoned, state, **options)
    chex.assert_tree_all_finite(dirty)
    chex.assert_trees_all_equal(clean, dirty)
    assert not dirty[0][1][padding].any()


@pytest.mark.parametrize("reverse", [False, *rare(True)])
@two_cells
def test_a_reset_keeps_nan_out(cell, reverse):
    """That of a state and that of an input on its other side, out of values and gradients."""
    params, xs, state = example(cell)
    state = jax.tree.map(lambda s: s.at[1].set(jnp.nan), state)
    resets = np.zeros((T, B), bool)
    resets[3, 1] = True
    before = slice(3, None) if reverse else slice(0, 3)
    after = slice(0, 3) if reverse else slice(3, None)
    xs = xs.at[before, 1].set(jnp.nan)

    @jax.jit
    @jax.value_and_grad
    def loss(xs, state):
        return jnp.sum(jaxrnn.unroll(associative(cell), params, xs, state, resets=resets, reverse=reverse)[1][after])

    value, dxs = loss(xs, state)
    assert np.isfinite(value)
    assert np.isfinite(dxs[after]).all()
    assert dxs[after].any()


@pytest.mark.parametrize("cell", [*rare(jaxrnn.MinGRU(3, 4)), jaxrnn.LRU(3, 4)], ids=repr)
@pytest.mark.usefixtures("x64")
def test_second_derivatives(cell):
    """Forward over reverse."""
    params, xs, state = example(cell, dtype=jnp.float64)

    def product(cell):
        def gradient(args):
            return jax.grad(lambda args: jnp.sum(jaxrnn.unroll(cell, *args, state)[1] ** 2))(args)

        return jax.jit(lambda args: jax.jvp(gradient, (args,), (args,)))((params, xs))

    close(product(associative(cell)), product(cell))


@pytest.mark.parametrize(("save", "least", "most"), [("states", 1, 1.5), ("boundaries", 0.1, 0.5)])
def test_an_associative_run_keeps_its_states_alone(save, least, most):
    """Under reverse mode, or those before a chunk; the scan's own derivative would keep its partial sums too."""
    cell = jaxrnn.MinGRU(4, 64, scan="associative")
    args = jax.eval_shape(lambda: (cell.init(jax.random.key(0)), jnp.zeros((64, 4, 4))))

    def loss(params, xs):
        return jnp.sum(jaxrnn.unroll(cell, params, xs, chunk=8, save=save)[1])

    kept = jax.eval_shape(lambda *args: jax.vjp(loss, *args)[1], *args)
    assert least <= sum(leaf.size for leaf in jax.tree.leaves(kept)) / (64 * 4 * 64) < most


def test_an_associative_run_has_no_loop():
    """But over its chunks, where there are some."""
    cell = associative(CELLS[0])
    args = example(cell)

    def text(**options):
        return str(jax.make_jaxpr(functools.partial(jaxrnn.unroll, cell, **options))(*args))

    assert "scan[" not in text()
    assert "scan[" in text(chunk=2)


@pytest.mark.parametrize(
    ("cell", "way"),
    [
        (CELLS[0], r"scan='sequential' takes any"),
        (jaxrnn.DeltaNet(3, 4), r"jaxrnn\.networks\.Stepped\(cell\) takes any"),
    ],
    ids=["associative", "pairs"],
)
def test_an_unknown_number_of_steps_has_a_way_on(cell, way):
    """As in `jax.export`, of which the way on makes a program."""
    params, xs, _ = example(cell)
    spec = jax.ShapeDtypeStruct(jax.export.symbolic_shape("t, 2, 3"), xs.dtype)
    at_once = associative(cell) if isinstance(cell, jaxrnn.LinearCell) else cell
    with pytest.raises(ValueError, match=rf"xs: got t steps, .* needs a number that is known; {way}"):
        jax.eval_shape(functools.partial(jaxrnn.unroll, at_once), params, spec)
    cell = cell if isinstance(cell, jaxrnn.LinearCell) else jaxrnn.networks.Stepped(cell)
    jax.eval_shape(functools.partial(jaxrnn.unroll, cell), params, spec)


def test_the_run_is_one_of_two():
    with pytest.raises(ValueError, match="scan: got 'parallel', needs one of 'sequential', 'associative'"):
        jaxrnn.MinGRU(3, 4, scan="parallel")


@pytest.mark.usefixtures("x64")
def test_mingru_is_its_authors_log_space_algorithm():
    cell = jaxrnn.MinGRU(3, 4, scan="associative")
    params, xs, _ = example(cell, steps=50, dtype=jnp.float64)
    state = jaxrnn.cells.MinGRUState(jnp.full((B, 4), 0.5))
    _, ys = jax.jit(functools.partial(jaxrnn.unroll, cell))(params, xs, state)
    for row in range(B):
        want = mingru.log_space_mingru(jax.tree.map(np.asarray, params), np.asarray(xs[:, row]), np.full(4, 0.5))
        np.testing.assert_allclose(ys[:, row], want, rtol=1e-12)


def test_gates_that_vanish_stay_finite():
    """Where the gates' product is zero in floating point, and where both of the minLSTM's gates are."""
    for cell in (jaxrnn.MinGRU(1, 1, scan="associative"), jaxrnn.MinLSTM(1, 1, scan="associative")):
        params = jax.tree.map(lambda p: jnp.full(p.shape, -200.0), jax.eval_shape(cell.init, jax.random.key(0)))
        grads, (_, ys) = derived(cell, params, jnp.ones((16, 1)), cell.initial_state())
        chex.assert_tree_all_finite((grads, ys))
