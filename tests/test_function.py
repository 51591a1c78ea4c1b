"""Cells from functions: a cell is such a function, they nest, and what does not fit is refused when one is made."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxrnn
import jaxrnn.linen
from jaxrnn.engine.buffers import has_buffer
from tests import functions
from tests.functions import FEEDBACK, LATTICE, feedback, feedback_params, feedback_state
from tests.registry import example, rare, unrolled

close = functools.partial(chex.assert_trees_all_close, rtol=1e-12, atol=1e-12)
NET = jaxrnn.Stack((jaxrnn.Elman(3, 4), jaxrnn.LSTM(4, 2)))


@functools.partial(jax.jit, static_argnums=0)
def derived(cell, *args):
    def loss(args):
        final, ys = jaxrnn.unroll(cell, *args, lengths=jnp.array([5, 3]))
        return jnp.sum(jnp.sin(ys)) + sum(jnp.sum(leaf) for leaf in jax.tree.leaves(final)), (final, ys)

    return jax.grad(loss, has_aux=True)(args)


@pytest.mark.usefixtures("x64")
def test_a_cell_is_a_function():
    """Element-Research's Recursor: a network made a cell again, with its values and gradients."""
    cell = jaxrnn.Function(NET, NET.init, NET.initial_state, 3)
    args = example(NET, dtype=jnp.float64)
    assert (cell.output_size, cell.hidden_size) == (2, (4, 2, 2))
    close(derived(cell, *args), derived(NET, *args))
    close(*jax.jit(lambda key: [cell.init(key), NET.init(key)])(jax.random.key(0)))


def test_outputs_have_a_length_a_shape_or_several():
    def outputs(params, state, x):
        return state, {"vector": x, "plane": x[..., None] * x[..., None, :], "number": x[..., 0]}

    cell = jaxrnn.Function(outputs, lambda key, dtype: (), lambda batch_shape, dtype: (), 3)
    assert cell.output_size == {"vector": 3, "plane": (3, 3), "number": ()}


@pytest.mark.usefixtures("x64")
def test_functions_nest():
    """In one another, and as a layer of a stack."""
    nested = jaxrnn.Function(functions.stacked, functions.stacked_params, functions.stacked_state, 3)
    net = jaxrnn.Stack((nested, jaxrnn.GRU(4, 3)))
    params, xs, state = example(net, dtype=jnp.float64)
    final, ys = unrolled(net, params, xs, state)

    @jax.jit
    def step(state, x):
        (below, h), above = state
        below, fed = FEEDBACK(params[0][0], below, x)
        h = jnp.tanh(h @ params[0][1] + jnp.stack([fed[:, 0], fed[:, 0], fed[:, 1], fed[:, 1]], axis=1))
        above, y = jaxrnn.GRU(4, 3)(params[1], above, h)
        return ((below, h), above), y

    for x, y in zip(np.asarray(xs), np.asarray(ys), strict=True):
        state, wanted = step(state, x)
        close(y, wanted)
    close(final, state)


def by_steps(params, xs, state, lengths=None, resets=None):
    """A plain scan over single calls of the lattice, with masks by `where`."""

    def select(rows, new, old):
        return jax.tree.map(lambda n, o: jnp.where(jnp.expand_dims(rows, range(1, n.ndim)), n, o), new, old)

    def step(state, at):
        t, x, reset = at
        begun = select(reset, LATTICE.initial_state(reset.shape, x.dtype), state)
        new, y = LATTICE(params, begun, x)
        valid = t < lengths
        return select(valid, new, state), jnp.where(valid[:, None], y, 0)

    return lax.scan(step, state, (jnp.arange(len(xs)), xs, resets))


@pytest.mark.parametrize("save", ["auto", *rare("boundaries", "residuals", "states")])
@pytest.mark.usefixtures("x64")
def test_a_state_with_a_buffer(save):
    params, xs, _ = example(LATTICE, steps=11, batch=(2,), dtype=jnp.float64)
    state = LATTICE.initial_state((2,), jnp.float64)
    masks = {"lengths": jnp.array([11, 7]), "resets": jnp.zeros((11, 2), bool).at[4, 0].set(True)}
    ours = functools.partial(jaxrnn.unroll, LATTICE, save=save, chunk=4 if save == "boundaries" else None)

    def derived(run):
        def loss(params, xs, state):
            final, ys = run(params, xs, state, **masks)
            return jnp.sum(jnp.sin(ys)) + jnp.sum(final.sites**2)

        def gradient(params):
            return jax.grad(loss, (0, 1))(params, xs, state)

        return jax.jit(lambda ones: jax.jvp(gradient, (params,), (ones,)))(jax.tree.map(jnp.ones_like, params))

    close(derived(ours), derived(by_steps))


def test_functions_that_return_nothing_are_named():
    def cell(function=lambda params, state, x: (state, x), params=(), state=()):
        return jaxrnn.Function(function, lambda key, dtype: params, lambda batch_shape, dtype: state, 3)

    cell()
    for name in ("params", "state"):
        with pytest.raises(
            TypeError, match=rf"^make_{name}: got None from Function.*, \(\) for none; is there a `return`"
        ):
            cell(**{name: None})


def test_whose_derivative_a_buffer_has_is_said():
    (choice,) = jaxrnn.explain(LATTICE, steps=5, batch=2)
    assert choice.reason.endswith("; its state has a buffer, so the derivative is JAX's own"), choice
    (choice,) = jaxrnn.explain(LATTICE, steps=5, batch=2, save="states")
    assert "buffer" not in choice.reason


def test_the_gradient_of_a_buffer_keeps_what_was_read():
    """All of it, at every step, is 64 times what a step touches."""
    params, xs, _ = example(LATTICE, steps=64, batch=(16,))
    state = LATTICE.initial_state((16,))

    def memory(run, mapped):
        run = jax.vmap(run, (None, 1, 0)) if mapped else run
        gradient = jax.grad(lambda params: jnp.sum(run(params, xs, state)[1]))
        return jax.jit(gradient).lower(params).compile().memory_analysis().temp_size_in_bytes

    def plain(params, xs, state):
        return lax.scan(functools.partial(LATTICE, params), state, xs)

    for mapped in (False, True):
        assert memory(functools.partial(jaxrnn.unroll, LATTICE), mapped) < 2 * memory(plain, mapped)
    assert memory(functools.partial(jaxrnn.unroll, LATTICE, save="states"), False) > 10 * memory(plain, False)


@pytest.mark.parametrize("step", ["written", "added", "rolled", "read whole", "given out"])
def test_what_is_a_buffer(step):
    """An array that is read as a whole would be kept at every step by JAX's derivative, too."""

    def function(params, state, x):
        sites, i = state
        given = x + sites[i]
        new = {
            "written": lambda: sites.at[i].set(given),
            "added": lambda: sites.at[i].add(given),
            "rolled": lambda: jnp.concatenate([sites[1:], given[None]]),
            "read whole": lambda: sites.at[i].set(jnp.tanh(sites).sum(0)),
            "given out": lambda: sites.at[i].set(given),
        }[step]()
        return (new, i + 1), new if step == "given out" else given

    state = jnp.zeros((9, 3)), jnp.int32(0)
    assert has_buffer(function, (), state, jnp.ones(3)) == (step in ("written", "added"))


def pair(params, state, x):
    tokens, gain = x
    state = state + params[tokens] * jnp.broadcast_to(gain[..., None], state.shape)
    return state, state


def test_any_input():
    """A pytree of tokens and reals, in place of a size."""
    spec = (jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32))
    cell = jaxrnn.Function(pair, lambda key, dtype: jnp.ones((7, 4), dtype), lambda b, d: jnp.zeros((*b, 4), d), spec)
    xs = jnp.array([[6, 0], [1, 2], [3, 3]]), jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    _, ys = unrolled(cell, jnp.arange(28.0).reshape(7, 4), xs)
    assert ys[:, :, 0].tolist() == [[24.0, 0.0], [36.0, 32.0], [96.0, 104.0]]


def test_inputs_alike_for_all_rows():
    """`[T]` for `[T, *batch]`, in each layout of the axes."""
    cell = jaxrnn.PhasedLSTM(3, 4, timed=True)
    params, xs, _ = example(cell)
    times = jnp.arange(5.0)
    given, whole = {"x": xs["x"], "t": times}, {"x": xs["x"], "t": jnp.broadcast_to(times[:, None], (5, 2))}
    wanted = jaxrnn.unroll(cell, params, whole)[1]
    variables = {"params": {"cell": params._asdict()}}
    run = functools.partial(jaxrnn.linen.RNN, cell)
    batch_major = {"x": xs["x"].swapaxes(0, 1), "t": times}
    chex.assert_trees_all_equal(
        jaxrnn.unroll(cell, params, given)[1],
        run(time_major=True).apply(variables, given)[1],
        run().apply(variables, batch_major)[1].swapaxes(0, 1),
        wanted,
    )
    with pytest.raises(ValueError, match=r"xs: got leaves of .* \[\(4,\), \(5, 2\)\], needs .* or time alone, \[T\]"):
        jaxrnn.unroll(cell, params, {"x": xs["x"], "t": times[1:]})


def conditioned(unroll, w, row):
    """A loss of a cell that closes over its weights in every method, and over the number of a row."""

    @dataclasses.dataclass(frozen=True)
    class Conditioned(jaxrnn.Cell):
        input_size: int = 3
        hidden_size: int = 4

        def init(self, key, *, dtype=jnp.float32):
            return jnp.eye(4, dtype=dtype)

        def initial_state(self, batch_shape=(), dtype=jnp.float32):
            return jnp.zeros((*batch_shape, 4), dtype)

        def project(self, params, x):
            return x @ w[:3]

        def step(self, params, state, drive):
            h = jnp.tanh(state @ params + drive @ w + jnp.broadcast_to(w[row], state.shape))
            return h, h

        def readout(self, params, output, drive):
            return output @ w

    return jnp.sum(jnp.sin(unroll(Conditioned(), *example(Conditioned(), dtype=jnp.float64))[1]))


@pytest.mark.exhaustive
@pytest.mark.parametrize("jit", [jax.jit, *rare(lambda loss: loss)], ids=["jit", "no jit"])
@pytest.mark.usefixtures("x64")
def test_what_a_cell_closes_over_is_differentiated(jit):
    """Closed over in each phase and in what is hoisted; mapped, forward over reverse mode, traced."""

    def derived(unroll):
        loss = jit(functools.partial(conditioned, unroll))
        return jax.jit(jax.vmap(jax.jacfwd(jax.value_and_grad(loss))))(w, jnp.array([1, 2]))

    def scanned(cell, params, xs, state):
        return lax.scan(functools.partial(cell, params, path="scan"), state, xs)

    w = jnp.sin(jnp.arange(32.0)).reshape(2, 4, 4)
    close(derived(functools.partial(jaxrnn.unroll, chunk=2)), derived(scanned))


@pytest.mark.parametrize("make_state", [lambda b, d: (), lambda b, d: jnp.zeros(b, jnp.int32)], ids=["none", "count"])
@pytest.mark.usefixtures("x64")
def test_a_state_without_reals_has_derivatives(make_state):
    def function(params, state, x):
        return jax.tree.map(lambda n: n + 1, state), jnp.tanh(x @ params)

    cell = jaxrnn.Function(function, lambda key, dtype: jnp.ones((3, 4), dtype), make_state, 3)
    params, xs, state = example(cell, dtype=jnp.float64)

    def derivatives(run):
        return jax.jit(jax.jacfwd(jax.grad(lambda params, xs: jnp.sum(jnp.sin(run(params, xs))), (0, 1))))(params, xs)

    ours = derivatives(lambda params, xs: jaxrnn.unroll(cell, params, xs, state, chunk=2)[1])
    close(ours, derivatives(lambda params, xs: jnp.tanh(xs @ params)))


def test_what_does_not_fit():
    with pytest.raises(TypeError, match="function: got LSTMParams, needs a function"):
        jaxrnn.Function(jaxrnn.cells.LSTMParams(1, 2, 3), feedback_params, feedback_state, 3)
    with pytest.raises(TypeError, match="make_state: got int, needs a function"):
        jaxrnn.Function(feedback, feedback_params, 4, 3)
    with pytest.raises(ValueError, match="input_size: got 0, needs a positive integer"):
        jaxrnn.Function(feedback, feedback_params, feedback_state, 0)
    with pytest.raises(TypeError, match="function: got ShapeDtypeStruct from it, needs a pair"):
        jaxrnn.Function(lambda p, s, x: x, feedback_params, feedback_state, 3)
    with pytest.raises(ValueError, match=r"function: got a state of shapes \(3,\) from it, needs .* FeedbackState"):
        jaxrnn.Function(lambda p, s, x: (x, x), feedback_params, feedback_state, 3)


def test_the_hidden_size_of_a_single_array_is_a_number():
    cell = jaxrnn.Function(lambda p, s, x: (s, x), lambda key, dtype: (), lambda b, d: jnp.zeros((*b, 4, 2), d), 3)
    assert cell.hidden_size == 8
