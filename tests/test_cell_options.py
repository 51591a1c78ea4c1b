"""Options beyond those of the registry, in their values; numbers of parameters by the papers' formulas."""

import dataclasses
import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxrnn
import jaxrnn.linen
import jaxrnn.nnx
from jaxrnn import losses, training
from jaxrnn.typing import Activation
from tests import reference
from tests.reference import conv, mingru, qrnn, sru, state_space, xlstm
from tests.registry import CELLS, T, example, rare, unrolled


@pytest.mark.parametrize(
    ("cell", "step"),
    [
        (jaxrnn.MinGRU(3, 4, activation=jax.nn.identity), mingru.mingru),
        (jaxrnn.MinGRU(3, 4, use_bias=False), mingru.mingru),
        (jaxrnn.MinLSTM(3, 4, normalize=False), mingru.minlstm),
        (jaxrnn.MinLSTM(3, 4, activation=jnp.tanh, use_bias=False), mingru.minlstm),
        (jaxrnn.QRNN(3, 4, use_bias=False), qrnn.qrnn),
        (jaxrnn.S5(3, 4, discretization="bilinear"), state_space.s5),
        (jaxrnn.RGLRU(4, power=2.0), state_space.rg_lru),
        (jaxrnn.SRU(4, 4, highway_scale=1.5), sru.sru),
        (jaxrnn.SLSTM(3, 4, forget_gate="exponential"), xlstm.slstm),
        (jaxrnn.MLSTM(3, 4, forget_gate="exponential"), xlstm.mlstm),
        (jaxrnn.ConvLSTM((3, 2), 2, 3, use_bias=False), conv.conv_lstm),
        (jaxrnn.ConvGRU((3, 2), 2, 2, stride=2, use_bias=False), conv.conv_gru),
    ],
    ids=lambda value: repr(value) if isinstance(value, jaxrnn.Cell) else value.__name__,
)
@pytest.mark.usefixtures("x64")
def test_values_are_those_of_the_equations(cell, step):
    args = example(cell, steps=3, dtype=jnp.float64)
    want = reference.unroll(step, cell, *args)
    chex.assert_trees_all_close(unrolled(cell, *args), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("cell", "count"),
    [
        (jaxrnn.MinGRU(3, 4), 2 * 4 * (3 + 1)),
        (jaxrnn.MinGRU(3, 4, use_bias=False), 2 * 4 * 3),
        (jaxrnn.MinLSTM(3, 4), 3 * 4 * (3 + 1)),
        (jaxrnn.Stack((jaxrnn.Window(3, 2), jaxrnn.QRNN(6, 4))), 3 * 4 * (2 * 3 + 1)),
        (jaxrnn.QRNN(6, 4, pooling="ifo"), 4 * 4 * (6 + 1)),
        (jaxrnn.SRU(3, 4), 4 * 4 * (3 + 1)),
        (jaxrnn.SRU(4, 4), 3 * 4 * 4 + 4 * 4),
    ],
    ids=repr,
)
def test_parameter_counts(cell, count):
    params = jax.eval_shape(cell.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_forget_biases_open_the_memory():
    """Each in its own gate."""

    @jax.jit
    def biases(key):
        cells = jaxrnn.MinLSTM(3, 1), jaxrnn.SLSTM(3, 1), jaxrnn.ConvLSTM((2, 3), 1, 3), jaxrnn.MDLSTM((2, 3), 1)
        of_gates = jaxrnn.MLSTM(3, 1).init(key, forget_bias=2.0).b_g
        return [*(cell.init(key, forget_bias=2.0).b for cell in cells), of_gates]

    assert [b.tolist() for b in biases(jax.random.key(0))] == [
        [2.0, 0.0, 0.0],
        [0.0, 2.0, 0.0, 0.0],
        [0.0, 2.0, 0.0, 0.0],
        [0.0, 2.0, 2.0, 0.0, 0.0],
        [0.0, 2.0],
    ]


CELLS_OF_THE_LIBRARY = [entry.cell for entry in CELLS if type(entry.cell).__module__.startswith("jaxrnn.cells.")]
KINDS = list({type(cell): cell for cell in CELLS_OF_THE_LIBRARY}.values())
OTHERS = [jaxrnn.LMU(3, 4, order=5, theta=6.0), jaxrnn.MDLSTM((4, 3), 2), jaxrnn.Window(3, 2)]


def options(cell, kind):
    """The fields of a kind."""
    return [field.name for field in dataclasses.fields(cell) if field.type is kind]


@pytest.mark.parametrize("cell", [cell for cell in KINDS if options(cell, bool)], ids=lambda cell: type(cell).__name__)
def test_flags_are_bools(cell):
    for name in options(cell, bool):
        for flag in ("False", 1, None):
            with pytest.raises(TypeError, match=f"{name}: got {flag!r}, needs a bool"):
                dataclasses.replace(cell, **{name: flag})
        value = getattr(cell, name)
        assert dataclasses.replace(cell, **{name: np.bool_(value)}) == cell


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("tied", lambda flag: jaxrnn.RecurrentDropout(jaxrnn.GRU(3, 4), 0.5, tied=flag)),
        ("time_major", lambda flag: jaxrnn.nnx.RNN(jaxrnn.GRU(3, 4), rngs=nnx.Rngs(0), time_major=flag)),
        ("time_major", lambda flag: jaxrnn.linen.RNN(jaxrnn.GRU(3, 4), time_major=flag)),
        ("new_carry", lambda flag: training.restore("nowhere", None, new_carry=flag)),
        ("repeat_targets", lambda flag: losses.sequence_loss(None, None, None, repeat_targets=flag)),
        ("per_row", lambda flag: losses.nce_loss(*[None] * 6, 1, per_row=flag)),
    ],
)
def test_flags_elsewhere_are_bools(name, call):
    with pytest.raises(TypeError, match=f"{name}: got 'False', needs a bool"):
        call("False")


@pytest.mark.parametrize(
    "cell", [cell for cell in KINDS if options(cell, Activation)], ids=lambda cell: type(cell).__name__
)
def test_activations_are_functions(cell):
    for name in options(cell, Activation):
        for activation in ("tanh", None):
            with pytest.raises(TypeError, match=f"{name}: got {activation!r}, needs a function of an array"):
                dataclasses.replace(cell, **{name: activation})


NETWORKS = [
    jaxrnn.LearnedState(jaxrnn.GRU(3, 4)),
    jaxrnn.Embedding(3, 4),
    jaxrnn.Linear(3, 4),
    jaxrnn.Attention(jaxrnn.GRU(3 + 3, 4), memory_size=3, memory_steps=2),
]


@pytest.mark.parametrize("cell", [*KINDS, *NETWORKS], ids=lambda cell: type(cell).__name__)
def test_initializers_are_functions(cell):
    names = [name for name in inspect.signature(cell.init).parameters if name.endswith("_init")]
    for name in names:
        with pytest.raises(TypeError, match=f"{name}: got 'orthogonal', needs a function"):
            cell.init(jax.random.key(0), **{name: "orthogonal"})


@pytest.mark.parametrize("cell", [*KINDS[:4], *rare(*KINDS[4:], *OTHERS)], ids=repr)
def test_rows_need_not_exist(cell):
    """Neither in the values nor in the gradients."""

    def loss(params, xs, state):
        return jnp.sum(jaxrnn.unroll(cell, params, xs, state)[1])

    params, xs, state = jax.eval_shape(lambda: example(cell, batch=(0,)))
    _, ys = jax.eval_shape(functools.partial(jaxrnn.unroll, cell), params, xs, state)
    assert ys.shape[:2] == (T, 0)
    jax.eval_shape(jax.grad(loss), params, xs, state)
    jax.eval_shape(cell.advance, params, state, jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), xs))


def test_the_number_of_heads_is_named():
    """The input of an RG-LRU is as long as its state: a second size is not taken for heads."""
    with pytest.raises(TypeError, match="positional argument"):
        jaxrnn.RGLRU(3, 4)
