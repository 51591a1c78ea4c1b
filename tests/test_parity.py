"""Other libraries as oracles, by copied weights: outputs and final states, and PyTorch's gradients; Keras in float32,
the others in float64.

Each converter writes down how that library lays its parameters out; ours are i, f, g, o and r, z, n, `[in, out]`.
"""

import doctest
import functools
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from tests.oracles import oracle
from tests.registry import T, example, unrolled

pytestmark = [
    pytest.mark.usefixtures("x64"),
    # These are the other libraries' own.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

close = functools.partial(chex.assert_trees_all_close, rtol=1e-12, atol=1e-12)

ELMAN, LSTM, GRU = jaxrnn.Elman(3, 4), jaxrnn.LSTM(3, 4), jaxrnn.GRU(3, 4)
PROJECTED = jaxrnn.cells.Projected(LSTM, 2)
BEFORE = jaxrnn.GRU(3, 4, reset="before")


def blocks(a, *order):
    """The blocks of the last axis in another order."""
    parts = np.split(np.asarray(a), len(order), axis=-1)
    return np.concatenate([parts[i] for i in order], axis=-1)


# PyTorch


def torch_weights(params):
    """`weight_ih, weight_hh, bias_ih, bias_hh[, weight_hr]`, `[out, in]`; two biases of which ours fills one."""
    if isinstance(params, jaxrnn.cells.ProjectedParams):
        return [*torch_weights(params.cell), np.asarray(params.w_p).T]
    b_hh = np.zeros_like(params.b)
    if isinstance(params, jaxrnn.cells.GRUParams):
        b_hh[-params.b_n.size :] = params.b_n
    return [np.asarray(params.w_x).T, np.asarray(params.w_h).T, np.asarray(params.b), b_hh]


def directions(cell, tree):
    """The entries of a cell's parameters, state or gradients, one a layer and direction, in PyTorch's order."""
    if isinstance(cell, jaxrnn.Stack):
        return [x for c, t in zip(cell.cells, tree, strict=True) for x in directions(c, t)]
    if isinstance(cell, jaxrnn.Bidirectional):
        return [tree.forward, tree.backward]
    return [tree]


TORCH = {
    "RNN": (ELMAN, {}),
    "RNN relu": (jaxrnn.Elman(3, 4, activation=jax.nn.relu), {"nonlinearity": "relu"}),
    "LSTM": (LSTM, {}),
    "LSTM projected": (PROJECTED, {"proj_size": 2}),
    "GRU": (GRU, {}),
    "LSTM two layers": (jaxrnn.Stack((LSTM, jaxrnn.LSTM(4, 4))), {"num_layers": 2}),
    "GRU both directions": (jaxrnn.Bidirectional(GRU), {"bidirectional": True}),
    "LSTM projected, two layers, both directions": (
        jaxrnn.Stack(
            (jaxrnn.Bidirectional(PROJECTED), jaxrnn.Bidirectional(jaxrnn.cells.Projected(jaxrnn.LSTM(4, 4), 2)))
        ),
        {"num_layers": 2, "bidirectional": True, "proj_size": 2},
    ),
}


@pytest.mark.parametrize("lengths", [None, [3, 5, 1]], ids=["whole", "packed"])
@pytest.mark.parametrize("name", TORCH)
def test_pytorch(name, lengths):
    """Values, and gradients of the parameters, the inputs and the initial state."""
    torch = oracle("torch")
    cell, options = TORCH[name]
    params, xs, state = example(cell, batch=(3,), dtype=jnp.float64)

    @jax.jit
    def ours(params, xs, state):
        def loss(params, xs, state):
            final, ys = jaxrnn.unroll(cell, params, xs, state, lengths=None if lengths is None else np.array(lengths))
            return jnp.sum(jnp.sin(ys)) + sum(jnp.sum(s**2) for s in jax.tree.leaves(final)), (final, ys)

        return jax.grad(loss, (0, 1, 2), has_aux=True)(params, xs, state)

    grads, (final, ys) = ours(params, xs, state)

    module = getattr(torch.nn, name.split()[0])(3, 4, dtype=torch.float64, **options)
    flat = [w for p in directions(cell, params) for w in torch_weights(p)]
    with torch.no_grad():
        for theirs, w in zip(module.parameters(), flat, strict=True):
            theirs.copy_(torch.tensor(w))
    # h, and c where there is one: [layers * directions, B, ...]
    start = [
        torch.tensor(np.stack(leaves), requires_grad=True) for leaves in zip(*directions(cell, state), strict=True)
    ]
    x = torch.tensor(np.asarray(xs), requires_grad=True)
    packed = x
    if lengths is not None:
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    y, last = module(packed, tuple(start) if len(start) > 1 else start[0])
    if lengths is not None:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=T)
    last = list(last) if len(start) > 1 else [last]
    (torch.sin(y).sum() + sum((s**2).sum() for s in last)).backward()

    close(ys, y.detach().numpy())
    for leaves, theirs in zip(zip(*directions(cell, final), strict=True), last, strict=True):
        close(np.stack(leaves), theirs.detach().numpy())
    close(grads[1], x.grad.numpy())
    for leaves, theirs in zip(zip(*directions(cell, grads[2]), strict=True), start, strict=True):
        close(np.stack(leaves), theirs.grad.numpy())
    theirs = iter(p.grad.numpy() for p in module.parameters())
    for slopes in directions(cell, grads[0]):
        ours = slopes.cell if isinstance(slopes, jaxrnn.cells.ProjectedParams) else slopes
        close(ours.w_x.T, next(theirs))
        close(ours.w_h.T, next(theirs))
        close(ours.b, next(theirs))
        # The recurrent bias moves as the other does, but for the GRU's candidate.
        recurrent = next(theirs)
        if isinstance(ours, jaxrnn.cells.GRUParams):
            close(jnp.concatenate([ours.b[:8], ours.b_n]), recurrent)
        else:
            close(ours.b, recurrent)
        if isinstance(slopes, jaxrnn.cells.ProjectedParams):
            close(slopes.w_p.T, next(theirs))


# Flax linen


def flax_lstm(p):
    dense = {}
    for k, gate in enumerate("ifgo"):
        part = slice(4 * k, 4 * k + 4)
        dense[f"i{gate}"] = {"kernel": p.w_x[:, part]}
        dense[f"h{gate}"] = {"kernel": p.w_h[:, part], "bias": p.b[part]}
    return dense


def flax_gru(p):
    dense = {}
    for k, gate in enumerate("rzn"):
        part = slice(4 * k, 4 * k + 4)
        dense[f"i{gate}"] = {"kernel": p.w_x[:, part], "bias": p.b[part]}
        dense[f"h{gate}"] = {"kernel": p.w_h[:, part]}
    dense["hn"]["bias"] = p.b_n
    return dense


def flax_elman(p):
    return {"i": {"kernel": p.w_x, "bias": p.b}, "h": {"kernel": p.w_h}}


@pytest.mark.parametrize(
    ("cell", "theirs", "convert"),
    [
        (LSTM, "OptimizedLSTMCell", flax_lstm),
        (LSTM, "LSTMCell", flax_lstm),
        (GRU, "GRUCell", flax_gru),
        (ELMAN, "SimpleCell", flax_elman),
    ],
    ids=["OptimizedLSTMCell", "LSTMCell", "GRUCell", "SimpleCell"],
)
@pytest.mark.parametrize("lengths", [None, np.array([3, 5])], ids=["whole", "lengths"])
def test_flax(cell, theirs, convert, lengths):
    """Flax carries (c, h), runs on over the padding, and does not zero its outputs."""
    linen = oracle("flax.linen")
    params, xs, state = example(cell, dtype=jnp.float64)
    final, ys = unrolled(cell, params, xs, state, lengths=lengths)
    rnn = linen.RNN(getattr(linen, theirs)(4, dtype=jnp.float64, param_dtype=jnp.float64), time_major=True)
    carry = (state.c, state.h) if cell is LSTM else state.h

    @jax.jit
    def run(weights, xs, carry):
        return rnn.apply({"params": {"cell": weights}}, xs, initial_carry=carry, seq_lengths=lengths, return_carry=True)

    carry, outputs = run(convert(params), xs, carry)
    if lengths is not None:
        outputs = jnp.where((np.arange(T)[:, None] < lengths)[..., None], outputs, 0)
    close(ys, outputs)
    close(final, type(final)(carry[1], carry[0]) if cell is LSTM else type(final)(carry))


# Haiku


def haiku_lstm(p):
    """On [x, h]; gates i, g, f, o; 1 is added to the forget gate when it runs."""
    b = blocks(p.b, 0, 2, 1, 3)
    b[8:12] -= 1
    return {"lstm/linear": {"w": blocks(np.concatenate([p.w_x, p.w_h]), 0, 2, 1, 3), "b": b}}


def haiku_gru(p):
    """Gates z, r, a; z takes the new state, so its gate has the other sign."""
    turn = np.repeat([-1.0, 1.0, 1.0], 4)
    w_h = np.concatenate([blocks(p.w_h, 1, 0), p.w_n], axis=1)
    return {"gru": {"w_i": turn * blocks(p.w_x, 1, 0, 2), "w_h": turn * w_h, "b": turn * blocks(p.b, 1, 0, 2)}}


def haiku_elman(p):
    """Input product and hidden product, each with a bias; a relu by default."""
    return {"vanilla_rnn/linear": {"w": p.w_x, "b": p.b}, "vanilla_rnn/linear_1": {"w": p.w_h, "b": jnp.zeros(4)}}


@pytest.mark.parametrize(
    ("cell", "theirs", "convert"),
    [
        (LSTM, "LSTM", haiku_lstm),
        (BEFORE, "GRU", haiku_gru),
        (jaxrnn.Elman(3, 4, jax.nn.relu), "VanillaRNN", haiku_elman),
    ],
    ids=["LSTM", "GRU", "VanillaRNN"],
)
def test_haiku(cell, theirs, convert):
    hk = oracle("haiku")
    params, xs, state = example(cell, dtype=jnp.float64)

    def run(xs, state):
        return hk.dynamic_unroll(getattr(hk, theirs)(4), xs, state)

    start = hk.LSTMState(state.h, state.c) if cell is LSTM else state.h
    outputs, last = jax.jit(hk.without_apply_rng(hk.transform(run)).apply)(convert(params), xs, start)
    final, ys = unrolled(cell, params, xs, state)
    close(ys, outputs)
    close(final, type(final)(last.hidden, last.cell) if cell is LSTM else type(final)(last))


# Equinox


def test_equinox_lstm():
    eqx = oracle("equinox")
    params, xs, state = example(LSTM, batch=(), dtype=jnp.float64)
    module = eqx.nn.LSTMCell(3, 4, key=jax.random.key(0))
    module = eqx.tree_at(lambda m: (m.weight_ih, m.weight_hh, m.bias), module, (params.w_x.T, params.w_h.T, params.b))
    last, _ = jax.jit(lambda s, xs: jax.lax.scan(lambda s, x: (module(x, s), None), s, xs))(tuple(state), xs)
    close(tuple(unrolled(LSTM, params, xs, state)[0]), last)


def test_equinox_gru():
    eqx = oracle("equinox")
    params, xs, state = example(GRU, batch=(), dtype=jnp.float64)
    module = eqx.nn.GRUCell(3, 4, key=jax.random.key(0))
    module = eqx.tree_at(
        lambda m: (m.weight_ih, m.weight_hh, m.bias, m.bias_n),
        module,
        (params.w_x.T, params.w_h.T, params.b, params.b_n),
    )
    last, _ = jax.jit(lambda s, xs: jax.lax.scan(lambda s, x: (module(x, s), None), s, xs))(state.h, xs)
    close(unrolled(GRU, params, xs, state)[0].h, last)


# Keras, on JAX


def keras_lstm(p):
    return [p.w_x, p.w_h, p.b]


def keras_after(p):
    """Gates z, r, h, and two rows of biases: the input's and the recurrent."""
    recurrent = np.concatenate([np.zeros(8), p.b_n])
    return [blocks(p.w_x, 1, 0, 2), blocks(p.w_h, 1, 0, 2), np.stack([blocks(p.b, 1, 0, 2), recurrent])]


def keras_before(p):
    w_h = np.concatenate([blocks(p.w_h, 1, 0), p.w_n], axis=1)
    return [blocks(p.w_x, 1, 0, 2), w_h, blocks(p.b, 1, 0, 2)]


@pytest.mark.parametrize(
    ("cell", "theirs", "options", "convert"),
    [
        (LSTM, "LSTM", {}, keras_lstm),
        (GRU, "GRU", {"reset_after": True}, keras_after),
        (BEFORE, "GRU", {"reset_after": False}, keras_before),
        (ELMAN, "SimpleRNN", {}, keras_lstm),
    ],
    ids=["LSTM", "GRU after", "GRU before", "SimpleRNN"],
)
def test_keras(cell, theirs, options, convert):
    keras = oracle("keras")
    with jax.enable_x64(False):
        params, xs, state = example(cell)
        layer = getattr(keras.layers, theirs)(4, return_sequences=True, return_state=True, **options)
        with jax.legacy_prng_key("allow"):
            layer.build((2, T, 3))
        layer.set_weights([np.asarray(w) for w in convert(params)])
        outputs, *last = jax.jit(layer)(np.swapaxes(xs, 0, 1), initial_state=list(state))
        final, ys = unrolled(cell, params, xs, state)
    np.testing.assert_allclose(ys, np.swapaxes(outputs, 0, 1), rtol=1e-6, atol=1e-6)
    for ours, theirs in zip(final, last, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


# The recipes of `docs/weights.md`


def test_recipes_of_the_docs():
    """They undo the converters, also where both biases are filled, as other libraries fill them."""
    section = (Path(__file__).parent.parent / "docs" / "weights.md").read_text()
    names = {"jnp": jnp, "jaxrnn": jaxrnn}
    for part in doctest.DocTestParser().get_examples(section):
        exec(part.source, names)
    lstm, gru = (example(cell, dtype=jnp.float64)[0] for cell in (LSTM, GRU))
    shift = np.random.default_rng(0).normal(size=16)
    w_ih, w_hh, b_ih, b_hh = torch_weights(lstm)
    close(names["lstm_from_pytorch"](w_ih, w_hh, b_ih + shift, b_hh - shift), lstm)
    shift = np.append(shift[:8], np.zeros(4))  # the two biases of the candidate do not add up
    w_ih, w_hh, b_ih, b_hh = torch_weights(gru)
    close(names["gru_from_pytorch"](w_ih, w_hh, b_ih + shift, b_hh - shift), gru)
    kernel, recurrent_kernel, bias = keras_after(gru)
    close(names["gru_from_keras"](kernel, recurrent_kernel, bias + np.stack([shift, -shift])), gru)
