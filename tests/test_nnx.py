"""The nnx adapters: equal to `unroll`, at home inside Flax, and Flax's cells inside `unroll`."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import jaxrnn
import jaxrnn.nnx
from jaxrnn import GRU, LSTM, Bidirectional, Elman, Residual, Stack, VanillaLSTM
from tests.cells import Counter, Token
from tests.registry import draw, example, rare, unrolled

T, B, I, H = 5, 2, 3, 4  # noqa: E741
CELLS = [
    GRU(I, H),
    *rare(
        VanillaLSTM(I, H),
        Elman(I, H, use_bias=False),
        Stack((LSTM(I, 6), Residual(GRU(6, 6)), Elman(6, H)), dropout=0.5),
    ),
]
NETWORKS = [Bidirectional(LSTM(I, H), GRU(I, H)), Token(I, H), *rare(Counter(I, H))]
LENGTHS = jnp.array([T, 3])
close = functools.partial(chex.assert_trees_all_close, atol=1e-6, rtol=1e-6)


def swap(tree):
    """Batch-major to time-major and back."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)


def unroll(cell, params, xs, state=None, **options):
    """`jaxrnn.unroll`, batch-major."""
    state, ys = unrolled(cell, params, swap(xs), state, **options)
    return state, swap(ys)


def quick(f, *modules):
    """`f(*modules)`, quickly compiled as a whole."""
    graphdefs, states = zip(*map(nnx.split, modules), strict=True) if modules else ((), ())
    return jax.jit(lambda states: f(*map(nnx.merge, graphdefs, states)))(states)


def inputs(shape=(B, T, I), seed=1):
    return draw(seed, jax.ShapeDtypeStruct(shape, jnp.float32), jnp.float32, 1.0)


def squares(tree):
    return sum(jnp.sum(leaf.astype(jnp.float32) ** 2) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("cell", CELLS + NETWORKS, ids=repr)
def test_rnn_is_unroll(cell):
    params, xs, state = example(cell)
    lengths, resets = jnp.array([4, 0]), jnp.zeros((T, B), bool).at[2, 0].set(True)
    batchwise = jaxrnn.nnx.RNN(cell, params=params)
    timewise = jaxrnn.nnx.RNN(cell, params=params, time_major=True)
    options = {"initial_carry": state, "seq_lengths": lengths, "reverse": True, "chunk": 2, "save": "boundaries"}
    want, got, (final, ys) = quick(
        lambda batchwise, timewise: (
            unroll(cell, params, swap(xs), state, lengths=lengths, resets=resets, reverse=True),
            batchwise(swap(xs), resets=resets.T, **options),
            timewise(xs, resets=resets, **options),
        ),
        batchwise,
        timewise,
    )
    close(got, want)
    close((final, swap(ys)), want)


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_cell_inside_flax_rnn(cell):
    params, xs, _ = example(cell)
    xs = swap(xs)
    theirs = nnx.RNN(jaxrnn.nnx.Cell(cell, params=params), return_carry=True)
    # Where Flax's RNN has its parameters, ours has them: a checkpoint of the one is one of the other.
    ours = jaxrnn.nnx.RNN(cell, rngs=nnx.Rngs(0))
    nnx.update(ours, nnx.state(theirs, nnx.Param))
    want, got, (state, ys), (want_state, want_ys) = quick(
        lambda theirs, ours: (
            unroll(cell, params, xs),
            theirs(xs),
            theirs(xs, seq_lengths=LENGTHS, reverse=True, keep_order=True),
            ours(xs, seq_lengths=LENGTHS, reverse=True),
        ),
        theirs,
        ours,
    )
    close(got, want)
    close((state, ys[0], ys[1, :3]), (want_state, want_ys[0], want_ys[1, :3]))


def test_flax_bidirectional_around_cells():
    forward, backward = LSTM(I, H), Stack((GRU(I, 6), Elman(6, H)))
    net = Bidirectional(forward, backward)
    params, xs, state = example(net)
    xs = swap(xs)
    directions = [nnx.RNN(jaxrnn.nnx.Cell(c, params=p)) for c, p in zip((forward, backward), params, strict=True)]
    theirs = nnx.Bidirectional(*directions, return_carry=True)
    ours = jaxrnn.nnx.RNN(net, params=params)
    (carry, ys), (want, want_ys) = quick(
        lambda theirs, ours: (
            theirs(xs, seq_lengths=LENGTHS, initial_carry=tuple(state)),
            ours(xs, seq_lengths=LENGTHS, initial_carry=state),
        ),
        theirs,
        ours,
    )
    close((carry, ys[0], ys[1, :3]), (tuple(want), want_ys[0], want_ys[1, :3]))


@pytest.mark.exhaustive
def test_padding_in_layered_bidirectional_networks():
    """Rows of a padded batch are what they are alone, whatever the padding holds: values and gradients."""
    net = Stack((Bidirectional(LSTM(I, H)), Bidirectional(LSTM(2 * H, H), merge="sum")))
    rnn = jaxrnn.nnx.RNN(net, rngs=nnx.Rngs(0))
    xs = inputs().at[1, 3:].set(jnp.nan)

    def padded(rnn):
        _, ys = rnn(xs, seq_lengths=LENGTHS)
        return squares(ys), [ys[:1], ys[1:, :3]]

    def alone(rnn):
        ys = [rnn(row)[1] for row in (xs[:1], xs[1:, :3])]
        return squares(ys), ys

    grads, got = quick(nnx.grad(padded, has_aux=True), rnn)
    want_grads, want = quick(nnx.grad(alone, has_aux=True), rnn)
    close(got, want)
    close(nnx.to_pure_dict(grads), nnx.to_pure_dict(want_grads), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch", [(2, 6), *rare(((),))])
def test_batch_axes(batch):
    cell = LSTM(I, H)
    rnn = jaxrnn.nnx.RNN(cell, rngs=nnx.Rngs(0))
    xs = inputs((*batch, T, I))
    lengths = jnp.arange(np.prod(batch, dtype=int)).reshape(batch) % (T + 1)
    theirs = nnx.RNN(rnn.cell, return_carry=True)
    (state, ys), flat, want, got = quick(
        lambda rnn, theirs: (
            rnn(xs, seq_lengths=lengths),
            rnn(xs.reshape(-1, T, I), seq_lengths=lengths.reshape(-1)),
            rnn(xs),
            theirs(xs),
        ),
        rnn,
        theirs,
    )
    chex.assert_shape([state.h, state.c, ys], [(*batch, H), (*batch, H), (*batch, T, H)])
    close((state, ys), jax.tree.map(lambda a: a.reshape(*batch, *a.shape[1:]), flat))
    close(got, want)


def test_learned_initial_carry():
    """flax#1776: the initial carry is an argument like any other, and a parameter if one wants."""

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.rnn = jaxrnn.nnx.RNN(LSTM(I, H), rngs=rngs)
            self.start = nnx.data(jax.tree.map(nnx.Param, self.rnn.cell.initialize_carry((B, I))))

        def __call__(self, xs):
            return self.rnn(xs, initial_carry=nnx.as_pure(self.start))

    model, xs = Model(nnx.Rngs(0)), inputs()
    cell, params = model.rnn.pure()
    ours = jax.grad(lambda params, start: squares(unroll(cell, params, xs, start)), (0, 1))
    grads = quick(nnx.grad(lambda model: squares(model(xs))), model)
    want = jax.jit(ours)(params, cell.initial_state((B,)))
    close(nnx.to_pure_dict(grads.rnn.cell.params), {k: v for k, v in want[0]._asdict().items() if v is not None})
    close(nnx.to_pure_dict(grads.start), want[1]._asdict())
    assert float(jnp.abs(want[1].h).min()) > 0


def test_carry():
    """Its fields have names (flax#4124); initializing takes a shape alone, or Flax's arguments."""
    cell = jaxrnn.nnx.Cell(LSTM(I, H), rngs=nnx.Rngs(0))
    carry = cell.initialize_carry((2, 6, I))
    assert (carry.h.shape, carry.c.shape, cell.num_feature_axes) == ((2, 6, H), (2, 6, H), 1)
    assert not any(leaf.any() for leaf in carry)
    random = cell.initialize_carry((B, I), nnx.Rngs(0), nnx.initializers.normal())
    assert random.h.all()
    assert not jnp.allclose(random.h, random.c)
    with pytest.raises(ValueError, match="rngs: got None, needs"):
        cell.initialize_carry((B, I), carry_init=nnx.initializers.normal())


def test_rows_begin_anew_with_a_step():
    rnn = jaxrnn.nnx.RNN(LSTM(I, H), rngs=nnx.Rngs(0))
    carry, x, reset = draw(0, rnn.initialize_carry((B, I)), jnp.float32), inputs((B, I)), np.array([True, False])
    want = rnn(x[:, None], initial_carry=carry, resets=reset[:, None])
    state, y = rnn.step(carry, x, reset=reset)
    close((state, y[:, None]), want)
    close(rnn.cell(carry, x, reset=reset), (state, y))
    # A module's own parameters are parameters.
    close(jaxrnn.nnx.RNN(LSTM(I, H), params=rnn.cell.params).step(carry, x, reset=reset), (state, y))


@pytest.mark.exhaustive
def test_randomness_only_with_rngs():
    rnn = jaxrnn.nnx.RNN(Stack((GRU(I, 6), GRU(6, H)), dropout=0.5), rngs=nnx.Rngs(0))
    xs = inputs()
    call = nnx.jit(lambda rnn, rngs: rnn(xs, rngs=rngs)[1])
    calm, rngs = call(rnn, None), nnx.Rngs(dropout=1)
    first, second = call(rnn, rngs), call(rnn, rngs)
    chex.assert_tree_all_finite((first, second))
    assert not jnp.allclose(first, calm)
    assert not jnp.allclose(first, second)
    (cell, params), key = rnn.pure(), nnx.Rngs(dropout=1).dropout()
    close(calm, unroll(cell, params, xs)[1])
    close(first, unroll(cell, params, xs, key=key)[1])
    close(rnn(xs, rngs=nnx.Rngs(dropout=1).dropout)[1], first)


def test_training():
    """`nnx.Optimizer` inside `nnx.jit`: one trace, a lower loss."""

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.rnn = jaxrnn.nnx.RNN(GRU(I, H), rngs=rngs)
            self.head = nnx.Linear(H, 1, rngs=rngs)

        def __call__(self, xs):
            state, _ = self.rnn(xs)
            return self.head(state.h)[:, 0]

    traces = 0

    def loss(model, xs):
        return jnp.mean((model(xs) - xs.sum((1, 2))) ** 2)

    @nnx.jit
    def step(model, optimizer, xs):
        nonlocal traces
        traces += 1
        value, grads = nnx.value_and_grad(loss)(model, xs)
        optimizer.update(model, grads)
        return value

    model, xs = Model(nnx.Rngs(0)), inputs((16, T, I))
    optimizer = nnx.Optimizer(model, optax.adam(3e-2), wrt=nnx.Param)
    losses = [step(model, optimizer, xs) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]
    assert traces == 1


def test_jit_traces_once():
    """Equal cells and equal shapes are one trace, whatever the parameters and the lengths."""
    traces = 0

    @nnx.jit
    def call(rnn, xs, lengths):
        nonlocal traces
        traces += 1
        return rnn(xs, seq_lengths=lengths)

    for seed, lengths in enumerate([[5, 3], [1, 0], [2, 2]]):
        call(jaxrnn.nnx.RNN(GRU(I, H), rngs=nnx.Rngs(seed)), inputs(seed=seed), jnp.array(lengths))
    assert traces == 1


def test_parameters_have_names():
    rnn = jaxrnn.nnx.RNN(Stack((LSTM(I, H), GRU(H, H, use_bias=False))), rngs=nnx.Rngs(0))
    paths = {path: param.shape for path, param in nnx.to_flat_state(nnx.state(rnn, nnx.Param))}
    assert paths == {
        ("cell", "params", 0, "w_x"): (I, 4 * H),
        ("cell", "params", 0, "w_h"): (H, 4 * H),
        ("cell", "params", 0, "b"): (4 * H,),
        ("cell", "params", 1, "w_x"): (H, 3 * H),
        ("cell", "params", 1, "w_h"): (H, 3 * H),
    }
    merged = nnx.merge(*nnx.split(rnn))
    assert merged.cell.cell == rnn.cell.cell
    chex.assert_trees_all_equal(nnx.as_pure(merged.cell.params), nnx.as_pure(rnn.cell.params))


def test_initialization():
    """That of `cell.init` with the stream's key, options and dtype."""
    cell = LSTM(I, H)
    options = {"forget_bias": 3.0, "input_init": jaxrnn.initializers.uniform(0.5)}
    module = jaxrnn.nnx.Cell(cell, rngs=nnx.Rngs(7), param_dtype=jnp.bfloat16, initializers=options)
    want = cell.init(nnx.Rngs(7).params(), dtype=jnp.bfloat16, **options)
    chex.assert_trees_all_equal(nnx.as_pure(module.params), want)


def test_dtype_of_computation():
    cell = LSTM(I, H)
    rnn = jaxrnn.nnx.RNN(cell, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)
    xs, params = inputs(), nnx.as_pure(rnn.cell.params)
    theirs = nnx.RNN(rnn.cell, return_carry=True)
    half, half_xs = jaxrnn.cast(params, jnp.bfloat16), xs.astype(jnp.bfloat16)
    grads, (state, ys), want, got = quick(
        lambda rnn, theirs: (
            *nnx.grad(lambda rnn: (squares((out := rnn(xs))[1]), out), has_aux=True)(rnn),
            unroll(cell, half, half_xs),
            theirs(xs),
        ),
        rnn,
        theirs,
    )
    assert (ys.dtype, state.c.dtype, params.w_x.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    assert {g.dtype for g in jax.tree.leaves(grads)} == {jnp.dtype(jnp.float32)}
    close((state, ys), want)
    chex.assert_trees_all_equal_dtypes(got, want)
    close(got, want, atol=2e-2)


@pytest.mark.exhaustive
def test_sharding_metadata():
    mesh = jax.make_mesh((1,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    sharding = {"w_h": (None, "model"), "b": ("model",)}
    with jax.set_mesh(mesh):
        rnn = jaxrnn.nnx.RNN(Stack((GRU(I, H), LSTM(H, H))), rngs=nnx.Rngs(0), sharding=sharding)
        chex.assert_tree_all_finite(quick(lambda rnn: rnn(inputs()), rnn))
        specs = nnx.to_pure_dict(nnx.get_partition_spec(nnx.state(rnn, nnx.Param)))["cell"]["params"]
    for layer in (0, 1):
        assert specs[layer]["w_h"] == spec(None, "model")
        assert specs[layer]["b"] == spec("model")
        assert rnn.cell.params[layer].w_h.sharding.spec == spec(None, "model")
        assert specs[layer]["w_x"] in (None, spec())


def test_orbax(tmp_path):
    make = functools.partial(jaxrnn.nnx.RNN, Stack((LSTM(I, H), GRU(H, H))))
    saved, restored, xs = make(rngs=nnx.Rngs(0)), make(rngs=nnx.Rngs(1)), inputs()
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "rnn", nnx.state(saved))
        checkpointer.wait_until_finished()
        nnx.update(restored, checkpointer.restore(tmp_path / "rnn", nnx.state(restored)))
    chex.assert_trees_all_equal(*quick(lambda *rnns: [rnn(xs) for rnn in rnns], restored, saved))


NORMAL = nnx.initializers.normal(0.5)


def test_weights_of_flax():
    lstm = nnx.OptimizedLSTMCell(I, H, bias_init=NORMAL, rngs=nnx.Rngs(0))
    gru = nnx.GRUCell(I, H, bias_init=NORMAL, rngs=nnx.Rngs(1))
    xs = inputs()
    ours = jaxrnn.cells.LSTMParams(lstm.dense_i.kernel[...], lstm.dense_h.kernel[...], lstm.dense_h.bias[...])
    close(*_both(LSTM(I, H), ours, lstm, xs, lambda state: (state.c, state.h)))
    # Flax's nnx cell lacks the recurrent candidate bias of its own documentation (flax#5594).
    ours = jaxrnn.cells.GRUParams(gru.dense_i.kernel[...], gru.dense_h.kernel[...], gru.dense_i.bias[...], jnp.zeros(H))
    close(*_both(GRU(I, H), ours, gru, xs, lambda state: state.h))


def _both(cell, params, flax_cell, xs, carry):
    theirs = nnx.RNN(flax_cell, return_carry=True)
    (state, ys), want = quick(lambda ours, theirs: (ours(xs), theirs(xs)), jaxrnn.nnx.RNN(cell, params=params), theirs)
    return (carry(state), ys), want


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(nnx.SimpleCell, residual=True),
        *rare(nnx.LSTMCell, functools.partial(nnx.OptimizedLSTMCell, activation_fn=jax.nn.relu), nnx.GRUCell),
    ],
    ids=["simple", "lstm", "optimized", "gru"],
)
def test_from_flax(make):
    flax_cell = make(I, H, bias_init=NORMAL, rngs=nnx.Rngs(0))
    theirs = nnx.RNN(flax_cell, return_carry=True)
    cell, params = jaxrnn.nnx.from_flax(flax_cell), jaxrnn.nnx.params_of(flax_cell)
    xs = inputs()

    def loss(rnn, xs):
        out = rnn(xs)
        return squares(out), out

    @functools.partial(nnx.grad, argnums=(nnx.DiffState(0, nnx.Param), 1), has_aux=True)
    def grad(rnn, xs):
        return loss(rnn, xs)

    ours = jaxrnn.nnx.RNN(cell, params=params)
    ((grads, dxs), got), ((want_grads, want_dxs), want) = quick(
        lambda *rnns: [grad(rnn, xs) for rnn in rnns], ours, theirs
    )
    close(got, want)
    close(
        (nnx.to_pure_dict(grads.cell.params), dxs), (nnx.to_pure_dict(want_grads.cell), want_dxs), atol=2e-5, rtol=1e-5
    )

    resets = jnp.zeros((B, T), bool).at[:, 2].set(True)
    (state, ys), alone, (_, anew), (_, tail), back, want_back, each = quick(
        lambda ours, theirs: (
            ours(xs, seq_lengths=jnp.array([0, 3])),
            theirs(xs[1:, :3]),
            ours(xs, resets=resets),
            theirs(xs[:, 2:]),
            ours(xs, reverse=True),
            theirs(xs, reverse=True, keep_order=True),
            jax.vmap(functools.partial(jaxrnn.unroll, cell, params))(xs),
        ),
        ours,
        theirs,
    )
    close(jax.tree.map(lambda s: s[1:], state), alone[0])
    close((ys[0], ys[1, :3], ys[1, 3:]), (jnp.zeros((T, H)), alone[1][0], jnp.zeros((2, H))))
    close(anew[:, 2:], tail)
    close(back, want_back)
    close(each, want)


def test_from_flax_is_a_cell():
    """By value, with an `init` of its own, and a layer among others."""
    make = functools.partial(nnx.GRUCell, gate_fn=jax.nn.hard_sigmoid)
    flax_cell = make(I, H, rngs=nnx.Rngs(0))
    cell, params = jaxrnn.nnx.from_flax(flax_cell), jaxrnn.nnx.params_of(flax_cell)
    same = jaxrnn.nnx.from_flax(make(I, H, rngs=nnx.Rngs(1)))
    other = jaxrnn.nnx.from_flax(nnx.GRUCell(I, H, rngs=nnx.Rngs(0)))
    assert cell == same
    assert hash(cell) == hash(same)
    assert cell != other
    assert (cell.input_size, cell.output_size, cell.hidden_size) == (I, H, H)
    assert cell.initial_state((2, 6)).shape == (2, 6, H)
    assert cell.initial_state((), jnp.bfloat16).dtype == jnp.bfloat16
    fresh = cell.init(jax.random.key(0), dtype=jnp.bfloat16)
    chex.assert_trees_all_equal_shapes(fresh, params)
    assert fresh["dense_i"]["kernel"].dtype == jnp.bfloat16
    assert fresh["dense_i"]["kernel"].any()

    net = Stack((Bidirectional(cell, GRU(I, H)), LSTM(2 * H, H)))
    rnn = jaxrnn.nnx.RNN(net, rngs=nnx.Rngs(0))
    assert rnn.cell.params[0].forward["dense_h"]["kernel"].shape == (H, 3 * H)
    chex.assert_shape(quick(lambda rnn: rnn(inputs()), rnn)[1], (B, T, H))


def test_from_flax_takes_a_users_cell():
    class Leaky(nnx.RNNCellBase):
        def __init__(self, units, *, rate=0.5, rngs):
            self.units, self.rate = units, rate
            self.mix = nnx.Linear(I + units, units, rngs=rngs)

        def initialize_carry(self, input_shape, rngs=None, carry_init=None):
            return jnp.ones((*input_shape[:-1], self.units))

        def __call__(self, carry, inputs):
            carry = self.rate * carry + jnp.tanh(self.mix(jnp.concatenate([carry, inputs], -1)))
            return carry, carry

        num_feature_axes = 1

    flax_cell = Leaky(H, rate=0.9, rngs=nnx.Rngs(0))
    cell, params = jaxrnn.nnx.from_flax(flax_cell, input_size=I), jaxrnn.nnx.params_of(flax_cell)
    xs = inputs()
    theirs = nnx.RNN(flax_cell, return_carry=True)
    close(*quick(lambda theirs: (unroll(cell, params, xs), theirs(xs)), theirs))
    chex.assert_trees_all_equal_shapes(jax.eval_shape(cell.init, jax.random.key(0)), params)
    with pytest.raises(ValueError, match="input_size: got None, and Leaky has no attribute in_features"):
        jaxrnn.nnx.from_flax(flax_cell)
    del flax_cell.units
    with pytest.raises(ValueError, match="flax_cell: Leaky does not keep its argument units"):
        jaxrnn.nnx.from_flax(flax_cell, input_size=I)


def test_errors():
    rngs = nnx.Rngs(0)
    with pytest.raises(TypeError, match=r"cell: got GRUCell of Flax, needs a jaxrnn.*; jaxrnn.nnx.from_flax"):
        jaxrnn.nnx.RNN(nnx.GRUCell(I, H, rngs=rngs), rngs=rngs)
    with pytest.raises(ValueError, match=r"rngs: got None, needs .* unless params"):
        jaxrnn.nnx.Cell(GRU(I, H))
    for bad in (0, jax.random.key(0)):
        with pytest.raises(TypeError, match=r"(?s)rngs: got .*, needs nnx.Rngs, such as nnx.Rngs\(0\)"):
            jaxrnn.nnx.RNN(GRU(I, H), rngs=bad)
        with pytest.raises(TypeError, match=r"(?s)rngs: got .*, needs nnx.Rngs, such as nnx.Rngs\(dropout=0\)"):
            jaxrnn.nnx.RNN(GRU(I, H), rngs=rngs)(inputs(), rngs=bad)
        with pytest.raises(TypeError, match=r"(?s)rngs: got .*, needs nnx.Rngs, such as nnx.Rngs\(carry=0\)"):
            jaxrnn.nnx.RNN(GRU(I, H), rngs=rngs).initialize_carry((B, I), bad, jax.nn.initializers.ones)
    with pytest.raises(
        ValueError, match=r"rngs: got the streams \['carry', 'dropout'\], needs params, such as nnx.Rngs\("
    ):
        jaxrnn.nnx.RNN(GRU(I, H), rngs=nnx.Rngs(dropout=0, carry=1))
    with pytest.raises(
        ValueError, match=r"rngs: got the streams \['droput'\], needs dropout, such as nnx.Rngs\(dropout=0"
    ):
        jaxrnn.nnx.RNN(GRU(I, H), rngs=rngs)(inputs(), rngs=nnx.Rngs(droput=0))
    for shape in ((B,), (B, H), ()):
        with pytest.raises(ValueError, match=rf"input_shape: got {re.escape(str(shape))}, GRU.* needs \[\*batch, 3\]"):
            jaxrnn.nnx.RNN(GRU(I, H), rngs=rngs).initialize_carry(shape)
    with pytest.raises(TypeError, match=r"params: got the structure LSTMParams.*, needs GRUParams"):
        jaxrnn.nnx.RNN(GRU(I, H), params=LSTM(I, H).init(jax.random.key(0)))
    with pytest.raises(TypeError, match="forget_bias"):
        jaxrnn.nnx.RNN(GRU(I, H), rngs=rngs, initializers={"forget_bias": 1.0})
    with pytest.raises(
        ValueError, match=r"sharding: got \['kernel'\], the parameters are \['b', 'b_n', 'w_h', 'w_x'\]"
    ):
        jaxrnn.nnx.RNN(GRU(I, H), rngs=rngs, sharding={"kernel": (None, "model")})
    rnn = jaxrnn.nnx.RNN(GRU(I, H), rngs=rngs)
    with pytest.raises(ValueError, match=r"xs: got no time axis in the shapes \[\(3,\)\], needs \[\*batch, T"):
        rnn(jnp.ones(I))
    with pytest.raises(ValueError, match="xs: got the shape"):
        rnn(jnp.ones((B, T, H)))
    with pytest.raises(TypeError, match="xs: got the dtype int32"):
        rnn(jnp.ones((B, T, I), int))
    with pytest.raises(ValueError, match=r"resets: got the shape \(5, 2\), needs \[\*batch, T\] = \(2, 5\)"):
        rnn(jnp.ones((B, T, I)), resets=jnp.zeros((T, B), bool))
    with pytest.raises(ValueError, match=r"lengths: got the shape \(3,\)"):
        rnn(jnp.ones((B, T, I)), seq_lengths=jnp.array([1, 2, 3]))
    with pytest.raises(TypeError, match="no single time step"):
        nnx.RNN(jaxrnn.nnx.Cell(Bidirectional(GRU(I, H)), rngs=rngs))(jnp.ones((B, T, I)))
    with pytest.raises(TypeError, match="flax_cell: got GRU, needs an nnx"):
        jaxrnn.nnx.from_flax(GRU(I, H))

    class Noisy(nnx.GRUCell):
        def __init__(self, *args, rngs, **kwargs):
            super().__init__(*args, rngs=rngs, **kwargs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

    with pytest.raises(ValueError, match=r"flax_cell: got state of the kinds \['RngCount', 'RngKey'\]"):
        jaxrnn.nnx.from_flax(Noisy(I, H, rngs=rngs))
