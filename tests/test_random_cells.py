"""Cells of random equations, as native loops and as scans, against a loop of JAX's own in float64."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.nn import gelu, log_softmax, logsumexp, relu, sigmoid, softmax, softplus

import jaxrnn
from jaxrnn import native
from jaxrnn.native import calls
from jaxrnn.native.division import Division
from jaxrnn.ops import add_bias, affine, keep, recurrent, select, weigh

# Of the last axis alone: of vectors `a` and `b` of one size, with `m`, which makes weights and choices. What jumps does
# so where no equation leads to by itself, as many do to zero: the rounding would decide.
OPERATIONS = (
    *[lambda m, a, b: affine(a, m.weight(a.shape[-1], m.size()), None)] * 4,
    lambda m, a, b: a @ m.weight(m.size(), a.shape[-1]).T,
    lambda m, a, b: (lambda w: jnp.tanh(a @ w) + b @ w)(m.weight(a.shape[-1], m.size())),
    lambda m, a, b: a @ softmax(m.weight(a.shape[-1], m.size())),
    lambda m, a, b: recurrent(jnp.concatenate([a, b], -1), m.weight(2, a.shape[-1], 4), 2)[1],
    lambda m, a, b: add_bias(weigh(a, m.weight(a.shape[-1])), m.weight(1)),
    lambda m, a, b: sigmoid(a) * b + (1 - sigmoid(a)) * jnp.tanh(b),
    lambda m, a, b: a / (1 + b * b) - softplus(a),
    lambda m, a, b: jnp.where(a > b, a, 0.3 * b) + jnp.maximum(a, 0.1),
    lambda m, a, b: jnp.clip(a, -0.7, 0.8) * jnp.sign(b - 0.04) + jnp.round(3 * b) / 3,
    lambda m, a, b: jnp.sqrt(a * a + 0.1) ** 1.5 + jnp.exp(-jnp.abs(b)),
    lambda m, a, b: gelu(a) - relu(b) + jnp.sin(a) * lax.stop_gradient(b),
    lambda m, a, b: softmax(a) + log_softmax(b) / a.shape[-1],
    lambda m, a, b: (a - 0.9 * a.mean(-1, keepdims=True)) * lax.rsqrt(a.var(-1, keepdims=True) + 0.01),
    lambda m, a, b: jnp.cumsum(a, -1) / a.shape[-1] + jnp.flip(b, -1),
    lambda m, a, b: jnp.stack([a.sum(-1), b.max(-1), logsumexp(a, axis=-1), (a * b).mean(-1)], -1),
    lambda m, a, b: jnp.concatenate([a, b[..., :1], a[..., -2:]], -1),
    lambda m, a, b: jnp.stack([a, b], m.choose.choice([-1, -2])).reshape(*a.shape[:-1], -1),
    lambda m, a, b: jnp.swapaxes(jnp.stack([a, b, a * b], -2), -1, -2).max(-1),
    lambda m, a, b: jnp.pad(a, [(0, 0)] * (a.ndim - 1) + [(m.choose.randrange(3), 2)])[..., :: m.choose.randint(1, 2)],
    lambda m, a, b: jnp.repeat(a, 2, -1)[..., m.choose.randrange(2 * a.shape[-1]) :],
    lambda m, a, b: sum(jnp.split(jnp.concatenate([a, jnp.zeros_like(a), b], -1), 3, -1)),
    lambda m, a, b: jnp.where((a > 0.04).astype(jnp.int32) + (b > 0.2).astype(jnp.int32) == 1, a, b),
)


class Maker:
    """Makes weights and choices, the same ones for every shape of a batch; without `weights` it notes their shapes."""

    def __init__(self, seed, weights=None):
        self.choose, self.weights, self.shapes = random.Random(seed), weights, []

    def size(self):
        return self.choose.choice([1, 2, 3, 4, 5, 7, 8, 9, 17, 33])

    def weight(self, *shape):
        self.shapes.append(shape)
        return jnp.zeros(shape) if self.weights is None else self.weights[len(self.shapes) - 1]


def step(m, state, x):
    """A step of three vectors, a count and a flag."""
    *vectors, count, flag = state
    pool = [x, *vectors]

    def one():
        return pool[-1 - min(int(m.choose.expovariate(0.4)), len(pool) - 1)]

    for _ in range(m.choose.choice([2, 5, 9, 14])):
        a = one()
        b = m.choose.choice([v for v in pool if v.shape == a.shape])
        if (new := m.choose.choice(OPERATIONS)(m, a, b)).shape[-1] <= 70:
            pool.append(new)
    new = []
    for old in vectors:
        a = jnp.tanh(affine(v := one(), m.weight(v.shape[-1], old.shape[-1]), m.weight(old.shape[-1])))
        new.append(m.choose.choice([a, a, a, (a + old) / 2, select(count % 3 == 1, a, old), old]))
    if m.choose.random() < 0.2:
        new[:2] = new[1::-1]
    y = {"y": one(), "again": (one(), m.choose.choice([*new, *vectors, x])), "flag": flag, "count": count}
    return (*new, count + flag.astype(jnp.int32), (one()[..., 0] > 0.04) ^ flag), y


def loop(cell, params, xs, state, lengths=None, resets=None, reverse=False):
    """What `unroll` is to give; resets only forward in time."""
    valid = None if lengths is None else np.arange(len(xs)).reshape(-1, *[1] * lengths.ndim) < lengths

    def body(old, at):
        x, v, r = at
        begun = old if r is None else jax.tree.map(lambda s: select(r, jnp.zeros_like(s), s), old)
        new, y = cell.function(params, begun, x)
        return (new, y) if v is None else (jax.tree.map(lambda n, o: select(v, n, o), new, old), keep(v, y))

    return lax.scan(body, state, (xs, valid, resets), reverse=reverse)


@pytest.mark.exhaustive
@pytest.mark.skipif(bool(native.obstacle()), reason=native.obstacle() or "none")
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("seed", range(20))
def test_random_cells_are_what_their_equations_say(seed, monkeypatch):
    rng, choose = np.random.default_rng(seed), random.Random(-1 - seed)
    inputs, hidden, other = (Maker(seed).size() for _ in range(3)) if seed % 9 == 0 else choose.sample(range(1, 40), 3)
    steps, batch = choose.choice([1, 2, 5]), choose.choice([(), (1,), (3,), (5,), (2, 3), (13,)])

    def make_state(batch, dtype):
        vectors = (jnp.zeros((*batch, n), dtype) for n in (hidden, hidden, other))
        return *vectors, jnp.zeros(batch, jnp.int32), jnp.zeros(batch, bool)

    step(noted := Maker(seed), make_state((), float), jnp.zeros(inputs))
    params = [rng.normal(size=shape) / np.sqrt(shape[-2:][0]) for shape in noted.shapes]
    cell = jaxrnn.Function(
        lambda params, state, x: step(Maker(seed, params), state, x),
        lambda key, dtype: [jnp.zeros(shape, dtype) for shape in noted.shapes],
        make_state,
        inputs,
    )
    state = jax.tree.map(lambda s: (2 * rng.normal(size=s.shape)).astype(s.dtype), make_state(batch, float))
    lengths, resets = rng.integers(0, steps + 1, batch), rng.random((steps, *batch)) < 0.4
    options = [{}, {"reverse": True}, {"lengths": lengths}, {"lengths": lengths, "reverse": True}, {"resets": resets}]
    options = options[seed % 5]
    threads = [Division(2, 1, 1), Division(steps, 1, 3), Division(1, min(2, int(np.prod(batch))), 1)]
    monkeypatch.setattr(calls, "divide", lambda *sizes: threads[seed % 3])

    def everything(run):
        """All values, and derivatives of some of them."""

        def reals(params, xs, vectors):
            found = jax.tree.leaves(run(params, xs, (*vectors, *state[3:]), **options))
            return [a for i, a in enumerate(found) if a.dtype == float and (i + seed) % 4], found

        args = params, jnp.cos(jnp.arange(steps * np.prod(batch) * inputs)).reshape(steps, *batch, inputs), state[:3]
        values, pull, found = jax.vjp(reals, *args, has_aux=True)
        cts = [jnp.cos(jnp.arange(float(a.size))).reshape(a.shape) for a in values]
        tangents = jax.jvp(lambda *args: reals(*args)[0], args, jax.tree.map(jnp.sin, args))[1] if seed % 4 == 0 else ()
        return found, pull(cts), tangents

    expected = jax.jit(lambda: everything(lambda *args, **options: loop(cell, *args, **options)))()
    for path in ("native", "scan") if seed % 6 == 0 else ("native",):
        run = jax.tree_util.Partial(jaxrnn.unroll, cell, path=path)
        for a, b in zip(*map(jax.tree.leaves, (jax.jit(lambda run=run: everything(run))(), expected)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * (1 + np.abs(b).max(initial=0)))
