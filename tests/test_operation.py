"""A run as one native operation: options, programs, what is said of it. `test_unroll.py` has all of its derivatives."""

import functools
import os
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxrnn
import jaxrnn.sharding
from bench.loops import equations
from jaxrnn import (
    GRU,
    LSTM,
    MLSTM,
    RGLRU,
    Bidirectional,
    Clockwork,
    Elman,
    Function,
    LayerNormLSTM,
    LearnedState,
    RecurrentDropout,
    Stack,
    VanillaLSTM,
    Zoneout,
    native,
    networks,
)
from jaxrnn.cells import ElmanState
from jaxrnn.networks import WeightNorm
from tests.registry import example, rare

T, B = 5, 2
MASKS = {"lengths": jnp.array([5, 3]), "resets": jnp.arange(T * B).reshape(T, B) % 4 == 2}
NOISY = Stack((Zoneout(GRU(3, 4), 0.3), RecurrentDropout(Elman(4, 5), 0.3, share=("time",))), dropout=0.5)

needs_native = pytest.mark.skipif(bool(native.obstacle()), reason=native.obstacle() or "none")


def test_continuous_integration_has_native_loops():
    """There, what is skipped without them would not be seen."""
    assert not (os.environ.get("CI") and native.obstacle())


def close(found, expected, rtol=1e-10):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        if a.dtype != jax.dtypes.float0:
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * (1 + np.abs(b).max(initial=0)))


def both(program, *args):
    """Results of a program on the native path and by the scan."""
    return [jax.jit(functools.partial(program, path=path))(*args) for path in ("native", "scan")]


def gradients(cell, args, **options):
    """Values, and cotangents pulled back from cotangents that are all different."""

    def weight(leaf):
        return jnp.sin(leaf + 1) if jnp.issubdtype(leaf.dtype, jnp.inexact) else _still(leaf)

    value, pull = jax.vjp(lambda *args: jaxrnn.unroll(cell, *args, **options), *args)
    return value, pull(jax.tree.map(weight, value))


@pytest.mark.exhaustive
@needs_native
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("cell", "options"),
    [
        (NOISY, {"save": "residuals", "key": jax.random.key(3), "reverse": True}),
        *rare(
            (NOISY, {"save": "states", "key": jax.random.key(3)}),
            (Bidirectional(LearnedState(GRU(3, 4))), {"save": "boundaries", "chunk": 2, "reverse": True}),
        ),
    ],
    ids=["residuals", "states", "boundaries"],
)
def test_what_is_kept_changes_no_value(cell, options):
    """With masks, draws for steps and for rows, a learned state, in both directions of time."""
    args = example(cell, dtype=jnp.float64)
    close(*both(lambda *args, path: gradients(cell, args, path=path, **options, **MASKS), *args))


@needs_native
def test_a_gradient_is_two_native_calls_and_no_loop():
    cell = LSTM(3, 4)
    args = example(cell, steps=32)

    def loss(args, path):
        return jnp.sum(jaxrnn.unroll(cell, *args, path=path)[1])

    for path, calls, loops in (("auto", 2, 0), ("native", 2, 0), ("scan", 0, 2)):
        text = jax.jit(jax.grad(functools.partial(loss, path=path))).lower(args).as_text()
        assert (text.count("stablehlo.custom_call @jaxrnn"), text.count("stablehlo.while")) == (calls, loops)


@needs_native
def test_tangents_of_a_gradient_are_two_native_calls_more():
    """As compiled; a Hessian-vector product alone has no use for the gradient."""
    cell = Elman(3, 4)
    params, *rest = example(cell, steps=32)

    def loss(params):
        return jnp.sum(jnp.sin(jaxrnn.unroll(cell, params, *rest)[1]))

    def tangents(params):
        return jax.jvp(jax.grad(loss), (params,), (params,))

    for program, calls in ((tangents, 4), (lambda params: tangents(params)[1], 3)):
        text = jax.jit(program).lower(params).compile().as_text()
        assert (text.count('custom_call_target="jaxrnn'), text.count(" while(")) == (calls, 0)


@needs_native
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "cell",
    rare(WeightNorm(VanillaLSTM(3, 4)), LayerNormLSTM(3, 4), RGLRU(4, heads=2), Clockwork(3, 4, periods=(1, 3)), NOISY),
    ids=lambda cell: type(cell).__name__,
)
def test_second_derivatives_are_those_of_the_scan(cell):
    """Of all that moves; `test_unroll.py` compares some cells with a plain scan."""
    args = example(cell, steps=3, dtype=jnp.float64)

    def tangents(args, path):
        moves = jax.tree.map(lambda a: jnp.cos(a) if jnp.issubdtype(a.dtype, jnp.floating) else _still(a), args)
        return jax.jvp(lambda args: gradients(cell, args, path=path, key=jax.random.key(3))[1], (args,), (moves,))[1]

    close(*both(tangents, args))


def _still(leaf):
    return np.zeros(leaf.shape, jax.dtypes.float0)


@needs_native
@pytest.mark.parametrize("kind", ["explicit", *rare("auto", "shard_map")])
def test_on_a_mesh_every_device_has_kernels(kind):
    """`test_meshes.py` has eight devices."""
    cell = Elman(3, 4)
    params, xs, _ = example(cell, steps=32)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit if kind == "explicit" else AxisType.Auto,))

    def loss(params, xs):
        return jnp.sum(jaxrnn.unroll(cell, params, xs, lengths=jnp.array([32, 3]))[1])

    fun = loss
    if kind == "shard_map":
        fun = jax.shard_map(
            lambda *args: jax.lax.psum(loss(*args), "data"), mesh=mesh, in_specs=(P(), P(None, "data")), out_specs=P()
        )
    with jax.set_mesh(mesh):
        spread = jaxrnn.sharding.replicate(params, mesh), jaxrnn.sharding.spread(xs, mesh, "data", at=1)
        compiled = jax.jit(jax.grad(fun)).lower(*spread).compile()
    text = compiled.as_text()
    assert (text.count('custom_call_target="jaxrnn'), text.count(" while(")) == (2, 0)
    close(compiled(*spread), jax.jit(jax.grad(loss))(params, xs), 1e-6)


@needs_native
def test_a_run_outside_of_jit_can_be_debugged():
    cell = Elman(3, 4)
    params, xs, state = example(cell, steps=32)
    with jax.disable_jit():
        jaxrnn.unroll(cell, params, xs, state, path="native")
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        jaxrnn.unroll(cell, params, xs * jnp.nan, state, path="native")


class Precise(Elman):
    """Its step of one row can be traced at the highest precision only."""

    def step(self, params, state, drive):
        if state.h.ndim == 1:
            assert jax.config.jax_default_matmul_precision == "highest"
        return super().step(params, state, drive)


@needs_native
def test_a_refusal_under_other_settings_of_jax_is_forgotten():
    """Why it refuses is said, also where an error has no message."""
    with jax.default_matmul_precision("default"):
        assert "one row, without batch axes (AssertionError" in jaxrnn.explain(Precise(3, 4), steps=64)[0].reason
    with jax.default_matmul_precision("highest"):
        assert jaxrnn.explain(Precise(3, 4), steps=64)[0].path == "native"


def exact_gelu(x):
    return jax.nn.gelu(x, approximate=False)


@needs_native
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("activation", [exact_gelu, lax.erf])
def test_the_error_function_has_native_derivatives(activation):
    """From JAX 0.12 on they are computed by the bits of numbers."""
    cell = Elman(3, 4, activation)
    args = example(cell, dtype=jnp.float64)

    def tangents(*args, path):
        return jax.jvp(lambda *args: gradients(cell, args, path=path), args, jax.tree.map(jnp.cos, args))

    close(*both(tangents, *args))


class Permuted(Elman):
    """Reads its state in another order, and writes some of it."""

    def step(self, params, state, drive):
        new, h = super().step(params, ElmanState(state.h[..., np.array([2, 0, 3, 1])]), drive)
        h = h.at[..., np.array([1, 3, 1])].add(state.h[..., :3])
        return new._replace(h=h), h


@needs_native
@pytest.mark.usefixtures("x64")
def test_a_step_may_name_places_of_its_state():
    cell = Permuted(3, 4)
    args = example(cell, dtype=jnp.float64)

    def tangents(*args, path):
        return jax.jvp(lambda *args: gradients(cell, args, path=path), args, jax.tree.map(jnp.cos, args))

    close(*both(tangents, *args))


@needs_native
def test_a_defect_of_a_machine_is_no_refusal(monkeypatch):
    """Only what a machine refuses, and what a cell's own code raises, leads to the scan."""

    def defect(*args):
        raise KeyError("a defect")

    monkeypatch.setattr(native.rows.Tracer, "row", defect)
    with pytest.raises(KeyError, match="a defect"):
        jaxrnn.explain(Elman(3, 17), steps=64)


@needs_native
def test_each_backend_has_equations_of_its_own(monkeypatch):
    """Those of another one, traced before, had no kernel on this one."""
    cell = LSTM(4, 8, heads=2)
    with monkeypatch.context() as patched:
        patched.setattr(jax, "default_backend", lambda: "tpu")
        jaxrnn.explain(cell, steps=64, batch=2)
    assert jaxrnn.explain(cell, steps=64, batch=2)[0].path == "native"


@needs_native
def test_an_exported_program_has_no_native_call():
    """It runs where these loops were not made."""
    cell = LSTM(3, 4)
    args = example(cell, steps=32)
    exported = export.export(jax.jit(lambda *args: jaxrnn.unroll(cell, *args, path="native")))(*args)
    assert "custom_call @jaxrnn" not in exported.mlir_module()
    close(exported.call(*args), jaxrnn.unroll(cell, *args, path="scan"), 1e-5)


@needs_native
def test_a_gradient_of_parameters_alone_has_none_of_the_inputs():
    args = params, xs, _ = example(LSTM(3, 4), steps=32)

    def loss(*args):
        return jnp.sum(jaxrnn.unroll(LSTM(3, 4), *args, path="native")[1])

    def given_back(argnums):
        program = jax.make_jaxpr(jax.grad(loss, argnums))(*args)
        *_, last = (e for e in equations(program.jaxpr) if e.primitive.name == "run")
        return {v.aval.shape for v in last.outvars}

    assert given_back(0) >= {w.shape for w in params}
    assert xs.shape not in given_back(0)
    assert xs.shape in given_back((0, 1))


@needs_native
def test_a_gradient_has_that_of_the_initial_state_where_it_is_asked_for():
    args = example(LSTM(3, 4), steps=32)

    def loss(*args):
        return jnp.sum(jaxrnn.unroll(LSTM(3, 4), *args, path="native")[1])

    for argnums, initial in ((0, False), ((0, 1), False), ((0, 2), True)):
        program = jax.make_jaxpr(jax.grad(loss, argnums))(*args)
        *_, last = (e for e in equations(program.jaxpr) if e.primitive.name == "run")
        assert last.params["call"].initial == initial


@needs_native
def test_recurrent_weights_take_nothing_from_a_state_of_zeros():
    """Seen by a cotangent of the first output that is not a number: it passes where the state before is not zero."""
    cell = LSTM(3, 4)
    params, xs, state = example(cell, steps=32)
    cts = jnp.zeros((32, *xs.shape[1:-1], 4)).at[0].set(jnp.nan)
    for first, finite in ((cell.initial_state(xs.shape[1:-1]), True), (state, False)):
        _, pull = jax.vjp(lambda params, first=first: jaxrnn.unroll(cell, params, xs, first, path="native")[1], params)
        (found,) = pull(cts)
        assert not np.isfinite(found.w_x).all()
        assert np.isfinite(found.w_h).all() == finite


@needs_native
def test_what_no_cotangent_reaches_passes_none_on():
    """A root of parameters that are zero: zero times its derivative is no number."""

    def step(params, h, x):
        w, v = params
        v = v / jnp.linalg.norm(v, axis=0, keepdims=True)
        h = jnp.tanh(x @ w + h) + jnp.floor(h @ v)
        return h, (h, h @ v, x @ v, jnp.sqrt(h - h))

    cell = Function(
        step,
        lambda key, dtype: (jnp.ones((3, 3), dtype), jnp.zeros((3, 3), dtype)),
        lambda b, d: jnp.zeros((*b, 3), d),
        3,
    )
    params, xs, _ = example(cell)
    params = params[0], jnp.zeros((3, 3))

    def loss(params, path):
        return jnp.sum(jaxrnn.unroll(cell, params, xs, path=path)[1][0])

    program, expected = (jax.jit(functools.partial(jax.grad(loss), path=path)) for path in ("native", "scan"))
    assert np.isfinite(expected(params)[1]).all()
    for found in (program(params), export.export(program)(params).call(params)):  # which has the scan
        close(found, expected(params), 1e-6)


def kernels(program, *args):
    return [e.primitive.name for e in equations(jax.make_jaxpr(program)(*args).jaxpr)].count("run")


LARGE = WeightNorm(Stack((LSTM(16, 64), networks.Residual(GRU(64, 64, reset="before")))))


# A user's cell whose step calls another cell.
CALLING = Function(
    lambda params, state, x: LSTM(64, 64)(params, state, jnp.tanh(x)), LSTM(64, 64).init, LSTM(64, 64).initial_state, 64
)


@needs_native
def test_a_call_of_much_work_is_a_kernel_a_cell():
    """And a step that is a part of a run is none: what is around it decides."""

    def call(cell, **options):
        return lambda params, state, x: cell(params, state, x, **options)

    for cell, rows, found in ((LARGE, 128, 2), (LARGE, 7, 0), (LSTM(3, 4), 128, 0), (MLSTM(64, 64, 2), 128, 0)):
        params, xs, state = example(cell, steps=1, batch=(rows,))
        assert kernels(call(cell), params, state, xs[0]) == found
        assert kernels(call(cell, path="scan"), params, state, xs[0]) == 0
        choices = jaxrnn.explain(cell, steps=None, batch=rows)
        assert [choice.path for choice in choices].count("native") == found
        assert {choice.reason for choice in choices if choice.path == "scan"} <= {
            "fewer than 8 rows",
            "rows times parameters are fewer than 1048576",
            "it runs many steps at once",
        }
        asked = jaxrnn.explain(cell, steps=None, batch=rows, path="scan")
        assert [choice[1:] for choice in asked] == [("scan", "asked for")] * len(choices)
    for inside in (networks.Stepped(LARGE), CALLING):
        args = params, xs, state = example(inside, steps=4, batch=(128,))
        for path, found in (("scan", 0), ("native", 1)):
            assert kernels(functools.partial(jaxrnn.unroll, inside, path=path), *args) == found
            assert kernels(functools.partial(gradients, inside, path=path), args) == 2 * found
        assert kernels(call(inside), params, state, xs[0]) == 1
        # A choice for what is called, none for its parts.
        assert jaxrnn.explain(inside, steps=None, batch=128) == ((inside, "native", ""),)


def test_numbers_are_arrays_to_a_call():
    """Among the parameters, with few rows and with many, and as an input that has no axes."""
    scaled = Function(
        lambda params, h, x: 2 * (jnp.tanh(h * params[0] + x @ params[1]),),
        lambda key, dtype: (0.5, jnp.ones((64, 256), dtype)),
        lambda batch_shape, dtype: jnp.ones((*batch_shape, 256), dtype),
        64,
    )
    for rows in (2, 128):
        params, state, x = (0.5, np.ones((64, 256), np.float32)), np.ones((rows, 256), np.float32), np.ones((rows, 64))
        _, y = scaled(params, state, x.astype(np.float32))
        np.testing.assert_allclose(y, np.tanh(state * 0.5 + x @ params[1]), rtol=1e-6)
    counting = Function(
        lambda params, n, x: (n + params * x, n),
        lambda key, dtype: jnp.ones((), dtype),
        lambda batch_shape, dtype: jnp.zeros(batch_shape, dtype),
        jax.ShapeDtypeStruct((), jnp.float32),
    )
    assert counting(1.0, jnp.zeros(()), 1.5)[0] == 1.5


@needs_native
@pytest.mark.usefixtures("x64")
def test_calls_in_a_loop_are_the_scan():
    """Values and gradients, one after the other and under `vmap`, with rows that begin anew."""
    params, xs, state = example(LARGE, steps=3, batch=(128,), dtype=jnp.float64)
    resets = jnp.arange(3 * 128).reshape(3, 128) % 5 == 1

    def loss(run):
        def of(params, xs, state):
            final, ys = run(params, xs, state)
            return jnp.sum(ys**2) + sum(jnp.sum(leaf) for leaf in jax.tree.leaves(final))

        return jax.jit(jax.value_and_grad(of, (0, 1, 2)))

    def calls(params, xs, state):
        return jax.lax.scan(lambda s, new: LARGE(params, s, new[0], reset=new[1]), state, (xs, resets))

    expected = loss(lambda *args: jaxrnn.unroll(LARGE, *args, resets=resets, path="scan"))(params, xs, state)
    close(loss(calls)(params, xs, state), expected)
    two = jax.vmap(calls, (None, 2, 1))(
        params, jnp.stack([xs, xs], 2), jax.tree.map(lambda s: jnp.stack([s, s], 1), state)
    )
    close(jax.tree.map(lambda a: a[1], two), calls(params, xs, state))


@needs_native
def test_the_path_that_runs_is_explained():
    net = Stack((LSTM(3, 4), MLSTM(4, 4, 2)))
    first, second = jaxrnn.explain(net, steps=64, batch=2)
    assert str(first) == "LSTM(input_size=3, hidden_size=4): native"
    assert (second.path, second.cell) == ("scan", net.cells[1])
    assert second.reason == "it runs many steps at once"
    assert jaxrnn.explain(LSTM(256, 256), steps=2)[0].reason == "fewer than 4 row steps"
    assert jaxrnn.explain(LSTM(2, 2), steps=9, batch=16)[0].reason == "16 rows or more of 2 units or fewer"
    assert jaxrnn.explain(LSTM(2, 2), steps=9, batch=15)[0].path == "native"
    assert jaxrnn.explain(LSTM(256, 256), steps=2, path="native")[0].path == "native"
    assert jaxrnn.explain(LSTM(3, 4), steps=64, path="scan")[0].reason == "asked for"
    with pytest.raises(ValueError, match=r"path: got 'native', but MLSTM.* cannot take it: .*; use 'auto'"):
        jaxrnn.explain(net, steps=64, path="native")


@pytest.mark.usefixtures("without_kernels")
def test_without_the_native_path_all_runs_as_a_scan():
    assert jaxrnn.explain(LSTM(3, 4), steps=64)[0] == (LSTM(3, 4), "scan", "no LLVM")
    with pytest.raises(ValueError, match="cannot take it: no LLVM"):
        jaxrnn.explain(LSTM(3, 4), steps=64, path="native")


@needs_native
def test_rows_that_see_each_other_are_not_run_apart():
    cell = jaxrnn.BatchNormLSTM(3, 4, steps=64)
    params, xs, _ = example(cell, steps=64)
    with jaxrnn.engine.paths.recorded_choices() as choices:
        jax.eval_shape(lambda: networks.batch_unroll(cell, params, xs))
    assert [choice.reason for choice in choices] == ["its rows see each other"]


@dataclass(frozen=True)
class Mixing(Elman):
    """Its rows see each other, and it does not say so by `apart`."""

    mix: Any = None

    def step(self, params, state, drive):
        return super().step(params, ElmanState(self.mix(state.h)), drive)


@needs_native
@pytest.mark.parametrize(
    ("mix", "operation"),
    [
        (lambda h: h - jnp.repeat(h.mean(0)[None], len(h), 0), "reduce_sum"),
        (lambda h: jnp.cumsum(h, 0), "cumsum"),
        (lambda h: jnp.sort(h, 0), "sort"),
        (lambda h: jnp.concatenate([h[1:], h[:1]]), "slice"),
        (lambda h: jax.nn.relu(h).at[0].add(h[0]), "slice"),
        (lambda h: h @ (h.T @ h), "dot_general"),
        (lambda h: h + jax.random.normal(jax.random.key(0), h.shape), "random_bits"),
        (lambda h: h * jax.lax.broadcasted_iota(jnp.float32, h.shape, 0), "iota"),
        (lambda h: h / h.shape[0] ** 0.5, "how many there are"),
        (lambda h: h / h.ndim, "how many there are"),
    ],
)
def test_rows_that_see_each_other_unsaid_are_found_out(mix, operation):
    """A kernel would be wrong. Also where the operation is within a function of its own, as `relu`."""
    reason = jaxrnn.explain(Mixing(3, 4, mix=mix), steps=64)[0].reason
    assert reason == f"its rows see each other ({operation})"


@needs_native
@pytest.mark.parametrize(
    "alike",
    [
        lambda h: h / h.shape[-1] + jnp.zeros(h.shape) + jnp.broadcast_to(jnp.arange(4.0), h.shape),
        lambda h: jnp.where(jax.lax.broadcasted_iota(jnp.int32, h.shape, h.ndim - 1) < 2, h, jnp.ones_like(h)),
    ],
)
def test_what_is_alike_for_all_rows_is_no_mixing(alike):
    assert jaxrnn.explain(Mixing(3, 4, mix=alike), steps=64)[0].path == "native"


@dataclass(frozen=True)
class Leaking(Elman):
    """Its input or its output is changed by what sees several time steps."""

    ahead: Any = None
    after: Any = None
    apart = False

    def project(self, params, x):
        return super().project(params, self.ahead(x) if self.ahead else x)

    def readout(self, params, output, drive):
        return self.after(output) if self.after else output


@pytest.mark.parametrize(
    ("method", "mix", "operation"),
    [
        ("project", {"ahead": lambda x: x - x.mean(0, keepdims=True)}, "reduce_sum"),
        ("project", {"ahead": lambda x: jnp.cumsum(x, 0)}, "cumsum"),
        ("project", {"ahead": lambda x: x / x.shape[0]}, "how many there are"),
        ("readout", {"after": lambda y: jax.nn.softmax(y, 0)}, "reduce_max"),
    ],
)
def test_a_method_that_mixes_time_steps_is_refused(method, mix, operation):
    """It gets all of them at once, and one step in a call."""
    cell = Leaking(3, 4, **mix)
    params, xs, _ = example(cell, steps=5, batch=(2,))
    with pytest.raises(ValueError, match=rf"{method}: that of Leaking.* mixes time steps \({operation}\)"):
        jaxrnn.unroll(cell, params, xs)


@pytest.mark.parametrize(
    "ahead",
    [
        lambda x: x - x.mean(-2, keepdims=True),
        lambda x: jnp.sin(x.reshape(-1, 3)).reshape(x.shape),
        lambda x: x + np.zeros(x.shape, np.float32),
        lambda x: jax.lax.map(jnp.sin, x),
    ],
)
def test_a_method_that_takes_each_time_step_by_itself_is_not_refused(ahead):
    """Also one that joins axes and parts them again, as convolutions of Flax do, and means over the batch."""
    cell = Leaking(3, 4, ahead=ahead)
    params, xs, state = example(cell, steps=5, batch=(2,))
    expected = jax.lax.scan(functools.partial(cell, params), state, xs)
    close(jaxrnn.unroll(cell, params, xs, state), expected, 1e-6)


@needs_native
@pytest.mark.parametrize(
    ("mix", "operation"),
    [
        (lambda h: jax.lax.scan(lambda h, _: (jnp.sin(h), None), h, None, length=3)[0], "scan"),
        (lambda h: jax.lax.fori_loop(0, 3, lambda i, h: jnp.sin(h), h), "scan"),
        (lambda h: jax.lax.while_loop(lambda h: jnp.any(h > 1), lambda h: h / 2, h), "while"),
        (lambda h: jax.lax.cond(h[0, 0] > 0, jnp.sin, jnp.cos, h) if h.ndim > 1 else h, "cond"),
        (lambda h: jax.nn.relu(jax.lax.scan(lambda h, _: (h - h.mean(), None), h, None, length=3)[0]), "scan"),
    ],
)
def test_a_loop_within_a_step_is_named(mix, operation):
    """It runs as a scan; whether rows see each other within it is not looked at."""
    cell = Mixing(3, 4, mix=mix)
    choice = jaxrnn.explain(cell, steps=64)[0]
    assert choice == (cell, "scan", f"its step has a loop or a branch of its own ({operation})")
    with pytest.raises(ValueError, match=rf"cannot take it: its step has a loop .* \({operation}\); use 'auto'"):
        jaxrnn.explain(cell, steps=64, path="native")
    params, xs, _ = example(cell)
    assert jaxrnn.unroll(cell, params, xs)[1].shape == (len(xs), 2, 4)
