"""Convolutional cells: Flax's and Keras's, the dense cells on one place, stacks, and wrong sizes."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from tests import reference
from tests.oracles import oracle
from tests.reference import conv
from tests.registry import T, example, rare, unrolled

pytestmark = [
    # These are the other libraries' own.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def blocks(a, *order):
    """The blocks of the last axis in another order."""
    parts = np.split(np.asarray(a), len(order), axis=-1)
    return np.concatenate([parts[i] for i in order], axis=-1)


@pytest.mark.parametrize(
    "space",
    [(5, 4), *rare(((5,),), ((3, 4, 2),))],
    ids=len,
)
@pytest.mark.usefixtures("x64")
def test_flax(space):
    """Gates i, g, f, o, a bias in both convolutions, and one added to f at run time."""
    linen = oracle("flax.linen")
    cell = jaxrnn.ConvLSTM((*space, 3), 2, 3)
    params, xs, state = example(cell, steps=1, dtype=jnp.float64)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        theirs = linen.ConvLSTMCell(2, (3,) * len(space), param_dtype=jnp.float64)
        bias = blocks(params.b - np.repeat([0.0, 1.0, 0.0, 0.0], 2), 0, 2, 1, 3)
        weights = {
            "ih": {"kernel": blocks(params.w_x, 0, 2, 1, 3), "bias": bias},
            "hh": {"kernel": blocks(params.w_h, 0, 2, 1, 3), "bias": np.zeros(8)},
        }
        (c, h), y = jax.jit(theirs.apply)({"params": weights}, (state.c, state.h), np.asarray(xs)[0])
    final, ys = unrolled(cell, params, xs, state)
    chex.assert_trees_all_close((final, np.asarray(ys)[0]), (type(state)(h, c), y), rtol=1e-12, atol=1e-12)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("layer", "space"), [("ConvLSTM1D", (5,)), ("ConvLSTM2D", (5, 4))])
def test_keras(layer, space):
    """Gates i, f, c, o; strides of the input's convolution too."""
    keras = oracle("keras")
    cell = jaxrnn.ConvLSTM((*space, 3), 2, 3, stride=2)
    params, xs, _ = example(cell)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"), jax.legacy_prng_key("allow"):
        theirs = getattr(keras.layers, layer)(
            2, 3, strides=2, padding="same", return_sequences=True, recurrent_activation="sigmoid"
        )
        theirs.build((2, T, *space, 3))
        theirs.set_weights([np.asarray(p) for p in params[:3]])
        outputs = jax.jit(theirs)(np.swapaxes(xs, 0, 1))
    _, ys = unrolled(cell, params, xs)
    np.testing.assert_allclose(ys, np.swapaxes(outputs, 0, 1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("kind", "step"), [(jaxrnn.ConvGRU, conv.conv_gru), *rare((jaxrnn.ConvLSTM, conv.conv_lstm))])
@pytest.mark.usefixtures("x64")
def test_three_dimensions_and_an_even_kernel(kind, step):
    cell = kind((3, 2, 4, 2), 2, (3, 2, 1), stride=(1, 2, 1))
    args = example(cell, steps=2, batch=(1,), dtype=jnp.float64)
    want = reference.unroll(step, cell, *args)
    chex.assert_trees_all_close(unrolled(cell, *args), want, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_one_place_is_the_dense_cell():
    """There the middle of the kernels is all that counts."""
    cell, dense = jaxrnn.ConvLSTM((1, 1, 3), 4, 3), jaxrnn.LSTM(3, 4)
    params, xs, state = example(cell, dtype=jnp.float64)
    _, ys = unrolled(cell, params, xs, state)
    middle = jaxrnn.cells.LSTMParams(params.w_x[1, 1], params.w_h[1, 1], params.b)
    flat = jaxrnn.cells.LSTMState(*(s.reshape(2, 4) for s in state))
    _, want = unrolled(dense, middle, xs.reshape(T, 2, 3), flat)
    chex.assert_trees_all_close(ys.reshape(T, 2, 4), want, rtol=1e-12, atol=1e-12)


def test_parameter_counts():
    def size(cell):
        return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(cell.init, jax.random.key(0))))

    assert size(jaxrnn.ConvLSTM((5, 4, 3), 2, 3)) == 4 * 2 * (9 * (3 + 2) + 1)
    assert size(jaxrnn.ConvLSTM((5, 4, 3), 2, 3, peephole=True)) == 4 * 2 * (9 * (3 + 2) + 1) + 3 * 2 * 20
    assert size(jaxrnn.ConvGRU((5, 4, 3), 2, 3)) == 3 * 2 * (9 * (3 + 2) + 1)


def test_recurrent_kernels_start_orthogonal_gate_by_gate():
    params = jaxrnn.ConvLSTM((5, 4, 3), 2, 3).init(jax.random.key(0))
    w_h = np.asarray(params.w_h).reshape(18, 8)
    for k in range(4):
        gate = w_h[:, 2 * k : 2 * k + 2]
        np.testing.assert_allclose(gate.T @ gate, np.eye(2), atol=1e-6)


def test_convolutional_cells_stack():
    net = jaxrnn.Stack((jaxrnn.ConvLSTM((5, 4, 3), 2, 3, stride=2), jaxrnn.ConvGRU((3, 2, 2), 3, (3, 1))))
    params, xs, state = example(net)
    assert net.output_size == (3, 2, 3)
    final, ys = unrolled(net, params, xs, state, lengths=jnp.array([5, 2]))
    assert ys.shape == (T, 2, 3, 2, 3)
    np.testing.assert_array_equal(ys[1, 1], final[1].h[1])


def test_both_directions():
    net = jaxrnn.Bidirectional(jaxrnn.ConvGRU((5, 4, 3), 2, 3))
    assert net.output_size == (5, 4, 4)
    params, xs, state = example(net)
    assert unrolled(net, params, xs, state)[1].shape == (T, 2, 5, 4, 4)


def test_no_rows():
    cell = jaxrnn.ConvGRU((5, 3), 2, 3)
    params, xs, state = example(cell, batch=(0,))
    assert unrolled(cell, params, xs, state)[1].shape == (T, 0, 5, 2)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((3, 4, 3), r"input_size: got 3, needs \(\*space, channels\)"),
        (((3,), 4, 3), r"input_size: got \(3,\), needs \(\*space, channels\)"),
        (((5, 0, 3), 4, 3), "input_size: got 0, needs a positive integer"),
        (((5, 4, 3), 0, 3), "hidden_size: got 0, needs a positive integer"),
        (((5, 4, 3), 4, (3,)), r"kernel_size: got \(3,\), needs an integer, or one for each of 2 spatial axes"),
        (((5, 4, 3), 4, 2.5), "kernel_size: got 2.5, needs a positive integer"),
        (((5, 4, 3), 4, 3, (1, 0)), "stride: got 0, needs a positive integer"),
    ],
)
@pytest.mark.parametrize("kind", [jaxrnn.ConvLSTM, jaxrnn.ConvGRU], ids=lambda kind: kind.__name__)
def test_wrong_sizes(kind, args, message):
    with pytest.raises(ValueError, match=message):
        kind(*args)


def test_lists_of_sizes_are_tuples():
    """So that the cell hashes."""
    cell = jaxrnn.ConvLSTM([5, 4, 3], 2, [3, 3])
    assert cell == jaxrnn.ConvLSTM((5, 4, 3), 2, (3, 3))
    assert hash(cell) == hash(jaxrnn.ConvLSTM((5, 4, 3), 2, (3, 3)))


def test_sizes_may_be_numpy_s_integers():
    cell = jaxrnn.ConvLSTM((5, 4, 3), 2, np.int64(3), stride=np.int64(2))
    assert cell.initial_state().h.shape == (3, 2, 2)
    assert jax.eval_shape(cell.init, jax.random.key(0)).w_x.shape == (3, 3, 3, 8)


def test_an_input_of_another_shape():
    with pytest.raises(ValueError, match=r"xs: got the shape \(5, 2, 4, 5, 3\), .* needs \[T, \*batch, 5, 4, 3\]"):
        functools.partial(jaxrnn.unroll, jaxrnn.ConvGRU((5, 4, 3), 2, 3))(
            jaxrnn.ConvGRU((5, 4, 3), 2, 3).init(jax.random.key(0)), jnp.ones((5, 2, 4, 5, 3))
        )
