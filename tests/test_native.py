"""Native loops against plain scans in float64."""

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.nn import sigmoid, softmax

from jaxrnn import native
from jaxrnn.native import calls, compile, division
from jaxrnn.native.division import Division
from jaxrnn.native.emit import emit
from jaxrnn.native.emit_part import Variant
from jaxrnn.native.emit_products import Registers
from jaxrnn.native.plan import Plan
from tests.registry import rare

pytestmark = pytest.mark.skipif(bool(native.obstacle()), reason=native.obstacle())
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


@dataclass(frozen=True)
class Leaf:
    """A leaf of a row; floats have the dtype of the run."""

    shape: tuple[int, ...] = ()
    dtype: Any = None

    def spec(self, dtype):
        return jax.ShapeDtypeStruct(self.shape, self.dtype or dtype)

    def draw(self, rng, lead):
        shape = (*lead, *self.shape)
        if self.dtype == jnp.int32:
            return rng.integers(-4, 9, shape).astype(np.int32)
        if self.dtype == jnp.bool_:
            return rng.random(shape) < 0.6
        return rng.normal(size=shape).astype(np.float32)


def vec(*shape):
    return Leaf(shape)


INT, FLAG = Leaf((), jnp.int32), Leaf((), jnp.bool_)


@dataclass(frozen=True)
class Case:
    """A row function, the leaves that it sees, and the sizes of a run."""

    fun: Callable[..., Any]
    consts: Any
    carry: Any
    xs: Any
    steps: int
    batch: int
    reverse: bool = False

    def row(self, dtype):
        return native.trace(self.fun, *(jax.tree.map(lambda leaf: leaf.spec(dtype), t) for t in self.trees))

    @property
    def trees(self):
        return self.consts, self.carry, jax.tree.map(whole, self.xs, is_leaf=is_shifted)

    def args(self, seed=0):
        rng = np.random.default_rng(seed)
        over_time = (self.steps, self.batch)

        def draw(leaf):
            if is_shifted(leaf):
                return native.Shifted(leaf.first.draw(rng, (self.batch,)), leaf.after.draw(rng, over_time))
            return leaf.draw(rng, over_time)

        consts = jax.tree.map(lambda leaf: leaf.draw(rng, ()) / max((1, *leaf.shape)) ** 0.5, self.consts)
        carry = jax.tree.map(lambda leaf: leaf.draw(rng, (self.batch,)), self.carry)
        return consts, carry, jax.tree.map(draw, self.xs, is_leaf=is_shifted)

    def scan(self, consts, carry, xs):
        """Does what `native.run` does by `lax.scan`."""

        def over_time(x):
            if not is_shifted(x):
                return x
            first = x.first[None]
            return jnp.concatenate([first, x.after[:-1]] if self.reverse else [x.after[1:], first])

        def step(carry, x):
            carry, y, terms = jax.vmap(self.fun, (None, 0, 0))(consts, carry, x)
            return carry, (y, jax.tree.map(lambda term: term.sum(0), terms))

        xs = jax.tree.map(over_time, xs, is_leaf=is_shifted)
        carry, (ys, terms) = lax.scan(step, carry, xs, reverse=self.reverse)
        return carry, ys, jax.tree.map(lambda term: term.sum(0), terms)


def is_shifted(x):
    return isinstance(x, native.Shifted)


def whole(x):
    return x.after if is_shifted(x) else x


def transposed(case):
    """The row of a case's backward run: cotangents of carry and y to those of consts, carry and x."""
    y = jax.eval_shape(
        lambda *args: case.fun(*args)[1], *(jax.tree.map(lambda a: a.spec("float32"), t) for t in case.trees)
    )
    y = jax.tree.map(lambda a: Leaf(a.shape), y)

    def fun(consts, carry_ct, at):
        state, x, y_ct = at
        _, vjp = jax.vjp(lambda *args: case.fun(*args)[:2], consts, state, x)
        consts_ct, carry_ct, x_ct = vjp((carry_ct, y_ct))
        return carry_ct, x_ct, consts_ct

    state = jax.tree.map(lambda leaf: native.Shifted(leaf, leaf), case.carry)
    return Case(fun, case.consts, case.carry, (state, case.xs, y), case.steps, case.batch, not case.reverse)


def lstm(i, h, *sizes):
    def fun(consts, carry, x):
        w_x, w_h, b = consts
        h, c = carry
        i, f, g, o = jnp.split(x @ w_x + b + h @ w_h, 4)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        h = sigmoid(o) * jnp.tanh(c)
        return (h, c), h, ()

    return Case(fun, (vec(i, 4 * h), vec(h, 4 * h), vec(4 * h)), (vec(h), vec(h)), vec(i), *sizes)


def gru(i, h, *sizes):
    def fun(consts, h, x):
        w_x, w_h, b = consts
        (xr, xz, xn), (hr, hz, hn) = jnp.split(x @ w_x, 3), jnp.split(h @ w_h + b, 3)
        r, z = sigmoid(xr + hr), sigmoid(xz + hz)
        h = (1 - z) * jnp.tanh(xn + r * hn) + z * h
        return h, {"h": h, "r": r}, ()

    return Case(fun, (vec(i, 3 * h), vec(h, 3 * h), vec(3 * h)), vec(h), vec(i), *sizes)


def layer_norm(h, *sizes):
    def fun(consts, h, x):
        w, scale = consts
        z = h @ w.T + x
        z = z - jnp.broadcast_to(z.mean(), z.shape)
        z = z * jnp.broadcast_to(lax.rsqrt((z**2).mean() + 1e-3), z.shape) * scale
        return jnp.tanh(z), z[:1] + z.max(), ()

    return Case(fun, (vec(h, h), vec(h)), vec(h), vec(h), *sizes)


def stacked(h, *sizes):
    """Two layers, a residual way, a projection read out after the loop."""

    def fun(consts, carry, x):
        w, v, out = consts
        a, b = carry
        a = jnp.tanh(jnp.concatenate([x, a]) @ w)
        b = a + jnp.tanh(jnp.concatenate([a, b]) @ v)
        return (a, b), jax.nn.relu(b @ out), ()

    return Case(fun, (vec(3 + h, h), vec(2 * h, h), vec(h, 5)), (vec(h), vec(h)), vec(3), *sizes)


def masks(h, *sizes):
    """Lengths, resets, dropout, a counter and a flag."""

    def fun(w, carry, x):
        h, count, ever = carry
        z, valid, reset, keep, k = x
        start = jnp.where(reset, jnp.zeros_like(h), h)
        new = jnp.where(keep, jnp.tanh(start @ w + z), start / 2)
        new = jnp.where(valid, new, h)
        count = jnp.where(reset, 0, count + valid.astype(jnp.int32))
        phase = lax.rem(count, jnp.maximum(k, 1)) - lax.div(k, jnp.int32(3)) * (2 ^ -k)
        open_ = (phase >= 1) & ~(k == 3) | (z.sum() > 0.5)
        y = jnp.where(open_, new, jnp.broadcast_to(phase.astype(h.dtype), h.shape))
        return (new, count, ever | reset), (y, phase, open_, keep ^ (new > 0), jnp.sign(k) - abs(k)), ()

    keep = Leaf((h,), jnp.bool_)
    return Case(fun, vec(h, h), (vec(h), INT, FLAG), (vec(h), FLAG, FLAG, keep, INT), *sizes)


def sums(h, *sizes):
    """Terms of every sort, and results that are operands."""

    def fun(consts, carry, x):
        w, a = consts
        h, s = carry
        u, v = x
        h = jnp.tanh(h * jnp.broadcast_to(a, h.shape) + u @ w)
        s = s + h[0] * v[1]
        outer = jnp.tensordot(u, h, 0) - 2.0 * jnp.tensordot(v[:2].sum() * u, h, 0)
        terms = outer, jnp.tensordot(h, v, 0).T, h, s, u[2] * s, jnp.zeros((3, 2), h.dtype), jnp.ones_like(s), w[0] * s
        return (h, s), (u, carry[0], s, h[-1:]), terms

    return Case(fun, (vec(3, h), vec()), (vec(h), vec()), (vec(3), vec(7)), *sizes)


def functions(n, *sizes):
    """Every function of floats, and every way to cut and join vectors."""

    def fun(consts, s, x):
        p = 0.1 + abs(x)
        y = [jnp.exp(x), jnp.log(p), jnp.log1p(p), jnp.expm1(x), jnp.sqrt(p), lax.rsqrt(p), jnp.floor(x), jnp.ceil(x)]
        y += [
            jnp.sign(x),
            x**3,
            p**-2,
            jnp.clip(x, -0.5, 0.5),
            lax.erf(x),
            jnp.sin(x),
            p**x,
            jnp.arctan2(x, p),
            jnp.minimum(x, consts),
            -x,
            jnp.round(4 * x),
            lax.round(4 * x),
            jnp.log2(p),
            jnp.arctanh(jnp.tanh(x)),
            jnp.broadcast_to(jnp.prod(x), x.shape),
        ]
        if hasattr(lax, "polynomial"):  # from JAX 0.12 on
            y += [lax.polynomial(x, [2.0, -1.0, 3.0])]
        y += [lax.rem(x, p + 0.3), jax.nn.softplus(x), jax.nn.silu(x), jnp.isfinite(1 / (x - x[0])).astype(x.dtype)]
        y += [
            jnp.cumsum(x),
            lax.cumsum(x, reverse=True),
            softmax(x),
            jnp.pad(x[2:], (2, 0)),
            jnp.arange(1.0, n + 1).astype(x.dtype) * x,
        ]
        y += [jnp.broadcast_to(x[n // 2], x.shape), jnp.where((x > 0).any(), x, -x), jnp.concatenate([x[1:], x[:1]])]
        return s * 0.5 + x.min(), y, ()

    return Case(fun, vec(n), vec(), vec(n), *sizes)


def tokens(h, *sizes):
    """Embeddings, a row a token; too great a number means the last one, a negative one counts back."""

    def fun(consts, h, x):
        table, w = consts
        token, z = x
        h = jnp.tanh(table[token] + h @ w)
        return h, table[jnp.abs(token) % 3] * z, ()

    return Case(fun, (vec(5, h), vec(h, h)), vec(h), (INT, vec(h)), *sizes)


def transposed_tokens(case):
    """The derivative of the floats alone."""

    def fun(consts, h, x):
        token, z, h_ct, y_ct = x
        _, vjp = jax.vjp(lambda consts, h, z: case.fun(consts, h, (token, z))[:2], consts, h, z)
        consts_ct, h_ct, z_ct = vjp((h_ct, y_ct))
        return h + 0.1 * h_ct, z_ct, jax.tree.map(lambda a: -2.0 * a, consts_ct)

    h = case.carry
    return Case(fun, case.consts, h, (INT, h, h, h), case.steps, case.batch)


def arrangements(*sizes):
    """Numbers that only move, and arrays of several axes."""

    def fun(consts, h, x):
        w, a = consts
        table, flags, z = x  # [4, 6], [11], [11]
        t = table.T[::-1, 1::2]
        h = jnp.tanh(h[::-1] @ w + jnp.repeat(z[:3], 3)[:7] + table.reshape(24)[::4][:1])
        cut = lax.pad(z, jnp.zeros((), z.dtype), [(-2, 3, 1)])[::-1]
        wide = jnp.broadcast_to(table[:, None, :], (4, 3, 6)) * jnp.broadcast_to(a, (4, 3, 6))
        y = t, wide.sum((0, 2)), wide.max(1), wide.transpose(2, 0, 1)[::2, ::3], cut, flags[::-2], h[::2][::-1]
        y += (
            lax.mul(table[:, :1], table),
            jnp.where(table > 0, lax.add(table[:1], table), 0),
            lax.mul(z[:1], jnp.ones(4)),
        )
        y += flags.reshape(11, 1).any(1), jnp.where(flags, z, 0)[::5], (table > 0).all(0), table.min()
        return h, y, (jnp.tensordot(h[::-1], z[::3], 0), z[::-3], a)

    return Case(fun, (vec(7, 7), vec(3, 6)), vec(7), (vec(4, 6), Leaf((11,), jnp.bool_), vec(11)), *sizes)


def padded(*sizes):
    """Vectors that are zero by turns, as derivatives of gates are, at the same places, and across each other's ends."""

    def fun(w, h, x):
        a, b = x
        apart = pad(a, 0, 17) + pad(b, 10, 3) + pad(h, 24, 0)
        twice = pad(a, 9, 8) + pad(a * a, 9, 8)
        across = pad(a, 0, 17) + pad(b, 2, 11)
        h = jnp.tanh(apart @ w)
        return h, (apart, twice, across, h, h[None]), (jnp.tensordot(apart, h, 0), twice)

    def pad(x, before, after):
        return lax.pad(x, jnp.zeros((), x.dtype), [(before, after, 0)])

    return Case(fun, vec(27, 3), vec(3), (vec(10), vec(14)), *sizes)


def pieces(h, *sizes):
    """Vectors that are stacked, repeated and taken apart."""

    def fun(w, carry, x):
        a, b = jnp.unstack(jnp.stack([carry, x], 1)[::-1], axis=1)
        new = jnp.tanh(jnp.tile(a, 2) @ w + b)
        return new, (jnp.stack([new, x * carry]), jnp.tile(new[:2, None], (1, 3)), *jnp.stack([x, new])), ()

    return Case(fun, vec(2 * h, h), vec(h), vec(h), *sizes)


def named(h, *sizes):
    """Places that the program names: read, written and added to, one of them twice, one from the end, one beyond it."""
    order, few = np.arange(h) * 3 % h, np.array([2, 0, -1, 2, h])

    def fun(w, carry, x):
        x, table = x
        new = jnp.tanh(carry[order] @ w + x.at[few].add(carry[:5]))
        picked = (
            jnp.take(new, jnp.array([0, 3, h, 1]), fill_value=2),
            new[np.array([[1, 2], [0, 1]])],
            table[:, np.array([2, 0])],
        )
        written = (
            new.at[3].set(x[0]),
            new.at[few[:3]].set(x[:3]),
            table.at[1].set(new[:3]),
            (new > 0)[order],
            jnp.take(x, np.array([h])),
        )
        summed = jax.ops.segment_sum(new, order // 2, h), table.at[:, np.array([1, 1, 0])].add(table)
        return new, (*picked, *written, *summed, table.at[np.array([1, 0]), np.array([2, 2])].get()), ()

    return Case(fun, vec(h, h), vec(h), (vec(h), vec(2, 3)), *sizes)


def waiting(h, *sizes):
    """Results that are computed early from what a product after the loop reads, too: they wait for sums and joins."""

    def fun(w, carry, x):
        c, m = jnp.sum(carry * carry), jnp.max(jnp.tanh(carry))
        joined = jnp.concatenate([carry[1:] * c, x[:1]])
        new = jnp.tanh(x + 0.1 * (carry @ w) * c * m + joined)
        late = carry * c * joined, (carry + m) * x
        return new, (*(jnp.tanh(a) + 1 for a in late), *(a @ w for a in late)), ()

    return Case(fun, vec(h, h), vec(h), vec(h), *sizes)


# Kernels differ for 1, 2 and more rows a part: most cases are of one sort, because compiling them is the cost.
CASES = {
    "lstm": lstm(3, 4, 5, 2),
    "lstm, wide": lstm(5, 17, 9, 13, True),
    "lstm, transposed": transposed(lstm(3, 17, 7, 11)),
    "lstm, transposed, sums as in the results": transposed(lstm(3, 16, 7, 11)),
    "lstm, transposed, one unit": transposed(lstm(1, 1, 1, 3, True)),
    "gru, transposed": transposed(gru(4, 12, 6, 10)),
    "layer norm, transposed": transposed(layer_norm(8, 5, 10)),
    "stacked, transposed": transposed(stacked(13, 9, 1)),
    "masks": masks(10, 8, 11),
    "sums": sums(9, 6, 12, True),
    "functions": functions(5, 3, 10),
    "tokens, transposed": transposed_tokens(tokens(6, 7, 11)),
    "arrangements": arrangements(4, 11),
    "padded": padded(5, 11),
    "pieces": pieces(5, 4, 3),
    "pieces, transposed": transposed(pieces(5, 4, 3)),
    "named": named(17, 4, 3),
    "named, transposed": transposed(named(11, 4, 3)),
    "waiting": waiting(18, 5, 4),
}
IN_BOTH_DTYPES = ("lstm, wide", "lstm, transposed", "masks", "functions", "tokens, transposed")
SPLITS = [None, Division(2, 1, 1), Division(3, 2, 1), Division(4, 3, 1), Division(2, 1, 2), Division(9, 1, 3)]


@pytest.mark.parametrize(
    ("lanes", "sizes"), [(16, {1: 4, 4: 4, 5: 8, 8: 8, 9: 16, 40: 16}), (8, {3: 4, 5: 8}), (2, {1: 2})]
)
def test_vectors_are_no_longer_than_what_they_hold(lanes, sizes):
    assert {size: Registers(lanes, 32).holding(size).lanes for size in sizes} == sizes
    if lanes == 16:
        for size in sizes:
            vector, matrix = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((size,), (size, size)))
            row = native.trace(lambda w, h, x: (jnp.tanh(x + h @ w), h, ()), matrix, vector, vector)
            text = emit(row, Registers(16, 32), Variant((False,), reverse=False, final=True, rows=1)).text
            assert f"<{sizes[size]} x float>" in text
            assert not any(f"<{longer} x float>" in text for longer in (4, 8, 16) if longer > sizes[size])


@pytest.mark.parametrize(("size", "most"), [(16, 128), (256, 256)])
def test_parts_have_no_more_rows_than_stay_in_a_cache(size, most, monkeypatch):
    """The same number for each thread; a part with wide weights, which it reads at every step, has more rows."""
    monkeypatch.setattr(division, "_threads", lambda: 3)
    vector, matrix = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((size,), (size, 3 * size)))

    def step(w, h, x):
        h = jnp.tanh(x + sum(jnp.split(h @ w, 3)))
        return h, h, ()

    row = native.trace(step, matrix, vector, vector)
    for batch in (50, 3 * most, 3 * most + 1, 10 * most):
        assert division.divide(row, 8, batch).parts == 3 * -(-batch // (3 * most))
    if size == 16:  # few rows and wide weights are a team's
        assert [division.divide(row, 8, batch).parts for batch in (1, 2, 3, 4)] == [1, 2, 3, 3]


def test_wide_weights_and_few_rows_are_a_team_s(monkeypatch):
    """The wider the weights, the more rows."""
    monkeypatch.setattr(division, "_threads", lambda: 3)
    most = {}
    for size in (128, 256, 512, 1024):
        vector, matrix = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((size,), (size, 3 * size)))
        row = native.trace(lambda w, h, x: (sum(jnp.split(h @ w, 3)) + x, h, ()), matrix, vector, vector)
        most[size] = max((batch for batch in range(1, 200) if division.divide(row, 8, batch).team == 3), default=0)
    assert most == {128: 0, 256: 12, 512: 24, 1024: 199}


def test_smaller_weights_are_a_team_s_of_as_many_rows(monkeypatch):
    """Of as many members as their reading is worth the waiting at the end of each stage, in a run that is long."""
    monkeypatch.setattr(division, "_threads", lambda: 8)

    def teams(size, again, steps):
        vector, matrix = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((size,), (size, 3 * size)))

        def step(w, h, x):
            z = sum(jnp.split(h @ w, 3)) + x
            return (z / jnp.sum(z) if again else z), h, ()

        row = native.trace(step, matrix, vector, vector)
        return [division.divide(row, steps, batch)[1:] for batch in (1, 2, 3, 4)]

    assert teams(128, False, 256) == [(1, 3), (1, 3), (1, 3), (4, 1)]
    assert teams(128, True, 256) == [(1, 2), (1, 2), (3, 1), (4, 1)]
    assert teams(128, False, 8) == teams(32, False, 10_000) == [(1, 1), (2, 1), (3, 1), (4, 1)]


def runs(row, case, splits, monkeypatch):
    """The runs, one program, of as many divisions."""

    def divided(split):
        if split is not None:
            fitting = Division(min(split.chunk, case.steps), min(split.parts, case.batch), split.team)
            monkeypatch.setattr(calls, "divide", lambda *sizes: fitting)
        return lambda *args: native.run(row, *args, reverse=case.reverse)

    def all_of_them(*args):
        found = []
        for split in splits:
            found.append(divided(split)(*args))
            monkeypatch.undo()
        return found

    return jax.jit(all_of_them)


def cast(tree, dtype):
    return jax.tree.map(lambda a: a.astype(dtype) if a.dtype == np.float32 else a, tree)


def assert_close(got, want, tolerance):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for path, g, w in [
        (p, g, w) for (p, g), w in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True)
    ]:
        g, w = np.asarray(g), np.asarray(w)
        assert g.shape == w.shape
        scale = max(1.0, np.max(np.abs(w), initial=0)) if w.dtype == np.float64 else 0
        np.testing.assert_allclose(
            g.astype(w.dtype), w, rtol=0, atol=tolerance * scale, err_msg=jax.tree_util.keystr(path)
        )


OFTEN = (
    "lstm",
    "lstm, transposed",
    "lstm, transposed, sums as in the results",
    "sums",
    "arrangements",
    "padded",
    "pieces, transposed",
    "named",
    "named, transposed",
    "waiting",
)


@pytest.mark.parametrize("name", [*OFTEN, *rare(*(name for name in CASES if name not in OFTEN))])
def test_runs_equal_scans(name, x64, monkeypatch):
    case = CASES[name]
    args = case.args()
    want = jax.jit(case.scan)(*cast(args, np.float64))
    for dtype in ("float64", "float32") if name in IN_BOTH_DTYPES else ("float64",):
        for got in runs(case.row(dtype), case, SPLITS, monkeypatch)(*cast(args, dtype)):
            assert_close(got, want, TOLERANCE[dtype])


@pytest.mark.parametrize("bits", [128, *rare(512)])
def test_other_vectors_give_the_same(bits, x64, monkeypatch):
    """The tiles of ARM and of AVX-512, of which LLVM makes what this machine has."""
    case = CASES["lstm, transposed"]
    args, row = cast(case.args(), np.float64), case.row("float64")
    want = jax.jit(case.scan)(*args)
    with compile.on(replace(compile.machine(), vector_bits=bits, registers=32)):
        (got,) = runs(row, case, [Division(2, 2, 1)], monkeypatch)(*args)
    assert_close(got, want, TOLERANCE["float64"])


def test_a_run_is_one_call():
    case = CASES["lstm, transposed"]
    row = case.row("float32")
    program = jax.make_jaxpr(lambda *args: native.run(row, *args))(*case.args())
    names = [e.primitive.name for e in program.eqns]
    assert names.count("ffi_call") == 1
    assert set(names) <= {"ffi_call", "transpose", "copy"}


def test_vectors_that_are_zero_by_turns_are_not_added():
    apart, twice, across, *_ = CASES["padded"].row("float32").ys
    assert [(n.op, n.size) for n in apart.args] == [("xs", 10), ("xs", 14), ("carry", 3)]
    assert [(n.op, n.size) for n in twice.args] == [("lit", 9), ("add", 10), ("lit", 8)]
    assert across.op == "add"


def test_a_result_is_written_once():
    row = CASES["padded"].row("float32")
    assert (len(row.ys), row.places) == (4, (0, 1, 2, 3, 3))
    (call,) = jax.make_jaxpr(lambda *args: native.run(row, *args))(*CASES["padded"].args()).eqns[:1]
    assert [v.aval.shape[2:] for v in call.outvars[1:5]] == [(27,), (27,), (27,), (3,)]


def test_what_derivatives_need_is_computed_where_the_state_is():
    """So that no gate is stored but as a result; what a product waits for comes after the loop."""

    def keep(w, state, x):
        i, f = jnp.split(state[0] @ w + x, 2)
        c = jnp.tanh(i) * state[1] + f
        h = jnp.tanh(c)
        slopes = state[1] * (1 - jnp.tanh(i) ** 2), jnp.tanh(i), 1 - h**2
        return (h, c), (h @ w, h, slopes), ()

    h, w = jax.ShapeDtypeStruct((4,), jnp.float32), jax.ShapeDtypeStruct((4, 8), jnp.float32)
    plan = Plan(native.trace(keep, w, (h, h), jax.ShapeDtypeStruct((8,), jnp.float32)))
    assert {home.where for home in plan.homes.values() if home.size == 4} == {"ys"}
    assert {nest.size for nest in plan.nests if nest.phase == 2} == {8}


def test_the_first_part_adds_up_in_the_result():
    """Where the result is laid out as vectors need it: such sums take memory for each of the other parts alone."""
    for name, dense in (("lstm, transposed", False), ("lstm, transposed, sums as in the results", True)):
        row = CASES[name].row("float32")
        variant = Variant((False,) * len(row.given[2]), reverse=False, final=True, rows=4)
        memory = emit(row, Registers(8, 16), variant).memory
        assert (memory.sums_size == 0, memory.dense_size > 0) == (dense, dense)
        assert memory.packed_at(3, 640) == 3 * 640 + 2 * memory.dense_size


def test_one_kernel_serves_all_lengths():
    row = lstm(3, 4, 0, 0).row("float32")
    before = calls._kernel.cache_info().misses
    for steps, batch in ((3, 9), (200, 8), (1, 50)):
        jax.make_jaxpr(lambda *args: native.run(row, *args))(*lstm(3, 4, steps, batch).args())
    assert calls._kernel.cache_info().misses == before + 1


def test_not_finite_numbers_pass_as_in_a_scan(x64, monkeypatch):
    case = layer_norm(11, 6, 5)
    consts, carry, xs = case.args()
    xs[1, 1, 3], xs[2, 2, 5], xs[0, 3, 0] = np.nan, np.inf, -np.inf
    args = cast((consts, carry, xs), np.float64)
    row = case.row("float64")
    want = jax.jit(case.scan)(*args)
    assert np.isnan(want[1]).any()
    assert np.isfinite(want[1]).any()
    for got in runs(row, case, [None, Division(2, 1, 2)], monkeypatch)(*args):
        for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_array_equal(np.isfinite(g), np.isfinite(w))
            np.testing.assert_array_equal(np.isnan(g), np.isnan(w))


@pytest.mark.parametrize("split", [Division(1, 1, 1), Division(3, 2, 1), Division(5, 1, 2)])
def test_a_state_that_begins_as_zeros_costs_no_product(split, monkeypatch):
    """Seen by weights of which none but the first state's row is a number: the first step reads no other."""
    case = lstm(3, 4, 5, 6)
    row, ((w_x, w_h, b), _, xs) = case.row("float32"), case.args()
    w_h[1:] = np.nan
    zeros = np.zeros((6, 4), np.float32)
    _, want, _ = case.scan((w_x, np.zeros_like(w_h), b), (zeros, zeros), xs)
    ((_, ys, _),) = runs(row, case, [split], monkeypatch)((w_x, w_h, b), (zeros, zeros), xs)
    np.testing.assert_allclose(ys[0], want[0], rtol=1e-5, atol=1e-6)
    assert np.isnan(ys[1:]).all()
    ((_, ys, _),) = runs(row, case, [split], monkeypatch)((w_x, w_h, b), (zeros + 1, zeros), xs)
    assert np.isnan(ys).all()


@pytest.mark.parametrize("name", ["lstm, transposed", "gru, transposed", "layer norm, transposed"])
def test_a_last_carry_that_nobody_asks_for_costs_no_product(name):
    case = CASES[name]
    row, args = case.row("float32"), case.args()
    found = [
        jax.jit(functools.partial(native.run, row, reverse=case.reverse, final=final))(*args) for final in (True, False)
    ]
    for whole, rest in zip(*(jax.tree.leaves(results[1:]) for results in found), strict=True):
        np.testing.assert_array_equal(whole, rest)
    whole, rest = (jax.tree.leaves(results[0]) for results in found)
    assert not all(map(np.allclose, whole, rest))


def test_runs_are_bitwise_equal_from_several_threads(monkeypatch):
    case = CASES["lstm, transposed"]
    row, args = case.row("float32"), case.args()
    for split in (Division(4, 2, 1), Division(4, 1, 2)):
        run = runs(row, case, [split], monkeypatch)
        first = jax.tree.leaves(run(*args))
        with ThreadPoolExecutor(2) as threads:
            for found in threads.map(lambda _, run=run: jax.tree.leaves(run(*args)), range(40)):
                assert all(np.array_equal(a, b) for a, b in zip(found, first, strict=True))


@pytest.mark.parametrize(
    ("fun", "reason"),
    [
        (lambda h, x: (jnp.sort(h), h), "primitive 'sort'"),
        (lambda h, x: (h, h[x.astype(jnp.int32)]), "primitive 'gather'"),
        (lambda h, x: (h, (h > 0).astype(jnp.int32).at[0].add(1)), "primitive 'scatter-add' of int32, 1 at 1 places"),
        (
            lambda h, x: (h, jnp.tile(h, 9).at[np.arange(36) // 35].add(jnp.tile(x, 9))),
            "primitive 'scatter-add' of floats, 36 at 2 places",
        ),
        (lambda h, x: (h, h.at[0].apply(jnp.tanh)), "primitive 'scatter' of a function"),
        (lambda h, x: (h, jnp.tensordot(h, x, 0)), "an outer product that is not summed"),
        (lambda h, x: (jnp.exp(jnp.tensordot(h, x, 0)).sum() * x, h), "primitive 'exp' of an outer product"),
        (lambda h, x: (h, h.reshape(2, 2) @ x.reshape(2, 2)), "a product of the shapes (2, 2) and (2, 2)"),
        (lambda h, x: (h, (h > 0).astype(jnp.int32) @ np.arange(16).reshape(4, 4)), "primitive 'dot_general' of int32"),
        (lambda h, x: (h, jnp.vdot((h > 0).astype(jnp.int32), np.arange(4))), "primitive 'dot_general' of int32"),
        (lambda h, x: (h, h[:0]), "primitive 'slice' that gives an empty array"),
        (lambda h, x: (h, h[x[0].astype(jnp.int32)]), "primitive 'dynamic_slice' but of a row of a constant"),
        (lambda h, x: (h, h.astype(jnp.bfloat16)), "the dtype bfloat16"),
        (lambda h, x: (lax.lgamma(h), h), "primitive 'lgamma'"),
        (lambda h, x: (lax.complex(h, h).real, h), "the dtype complex64"),
    ],
)
def test_what_has_no_code_is_named(fun, reason):
    h = jax.ShapeDtypeStruct((4,), jnp.float32)
    with pytest.raises(native.Unsupported) as error:
        native.trace(lambda _, h, x: (*fun(h, x), ()), (), h, h)
    assert str(error.value) == reason


def test_arrays_are_those_that_the_row_was_traced_for():
    case = CASES["lstm"]
    row, (consts, carry, xs) = case.row("float32"), case.args()
    with pytest.raises(ValueError, match=r"xs: got 5 steps of 0 rows, needs at least one of each"):
        native.run(row, consts, jax.tree.map(lambda a: a[:0], carry), xs[:, :0])
    with pytest.raises(
        ValueError, match=r"carry: got the dtype and shape .*float32.*, 1, 4\), needs .*float32.*, 2, 4\)"
    ):
        native.run(row, consts, jax.tree.map(lambda a: a[:1], carry), xs)
    with pytest.raises(ValueError, match="consts: got"):
        native.run(row, (consts[0], consts[1].astype(np.float16), consts[2]), carry, xs)


def test_runs_that_packing_would_slow_down_are_left_to_xla():
    row = CASES["lstm"].row("float32")
    assert native.slower(row, 1, 1) == ""
    planes = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    moving = native.trace(lambda _, h, x: (h.T + x, x, ()), (), planes, planes)
    assert native.slower(moving, 64, 64) == "4096 numbers that move at every step"
    wide, wider = (lstm(size, size, 0, 0).row("float32") for size in (256, 1024))
    assert native.slower(wide, 3, 1) == "fewer than 4 row steps"
    assert native.slower(wide, 1, 4) == ""
    assert native.slower(wider, 1, 31) == "fewer than 32 row steps"
    assert native.slower(wider, 32, 1) == ""


MANY_RUNS = """
import sys
sys.path.insert(0, {tests!r})
import numpy as np, pytest, test_native as t
import jax
for name in ("lstm, transposed", "masks", "tokens, transposed"):
    case = t.CASES[name]
    args = case.args()
    with pytest.MonkeyPatch.context() as patch:
        run = t.runs(case.row("float32"), case, t.SPLITS, patch)
        first = jax.tree.leaves(run(*args))
    for _ in range(50):
        assert all(map(np.array_equal, jax.tree.leaves(run(*args)), first))
print("whole")
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's checks")
def test_memory_is_whole():
    """Writes out of bounds end the process where glibc looks for them; memory that is not set shows in the results."""
    checks = {"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "165"}
    found = subprocess.run(
        [sys.executable, "-c", MANY_RUNS.format(tests=os.path.dirname(__file__))],
        env=os.environ | checks,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.stdout == "whole\n", found.stderr[-2000:]


CALLERS = """
import os, signal, threading, time
if {one}:
    os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
from concurrent.futures import ThreadPoolExecutor
import jax, numpy as np, jaxrnn
cell = jaxrnn.LSTM(64, 128)
params = cell.init(jax.random.key(0))
xs = jax.random.normal(jax.random.key(1), (50, 32, 64))
grad = jax.jit(jax.grad(lambda params: jaxrnn.unroll(cell, params, xs, path="native")[1].sum()))
leaves = lambda _: list(map(np.asarray, jax.tree.leaves(grad(params))))
first = leaves(0)
same = lambda found: all(map(np.array_equal, found, first))
with ThreadPoolExecutor(8) as callers:
    assert all(map(same, callers.map(leaves, range(40))))
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell runs this in the background
interrupts = 0
for delay in np.linspace(0.001, 0.1, 10):
    try:
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
        end = time.monotonic() + 1
        while time.monotonic() < end:  # Python swallows an interrupt that comes within a destructor
            leaves(0)
    except KeyboardInterrupt:
        interrupts += 1
assert interrupts and same(leaves(0))
print("right")
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform != "linux", reason="one CPU is chosen as on Linux")
@pytest.mark.parametrize(
    ("one", "flags"),
    [(False, ""), (True, "--xla_cpu_multi_thread_eigen=false")],
    ids=["every CPU", "one CPU, no threads of Eigen's"],
)
def test_callers_do_not_disturb_each_other(one, flags):
    """Eight at once, and calls that are interrupted: right, and none waits forever."""
    found = subprocess.run(
        [sys.executable, "-c", CALLERS.format(one=one)],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.stdout == "right\n", found.stderr[-2000:]


GUARDED = """
import sys
sys.path.insert(0, {tests!r})
import ctypes, mmap
import jax, numpy as np, pytest, test_native as t

protect = ctypes.CDLL(None, use_errno=True).mprotect
protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int

def guarded(a):
    "A copy that ends where memory does that nobody may read."
    assert a.nbytes % 64 == 0
    size = -(-a.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + mmap.PAGESIZE)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    copy = np.frombuffer(memory, a.dtype, a.size, size - a.nbytes).reshape(a.shape)
    copy[...] = a
    assert protect(begin + size, mmap.PAGESIZE, 0) == 0
    there = jax.dlpack.from_dlpack(copy)
    assert there.unsafe_buffer_pointer() == begin + size - a.nbytes
    return there

forward = t.lstm(4, 12, 16, 20)
for case in (forward, t.transposed(forward)):
    consts, carry, xs = case.args()
    if {short}:
        carry = carry[0][:16], carry[1]
        t.calls._check = lambda *args: None
    args = jax.tree.map(guarded, (consts, carry, xs))
    with pytest.MonkeyPatch.context() as patch:
        jax.block_until_ready(t.runs(case.row("float32"), case, t.SPLITS, patch)(*args))
print("whole")
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform != "linux", reason="the layout of Linux' memory")
def test_nothing_is_read_beyond_an_array():
    """Every array ends at a page that ends the process when it is read; where an array is too short, it does."""

    def run(short):
        program = GUARDED.format(tests=os.path.dirname(__file__), short=short)
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)

    found = run(short=False)
    assert found.stdout == "whole\n", found.stderr[-2000:]
    assert run(short=True).returncode == -signal.SIGSEGV


LATE = """
import sys
sys.path.insert(0, {tests!r})
import re, time
import jax, jax.numpy as jnp, pytest, test_native as t
from jaxrnn.native import emit

WIDE = 200_000  # numbers of 44 rows: an array that the system gets back when it is freed

def late(types, task, packs):
    "A worker whose second member takes part half a second after it was counted in."
    held_up = "%held_up = mul i32 %number, 500000\\n  call i32 @usleep(i32 %held_up)\\n  "
    call = r"(call void @part\\(ptr %task, i64 (%t\\d+)\\))"
    number = r"%number = trunc i64 \\2 to i32\\n  "
    text, count = re.subn(call, number + held_up + r"\\1", timely(types, task, packs))
    assert count == 1
    return f"declare i32 @usleep(i32)\\n\\n{{text}}"

timely, emit.worker = emit.worker, late

def fun(w, h, x):
    return jnp.tanh(jnp.sum(h @ w) + h) + x, h[:16], ()

forward = t.Case(fun, t.vec(WIDE, 16), t.vec(WIDE), t.vec(), 3, 44)
for case in (forward, t.transposed(forward)):
    with pytest.MonkeyPatch.context() as patch:
        run = t.runs(case.row("float32"), case, [t.Division(2, 1, 2)], patch)
        for _ in range(4):  # the thread that calls may be the second member
            given = jax.tree.map(jnp.array, case.args())
            jax.block_until_ready(run(*given))
            for array in jax.tree.leaves(given):
                array.delete()
            time.sleep(0.7)
print("whole")
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform != "linux", reason="the layout of Linux' memory")
def test_a_late_member_of_a_team_reads_no_array():
    """It may begin when the call has returned, and its arrays are gone."""
    program = LATE.format(tests=os.path.dirname(__file__))
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert found.stdout == "whole\n", found.stderr[-2000:]
