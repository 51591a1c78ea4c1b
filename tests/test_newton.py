"""Newton's method over the sequence against NumPy's loops, finite differences of these, and the scan."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxrnn
from bench.loops import equations
from jaxrnn import GRU, LEM, LSTM, SRU, CoRNN, Elman, IndRNN, Newton, inspection, networks
from jaxrnn.engine.blocks import find_blocks
from jaxrnn.engine.paths import recorded_choices
from jaxrnn.jaxprs import clip_cotangent
from tests import functions, reference
from tests.reference import cornn, indrnn, lem, sru
from tests.registry import draw, example

T, B, H = 7, 3, 5
LENGTHS, RESETS = np.array([5, 7, 0]), np.zeros((T, B), bool)
RESETS[3, :2] = RESETS[6, 1] = True
OPTIONS = {"lengths": LENGTHS, "resets": RESETS, "reverse": True}
EXACT = Newton(tolerance=1e-13)

CELLS = [
    (GRU(3, H), reference.gru_after),
    *(
        pytest.param(*row, marks=pytest.mark.exhaustive)
        for row in (
            (LSTM(3, 3, heads=3), reference.lstm),
            (Elman(3, H), reference.elman),
            (LSTM(3, H), reference.lstm),
            (CoRNN(3, H, step_size=0.3), cornn.cornn),
            (LEM(3, H, step_size=0.7), lem.lem),
            (IndRNN(3, H), indrnn.indrnn),
            (SRU(3, H), sru.sru),
            (GRU(3, H, heads=H), reference.gru_after),
        )
    ),
]


def total(result):
    """The loss of these tests, of JAX's arrays or NumPy's: every final state and output counts."""
    return sum(jnp.sum(jnp.sin(leaf)) if isinstance(leaf, jax.Array) else np.sin(leaf).sum() for leaf in result)


def loss_of(cell, **options):
    """`(params, xs, state) -> (loss, the result of unroll)`."""

    def loss(params, xs, state):
        result = jaxrnn.unroll(cell, params, xs, state, **options)
        return total(jax.tree.leaves(result)), result

    return loss


def moves_of(args):
    """A direction in parameters, inputs and the state."""
    return draw(5, args, jnp.float64)


@pytest.mark.parametrize(("cell", "step"), CELLS, ids=lambda value: repr(value).split(" at ")[0])
def test_against_numpy(cell, step, x64):
    """Values against a loop, and the gradient along a direction against the difference of two loops."""
    args = example(cell, T, (B,), jnp.float64)
    moves = moves_of(args)
    grads, result = jax.jit(jax.grad(loss_of(cell, solver=EXACT, **OPTIONS), (0, 1, 2), has_aux=True))(*args)
    chex.assert_trees_all_close(result, reference.unroll(step, cell, *args, **OPTIONS), atol=1e-12, rtol=1e-12)

    def moved(size):
        there = jax.tree.map(lambda a, m: np.asarray(a) + size * np.asarray(m), args, moves)
        return total(jax.tree.leaves(reference.unroll(step, cell, *there, **OPTIONS)))

    slope = sum(np.vdot(g, m) for g, m in zip(jax.tree.leaves(grads), jax.tree.leaves(moves), strict=True))
    np.testing.assert_allclose(slope, (moved(1e-6) - moved(-1e-6)) / 2e-6, rtol=1e-7)


@pytest.mark.parametrize(
    "cell",
    [
        IndRNN(3, H),
        *(
            pytest.param(cell, marks=pytest.mark.exhaustive)
            for cell in (
                Elman(3, H),
                GRU(3, H),
                LSTM(3, H),
                CoRNN(3, H),
                LEM(3, H),
                SRU(3, H),
                GRU(3, H, heads=H),
                LSTM(3, 3, heads=3),
            )
        ),
    ],
    ids=repr,
)
def test_every_derivative_is_the_scans(cell, x64):
    args = example(cell, T, (B,), jnp.float64)

    def derivatives(**options):
        """Gradients and results, and the same along a direction: Hessian-vector products and forward mode."""
        grad = jax.grad(loss_of(cell, **options, **OPTIONS), (0, 1, 2), has_aux=True)
        return jax.jit(lambda args, moves: jax.jvp(grad, args, moves))(args, moves_of(args))

    chex.assert_trees_all_close(derivatives(solver=EXACT), derivatives(path="scan"), atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("save", ["auto", *(pytest.param(s, marks=pytest.mark.exhaustive) for s in ("boundaries",))])
def test_where_it_does_not_converge_the_run_is_sequential(save, x64):
    """A chaotic cell, and a tolerance that nothing meets; derivatives are those of a sequential run, too."""
    cell, solver = Elman(3, H), Newton(tolerance=1e-300, max_iterations=2)
    params, xs, state = example(cell, 30, (2,), jnp.float64)
    params = params._replace(w_h=6 * params.w_h)

    def run(**options):
        return jax.jit(jax.grad(loss_of(cell, save=save, **options), (0, 1, 2), has_aux=True))(params, xs, state)

    how = jax.jit(functools.partial(inspection.newton_rounds, cell, solver=solver))(params, xs, state)
    assert set(how.rounds.tolist()) == {2}
    assert how.residual.max() > 1e-3
    grads, result = run(solver=solver)
    expected, scanned = run(path="scan")
    chex.assert_trees_all_equal(result, scanned)
    chex.assert_trees_all_close(grads, expected, rtol=1e-9)


def test_not_a_number_stays_in_its_row():
    cell = IndRNN(3, H)
    params, xs, state = example(cell, T, (2,))
    _, ys = jax.jit(functools.partial(jaxrnn.unroll, cell, solver=Newton()))(params, xs.at[2, 0].set(jnp.nan), state)
    _, expected = jaxrnn.unroll(cell, params, xs, state, path="scan")
    assert np.isnan(ys[2:, 0]).all()
    chex.assert_trees_all_close((ys[:2], ys[:, 1]), (expected[:2], expected[:, 1]), rtol=1e-5)


def shapes(fn, *args):
    return {v.aval.shape for e in equations(jax.make_jaxpr(fn)(*args).jaxpr) for v in e.outvars}


@pytest.mark.parametrize(
    ("cell", "block"),
    [
        (IndRNN(3, 6), 1),
        (Elman(3, 6, heads=6), 1),
        *(
            pytest.param(*row, marks=pytest.mark.exhaustive)
            for row in (
                (GRU(3, 6, heads=6), 1),
                (SRU(3, 6), 1),
                (LSTM(3, 6, heads=6), 2),
                (LSTM(3, 6, heads=2), 6),
                (Elman(3, 6, heads=3), 2),
            )
        ),
    ],
    ids=repr,
)
def test_parts_that_do_not_see_each_other_have_jacobians_of_their_own(cell, block):
    """No array of `[T, B, n, n]` numbers, forward or backward; a dense cell has one."""
    params, xs, state = example(cell, 11, (2,))
    n = sum(s.shape[-1] for s in jax.tree.leaves(state))

    def gradient(cell, params):
        return jax.grad(lambda *args: jnp.sum(jaxrnn.unroll(cell, *args, solver=Newton(), lengths=[9, 11])[1]))

    def largest(cell, params):
        return max(map(np.prod, shapes(gradient(cell, params), params, xs, state)))

    assert f"{n // block} blocks of {block} x {block}" in str(*jaxrnn.explain(cell, steps=11, solver=Newton()))
    assert largest(cell, params) < 11 * 2 * n * n
    dense = type(cell)(3, 6) if hasattr(cell, "heads") else None
    assert dense is None or largest(dense, example(dense, 11, (2,))[0]) >= 11 * 2 * n * n


MOVES = {
    "flip": lambda h: jnp.tanh(h + jnp.flip(h)),
    "optimization_barrier": lambda h: jnp.multiply(*jax.lax.optimization_barrier((jnp.flip(h), h))),
    "pad": lambda h: jnp.tanh(h) + jnp.pad(h[:3], (3, 0)),
    "stack, reduce_sum": lambda h: h + jnp.tanh(jnp.repeat(jnp.stack(jnp.unstack(h.reshape(3, 2), axis=1)).sum(0), 2)),
    "tile": lambda h: jnp.tanh(h) + jnp.tile(h[:3], 2),
    "slice, concatenate": lambda h: h + jnp.tanh(jnp.concatenate([h[1::2], h[::2]]).reshape(2, 3).T.reshape(6)),
}


@pytest.mark.parametrize("step", MOVES.values(), ids=MOVES)
def test_values_that_only_move_see_each_other_where_they_meet(step):
    blocks, reason = find_blocks(lambda _, h: step(h), (), jax.ShapeDtypeStruct((6,), jnp.float32))
    assert (blocks.size, len(blocks.order), reason) == (2, 6, "")


def test_what_is_clipped_beside_the_state_is_no_obstacle():
    h = jax.ShapeDtypeStruct((3,), jnp.float32)
    assert find_blocks(lambda x, h: jnp.tanh(h + clip_cotangent(x, 1.0)), h, h)[1] == ""
    assert find_blocks(lambda x, h: jnp.tanh(x + clip_cotangent(h, 1.0)), h, h)[1]


def test_a_backward_pass_does_not_search_again():
    cell = Elman(3, 4)
    params, xs, state = example(cell)

    def loops(path, **options):
        def loss(xs):
            return jnp.sum(jaxrnn.unroll(cell, params, xs, state, **options)[1])

        return sum(e.primitive.name == path for e in equations(jax.make_jaxpr(jax.grad(loss))(xs).jaxpr))

    assert loops("while", solver=Newton()) == 1
    assert loops("while", solver=Newton(), save="boundaries") == 2  # nothing but the first state is kept
    assert loops("while") == 0


@pytest.mark.parametrize(
    ("cell", "most"),
    [
        (Elman(4, 8), 6),
        *(
            pytest.param(*row, marks=pytest.mark.exhaustive)
            for row in (
                (GRU(4, 8), 6),
                (LSTM(4, 8), 6),
                (CoRNN(4, 8), 6),
                (LEM(4, 8), 6),
                (IndRNN(4, 8), 6),
                (LSTM(4, 8, heads=8), 6),
                (SRU(4, 8), 1),  # linear in its memory at its initialization
                (jaxrnn.MinGRU(4, 8), 1),
            )
        ),
    ],
    ids=repr,
)
def test_rounds_at_initialization_are_few(cell, most):
    @jax.jit
    def rounds(key, key_xs):
        return inspection.newton_rounds(cell, cell.init(key), jax.random.normal(key_xs, (1000, 1, 4)))

    how = rounds(jax.random.key(0), jax.random.key(1))
    assert how.rounds.shape == how.residual.shape == (1000,)
    assert 1 <= how.rounds[0] <= most
    assert how.residual.max() <= Newton().tolerance


NET = jaxrnn.Stack(
    (
        jaxrnn.Bidirectional(IndRNN(3, 2)),
        jaxrnn.Residual(jaxrnn.RecurrentDropout(GRU(4, 4, heads=2), 0.5)),
        jnp.tanh,
        jaxrnn.Zoneout(jaxrnn.LearnedState(Elman(4, 2)), 0.5),
    )
)


@pytest.mark.exhaustive
@pytest.mark.parametrize("cell", [jaxrnn.Zoneout(jaxrnn.LearnedState(IndRNN(3, 2)), 0.5), NET])
def test_noise_windows_batch_axes_and_vmap(cell, x64):
    """Of dropout drawn before, in windows of a chunk."""
    params, xs, state = example(cell, T, (2, 3), jnp.float64)
    lengths = np.stack([LENGTHS, LENGTHS[::-1]])
    options = {"resets": np.stack([RESETS, RESETS], 1), "key": jax.random.key(3)}

    @jax.jit
    def both(lengths):
        run = functools.partial(jaxrnn.unroll, cell, params, xs, state, **options)
        newton = jax.vmap(lambda lengths: run(lengths=lengths, solver=EXACT, chunk=4))
        return newton(jnp.stack([lengths, lengths // 2])), run(lengths=lengths, path="scan")

    found, expected = both(lengths)
    chex.assert_trees_all_close(jax.tree.map(lambda a: a[0], found), expected, atol=1e-12)


def test_networks_hand_it_to_their_cells():
    params, xs, _ = example(NET, T, (2,))
    with recorded_choices() as choices:
        both, gru, function, elman = jax.eval_shape(lambda: inspection.newton_rounds(NET, params, xs))
    assert [choice.path for choice in choices] == ["newton"] * 4
    assert str(choices[-1]).endswith("newton (asked for; Jacobians of 2 x 2)")
    assert jax.tree.map(jnp.shape, [*both, gru, elman]) == [((T,), (T,))] * 4
    assert function is None


def test_cells_that_run_many_steps_at_once_do_so():
    net = jaxrnn.Stack((jaxrnn.MLSTM(3, 4), jaxrnn.MinGRU(4, 4, scan="associative"), GRU(4, 2)))
    choices = jaxrnn.explain(net, steps=T, solver=Newton())
    assert [(c.path, c.reason.split(";")[0]) for c in choices] == [
        *[("scan", "it runs many steps at once")] * 2,
        ("newton", "asked for"),
    ]


def refused(cell, **options):
    return functools.partial(jaxrnn.explain, cell, steps=2, solver=Newton(), **options)


def of_a_symbolic_number():
    """A program of any number of rows."""
    (rows,) = export.symbolic_shape("b")
    cell = Elman(3, 4)
    run = jax.jit(functools.partial(jaxrnn.unroll, cell, solver=Newton()))
    export.export(run)(jax.eval_shape(cell.init, jax.random.key(0)), jax.ShapeDtypeStruct((2, rows, 3), jnp.float32))


TAKES_NOT = "solver: got Newton(tolerance=1e-05, max_iterations=100), but {} cannot take it: {}; leave it out"
CLIPPED = networks.ClippedGradient(Elman(3, 4), limit=1.0)
ERRORS = {
    "not a solver": (
        lambda: jaxrnn.explain(Elman(3, 4), steps=2, solver="newton"),
        TypeError,
        "solver: got 'newton', needs a jaxrnn.Newton, or None",
    ),
    "two ways": (
        refused(Elman(3, 4), path="native"),
        ValueError,
        "path: got 'native' and the solver Newton(tolerance=1e-05, max_iterations=100), needs one of the two; "
        "use 'auto' with a solver",
    ),
    "tolerance": (lambda: Newton(tolerance=0), ValueError, "tolerance: got 0, needs a positive number"),
    "iterations": (lambda: Newton(max_iterations=0), ValueError, "max_iterations: got 0, needs a positive integer"),
    "large": (
        refused(GRU(3, 257)),
        ValueError,
        TAKES_NOT.format(GRU(3, 257), "257 values of its state see each other, more than 256"),
    ),
    "integers": (
        refused(functions.FEEDBACK),
        ValueError,
        TAKES_NOT.format(
            functions.FEEDBACK, "its state has values of float32 and int32, not real numbers of one dtype"
        ),
    ),
    "complex": (
        refused(jaxrnn.LRU(3, 4)),
        ValueError,
        TAKES_NOT.format(jaxrnn.LRU(3, 4), "its state has values of complex64, not real numbers of one dtype"),
    ),
    "clipped": (refused(CLIPPED), ValueError, TAKES_NOT.format(CLIPPED, "its cotangents are clipped at every step")),
    "symbolic": (
        of_a_symbolic_number,
        ValueError,
        TAKES_NOT.format(Elman(3, 4), "the number of its time steps or rows is symbolic"),
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == message
