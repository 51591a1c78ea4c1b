"""`unroll`: lengths, resets, direction, chunks, states, dtypes and derivatives, against loops of single steps."""

import functools
import itertools
import zlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

import jaxrnn
from jaxrnn import native
from jaxrnn.engine.chunks import default_chunk
from tests import reference
from tests.cells import Counter, Diagonal, Token
from tests.reference import ablations
from tests.registry import CELLS, FEW, B, T, draw, example, expensive, name, rare, unrolled

GRU = jaxrnn.GRU(3, 4)
LSTM = jaxrnn.Projected(jaxrnn.VanillaLSTM(3, 4), 2)
reference_lstm = reference.projected(ablations.vanilla_lstm)

close = functools.partial(chex.assert_trees_all_close, rtol=1e-12, atol=1e-12)
closer_than_issue = functools.partial(chex.assert_trees_all_close, rtol=1e-10, atol=1e-10)
STATIC = ("reverse", "chunk", "save")


@functools.partial(jax.jit, static_argnums=0, static_argnames=STATIC)
def derived(cell, params, xs, state, **options):
    """`((params', xs', state'), (final, ys))`: gradients of a loss that sees all outputs and the final state."""

    def loss(args):
        final, ys = jaxrnn.unroll(cell, *args, **options)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves((final, ys))), (final, ys)

    return jax.grad(loss, has_aux=True)((params, xs, state))


def plain(cell, params, xs, state, lengths=None, resets=None, reverse=False):
    """The definition: `lax.scan` over single calls, options by `where` at every step."""
    leading = (-1,) + (1,) * (jax.tree.leaves(state)[0].ndim - 1)
    steps = jax.tree.leaves(xs)[0].shape[0]

    def where(flags, a, b):
        return jnp.where(jnp.broadcast_to(flags.reshape(leading[: a.ndim]), a.shape), a, b)

    def body(state, at_t):
        x, t = at_t
        old = state
        if resets is not None:
            # A flag at t stands between t - 1 and t.
            flags = resets[t] if not reverse else resets[jnp.minimum(t + 1, steps - 1)] & (t + 1 < steps)
            initial = params.initial if isinstance(cell, jaxrnn.LearnedState) else cell.initial_state()
            start = jax.tree.map(lambda a, s: jnp.broadcast_to(a.astype(s.dtype), s.shape), initial, state)
            state = jax.tree.map(functools.partial(where, flags), start, state)
        new, y = cell(params, state, x)
        if lengths is not None:
            valid = t < lengths
            new = jax.tree.map(functools.partial(where, valid), new, old)
            y = where(valid, y, jnp.zeros_like(y))
        return new, y

    return lax.scan(body, state, (xs, jnp.arange(steps)), reverse=reverse)


# Lengths


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("cell", "step"),
    [(LSTM, reference_lstm), *rare((GRU, reference.gru_after))],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
@pytest.mark.usefixtures("x64")
def test_lengths_are_runs_of_each_row_alone(cell, step, reverse):
    lengths = np.array([5, 0, 3, 1])
    params, xs, state = example(cell, batch=(4,), dtype=jnp.float64)
    final, ys = unrolled(cell, params, xs, state, lengths=lengths, reverse=reverse, chunk=2)
    for row, length in enumerate(lengths):
        pick = functools.partial(jax.tree.map, lambda a, row=row: np.asarray(a)[row : row + 1])
        cut = np.asarray(xs)[:length, row : row + 1]
        one_final, one_ys = reference.unroll(step, cell, params, cut, pick(state), reverse=reverse)
        close(pick(final), one_final)
        close(np.asarray(ys)[:length, row], one_ys[:, 0])
        assert not np.asarray(ys)[length:, row].any()


@pytest.mark.parametrize("reverse", [False, *rare(True)])
@pytest.mark.parametrize("cell", [jaxrnn.Bidirectional(GRU), *rare(GRU, jaxrnn.Residual(jaxrnn.GRU(3, 3)))], ids=repr)
def test_nothing_depends_on_the_padding(cell, reverse):
    """Neither values nor any gradient, also where the padding holds NaN; its own gradient is zero."""
    lengths = np.array([5, 0, 3, 1])
    params, xs, state = example(cell, batch=(4,))
    padding = np.arange(T)[:, None] >= lengths
    options = {"lengths": lengths, "reverse": reverse, "chunk": 3}
    clean = derived(cell, params, xs, state, **options)
    for poison in (np.nan, np.inf):
        poisoned = np.where(padding[..., None], np.float32(poison), xs)
        dirty = derived(cell, params, poisoned, state, **options)
        chex.assert_tree_all_finite(dirty)
        chex.assert_trees_all_equal(clean, dirty)
        (_, slopes, _), _ = dirty
        assert not np.asarray(slopes)[padding].any()
        assert np.asarray(slopes)[~padding].all()


def test_lengths_known_only_at_run_time_are_clipped():
    params, xs, state = example(GRU)
    chex.assert_trees_all_equal(
        unrolled(GRU, params, xs, state, lengths=jnp.array([-3, 99])),
        unrolled(GRU, params, xs, state, lengths=jnp.array([0, T])),
    )


def test_an_unbatched_sequence_has_a_length():
    params, xs, state = example(GRU, batch=())
    final, ys = unrolled(GRU, params, xs, state, lengths=3)
    cut_final, cut_ys = unrolled(GRU, params, xs[:3], state)
    chex.assert_trees_all_close((final, ys[:3]), (cut_final, cut_ys), rtol=1e-6)
    assert not ys[3:].any()


# Resets


@pytest.mark.parametrize("flagged", [[0], [T - 1], range(T), [2], []], ids=str)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.usefixtures("x64")
def test_resets_are_sequences_on_their_own(flagged, reverse):
    """The row without flags keeps its state; the other is the runs between flags, each from the initial state."""
    params, xs, state = example(LSTM, dtype=jnp.float64)
    resets = np.zeros((T, B), bool)
    resets[list(flagged), 1] = True
    got = unrolled(LSTM, params, xs, state, resets=resets, reverse=reverse, chunk=2)
    close(got, reference.unroll(reference_lstm, LSTM, params, xs, state, resets=resets, reverse=reverse))
    row = jax.tree.map(lambda s: np.asarray(s)[1:], state)
    fresh = jax.tree.map(np.zeros_like, row)
    cuts = [0, *(t for t in flagged if t), T]
    pieces = [np.asarray(xs)[a:b, 1:] for a, b in itertools.pairwise(cuts)]
    starts = [fresh if 0 in flagged and not reverse else row] + [fresh] * (len(pieces) - 1)
    if reverse:
        starts = starts[::-1]
    run = functools.partial(reference.unroll, reference_lstm, LSTM, params, reverse=reverse)
    ys = [run(p, s)[1] for p, s in zip(pieces, starts, strict=True)]
    close(np.asarray(got[1])[:, 1:], np.concatenate(ys))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_reset_keeps_nan_of_the_old_state_out(reverse):
    """Out of the values, and out of the gradients."""
    params, xs, state = example(LSTM)
    state = jax.tree.map(lambda s: s.at[1].set(jnp.nan), state)
    at = T - 1 if reverse else 0
    resets = np.zeros((T, B), bool)
    resets[at, 1] = True
    final, ys = unrolled(LSTM, params, xs, state, resets=resets, reverse=reverse)
    if reverse:
        # The flag stands between T - 2 and T - 1: what the NaN reached before it stays, what comes after is clean.
        assert np.isnan(ys[T - 1, 1]).all()
        ys = ys[: T - 1]
    chex.assert_tree_all_finite((final, ys))

    if not reverse:
        slopes, _ = derived(LSTM, params, xs, state, resets=resets)
        chex.assert_tree_all_finite(slopes)
        assert not slopes[2].h[1].any()
        assert slopes[2].h[0].all()


@pytest.mark.usefixtures("x64")
def test_a_reset_is_to_the_initial_state_in_the_state_s_precision():
    """A tenth is not the tenth of float32."""

    def tenths(batch_shape, dtype):
        return jnp.full((*batch_shape, 3), 0.1, dtype)

    cell = jaxrnn.Function(lambda p, s, x: (s, s), lambda key, dtype: jnp.ones((), dtype), tenths, 3)
    _, ys = unrolled(cell, jnp.ones(()), jnp.zeros((T, 3)), resets=np.arange(T) == 2)
    assert (np.asarray(ys) == 0.1).all()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.usefixtures("x64")
def test_flags_in_the_padding_are_of_no_account(reverse):
    params, xs, state = example(GRU, dtype=jnp.float64)
    lengths = np.array([3, 5])
    none = unrolled(GRU, params, xs, state, lengths=lengths, reverse=reverse)
    flagged = np.zeros((T, B), bool)
    flagged[3:, 0] = True
    close(unrolled(GRU, params, xs, state, lengths=lengths, resets=flagged, reverse=reverse), none)


# Runs of any length, in chunks of any length


@pytest.mark.parametrize("reverse", [False, *rare(True)])
@pytest.mark.usefixtures("x64")
def test_chunks_change_nothing(reverse):
    params, xs, state = example(GRU, steps=7, dtype=jnp.float64)
    lengths, resets = np.array([4, 7]), np.arange(14).reshape(7, 2) % 5 == 3
    ways = [{"chunk": chunk} for chunk in (7, 1, 3, 100)]
    ways += [{"chunk": 3, "save": save} for save in ("boundaries", "residuals", jax.checkpoint_policies.dots_saveable)]

    @jax.jit
    def every(*args):
        return [derived(GRU, *args, lengths=lengths, resets=resets, reverse=reverse, **way) for way in ways]

    whole, *others = every(params, xs, state)
    for other in others:
        close(other, whole)


@pytest.mark.parametrize("bytes_per_step", [0, 1, 2000, 2**17, 2**30])
def test_the_default_chunk_is_within_the_sequence(bytes_per_step):
    for steps in (1, 2, 13, 97, 128, 1009, 4096, 65536):
        chunk = default_chunk(steps, bytes_per_step)
        assert min(steps, 3) <= chunk <= min(steps, 511)


@pytest.mark.parametrize("cell", [GRU, jaxrnn.Stack((GRU, jaxrnn.LSTM(4, 2))), jaxrnn.Bidirectional(GRU)], ids=repr)
def test_no_steps_and_one_step(cell):
    params, xs, state = example(cell, steps=1)
    slopes, (final, ys) = derived(cell, params, xs[:0], state)
    chex.assert_trees_all_equal(final, state)
    assert ys.shape == (0, B, cell.output_size)
    assert not any(g.any() for g in jax.tree.leaves(slopes[0]))
    chex.assert_trees_all_close(slopes[2], jax.tree.map(jnp.cos, state))
    final, ys = unrolled(cell, params, xs, state, lengths=np.array([1, 0]))
    assert ys.shape == (1, B, cell.output_size)
    chex.assert_trees_all_equal(*(jax.tree.map(lambda s: s[1], tree) for tree in (final, state)))


def test_no_rows():
    params, xs, state = example(GRU, batch=(0,))
    final, ys = unrolled(GRU, params, xs, state, lengths=np.zeros(0, int))
    assert (ys.shape, final.h.shape) == ((T, 0, 4), (0, 4))


@pytest.mark.parametrize("shape", ["t, b, 3", *rare("5, b, 3")])
def test_a_program_for_batches_and_sequences_of_any_size(shape):
    """One exported with symbolic sizes."""
    params, xs, _ = example(GRU)
    xs_spec = jax.ShapeDtypeStruct(export.symbolic_shape(shape), xs.dtype)
    lengths_spec = jax.ShapeDtypeStruct(xs_spec.shape[1:2], jnp.int32)
    run = jax.jit(lambda params, xs, lengths: jaxrnn.unroll(GRU, params, xs, lengths=lengths))
    program = export.export(run)(params, xs_spec, lengths_spec)
    for batch, steps in ((2, 5), (4, 5 if shape[0] == "5" else 3)):
        _, xs, _ = example(GRU, steps, (batch,))
        lengths = jnp.arange(batch, dtype=jnp.int32)
        chex.assert_trees_all_close(program.call(params, xs, lengths), run(params, xs, lengths), rtol=1e-6)


def test_chunks_of_a_symbolic_number_of_steps():
    """They must divide it, which is known of some."""
    params, xs, _ = example(GRU, 4)
    run = jax.jit(functools.partial(jaxrnn.unroll, GRU, chunk=2))
    program = export.export(run)(params, jax.ShapeDtypeStruct(export.symbolic_shape("2*t, 2, 3"), xs.dtype))
    chex.assert_trees_all_close(program.call(params, xs), run(params, xs), rtol=1e-6)
    with pytest.raises(ValueError, match=r"chunk: got 2, needs a divisor of the number of steps, t, or None for all"):
        export.export(run)(params, jax.ShapeDtypeStruct(export.symbolic_shape("t, 2, 3"), xs.dtype))


# States


def test_no_state_is_the_initial_state():
    params, xs, _ = example(LSTM)
    chex.assert_trees_all_equal(
        unrolled(LSTM, params, xs), unrolled(LSTM, params, xs, LSTM.initial_state((B,), jnp.float32))
    )


@pytest.mark.usefixtures("x64")
def test_two_halves_make_a_whole():
    """The carry of truncated backpropagation."""
    params, xs, state = example(LSTM, dtype=jnp.float64)
    final, ys = unrolled(LSTM, params, xs, state)
    middle, first = unrolled(LSTM, params, xs[:3], state)
    close((final, ys[3:]), unrolled(LSTM, params, xs[3:], middle))
    close(first, ys[:3])


@pytest.mark.usefixtures("x64")
def test_a_learned_initial_state_gets_gradients():
    """One learned vector, broadcast over the rows, gets the sum of the rows' gradients."""
    params, xs, _ = example(GRU, dtype=jnp.float64)
    learned = jnp.linspace(-1.0, 1.0, 4)

    @jax.jit
    @jax.grad
    def gradient(h0, of_rows):
        state = type(GRU.initial_state())(jnp.broadcast_to(h0, (B, 4)))
        return jnp.sum(jaxrnn.unroll(GRU, params, xs, state)[1][:, of_rows])

    each = [gradient(learned, np.array([row])) for row in range(B)]
    assert all(g.all() for g in each)
    close(gradient(learned, np.arange(B)), sum(each))


# Kinds of input and dtypes


def test_pytree_inputs_and_integer_states():
    cell = Counter(3, 4)
    params, xs, state = example(cell)
    final, _ = unrolled(cell, params, xs, state, lengths=np.array([5, 2]))
    np.testing.assert_array_equal(final.count, state.count + np.array([5, 2]))
    assert final.count.dtype == jnp.int32


def test_tokens_may_be_anything_in_the_padding():
    """Also indices outside of the table."""
    cell = Token(3, 4)
    params, xs, state = example(cell)
    lengths = np.array([5, 2])
    wild = xs.at[2:, 1].set(10**6)
    chex.assert_trees_all_equal(*(unrolled(cell, params, x, state, lengths=lengths) for x in (xs, wild)))


@pytest.mark.parametrize("cell", [GRU, *rare(jaxrnn.LSTM(3, 4), jaxrnn.Elman(3, 4))], ids=repr)
def test_mixed_precision(cell):
    """bfloat16 products, float32 state: near float32, and gradients in the dtype of the stored parameters."""
    params, xs, state = example(cell)
    half = jaxrnn.cast(xs, jnp.bfloat16)

    @functools.partial(jax.grad, has_aux=True)
    def run(params, compute):
        final, ys = jaxrnn.unroll(cell, jaxrnn.cast(params, compute), jaxrnn.cast(half, compute), state)
        return jnp.sum(ys.astype(jnp.float32)), (final, ys)

    with jax.numpy_dtype_promotion("standard"):
        both = jax.jit(lambda params: [run(params, compute) for compute in (jnp.bfloat16, jnp.float32)])
        (slopes, (final, ys)), (full_slopes, (full_final, full_ys)) = both(params)
    assert (ys.dtype, final.h.dtype) == (jnp.bfloat16, jnp.float32)
    # Eight bits of mantissa: 2^-8 a rounding, a few of them on the way.
    np.testing.assert_allclose(ys.astype(jnp.float32), full_ys, atol=2e-2)
    chex.assert_trees_all_close(final, full_final, atol=2e-2)
    chex.assert_trees_all_equal_dtypes(slopes, params)
    for slope, full_slope in zip(jax.tree.leaves(slopes), jax.tree.leaves(full_slopes), strict=True):
        assert np.linalg.norm(slope - full_slope) < 2e-2 * np.linalg.norm(full_slope)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_without_a_state_the_memory_is_float32_or_wider(dtype):
    # Only where the memory is wider than the rest does anything promote.
    promotion = "standard" if dtype == jnp.bfloat16 else "strict"
    with jax.enable_x64(True), jax.numpy_dtype_promotion(promotion):
        params, xs, _ = example(GRU, dtype=dtype)
        final, ys = jax.eval_shape(functools.partial(jaxrnn.unroll, GRU), params, xs)
    assert ys.dtype == dtype
    assert final.h.dtype == (jnp.float64 if dtype == jnp.float64 else jnp.float32)


# Derivatives: every mode and transformation, against a plain scan of single calls.

OPTIONS = [
    {},
    {"lengths": [4, 2]},
    {"resets": [[0, 1], [1, 0], [0, 0], [0, 1], [1, 1]]},
    {"lengths": [5, 3], "resets": [[0, 0], [0, 1], [1, 0], [0, 0], [0, 0]], "reverse": True, "chunk": 2},
]


def arrays(options):
    made = dict(options)
    if "lengths" in made:
        made["lengths"] = np.array(made["lengths"])
    if "resets" in made:
        made["resets"] = jnp.array(made["resets"], bool)
    return made


def battery(run, args, direction, cotangent, second):
    """Values and gradients of `run(*args)`; with `second`, the tangents of both too: forward over reverse."""
    leaves, tree = jax.tree.flatten(args)

    def outputs(moved):
        moved = iter(moved)
        return real(run(*jax.tree.unflatten(tree, [next(moved) if is_real(leaf) else leaf for leaf in leaves])))

    def loss(moved):
        outs = outputs(moved)
        return sum(jnp.vdot(c, jnp.sin(out)) for c, out in zip(cotangent, outs, strict=True)), outs

    gradient = jax.grad(loss, has_aux=True)
    if second:
        return jax.jvp(gradient, (real(args),), (direction,))
    return gradient(real(args))


def is_real(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def real(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if is_real(leaf)]


@pytest.mark.parametrize("entry", expensive(CELLS, FEW))
@pytest.mark.usefixtures("x64")
def test_derivatives_of_every_cell_are_those_of_a_plain_scan_and_of_finite_differences(entry):
    """Each cell meets one of the combinations of options; the next test has them all, and the second order."""
    # Dealt by the name, so that a cell keeps its options when others come or go.
    cell, options = entry.cell, arrays(OPTIONS[zlib.crc32(name(entry).encode()) % len(OPTIONS)])
    every, args, direction, cotangent = agree(cell, options, second=False)
    slopes, _ = every(args, direction, cotangent)[0]
    leaves, tree = jax.tree.flatten(args)

    def loss(distance):
        steps = iter(direction)
        moved = [leaf + distance * next(steps) if is_real(leaf) else leaf for leaf in leaves]
        _, outs = every(jax.tree.unflatten(tree, moved), direction, cotangent)[0]
        return sum(np.vdot(c, np.sin(out)) for c, out in zip(cotangent, outs, strict=True))

    slope = sum(np.vdot(s, d) for s, d in zip(slopes, direction, strict=True))
    np.testing.assert_allclose(slope, (loss(1e-5) - loss(-1e-5)) / 2e-5, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("options", [*rare(*OPTIONS[:-1]), OPTIONS[-1]], ids=lambda o: "+".join(o) or "none")
@pytest.mark.usefixtures("x64")
def test_derivatives_under_all_options_are_those_of_a_plain_scan(options):
    agree(jaxrnn.LSTM(3, 4), arrays(options), second=True)


WITHOUT_KERNEL = (
    *("associative", "Window", "MLSTM", "DeltaNet", "GatedLinearAttention"),  # many steps at once
    *("ConvLSTM", "ConvGRU"),  # convolutions
)


def paths(cell, **options):
    """The paths that a cell can take: runs of so few steps take the native one only where they are told to."""
    try:
        jaxrnn.explain(cell, steps=T, batch=B, dtype=jnp.float64, path="native")
    except ValueError:
        assert native.obstacle() or any(name in repr(cell) for name in WITHOUT_KERNEL)
        return [functools.partial(jaxrnn.unroll, cell, path="scan", **options)]
    return [functools.partial(jaxrnn.unroll, cell, path=path, **options) for path in ("scan", "native")]


def agree(cell, options, second):
    """Compares each path with a plain scan; returns the program that runs all, and what it was given."""
    args = params, xs, state = example(cell, dtype=jnp.float64)
    final, y = jax.eval_shape(cell, params, state, jax.tree.map(lambda x: x[0], xs))
    ys = jax.tree.map(lambda y: jax.ShapeDtypeStruct((T, *y.shape), y.dtype), y)
    direction, cotangent = draw(4, real(args), jnp.float64), draw(5, real((final, ys)), jnp.float64)
    plain_options = {k: v for k, v in options.items() if k != "chunk"}

    @jax.jit
    def every(*given):
        runs = *paths(cell, **options), functools.partial(plain, cell, **plain_options)
        return [battery(run, *given, second) for run in runs]

    *ours, expected = every(args, direction, cotangent)
    for found in ours:
        closer_than_issue(found, expected)
    return every, args, direction, cotangent


def _scan_of_unroll(run):
    """Two windows in a `lax.scan`, the state carried."""

    def transformed(params, xs, state):
        windows = jax.tree.map(lambda x: jnp.stack([x, jnp.flip(x, 0)]), xs)
        return lax.scan(lambda s, window: run(params, window, s), state, windows)

    return transformed


def _summed(run):
    return lambda *args: sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(run(*args)))


def _vmapped(of):
    """`of` mapped over three inputs and initial states."""

    def transformed(params, xs, state):
        def scaled(by):
            return of(params, *jax.tree.map(lambda a: a * by, (xs, state)))

        return jax.vmap(scaled)(jnp.array([0.5, 1.0, 2.0]))

    return transformed


TRANSFORMS = {
    "grad": lambda run: jax.grad(_summed(run), (0, 1, 2)),
    "jacfwd": lambda run: jax.jacfwd(run, 2),
    "jacrev": lambda run: jax.jacrev(run, 2),
    "hessian": lambda run: jax.hessian(_summed(run), 2),
    "vmap": _vmapped,
    "vmap of grad": lambda run: _vmapped(jax.grad(_summed(run), (0, 2))),
    "vmap of jacfwd": lambda run: _vmapped(jax.jacfwd(run, 2)),
    "vmap of hessian-vector product": lambda run: _vmapped(
        lambda p, x, s: jax.jvp(lambda x: jax.grad(_summed(run), (0, 1))(p, x, s), (x,), (jnp.ones_like(x),))
    ),
    "reverse over forward": lambda run: jax.grad(
        lambda p, x, s: jax.jvp(functools.partial(_summed(run), p, x), (s,), (s,))[1], (0, 1, 2)
    ),
    "grad of vmap": lambda run: jax.grad(_summed(_vmapped(run)), (0, 2)),
    "grad of checkpoint": lambda run: jax.grad(_summed(jax.checkpoint(run)), (0, 1, 2)),
    "grad of scan": lambda run: jax.grad(_summed(_scan_of_unroll(run)), (0, 1, 2)),
    "grad of grad": lambda run: jax.grad(
        lambda *args: sum(jnp.vdot(g, g) for g in jax.tree.leaves(jax.grad(_summed(run), (0, 1, 2))(*args)))
    ),
    "third derivative": lambda run: (
        lambda p, x, s: jax.grad(
            lambda x: jax.jvp(lambda x: jax.jvp(lambda x: _summed(run)(p, x, s), (x,), (x,))[1], (x,), (x,))[1]
        )(x)
    ),
}


OFTEN = ("vmap of grad", "grad of checkpoint")


@pytest.mark.parametrize(
    "transform",
    [pytest.param(t, id=n, marks=() if n in OFTEN else pytest.mark.exhaustive) for n, t in TRANSFORMS.items()],
)
@pytest.mark.usefixtures("x64")
def test_transformations_are_those_of_a_plain_scan(transform):
    cell = jaxrnn.GRU(3, 2)
    args = example(cell, steps=3, dtype=jnp.float64)
    lengths = np.array([3, 2])
    runs = *paths(cell, lengths=lengths), functools.partial(plain, cell, lengths=lengths)
    *ours, expected = jax.jit(lambda *args: [transform(run)(*args) for run in runs])(*args)
    for found in ours:
        closer_than_issue(found, expected)


@pytest.mark.usefixtures("x64")
def test_not_jitted_and_not_chunked_is_the_same():
    params, xs, state = example(GRU, steps=3, dtype=jnp.float64)
    close(jaxrnn.unroll(GRU, params, xs, state), unrolled(GRU, params, xs, state, chunk=2))


def test_a_complex_state_has_the_derivatives_of_a_plain_scan(x64):
    cell = Diagonal(3, 4)
    params, xs, state = example(cell, dtype=jnp.float64)

    def slopes(run):
        return jax.jit(jax.grad(lambda *args: jnp.sum(jnp.sin(run(*args)[1])), (0, 1)))(params, xs)

    ours = slopes(lambda params, xs: jaxrnn.unroll(cell, params, xs, state, chunk=2))
    closer_than_issue(
        ours, slopes(lambda params, xs: lax.scan(functools.partial(cell, params, path="scan"), state, xs))
    )
    assert jax.eval_shape(functools.partial(jaxrnn.unroll, cell), params, xs)[1].dtype == jnp.float64
