"""Recurrent batch normalization in training: moments of the batch, moving averages, padding."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from bench.loops import products
from jaxrnn import networks
from tests.oracles import oracle
from tests.reference import to_numpy
from tests.reference.batch_norm import in_batch
from tests.registry import T, example, unrolled

CELL = jaxrnn.BatchNormLSTM(3, 4, steps=3, momentum=0.3)
POOLED = jaxrnn.BatchNormLSTM(3, 4, steps=1, momentum=0.3)
ROWS = 5

trained = jax.jit(networks.batch_unroll, static_argnums=0, static_argnames="chunk")
close = functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11)


def arguments(cell, steps=T, batch=(ROWS,), start=0, dtype=jnp.float64):
    params, xs, state = example(cell, steps=steps, batch=batch, dtype=dtype)
    return params, xs, state._replace(t=jnp.full(batch, start, jnp.int32))


@pytest.mark.exhaustive
@pytest.mark.parametrize("start", [0, 2])
@pytest.mark.parametrize("lengths", [[5, 5, 5, 5, 5], [5, 1, 4, 0, 2]], ids=str)
@pytest.mark.parametrize("cell", [CELL, POOLED], ids=["steps", "pooled"])
@pytest.mark.usefixtures("x64")
def test_training_is_that_of_the_equations(cell, lengths, start):
    """Also where one row is left (the population's moments stand in), and beyond the last entry."""
    params, xs, state = arguments(cell, start=start)
    _, ys, statistics = trained(cell, params, xs, state, lengths=np.array(lengths), chunk=2)
    expected_ys, kept = in_batch(cell, *jax.tree.map(to_numpy, (params, xs, state)), np.array(lengths))
    close(ys, expected_ys)
    for found, (means, variances) in zip(statistics, kept, strict=True):
        close(found.mean, means)
        close(found.std**2, variances)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("x64")
def test_norms_are_those_of_torch():
    """Outputs of rows of different length, and gradients through the moments."""
    torch = oracle("torch")
    lengths = np.array([5, 2, 4, 5, 1])
    params, xs, state = arguments(CELL)
    weights = params._replace(statistics=None)
    theirs = jax.tree.map(lambda a: torch.tensor(np.asarray(a), requires_grad=True), weights)
    h, c = (torch.tensor(np.asarray(a)) for a in (state.h, state.c))

    def norm(a, scale, bias=None):
        return torch.nn.functional.batch_norm(a, None, None, scale, bias, training=True, eps=CELL.epsilon)

    total = 0.0
    for t, x in enumerate(torch.tensor(np.asarray(xs))):
        rows = lengths[lengths > t - 1] > t  # of those that were there before
        x, h, c = x[lengths > t], h[rows], c[rows]
        z = norm(x @ theirs.w_x, theirs.s_x) + norm(h @ theirs.w_h, theirs.s_h) + theirs.b
        i, f, g, o = z.chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * norm(c, theirs.s_c, theirs.b_c).tanh()
        total = total + (h**2).sum()
    total.backward()

    @jax.jit
    @jax.value_and_grad
    def loss(weights):
        whole = weights._replace(statistics=params.statistics)
        return jnp.sum(networks.batch_unroll(CELL, whole, xs, state, lengths=lengths)[1] ** 2)

    value, slopes = loss(weights)
    close(value, total.item())
    jax.tree.map(lambda ours, t: close(ours, t.grad.numpy()), slopes, theirs)


@pytest.mark.exhaustive
def test_padding_is_in_no_statistic():
    """Nor in outputs, states and gradients."""
    lengths = np.array([5, 1, 4, 0, 2])
    params, xs, state = arguments(CELL, dtype=jnp.float32)
    padding = np.arange(T)[:, None] >= lengths

    @jax.jit
    def run(xs):
        def loss(params):
            found = networks.batch_unroll(CELL, params, xs, state, lengths=lengths)
            return jnp.sum(found[1]), found

        return jax.grad(loss, has_aux=True)(params)

    clean = run(xs)
    for poison in (np.nan, 1e6):
        dirty = run(np.where(padding[..., None], np.float32(poison), xs))
        chex.assert_tree_all_finite(dirty)
        chex.assert_trees_all_equal(clean, dirty)
    final = clean[1][0]
    np.testing.assert_array_equal(final.t, lengths)
    np.testing.assert_array_equal(np.asarray(final.h)[3], np.asarray(state.h)[3])


@pytest.mark.exhaustive
@pytest.mark.usefixtures("x64")
def test_two_batch_axes_are_one_with_all_rows():
    params, xs, state = arguments(CELL, batch=(2, 3))
    lengths = np.array([[5, 3, 2], [0, 4, 5]])
    final, ys, statistics = trained(CELL, params, xs, state, lengths=lengths)
    joined = jax.tree.map(lambda a: a.reshape(6, *a.shape[2:]), state)
    one = trained(CELL, params, xs.reshape(T, 6, 3), joined, lengths=lengths.reshape(6))
    close(ys.reshape(T, 6, 4), one[1])
    close(final.c.reshape(6, 4), one[0].c)
    jax.tree.map(close, statistics, one[2])


@pytest.mark.exhaustive
@pytest.mark.usefixtures("x64")
def test_evaluation_on_the_batch_it_was_trained_on_is_training():
    """With a momentum of one the population is the last batch."""
    cell = jaxrnn.BatchNormLSTM(3, 4, steps=T, momentum=1.0)
    params, xs, state = arguments(cell)
    _, ys, statistics = trained(cell, params, xs, state)
    _, again = unrolled(cell, params._replace(statistics=statistics), xs, state)
    close(again, ys)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("x64")
def test_two_halves_make_a_whole():
    params, xs, state = arguments(CELL)
    final, ys, statistics = trained(CELL, params, xs, state)
    middle, first, moved = trained(CELL, params, xs[:2], state)
    last, second, moved = trained(CELL, params._replace(statistics=moved), xs[2:], middle)
    close(ys, jnp.concatenate([first, second]))
    jax.tree.map(close, (final, statistics), (last, moved))


def test_no_steps_change_nothing():
    params, xs, state = arguments(CELL, dtype=jnp.float32)
    final, ys, statistics = trained(CELL, params, xs[:0], state)
    chex.assert_trees_all_equal((final, statistics), (state, params.statistics))
    assert ys.shape == (0, ROWS, 4)


@pytest.mark.exhaustive
def test_one_product_in_the_loop_and_no_gradient_from_statistics():
    params, xs, state = arguments(CELL, dtype=jnp.float32)
    run = functools.partial(networks.batch_unroll, CELL)
    # The second loop moves the averages.
    assert products(run, params, xs, state) == [1, 0]

    @jax.jit
    @jax.jacrev
    def slopes(params):
        _, ys, statistics = run(params, xs, state)
        return jnp.sum(ys), sum(map(jnp.sum, jax.tree.leaves(statistics)))

    of_ys, of_statistics = slopes(params)
    assert not any(leaf.any() for leaf in jax.tree.leaves((of_statistics, of_ys.statistics)))
    assert of_ys.w_h.any()


def test_parameters_are_counted_and_start_as_in_the_paper():
    params = jax.tree.map(np.asarray, CELL.init(jax.random.key(0)))
    weights = params._replace(statistics=None)
    assert sum(leaf.size for leaf in jax.tree.leaves(weights)) == 4 * 4 * (3 + 4 + 3) + 2 * 4
    np.testing.assert_array_equal(params.w_h[:, 8:12], np.eye(4))
    np.testing.assert_allclose(params.w_h[:, 4:8].T @ params.w_h[:, 4:8], np.eye(4), atol=1e-6)
    assert {float(s) for s in (*params.s_x, *params.s_h, *params.s_c)} == {np.float32(0.1)}
    assert params.b.tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda p, xs: networks.batch_unroll(jaxrnn.LSTM(3, 4), p, xs),
            TypeError,
            "cell: got LSTM, needs a BatchNormLSTM",
        ),
        (
            lambda p, xs: networks.batch_unroll(CELL, p, xs[:, :1]),
            ValueError,
            r"xs: got the shape \(5, 1, 3\).*two rows",
        ),
        (
            lambda p, xs: networks.batch_unroll(CELL, p, xs[..., :2]),
            ValueError,
            r"xs: got the shape \(5, 5, 2\)",
        ),
        (
            lambda p, xs: networks.batch_unroll(CELL, p, xs, lengths=np.full(5, 6)),
            ValueError,
            "lengths: got values",
        ),
        (
            lambda p, xs: networks.batch_unroll(CELL, p, xs, chunk=0),
            ValueError,
            "chunk: got 0, needs a positive",
        ),
        (
            lambda p, xs: networks.batch_unroll(CELL, p, xs, CELL.initial_state()),
            ValueError,
            r"state\.h: got the shape",
        ),
        (lambda p, xs: jaxrnn.BatchNormLSTM(3, 4, steps=0), ValueError, "steps: got 0, needs a positive integer"),
        (lambda p, xs: jaxrnn.BatchNormLSTM(3, 4, 5, momentum=0.0), ValueError, "momentum: got 0.0, needs a positive"),
    ],
)
def test_what_cannot_be_is_refused(call, error, message):
    params, xs, _ = arguments(CELL, dtype=jnp.float32)
    with pytest.raises(error, match=message):
        call(params, xs)
