"""xLSTM's cells, gated linear attention and the delta rule: limits, memories and sizes."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from bench.loops import equations
from jaxrnn.engine.chunks import StepData, in_chunks
from jaxrnn.engine.matrix_memory import MatrixDrive, MatrixMemory, matrix_chunk, matrix_step
from jaxrnn.networks import StepWrapper
from tests.reference.delta import matrix_memory
from tests.registry import example, in_loops, rare, unrolled

exhaustive = pytest.mark.exhaustive
KEY = jax.random.key(0)
close = functools.partial(chex.assert_trees_all_close, rtol=1e-10, atol=1e-10)


def size(cell):
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(cell.init, KEY)))


def test_parameter_counts():
    assert size(jaxrnn.SLSTM(3, 4)) == 4 * 4 * (3 + 4 + 1)
    assert size(jaxrnn.SLSTM(3, 4, heads=2)) == 4 * 4 * (3 + 4 // 2 + 1)
    assert size(jaxrnn.MLSTM(3, 4, heads=2)) == 4 * 4 * (3 + 1) + 2 * 2 * (3 + 1)
    assert size(jaxrnn.GatedLinearAttention(3, 4, heads=2, rank=5)) == 3 * 3 * 4 + 5 * (3 + 4) + 4
    assert size(jaxrnn.DeltaNet(3, 4, heads=2)) == 3 * 3 * 4 + 3 * 2


@pytest.mark.parametrize("shift", [200.0, *rare(-200.0)])
@pytest.mark.usefixtures("x64")
def test_slstm_does_not_see_the_scale_of_its_input_gates(shift):
    """Numerator and normalizer share it; without the running maximum both would over- or underflow in float32."""
    cell = jaxrnn.SLSTM(3, 4)
    params, xs, _ = example(cell, dtype=jnp.float64)
    shifted = params._replace(b=params.b + np.repeat([shift, 0.0], [4, 12]))
    close(unrolled(cell, shifted, xs)[1], unrolled(cell, params, xs)[1])
    single = jax.tree.map(np.float32, (shifted, xs))
    chex.assert_tree_all_finite(jax.jit(jax.grad(lambda args: jnp.sum(jaxrnn.unroll(cell, *args)[1])))(single))


@pytest.mark.parametrize("shift", [-200.0, *rare(200.0)])
def test_an_mlstm_whose_input_gates_are_shut_has_derivatives(shift):
    """Shut, exp(-m') overflows: the output is zero, and so is every derivative; also of a row that has no step."""
    cell = jaxrnn.MLSTM(3, 4)
    params, xs, _ = example(cell)
    params = params._replace(b_g=params.b_g + np.array([shift, 0.0], np.float32))

    def loss(params, xs, state):
        return jnp.sum(jaxrnn.unroll(cell, params, xs, state, lengths=np.array([5, 0]))[1])

    value, grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(params, xs, cell.initial_state((2,)))
    chex.assert_tree_all_finite((value, grads))
    assert (abs(value) < 1e-30) == (shift < 0)


# Chunks of steps at once, against single steps

CHUNKED = [jaxrnn.MLSTM(3, 4, heads=2), jaxrnn.DeltaNet(3, 4, heads=2), jaxrnn.GatedLinearAttention(3, 4, heads=2)]


class Stepped(StepWrapper):
    """Runs a cell step by step."""

    def step_with(self, params, state, drive, draw):
        return self.cell.step_with(params, state, drive, draw)


def by_steps(cell, params, xs, state, **options):
    """Runs a cell step by step."""
    return jaxrnn.unroll(Stepped(cell), params, xs, state, **options)


def summed(run, cell, options):
    """A loss that sees all outputs and the final state."""

    def loss(args):
        final, ys = run(cell, *args, **options)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves((final, ys))), (final, ys)

    return loss


def gradients(run, cell, args, **options):
    """Gradients, the final state and the outputs."""
    return jax.grad(summed(run, cell, options), has_aux=True)(args)


compiled = functools.partial(jax.jit, static_argnums=(0, 1), static_argnames=("reverse", "chunk", "save"))
derived = compiled(gradients)


@compiled
def ran(run, cell, args, **options):
    """The final state and the outputs."""
    return run(cell, *args, **options)


BOUNDARIES = {"save": "boundaries"}
RESETS = np.arange(21).reshape(7, 3) % 5 == 3
OPTIONS = {
    "none": {},
    "lengths": {"lengths": np.array([5, 0, 7])},
    "resets": {"resets": RESETS},
    "reverse": {"lengths": np.array([7, 6, 0]), "reverse": True},
    "all": {"lengths": np.array([7, 6, 3]), "resets": RESETS, "reverse": True},
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("options", [pytest.param(o, marks=() if o == "all" else exhaustive) for o in OPTIONS])
@pytest.mark.parametrize("cell", [CHUNKED[0], *rare(*CHUNKED[1:])], ids=repr)
@pytest.mark.usefixtures("x64")
def test_chunks_at_once_are_steps(cell, options):
    """Values and gradients, in chunks that divide T and that do not; from a state, or with lengths from a fresh one."""
    params, xs, state = example(cell, steps=7, batch=(3,), dtype=jnp.float64)
    args = params, xs, cell.initial_state((3,), jnp.float64) if "lengths" in OPTIONS[options] else state

    @jax.jit
    def all_three(args):
        at_once = [gradients(jaxrnn.unroll, cell, args, **OPTIONS[options], **o) for o in ({"chunk": 3}, BOUNDARIES)]
        return gradients(by_steps, cell, args, **OPTIONS[options]), *at_once

    expected, in_threes, whole = all_three(args)
    close(in_threes, expected)
    close(whole, expected)


@pytest.mark.parametrize(("steps", "batch"), [(1, ()), (0, (2, 1)), pytest.param(1, (2, 1), marks=exhaustive)])
@pytest.mark.parametrize(
    "cell", [CHUNKED[-1], *rare(jaxrnn.MLSTM(3, 4, forget_gate="exponential"), CHUNKED[1])], ids=repr
)
@pytest.mark.usefixtures("x64")
def test_few_steps_at_once_and_other_batches(cell, steps, batch):
    args = example(cell, steps=steps, batch=batch, dtype=jnp.float64)
    close(*jax.jit(lambda args: [gradients(run, cell, args) for run in (jaxrnn.unroll, by_steps)])(args))


@exhaustive
@pytest.mark.usefixtures("x64")
def test_second_derivatives_of_an_mlstm():
    """Forward over reverse."""
    cell = jaxrnn.MLSTM(3, 4, heads=2)
    args = example(cell, dtype=jnp.float64)

    def product(args, run, **options):
        gradient = jax.grad(lambda args: summed(run, cell, {"resets": RESETS[:5, :2], **options})(args)[0])
        return jax.jvp(gradient, (args,), (args,))

    close(*jax.jit(lambda args: (product(args, jaxrnn.unroll, chunk=2), product(args, by_steps)))(args))


@exhaustive
@pytest.mark.usefixtures("x64")
def test_extreme_gates_of_an_mlstm():
    cell = jaxrnn.MLSTM(3, 4)
    params, xs, _ = example(cell, steps=12, dtype=jnp.float64)
    state = cell.initial_state((2,), jnp.float64)
    both = jax.jit(lambda args: [gradients(run, cell, args) for run in (jaxrnn.unroll, by_steps)])
    for gates in itertools.product((-50.0, 50.0), repeat=2):  # write, forget
        args = params._replace(b_g=params.b_g + jnp.array(gates)), xs, state
        # Where q · n' is near zero an open gate has derivatives of 1e5.
        chex.assert_trees_all_close(*both(args), rtol=1e-8, atol=1e-8)
        single = jax.tree.map(lambda a: a.astype(jnp.float32), args)
        chex.assert_tree_all_finite(derived(jaxrnn.unroll, cell, single))


@pytest.mark.parametrize("options", ["all", *rare("lengths")])
def test_one_gate_that_forgets_all_leaves_the_others_their_digits(options):
    """A log f of -1e9 amid others: the differences of sums over a chunk would be multiples of 64 from then on."""
    cell = jaxrnn.MLSTM(3, 4)
    params, xs, state = example(cell, steps=7, batch=(3,))
    params = params._replace(w_g=params.w_g.at[2, 1].set(1e9))
    xs = xs.at[..., 2].set(0.0).at[2, :, 2].set(-1.0)
    ours, theirs = (ran(run, cell, (params, xs, state), **OPTIONS[options]) for run in (jaxrnn.unroll, by_steps))
    chex.assert_trees_all_close(ours, theirs, rtol=1e-4, atol=1e-5)


@exhaustive
def test_a_long_run_of_an_mlstm_in_float32():
    cell = jaxrnn.MLSTM(8, 16, heads=2)
    params, xs, state = example(cell, steps=300)
    ours = derived(jaxrnn.unroll, cell, (params, xs, state), chunk=64)
    chex.assert_trees_all_close(ours, derived(by_steps, cell, (params, xs, state)), rtol=1e-4, atol=1e-4)


@pytest.mark.exhaustive
def test_an_mlstm_in_bfloat16_adds_up_its_gates_in_float32():
    """Compared with the same parameters and inputs in float32: beside an i of 100 bfloat16 has no room for a log f."""
    cell = jaxrnn.MLSTM(8, 16, heads=2)
    params, xs, state = example(cell, steps=64, dtype=jnp.bfloat16)
    params = params._replace(w_g=params.w_g.at[:, :2].set(0.0), b_g=params.b_g.at[:2].set(100.0))
    half = params, xs, state
    full = jax.tree.map(lambda a: a.astype(jnp.float32), half)
    c, expected = (ran(jaxrnn.unroll, cell, args, chunk=64)[0].c.astype(jnp.float32) for args in (half, full))
    assert jnp.linalg.norm(c - expected) < 0.01 * jnp.linalg.norm(expected)


@exhaustive
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CHUNKED, ids=repr)
def test_nan_is_where_steps_have_it(cell, reverse):
    """That of an input and that of a state: not in steps before, and not beyond a reset."""
    params, xs, state = example(cell, steps=7, batch=(3,))
    xs = xs.at[3, 0].set(jnp.nan)
    state = jax.tree.map(lambda s: s.at[1].set(jnp.nan), state)
    resets = np.zeros((7, 3), bool)
    resets[5 if not reverse else 2, :] = True
    options = {"resets": resets, "reverse": reverse}
    clean = slice(2) if reverse else slice(5, None)

    @functools.partial(jax.jit, static_argnums=0, static_argnames="chunk")
    def both(run, xs, state, **more):
        """The final state and the outputs; the sum of the outputs beyond the reset, and its gradients."""

        def loss(xs, state):
            return jnp.sum(run(cell, params, xs, state, **options, **more)[1][clean])

        return run(cell, params, xs, state, **options, **more), jax.value_and_grad(loss, (0, 1))(xs, state)

    theirs, after_theirs = both(by_steps, xs, state)
    for chunk in (2, 7):
        ours, after_ours = both(jaxrnn.unroll, xs, state, chunk=chunk)
        chex.assert_trees_all_equal(*(jax.tree.map(jnp.isnan, tree) for tree in (ours, theirs)))
        assert jnp.isnan(ours[1]).any(axis=(0, 2)).tolist() == [True, True, False]
        chex.assert_tree_all_finite((after_ours[0], after_ours[1][0][clean]))
        for leaf, one in zip(jax.tree.leaves(after_ours), jax.tree.leaves(after_theirs), strict=True):
            assert not jnp.any(jnp.isnan(leaf) & ~jnp.isnan(one))


def loops(fn, *args):
    """Rounds of every loop."""
    return [e.params["length"] for e in equations(jax.make_jaxpr(fn)(*args).jaxpr) if e.primitive.name == "scan"]


@pytest.mark.parametrize("cell", [*rare(*CHUNKED[:-1]), CHUNKED[-1]], ids=repr)
def test_there_is_no_loop_over_single_steps(cell):
    """Neither forward nor backward."""
    params, xs, state = example(cell, steps=12)

    def run(runner, **options):
        return lambda args: summed(runner, cell, options)(args)[0]

    for of in (lambda run: run, jax.grad):
        assert set(loops(of(run(in_loops, chunk=3)), (params, xs, state))) == {4}
        assert not loops(of(run(in_loops, chunk=12)), (params, xs, state))
        assert set(loops(of(run(functools.partial(by_steps, path="scan"))), (params, xs, state))) == {12}


@pytest.mark.parametrize("kind", [*rare(jaxrnn.MLSTM, jaxrnn.DeltaNet), jaxrnn.GatedLinearAttention])
def test_training_does_not_keep_a_memory_a_step(kind):
    """Neither its own run nor what is kept between forward and backward pass; a run by steps keeps them all."""
    cell, steps, batch = kind(8, 128, heads=2), 128, 4
    shapes = jax.eval_shape(
        lambda: (cell.init(KEY), jnp.zeros((steps, batch, 8)), cell.initial_state((batch,), jnp.float32))
    )
    memories = 4 * steps * batch * shapes[2][0].size // batch

    def temporary_bytes(run):
        gradient = jax.jit(jax.grad(summed(run, cell, {}), has_aux=True))
        return gradient.lower(shapes).compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(jaxrnn.unroll) < 0.5 * memories
    assert temporary_bytes(by_steps) > memories


@pytest.mark.usefixtures("x64")
def test_an_mlstm_may_be_stepped_as_part_of_another_cell():
    cell = jaxrnn.MLSTM(3, 4)
    params, xs, state = example(cell, dtype=jnp.float64)
    close(*(ran(jaxrnn.unroll, net, (params, xs, state)) for net in (jaxrnn.Zoneout(cell, 0.0), cell)))
    assert jaxrnn.Attention(jaxrnn.MLSTM(8, 4), 5, 6).input_size == 3


# The algorithm itself, against the recurrence

T, B, HEADS, D, E = 21, 3, 2, 5, 4


def drives(decay, erase, seed=0):
    """Leaves `[T, B, HEADS, ...]`, with a log decay and an erase-read and erase-write of these kinds."""
    rng = np.random.default_rng(seed)

    def normal(n):
        return rng.normal(size=(T, B, HEADS, n))

    def unit(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    q, k, v, beta = normal(D), unit(normal(D)), normal(E), rng.uniform(0, 2, (T, B, HEADS, 1))
    wide = {"scalar": 1, "vector": D, "stabilized": 1}.get(decay)
    log_decay = None if wide is None else -rng.exponential(0.5, (T, B, HEADS, wide))
    alpha = 1.0 if log_decay is None else np.exp(log_decay)
    a, b = {
        "none": (None, None),
        "b = k": (-beta * alpha * k, None),
        "general": (-unit(normal(D)), 0.5 * rng.uniform(0, 1, (T, B, HEADS, D)) * k),
    }[erase]
    return MatrixDrive(q, k, v, log_decay, a, b, 5 * normal(1) if decay == "stabilized" else None)


def memories(drive):
    rng = np.random.default_rng(9)
    s = rng.normal(size=(B, HEADS, D, E))
    return MatrixMemory(s, None if drive.log_input is None else rng.normal(size=(B, HEADS)))


def in_pairs(memory, drive, lengths=None, resets=None, *, reverse=False, chunk=7):
    """The memory after all steps and what they read."""

    def segment(_, memory, part):
        return matrix_chunk(memory, StepData(*part), reverse)

    valid = None if lengths is None else np.arange(T)[:, None] < lengths
    if reverse and resets is not None:  # before which steps, in the direction of the run
        resets = np.concatenate([resets[1:], np.zeros_like(resets[:1])])
    return in_chunks(segment, None, memory, (drive, valid, resets), chunk, reverse=reverse, save="states")


def in_steps(memory, drive):
    return jax.lax.scan(matrix_step, memory, drive)


def without_maximum(memory, read):
    """S and y, from what the running maximum scales."""
    (s, m), (y, read) = memory, read
    return (s, y) if m is None else (s * np.exp(m)[..., None, None], y * np.exp(read)[..., None])


def looped(memory, drive, lengths=None, resets=None, reverse=False):
    """The same by the recurrence."""
    s0 = memory.s if memory.m is None else memory.s * np.exp(memory.m)[..., None, None]
    s, y = np.empty_like(s0), np.zeros((T, B, HEADS, E))
    for i, j in np.ndindex(B, HEADS):
        order = np.arange(T if lengths is None else lengths[i])
        fresh = np.zeros(T, bool) if resets is None else resets[:, i]
        if reverse:
            order, fresh = order[::-1], np.append(fresh[1:], False)
        row = MatrixDrive(*(None if leaf is None else leaf[order, i, j] for leaf in drive))
        s[i, j], y[order, i, j] = matrix_memory(s0[i, j], row, fresh[order])
    return s, y


SETTINGS = [(decay, erase) for decay in ("none", "scalar", "vector") for erase in ("none", "b = k", "general")]
SETTINGS += [("stabilized", "none")]
# The rest with `-m exhaustive`.
OFTEN = [("vector", "general"), ("stabilized", "none")]
typical_settings = pytest.mark.parametrize(
    ("decay", "erase"), [pytest.param(*s, marks=() if s in OFTEN else exhaustive) for s in SETTINGS]
)


@typical_settings
@pytest.mark.usefixtures("x64")
def test_chunks_and_steps_are_the_recurrence(decay, erase):
    """In chunks of several sizes, which divide T and do not; keys and values of different widths."""
    drive = drives(decay, erase)
    memory = memories(drive)

    @jax.jit
    def runs(*args):
        return [in_steps(*args), *(in_pairs(*args, chunk=chunk) for chunk in (1, 3, 16, T))]

    for run in runs(memory, drive):
        close(without_maximum(*run), looped(memory, drive))


@typical_settings
@pytest.mark.usefixtures("x64")
def test_chunks_with_lengths_and_resets_are_the_recurrence(decay, erase):
    """What is beyond a row may be NaN; with resets at the first step, at the last, and at all of a row."""
    reverse = erase != "none"
    drive, lengths, resets = drives(decay, erase), np.array([T, 11, 0]), np.zeros((T, B), bool)
    memory = memories(drive)
    resets[[0, 5, 6, T - 1], 0] = resets[:11, 1] = True
    beyond = (np.arange(T)[:, None] >= lengths)[..., None, None]
    padded = jax.tree.map(lambda x: np.where(beyond, np.nan, x), drive)
    run = jax.jit(functools.partial(in_pairs, lengths=lengths, resets=resets, reverse=reverse))(memory, padded)
    s, y = without_maximum(*run)
    close((s, np.where(beyond, 0.0, y)), looped(memory, drive, lengths, resets, reverse))


@typical_settings
@pytest.mark.usefixtures("x64")
def test_derivatives_of_chunks_are_those_of_steps(decay, erase):
    def loss(args, run):
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(run(*args)))

    drive = drives(decay, erase)
    args = jax.tree.map(jnp.asarray, (memories(drive), drive))
    close(*jax.jit(lambda args: [jax.grad(loss)(args, run) for run in (in_pairs, in_steps)])(args))


@pytest.mark.parametrize(
    ("decay", "erase"),
    [pytest.param(*s, marks=() if s == OFTEN[-1] else exhaustive) for s in SETTINGS if s[0] != "none"],
)
def test_strong_decays_leave_the_others_their_digits(decay, erase):
    """In float32, and with derivatives that are finite."""
    drive = drives(decay, erase)
    drive = drive._replace(log_decay=drive.log_decay * 1e-3)
    drive.log_decay[8, ..., 0], drive.log_decay[14, ..., 0] = -1e5, -np.inf
    expected = looped(memories(drive), drive)
    args = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (memories(drive), drive))

    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(args):
        run = in_pairs(*args, chunk=16)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(run)), run

    (_, run), grads = jax.jit(loss)(args)
    chex.assert_trees_all_close(without_maximum(*run), expected, rtol=1e-3, atol=1e-4)
    chex.assert_tree_all_finite(grads)


@pytest.mark.parametrize("erase", ["b = k", "general"])
def test_equal_keys_that_are_reflected(erase):
    """β = 2 in float32: powers of the triangular matrix would grow beyond all bounds."""
    drive = drives("none", "b = k")
    k = np.broadcast_to(drive.k[:1], drive.k.shape)
    drive = drive._replace(k=k, a=-2 * k, b=k if erase == "general" else None)
    memory, single = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (memories(drive), drive))
    run = jax.jit(functools.partial(in_pairs, chunk=T))(memory, single)
    chex.assert_trees_all_close(without_maximum(*run), looped(memories(drive), drive), rtol=1e-4, atol=1e-4)


def test_an_input_gate_needs_one_decay_a_head():
    for wrong in (drives("vector", "none"), drives("none", "none"), drives("scalar", "b = k")):
        drive = wrong._replace(log_input=wrong.v[..., :1])
        with pytest.raises(ValueError, match="drive: got log_input, needs with it a log_decay of one number a head"):
            jax.eval_shape(in_steps, memories(drive), drive)


@pytest.mark.parametrize("cell", [CHUNKED[0], *rare(*CHUNKED[1:])], ids=repr)
def test_no_rows(cell):
    args = example(cell, batch=(0,))
    grads, (final, ys) = derived(jaxrnn.unroll, cell, args, chunk=2)
    assert ys.shape == (5, 0, 4)
    chex.assert_trees_all_equal_shapes(final, args[2])
    chex.assert_trees_all_equal(grads[0], jax.tree.map(jnp.zeros_like, args[0]))


# Limits and memories


@pytest.mark.usefixtures("x64")
def test_an_slstm_of_ones_is_a_running_mean():
    """Gates that let all in and keep all: h is σ(o) times the mean of what was seen."""
    cell = jaxrnn.SLSTM(1, 1, forget_gate="exponential")
    params = jaxrnn.cells.SLSTMParams(
        jnp.array([[0.0, 0.0, 1.0, 0.0]]), jnp.zeros((1, 4)), jnp.array([0.0, 0.0, 0.0, 50.0])
    )
    xs = jnp.array([[0.5], [-1.0], [2.0]])
    _, ys = unrolled(cell, params, xs)
    means = np.cumsum(np.tanh(xs), axis=0) / np.arange(1, 4)[:, None]
    close(ys, means)


def remember(cell, params, pairs, query, width):
    """What a memory answers to a query after it saw pairs of a key and a value, each an input of its own."""
    xs = np.stack([np.concatenate([np.zeros(width), k, v]) for k, v in pairs] + [query])
    return np.asarray(unrolled(cell, params, xs)[1])[-1]


@pytest.mark.usefixtures("x64")
def test_a_delta_rule_overwrites_and_keeps_the_rest():
    """q, k, v are parts of the input; β is one. A key is written twice: the last value stays, others are untouched."""
    d = 3
    cell = jaxrnn.DeltaNet(3 * d, d)
    params = jaxrnn.cells.DeltaNetParams(jnp.eye(3 * d), jnp.full((3 * d, 1), 50.0))
    # Keys far above zero, where SiLU is the identity, and at a right angle to each other.
    a, b = 30 * np.array([1.0, 0.0, 0.0]), 30 * np.array([0.0, 1.0, 0.0])
    one, two, three = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0]), np.array([7.0, 8.0, 9.0])

    def query(key):
        return np.concatenate([key, np.array([0.0, 0.0, 30.0]), np.zeros(d)])

    for key, value in ((a, three), (b, two)):
        close(remember(cell, params, [(a, one), (b, two), (a, three)], query(key), d), value)


@pytest.mark.usefixtures("x64")
def test_linear_attention_adds_and_forgets():
    """With α near one, the sum of values by the products of query and keys; with α of zero the last pair alone."""
    cell = jaxrnn.GatedLinearAttention(6, 2, rank=1, temperature=1.0)
    params = jaxrnn.cells.GLAParams(jnp.eye(6), jnp.zeros((6, 1)), jnp.zeros((1, 2)), jnp.full(2, 50.0))
    xs = np.random.default_rng(0).normal(size=(4, 6))
    q, k, v = np.split(xs, 3, axis=-1)
    ys = np.asarray(unrolled(cell, params, xs)[1])
    close(ys[-1], (q[-1] @ k.T) @ v / 2**0.5)
    ys = np.asarray(unrolled(cell, params._replace(b=np.full(2, -50.0)), xs)[1])
    close(ys[-1], (q[-1] @ k[-1]) * v[-1] / 2**0.5)


@pytest.mark.parametrize("kind", [jaxrnn.SLSTM, jaxrnn.MLSTM, jaxrnn.DeltaNet, jaxrnn.GatedLinearAttention])
def test_heads_divide(kind):
    with pytest.raises(ValueError, match="heads: got 3, needs a divisor of hidden_size = 4"):
        kind(3, 4, heads=3)


@pytest.mark.parametrize("kind", [jaxrnn.SLSTM, jaxrnn.MLSTM])
def test_forget_gates_are_those_there_are(kind):
    with pytest.raises(ValueError, match="forget_gate: got 'tanh', needs one of 'sigmoid', 'exponential'"):
        kind(3, 4, forget_gate="tanh")


@exhaustive
def test_no_nan_is_made_to_choose_from():
    """`jax_debug_nans` stops at an operation that makes one."""
    cell = jaxrnn.MLSTM(3, 4)
    params, xs, state = example(cell)
    with jax.debug_nans(True):
        grads = jax.grad(lambda params: jaxrnn.unroll(cell, params, xs, state)[1].sum())(params)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(grads))
