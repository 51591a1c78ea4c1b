"""ONNX models in and out: ONNX's own node tests, ONNX Runtime, the reference evaluator, what PyTorch and tf2onnx write.

Programs are few: what one test compares is unrolled in one `jit`.
"""

import functools
import io
import itertools
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import convert
from jaxrnn.cells import GRUState
from jaxrnn.convert.onnx import OnnxActivation
from jaxrnn.convert.onnx.activations import from_name
from jaxrnn.networks import BidirectionalState, Linear, LinearParams, Reversed, WeightNorm
from tests.oracles import oracle
from tests.registry import rare

onnx = oracle("onnx")
runtime = oracle("onnxruntime")
helper = onnx.helper

T, B, I, H = 5, 3, 2, 4  # noqa: E741  the letters of the docs
LENGTHS = np.array([5, 2, 3], np.int32)
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
exact = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)
RNG = np.random.default_rng(0)


def draw(*shape, dtype=np.float32):
    return (0.5 * RNG.normal(size=shape)).astype(dtype)


def tensor(name, shape, dtype=np.float32):
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def make(nodes, inputs, outputs, constants=(), opset=17):
    """A model of `inputs`, value infos, with `constants` by name; outputs by name."""
    constants = [onnx.numpy_helper.from_array(np.asarray(a), name) for name, a in dict(constants).items()]
    outputs = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph(nodes, "test", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run_onnx(model, feeds):
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def run_reference(model, feeds):
    evaluator = oracle("onnx.reference").ReferenceEvaluator(model)
    return dict(zip(evaluator.output_names, evaluator.run(None, feeds), strict=True))


def unroll_all(runs):
    """Unrolls `[(network, params, xs, state, lengths)]` in one program."""
    networks = [network for network, *_ in runs]

    @jax.jit
    def program(given):
        return [
            jaxrnn.unroll(network, params, xs, state, lengths=lengths)
            for network, (params, xs, state, lengths) in zip(networks, given, strict=True)
        ]

    return program([given for _, *given in runs])


def directions(state):
    return list(state) if isinstance(state, BidirectionalState) else [state]


def as_onnx(state, ys):
    """`Y`, `Y_h` and `Y_c` of one node, from what `unroll` returns."""
    states = directions(state)
    steps, batch, _ = ys.shape
    found = {"Y": np.asarray(ys).reshape(steps, batch, len(states), -1).transpose(0, 2, 1, 3)}
    found["Y_h"] = np.stack([s.h for s in states])
    if hasattr(states[0], "c"):
        found["Y_c"] = np.stack([s.c for s in states])
    return found


def initial_state(network, **initial):
    """The state of one node's layer, from `initial_h` and `initial_c` `[D, B, H]`."""
    batch = next(iter(initial.values())).shape[1]
    state = network.initial_state((batch,), next(iter(initial.values())).dtype)
    found = [
        one._replace(**{leaf: jnp.asarray(a[d]) for leaf, a in initial.items()})
        for d, one in enumerate(directions(state))
    ]
    return BidirectionalState(*found) if isinstance(state, BidirectionalState) else found[0]


# The importer: nodes


def node_cases():
    from onnx.backend.test.case import node
    from onnx.backend.test.case.node import gru, lstm, rnn  # noqa: F401  they add their cases to a list when imported

    return [case for case in node._NodeTestCases if case.model.graph.node[0].op_type in ("RNN", "GRU", "LSTM")]


def test_onnx_s_own_node_tests():
    """All of them for the three operators; their weights, inputs of the graph, become its constants."""
    runs, wanted = [], []
    for case in node_cases():
        ((inputs, outputs),) = case.data_sets
        given = dict(zip([one.name for one in case.model.graph.input], inputs, strict=True))
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        weights = [onnx.numpy_helper.from_array(given[n], n) for n in ("W", "R", "B", "P") if n in given]
        model.graph.initializer.extend(weights)
        network, params = convert.from_onnx(model)
        (node,) = model.graph.node
        layout = any(a.name == "layout" and a.i for a in node.attribute)
        xs = given["X"].swapaxes(0, 1) if layout else given["X"]
        initial = {n[-1]: given[n] for n in ("initial_h", "initial_c") if n in given}
        state = initial_state(network, **initial) if initial else None
        runs.append((network, params, xs, state, given.get("sequence_lens")))
        wanted.append((layout, [o.name for o in model.graph.output], outputs))
    assert len(runs) >= 18
    for (state, ys), (layout, names, outputs) in zip(unroll_all(runs), wanted, strict=True):
        found = as_onnx(state, ys)
        for name, output in zip(names, outputs, strict=True):
            got = found[name]
            if layout:
                got = got.transpose(2, 0, 1, 3) if name == "Y" else got.swapaxes(0, 1)
            close(got, output)


DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
NUMBERS = {
    "Affine": (0.7, 0.1),
    "Elu": (0.6,),
    "HardSigmoid": (0.3, 0.4),
    "LeakyRelu": (0.2,),
    "Relu": (),
    "ScaledTanh": (0.8, 0.6),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "Tanh": (),
    "ThresholdedRelu": (0.3,),
}


def activations(names):
    """The attributes of functions with the numbers of `NUMBERS`, which the functions consume in their order."""
    numbers = [NUMBERS[name] for name in names]
    alphas, betas = [n[0] for n in numbers if n], [n[1] for n in numbers if len(n) > 1]
    given = {"activations": names, "activation_alpha": alphas, "activation_beta": betas}
    return {name: value for name, value in given.items() if value}


def node_model(
    op, *, direction="forward", bias=True, peepholes=False, lengths=False, initial=True, dtype=np.float32, **attributes
):
    """A model of one node with dynamic axes, and what to feed it."""
    d, n = DIRECTIONS[direction], GATES[op]
    constants = {"W": draw(d, n * H, I, dtype=dtype), "R": draw(d, n * H, H, dtype=dtype)}
    if bias:
        constants["B"] = draw(d, 2 * n * H, dtype=dtype)
    if peepholes:
        constants["P"] = draw(d, 3 * H, dtype=dtype)
    layout = attributes.get("layout", 0)
    feeds = {"X": draw(T, B, I, dtype=dtype)}
    inputs = [tensor("X", ("B", "T", I) if layout else ("T", "B", I), dtype)]
    if lengths:
        feeds["sequence_lens"] = LENGTHS
        inputs.append(tensor("sequence_lens", ("B",), np.int32))
    for name in ("initial_h", "initial_c")[: initial * (1 + (op == "LSTM"))]:
        feeds[name] = draw(d, B, H, dtype=dtype)
        inputs.append(tensor(name, ("B", d, H) if layout else (d, "B", H), dtype))
    names = [
        "X",
        "W",
        "R",
        "B" * bias,
        "sequence_lens" * lengths,
        *("initial_h" * initial, "initial_c" * initial)[: 1 + (op == "LSTM")],
        *("P" * peepholes,) * (op == "LSTM"),
    ]
    outputs = ["Y", "Y_h", "Y_c"][: 2 + (op == "LSTM")]
    node = helper.make_node(op, names, outputs, direction=direction, hidden_size=H, **attributes)
    if layout:
        feeds = {k: a.swapaxes(0, 1) if a.ndim > 1 else a for k, a in feeds.items()}
    return make([node], inputs, outputs, constants), feeds


def imported(model, feeds):
    """The arguments of `unroll` for a model of one node."""
    network, params = convert.from_onnx(model)
    layout = any(a.name == "layout" and a.i for a in model.graph.node[0].attribute)
    feeds = {name: a.swapaxes(0, 1) if layout and a.ndim > 1 else a for name, a in feeds.items()}
    initial = {n[-1]: feeds[n] for n in ("initial_h", "initial_c") if n in feeds}
    state = initial_state(network, **initial) if initial else None
    return network, params, feeds["X"], state, feeds.get("sequence_lens")


def grid():
    """Attributes of the three operators, with directions and lengths in turn."""
    lstm = [
        {},
        {"bias": False, "initial": False},
        {"peepholes": True, "clip": 0.4},
        {"input_forget": 1},
        {"input_forget": 1, "peepholes": True, "clip": 0.9},
        activations(["HardSigmoid", "Affine", "LeakyRelu"]),
        activations(["Sigmoid", "Softsign", "ScaledTanh"]) | {"clip": 0.8},
    ]
    gru = [
        {"linear_before_reset": 0},
        {"linear_before_reset": 1},
        {"linear_before_reset": 0, "clip": 0.4, "initial": False},
        {"linear_before_reset": 1, "clip": 0.4},
        {"linear_before_reset": 1, "bias": False} | activations(["HardSigmoid", "Elu"]),
    ]
    rnn = [{}, {"clip": 0.3}, {"bias": False, "initial": False} | activations(["Relu"])]
    ways = itertools.cycle(itertools.product(DIRECTIONS, (False, True)))
    for op, rows in {"LSTM": lstm, "GRU": gru, "RNN": rnn}.items():
        for row in rows:
            direction, lengths = next(ways)
            if direction == "bidirectional" and "activations" in row:  # the second direction has others
                others = ["Relu", "Softplus", "Sigmoid"][: len(row["activations"])]
                row = row | activations(row["activations"] + others)
            yield op, row | {"direction": direction, "lengths": lengths}


def test_every_attribute_gives_what_onnx_runtime_gives():
    models = [node_model(op, **options) for op, options in grid()]
    runs = [imported(model, feeds) for model, feeds in models]
    for (op, options), (model, feeds), (state, ys) in zip(grid(), models, unroll_all(runs), strict=True):
        found = as_onnx(state, ys)
        for name, value in run_onnx(model, feeds).items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=f"{op} {options} {name}")


@pytest.mark.usefixtures("x64")
def test_float64_gives_what_the_reference_gives():
    """Layouts too; the reference evaluator knows neither other activations nor `clip`, `input_forget` and lengths."""
    models = [
        node_model("LSTM", direction="bidirectional", peepholes=True, dtype=np.float64),
        node_model("LSTM", direction="reverse", layout=1, dtype=np.float64),
        node_model("GRU", direction="bidirectional", layout=1, linear_before_reset=1, dtype=np.float64),
        node_model("GRU", direction="reverse", dtype=np.float64),
        node_model("RNN", direction="reverse", dtype=np.float64, **activations(["Affine"])),
        node_model("RNN", direction="bidirectional", layout=1, dtype=np.float64),
    ]
    runs = [imported(model, feeds) for model, feeds in models]
    for (model, feeds), (state, ys) in zip(models, unroll_all(runs), strict=True):
        found = as_onnx(state, ys)
        for name, value in run_reference(model, feeds).items():
            got = found[name]
            if "layout" in [a.name for a in model.graph.node[0].attribute]:
                got = got.transpose(2, 0, 1, 3) if name == "Y" else got.swapaxes(0, 1)
            exact(got, value)


@pytest.mark.parametrize("numbers", [True, False], ids=["numbers", "defaults"])
def test_activations_are_those_of_onnx_runtime(numbers):
    """`Y = f(X)`: no recurrent weights, and the identity for the others."""
    xs = np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 3, 4)
    constants = {"W": np.eye(4, dtype=np.float32)[None], "R": np.zeros((1, 4, 4), np.float32)}
    # Affine and ScaledTanh have no defaults, and ThresholdedRelu's is 1 in the standard, 0 in ONNX Runtime.
    names = [name for name in NUMBERS if numbers or name not in ("Affine", "ScaledTanh", "ThresholdedRelu")]
    for name in names:
        given = activations([name]) if numbers else {"activations": [name]}
        node = helper.make_node("RNN", ["X", "W", "R"], ["Y"], hidden_size=4, **given)
        model = make([node], [tensor("X", ("T", "B", 4))], ["Y"], constants)
        network, _ = convert.from_onnx(model)
        value = run_onnx(model, {"X": xs})["Y"][:, 0]
        np.testing.assert_allclose(network.activation(jnp.asarray(xs)), value, rtol=1e-5, atol=2e-6, err_msg=name)


def test_activations_that_jax_has_are_jax_s():
    assert from_name("Sigmoid") is jax.nn.sigmoid
    assert from_name("LeakyRelu", alpha=float(np.float32(0.01))) is jax.nn.leaky_relu
    assert from_name("Affine", alpha=1.0, beta=0.0) is jax.nn.identity
    assert from_name("Elu", alpha=0.5) == OnnxActivation("Elu", 0.5) != OnnxActivation("Elu", 0.6)


def test_biases_of_both_sides_are_summed_but_for_the_candidate_of_a_gru():
    model, _ = node_model("GRU", linear_before_reset=1)
    (b,) = (onnx.numpy_helper.to_array(one)[0] for one in model.graph.initializer if one.name == "B")
    _, params = convert.from_onnx(model)
    z, r, n = np.split(b[: 3 * H] + b[3 * H :], 3)
    np.testing.assert_array_equal(params.b, np.concatenate([r, z, b[2 * H : 3 * H]]))
    np.testing.assert_array_equal(params.b_n, b[5 * H :])
    assert not np.array_equal(n, b[2 * H : 3 * H])


# The exporter, and the way back

DEEP = jaxrnn.Stack(
    (
        jaxrnn.Embedding(7, I),
        jaxrnn.Bidirectional(jaxrnn.LSTM(I, H)),
        jaxrnn.Bidirectional(jaxrnn.GRU(2 * H, H, "before"), merge="sum"),
        jaxrnn.Residual(jaxrnn.Elman(H, H, jax.nn.relu)),
        Linear(H, 3),
        jax.nn.log_softmax,
    )
)
CLIPPED = OnnxActivation("Sigmoid", clip=0.5)
MIXED = jaxrnn.Stack(
    (
        jaxrnn.LearnedState(jaxrnn.VanillaLSTM(I, H, forget_gate="coupled")),
        Reversed(jaxrnn.GRU(H, H, use_bias=False)),
        jaxrnn.Bidirectional(jaxrnn.LSTM(H, H), jaxrnn.GRU(H, 3)),
        jaxrnn.Bidirectional(jaxrnn.LearnedState(jaxrnn.GRU(7, 3)), merge="sum"),
        jaxrnn.VanillaLSTM(
            3,
            H,
            gate_activation=CLIPPED,
            output_gate_activation=CLIPPED,
            candidate_activation=OnnxActivation("HardSigmoid", 0.25, 0.5, clip=0.5),
            output_activation=jax.nn.leaky_relu,
        ),
    )
)


def example(network, dtype=np.float32):
    """Random parameters and states, biases too, and inputs."""
    params = jax.tree.map(
        lambda p: jnp.asarray(draw(*p.shape, dtype=dtype)), jax.eval_shape(network.init, jax.random.key(0))
    )
    state = jax.tree.map(lambda s: jnp.asarray(draw(*s.shape, dtype=dtype)), network.initial_state((B,)))
    tokens = jnp.issubdtype(network.input_spec.dtype, jnp.integer)
    xs = RNG.integers(0, network.input_size, (T, B)) if tokens else draw(T, B, network.input_size, dtype=dtype)
    return params, xs, state


def leaves(name, state):
    paths = jax.tree_util.tree_leaves_with_path(state)
    return {f"{name}{jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in paths}


UNLEARNED = jaxrnn.Stack(
    (
        MIXED.cells[0].cell,
        *MIXED.cells[1:3],
        jaxrnn.Bidirectional(jaxrnn.GRU(7, 3), merge="sum"),
        MIXED.cells[4],
    )
)


@pytest.mark.parametrize(
    ("network", "carried"),
    [(DEEP, DEEP), *rare((MIXED, UNLEARNED))],
    ids=["deep", "mixed"],
)
def test_networks_go_out_and_come_back(network, carried):
    """ONNX Runtime gives the numbers of `unroll`, with lengths and states; what comes back is the same, bit by bit."""
    params, xs, state = example(network)
    model = convert.to_onnx(network, params, lengths=True, states=True)
    onnx.checker.check_model(model, full_check=True)
    assert convert.from_onnx(model)[0] == carried  # where a state is an input, none is learned
    plain = convert.to_onnx(network, params)
    onnx.checker.check_model(plain, full_check=True)
    again, same = convert.from_onnx(plain.SerializeToString())
    assert again == network
    chex.assert_trees_all_equal(same, params)

    short = xs[:2, :1] if network is DEEP else xs  # T and B are dynamic
    runs = [(network, params, jnp.asarray(xs), state, LENGTHS), (network, params, jnp.asarray(short), None, None)]
    (final, ys), (_, zs) = unroll_all(runs)
    found = run_onnx(model, {"xs": xs, "lengths": LENGTHS, **leaves("state", state)})
    close(found["ys"], ys)
    for name, leaf in leaves("final", final).items():
        close(found[name], leaf, err_msg=name)
    close(run_onnx(plain, {"xs": short})["ys"], zs)


@pytest.mark.usefixtures("x64")
def test_float64_networks_in_the_reference():
    network = jaxrnn.Stack((*DEEP.cells[:3], jaxrnn.LearnedState(jaxrnn.VanillaLSTM(H, H)), Reversed(jaxrnn.GRU(H, H))))
    params, xs, state = example(network, np.float64)
    model = convert.to_onnx(network, params)
    again, same = convert.from_onnx(model)
    assert again == network
    chex.assert_trees_all_equal(same, params)
    with_states = convert.to_onnx(network, params, states=True)
    runs = [(network, params, jnp.asarray(xs), start, None) for start in (None, state)]
    (_, ys), (final, zs) = unroll_all(runs)
    exact(run_reference(model, {"xs": xs})["ys"], ys)
    found = run_reference(with_states, {"xs": xs, **leaves("state", state)})
    exact(found["ys"], zs)
    for name, leaf in leaves("final", final).items():
        exact(found[name], leaf)


@pytest.mark.exhaustive
def test_what_acts_in_training_only_and_heads_are_left_out():
    """Dropout, parametrizations and block-diagonal weights leave an ordinary node."""
    cell = jaxrnn.LSTM(I, H, heads=2)
    network = jaxrnn.Stack(
        (
            jaxrnn.Dropout(WeightNorm(cell), 0.5),
            jaxrnn.RecurrentDropout(jaxrnn.GRU(H, H, "before", heads=2), 0.5),
            jaxrnn.WeightDrop(jaxrnn.Elman(H, H, OnnxActivation("Tanh", clip=0.5)), 0.5),
        ),
        dropout=0.5,
    )
    params, xs, _ = example(network)
    model = convert.to_onnx(network, params)
    again, same = convert.from_onnx(model)
    assert again.cells == (jaxrnn.LSTM(I, H), jaxrnn.GRU(H, H, "before"), network.cells[2].cell)
    w = np.asarray(same[0].w_h).reshape(2, 2, 4, 2, 2)  # head, unit, gate, head, unit
    assert not w[0, :, :, 1].any()
    assert w[0, :, :, 0].all()
    ((_, ys),) = unroll_all([(network, params, xs, None, None)])
    close(run_onnx(model, {"xs": xs})["ys"], ys)


def test_models_of_onnx_come_back_as_they_were():
    """In and out again: the numbers of a bidirectional peephole LSTM with clip, and its attributes."""
    model, feeds = node_model(
        "LSTM", direction="bidirectional", peepholes=True, clip=0.5, input_forget=1, initial=False
    )
    network, params = convert.from_onnx(model)
    again = convert.to_onnx(network, params)
    node, other = model.graph.node[0], again.graph.node[0]
    assert sorted(map(str, node.attribute)) == sorted(map(str, other.attribute))
    y = run_onnx(model, feeds)["Y"]
    close(run_onnx(again, {"xs": feeds["X"]})["ys"], y.transpose(0, 2, 1, 3).reshape(T, B, 2 * H))
    network_again, params_again = convert.from_onnx(again)
    assert network_again == network
    chex.assert_trees_all_equal(params_again, params)


# Whole models, as other libraries write them


def exported(module, args, **options):
    """What PyTorch's exporter writes; what it warns of is its own."""
    torch = oracle("torch")
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, args, file, dynamo=False, **options)
    return file.getvalue()


def tagger(kind, *, batch_first=False, last=False, packed=False, bidirectional=True, embedded=True):
    """Embedding, two recurrent layers and a head; `last` reads the last state, `packed` has lengths."""
    torch = oracle("torch")
    nn = torch.nn

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(7, 3) if embedded else nn.Identity()
            self.rnn = kind(3, H, 2, bidirectional=bidirectional, batch_first=batch_first)
            self.head = nn.Linear(H * (1 + bidirectional), 2)

        def forward(self, tokens, *more):
            xs = self.embedding(tokens)
            if packed:
                xs = nn.utils.rnn.pack_padded_sequence(xs, more[0], batch_first=batch_first)
                ys, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(xs)[0], batch_first=batch_first)
                return torch.relu(self.head(ys))
            ys, state = self.rnn(xs, (more if len(more) > 1 else more[0]) if more else None)
            if last:
                return self.head((state[0] if isinstance(state, tuple) else state)[-1])
            return (self.head(ys), state) if more else self.head(ys)

    torch.manual_seed(0)
    return Tagger()


@pytest.mark.exhaustive
def test_models_of_pytorch():
    """Two bidirectional layers between an embedding and a head, in every form that PyTorch writes."""
    torch = oracle("torch")
    nn, tokens = torch.nn, torch.randint(0, 7, (T, B), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([5, 3, 2])  # what is packed is sorted
    axes = {"xs": {0: "T", 1: "B"}}
    lstm, gru, rnn = tagger(nn.LSTM), tagger(nn.GRU, batch_first=True), tagger(nn.RNN, packed=True)
    many = tagger(nn.LSTM, batch_first=True, last=True, bidirectional=False, embedded=False)
    carried = tagger(nn.GRU, bidirectional=False)
    xs, h = torch.randn(B, T, 3, generator=torch.Generator().manual_seed(1)), torch.ones(2, B, H)

    models = [
        exported(lstm, (tokens,), input_names=["xs"], dynamic_axes=axes),
        exported(gru, (tokens.T,)),  # all axes fixed
        exported(rnn, (tokens, lengths), input_names=["xs", "ends"], dynamic_axes=axes | {"ends": {0: "B"}}),
        exported(many, (xs,), input_names=["xs"], dynamic_axes={"xs": {0: "B", 1: "T"}}),
        exported(carried, (tokens, h), input_names=["xs", "h"], dynamic_axes=axes | {"h": {1: "B"}}),
    ]
    networks = [convert.from_onnx(model) for model in models]
    assert networks[0][0] == jaxrnn.Stack(
        (
            jaxrnn.Embedding(7, 3),
            jaxrnn.Bidirectional(jaxrnn.LSTM(3, H)),
            jaxrnn.Bidirectional(jaxrnn.LSTM(2 * H, H)),
            Linear(2 * H, 2),
        )
    )
    given = [tokens, tokens, tokens, xs.transpose(0, 1), tokens]
    states = [None, None, None, None, ((), GRUState(jnp.ones((B, H))), GRUState(jnp.ones((B, H))), ())]
    ends = [None, None, lengths.numpy(), None, None]
    inputs = [jnp.asarray(one.numpy()) for one in given]
    runs = [(*net, x, state, end) for net, x, state, end in zip(networks, inputs, states, ends, strict=True)]
    results = unroll_all(runs)

    ys, *wanted = lstm(tokens), gru(tokens.T).transpose(0, 1), rnn(tokens, lengths), many(xs), carried(tokens, h)
    valid = np.arange(T)[:, None] < lengths.numpy()
    wanted[1] = wanted[1] * torch.tensor(valid)[..., None]  # PyTorch's head gives its bias there
    close(results[0][1], ys.detach())
    close(results[1][1], wanted[0].detach())
    close(results[2][1], wanted[1].detach())
    close(results[3][1][-1], wanted[2].detach())  # the model has its last output only
    close(results[4][1], wanted[3][0].detach())
    close(np.stack([results[4][0][i].h for i in (1, 2)]), wanted[3][1].detach())

    # Gradients through all layers.
    torch.sin(ys).sum().backward()
    network, params = networks[0]
    loss = jax.jit(jax.grad(lambda params: jnp.sum(jnp.sin(jaxrnn.unroll(network, params, inputs[0])[1]))))
    table, first, _, head = loss(params)
    close(table, lstm.embedding.weight.grad)
    close(first.backward.w_h.T, lstm.rnn.weight_hh_l0_reverse.grad)
    close(head.w.T, lstm.head.weight.grad)


def from_tf2onnx():
    """A Keras model as tf2onnx 1.17 writes it: tokens made nonnegative, batch-major, `go_backwards`, a dense layer."""
    node = helper.make_node
    constants = {
        "V": np.array(7, np.int32),
        "zero": np.array(0.0, np.float32),
        "table": draw(7, 3),
        "W": draw(1, 4 * H, 3),
        "R": draw(1, 4 * H, H),
        "B": draw(1, 8 * H),
        "w": draw(H, 2),
        "flat": np.array([-1, H]),
        "free": np.array([0, 1], np.int32),
        "size": np.array([2], np.int32),
        "units": np.array([H], np.int32),
        "i0": np.array([0]),
        "i1": np.array([1]),
    }
    nodes = [
        node("Add", ["xs", "V"], ["plus"]),
        node("Cast", ["xs"], ["real"], to=onnx.TensorProto.FLOAT),
        node("Less", ["real", "zero"], ["negative"]),
        node("Not", ["negative"], ["positive"]),
        node("Cast", ["positive"], ["is_positive"], to=onnx.TensorProto.INT32),
        node("Mul", ["xs", "is_positive"], ["as_is"]),
        node("Cast", ["negative"], ["is_negative"], to=onnx.TensorProto.INT32),
        node("Mul", ["is_negative", "plus"], ["wrapped"]),
        node("Add", ["wrapped", "as_is"], ["tokens"]),
        node("Gather", ["table", "tokens"], ["embedded"], axis=0),
        node("Transpose", ["embedded"], ["steps"], perm=[1, 0, 2]),
        node("Shape", ["embedded"], ["shape"]),
        node("Cast", ["shape"], ["shape32"], to=onnx.TensorProto.INT32),
        node("Slice", ["shape32", "i0", "i1", "i0"], ["batch"]),
        node("Concat", ["batch", "units"], ["state32"], axis=0),
        node("Cast", ["state32"], ["state64"], to=onnx.TensorProto.INT64),
        node("Expand", ["zero", "state64"], ["zeros"]),
        node("Unsqueeze", ["zeros", "i0"], ["start"]),
        node("Shape", ["steps"], ["shape_of_steps"]),
        node("Gather", ["shape_of_steps", "i1"], ["b"]),
        node("Gather", ["shape_of_steps", "i0"], ["t"]),
        node("Expand", ["t", "b"], ["ends"]),
        node("ReverseSequence", ["steps", "ends"], ["reversed"], batch_axis=1, time_axis=0),
        node("LSTM", ["reversed", "W", "R", "B", "", "start", "start"], ["Y", "", ""], hidden_size=H),
        node("Squeeze", ["Y", "i1"], ["outputs"]),
        node("Transpose", ["outputs"], ["rows"], perm=[1, 0, 2]),
        node("Shape", ["rows"], ["shape_of_rows"]),
        node("Cast", ["shape_of_rows"], ["shape_of_rows32"], to=onnx.TensorProto.INT32),
        node("Gather", ["shape_of_rows32", "free"], ["kept"], axis=0),
        node("Concat", ["kept", "size"], ["shape_of_ys32"], axis=0),
        node("Cast", ["shape_of_ys32"], ["shape_of_ys"], to=onnx.TensorProto.INT64),
        node("Reshape", ["rows", "flat"], ["all"]),
        node("MatMul", ["all", "w"], ["product"]),
        node("Reshape", ["product", "shape_of_ys"], ["shaped"]),
        node("Softmax", ["shaped"], ["ys"]),
    ]
    return make(nodes, [tensor("xs", (None, None), np.int32)], ["ys"], constants, opset=15)


def branches():
    """Two directions as nodes of their own and as halves of one node, a skip connection, a concatenation of inputs."""
    node = helper.make_node
    constants = {
        "W0": draw(1, 3 * H, 4),
        "R0": draw(1, 3 * H, H),
        "W1": draw(1, H, 4),
        "R1": draw(1, H, H),
        "W2": draw(2, H, 2 * H),
        "R2": draw(2, H, H),
        "axis1": np.array([1]),
    }
    nodes = [
        node("GRU", ["xs", "W0", "R0"], ["Y0"], hidden_size=H),
        node("RNN", ["xs", "W1", "R1"], ["Y1"], hidden_size=H, direction="reverse"),
        node("Squeeze", ["Y0", "axis1"], ["there"]),
        node("Squeeze", ["Y1", "axis1"], ["back"]),
        node("Concat", ["there", "back"], ["both"], axis=-1),
        node("RNN", ["both", "W2", "R2"], ["Y2"], hidden_size=H, direction="bidirectional"),
        node("Split", ["Y2"], ["forward", "backward"], axis=1, num_outputs=2),
        node("Add", ["forward", "backward"], ["sum"]),
        node("Squeeze", ["sum", "axis1"], ["sums"]),
        node("Add", ["xs", "sums"], ["skipped"]),
        node("Concat", ["skipped", "xs"], ["wide"], axis=2),
        node("Elu", ["wide"], ["elu"]),
        node("LeakyRelu", ["elu"], ["leaky"], alpha=0.3),
        node("Softsign", ["leaky"], ["soft"]),
        node("Dropout", ["soft"], ["same"]),
        node("HardSigmoid", ["same"], ["ys"]),
    ]
    return make(nodes, [tensor("xs", ("T", "B", H))], ["ys"], constants, opset=18)


def test_models_of_tf2onnx_and_of_branches():
    keras, wide = from_tf2onnx(), branches()
    tokens, xs = RNG.integers(0, 7, (T, B)).astype(np.int32), draw(T, B, H)
    network, params = convert.from_onnx(keras)
    other, more = convert.from_onnx(wide)
    assert network.cells[:2] == (jaxrnn.Embedding(7, 3), Reversed(jaxrnn.LSTM(3, H)))
    (_, ys), (_, zs) = unroll_all([(network, params, tokens, None, None), (other, more, xs, None, None)])
    # Keras leaves the outputs of `go_backwards` in the order of computation; ours are in that of the inputs.
    close(ys[::-1].swapaxes(0, 1), run_onnx(keras, {"xs": tokens.T})["ys"])
    close(zs, run_onnx(wide, {"xs": xs})["ys"])


# What cannot be

X = ("xs", ("T", "B", I))
INITIAL = ("h", (1, "B", H))


def of_nodes(*nodes, inputs=(X,), outputs=("ys",), opset=17, **constants):
    """A model of nodes `(op, inputs, outputs, attributes)`, `_` for none, with weights of an RNN and of an LSTM."""
    weights = {"W": draw(1, H, I), "R": draw(1, H, H), "W4": draw(1, 4 * H, I), "R4": draw(1, 4 * H, H)}
    nodes = [
        helper.make_node(op, ins.replace("_", " ").split(" "), outs.split(), **dict(*more))
        for op, ins, outs, *more in nodes
    ]
    return make(nodes, [tensor(*one) for one in inputs], outputs, weights | constants, opset)


RNN = ("RNN", "xs W R", "Y YH")
HEAD = ("RNN", "xs W R", "ys")


def body():
    return helper.make_graph([], "body", [], [tensor("d", ())])


FOREIGN = {
    "weights that are inputs": (
        [("RNN", "xs V R", "ys")],
        {"inputs": [X, ("V", (1, H, I))]},
        "W: got values that depend on the inputs, needs a constant",
    ),
    "another hidden size": ([(*HEAD, {"hidden_size": 3})], {}, "hidden_size: got 3, needs that of the weights, 4"),
    "shapes": ([("RNN", "xs W R4", "ys")], {}, r"R: got the shape \(16, 4\), needs \(4, 4\)"),
    "features": ([HEAD], {"inputs": [("xs", ("T", "B", 7))]}, "X: got 7 values at each step, needs 2"),
    "one direction": ([(*HEAD, {"direction": "bidirectional"})], {}, "direction: got 'bidirectional' for W"),
    "few activations": (
        [("LSTM", "xs W4 R4", "ys", {"activations": ["Tanh"]})],
        {},
        r"activations: got \['Tanh'\], needs 3 for each of 1 directions",
    ),
    "an activation": ([(*HEAD, {"activations": ["Sine"]})], {}, "activation: got 'Sine', needs one of Affine, Elu"),
    "numbers for no function": (
        [(*HEAD, {"activations": ["Tanh"], "activation_alpha": [0.5]})],
        {},
        r"activation_alpha: got \[0.5\] more than the functions \['Tanh'\] take",
    ),
    "no number": (
        [(*HEAD, {"activations": ["Affine"]})],
        {},
        "activation_alpha: got none for Affine, which has no default",
    ),
    "lengths as constants": (
        [("RNN", "xs W R _ends", "ys")],
        {"ends": LENGTHS},
        "sequence_lens: got neither an input nor T",
    ),
    "lengths of one layer": (
        [("RNN", "xs W R _ends", "Y"), ("Squeeze", "Y one", "Z"), ("RNN", "Z V R", "ys")],
        {"inputs": [X, ("ends", ("B",), np.int32)], "one": np.array([1]), "V": draw(1, H, H)},
        r"sequence_lens: got \['', 'ends'\], needs the same for all nodes",
    ),
    "a state that is computed": (
        [("Tanh", "h", "start"), ("RNN", "xs W R __start", "ys")],
        {"inputs": [X, INITIAL]},
        "initial_h: got what other nodes compute",
    ),
    "an encoder": (
        [("RNN", "source W R", "Z ZH"), ("RNN", "xs W R __ZH", "ys")],
        {"inputs": [X, ("source", ("S", "B", I))]},
        "initial_h: got what other nodes compute",
    ),
    "rows that begin differently": (
        [("RNN", "xs W R __start", "ys")],
        {"start": draw(1, B, H)},
        "initial_h: got constants that differ between rows",
    ),
    "an operator": ([RNN, ("Erf", "Y", "ys")], {}, "Erf node 'ys': got no layer of a network"),
    "an operator of others": (
        [RNN, ("Relu", "Y", "ys", {"domain": "com.example"})],
        {},
        "Relu node 'ys': got an operator of com.example",
    ),
    "a loop": ([("Loop", "__xs", "ys", {"body": body()})], {}, "Loop node 'ys': got a node with a graph of its own"),
    "time along both axes": (
        [RNN, ("Squeeze", "Y one", "Z"), ("Transpose", "Z", "rows", {"perm": [1, 0, 2]}), ("RNN", "rows V R", "ys")],
        {"one": np.array([1]), "V": draw(1, H, H)},
        r"X: got \(5, 3\) steps and rows of a sequence of \(3, 5\)",
    ),
    "every other step": (
        [("Slice", "xs i0 i9 i0 i2", "some"), ("RNN", "some W R", "ys")],
        {"i0": np.array([0]), "i9": np.array([9]), "i2": np.array([2])},
        "X: got steps in another order than that of time, or not all of them",
    ),
    "the first steps": (
        [("Slice", "xs i0 i2 i0", "some"), ("RNN", "some W R", "ys")],
        {"i0": np.array([0]), "i2": np.array([2])},
        "X: got steps in another order than that of time, or not all of them",
    ),
    "constants beside outputs": (
        [RNN, ("Concat", "Y c", "Z", {"axis": 3}), ("Relu", "Z", "ys")],
        {"c": draw(3, 1, 5, 1)},
        "Concat node 'Z': got no layer of a network",
    ),
    "a cast": ([RNN, ("Cast", "Y", "ys", {"to": onnx.TensorProto.FLOAT16})], {}, "Cast node 'ys': got no layer"),
    "an unknown tensor": ([("RNN", "zs W R", "ys")], {}, r"RNN node '': got \['zs'\], which nothing before it gives"),
    "a part of the features": (
        [RNN, ("Slice", "Y i0 i2 i3", "part"), ("Relu", "part", "ys")],
        {"i0": np.array([0]), "i2": np.array([2]), "i3": np.array([3])},
        "Relu node 'ys': got a part of the outputs of a layer",
    ),
    "both last states in a head": (
        [
            ("RNN", "xs V S", "Y YH", {"direction": "bidirectional"}),
            ("Transpose", "YH", "Z", {"perm": [1, 0, 2]}),
            ("Flatten", "Z", "flat"),
            ("MatMul", "flat w", "ys"),
        ],
        {"V": draw(2, H, I), "S": draw(2, H, H), "w": draw(2 * H, 2)},
        "MatMul node 'ys': got a part of the outputs of a layer, or of different time steps",
    ),
    "a bias alone": ([RNN, ("Add", "Y c", "ys")], {"c": draw(H)}, "got a constant that no matrix product comes before"),
    "a wide bias": (
        [RNN, ("MatMul", "Y w", "Z"), ("Add", "Z c", "ys")],
        {"w": draw(H, 2), "c": draw(3, 2)},
        r"got a constant of the shape \(3, 2\), needs one for each of 2 values",
    ),
    "a matrix": ([RNN, ("MatMul", "Y w", "ys")], {"w": draw(3, 2)}, "got a matrix of 3 rows for 4 values"),
    "a softmax over rows": ([RNN, ("Softmax", "Y", "ys", {"axis": 0})], {}, "axis: got 0, needs the last"),
    "an old opset": ([HEAD], {"opset": 5}, "RNN node 'ys': got opset 5, needs 7 or newer"),
    "no recurrence": ([("Relu", "xs", "ys")], {}, "model: got no RNN, GRU or LSTM node before its outputs"),
    "a step in the middle": (
        [RNN, ("Gather", "Y i", "ys", {"axis": 0})],
        {"i": np.array(1)},
        "ys: got an output that is neither all steps",
    ),
    "two outputs": (
        [RNN, ("Relu", "Y", "ys")],
        {"outputs": ["Y", "ys"]},
        "Y: got an output that is neither .*the argument output names one",
    ),
    "tokens that change": (
        [("Mul", "xs two", "twice"), ("Gather", "table twice", "Z"), ("RNN", "Z W R", "ys")],
        {"inputs": [("xs", ("T", "B"), np.int64)], "two": np.array(2), "table": draw(7, I)},
        "Gather node 'Z': got indices that are not the tokens themselves",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_a_network_cannot_express_is_refused(name):
    nodes, more, match = FOREIGN[name]
    with pytest.raises(ValueError, match=match):
        convert.from_onnx(of_nodes(*nodes, **more))


def test_a_model_is_cut_at_a_tensor(tmp_path):
    """`output` names what `ys` is to be; the model comes from a file."""
    path = tmp_path / "model.onnx"
    onnx.save(of_nodes(RNN, ("Erf", "Y", "ys")), path)
    network, _ = convert.from_onnx(path, output="Y")
    assert network == jaxrnn.Elman(I, H, use_bias=False)
    with pytest.raises(ValueError, match="output: got 'Z', needs the name of a tensor of the model"):
        convert.from_onnx(path, output="Z")


def test_what_is_no_model():
    data = of_nodes(HEAD).SerializeToString()
    with pytest.raises(ValueError, match="model: got bytes that are no model of ONNX"):
        convert.from_onnx(data[:-3])
    with pytest.raises(ValueError, match="model: got no nodes"):
        convert.from_onnx(b"")
    with pytest.raises(TypeError, match="model: got int, needs an"):
        convert.from_onnx(3)


def test_float64_weights_need_x64():
    model, _ = node_model("RNN", dtype=np.float64)
    with pytest.raises(ValueError, match="W: got float64, which JAX would round to float32"):
        convert.from_onnx(model)


UNKNOWN = {
    "a cell": (jaxrnn.IndRNN(I, H), "network: got IndRNN.*, ONNX has no operator for it"),
    "a projection": (jaxrnn.Projected(jaxrnn.LSTM(I, H), 2), "network: got Projected.*, ONNX has no operator"),
    "no input gate": (jaxrnn.VanillaLSTM(I, H, input_gate=False), "input_gate: got False in VanillaLSTM"),
    "no forget gate": (jaxrnn.VanillaLSTM(I, H, forget_gate=False), "forget_gate: got False in"),
    "no output gate": (jaxrnn.VanillaLSTM(I, H, output_gate=False), "output_gate: got False in"),
    "full peepholes": (jaxrnn.VanillaLSTM(I, H, peephole="full"), "peephole: got 'full' in"),
    "recurrent gates": (jaxrnn.VanillaLSTM(I, H, gate_recurrence=True), "gate_recurrence: got True in"),
    "a bounded memory": (jaxrnn.VanillaLSTM(I, H, cell_clip=1.0), "cell_clip: got 1.0 .*, ONNX's LSTM bounds what"),
    "another output gate": (
        jaxrnn.VanillaLSTM(I, H, output_gate_activation=jnp.tanh),
        "output_gate_activation: got .* one activation for all gates",
    ),
    "an activation": (jaxrnn.Elman(I, H, jax.nn.gelu), "activation: got gelu, ONNX's recurrent operators have only"),
    "one bound of two": (jaxrnn.GRU(I, H, gate_activation=CLIPPED), "clip: got GRU.*bounds what f and g see alike"),
    "a merge": (
        jaxrnn.Bidirectional(jaxrnn.GRU(I, H), merge=jnp.maximum),
        "merge: got .*, ONNX needs 'concat'",
    ),
    "a function": (
        jaxrnn.Stack((jaxrnn.GRU(I, H), jnp.sin)),
        "activation: got sin, ONNX's recurrent operators have only",
    ),
    "a bounded function": (
        jaxrnn.Stack((jaxrnn.GRU(I, H), CLIPPED)),
        "function: got OnnxActivation.*, needs one of Elu, HardSigmoid",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_onnx_cannot_express_is_refused(name):
    network, match = UNKNOWN[name]
    params = jax.tree.map(lambda p: jnp.zeros(p.shape), jax.eval_shape(network.init, jax.random.key(0)))
    with pytest.raises(ValueError, match=match):
        convert.to_onnx(network, params)


def test_dtypes_that_are_not_written():
    cell = jaxrnn.Elman(I, H)
    params, *_ = example(cell)
    with pytest.raises(ValueError, match="params: got bfloat16, needs all float16, float32 or float64"):
        convert.to_onnx(cell, jaxrnn.cast(params, jnp.bfloat16))
    with pytest.raises(ValueError, match="params: got float16, float32, needs all"):
        convert.to_onnx(cell, params._replace(b=params.b.astype(jnp.float16)))
    half = convert.to_onnx(cell, jaxrnn.cast(params, jnp.float16))
    assert convert.from_onnx(half)[1].w_x.dtype == jnp.float16


def test_numbers_that_float32_attributes_round_are_refused_in_float64():
    cell = jaxrnn.Elman(I, H, OnnxActivation("LeakyRelu", 0.3))
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), example(cell)[0])
    with pytest.raises(ValueError, match=r"activation: got the numbers \[0.3\] in .*, attributes of ONNX are in float"):
        convert.to_onnx(cell, params)
    model = convert.to_onnx(jaxrnn.Elman(I, H, OnnxActivation("LeakyRelu", 0.25)), params)
    assert model.graph.initializer[0].data_type == onnx.TensorProto.DOUBLE
    assert [list(a.floats) for a in model.graph.node[0].attribute if a.name == "activation_alpha"] == [[0.25]]


# The layers beside cells


def test_linear_and_reversed():
    """Padding reaches nothing, gradients do not see it, and a reversed layer is `reverse=True`."""
    network = jaxrnn.Stack((Reversed(jaxrnn.GRU(I, H)), Linear(H, 2)))
    params, xs, state = example(network)
    xs[2:, 1] = np.nan

    @jax.jit
    def program(params):
        (final, _), ys = jaxrnn.unroll(network, params, xs, state, lengths=LENGTHS)
        other, zs = jaxrnn.unroll(network.cells[0].cell, params[0], xs, state[0], lengths=LENGTHS, reverse=True)
        return jnp.sum(ys), (ys, final, zs, other)

    grads, (ys, final, zs, other) = jax.jit(jax.grad(program, has_aux=True))(params)
    chex.assert_trees_all_equal(final, other)
    valid = np.arange(T)[:, None, None] < LENGTHS[:, None]
    close(ys, np.where(valid, np.asarray(zs) @ np.asarray(params[1].w) + np.asarray(params[1].b), 0))
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    close(grads[1].b, np.full(2, LENGTHS.sum()))
    head = Linear(H, 2, use_bias=False)
    w = LinearParams(params[1].w, None)
    assert jax.tree.structure(jax.eval_shape(head.init, jax.random.key(0))) == jax.tree.structure(w)
    close(head(w, (), zs[0])[1], np.asarray(zs[0]) @ np.asarray(w.w))
    with pytest.raises(TypeError, match="Reversed: has no single time step"):
        network.cells[0](params[0], state[0], xs[0])
