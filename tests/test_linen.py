"""The linen adapters: equal to `unroll`, at home inside Flax, and Flax's cells inside `unroll`."""

import functools

import chex
import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax.training.train_state import TrainState

import jaxrnn
import jaxrnn.linen
from jaxrnn import GRU, LSTM, Bidirectional, Elman, Residual, Stack, VanillaLSTM
from jaxrnn.linen import from_dict, from_flax, to_dict
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
KEY = jax.random.key(0)
NORMAL = nn.initializers.normal(0.5)
close = functools.partial(chex.assert_trees_all_close, atol=1e-6, rtol=1e-6)


def swap(tree):
    """Batch-major to time-major and back."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)


def unroll(cell, params, xs, state=None, **options):
    """`jaxrnn.unroll`, batch-major."""
    state, ys = unrolled(cell, params, swap(xs), state, **options)
    return state, swap(ys)


def quick(f, *args):
    """`f(*args)`, quickly compiled as a whole."""
    return jax.jit(f)(*args)


def drawn(module, *args):
    """Random variables of a module: to compile its `init` takes longer than to run it."""
    return draw(0, jax.eval_shape(module.init, KEY, *args), jnp.float32)


def inputs(shape=(B, T, I), seed=1):
    return draw(seed, jax.ShapeDtypeStruct(shape, jnp.float32), jnp.float32, 1.0)


def squares(tree):
    return sum(jnp.sum(leaf.astype(jnp.float32) ** 2) for leaf in jax.tree.leaves(tree))


def variables_of(params):
    return {"params": {"cell": to_dict(params)}}


@pytest.mark.parametrize("cell", CELLS + NETWORKS, ids=repr)
def test_rnn_is_unroll(cell):
    params, xs, state = example(cell)
    flags = [[t == 2 and b == 0 for b in range(B)] for t in range(T)]  # a list, as `unroll` takes it
    lengths, resets = jnp.array([4, 0]), jnp.array(flags)
    batchwise, timewise = jaxrnn.linen.RNN(cell), jaxrnn.linen.RNN(cell, time_major=True)
    options = {"initial_carry": state, "seq_lengths": lengths, "reverse": True, "chunk": 2, "save": "boundaries"}
    want, got, (final, ys) = quick(
        lambda params: (
            unroll(cell, params, swap(xs), state, lengths=lengths, resets=resets, reverse=True),
            batchwise.apply(variables_of(params), swap(xs), resets=resets.T, **options),
            timewise.apply(variables_of(params), xs, resets=flags, **options),
        ),
        params,
    )
    close(got, want)
    close((final, swap(ys)), want)
    chex.assert_trees_all_equal(from_dict(cell, to_dict(params)), params)


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_cell_inside_flax_rnn(cell):
    _, xs, _ = example(cell)
    xs = swap(xs)
    theirs, ours = nn.RNN(jaxrnn.linen.Cell(cell), return_carry=True), jaxrnn.linen.RNN(cell)

    def run(variables):
        return (
            unroll(cell, from_dict(cell, variables["params"]["cell"]), xs),
            theirs.apply(variables, xs),
            theirs.apply(variables, xs, seq_lengths=LENGTHS, reverse=True, keep_order=True),
            # Where Flax's RNN has its parameters, ours has them: a checkpoint of the one is one of the other.
            ours.apply(variables, xs, seq_lengths=LENGTHS, reverse=True),
        )

    want, got, (state, ys), (want_state, want_ys) = quick(run, drawn(theirs, xs))
    close(got, want)
    close((state, ys[0], ys[1, :3]), (want_state, want_ys[0], want_ys[1, :3]))


def test_rows_begin_anew_with_a_step():
    cell = LSTM(I, H)
    params, xs, carry = example(cell)
    rnn, reset = jaxrnn.linen.RNN(cell), np.array([True, False])
    state, ys = rnn.apply(variables_of(params), xs[0][:, None], initial_carry=carry, resets=reset[:, None])
    close(rnn.apply(variables_of(params), carry, xs[0], reset=reset, method=rnn.step), (state, ys[:, 0]))
    module = jaxrnn.linen.Cell(cell)
    close(module.apply({"params": to_dict(params)}, carry, xs[0], reset=reset), (state, ys[:, 0]))


def test_flax_bidirectional_around_cells():
    forward, backward = LSTM(I, H), Stack((GRU(I, 6), Elman(6, H)))
    net = Bidirectional(forward, backward)
    params, xs, state = example(net)
    xs = swap(xs)
    theirs = nn.Bidirectional(*(nn.RNN(jaxrnn.linen.Cell(c)) for c in (forward, backward)), return_carry=True)

    def run(params):
        tree = {f"{name}_rnn": variables_of(p)["params"] for name, p in params._asdict().items()}
        return (
            theirs.apply({"params": tree}, xs, seq_lengths=LENGTHS, initial_carry=tuple(state)),
            jaxrnn.linen.RNN(net).apply(variables_of(params), xs, seq_lengths=LENGTHS, initial_carry=state),
        )

    (carry, ys), (want, want_ys) = quick(run, params)
    close((carry, ys[0], ys[1, :3]), (tuple(want), want_ys[0], want_ys[1, :3]))


@pytest.mark.parametrize("batch", [(2, 6), *rare(((),))])
def test_batch_axes(batch):
    """Lengths with any batch axes, 0 included (flax#3208); without, Flax's own RNN agrees."""
    rnn, theirs = jaxrnn.linen.RNN(LSTM(I, H)), nn.RNN(jaxrnn.linen.Cell(LSTM(I, H)), return_carry=True)
    xs = inputs((*batch, T, I))
    lengths = jnp.arange(xs.size // (T * I)).reshape(batch) % (T + 1)

    def run(variables):
        return (
            rnn.apply(variables, xs, seq_lengths=lengths),
            rnn.apply(variables, xs.reshape(-1, T, I), seq_lengths=lengths.reshape(-1)),
            rnn.apply(variables, xs),
            theirs.apply(variables, xs),
        )

    (state, ys), flat, want, got = quick(run, drawn(rnn, xs))
    chex.assert_shape([state.h, state.c, ys], [(*batch, H), (*batch, H), (*batch, T, H)])
    close((state, ys), jax.tree.map(lambda a: a.reshape(*batch, *a.shape[1:]), flat))
    close(got, want)


def test_gradients():
    """Of parameters and of the initial carry, with a padding of NaN: those of `unroll` without padding."""
    cell = LSTM(I, H)
    rnn, xs = jaxrnn.linen.RNN(cell), inputs()
    params, _, state = example(cell)

    def padded(params, state):
        spoilt = xs.at[1, 3:].set(jnp.nan)
        return squares(rnn.apply(variables_of(params), spoilt, initial_carry=state, seq_lengths=LENGTHS))

    def alone(params, state):
        rows = [jax.tree.map(lambda s, b=b: s[b : b + 1], state) for b in range(B)]
        return squares([unroll(cell, params, x, row) for x, row in zip((xs[:1], xs[1:, :3]), rows, strict=True)])

    got, want = (quick(jax.grad(f, (0, 1)), params, state) for f in (padded, alone))
    close(got, want, atol=1e-5, rtol=1e-5)
    assert float(jnp.abs(want[1].c).min()) > 0


def test_carry():
    """Its fields have names (flax#4124), and its dtype is that of the computation, float32 at least."""
    cell = jaxrnn.linen.Cell(LSTM(I, H), dtype=jnp.bfloat16)
    carry = cell.initialize_carry(KEY, (2, 6, I))
    assert (carry.h.shape, carry.c.shape, cell.num_feature_axes) == ((2, 6, H), (2, 6, H), 1)
    assert carry.c.dtype == jnp.float32
    assert not any(leaf.any() for leaf in carry)


def test_randomness_only_with_a_stream():
    cell = Stack((GRU(I, 6), GRU(6, H)), dropout=0.5)
    rnn, xs = jaxrnn.linen.RNN(cell), inputs()
    variables = drawn(rnn, xs)

    @jax.jit
    def call(key):
        return rnn.apply(variables, xs, rngs=None if key is None else {"dropout": key})[1]

    keys = jax.random.split(KEY)
    calm, first, second = call(None), call(keys[0]), call(keys[1])
    close(calm, unroll(cell, from_dict(cell, variables["params"]["cell"]), xs)[1])
    chex.assert_tree_all_finite((first, second))
    assert not jnp.allclose(first, calm)
    assert not jnp.allclose(first, second)
    chex.assert_trees_all_equal(call(keys[0]), first)


class Model(nn.Module):
    @nn.compact
    def __call__(self, xs):
        state, _ = jaxrnn.linen.RNN(GRU(I, H), name="rnn")(xs)
        return nn.Dense(1)(state.h)[:, 0]


def test_training():
    """A `TrainState`: one trace, a lower loss, weight decay by name."""
    traces = 0
    xs = inputs((16, T, I))
    params = quick(Model().init, KEY, xs)["params"]
    decayed = flax.traverse_util.path_aware_map(lambda path, _: path[-1] != "b", params)
    assert decayed["rnn"]["cell"] == {"w_x": True, "w_h": True, "b": False, "b_n": True}

    @jax.jit
    def step(train, xs):
        nonlocal traces
        traces += 1

        def loss(params):
            return jnp.mean((train.apply_fn({"params": params}, xs) - xs.sum((1, 2))) ** 2)

        value, grads = jax.value_and_grad(loss)(train.params)
        return train.apply_gradients(grads=grads), value

    optimizer = optax.adamw(3e-2, weight_decay=1e-4, mask=decayed)
    train = TrainState.create(apply_fn=Model().apply, params=params, tx=optimizer)
    losses = []
    for _ in range(20):
        train, value = step(train, xs)
        losses.append(value)
    assert losses[-1] < 0.5 * losses[0]
    assert traces == 1


def test_parameters_have_names():
    rnn = jaxrnn.linen.RNN(Stack((Bidirectional(LSTM(I, H)), GRU(2 * H, H, use_bias=False))))
    variables = jax.eval_shape(rnn.init, KEY, inputs())
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    lstm = {"w_x": (I, 4 * H), "w_h": (H, 4 * H), "b": (4 * H,)}
    assert {name: leaf.shape for name, leaf in flat.items()} == {
        **{f"params/cell/0/{way}/{name}": s for way in ("forward", "backward") for name, s in lstm.items()},
        "params/cell/1/w_x": (2 * H, 3 * H),
        "params/cell/1/w_h": (H, 3 * H),
    }


def test_initialization():
    """By `cell.init` with its options, in the asked dtype; two modules draw differently, two calls of one do not."""

    class Twice(nn.Module):
        @nn.compact
        def __call__(self, xs):
            cell = functools.partial(jaxrnn.linen.RNN, Elman(I, I), initializers={"bias_init": NORMAL})
            shared, other = cell(name="shared"), cell(name="other", param_dtype=jnp.bfloat16)
            return shared(shared(xs)[1])[1], other(xs)[1]

    xs = inputs()
    (twice, _), variables = quick(Twice().init_with_output, KEY, xs)
    params = variables["params"]
    assert set(params) == {"shared", "other"}
    shared, other = (from_dict(Elman(I, I), params[name]["cell"]) for name in ("shared", "other"))
    w_h = np.asarray(shared.w_h)
    close(w_h.T @ w_h, np.eye(I), atol=1e-5)
    assert shared.b.all()
    assert {leaf.dtype for leaf in other} == {jnp.dtype(jnp.bfloat16)}
    assert not jnp.allclose(shared.w_x, other.w_x)
    close(twice, unroll(Elman(I, I), shared, unroll(Elman(I, I), shared, xs)[1])[1])


def test_dtype_of_computation():
    cell = LSTM(I, H)
    ours = jaxrnn.linen.RNN(cell, dtype=jnp.bfloat16)
    theirs = nn.RNN(jaxrnn.linen.Cell(cell, dtype=jnp.bfloat16), return_carry=True)
    params, xs, _ = example(cell)
    xs = swap(xs)

    def loss(params):
        state, ys = ours.apply(variables_of(params), xs)
        return squares(ys), (state, ys)

    grads, (state, ys) = quick(jax.grad(loss, has_aux=True), params)
    want, got = quick(
        lambda params: (
            unroll(cell, jaxrnn.cast(params, jnp.bfloat16), xs.astype(jnp.bfloat16)),
            theirs.apply(variables_of(params), xs),
        ),
        params,
    )
    assert (ys.dtype, state.c.dtype) == (jnp.bfloat16, jnp.float32)
    chex.assert_trees_all_equal_dtypes(grads, params)
    close((state, ys), want)
    chex.assert_trees_all_equal_dtypes(got, want)
    close(got, want, atol=2e-2)


@pytest.mark.exhaustive
def test_sharding_metadata():
    spec = jax.sharding.PartitionSpec
    rnn = jaxrnn.linen.RNN(Stack((GRU(I, H), LSTM(H, H))), sharding={"w_h": (None, "model"), "b": ("model",)})
    xs = inputs()
    variables = jax.eval_shape(rnn.init, KEY, xs)
    specs = nn.get_partition_spec(variables)["params"]["cell"]
    for layer in ("0", "1"):
        assert (specs[layer]["w_h"], specs[layer]["b"], specs[layer]["w_x"]) == (
            spec(None, "model"),
            spec("model"),
            spec(),
        )

    mesh = jax.make_mesh((1,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.jit(rnn.init, out_shardings=nn.get_sharding(variables, mesh))(KEY, xs)
    assert nn.unbox(sharded)["params"]["cell"]["0"]["w_h"].sharding.spec == spec(None, "model")
    chex.assert_trees_all_equal(*quick(lambda *vs: [rnn.apply(v, xs) for v in vs], sharded, nn.unbox(sharded)))


@pytest.mark.exhaustive
def test_orbax(tmp_path):
    rnn, xs = jaxrnn.linen.RNN(Stack((LSTM(I, H), GRU(H, H)))), inputs()
    saved = quick(rnn.init, KEY, xs)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "rnn", saved)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "rnn", jax.eval_shape(rnn.init, KEY, xs))
    chex.assert_trees_all_equal(restored, saved)


def test_weights_of_flax():
    xs = inputs()
    lstm, gru = nn.OptimizedLSTMCell(H, bias_init=NORMAL), nn.GRUCell(H, bias_init=NORMAL)

    def ours_of_lstm(tree):
        return jaxrnn.cells.LSTMParams(
            w_x=jnp.concatenate([tree[f"i{gate}"]["kernel"] for gate in "ifgo"], axis=1),
            w_h=jnp.concatenate([tree[f"h{gate}"]["kernel"] for gate in "ifgo"], axis=1),
            b=jnp.concatenate([tree[f"h{gate}"]["bias"] for gate in "ifgo"]),
        )

    def ours_of_gru(tree):
        return jaxrnn.cells.GRUParams(
            w_x=jnp.concatenate([tree[f"i{gate}"]["kernel"] for gate in "rzn"], axis=1),
            w_h=jnp.concatenate([tree[f"h{gate}"]["kernel"] for gate in "rzn"], axis=1),
            b=jnp.concatenate([tree[f"i{gate}"]["bias"] for gate in "rzn"]),
            b_n=tree["hn"]["bias"],
        )

    def both(cell, flax_cell, convert):
        theirs = nn.RNN(flax_cell, return_carry=True)

        def run(variables):
            params = convert(variables["params"]["cell"])
            return jaxrnn.linen.RNN(cell).apply(variables_of(params), xs), theirs.apply(variables, xs)

        return quick(run, drawn(theirs, xs))

    (state, ys), want = both(LSTM(I, H), lstm, ours_of_lstm)
    close(((state.c, state.h), ys), want)
    (state, ys), want = both(GRU(I, H), gru, ours_of_gru)
    close((state.h, ys), want)


@pytest.mark.parametrize(
    ("flax_cell", "shape"),
    [
        (nn.SimpleCell(H, residual=True), (I,)),
        *rare(
            (nn.LSTMCell(H, bias_init=NORMAL), (I,)),
            (nn.OptimizedLSTMCell(H, bias_init=NORMAL, activation_fn=jax.nn.relu), (I,)),
            (nn.GRUCell(H, bias_init=NORMAL), (I,)),
            (nn.MGUCell(H), (I,)),
            (nn.ConvLSTMCell(H, kernel_size=(2, 3)), (3, 2, I)),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_from_flax(flax_cell, shape):
    cell = from_flax(flax_cell, shape[0] if len(shape) == 1 else shape)
    theirs, ours = nn.RNN(flax_cell, return_carry=True), jaxrnn.linen.RNN(cell)
    xs = inputs((B, T, *shape))
    assert (cell.output_size, cell.hidden_size) == ((*shape[:-1], H) if len(shape) > 1 else H, H)
    assert "\n" not in repr(cell)
    above = jaxrnn.GRU(H, H) if len(shape) == 1 else from_flax(flax_cell, (*shape[:-1], H))
    assert Stack((cell, above)).output_size == cell.output_size

    def run(params):
        def loss(rnn, params, xs):
            out = rnn.apply({"params": {"cell": params}}, xs)
            return squares(out), out

        def call(rnn, xs, **options):
            return rnn.apply({"params": {"cell": params}}, xs, **options)

        resets = jnp.zeros((B, T), bool).at[:, 2].set(True)
        return (
            [jax.grad(functools.partial(loss, rnn), (0, 1), has_aux=True)(params, xs) for rnn in (ours, theirs)],
            (call(ours, xs, seq_lengths=jnp.array([0, 3])), call(theirs, xs[1:, :3])),
            (call(ours, xs, resets=resets)[1][:, 2:], call(theirs, xs[:, 2:])[1]),
            (call(ours, xs, reverse=True), call(theirs, xs, reverse=True, keep_order=True)),
            jax.vmap(functools.partial(jaxrnn.unroll, cell, params))(xs),
        )

    found = jax.tree.map(np.asarray, quick(run, draw(0, jax.eval_shape(cell.init, KEY), jnp.float32)))
    ((grads, got), (want_grads, want)), (short, alone), anew, backward, each = found
    close(got, want)
    close(grads, want_grads, atol=1e-4, rtol=1e-5)
    close(jax.tree.map(lambda s: s[1:], short[0]), alone[0])
    close((short[1][1, :3], short[1][0]), (alone[1][0], np.zeros_like(short[1][0])))
    close(*anew)
    close(*backward)
    close(each, want)


@pytest.mark.exhaustive
def test_from_flax_is_a_cell():
    """By value, a layer among others, and no child of the module that it is made in."""
    cell = from_flax(nn.GRUCell(H), I)
    assert cell == from_flax(nn.GRUCell(H), I)
    assert hash(cell) == hash(from_flax(nn.GRUCell(H), I))
    assert cell != from_flax(nn.GRUCell(H, activation_fn=jax.nn.relu), I)
    assert cell.initial_state((2, 6), jnp.bfloat16).dtype == jnp.bfloat16
    assert cell.init(KEY, dtype=jnp.bfloat16)["ir"]["kernel"].dtype == jnp.bfloat16

    class Net(nn.Module):
        @nn.compact
        def __call__(self, xs):
            layer = from_flax(nn.GRUCell(H), I)
            return jaxrnn.linen.RNN(Stack((Bidirectional(layer, LSTM(I, H)), GRU(2 * H, H))), name="rnn")(xs)

    (_, ys), variables = quick(Net().init_with_output, KEY, inputs())
    chex.assert_shape(ys, (B, T, H))
    assert set(variables["params"]) == {"rnn"}
    chex.assert_trees_all_equal_shapes(variables["params"]["rnn"]["cell"]["0"]["forward"], cell.init(KEY))


def test_errors():
    xs = jnp.ones((B, T, I))
    rnn = jaxrnn.linen.RNN(GRU(I, H))

    def init(rnn, xs=xs, **options):
        return jax.eval_shape(functools.partial(rnn.init, **options), KEY, xs)

    for adapter in (jaxrnn.linen.RNN, jaxrnn.linen.Cell):
        with pytest.raises(TypeError, match=r"cell: got GRUCell of Flax, needs a jaxrnn.*; jaxrnn.linen.from_flax"):
            adapter(nn.GRUCell(H))
    with pytest.raises(TypeError, match="forget_bias"):
        init(jaxrnn.linen.RNN(GRU(I, H), initializers={"forget_bias": 1.0}))
    with pytest.raises(
        ValueError, match=r"sharding: got \['kernel'\], the parameters are \['b', 'b_n', 'w_h', 'w_x'\]"
    ):
        init(jaxrnn.linen.RNN(GRU(I, H), sharding={"kernel": (None, "model")}))
    with pytest.raises(ValueError, match=r"xs: got no time axis in the shapes \[\(3,\)\], needs \[\*batch, T"):
        init(rnn, jnp.ones(I))
    with pytest.raises(ValueError, match="xs: got the shape"):
        init(rnn, jnp.ones((B, T, H)))
    with pytest.raises(
        ValueError, match=r"input_shape: got \(2, 5\), GRU.* needs \[\*batch, 3\], that of one time step"
    ):
        rnn.initialize_carry(KEY, (B, T))
    with pytest.raises(ValueError, match=r"resets: got the shape \(5, 2\), needs \[\*batch, T\] = \(2, 5\)"):
        init(rnn, resets=jnp.zeros((T, B), bool))
    with pytest.raises(TypeError, match="no single time step"):
        init(nn.RNN(jaxrnn.linen.Cell(Bidirectional(GRU(I, H)))))

    tree = to_dict(GRU(I, H, use_bias=False).init(KEY))
    with pytest.raises(
        ValueError, match=r"params of cell: got the names \['w_h', 'w_x'\], needs \['b', 'b_n', 'w_h', 'w_x'\]"
    ):
        rnn.apply({"params": {"cell": tree}}, xs)
    with pytest.raises(ValueError, match=r"params of cell: got the names \[\]"):
        rnn.apply({}, xs)
    with pytest.raises(ValueError, match=r"params\.w_x: got the shape"):
        rnn.apply(variables_of(GRU(H, H).init(KEY)), xs)

    with pytest.raises(TypeError, match="flax_cell: got GRU, needs an"):
        from_flax(GRU(I, H), I)
    with pytest.raises(ValueError, match="input_size: got 3, ConvLSTMCell needs 3 sizes"):
        from_flax(nn.ConvLSTMCell(H, kernel_size=(2, 2)), 3)

    class Normed(nn.GRUCell):
        @nn.compact
        def __call__(self, carry, inputs):
            return super().__call__(carry, nn.BatchNorm(use_running_average=False)(inputs))

    with pytest.raises(ValueError, match=r"flax_cell: got variables in the collections \['batch_stats'\]"):
        from_flax(Normed(H), I)


def test_parameters_of_a_flax_cell_are_told_from_ours():
    """The error names the module's path and the way on."""
    theirs = nn.RNN(nn.GRUCell(H)).init(jax.random.key(0), inputs())

    class Model(nn.Module):
        @nn.compact
        def __call__(self, xs):
            return jaxrnn.linen.RNN(jaxrnn.GRU(I, H), name="rnn")(xs)

    with pytest.raises(ValueError, match=r"params of rnn/cell: got the names .*belong to from_flax\(flax_cell\)"):
        Model().apply({"params": {"rnn": theirs["params"]}}, inputs())
