"""Converters of arrays against float64 transcriptions of TensorFlow 1's and Element-Research's equations; errors."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import convert
from tests.registry import draw, example, unrolled

pytestmark = pytest.mark.usefixtures("x64")

close = functools.partial(chex.assert_trees_all_close, rtol=1e-10, atol=1e-10)
equal = chex.assert_trees_all_equal


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def values(seed, **shapes):
    rng = np.random.default_rng(seed)
    return {name.replace("__", "/"): rng.normal(size=shape) for name, shape in shapes.items()}


def run(step, xs, state):
    """`(ys, state)` of `step(x, state) -> (y, state)`."""
    ys = []
    for x in xs:
        y, state = step(x, state)
        ys.append(y)
    return np.stack(ys), state


def check(cell, params, step):
    """Outputs and states of a converted cell are those of a step of NumPy."""
    _, xs, state = example(cell, dtype=jnp.float64)
    final, ys = unrolled(cell, params, xs, state)
    expected, last = run(step, np.asarray(xs), tuple(np.asarray(s) for s in jax.tree.leaves(state)))
    close(np.asarray(ys), expected)
    close(tuple(jax.tree.leaves(final)), last)


# TensorFlow 1


def tf_lstm(v, forget_bias, cell_clip=None, proj_clip=None, act=np.tanh):
    """`LSTMCell.call`, its variables by name."""

    def step(x, state):
        h, c = state
        i, j, f, o = np.split(np.concatenate([x, h], 1) @ v["kernel"] + v["bias"], 4, axis=1)
        if "w_i_diag" in v:
            i, f = i + v["w_i_diag"] * c, f + v["w_f_diag"] * c
        c = sigmoid(f + forget_bias) * c + sigmoid(i) * act(j)
        c = c if cell_clip is None else np.clip(c, -cell_clip, cell_clip)
        m = sigmoid(o + v["w_o_diag"] * c if "w_o_diag" in v else o) * act(c)
        if "projection/kernel" in v:
            m = m @ v["projection/kernel"]
            m = m if proj_clip is None else np.clip(m, -proj_clip, proj_clip)
        return m, (m, c)

    return step


def tf_gru(v):
    def step(x, state):
        (h,) = state
        r, u = np.split(sigmoid(np.concatenate([x, h], 1) @ v["gates/kernel"] + v["gates/bias"]), 2, axis=1)
        c = np.tanh(np.concatenate([x, r * h], 1) @ v["candidate/kernel"] + v["candidate/bias"])
        h = u * h + (1 - u) * c
        return h, (h,)

    return step


def tf_cudnn_gru(v):
    def step(x, state):
        (h,) = state
        r, u = np.split(sigmoid(np.concatenate([x, h], 1) @ v["gates/kernel"] + v["gates/bias"]), 2, axis=1)
        side = {
            s: (v[f"candidate/{s}_projection/kernel"], v[f"candidate/{s}_projection/bias"]) for s in ("input", "hidden")
        }
        c = np.tanh(x @ side["input"][0] + side["input"][1] + r * (h @ side["hidden"][0] + side["hidden"][1]))
        h = (1 - u) * c + u * h
        return h, (h,)

    return step


PEEPHOLES = {"w_i_diag": (4,), "w_f_diag": (4,), "w_o_diag": (4,)}
CUDNN = {
    "candidate__input_projection__kernel": (3, 4),
    "candidate__input_projection__bias": (4,),
    "candidate__hidden_projection__kernel": (4, 4),
    "candidate__hidden_projection__bias": (4,),
}


def test_tensorflow_1():
    basic = values(0, kernel=(7, 16), bias=(16,))
    whole = values(1, kernel=(5, 16), bias=(16,), projection__kernel=(4, 2), **PEEPHOLES)
    gru = values(2, gates__kernel=(7, 8), gates__bias=(8,), candidate__kernel=(7, 4), candidate__bias=(4,))
    cudnn = values(3, gates__kernel=(7, 8), gates__bias=(8,), **CUDNN)
    options = {"forget_bias": 0.5, "cell_clip": 0.4, "proj_clip": 0.3}
    relu = {"forget_bias": 1.0, "act": lambda x: np.maximum(x, 0)}
    cases = [
        (basic, {}, jaxrnn.LSTM(3, 4), tf_lstm(basic, 1.0)),
        (
            basic,
            {"activation": jax.nn.relu},
            jaxrnn.LSTM(3, 4, True, jax.nn.sigmoid, jax.nn.relu, jax.nn.relu),
            tf_lstm(basic, **relu),
        ),
        (
            whole,
            options,
            jaxrnn.Projected(jaxrnn.VanillaLSTM(3, 4, cell_clip=0.4), 2, clip=0.3),
            tf_lstm(whole, **options),
        ),
        (gru, {}, jaxrnn.GRU(3, 4, "before"), tf_gru(gru)),
        (cudnn, {}, jaxrnn.GRU(3, 4), tf_cudnn_gru(cudnn)),
    ]
    for variables, given, expected, step in cases:
        named = {f"rnn/some_cell/{name}:0": array for name, array in variables.items()}
        cell, params = convert.from_tensorflow1({**named, "global_step": np.zeros((), int)}, scope="rnn/", **given)
        assert cell == expected
        check(cell, params, step)
        bias = given.get("forget_bias", 1.0)
        back = convert.to_tensorflow1(cell, params, forget_bias=bias)
        close(back, variables)
        exact = convert.to_tensorflow1(cell, params, forget_bias=0.0)
        equal(convert.from_tensorflow1(exact, **{**given, "forget_bias": 0.0})[1], params)
    rnn = values(4, kernel=(7, 4), bias=(4,))

    def step(x, state):
        h = np.tanh(np.concatenate([x, state[0]], 1) @ rnn["kernel"] + rnn["bias"])
        return h, (h,)

    check(*convert.from_tensorflow1({f"rnn/basic_rnn_cell/{name}": array for name, array in rnn.items()}), step)


def test_layers_and_directions_of_tensorflow_1():
    nets = [
        jaxrnn.Stack(tuple(jaxrnn.LSTM(4, 4) for _ in range(11))),
        jaxrnn.Stack((jaxrnn.Bidirectional(jaxrnn.GRU(3, 4)), jaxrnn.Bidirectional(jaxrnn.GRU(8, 4)))),
        jaxrnn.Bidirectional(jaxrnn.Stack((jaxrnn.LSTM(3, 4), jaxrnn.LSTM(4, 2)))),
    ]
    for net in nets:
        params = draw(0, jax.eval_shape(net.init, jax.random.key(0)), jnp.float64)
        variables = convert.to_tensorflow1(net, params, forget_bias=0.0)
        scoped = {}
        for name, array in variables.items():  # as in a checkpoint, where the cell's own scope comes last
            found = re.fullmatch(r"((?:(?:cell_\d+|fw|bw)/)*)(.*)", name)
            scoped[f"rnn/multi_rnn_cell/{found[1]}some_cell/{found[2]}:0"] = array
        cell, copy = convert.from_tensorflow1(dict(sorted(scoped.items())), forget_bias=0.0)
        assert cell == net
        equal(copy, params)


# Element-Research


def er_lstm(weights):
    """`LSTM.lua`, the tensors in the order of `parameters()`: forget gate, input gate, hidden, output gate."""
    if len(weights) == 15:
        (fx, fb, fh, fc), (ix, ib, ih, ic), (gx, gb, gh), (ox, ob, oh, oc) = (
            weights[a:b] for a, b in ((0, 4), (4, 8), (8, 11), (11, 15))
        )
    else:
        (fx, fb, fh), (ix, ib, ih), (gx, gb, gh), (ox, ob, oh) = (weights[a : a + 3] for a in (0, 3, 6, 9))
        fc = ic = oc = 0

    def step(x, state):
        h, c = state
        i = sigmoid(x @ ix.T + ib + h @ ih.T + ic * c)
        f = sigmoid(x @ fx.T + fb + h @ fh.T + fc * c)
        c = f * c + i * np.tanh(x @ gx.T + gb + h @ gh.T)
        h = sigmoid(x @ ox.T + ob + h @ oh.T + oc * c) * np.tanh(c)
        return h, (h, c)

    return step


def er_fast_lstm(weights):
    i2g, bias, o2g = weights

    def step(x, state):
        h, c = state
        i, g, f, o = np.split(x @ i2g.T + bias + h @ o2g.T, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        return h, (h, c)

    return step


def er_seq_lstm(weights):
    weight, bias, *project = weights

    def step(x, state):
        h, c = state
        i, f, o, g = np.split(bias + x @ weight[:3] + h @ weight[3:], 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = np.tanh(c) * sigmoid(o)
        h = h @ project[0] if project else h
        return h, (h, c)

    return step


def er_gru(weights):
    i2g, bias, o2g, t1, t1_bias, t2 = weights

    def step(x, state):
        (h,) = state
        r, z = np.split(sigmoid(x @ i2g.T + bias + h @ o2g.T), 2, axis=1)
        n = np.tanh(x @ t1.T + t1_bias + (r * h) @ t2.T)
        h = (1 - z) * n + z * h
        return h, (h,)

    return step


def er_seq_gru(weights):
    weight, bias = weights

    def step(x, state):
        (h,) = state
        w_x, w_h = weight[:3], weight[3:]
        r, u = np.split(sigmoid(bias[:8] + x @ w_x[:, :8] + h @ w_h[:, :8]), 2, axis=1)
        n = np.tanh(bias[8:] + x @ w_x[:, 8:] + (r * h) @ w_h[:, 8:])
        h = (1 - u) * n + u * h
        return h, (h,)

    return step


GATE, PEEPING = [(4, 3), (4,), (4, 4)], [(4, 3), (4,), (4, 4), (4,)]
ELEMENT_RESEARCH = [
    ("LSTM", [*PEEPING, *PEEPING, *GATE, *PEEPING], jaxrnn.VanillaLSTM(3, 4), er_lstm),
    ("LSTM", GATE * 4, jaxrnn.LSTM(3, 4), er_lstm),
    ("FastLSTM", [(16, 3), (16,), (16, 4)], jaxrnn.LSTM(3, 4), er_fast_lstm),
    ("SeqLSTM", [(7, 16), (16,)], jaxrnn.LSTM(3, 4), er_seq_lstm),
    ("SeqLSTMP", [(5, 16), (16,), (4, 2)], jaxrnn.Projected(jaxrnn.LSTM(3, 4), 2), er_seq_lstm),
    ("GRU", [(8, 3), (8,), (8, 4), (4, 3), (4,), (4, 4)], jaxrnn.GRU(3, 4, "before"), er_gru),
    ("SeqGRU", [(7, 12), (12,)], jaxrnn.GRU(3, 4, "before"), er_seq_gru),
]


def test_element_research():
    rng = np.random.default_rng(0)
    for module, shapes, expected, step in ELEMENT_RESEARCH:
        weights = [rng.normal(size=shape) for shape in shapes]
        cell, params = convert.from_element_research(module, weights)
        assert cell == expected
        check(cell, params, step(weights))
        arrays = convert.to_element_research(module, cell, params)
        equal(list(arrays.values()), weights)
        equal(convert.from_element_research(module, arrays)[1], params)


# What cannot be expressed


def params_of(cell):
    return draw(0, jax.eval_shape(cell.init, jax.random.key(0)), jnp.float64)


def to(function, cell, *before, **options):
    return lambda: function(*before, cell, params_of(cell), **options)


def conv_of_haiku(recurrent, bias):
    given = {"w": np.ones((3, 3, 8)), "b": np.ones(8)}
    hidden = {"w": np.ones(recurrent), "b": np.ones(bias)}
    return convert.from_haiku({"conv/input_to_hidden": given, "conv/hidden_to_hidden": hidden}, space=(4,))


LSTM, GRU, BEFORE = jaxrnn.LSTM(3, 4), jaxrnn.GRU(3, 4), jaxrnn.GRU(3, 4, "before")
W = {"weight_ih_l0": np.ones((16, 3)), "weight_hh_l0": np.ones((16, 4))}
K = {"kernel": np.ones((3, 12)), "recurrent_kernel": np.ones((4, 12))}
WRONG = {
    "reset before, PyTorch": (
        to(convert.torch_arrays, BEFORE),
        "GRU got reset='before', nn.GRU has reset='after' only",
    ),
    "reset after, Haiku": (to(convert.to_haiku, GRU), "GRU got reset='after', hk.GRU has reset='before' only"),
    "reset after, Element-Research": (to(convert.to_element_research, GRU, "SeqGRU"), "GRU got reset='after'"),
    "reset before, Equinox": (to(convert.equinox_arrays, BEFORE), "equinox.nn.GRUCell has reset='after' only"),
    "no bias, TensorFlow": (
        to(convert.to_tensorflow1, jaxrnn.LSTM(3, 4, False)),
        "use_bias=False, TensorFlow 1 has use_bias=True",
    ),
    "no bias, cuDNN": (to(convert.to_cudnn, jaxrnn.LSTM(3, 4, False)), "has LSTM with bias only"),
    "an activation": (
        to(convert.torch_arrays, jaxrnn.Elman(3, 4, jnp.sin)),
        "nn.RNN has the activations tanh and relu",
    ),
    "an activation of an LSTM": (
        to(convert.torch_arrays, jaxrnn.LSTM(3, 4, True, jnp.tanh)),
        "got gate_activation=tanh",
    ),
    "an unknown activation, Keras": (
        to(convert.keras_arrays, jaxrnn.Elman(3, 4, jnp.sin)),
        "the activation sin, Keras has no",
    ),
    "two activations, Keras": (to(convert.keras_arrays, jaxrnn.LSTM(3, 4, output_activation=jax.nn.relu)), "are one"),
    "peepholes, PyTorch": (to(convert.torch_arrays, jaxrnn.VanillaLSTM(3, 4)), "PyTorch has Elman, LSTM, GRU and"),
    "heads": (to(convert.torch_arrays, jaxrnn.LSTM(3, 4, heads=2)), "got heads=2, nn.LSTM has heads=1 only"),
    "another cell": (to(convert.torch_arrays, jaxrnn.MGU(3, 4)), "cell: got MGU"),
    "layers of two kinds": (
        to(convert.torch_arrays, jaxrnn.Stack((LSTM, jaxrnn.GRU(4, 4)))),
        "all of one kind and size",
    ),
    "layers of two sizes": (
        to(convert.torch_arrays, jaxrnn.Stack((LSTM, jaxrnn.LSTM(4, 2)))),
        "all of one kind and size",
    ),
    "one direction and two": (
        to(convert.torch_arrays, jaxrnn.Stack((jaxrnn.Bidirectional(jaxrnn.LSTM(3, 4)), jaxrnn.LSTM(8, 4)))),
        "of one and of two",
    ),
    "a sum of directions": (to(convert.torch_arrays, jaxrnn.Bidirectional(LSTM, merge="sum")), "got merge='sum'"),
    "a step of two layers": (
        to(convert.torch_arrays, jaxrnn.Stack((LSTM, jaxrnn.LSTM(4, 4))), step=True),
        "step: got True",
    ),
    "a clipped projection": (
        to(convert.torch_arrays, jaxrnn.Projected(LSTM, 2, clip=1.0)),
        "got clip=1.0, nn.LSTM has",
    ),
    "full peepholes": (
        to(convert.to_tensorflow1, jaxrnn.VanillaLSTM(3, 4, peephole="full")),
        "diagonal peepholes only",
    ),
    "a coupled gate": (to(convert.to_tensorflow1, jaxrnn.VanillaLSTM(3, 4, forget_gate="coupled")), "three gates"),
    "peepholes, FastLSTM": (to(convert.to_element_research, jaxrnn.VanillaLSTM(3, 4), "FastLSTM"), "which it is not"),
    "a projection, SeqLSTM": (to(convert.to_element_research, jaxrnn.Projected(LSTM, 2), "SeqLSTM"), "which it is not"),
    "two directions, Haiku": (to(convert.to_haiku, jaxrnn.Bidirectional(LSTM)), "Haiku has no such core"),
    "two dropouts, Keras": (
        to(
            convert.keras_arrays,
            jaxrnn.Dropout(jaxrnn.RecurrentDropout(jaxrnn.LSTM(3, 4), 0.1, tied=False), 0.1, ("time",)),
        ),
        "with both dropouts",
    ),
    "dropout of every step, Keras": (to(convert.keras_arrays, jaxrnn.Dropout(LSTM, 0.1)), "got share="),
    "a name that is missing": (lambda: convert.from_torch({"weight_ih_l0": np.ones((16, 3))}), "needs .*weight_hh"),
    "a name too many": (lambda: convert.from_torch(W | {"head": np.ones(3)}), "got the name 'head'"),
    "a layer that is missing": (lambda: convert.from_torch(W | {"weight_ih_l2": np.ones((16, 4))}), "every layer"),
    "a shape": (
        lambda: convert.from_torch(W | {"weight_hh_l0": np.ones((16, 5))}),
        r"needs \[H, H\], \[3H, H\] or \[4H, H\]",
    ),
    "another shape": (lambda: convert.from_torch(W | {"weight_ih_l0": np.ones((12, 3))}), r"needs \(16, 3\)"),
    "an array without axes": (lambda: convert.from_torch(W | {"weight_hh_l0": np.ones(16)}), "needs 2 axes"),
    "a nonlinearity": (
        lambda: convert.from_torch({n: a[:4] for n, a in W.items()}, nonlinearity="sin"),
        "'tanh' or 'relu'",
    ),
    "a Keras activation": (lambda: convert.from_keras(K, activation="gelu"), "activation: got 'gelu'"),
    "a Keras lambda": (lambda: convert.from_keras(K, activation=np.tanh), "a function of the layer's own, .*replace"),
    "a Keras option": (lambda: convert.from_keras(K, units=4), r"options: got \['units'\]"),
    "backwards": (lambda: convert.from_keras(K, go_backwards=True), r"unroll\(…, reverse=True\)"),
    "dropout of every gate": (lambda: convert.from_keras(K, dropout=0.1, recurrent_dropout=0.1), "leaves them out"),
    "padding": (
        lambda: convert.from_keras(
            {"kernel": np.ones((3, 3, 8)), "recurrent_kernel": np.ones((3, 2, 8))}, padding="valid"
        ),
        "padding: got 'valid'",
    ),
    "space": (
        lambda: convert.from_keras({"kernel": np.ones((3, 3, 8)), "recurrent_kernel": np.ones((3, 2, 8))}),
        "space: got None",
    ),
    "weights of other sizes": (lambda: convert.from_cudnn(np.ones(9), 3, 4), r"needs \(144,\)"),
    "cores of two kinds": (
        lambda: convert.from_haiku({"gru": {"w_i": np.ones(1)}, "lstm/linear": {"w": np.ones(1)}}),
        "needs their order",
    ),
    "cells without a place": (
        lambda: convert.from_tensorflow1(
            {"a/kernel": np.ones((7, 16)), "a/bias": np.ones(16), "b/kernel": np.ones((7, 16)), "b/bias": np.ones(16)}
        ),
        "cell_0",
    ),
    "one direction": (
        lambda: convert.from_tensorflow1(
            {f"{p}/kernel": np.ones((7, 16)) for p in ("cell_0", "cell_2")}
            | {f"{p}/bias": np.ones(16) for p in ("cell_0", "cell_2")}
        ),
        "every layer",
    ),
    "another module": (lambda: convert.from_element_research("MuFuRu", []), "module: got 'MuFuRu'"),
    "as many arrays": (lambda: convert.from_element_research("LSTM", []), "got 0 for LSTM, needs 15 or 12"),
    "names of Equinox": (
        lambda: convert.from_equinox(
            {"weight_ih": np.ones((12, 3)), "weight_hh": np.ones((12, 4)), "bias": np.ones(12)}
        ),
        "bias_n",
    ),
    "a projection of a GRU": (
        lambda: convert.from_torch(
            {"weight_ih": np.ones((12, 3)), "weight_hh": np.ones((12, 2)), "weight_hr": np.ones((2, 4))}
        ),
        r"params.w_h: got the shape \(2, 12\), needs \(4, 12\), as from GRU",
    ),
    "three axes": (lambda: convert.from_torch(W | {"weight_hh_l0": np.ones((16, 4, 1))}), r"needs \(16, 4\)"),
    "a layer that is wider": (
        lambda: convert.from_torch(W | {"weight_ih_l1": np.ones((16, 5)), "weight_hh_l1": np.ones((16, 4))}),
        "cells",
    ),
    "a kernel of another size, Keras": (
        lambda: convert.from_keras(
            {"kernel": np.ones((3, 3, 8)), "recurrent_kernel": np.ones((5, 2, 8)), "bias": np.ones(8)}, space=(4,)
        ),
        r"params.w_h: got the shape \(5, 2, 8\), needs \(3, 2, 8\)",
    ),
    "a kernel of another size, Haiku": (
        lambda: conv_of_haiku((5, 2, 8), (8,)),
        r"params.w_h: got the shape \(5, 2, 8\)",
    ),
    "two biases, Haiku": (lambda: conv_of_haiku((3, 2, 8), (7,)), r"conv/hidden_to_hidden/b: .* needs \(8,\)"),
    "an axis, Haiku": (
        lambda: convert.from_haiku({"lstm/linear": {"w": np.ones(16), "b": np.ones(16)}}),
        "lstm/linear/w: got the shape .* needs 2 axes",
    ),
    "gates, Haiku": (
        lambda: convert.from_haiku({"lstm/linear": {"w": np.ones((7, 15)), "b": np.ones(15)}}),
        r"the shape \(7, 15\), needs 4 gates of one size along its last axis",
    ),
    "a bias of Equinox": (
        lambda: convert.from_equinox(
            {"weight_ih": np.ones((12, 3)), "weight_hh": np.ones((12, 4)), "bias": np.ones(12), "bias_n": np.ones(5)}
        ),
        r"params.b_n: got the shape \(5,\), needs \(4,\)",
    ),
    "a bias of TensorFlow": (
        lambda: convert.from_tensorflow1(
            {
                "gates/kernel": np.ones((7, 8)),
                "gates/bias": np.ones(8),
                "candidate/kernel": np.ones((7, 4)),
                "candidate/bias": np.ones(7),
            }
        ),
        r"params.b: got the shape \(15,\), needs \(12,\)",
    ),
    "a matrix of Element-Research": (
        lambda: convert.from_element_research("FastLSTM", [np.ones((16, 3)), np.ones(16), np.ones((16, 5))]),
        r"params.w_h: got the shape \(5, 16\), needs \(4, 16\)",
    ),
    "a bias of Element-Research": (
        lambda: convert.from_element_research("SeqGRU", [np.ones((7, 12)), np.ones(13)]),
        r"params.b: got the shape \(13,\), needs \(12,\)",
    ),
    "two biases, Flax": (
        lambda: convert.from_flax(
            {
                "ih": {"kernel": np.ones((3, 2, 16)), "bias": np.ones(16)},
                "hh": {"kernel": np.ones((3, 4, 16)), "bias": np.ones(15)},
            },
            space=(5,),
        ),
        r"hh/bias: got the shape \(15,\), needs \(16,\)",
    ),
    "an axis, Flax": (
        lambda: convert.from_flax({"i": {"kernel": np.ones(4), "bias": np.ones(4)}, "h": {"kernel": np.ones((4, 4))}}),
        "i/kernel: got the shape .* needs 2 axes",
    ),
    "arrays of Flax that are not nested": (lambda: convert.from_flax({"i": np.ones(4)}), "needs a nested dict"),
    "names of Flax": (lambda: convert.from_flax({"a": {"kernel": np.ones((3, 4))}}), "of Flax's own"),
}


@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_expressed(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_modules_that_cannot_be_expressed():
    from flax import linen, nnx

    with pytest.raises(ValueError, match="residual=True, jaxrnn has False only"):
        convert.from_flax(linen.SimpleCell(4, residual=True), {})
    with pytest.raises(ValueError, match="strides"):
        convert.from_flax(linen.ConvLSTMCell(4, (2,), strides=(2,)), {})
    with pytest.raises(ValueError, match="for a linen cell"):
        convert.from_flax(linen.LSTMCell(4))
    with pytest.raises(ValueError, match=r"nnx.GRUCell has none; linen.GRUCell has it"):
        convert.to_flax(GRU, params_of(GRU), nnx.GRUCell)
    with pytest.raises(ValueError, match="kind: got GRUCell for LSTM"):
        convert.to_flax(LSTM, params_of(LSTM), nnx.GRUCell)
    for function in (convert.from_torch, convert.from_keras, convert.from_flax, convert.from_equinox):
        with pytest.raises(TypeError, match="source: got int"):
            function(3)


def test_float64_is_never_rounded():
    with jax.enable_x64(False), pytest.raises(ValueError, match="float64, which JAX would round to float32"):
        convert.from_torch(W)


@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8"])
def test_arrays_of_the_other_byte_order_are_read(dtype):
    weights = {name: np.random.default_rng(0).normal(size=w.shape).astype(dtype) for name, w in W.items()}
    cell, params = convert.from_torch(weights)
    assert params.w_x.dtype == np.dtype(dtype).newbyteorder("=")
    for name, array in convert.torch_arrays(cell, params).items():
        np.testing.assert_array_equal(array, weights[name])


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="a long double is a float64 here")
def test_dtypes_that_jax_does_not_have_are_refused():
    with pytest.raises(ValueError, match=r"weight_ih: got .*, which JAX does not have; needs arrays in float64 or"):
        convert.from_torch({name: w.astype(np.longdouble) for name, w in W.items()})


@pytest.mark.parametrize("to", [convert.to_torch, convert.to_keras])
def test_parameters_of_several_dtypes_are_not_rounded(to):
    pytest.importorskip(to.__name__.removeprefix("to_"))
    for cell in (LSTM, jaxrnn.Bidirectional(LSTM), jaxrnn.Stack((LSTM, jaxrnn.LSTM(4, 4)))):
        first, *others = jax.tree.leaves(params_of(cell))
        mixed = jax.tree.unflatten(
            jax.tree.structure(params_of(cell)), [first.astype(jnp.bfloat16), *(x.astype(jnp.float32) for x in others)]
        )
        with pytest.raises(ValueError, match=r"params: got bfloat16, float32, needs all bfloat16, .* or float64; see"):
            to(cell, mixed)


def test_dropout_of_stacks_in_a_stack():
    pytest.importorskip("torch")

    def dropout(cell):
        return convert.to_torch(cell, params_of(cell)).dropout

    def stack(*sizes, rate=0.0):
        layers = (jaxrnn.LSTM(i, h) if isinstance(i, int) else i for i, h in sizes)
        return jaxrnn.Stack(tuple(layers), dropout=rate)

    inner = stack((3, 4), (4, 4), rate=0.5)
    for outer in (stack((inner, 4), (4, 4)), stack((inner, 4), (4, 4), rate=0.3)):
        with pytest.raises(ValueError, match=rf"dropout=\[{outer.dropout}, 0.5\], PyTorch has one rate between all"):
            dropout(outer)
    assert dropout(stack((inner, 4), (4, 4), rate=0.5)) == 0.5
    assert dropout(stack((inner, 4))) == 0.5
    assert dropout(stack((stack((3, 4), rate=0.3), 4), (4, 4), rate=0.5)) == 0.5
    assert dropout(stack((3, 4), rate=0.5)) == 0.0


def test_a_vanilla_lstm_without_options_is_an_lstm():
    cell = jaxrnn.VanillaLSTM(3, 4, peephole=False)
    params = params_of(cell)
    lstm, copy = convert.from_torch(convert.torch_arrays(cell, params))
    assert lstm == LSTM
    _, xs, _ = example(LSTM, dtype=jnp.float64)
    close(unrolled(cell, params, xs)[1], unrolled(lstm, copy, xs)[1])
