"""`Stack`, `Bidirectional` and `Residual`: against compositions by hand."""

import functools
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import networks
from tests import reference
from tests.registry import B, T, example, rare, unrolled

close = functools.partial(chex.assert_trees_all_close, rtol=1e-6, atol=1e-6)
LENGTHS = np.array([5, 2])

LSTM, GRU, ELMAN = jaxrnn.Projected(jaxrnn.LSTM(3, 6), 4), jaxrnn.GRU(4, 4), jaxrnn.Elman(4, 2)
STACK = jaxrnn.Stack((LSTM, jaxrnn.Residual(GRU), ELMAN))


# Stack


@pytest.mark.parametrize("options", [{"lengths": LENGTHS}, *rare({}, {"reverse": True})], ids=str)
def test_a_stack_is_its_layers_one_after_the_other(options):
    params, xs, state = example(STACK)
    final, ys = unrolled(STACK, params, xs, state, **options)
    for i, cell in enumerate(STACK.cells):
        one, xs = unrolled(cell, params[i], xs, state[i], **options)
        close(final[i], one)
    close(ys, xs)


def test_a_residual_layer_adds_its_input():
    cell = jaxrnn.Residual(GRU)
    params, xs, state = example(cell)
    final, ys = unrolled(GRU, params, xs, state)
    close(unrolled(cell, params, xs, state), (final, xs + ys))


def test_generation_steps_what_was_trained_by_unroll():
    """A deep, mixed stack stepped one by one, fed with its own outputs, as in sampling."""
    net = jaxrnn.Stack((jaxrnn.LSTM(3, 4), jaxrnn.Residual(jaxrnn.GRU(4, 4)), jaxrnn.Elman(4, 3)))
    params, xs, state = example(net)
    state, ys = unrolled(net, params, xs, state)
    step, fed = jax.jit(net), [ys[-1]]
    one = state
    for _ in range(3):
        one, y = step(params, one, fed[-1])
        fed.append(y)
    final, again = unrolled(net, params, jnp.stack(fed[:-1]), state)
    close((final, again), (one, jnp.stack(fed[1:])))


def test_layers_start_from_different_keys():
    params = jaxrnn.Stack((jaxrnn.GRU(4, 4), jaxrnn.GRU(4, 4))).init(jax.random.key(0))
    assert not np.array_equal(params[0].w_x, params[1].w_x)


def test_init_passes_initializers_and_dtype_on():
    net = jaxrnn.Stack((jaxrnn.GRU(4, 4), jaxrnn.Residual(jaxrnn.Bidirectional(jaxrnn.LSTM(4, 2)))))
    params = net.init(jax.random.key(0), dtype=jnp.bfloat16, input_init=jaxrnn.initializers.zeros)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    assert not params[0].w_x.any()
    assert not params[1].forward.w_x.any()
    assert not params[1].backward.w_x.any()


def test_initializers_go_to_the_layers_that_take_them():
    net = jaxrnn.Stack((jaxrnn.Embedding(5, 3), jaxrnn.Dropout(jaxrnn.LSTM(3, 4), 0.5), jax.nn.relu, jaxrnn.GRU(4, 2)))
    ones = jax.nn.initializers.ones
    table, lstm, _, gru = net.init(jax.random.key(0), embedding_init=ones, forget_bias=2.0, bias_init=ones)
    assert (table == 1).all()
    assert (lstm.b[4:8] == 3).all()
    assert (gru.b == 1).all()


@pytest.mark.parametrize(
    "net",
    [
        jaxrnn.Stack((jaxrnn.Embedding(5, 3), jax.nn.relu, jaxrnn.Linear(3, 2))),
        jaxrnn.Residual(jaxrnn.Stack((jaxrnn.Linear(3, 3), jax.nn.relu))),
        jaxrnn.Linear(3, 2),
        jaxrnn.Embedding(5, 3),
        jaxrnn.Bidirectional(jaxrnn.Multiplicative(jaxrnn.LSTM(3, 4))),
    ],
    ids=str,
)
def test_an_initializer_that_no_layer_takes_is_refused(net):
    with pytest.raises(TypeError, match="forget_bais"):
        net.init(jax.random.key(0), forget_bais=2.0)


# Dropout


def spy(rate, width, steps):
    """A stack whose first layer gives ones and whose second gives what it sees: its outputs are the dropout's."""

    def one(z):
        return jnp.ones_like(z)

    def same(z):
        return z

    net = jaxrnn.Stack((jaxrnn.Elman(1, width, activation=one), jaxrnn.Elman(width, width, activation=same)), rate)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(net.init, jax.random.key(0)))
    params = (zeros[0], zeros[1]._replace(w_x=jnp.eye(width)))
    return functools.partial(unrolled, net, params, jnp.zeros((steps, 1, 1)))


def test_dropout_needs_a_key():
    net = jaxrnn.Stack((jaxrnn.GRU(3, 4), jaxrnn.GRU(4, 4)), dropout=0.5)
    sure = jaxrnn.Stack(net.cells)
    params, xs, state = example(net)
    key = jax.random.key(0)
    without = unrolled(sure, params, xs, state)
    chex.assert_trees_all_equal(unrolled(net, params, xs, state), without)
    chex.assert_trees_all_equal(unrolled(sure, params, xs, state, key=key), without)
    dropped = unrolled(net, params, xs, state, key=key)
    assert not np.array_equal(dropped[1], without[1])
    chex.assert_trees_all_equal(unrolled(net, params, xs, state, key=key), dropped)
    assert not np.array_equal(unrolled(net, params, xs, state, key=jax.random.key(1))[1], dropped[1])
    # Between layers, not before the first nor after the last: the first layer's state is what it was.
    chex.assert_trees_all_equal(dropped[0][0], without[0][0])
    assert dropped[1].all()


def test_dropout_drops_at_its_rate_and_keeps_the_mean():
    rate, steps, width = 0.3, 200, 100
    ys = np.asarray(spy(rate, width, steps)(key=jax.random.key(0))[1])[:, 0]
    kept = ys != 0
    np.testing.assert_allclose(ys[kept], 1 / (1 - rate), rtol=1e-6)
    # 20000 draws: four standard deviations are 0.013.
    assert abs(kept.mean() - (1 - rate)) < 4 * (rate * (1 - rate) / (steps * width)) ** 0.5
    # Steps and units have masks of their own: neighbors agree as often as chance has it.
    chance = rate**2 + (1 - rate) ** 2
    assert abs((kept[1:] == kept[:-1]).mean() - chance) < 0.02
    assert abs((kept[:, 1:] == kept[:, :-1]).mean() - chance) < 0.02


def test_dropout_has_a_mask_of_its_own_between_every_two_layers():
    """At rate 1/2 one mask keeps a half; two that differ keep a quarter."""

    def ones(z):
        return jnp.ones_like(z)

    def same(z):
        return z

    w, cell = 100, jaxrnn.Elman(100, 100, activation=same)
    net = jaxrnn.Stack((jaxrnn.Elman(1, w, activation=ones), cell, cell), 0.5)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(net.init, jax.random.key(0)))
    params = (zeros[0], *(p._replace(w_x=jnp.eye(w)) for p in zeros[1:]))
    ys = unrolled(net, params, jnp.zeros((200, 1, 1)), key=jax.random.key(3))[1]
    # 20000 draws: four standard deviations are 0.012.
    assert abs((ys != 0).mean() - 0.25) < 0.0125


def test_the_two_directions_drop_apart():
    net = jaxrnn.Bidirectional(jaxrnn.Stack((jaxrnn.GRU(3, 4), jaxrnn.GRU(4, 4)), 0.5), merge=lambda a, b: a - b)
    params, _, _ = example(net)
    params = params._replace(backward=params.forward)
    ys = unrolled(net, params, jnp.ones((1, 1, 3)), key=jax.random.key(0))[1]
    assert ys.any()


# Bidirectional


@pytest.mark.parametrize("merge", ["concat", "sum", jnp.maximum], ids=str)
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_bidirectional_is_two_runs_of_each_row(merge, lengths):
    net = jaxrnn.Bidirectional(jaxrnn.GRU(3, 4), jaxrnn.LSTM(3, 4), merge)
    params, xs, state = example(net)
    final, ys = unrolled(net, params, xs, state, lengths=lengths)
    by_hand = {"concat": lambda a, b: np.concatenate([a, b], -1), "sum": np.add, jnp.maximum: np.maximum}[merge]
    xs, state, final, ys = jax.tree.map(np.asarray, (xs, state, final, ys))
    for row in range(B):
        n = T if lengths is None else lengths[row]
        pick = functools.partial(jax.tree.map, lambda a, row=row: a[row : row + 1])
        one = xs[:n, row : row + 1]
        forward, first = reference.unroll(reference.gru_after, net.forward, params.forward, one, pick(state.forward))
        backward, second = reference.unroll(
            reference.lstm, net.backward, params.backward, one[::-1], pick(state.backward)
        )
        close(ys[:n, row : row + 1], by_hand(first, second[::-1]))
        close((pick(final.forward), pick(final.backward)), (forward, backward))
        assert not ys[n:, row].any()


def test_bidirectional_backward_defaults_to_one_like_forward():
    net = jaxrnn.Bidirectional(jaxrnn.GRU(3, 4))
    params = net.init(jax.random.key(0))
    assert net.cells == (net.forward, net.forward)
    assert not np.array_equal(params.forward.w_h, params.backward.w_h)


def test_bidirectional_runs_backwards_too():
    """Reversed, it is the network of the exchanged directions."""
    net = jaxrnn.Bidirectional(jaxrnn.GRU(3, 4), merge="sum")
    params, xs, state = example(net)
    final, ys = unrolled(net, params, xs, state, lengths=LENGTHS, reverse=True)
    swapped, zs = unrolled(net, type(params)(*params[::-1]), xs, type(state)(*state[::-1]), lengths=LENGTHS)
    close((final, ys), (type(state)(*swapped[::-1]), zs))


def test_bidirectional_layers_in_a_stack():
    lower = jaxrnn.Bidirectional(jaxrnn.GRU(3, 4), jaxrnn.LSTM(3, 2))
    upper = jaxrnn.Residual(jaxrnn.Bidirectional(jaxrnn.LSTM(6, 3)))
    net = jaxrnn.Stack((lower, upper))
    assert (lower.output_size, net.output_size) == (6, 6)
    params, xs, state = example(net)
    final, ys = unrolled(net, params, xs, state, lengths=LENGTHS)
    first, middle = unrolled(lower, params[0], xs, state[0], lengths=LENGTHS)
    second, last = unrolled(upper.cell, params[1], middle, state[1], lengths=LENGTHS)
    close((final, ys), ((first, second), middle + last))


def test_bidirectional_has_no_single_step():
    net = jaxrnn.Bidirectional(jaxrnn.GRU(3, 4))
    params, xs, state = example(net)
    with pytest.raises(TypeError, match=r"Bidirectional: has no single time step.*use unroll"):
        net(params, state, xs[0])
    stack = jaxrnn.Stack((net,))
    with pytest.raises(TypeError, match=r"Bidirectional: has no single time step.*use unroll"):
        stack((params,), (state,), xs[0])


def test_resets_in_a_bidirectional_separate_packed_sequences():
    """Two sequences packed in one row are two rows, in both directions."""
    net = jaxrnn.Bidirectional(jaxrnn.GRU(3, 4), jaxrnn.LSTM(3, 4))
    params, xs, _ = example(net, batch=())
    resets = np.arange(T) == 2
    packed = unrolled(net, params, xs, resets=resets)[1]
    apart = [unrolled(net, params, part)[1] for part in (xs[:2], xs[2:])]
    close(packed, jnp.concatenate(apart))


# What cannot be built


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jaxrnn.Stack(()), "cells: got none, needs at least one"),
        (lambda: jaxrnn.Stack((jaxrnn.GRU(3, 4), jaxrnn.GRU(5, 4))), "gives 4 values, .* above it needs 5"),
        (lambda: jaxrnn.Stack((jaxrnn.GRU(3, 4),), dropout=1.0), r"dropout: got 1.0, needs a rate in \[0, 1\)"),
        (lambda: jaxrnn.Stack((jaxrnn.GRU(3, 4),), dropout=-0.1), r"dropout: got -0.1, needs a rate in \[0, 1\)"),
        (lambda: jaxrnn.Residual(jaxrnn.GRU(3, 4)), "cell: .* turns 3 values into 4, needs equal sizes"),
        (lambda: jaxrnn.Residual(jaxrnn.Masked(jaxrnn.GRU(4, 4))), "cell: .* whose input is no array of reals"),
        (
            lambda: jaxrnn.Residual(jaxrnn.Stack((jaxrnn.Embedding(4, 3), jaxrnn.GRU(3, 4)))),
            "cell: .* whose input is no array of reals",
        ),
        (
            lambda: jaxrnn.Bidirectional(jaxrnn.GRU(3, 4), merge="mean"),
            "merge: got 'mean', needs one of 'concat', 'sum'",
        ),
        (
            lambda: jaxrnn.Bidirectional(jaxrnn.GRU(3, 4), jaxrnn.GRU(3, 5), "sum"),
            "merge: got 'sum' of 4 and 5 values, needs equal output sizes",
        ),
        (lambda: jaxrnn.Bidirectional(jaxrnn.GRU(3, 4), jaxrnn.GRU(2, 4)), "backward: got inputs .*needs those of"),
    ],
)
def test_networks_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_padding_stays_zero_whatever_the_directions_are_merged_by():
    net = jaxrnn.Bidirectional(jaxrnn.GRU(3, 4), merge=lambda a, b: jnp.exp(a + b))
    params, xs, _ = example(net)
    ys = np.asarray(unrolled(net, params, xs, lengths=np.array([5, 3]))[1])
    assert (ys[3:, 1] == 0).all()
    assert (ys[:3] > 0).all()


def test_a_stack_stepped_in_mixed_precision_has_its_products_in_one_dtype():
    net = jaxrnn.Stack((jaxrnn.GRU(3, 4), jaxrnn.GRU(4, 4)))
    params = jaxrnn.cast(net.init(jax.random.key(0)), jnp.bfloat16)
    x, state = jnp.ones((2, 3), jnp.bfloat16), net.initial_state((2,))
    with jax.numpy_dtype_promotion("standard"):
        jaxpr, (stepped, y) = jax.make_jaxpr(net.__call__, return_shape=True)(params, state, x)
    products = [eqn for eqn in jaxpr.jaxpr.eqns if eqn.primitive.name == "dot_general"]
    assert {v.aval.dtype for eqn in products for v in eqn.invars} == {jnp.dtype(jnp.bfloat16)}
    assert [leaf.dtype for leaf in jax.tree.leaves((stepped, y))] == [jnp.float32, jnp.float32, jnp.bfloat16]


def test_functions_stand_between_layers():
    """Haiku's DeepRNN takes them; tokens are looked up in a table."""
    net = jaxrnn.Stack((jaxrnn.Embedding(7, 3), jaxrnn.LSTM(3, 4), jax.nn.relu, jaxrnn.GRU(4, 2)))
    (params, _, state), tokens = example(net), jnp.array([[1, 6], [0, 2], [3, 3]])
    final, ys = unrolled(net, params, tokens, state, lengths=np.array([3, 1]))
    plain = jaxrnn.Stack((jaxrnn.LSTM(3, 4), jaxrnn.GRU(4, 2)))
    _, h = unrolled(plain.cells[0], params[1], params[0][tokens], state[1], lengths=np.array([3, 1]))
    expected, zs = unrolled(plain.cells[1], params[3], jnp.maximum(h, 0), state[3], lengths=np.array([3, 1]))
    np.testing.assert_allclose(ys, zs, rtol=1e-6)
    np.testing.assert_allclose(final[3].h, expected.h, rtol=1e-6)
    state, y = jax.jit(net)(params, state, tokens[0])
    np.testing.assert_allclose(y, ys[0], rtol=1e-6)
    with pytest.raises(TypeError, match=r"cells\[0\]: got .*needs a jaxrnn.Cell"):
        jaxrnn.Stack((jax.nn.relu, jaxrnn.GRU(4, 2)))
    with pytest.raises(TypeError, match=r"cells\[1\]: got the class GRU, needs a jaxrnn.Cell"):
        jaxrnn.Stack((jaxrnn.GRU(3, 4), jaxrnn.GRU))


@dataclass(frozen=True)
class Twice(networks.StepWrapper):
    """Gives its outputs twice and says nothing of it."""

    def step_with(self, params, state, drive, draw):
        state, output = self.cell.step_with(params, state, drive, draw)
        return state, jnp.concatenate([output, output], axis=-1)


def test_outputs_are_as_long_as_a_cell_says():
    net = jaxrnn.Stack((Twice(jaxrnn.GRU(3, 4)), jaxrnn.GRU(4, 2)))
    params, xs, state = example(net)
    message = r"cells: Twice.* gives the shape \[..., 8\], GRU.* needs \[..., 4\]; the property output_size"
    with pytest.raises(ValueError, match=message):
        jaxrnn.unroll(net, params, xs)
    with pytest.raises(ValueError, match=message):
        net(params, state, xs[0])


def test_a_function_between_layers_may_see_a_pytree():
    net = jaxrnn.Stack((networks.Inspected(jaxrnn.GRU(3, 4)), lambda seen: seen.y, jaxrnn.GRU(4, 2)))
    plain = jaxrnn.Stack((jaxrnn.GRU(3, 4), jaxrnn.GRU(4, 2)))
    params, xs, _ = example(plain)
    close(jaxrnn.unroll(net, (params[0], (), params[1]), xs)[1], jaxrnn.unroll(plain, params, xs)[1])


def test_a_merge_may_make_any_outputs():
    """Its sizes are those of what it makes; both directions have outputs of one structure."""
    net = jaxrnn.Bidirectional(jaxrnn.GRU(3, 4), jaxrnn.Elman(3, 2), merge=lambda there, back: (there, back))
    assert net.output_size == (4, 2)
    inspected = networks.Inspected(jaxrnn.GRU(3, 4))
    with pytest.raises(ValueError, match=r"backward: got outputs 4, needs those of forward, Inspection\(y=4"):
        jaxrnn.Bidirectional(inspected, jaxrnn.Elman(3, 4))
    net = networks.BidirectionalLM(jaxrnn.Bidirectional(inspected))
    plain = networks.BidirectionalLM(jaxrnn.Bidirectional(jaxrnn.GRU(3, 4)))
    params, xs, _ = example(plain)
    np.testing.assert_allclose(unrolled(net, params, xs)[1].y, unrolled(plain, params, xs)[1], rtol=1e-6)


@pytest.mark.exhaustive
def test_an_exported_program_is_read_back():
    """Values and gradients, in NamedTuples of the library."""
    net = jaxrnn.Stack((jaxrnn.LSTM(3, 4), jaxrnn.Bidirectional(jaxrnn.GRU(4, 2))))
    params, xs, _ = example(net)
    exported = jax.export.export(jax.jit(functools.partial(jaxrnn.unroll, net)))(params, xs)
    again = jax.export.deserialize(exported.serialize(vjp_order=1))
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6), again.call(params, xs), unrolled(net, params, xs)
    )
    grads = jax.grad(lambda p: jnp.sum(again.call(p, xs)[1]))(params)
    expected = jax.grad(lambda p: jnp.sum(unrolled(net, p, xs)[1]))(params)
    jax.tree.map(close, grads, expected)
