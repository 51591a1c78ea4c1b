"""The variants of Greff et al. 2017 and Jozefowicz et al. 2015: values, parameter counts, and what they amount to."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import VanillaLSTM
from jaxrnn.cells import GREFF, JOZEFOWICZ
from tests.reference import ablations, sigmoid
from tests.reference import unroll as loop
from tests.registry import example, unrolled

close = functools.partial(chex.assert_trees_all_close, rtol=1e-12, atol=1e-12)
VARIANTS = {**GREFF, **JOZEFOWICZ}


def count(cell):
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(cell.init, jax.random.key(0))))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.usefixtures("x64")
def test_values(name):
    cell = VanillaLSTM(3, 4, **VARIANTS[name])
    params, xs, state = example(cell, dtype=jnp.float64)
    close(unrolled(cell, params, xs, state), loop(ablations.vanilla_lstm, cell, params, xs, state))


@pytest.mark.parametrize(
    ("name", "more"),
    {
        "V": lambda gate, h: 0,
        "NIG": lambda gate, h: -gate - h,
        "NFG": lambda gate, h: -gate - h,
        "NOG": lambda gate, h: -gate - h,
        "NIAF": lambda gate, h: 0,
        "NOAF": lambda gate, h: 0,
        "CIFG": lambda gate, h: -gate - h,
        "NP": lambda gate, h: -3 * h,
        "FGR": lambda gate, h: 9 * h**2,
        "LSTM": lambda gate, h: -3 * h,
        "LSTM-f": lambda gate, h: -gate - 3 * h,
        "LSTM-i": lambda gate, h: -gate - 3 * h,
        "LSTM-o": lambda gate, h: -gate - 3 * h,
    }.items(),
)
@pytest.mark.parametrize(("i", "h"), [(3, 4), (5, 2)])
def test_parameters(name, more, i, h):
    gate = i * h + h**2 + h
    assert count(VanillaLSTM(i, h, **VARIANTS[name])) == 4 * gate + 3 * h + more(gate, h)


def test_every_variant_is_another():
    cells = {VanillaLSTM(3, 4, **options) for options in VARIANTS.values()}
    assert len(cells) == len(VARIANTS)


@pytest.mark.usefixtures("x64")
def test_vanilla_is_the_lstm_with_peepholes():
    cell, lstm = VanillaLSTM(3, 4), jaxrnn.LSTM(3, 4, peephole=True)
    params, xs, state = example(lstm, dtype=jnp.float64)
    ours = jaxrnn.cells.VanillaLSTMParams(params.w_x, params.w_h, params.b, params.w_c, None)
    final, ys = unrolled(cell, ours, xs, jaxrnn.cells.VanillaLSTMState(*state, None))
    close((tuple(final)[:2], ys), (tuple(unrolled(lstm, params, xs, state)[0]), unrolled(lstm, params, xs, state)[1]))


@pytest.mark.usefixtures("x64")
def test_only_the_output_gate_and_coupling():
    """Options beyond the papers' compose: no gate at all is a sum of candidates, squashed."""
    cell = VanillaLSTM(3, 4, gates="", peephole=False)
    params, xs, state = example(cell, dtype=jnp.float64)
    params = params._replace(w_h=jnp.zeros_like(params.w_h))
    _, ys = unrolled(cell, params, xs, state)
    candidates = np.tanh(np.asarray(xs @ params.w_x) + np.asarray(params.b))
    close(ys, np.tanh(np.asarray(state.c) + np.cumsum(candidates, axis=0)))


@pytest.mark.usefixtures("x64")
def test_the_first_lstm():
    """No forget gate, squashing of the candidate to ±2 and of the memory to ±1."""

    def candidate(z):
        return 4 * jax.nn.sigmoid(z) - 2

    def squash(z):
        return 2 * jax.nn.sigmoid(z) - 1

    cell = VanillaLSTM(3, 4, gates="io", peephole=False, candidate_activation=candidate, output_activation=squash)
    params, xs, state = example(cell, dtype=jnp.float64)
    new, _ = cell(params, state, xs[0])
    i, g, o = np.split(np.asarray(xs[0] @ params.w_x + state.h @ params.w_h + params.b[None]), 3, axis=-1)
    c = np.asarray(state.c) + sigmoid(i) * (4 * sigmoid(g) - 2)
    close(new.c, c)
    close(new.h, sigmoid(o) * (2 * sigmoid(c) - 1))


def test_the_forget_bias_is_the_forget_gate_s():
    b = VanillaLSTM(3, 4, gates="fo").init(jax.random.key(0), forget_bias=1.0).b
    assert b.tolist() == [1.0] * 4 + [0.0] * 8
    assert not VanillaLSTM(3, 4, gates="io").init(jax.random.key(0), forget_bias=1.0).b.any()


@pytest.mark.parametrize("gates", ["fi", "ix", "ii", None, ("i", "f", "o")])
def test_unknown_gates(gates):
    with pytest.raises(ValueError, match=r"gates: got .* needs some of 'i', 'f', 'o', in this order"):
        VanillaLSTM(3, 4, gates=gates)


def test_gates_that_options_need():
    with pytest.raises(ValueError, match=r"gates: got 'ifo', needs 'i' without 'f' where f is 1 - i"):
        VanillaLSTM(3, 4, coupled=True)
    with pytest.raises(ValueError, match="gates: got 'o', needs 'i'"):
        VanillaLSTM(3, 4, gates="o", coupled=True)
    with pytest.raises(ValueError, match="gates: got none, needs one for peephole"):
        VanillaLSTM(3, 4, gates="")
