"""A run as one native operation: values and derivatives of every mode beside those of the scan."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import GRU, LSTM, Bidirectional, LearnedState, RecurrentDropout, Stack, Zoneout, native
from tests.registry import CELLS, draw, example, name

if native.obstacle():
    pytest.skip(native.obstacle(), allow_module_level=True)

T, B = 5, 2
MASKS = {"lengths": jnp.array([5, 3]), "resets": jnp.arange(T * B).reshape(T, B) % 4 == 2}
NOISY = Stack((Zoneout(GRU(3, 4), 0.3), RecurrentDropout(LSTM(4, 5), 0.3, share=("time",))), dropout=0.5)


def real(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def close(found, expected, rtol=1e-10):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        if a.dtype != jax.dtypes.float0:
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * (1 + np.abs(b).max(initial=0)))


def both(program, *args):
    """Results of a program on the native path and by the scan."""
    return [jax.jit(functools.partial(program, path=path))(*args) for path in ("native", "scan")]


def modes(cell, args, options, path):
    """Derivatives in all modes, nested and mapped; the numbers of the leaves' cotangents make up a loss."""
    d = draw(7, args, jnp.float64)

    def run(args):
        params, xs, state = args
        return jaxrnn.unroll(cell, params, xs, state, path=path, **options)

    def loss(args):
        final, ys = run(args)
        return jnp.sum(jnp.sin(ys) ** 2) + sum(jnp.sum(leaf**3) for leaf in jax.tree.leaves(final))

    def hvp(args):
        return jax.jvp(jax.grad(loss), (args,), (d,))[1]

    params, xs, state = args
    two = functools.partial(jax.tree.map, lambda a: jnp.stack([a, 2 * a]))
    return {
        "jvp": jax.jvp(run, (args,), (d,)),
        "grad": jax.grad(loss)(args),
        "grad of params": jax.grad(lambda p: loss((p, xs, state)))(params),
        "grad of inputs": jax.grad(lambda x: jnp.sum(run((params, x, state))[1]))(xs),
        "grad of the final state": jax.grad(lambda s: sum(map(jnp.sum, jax.tree.leaves(run((params, xs, s))[0]))))(
            state
        ),
        "forward over reverse": hvp(args),
        "reverse over reverse": jax.grad(lambda a: sum(jnp.vdot(x, y) for x, y in _pairs(jax.grad(loss)(a), d)))(args),
        "reverse over forward": jax.grad(lambda a: jax.jvp(loss, (a,), (d,))[1])(args),
        "rows": jax.vmap(lambda x, s: run((params, x, s)))(two(xs), two(state)),
        "ensemble": jax.vmap(jax.grad(loss))(two(args)),
        "gradient of each": jax.vmap(lambda x: jax.grad(loss)((params, x, state)))(two(xs)),
        "several tangents": jax.vmap(lambda t: jax.jvp(run, (args,), (t,))[1])(two(d)),
        "remat": jax.grad(jax.checkpoint(loss))(args),
        "scanned": jax.lax.scan(lambda s, x: run((params, x, s)), state, two(xs)),
    }


def _pairs(a, b):
    return zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("cell", "options"),
    [
        (LSTM(3, 4), {"save": "states"}),
        (NOISY, MASKS | {"key": jax.random.key(3)}),
    ],
    ids=["LSTM", "noisy"],
)
def test_every_mode_of_differentiation(cell, options):
    args = example(cell, dtype=jnp.float64)
    found, expected = both(lambda *args, path: modes(cell, args, options, path), *args)
    for mode in expected:
        close(found[mode], expected[mode])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("save", ["states", "boundaries", "residuals"])
@pytest.mark.parametrize("reverse", [False, True])
def test_options(save, reverse):
    """What is kept changes no value, in both directions of time, with masks and a learned state."""
    cell = Bidirectional(LearnedState(GRU(3, 4)))
    args = example(cell, dtype=jnp.float64)

    def program(*args, path):
        options: dict[str, Any] = MASKS | {"chunk": 2, "reverse": reverse}
        return _vjp(lambda *a: jaxrnn.unroll(cell, *a, path=path, save=save, **options), *args)

    close(*both(program, *args))


def _vjp(fun, *args):
    value, pull = jax.vjp(fun, *args)
    return value, pull(
        jax.tree.map(lambda a: jnp.sin(a + 1) if real(a) else np.zeros(a.shape, jax.dtypes.float0), value)
    )


def path_of(cell):
    choices = jaxrnn.explain(cell, steps=64, batch=2, dtype=jnp.float64)
    return {choice.reason for choice in choices}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("entry", CELLS, ids=name)
def test_every_cell(entry):
    """Values and gradients of each kind of cell that has a native loop, with masks."""
    cell = entry.cell
    if any(path_of(cell)):
        pytest.skip(str(path_of(cell)))

    def program(*args, path):
        return _vjp(lambda *a: jaxrnn.unroll(cell, *a, path=path, **MASKS), *args)

    close(*both(program, *example(cell, dtype=jnp.float64)))
