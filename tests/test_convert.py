"""Converters against the libraries themselves: outputs, final states, gradients of inputs and parameters, round trips.

Weights are the other library's own, with biases that are not zero. All is float64, but for the tanh of Keras on JAX,
which is float32, and for the flat weights.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import convert, sequences
from jaxrnn.convert.keras import average, pair
from tests.oracles import oracle
from tests.registry import T, draw, example, rare, unrolled

pytestmark = [
    pytest.mark.usefixtures("x64"),
    # These are the other libraries' own.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]

close = functools.partial(chex.assert_trees_all_close, rtol=1e-10, atol=1e-10)
equal = chex.assert_trees_all_equal

LENGTHS, WHOLE = np.array([3, 5, 1], np.int32), np.full(3, T, np.int32)


def inputs(cell):
    """`(xs, state)`, three rows of random values."""
    _, xs, state = example(cell, batch=(3,), dtype=jnp.float64)
    return xs, state


def masked(ys, lengths):
    """Outputs `[T, B, ...]`, zero beyond the lengths."""
    return jax.tree.map(
        lambda y: jnp.where((np.arange(T)[:, None] < lengths).reshape(T, -1, *[1] * (y.ndim - 2)), y, 0), ys
    )


@functools.partial(jax.jit, static_argnums=(0, 5))
def ours(cell, params, xs, state, lengths=LENGTHS, slopes=True):
    """`(ys, final leaves), (gradients of params, of xs)`."""

    def run(params, xs):
        final, ys = jaxrnn.unroll(cell, params, xs, state, lengths=lengths)
        return ys, jax.tree.leaves(final)

    return with_slopes(run, params, xs, slopes)


@functools.partial(jax.jit, static_argnums=(0, 3))
def theirs(run, weights, xs, slopes=True):
    """The same of a library in JAX, `run(weights, xs) -> (ys, final leaves)`."""
    return with_slopes(run, weights, xs, slopes)


def with_slopes(run, params, xs, slopes):
    def total(params, xs):
        ys, final = run(params, xs)
        return sum(jnp.sum(jnp.sin(y)) for y in jax.tree.leaves(ys)) + sum(jnp.sum(s**2) for s in final), (ys, final)

    if not slopes:
        return run(params, xs), ()
    grads, values = jax.grad(total, (0, 1), has_aux=True)(params, xs)
    return values, grads


def linear(arrays, cell, params):
    """The linear part of `params -> arrays(cell, params)`: what it makes of gradients."""
    zero = arrays(cell, jax.tree.map(jnp.zeros_like, params))
    return jax.tree.map(lambda a, b: a - b, arrays(cell, params), zero)


# PyTorch

TORCH = {
    "RNN relu without bias, two layers, both directions": (
        "RNN",
        {"nonlinearity": "relu", "bias": False, "num_layers": 2, "bidirectional": True},
    ),
    "LSTM": ("LSTM", {}),
    "LSTM projected, two layers, both directions": ("LSTM", {"proj_size": 2, "num_layers": 2, "bidirectional": True}),
    "GRU without bias": ("GRU", {"bias": False}),
    "GRU, both directions": ("GRU", {"bidirectional": True}),
}


def in_order(cell, state):
    """The states of a network in PyTorch's order: one a layer and direction."""
    if isinstance(cell, jaxrnn.Stack):
        return [s for c, inner in zip(cell.cells, state, strict=True) for s in in_order(c, inner)]
    return [state.forward, state.backward] if isinstance(cell, jaxrnn.Bidirectional) else [state]


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [*rare(*list(TORCH)[:-1]), list(TORCH)[-1]])
def test_pytorch(name):
    torch = oracle("torch")
    kind, options = TORCH[name]
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(3, 4, dtype=torch.float64, **options)
    cell, params = convert.from_torch(module)
    xs, state = inputs(cell)
    (ys, final), (grads, grad_xs) = ours(cell, params, xs, state)
    final = jax.tree.unflatten(jax.tree.structure(state), final)

    leaves = zip(*in_order(cell, state), strict=True)
    start = [torch.tensor(np.stack(one)) for one in leaves]
    x = torch.tensor(np.asarray(xs), requires_grad=True)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(LENGTHS), enforce_sorted=False)
    y, last = module(packed, tuple(start) if len(start) > 1 else start[0])
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=T)
    last = last if len(start) > 1 else (last,)
    (torch.sin(y).sum() + sum((s**2).sum() for s in last)).backward()

    close(ys, y.detach().numpy())
    for one, other in zip(zip(*in_order(cell, final), strict=True), last, strict=True):
        close(np.stack(one), other.detach().numpy())
    close(grad_xs, x.grad.numpy())
    mapped = convert.torch_arrays(cell, grads)
    for weight, parameter in module.named_parameters():
        slope = mapped[weight]
        if "bias_hh" in weight:  # the recurrent bias moves as the other does, but for the GRU's candidate
            same = 8 if kind == "GRU" else slope.size
            slope = np.append(mapped[weight.replace("hh", "ih")][:same], slope[same:])
        close(slope, parameter.grad.numpy())

    again = convert.to_torch(cell, params)
    close(again(packed)[0].data.detach().numpy(), module(packed)[0].data.detach().numpy())
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in module.named_parameters()}
    assert convert.from_torch(again)[0] == cell
    equal(convert.from_torch(again)[1], params)
    whole = {f"net.{n}": a for n, a in again.state_dict().items()} | {"head.weight": torch.zeros(2, 4)}
    named = {"nonlinearity": options.get("nonlinearity", "tanh"), "prefix": "net."}
    found, copy = convert.from_torch(whole, **named)
    assert found == cell
    equal(copy, params)


def test_pytorch_cells():
    torch = oracle("torch")
    for kind in ("RNNCell", "LSTMCell", "GRUCell"):
        module = getattr(torch.nn, kind)(3, 4, dtype=torch.float64)
        cell, params = convert.from_torch(module)
        xs, state = inputs(cell)
        start = tuple(torch.tensor(np.asarray(s)) for s in state)
        last = module(torch.tensor(np.asarray(xs[0])), start if len(start) > 1 else start[0])
        last = last if len(start) > 1 else (last,)
        close(tuple(jax.jit(cell)(params, state, xs[0])[0]), tuple(s.detach().numpy() for s in last))
        again = convert.to_torch(cell, params, step=True)
        assert type(again) is type(module)
        equal(convert.from_torch(again)[1], params)


@pytest.mark.exhaustive
def test_a_trained_pytorch_model_goes_on_with_its_text():
    """In float32, token by token."""
    torch = oracle("torch")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    text = "the cat sat on the mat. the dog sat on the log. " * 4
    letters = sorted(set(text))
    tokens = torch.tensor([letters.index(c) for c in text])
    table, lstm = torch.nn.Embedding(len(letters), 8), torch.nn.LSTM(8, 24, num_layers=2)
    head = torch.nn.Linear(24, len(letters))
    optimizer = torch.optim.Adam([*table.parameters(), *lstm.parameters(), *head.parameters()], lr=2e-2)
    for _ in range(60):
        logits = head(lstm(table(tokens[:-1]))[0])
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, tokens[1:]).backward()
        optimizer.step()

    with jax.enable_x64(False):
        net, params = convert.from_torch(lstm)
        net = jaxrnn.Stack((jaxrnn.Embedding(len(letters), 8), *net.cells))
        params = (jnp.asarray(table.weight.detach().numpy()), *params)
        weight, bias = (jnp.asarray(p.detach().numpy()) for p in (head.weight, head.bias))

        @jax.jit
        def step(state, token):
            state, y = net(params, state, token)
            return state, y @ weight.T + bias

        token, hidden, state = tokens[:1], None, net.initial_state((1,))
        written, copied = [], []
        for _ in range(60):
            y, hidden = lstm(table(token)[None], hidden)
            logits = head(y)[0]
            state, copy = step(state, jnp.asarray(token.numpy(), jnp.int32))
            np.testing.assert_allclose(copy, logits.detach().numpy(), rtol=1e-5, atol=1e-4)
            written.append(int(logits.argmax()))
            copied.append(int(copy.argmax()))
            token = logits.argmax(-1)
    assert copied == written
    assert len(set(written)) > 5


# Keras, on JAX


# What is overwritten need not be drawn.
ZEROS = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}


def keras_layers(layers):
    """Layers by name, each with the cell that it must become."""
    double = {
        "return_sequences": True,
        "return_state": True,
        "recurrent_initializer": "glorot_uniform",
        "dtype": "float64",
    }
    plain = {"recurrent_initializer": "glorot_uniform", "dtype": "float64"}
    return {
        "LSTM": (layers.LSTM(4, **double), jaxrnn.LSTM(3, 4)),
        "LSTM with other activations and a recurrent dropout, without bias": (
            layers.LSTM(4, "softsign", "hard_sigmoid", use_bias=False, recurrent_dropout=0.25, **double),
            jaxrnn.RecurrentDropout(
                jaxrnn.LSTM(3, 4, False, jax.nn.hard_sigmoid, jax.nn.soft_sign, jax.nn.soft_sign), 0.25, tied=False
            ),
        ),
        "GRU": (layers.GRU(4, dropout=0.25, **double), jaxrnn.Dropout(jaxrnn.GRU(3, 4), 0.25, ("time",))),
        "GRU, reset before": (layers.GRU(4, reset_after=False, **double), jaxrnn.GRU(3, 4, "before")),
        "SimpleRNN": (
            layers.SimpleRNN(4, activation="relu", **double),
            jaxrnn.Elman(3, 4, jax.nn.relu),
        ),
        "both directions, average": (
            layers.Bidirectional(layers.GRU(4, use_bias=False, **double), merge_mode="ave", dtype="float64"),
            jaxrnn.Bidirectional(jaxrnn.GRU(3, 4, use_bias=False), merge=average),
        ),
        "both directions, unmerged": (
            layers.Bidirectional(layers.SimpleRNN(4, **double), merge_mode=None, dtype="float64"),
            jaxrnn.Bidirectional(jaxrnn.Elman(3, 4), merge=pair),
        ),
        "StackedRNNCells": (
            layers.RNN(
                layers.StackedRNNCells([layers.LSTMCell(4, **plain), layers.GRUCell(2, **plain)], dtype="float64"),
                return_sequences=True,
                return_state=True,
                dtype="float64",
            ),
            jaxrnn.Stack((jaxrnn.LSTM(3, 4), jaxrnn.GRU(4, 2))),
        ),
        "ConvLSTM1D": (
            layers.ConvLSTM1D(2, 3, strides=2, padding="same", use_bias=False, **double),
            jaxrnn.ConvLSTM((5, 3), 2, (3,), (2,), use_bias=False),
        ),
        "ConvLSTM2D": (
            layers.ConvLSTM2D(2, (3, 2), padding="same", **double),
            jaxrnn.ConvLSTM((3, 4, 2), 2, (3, 2)),
        ),
        "ConvLSTM3D": (
            layers.ConvLSTM3D(1, (1, 2, 1), padding="same", **double),
            jaxrnn.ConvLSTM((2, 3, 2, 1), 1, (1, 2, 1)),
        ),
    }


@pytest.mark.exhaustive
def test_outputs_held_over_gaps_are_those_of_keras():
    """In both directions of time; a gap before the first valid step of a run holds zero."""
    keras = oracle("keras")
    xs = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
    mask = np.array([[0, 1, 1, 0, 1, 0], [1, 0, 0, 1, 1, 1]], bool)
    with jax.legacy_prng_key("allow"):
        layer = keras.layers.SimpleRNN(4, return_sequences=True)
        layer.build((None, None, 3))
        whole = keras.Input((6, 3))
        with pytest.raises(TypeError, match=r"source: got Functional, .* its layers one by one"):
            convert.from_keras(keras.Model(whole, layer(whole)))
        cell, params = convert.from_keras(layer)
        for reverse in (False, True):
            layer.go_backwards = reverse
            expected = np.swapaxes(layer(xs, mask=mask), 0, 1)[:: -1 if reverse else 1]
            _, ys = unrolled(jaxrnn.Masked(cell), params, (np.swapaxes(xs, 0, 1), mask.T), reverse=reverse)
            held = sequences.held_output(ys, mask.T, reverse=reverse)
            np.testing.assert_allclose(held, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.exhaustive
def test_keras():
    keras = oracle("keras")
    near = functools.partial(chex.assert_trees_all_close, rtol=1e-5, atol=1e-5)
    with jax.legacy_prng_key("allow"):
        for name, (layer, cell) in keras_layers(keras.layers).items():
            layer.build((None, None, *cell.input_spec.shape))
            for variable in layer.trainable_variables:
                variable.assign(draw(variable.shape[-1], variable.value, jnp.float64))
            found, params = convert.from_keras(layer)
            assert found == cell, name
            xs, state = inputs(cell)
            slopes = name in ("LSTM", "GRU", "GRU, reset before", "SimpleRNN")
            start = jax.tree.leaves(state)
            if "Stacked" in name:
                start = [list(s) if len(s) > 1 else s[0] for s in state]

            lengths = WHOLE if "Conv" in name else LENGTHS  # Keras's convolutional layers mix their mask up with space

            def run(weights, xs, layer=layer, start=start, name=name, lengths=lengths):
                mask = None if lengths is WHOLE else jnp.arange(T) < lengths[:, None]
                rest = [v.value for v in layer.non_trainable_variables]
                xs = jnp.swapaxes(xs, 0, 1)
                (y, *last), _ = layer.stateless_call(weights, rest, xs, initial_state=start, mask=mask)
                if "unmerged" in name:
                    y, last = (y, last[0]), last[1:]
                y = jax.tree.map(lambda y: jnp.swapaxes(y, 0, 1), y)
                return masked(y, lengths), jax.tree.leaves(last)

            values, grads = ours(cell, params, xs, state, lengths, slopes)
            expected, wanted = theirs(run, [v.value for v in layer.trainable_variables], xs, slopes)
            near(values, expected)
            if slopes:
                near(grads[1], wanted[1])
                mapped = linear(convert.keras_arrays, getattr(cell, "cell", cell), grads[0])
                found = [mapped[weight] for weight in ("kernel", "recurrent_kernel", "bias")]
                if name == "GRU":  # the second row of biases moves as the first, but for the candidate
                    found[2] = np.stack([found[2][0], np.where(np.arange(12) < 8, *found[2])])
                near(found, wanted[0])

            again = convert.to_keras(cell, params, **({} if "Stacked" in name else ZEROS))
            assert type(again) is type(layer)
            back, copy = convert.from_keras(again)
            assert back == cell, name
            equal(copy, params)


@pytest.mark.exhaustive
def test_a_sequential_of_keras():
    """A classifier of words: its answer is the output at each row's last word."""
    keras = oracle("keras")
    layers = keras.layers
    tokens = np.random.default_rng(0).integers(1, 11, (3, 6))
    tokens[1, 4:] = 0
    with jax.legacy_prng_key("allow"), jax.numpy_rank_promotion("allow"):
        within = keras.Sequential([layers.Dense(6, "relu"), layers.Dropout(0.3)])
        model = keras.Sequential(
            [
                layers.Embedding(11, 5, mask_zero=True),
                layers.SpatialDropout1D(0.2),
                layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
                layers.Dropout(0.1),
                layers.TimeDistributed(layers.Dense(5, use_bias=False)),
                layers.Activation("softsign"),
                layers.GRU(3),
                within,
                layers.Dense(2, "softmax"),
                layers.Dropout(0.4),
            ]
        )
        expected = model(tokens)
        with pytest.raises(ValueError, match=r"mask_zero: got True in .*mask_zero=False"):
            convert.from_keras(model)
        cell, params = convert.from_keras(model, mask_zero=False)
        double = jaxrnn.Bidirectional(jaxrnn.LSTM(5, 4))
        linear_, pointwise = jaxrnn.networks.Linear, jaxrnn.networks.Pointwise
        assert cell == jaxrnn.Stack(
            (
                jaxrnn.networks.Embedding(11, 5),
                jaxrnn.Dropout(double, 0.2, ("time",)),
                jaxrnn.Dropout(linear_(8, 5, use_bias=False), 0.1),
                pointwise(jax.nn.soft_sign, 5),
                jaxrnn.GRU(5, 3),
                linear_(3, 6),
                pointwise(jax.nn.relu, 6),
                jaxrnn.Dropout(linear_(6, 2), 0.3),
                pointwise(jax.nn.softmax, 2),
                jaxrnn.Dropout(pointwise(jax.nn.identity, 2), 0.4),
            )
        )
        lengths = np.count_nonzero(tokens, axis=1)
        _, ys = unrolled(cell, params, tokens.T, lengths=lengths)
        np.testing.assert_allclose(sequences.last_output(ys, tokens.T != 0), expected, rtol=1e-5, atol=1e-6)

        for made, message in (
            ([layers.LSTM(4), layers.RepeatVector(2)], "source: got RepeatVector in a Sequential, needs Embedding"),
            ([layers.LSTM(4), layers.Reshape((2, 2)), layers.LSTM(4)], "source: got Reshape in a Sequential"),
            (
                [layers.Bidirectional(layers.LSTM(4)), layers.Dense(1)],
                "return_sequences: got False in .*bidirectional_",
            ),
        ):
            with pytest.raises((TypeError, ValueError), match=message):
                convert.from_keras(keras.Sequential([keras.Input((6, 3)), *made]))
        with pytest.raises(ValueError, match="without weights, needs a model that was built"):
            convert.from_keras(keras.Sequential([layers.LSTM(4)]))


# Flax


def flax_cells():
    """Cells of Flax, each with the cell that it must become; those of nnx have random weights."""
    from flax import linen, nnx

    double = {"param_dtype": jnp.float64, "dtype": jnp.float64}
    cells = {"LSTMCell": jaxrnn.LSTM(3, 4), "GRUCell": jaxrnn.GRU(3, 4), "SimpleCell": jaxrnn.Elman(3, 4)}
    for name, cell in (cells | {"OptimizedLSTMCell": cells["LSTMCell"]}).items():
        yield cell, getattr(linen, name)(4, **double)
        make = functools.partial(getattr(nnx, name), 3, 4, **double)
        module = nnx.eval_shape(lambda make=make: make(rngs=nnx.Rngs(0)))
        nnx.update(module, draw(0, nnx.state(module, nnx.Param), jnp.float64))
        yield cell, module
    yield jaxrnn.MGU(3, 4, "after"), linen.MGUCell(4, **double)
    yield jaxrnn.ConvLSTM((4, 3), 2, (2,)), linen.ConvLSTMCell(2, (2,), **double)


@pytest.mark.exhaustive
def test_flax():
    for cell, flax_cell in flax_cells():
        check_flax(cell, flax_cell)


def check_flax(cell, flax_cell):
    """Flax carries (c, h), runs on over the padding, and does not zero its outputs."""
    from flax import linen, nnx

    xs, state = inputs(cell)
    is_nnx = isinstance(flax_cell, nnx.Module)
    rnn = (nnx.RNN if is_nnx else linen.RNN)(flax_cell, time_major=True)
    if is_nnx:
        graph, weights, others = nnx.split(rnn, nnx.Param, ...)
        found, params = convert.from_flax(flax_cell)
    else:
        _, shapes = jax.eval_shape(lambda: rnn.init_with_output(jax.random.key(0), xs))
        weights = draw(0, shapes["params"]["cell"], jnp.float64)
        found, params = convert.from_flax(flax_cell, weights, space=(4,))
    assert found == cell
    slopes = not is_nnx and type(flax_cell).__name__ in ("LSTMCell", "GRUCell", "SimpleCell")

    def run(weights, xs):
        carry = tuple(state)[::-1] if len(state) > 1 else state.h
        options = {"initial_carry": carry, "seq_lengths": jnp.asarray(LENGTHS), "return_carry": True}
        if isinstance(rnn, nnx.Module):
            carry, y = nnx.merge(graph, weights, others)(xs, **options)
        else:
            carry, y = rnn.apply({"params": {"cell": weights}}, xs, **options)
        return masked(y, LENGTHS), list(carry[::-1] if len(state) > 1 else [carry])

    # One program of ours for all that become the same cell.
    values, grads = ours(cell, params, xs, state, LENGTHS, cell.hidden_size == 4)
    expected, wanted = theirs(run, weights, xs, slopes)
    close(values, expected)
    again = convert.to_flax(cell, params, type(flax_cell))
    if slopes:
        close(grads[1], wanted[1])
        close(linear(lambda *pair: convert.to_flax(*pair, type(flax_cell))[1], cell, grads[0]), wanted[0])
    back, copy = convert.from_flax(*(again if isinstance(again, tuple) else [again]), space=(4,))
    assert back == cell
    (close if isinstance(cell, jaxrnn.ConvLSTM) else equal)(copy, params)


# Haiku


@pytest.mark.exhaustive
def test_haiku():
    hk = oracle("haiku")
    cores = {
        "lstm": (jaxrnn.LSTM(3, 4), lambda: hk.LSTM(4)),
        "gru": (jaxrnn.GRU(3, 4, "before"), lambda: hk.GRU(4)),
        "vanilla_rnn": (jaxrnn.Elman(3, 4, jax.nn.relu), lambda: hk.VanillaRNN(4)),
        "conv1_dlstm": (jaxrnn.ConvLSTM((4, 3), 2, (2,)), lambda: hk.Conv1DLSTM((4,), 2, 2)),
        "two": (jaxrnn.Stack((jaxrnn.LSTM(3, 4), jaxrnn.LSTM(4, 4))), lambda: hk.DeepRNN([hk.LSTM(4), hk.LSTM(4)])),
    }
    for name, (cell, core) in cores.items():
        xs, state = inputs(cell)

        def unroll(xs, state, core=core):
            return hk.dynamic_unroll(core(), xs, state)

        def own(state):
            if isinstance(state, tuple) and not hasattr(state, "_fields"):
                return tuple(own(s) for s in state)
            return hk.LSTMState(*state) if len(state) > 1 else state.h

        model = hk.without_apply_rng(hk.transform(unroll))
        shapes = jax.eval_shape(model.init, jax.random.key(0), xs, own(state))
        weights = draw(0, shapes, jnp.float64)
        found, params = convert.from_haiku(weights, space=(4,))
        assert found == cell
        slopes = name in ("lstm", "gru", "vanilla_rnn")
        values, grads = ours(cell, params, xs, state, WHOLE, slopes)

        def run(weights, xs, model=model, state=state):
            y, last = model.apply(weights, xs, own(state))
            return y, jax.tree.leaves(last)

        expected, wanted = theirs(run, weights, xs, slopes)
        close(values, expected)
        mapped = convert.to_haiku(cell, params)
        assert jax.tree.structure(mapped) == jax.tree.structure(weights)
        if slopes:
            close(grads[1], wanted[1])
            mapped = linear(convert.to_haiku, cell, grads[0])
            if name == "vanilla_rnn":  # the second of two biases
                mapped["vanilla_rnn/linear_1"]["b"] = mapped["vanilla_rnn/linear"]["b"]
            close(mapped, wanted[0])
        back, copy = convert.from_haiku(convert.to_haiku(cell, params), space=(4,))
        assert back == cell
        close(copy, params)
        if name in ("gru", "vanilla_rnn"):
            equal(copy, params)


# Equinox


@pytest.mark.exhaustive
def test_equinox():
    eqx = oracle("equinox")
    for kind, cell in (
        (eqx.nn.LSTMCell, jaxrnn.LSTM(3, 4)),
        (eqx.nn.GRUCell, jaxrnn.GRU(3, 4)),
        (eqx.nn.GRUCell, jaxrnn.GRU(3, 4, use_bias=False)),
    ):
        module = kind(3, 4, use_bias=cell.use_bias, key=jax.random.key(0), dtype=jnp.float64)
        found, params = convert.from_equinox(module)
        assert found == cell
        xs, state = inputs(cell)

        def run_module(module, xs, state=state):
            def step(carry, x):
                carry = jax.vmap(module)(x, carry)
                return carry, carry[0] if isinstance(carry, tuple) else carry

            carry, ys = jax.lax.scan(step, tuple(state) if len(state) > 1 else state.h, xs)
            return ys, list(carry) if isinstance(carry, tuple) else [carry]

        weights = {name: getattr(module, name) for name in convert.equinox_arrays(cell, params)}

        def run(weights, xs, module=module, run_module=run_module):
            names = sorted(weights)
            filled = eqx.tree_at(lambda m: [getattr(m, n) for n in names], module, [weights[n] for n in names])
            return run_module(filled, xs)

        values, grads = ours(cell, params, xs, state, WHOLE)
        expected, wanted = theirs(run, weights, xs)
        close(values, expected)
        close(grads[1], wanted[1])
        close(convert.equinox_arrays(cell, grads[0]), wanted[0])
        equal(convert.from_equinox(convert.to_equinox(cell, params))[1], params)


# jax.experimental.rnn


@pytest.mark.exhaustive
def test_flat_weights_of_cudnn():
    """Against JAX's reference implementation, in float32, and its order for ROCm."""
    from jax.experimental import rnn

    with jax.enable_x64(False), jax.legacy_prng_key("allow"):
        sizes = {"input_size": 3, "hidden_size": 4, "num_layers": 2, "bidirectional": True}
        flat = rnn.init_lstm_weight(jax.random.key(0), **sizes)
        net, params = convert.from_cudnn(flat, **sizes)
        xs, _ = inputs(net)
        xs = xs.astype(jnp.float32)
        h = jnp.zeros((4, 3, 4))
        weights = rnn.unpack_lstm_weights(flat, **sizes)
        y, h_n, c_n = rnn.lstm_ref(
            jnp.swapaxes(xs, 0, 1), h, h, *weights, seq_lengths=jnp.asarray(LENGTHS, jnp.int32), dropout=0.0, **sizes
        )
        final, ys = jaxrnn.unroll(net, params, xs, lengths=LENGTHS)
        np.testing.assert_allclose(ys, jnp.swapaxes(y, 0, 1), rtol=1e-5, atol=1e-5)
        states = [np.stack(leaves) for leaves in zip(*in_order(net, final), strict=True)]
        np.testing.assert_allclose(states, [h_n, c_n], rtol=1e-5, atol=1e-5)
        equal(convert.from_cudnn(convert.to_cudnn(net, params), **sizes)[1], params)
        swapped = rnn.swap_lstm_gates(flat, **sizes)
        equal(convert.from_cudnn(swapped, **sizes, order="rocm")[1], params)
        equal(convert.from_cudnn(convert.to_cudnn(net, params, order="rocm"), **sizes, order="rocm")[1], params)
