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
from tests.registry import example, rare, unrolled

close = functools.partial(chex.assert_trees_all_close, rtol=1e-12, atol=1e-12)
VARIANTS = {**GREFF, **JOZEFOWICZ}


def count(cell):
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(cell.init, jax.random.key(0))))


@pytest.mark.parametrize("name", [*GREFF, *rare(*JOZEFOWICZ)])
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


@pytest.mark.parametrize("forget_gate", ["coupled", *rare(True, False)])
@pytest.mark.usefixtures("x64")
def test_options_compose(forget_gate):
    """Gate recurrence over heads, without bias and without an output gate, and with every kind of peephole."""
    options = {"forget_gate": forget_gate, "output_gate": False, "gate_recurrence": True, "cell_clip": 0.3}
    options |= {"gate_activation": jnp.tanh, "candidate_activation": jax.nn.relu, "output_activation": jax.nn.sigmoid}
    for peephole in (False, True, "full"):
        cell = VanillaLSTM(3, 4, peephole=peephole, heads=2, use_bias=False, **options)
        params, xs, state = example(cell, dtype=jnp.float64)
        close(unrolled(cell, params, xs, state), loop(ablations.vanilla_lstm, cell, params, xs, state))


@pytest.mark.usefixtures("x64")
def test_without_peepholes_it_is_the_lstm():
    cell, lstm = VanillaLSTM(3, 4, peephole=False), jaxrnn.LSTM(3, 4)
    params, xs, state = example(lstm, dtype=jnp.float64)
    ours = jaxrnn.cells.VanillaLSTMParams(*params, None, None)
    final, ys = unrolled(cell, ours, xs, jaxrnn.cells.VanillaLSTMState(*state, None))
    wanted, zs = unrolled(lstm, params, xs, state)
    close((final.h, final.c, ys), (wanted.h, wanted.c, zs))


@pytest.mark.usefixtures("x64")
def test_no_gates():
    """Options beyond the papers' compose: no gate at all is a sum of candidates, squashed."""
    cell = VanillaLSTM(3, 4, input_gate=False, forget_gate=False, output_gate=False, peephole=False)
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

    cell = VanillaLSTM(
        3, 4, forget_gate=False, peephole=False, candidate_activation=candidate, output_activation=squash
    )
    params, xs, state = example(cell, dtype=jnp.float64)
    new, _ = cell(params, state, xs[0])
    i, g, o = np.split(np.asarray(xs[0] @ params.w_x + state.h @ params.w_h + params.b[None]), 3, axis=-1)
    c = np.asarray(state.c) + sigmoid(i) * (4 * sigmoid(g) - 2)
    close(new.c, c)
    close(new.h, sigmoid(o) * (2 * sigmoid(c) - 1))


def test_the_forget_bias_is_the_forget_gate_s():
    b = VanillaLSTM(3, 4, input_gate=False).init(jax.random.key(0), forget_bias=1.0).b
    assert b.tolist() == [1.0] * 4 + [0.0] * 8
    assert not VanillaLSTM(3, 4, forget_gate=False).init(jax.random.key(0), forget_bias=1.0).b.any()


# Peepholes and the memory


@pytest.mark.usefixtures("x64")
def test_full_peepholes_of_diagonal_matrices_are_diagonal_ones():
    cell, full = VanillaLSTM(3, 4), VanillaLSTM(3, 4, peephole="full")
    params, xs, state = example(cell, dtype=jnp.float64)
    w_c = np.concatenate([np.diag(w) for w in np.split(np.asarray(params.w_c), 3)], axis=1)
    close(unrolled(full, params._replace(w_c=w_c), xs, state), unrolled(cell, params, xs, state))
    assert count(full) == 4 * 4 * (3 + 4 + 1) + 3 * 4**2


@pytest.mark.usefixtures("x64")
def test_without_a_peephole_gradient_only_that_gradient_is_missing():
    """Values stay; the gradient is that of a step whose gates take another copy of the memory."""
    cell, plain = VanillaLSTM(3, 4, peephole_gradient=False), VanillaLSTM(3, 4)
    params, xs, state = example(cell, dtype=jnp.float64)
    close(unrolled(cell, params, xs, state), unrolled(plain, params, xs, state))

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def slopes(params, state, watched):
        """One step from the memory c, whose gates watch another."""
        w_i, w_f, w_o = jnp.split(params.w_c, 3)
        i, f, g, o = jnp.split(xs[0] @ params.w_x + state.h @ params.w_h + params.b[None], 4, axis=-1)
        c = jax.nn.sigmoid(f + watched[0] * w_f[None]) * state.c
        c = c + jax.nn.sigmoid(i + watched[0] * w_i[None]) * jnp.tanh(g)
        return jnp.sum(jax.nn.sigmoid(o + watched[1] * w_o[None]) * jnp.tanh(c))

    after = jax.jit(plain)(params, state, xs[0])[0].c
    found = jax.jit(jax.grad(lambda p, s: jnp.sum(jaxrnn.unroll(cell, p, xs[:1], s)[1]), (0, 1)))(params, state)
    close(found, slopes(params, state, (state.c, after)))


@pytest.mark.usefixtures("x64")
def test_a_clipped_memory():
    """A bound that is out of reach changes nothing; beyond a bound there is no gradient."""
    cell, plain = VanillaLSTM(3, 4, cell_clip=0.3), VanillaLSTM(3, 4)
    params, xs, state = example(cell, dtype=jnp.float64)
    final, _ = unrolled(cell, params, xs, state)
    assert np.max(np.abs(final.c)) == 0.3
    loose = VanillaLSTM(3, 4, cell_clip=50.0)
    close(unrolled(loose, params, xs, state), unrolled(plain, params, xs, state))
    slopes = np.asarray(jax.jit(jax.grad(lambda s: jnp.sum(cell(params, s, xs[0])[0].c)))(state).c)
    clipped = np.abs(jax.jit(plain)(params, state, xs[0])[0].c) > 0.3
    assert clipped.any()
    assert not clipped.all()
    assert ((slopes == 0) == clipped).all()


# What does not fit


@pytest.mark.parametrize("forget_gate", ["peephole", None, "True"])
def test_unknown_forget_gates(forget_gate):
    with pytest.raises(ValueError, match=f"forget_gate: got {forget_gate!r}, needs one of False, True, 'coupled'"):
        VanillaLSTM(3, 4, forget_gate=forget_gate)


def test_gates_that_options_need():
    with pytest.raises(ValueError, match="input_gate: got False, needs True for forget_gate='coupled'"):
        VanillaLSTM(3, 4, input_gate=False, forget_gate="coupled")
    none = {"input_gate": False, "forget_gate": False, "output_gate": False}
    with pytest.raises(ValueError, match="peephole: got True, needs a gate, and all are left out"):
        VanillaLSTM(3, 4, **none)
    with pytest.raises(ValueError, match="gate_recurrence: got True, needs a gate, and all are left out"):
        VanillaLSTM(3, 4, peephole=False, gate_recurrence=True, **none)


def test_unknown_peepholes_and_clips():
    with pytest.raises(ValueError, match="peephole: got 'diagonal', needs one of False, True, 'full'"):
        VanillaLSTM(3, 4, peephole="diagonal")
    for bound in (0, -1.0, float("inf"), "1"):
        with pytest.raises(ValueError, match=f"cell_clip: got {bound!r}, needs a positive number"):
            VanillaLSTM(3, 4, cell_clip=bound)


def test_numpy_s_bools_are_bools():
    assert VanillaLSTM(3, 4, forget_gate=np.True_).own_gates == (True, True, True)
    assert VanillaLSTM(3, 4, forget_gate=np.False_) == VanillaLSTM(3, 4, forget_gate=False)
