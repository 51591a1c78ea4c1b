"""The training loop: exact resume, interruption, damaged files, updates that are not finite, truncated BPTT."""

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrnn
from jaxrnn import training
from jaxrnn.training import NonFiniteError, checkpoints, fit, init_state, make_train_step, restore, restore_params
from tests.registry import rare, unrolled

T, B, I, H = 5, 2, 3, 4  # noqa: E741
NET = jaxrnn.Stack((jaxrnn.GRU(I, H), jaxrnn.LSTM(H, I)), dropout=0.5)
OPTIMIZER, KEY = optax.adam(1e-2), jax.random.key(0)


def loss_fn(params, carry, batch, key):
    carry, ys = jaxrnn.unroll(NET, params, batch, carry, key=key)
    return jnp.mean((ys - batch) ** 2), (carry, {"mean": jnp.mean(ys)})


TRACES = []


def counted(*args):
    TRACES.append(1)
    return loss_fn(*args)


@pytest.fixture(scope="module")
def train_step():
    return make_train_step(counted, OPTIMIZER)


def fresh(seed=0):
    return init_state(jax.random.key(1), NET.init(jax.random.key(seed)), OPTIMIZER, NET.initial_state((B,)))


def batches(start):
    return (np.random.default_rng(n).normal(size=(T, B, I)).astype(np.float32) for n in itertools.count(start))


def interrupted_at(number, interrupt=signal.SIGINT):
    """The batches, with Ctrl-C pressed, or another signal, while batch `number` is made."""

    def stream(start):
        for n, batch in zip(itertools.count(start), batches(start), strict=False):
            if n == number:
                signal.raise_signal(interrupt)
            yield batch

    return stream


@pytest.fixture(autouse=True)
def interruptible():
    """A job in the background ignores Ctrl-C, and `fit` leaves it at that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def run(state, train_step, batches=batches, steps=7, **options):
    options = {"evaluate": total, "eval_every": 3, "log_every": 2, "checkpoint_every": 3, "progress": False} | options
    return fit(state, train_step, batches, steps=steps, **options)


def total(params):
    return {"norm": optax.tree.norm(params)}


def lines(directory):
    """The metrics without the time they took."""
    read = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in read]


def files(directory):
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def assert_identical(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for (path, g), w in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True):
        if jnp.issubdtype(g.dtype, jax.dtypes.prng_key):
            g, w = jax.random.key_data(g), jax.random.key_data(w)
        assert g.dtype == w.dtype
        np.testing.assert_array_equal(g, w, err_msg=jax.tree_util.keystr(path))


@pytest.fixture(scope="module")
def whole(train_step, tmp_path_factory):
    """A run of seven steps that nothing interrupted: its state and its directory."""
    directory = tmp_path_factory.mktemp("whole")
    return run(fresh(), train_step, directory=directory), directory


def checkpoint(directory, step):
    return directory / "checkpoints" / str(step)


def damage(directory, step):
    """Cut every file of a checkpoint's arrays in two."""
    for path in (checkpoint(directory, step) / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# The step.


def squares(params, carry, batch, key):
    return jnp.sum((params - batch) ** 2), (carry, {"first": params[0]})


def test_the_step_is_the_formula_of_sgd():
    step = make_train_step(squares, optax.sgd(0.25))
    state, metrics = step(init_state(jax.random.key(0), jnp.array([1.0, 2.0]), optax.sgd(0.25)), jnp.array([4.0, 6.0]))
    np.testing.assert_array_equal(state.params, [2.5, 4.0])  # p - 0.25 * 2 (p - b)
    values = {name: float(value) for name, value in metrics.items()}
    assert values == {"first": 1.0, "loss": 25.0, "grad_norm": 10.0, "skipped": 0.0}


@pytest.mark.exhaustive
def test_one_trace_serves_all_batches_and_resumes(train_step, tmp_path):
    before = len(TRACES)
    run(fresh(), train_step, directory=tmp_path, steps=4)
    after = len(TRACES)
    assert after <= before + 1
    run(restore(tmp_path, fresh()), train_step, directory=tmp_path, steps=7)
    assert len(TRACES) == after


def test_weak_types_do_not_trace_again():
    traces = []

    def counted(params, carry, batch, key):
        traces.append(1)
        return params * batch, (carry + 1, {})

    optimizer = optax.sgd(1.0)
    step, state = make_train_step(counted, optimizer), init_state(jax.random.key(0), 1.0, optimizer, carry=0)
    for _ in range(3):
        state, _ = step(state, np.float32(1))
    assert len(traces) == 1
    assert int(state.carry) == 3


def test_the_state_is_donated_and_the_arguments_of_init_state_are_not(train_step):
    params, key, carry = NET.init(jax.random.key(0)), jax.random.key(1), NET.initial_state((B,))
    state = init_state(key, params, OPTIMIZER, carry)
    train_step(state, next(batches(0)))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((params, key, carry)))


def test_a_state_that_a_step_took_is_refused():
    step, state = make_train_step(squares, optax.sgd(0.25)), init_state(jax.random.key(0), jnp.ones(2), optax.sgd(0.25))
    kept = jax.tree.map(jnp.copy, state)
    after, _ = step(state, jnp.zeros(2))
    with pytest.raises(ValueError, match=r"state: got one that a train step took, .*jnp\.copy, state\) before"):
        step(state, jnp.zeros(2))
    again, _ = step(kept, jnp.zeros(2))
    np.testing.assert_array_equal(after.params, again.params)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: init_state(KEY, jaxrnn.GRU(3, 4), OPTIMIZER), r"params: got GRU\(.*, needs arrays, such as those of"),
        (lambda: init_state(KEY, {"w": "a"}, OPTIMIZER), r"params\['w'\]: got a str, needs an array"),
        (lambda: make_train_step(0.5, OPTIMIZER), r"loss_fn: got 0.5, needs a function \(params, carry, batch, key\)"),
        (
            lambda: make_train_step(squares, optax.adam(0.1))(
                init_state(KEY, jnp.ones(2), optax.sgd(0.1)), jnp.ones(2)
            ),
            r"state.opt_state: got the structure \(EmptyState\(\), .*, needs \(ScaleByAdamState.*of the train step",
        ),
        (
            lambda: make_train_step(squares, OPTIMIZER)(jnp.ones(2), jnp.ones(2)),
            "state: got ArrayImpl, needs a TrainState",
        ),
        (
            lambda: make_train_step(lambda params, batch: 0.0, OPTIMIZER),
            r"loss_fn: got <lambda>\(params, batch\), needs a function \(params, carry, batch, key\)",
        ),
        (lambda: training.triggered_average(0.5, every=1), "validate: got 0.5, needs a function of parameters"),
        (lambda: training.restore(None, None), "like: got NoneType, needs a TrainState"),
        (lambda: training.restore_params(None, {}), "directory: got NoneType, needs a path"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        call()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"train_step": None}, r"train_step: got None, needs a function \(state, batch\)"),
        (
            {"train_step": squares},
            r"train_step: got squares\(params, carry, batch, key\), needs a function \(state, batch\) -> "
            r"\(state, metrics\), as of make_train_step\(loss_fn, optimizer\)",
        ),
        ({"train_step": lambda state, batch: state}, r"train_step: got TrainState from it, needs \(state, metrics\)"),
        ({"batches": lambda start: 3.0}, "batches: got float from it, needs an iterator"),
        ({"evaluate": {"loss": 0.0}}, r"evaluate: got {'loss': 0.0}, needs a function of parameters"),
        ({"evaluate": lambda: {}}, r"evaluate: got <lambda>\(\), needs a function of parameters"),
        ({"batches": lambda: iter([1, 2])}, r"batches: got <lambda>\(\), needs a function of the number of the first"),
        ({"params_of": "params"}, "params_of: got 'params', needs a function of a state"),
        ({"directory": 3}, "directory: got int, needs a path"),
    ],
)
def test_mistakes_in_fit_are_named(bad, message):
    given = {"train_step": lambda state, batch: (state, {}), "batches": lambda start: iter([1, 2])} | bad
    with pytest.raises(TypeError, match=f"^{message}"):
        fit(init_state(KEY, 1.0, OPTIMIZER), steps=1, progress=False, **given)


def test_every_step_has_a_key_of_its_own():
    def draw(params, carry, batch, key):
        return params * 0.0, (carry, {"drawn": jax.random.uniform(key)})

    step, state = make_train_step(draw, optax.sgd(0.0)), init_state(jax.random.key(5), 1.0, optax.sgd(0.0))
    for n in range(3):
        state, metrics = step(state, None)
        assert metrics["drawn"] == jax.random.uniform(jax.random.fold_in(jax.random.key(5), n))


def test_an_optimizer_is_one_of_optax():
    for make in (lambda o: init_state(jax.random.key(0), 1.0, o), lambda o: make_train_step(None, o)):
        with pytest.raises(TypeError, match="optimizer: got str, needs one of Optax, such as"):
            make("adam")


def test_a_state_needs_a_key():
    with pytest.raises(TypeError, match="key: got 0, needs a key"):
        init_state(0, 1.0, optax.sgd(0.0))


def test_lbfgs_gets_what_its_line_search_needs():
    step = make_train_step(squares, optax.lbfgs())
    state = init_state(jax.random.key(0), jnp.zeros(3), optax.lbfgs())
    for _ in range(3):
        state, _ = step(state, jnp.arange(3.0))
    np.testing.assert_allclose(state.params, jnp.arange(3.0), atol=1e-6)


def test_gradients_stop_at_the_window_and_values_do_not():
    cell = jaxrnn.GRU(I, H)
    params = cell.init(jax.random.key(0))
    xs = jax.random.normal(jax.random.key(1), (2 * T, B, I))

    def loss(params, carry, batch, key):
        carry, ys = jaxrnn.unroll(cell, params, batch, carry)
        return jnp.sum(ys**2), (carry, {"y": ys[0, 0, 0]})

    optimizer = optax.sgd(1.0)
    step = make_train_step(loss, optimizer)
    state = init_state(jax.random.key(0), params, optimizer, cell.initial_state((B,)))
    state, _ = step(state, xs[:T])
    middle = jax.tree.map(jnp.copy, state)
    state, metrics = step(state, xs[T:])

    # One gradient of the second window with the first window's final state as a constant, and one through both.
    before, _ = unrolled(cell, params, xs[:T])
    np.testing.assert_allclose(middle.carry.h, before.h, rtol=1e-6)

    def second(params, carry):
        return jnp.sum(jaxrnn.unroll(cell, params, xs[T:], carry)[1] ** 2)

    def through(params):
        return second(params, jaxrnn.unroll(cell, params, xs[:T])[0])

    cut = jax.jit(jax.grad(second))(middle.params, middle.carry)
    np.testing.assert_allclose(middle.params.w_h - state.params.w_h, cut.w_h, rtol=1e-5, atol=1e-6)
    assert float(metrics["grad_norm"]) == pytest.approx(float(optax.tree.norm(cut)), rel=1e-5)
    assert np.max(np.abs(jax.jit(jax.grad(through))(middle.params).w_h - cut.w_h)) > 1e-2


def test_a_carry_of_another_shape_is_named():
    def loss(params, carry, batch, key):
        return params, ({"h": jnp.zeros((B, H + 1))}, {})

    state = init_state(jax.random.key(0), 1.0, OPTIMIZER, {"h": jnp.zeros((B, H))})
    with pytest.raises(
        ValueError, match=r"loss_fn: .*\['h'\]: got the shape \(2, 5\) of float32, needs the shape \(2, 4\)"
    ):
        make_train_step(loss, OPTIMIZER)(state, None)


def test_a_metric_that_is_no_scalar_is_named():
    def loss(params, carry, batch, key):
        return params, (carry, {"good": params, "v": jnp.ones(3)})

    state = init_state(jax.random.key(0), 1.0, OPTIMIZER)
    with pytest.raises(ValueError, match=r"loss_fn: got the metric 'v' of the shape \(3,\), needs a scalar"):
        make_train_step(loss, OPTIMIZER)(state, None)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda p, c: p, r"loss_fn: got array, needs \(loss, \(carry, metrics\)\)"),
        (lambda p, c: (p, {"a": p}), r"loss_fn: got \(array, dict\), needs \(loss, \(carry, metrics\)\)"),
        (lambda p, c: (p, c), r"loss_fn: got \(array, GRUState\), needs \(loss, \(carry, metrics\)\)"),
        (lambda p, c: (p, (c, c.h)), r"loss_fn: got \(array, \(GRUState, array\)\), needs"),
        (lambda p, c: (p, c, {}), r"loss_fn: got \(array, GRUState, dict\), needs"),
        (lambda p, c: (p[None], (c, {})), r"loss_fn: got a loss of the shape \(1,\) of float32, needs a real scalar"),
        (lambda p, c: (1, (c, {})), r"loss_fn: got a loss of the shape \(\) of int32, needs a real scalar"),
    ],
)
def test_a_loss_function_of_another_form_is_named(result, message):
    step = make_train_step(lambda params, carry, batch, key: result(params, carry), OPTIMIZER)
    with pytest.raises(TypeError, match=message):
        step(init_state(jax.random.key(0), 1.0, OPTIMIZER, jaxrnn.cells.GRUState(jnp.zeros(2))), None)


@pytest.mark.parametrize("name", ["step", "seconds", "loss", "grad_norm", "skipped", "eval_norm", 3])
def test_names_of_metrics_that_are_taken(name, tmp_path):
    step = make_train_step(lambda params, carry, batch, key: (params, (carry, {name: params})), OPTIMIZER)
    with pytest.raises(ValueError, match=rf"loss_fn: got a metric named {name!r}, needs another name; step, seconds"):
        step(init_state(jax.random.key(0), 1.0, OPTIMIZER), None)


def test_names_of_metrics_that_are_taken_in_a_step_of_ones_own(train_step):
    def step(state, batch):
        state, metrics = train_step(state, batch)
        return state, metrics | {"seconds": 3.0}

    with pytest.raises(ValueError, match="train_step: got a metric named 'seconds', needs another name; step, seconds"):
        run(fresh(), step)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.5, "evaluate: got float, needs a dict of numbers"),
        ((0.5, 0.25), r"evaluate: got \(float, float\), needs a dict of numbers"),
        ({"loss": np.ones(3)}, r"evaluate: got 'loss' of the shape \(3,\) of float64, needs a dict of numbers"),
        ({"loss": "low"}, r"evaluate: got 'loss' of the shape \(\) of <U3, needs a dict of numbers"),
    ],
)
def test_an_evaluation_of_another_form_is_named(train_step, value, message):
    with pytest.raises(TypeError, match=message):
        run(fresh(), train_step, evaluate=lambda params: value)


# Updates that are not finite.


def test_an_update_that_is_not_finite_changes_only_the_counts(train_step):
    state, _ = train_step(fresh(), next(batches(0)))
    before = jax.tree.map(jnp.copy, state)
    bad = next(batches(1))
    bad[2, 0, 1] = np.nan
    state, metrics = train_step(state, bad)
    assert np.isnan(metrics["loss"])
    assert (int(state.step), int(state.skipped), int(state.skipped_in_a_row)) == (2, 1, 1)
    assert_identical(state[1:5], before[1:5])
    state, metrics = train_step(state, next(batches(2)))
    assert (int(state.step), int(state.skipped), int(state.skipped_in_a_row)) == (3, 1, 0)
    assert np.isfinite(metrics["loss"])
    assert not np.array_equal(state.params[0].w_h, before.params[0].w_h)


def test_an_infinite_gradient_of_a_finite_loss_is_skipped():
    def loss(params, carry, batch, key):
        return jnp.sqrt(params - batch), (carry, {})

    step, state = make_train_step(loss, OPTIMIZER), init_state(jax.random.key(0), 1.0, OPTIMIZER)
    state, metrics = step(state, np.float32(1))
    assert float(metrics["loss"]) == 0
    assert int(state.skipped) == 1
    assert float(state.params) == 1


def test_what_only_the_carry_sees_spoils_the_update_too():
    def loss(params, carry, batch, key):
        return (params - 1) ** 2, ({"h": carry["h"] + batch, "most": jnp.maximum(carry["most"], batch)}, {})

    carry = {"h": jnp.zeros(2), "most": jnp.full(2, -jnp.inf)}
    step, state = make_train_step(loss, OPTIMIZER), init_state(jax.random.key(0), 0.0, OPTIMIZER, carry)
    state, metrics = step(state, np.float32([1, np.nan]))
    assert np.isfinite([float(metrics["loss"]), float(metrics["grad_norm"])]).all()
    assert (int(state.skipped), float(state.params)) == (1, 0.0)
    np.testing.assert_array_equal(state.carry["h"], [0, 0])
    state, _ = step(state, np.float32([1, 2]))
    assert (int(state.skipped), int(state.skipped_in_a_row)) == (1, 0)
    np.testing.assert_array_equal(state.carry["h"], [1, 2])
    np.testing.assert_array_equal(state.carry["most"], [1, 2])  # it was infinite, which is no fault


@pytest.mark.parametrize("where", ["params", "opt_state"])
def test_what_only_the_optimizer_sees_spoils_the_update_too(where):
    """A step so wide that the parameter is infinite, or a second moment that runs over."""

    def loss(params, carry, batch, key):
        return params * batch, (carry, {})

    optimizer = optax.sgd(np.inf) if where == "params" else optax.adam(1e-2)
    start = np.float16(1) if where == "opt_state" else np.float32(1)
    state = init_state(jax.random.key(0), start, optimizer)
    state, _ = make_train_step(loss, optimizer)(state, np.float16(1000))
    assert (int(state.skipped), float(state.params)) == (1, 1.0)


def test_the_norm_of_float16_gradients_is_float32():
    def loss(params, carry, batch, key):
        return jnp.sum(params * batch), (carry, {})

    optimizer = optax.sgd(2.0**-10)
    state = init_state(jax.random.key(0), jnp.zeros(4, jnp.float16), optimizer)
    state, metrics = make_train_step(loss, optimizer)(state, jnp.full(4, 1024, jnp.float16))
    assert (float(metrics["grad_norm"]), metrics["grad_norm"].dtype) == (2048.0, jnp.float32)
    assert int(state.skipped) == 0
    np.testing.assert_array_equal(state.params, np.full(4, -1))


def test_optimizers_whose_state_starts_infinite():
    def loss(params, carry, batch, key):
        return (params - 3) ** 2, (carry, {})

    optimizer = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau())
    step, state = make_train_step(loss, optimizer), init_state(jax.random.key(0), 0.0, optimizer)
    for _ in range(3):
        state, _ = step(state, None)
    assert (int(state.skipped), float(state.params) > 1) == (0, True)


def test_too_many_in_a_row_stop_the_run_and_leave_the_last_good_checkpoint(train_step, tmp_path):
    def spoiled(start):
        return (batch * np.float32(np.nan if n >= 4 else 1) for n, batch in zip(itertools.count(start), batches(start)))

    with pytest.raises(
        NonFiniteError,
        match=rf"last 4 updates, up to step 8.* max_skipped is 3\. The last checkpoint in {tmp_path} is 6;",
    ):
        run(fresh(), train_step, spoiled, steps=20, directory=tmp_path, log_every=4, checkpoint_every=3, max_skipped=3)
    # Step 6 was saved with two skipped updates behind it, and the same parameters as after step 4.
    state = restore(tmp_path, fresh())
    good = run(fresh(), train_step, steps=4)
    assert (int(state.step), int(state.skipped)) == (6, 2)
    assert_identical(state.params, good.params)
    last = lines(tmp_path)[-1]
    assert (last["step"], last["loss"], last["skipped"]) == (8, None, 4)


def test_a_few_are_counted_and_the_run_goes_on(train_step, tmp_path):
    def spoiled(start):
        return (batch * np.float32(np.nan if n % 2 else 1) for n, batch in zip(itertools.count(start), batches(start)))

    state = run(fresh(), train_step, spoiled, steps=6, max_skipped=2)
    assert (int(state.step), int(state.skipped)) == (6, 3)


# Exact resume.


def test_what_a_run_writes(whole):
    state, directory = whole
    assert int(state.step) == 7
    read = lines(directory)
    assert [line["step"] for line in read] == [2, 3, 4, 6, 7]
    assert [set(line) for line in read[:2]] == [
        {"step", "mean", "loss", "grad_norm", "skipped"},
        {"step", "mean", "loss", "grad_norm", "skipped", "eval_norm"},
    ]
    assert read[-1]["eval_norm"] == pytest.approx(float(optax.tree.norm(state.params)), rel=1e-6)
    assert sorted(int(path.name) for path in (directory / "checkpoints").iterdir()) == [3, 6, 7]
    assert_identical(restore(directory, fresh(seed=9)), state)


@pytest.mark.parametrize("interrupt", [signal.SIGTERM, *rare(signal.SIGINT)])
@pytest.mark.parametrize("number", [0, 4])
def test_a_signal_saves_and_the_resumed_run_equals_one_that_was_not_interrupted(
    train_step, whole, tmp_path, number, interrupt
):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    says = rf"{interrupt.name} stopped it after step {number + 1} of 7\. .* in {tmp_path} is {number + 1}; .*restore\("
    with pytest.raises(KeyboardInterrupt, match=says):
        run(fresh(), train_step, interrupted_at(number, interrupt), directory=tmp_path)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    state = restore(tmp_path, fresh(seed=9))
    assert int(state.step) == number + 1
    assert_identical(run(state, train_step, directory=tmp_path), whole[0])
    assert lines(tmp_path) == lines(whole[1])


def test_a_signal_in_the_last_step_is_not_swallowed(train_step, whole, tmp_path):
    with pytest.raises(KeyboardInterrupt, match="after step 7 of 7"):
        run(fresh(), train_step, interrupted_at(6), directory=tmp_path)
    assert_identical(restore(tmp_path, fresh()), whole[0])


def test_a_second_ctrl_c_acts_at_once(train_step, tmp_path):
    def stream(start):
        yield next(batches(start))
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        run(fresh(), train_step, stream, directory=tmp_path)


@pytest.mark.parametrize("ignored", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_is_ignored_stays_so(train_step, ignored):
    before = signal.signal(ignored, signal.SIG_IGN)
    try:
        assert int(run(fresh(), train_step, interrupted_at(1, ignored), steps=3).step) == 3
        assert signal.getsignal(ignored) == signal.SIG_IGN
    finally:
        signal.signal(ignored, before)


class Signalling:
    """A count that presses Ctrl-C when it is read."""

    def __int__(self):
        signal.raise_signal(signal.SIGINT)
        return 0


def test_a_signal_after_the_look_for_one_ends_the_next_step(train_step, tmp_path):
    def late(state, batch):
        taken, metrics = train_step(state._replace(skipped_in_a_row=jnp.int32(0)), batch)
        return taken._replace(skipped_in_a_row=Signalling()) if int(taken.step) == 2 else taken, metrics

    with pytest.raises(KeyboardInterrupt, match=rf"after step 3 of 7\. .* in {tmp_path} is 3; to go on"):
        run(fresh(), late, directory=tmp_path, evaluate=None, checkpoint_every=100)
    assert int(restore(tmp_path, fresh()).step) == 3


def test_a_signal_while_the_last_step_is_saved_is_not_swallowed(train_step, tmp_path, monkeypatch):
    save = checkpoints.Run.save
    monkeypatch.setattr(checkpoints.Run, "save", lambda *args: (save(*args), signal.raise_signal(signal.SIGINT)))
    with pytest.raises(KeyboardInterrupt, match="after step 7 of 7"):
        run(fresh(), train_step, directory=tmp_path, checkpoint_every=100)


def test_a_run_that_was_killed_resumes_from_its_last_checkpoint(train_step, whole, tmp_path):
    def killed(start):
        yield from itertools.islice(batches(start), 5)
        shutil.copytree(tmp_path / "run", tmp_path, dirs_exist_ok=True)
        yield from batches(start + 5)

    run(fresh(), train_step, killed, directory=tmp_path / "run")
    with (tmp_path / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 5, "secon')  # cut off while it was written
    assert [line["step"] for line in lines_that_parse(tmp_path)] == [2, 3, 4]
    state = restore(tmp_path, fresh())
    assert int(state.step) == 3
    assert_identical(run(state, train_step, directory=tmp_path), whole[0])
    assert lines(tmp_path) == lines(whole[1])


@pytest.mark.parametrize("ends", [True, False])
def test_data_that_ends_early_leaves_a_checkpoint_of_the_last_step(train_step, whole, tmp_path, ends):
    def stream(start):
        yield from itertools.islice(batches(start), 5)
        if not ends:
            raise OSError("the disk is gone")

    says = rf"The last checkpoint in {tmp_path} is 5; .*restore\("
    if ends:
        with pytest.raises(ValueError, match=rf"batches: ended after number 5, needs 7 \(steps\)\. {says}"):
            run(fresh(), train_step, stream, directory=tmp_path)
    else:
        with pytest.raises(OSError, match="the disk is gone") as error:
            run(fresh(), train_step, stream, directory=tmp_path)
        assert re.match(says, error.value.__notes__[0])
    assert_identical(run(restore(tmp_path, fresh()), train_step, directory=tmp_path), whole[0])
    assert lines(tmp_path) == lines(whole[1])


def test_an_evaluation_that_fails_leaves_a_checkpoint_of_its_step(train_step, whole, tmp_path):
    with pytest.raises(TypeError, match="evaluate: got float"):
        run(fresh(), train_step, directory=tmp_path, evaluate=lambda params: 0.5, checkpoint_every=100)
    assert int(restore(tmp_path, fresh()).step) == 3


@pytest.mark.parametrize("saved", [3, None])
def test_a_checkpoint_that_cannot_be_written_says_which_is_the_last(train_step, tmp_path, monkeypatch, saved):
    write = checkpoints.ocp.CheckpointManager.save

    def full(manager, step, *args, **options):
        if step == saved:
            return write(manager, step, *args, **options)
        raise OSError("no space left on the device")

    monkeypatch.setattr(checkpoints.ocp.CheckpointManager, "save", full)
    with pytest.raises(OSError, match="no space left") as error:
        run(fresh(), train_step, directory=tmp_path)
    assert error.value.__context__ is None
    says = f"The last checkpoint in {tmp_path} is 3" if saved else f"No checkpoint was saved in {tmp_path}"
    assert error.value.__notes__[0].startswith(says)


def test_no_checkpoint_before_the_first_step(train_step, tmp_path):
    with pytest.raises(ValueError, match=r"batches: ended after number 0, needs 7 .* No checkpoint was saved in"):
        run(fresh(), train_step, lambda start: iter(()), directory=tmp_path)
    assert not list((tmp_path / "checkpoints").iterdir())


def lines_that_parse(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines() if line.endswith("}")]


def test_a_finished_run_goes_on_in_its_directory(train_step, tmp_path):
    state = run(fresh(), train_step, steps=3, directory=tmp_path)
    state = run(state, train_step, steps=7, directory=tmp_path)
    assert_identical(state, run(fresh(), train_step))


def test_typed_keys_and_empty_arrays_in_the_state_come_back(tmp_path):
    def loss(params, carry, batch, key):
        noise = jax.random.normal(carry["key"])
        return (params["w"] - noise) ** 2, (carry | {"key": jax.random.split(carry["key"])[0]}, {})

    def start():
        params = {"w": jnp.float32(0), "none/of it": jnp.zeros((0, 3))}
        return init_state(jax.random.key(0), params, OPTIMIZER, {"key": jax.random.key(1, impl="rbg")})

    step = make_train_step(loss, OPTIMIZER)
    state = run(start(), step, lambda start: itertools.repeat(None), steps=3, directory=tmp_path, evaluate=None)
    assert_identical(restore(tmp_path, start()), state)
    assert jax.random.key_impl(state.carry["key"]) == jax.random.key_impl(jax.random.key(1, impl="rbg"))
    # `fit` takes the buffers of what `restore` gives, and never those of `like`.
    like = start()
    for new_carry in (False, True):
        going_on = restore(tmp_path, like, new_carry=new_carry)
        run(going_on, step, lambda start: itertools.repeat(None), steps=4, evaluate=None)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(like))


# What cannot go on.


def test_a_fresh_state_does_not_overwrite_a_run(train_step, whole):
    before = files(whole[1])
    with pytest.raises(
        ValueError, match=r"directory: .* up to step 7, the state stands at step 0; .*restore\(directory"
    ):
        run(fresh(), train_step, directory=whole[1])
    assert files(whole[1]) == before


@pytest.mark.parametrize("make", [lambda path: path / "none", lambda path: path])
def test_nothing_to_restore(tmp_path, make):
    with pytest.raises(FileNotFoundError, match=r"directory: got .*, which has no checkpoints"):
        restore(make(tmp_path), fresh())
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_model_names_the_array(whole):
    before = files(whole[1])
    net = jaxrnn.Stack((jaxrnn.GRU(I, H), jaxrnn.LSTM(H, I + 1)))
    other = init_state(jax.random.key(1), net.init(jax.random.key(0)), OPTIMIZER, NET.initial_state((B,)))
    with pytest.raises(
        ValueError, match=r"\.params\[1\]\.w_x: got the shape \(4, 12\) of float32, needs the shape \(4, 16\)"
    ):
        restore(whole[1], other)
    lower = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), NET.init(jax.random.key(0)))
    half = init_state(jax.random.key(1), lower, OPTIMIZER, NET.initial_state((B,)))
    with pytest.raises(ValueError, match=r"\.params\[0\]\.w_x: got .* of float32, needs .* of bfloat16"):
        restore(whole[1], half)
    sgd = init_state(jax.random.key(1), NET.init(jax.random.key(0)), optax.sgd(1e-2), NET.initial_state((B,)))
    with pytest.raises(ValueError, match=r"\.opt_state\[0\]\.count: got the shape \(\) of int32, needs nothing"):
        restore(whole[1], sgd)
    deeper = init_state(
        jax.random.key(1), (*NET.init(jax.random.key(0)), jnp.zeros(3)), OPTIMIZER, NET.initial_state((B,))
    )
    with pytest.raises(ValueError, match=r"\.params\[2\]: got nothing, needs the shape \(3,\)"):
        restore(whole[1], deeper)
    with pytest.raises(ValueError, match=r"\.params\[1\]\.w_x: got the shape \(4, 12\) of float32, needs the shape"):
        restore_params(whole[1], net.init(jax.random.key(0)))
    assert files(whole[1]) == before


def test_parameters_alone_need_neither_optimizer_nor_carry(whole):
    state, directory = whole
    assert_identical(restore_params(directory, NET.init(jax.random.key(9))), state.params)
    read = restore_params(directory, jax.tree.map(np.asarray, state.params))
    assert_identical(read, state.params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(read))
    with pytest.raises(FileNotFoundError, match=r"directory: got .*, which has no checkpoints"):
        restore_params(directory / "none", state.params)
    with pytest.raises(FileNotFoundError, match="needs one that fit wrote to, the folder in which checkpoints/ is"):
        restore_params(directory / "checkpoints", state.params)
    with pytest.raises(TypeError, match="like: got a TrainState, needs parameters, such as its params; restore takes"):
        restore_params(directory, state)
    with pytest.raises(TypeError, match="like: got tuple, needs a TrainState; restore_params takes and gives"):
        restore(directory, state.params)


def test_a_damaged_checkpoint_is_named_with_the_newest_intact_one(train_step, tmp_path):
    run(fresh(), train_step, directory=tmp_path)
    damage(tmp_path, 7)
    before = files(tmp_path)
    with pytest.raises(
        ValueError,
        match=rf"the checkpoint {checkpoint(tmp_path, 7)} is damaged \(.*; {checkpoint(tmp_path, 6)} is intact: move",
    ):
        restore(tmp_path, fresh())
    damage(tmp_path, 6)
    with pytest.raises(ValueError, match=rf"is damaged.*; {checkpoint(tmp_path, 3)} is intact"):
        restore(tmp_path, fresh())
    damage(tmp_path, 3)
    with pytest.raises(ValueError, match=r"is damaged \(.*; no other there is intact"):
        restore(tmp_path, fresh())
    assert files(tmp_path).keys() == before.keys()


def test_a_damaged_checkpoint_moved_away_leaves_a_run_that_goes_on(train_step, whole, tmp_path):
    run(fresh(), train_step, directory=tmp_path)
    damage(tmp_path, 7)
    checkpoint(tmp_path, 7).rename(tmp_path / "damaged")
    state = restore(tmp_path, fresh())
    assert int(state.step) == 6
    assert_identical(run(state, train_step, directory=tmp_path), whole[0])
    assert lines(tmp_path) == lines(whole[1])


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of TensorStore, which goes on reading
def test_a_single_changed_byte_in_any_file_changes_no_value(whole, tmp_path):
    source, noticed = checkpoint(whole[1], 7), set()
    for path in (path for path in source.rglob("*") if path.is_file() and path.stat().st_size):
        copy(source, checkpoint(tmp_path, 7))
        changed = bytearray(path.read_bytes())
        changed[len(changed) // 2] ^= 1
        (checkpoint(tmp_path, 7) / path.relative_to(source)).write_bytes(changed)
        try:
            assert_identical(restore(tmp_path, fresh()), whole[0])
        except ValueError as error:
            assert "7 is damaged" in str(error)  # noqa: PT017
            noticed.add(path.relative_to(source).parts[0])
    assert noticed == {"state", "about"}
    copy(source, checkpoint(tmp_path, 7))
    assert_identical(restore(tmp_path, fresh()), whole[0])


def test_changed_values_are_noticed(train_step, tmp_path, monkeypatch):
    """Where Orbax reads them without a word."""
    state = run(fresh(), train_step, directory=tmp_path, steps=2)
    monkeypatch.setattr(checkpoints, "_digest", lambda array: "another")
    with pytest.raises(ValueError, match=r"2 is damaged \(the values of \.\S+ have changed\)"):
        restore(tmp_path, state)


def copy(source: Path, target: Path):
    for path in source.rglob("*"):
        if path.is_file():
            there = target / path.relative_to(source)
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(path.read_bytes())


# Killed at any moment.


LISTENING = []


def listen(event, arguments):
    """Calls the listener before each change of a file's name, place or content that Python makes."""
    if event in ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree"):
        with contextlib.suppress(IndexError):  # nobody listens, or another thread's event is being looked at
            listener = LISTENING.pop()
            listener()
            LISTENING.append(listener)


@pytest.mark.exhaustive
def test_a_run_killed_at_any_moment_goes_on_from_a_finished_checkpoint(train_step, whole, tmp_path):
    """What stands on the disk before each operation on a file is what a kill there leaves, and what a reader sees."""
    directory, seen, number = tmp_path / "run", {}, itertools.count()

    def look():
        there = tmp_path / "killed" / str(next(number))
        with contextlib.suppress(shutil.Error):  # a file of an unfinished checkpoint that another thread took away
            shutil.copytree(directory, there)
        seen[frozenset(path.relative_to(there) for path in there.rglob("*"))] = there

    def stream(start):
        for n, batch in zip(itertools.count(start), batches(start), strict=False):
            if n == 6:
                LISTENING.append(look)
            yield batch

    sys.addaudithook(listen)
    try:
        run(fresh(), train_step, stream, directory=directory, checkpoint_every=2)  # and 2 is deleted after 7
    finally:
        LISTENING.clear()
    steps = [int(restore(there, fresh()).step) for there in seen.values()]
    assert sorted(set(steps)) == [6, 7]
    unfinished = [there for there in seen.values() if any((there / "checkpoints").glob("7*tmp*"))]
    assert len(unfinished) > 3
    last = unfinished[-1]
    assert_identical(run(restore(last, fresh()), train_step, directory=last), whole[0])
    assert lines(last) == lines(whole[1])
    assert not any((last / "checkpoints").glob("*tmp*"))


def test_a_second_run_in_a_directory_is_refused_with_the_first_ones_process(train_step, tmp_path):
    pid = os.getpid()

    def stream(start):
        yield next(batches(start))
        with pytest.raises(ValueError, match=rf"directory: got {tmp_path}, where another fit writes \(process {pid}\)"):
            run(fresh(), train_step, directory=tmp_path)
        yield next(batches(start + 1))

    run(fresh(), train_step, stream, directory=tmp_path, steps=2)
    assert [line["step"] for line in lines(tmp_path)] == [2]


def test_the_lock_of_a_process_that_is_gone_holds_nobody(train_step, tmp_path):
    hold = (
        "import fcntl, os, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print(os.getpid(), file=file, flush=True); print(flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold, tmp_path / "fit.lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    other.stdout.readline()
    with pytest.raises(ValueError, match=rf"another fit writes \(process {other.pid}\); needs its end"):
        run(fresh(), train_step, directory=tmp_path)
    other.kill()
    other.communicate()
    run(fresh(), train_step, directory=tmp_path, steps=1)


# The best checkpoint, and other choices.


def rising_and_falling(values):
    """An `evaluate` that gives these, one after the other."""
    left = iter(values)
    return lambda params: {"loss": next(left)}


@pytest.mark.exhaustive
def test_the_best_checkpoint_is_kept_beside_the_last_three(train_step, tmp_path):
    options = {"directory": tmp_path, "eval_every": 1, "checkpoint_every": 1, "best": "eval_loss"}
    run(fresh(), train_step, steps=2, **options, evaluate=rising_and_falling([3.0, 1.0]))
    want = restore(tmp_path, fresh())
    state = run(
        restore(tmp_path, fresh()),
        train_step,
        steps=5,
        **options,
        evaluate=rising_and_falling([2.0, 1.0, float("nan")]),
    )
    state = run(state, train_step, steps=7, **options, evaluate=rising_and_falling([4.0, 1.5]))
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [2, 5, 6, 7]
    assert_identical(restore(tmp_path, fresh(), step="best"), want)
    assert_identical(restore_params(tmp_path, fresh().params, step="best"), want.params)
    assert_identical(restore(tmp_path, fresh()), state)
    assert int(restore(tmp_path, fresh(), step=6).step) == 6
    state = run(restore(tmp_path, fresh()), train_step, steps=8, **options, evaluate=rising_and_falling([0.5]))
    assert_identical(restore(tmp_path, fresh(), step="best"), state)
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [6, 7, 8]


def test_a_better_evaluation_is_saved_where_no_checkpoint_is_due(train_step, tmp_path):
    options = {"eval_every": 1, "checkpoint_every": 100, "best": "eval_loss", "best_mode": "max"}
    run(
        fresh(),
        train_step,
        steps=5,
        directory=tmp_path,
        **options,
        evaluate=rising_and_falling([1.0, 3.0, 2.0, 3.0, 0.0]),
    )
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [1, 2, 5]
    assert int(restore(tmp_path, fresh(), step="best").step) == 2


def test_choices_that_are_not_there(train_step, whole, tmp_path):
    with pytest.raises(ValueError, match=r"step: got 5, needs 'newest', 'best' or one of \[3, 6, 7\], which .* holds"):
        restore(whole[1], fresh(), step=5)
    with pytest.raises(ValueError, match=r"step: got 'best', .* holds no best checkpoint, needs fit\(\.\.\., best="):
        restore(whole[1], fresh(), step="best")
    with pytest.raises(ValueError, match="best: got 'eval_los', needs one of 'eval_norm'"):
        run(fresh(), train_step, directory=tmp_path, best="eval_los")
    with pytest.raises(ValueError, match="best: got 'eval_norm', needs one of those that evaluate gives, here none"):
        run(fresh(), train_step, directory=tmp_path / "other", best="eval_norm", evaluate=lambda params: {})
    with pytest.raises(ValueError, match="best: got 'eval_norm', needs evaluate, which gives it, and directory"):
        run(fresh(), train_step, best="eval_norm")
    with pytest.raises(ValueError, match="best_mode: got 'least', needs one of 'min', 'max'"):
        run(fresh(), train_step, best_mode="least")


@pytest.mark.exhaustive
def test_a_run_goes_on_with_another_batch_size(train_step, tmp_path):
    state = run(fresh(), train_step, steps=2, directory=tmp_path)
    like = init_state(jax.random.key(1), fresh().params, OPTIMIZER, NET.initial_state((B + 1,)))
    with pytest.raises(ValueError, match=r"\.carry.*got the shape \(2, 4\).*restore\(\.\.\., new_carry=True\)"):
        restore(tmp_path, like)
    wider = restore(tmp_path, like, new_carry=True)
    assert_identical(wider.carry, like.carry)
    assert_identical(wider._replace(carry=()), state._replace(carry=()))

    def wider_batches(start):
        return (np.concatenate([batch, batch[:, :1]], axis=1) for batch in batches(start))

    assert int(run(wider, train_step, wider_batches, steps=4, directory=tmp_path).step) == 4
    assert not jax.tree.leaves(like.carry)[0].is_deleted()


def test_a_directory_with_metrics_of_something_else(train_step, tmp_path):
    for line in ("[1, 2]", '{"loss": 3}', '{"step": "one", "seconds": 2}'):
        (tmp_path / "metrics.jsonl").write_text(line + "\n")
        with pytest.raises(ValueError, match=r"directory: got .*metrics\.jsonl, which fit did not write \(it holds"):
            run(fresh(), train_step, directory=tmp_path)
        assert (tmp_path / "metrics.jsonl").read_text() == line + "\n"


def test_a_relative_directory_stays_where_it_was(train_step, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    def evaluate(params):
        os.chdir(tmp_path / "elsewhere")
        return {}

    run(fresh(), train_step, directory="run", evaluate=evaluate)
    assert [line["step"] for line in lines(tmp_path / "run")] == [2, 3, 4, 6, 7]
    assert not list((tmp_path / "elsewhere").iterdir())


def test_bad_arguments(train_step):
    with pytest.raises(ValueError, match="log_every: got 0, needs a positive integer"):
        run(fresh(), train_step, log_every=0)
    with pytest.raises(TypeError, match=r"batches: got generator, needs a function .*, as .* lambda start:"):
        run(fresh(), train_step, batches(0))
    with pytest.raises(TypeError, match=r"state: got tuple, needs a TrainState, init_state\(key, params, optimizer\)"):
        run(tuple(fresh()), train_step)
    with pytest.raises(TypeError, match=r"state: got tuple, needs a TrainState"):
        train_step(fresh().params, next(batches(0)))
    with pytest.raises(ValueError, match="batches: ended after number 2, needs 7"):
        run(fresh(), train_step, lambda start: itertools.islice(batches(0), start, 2))


def test_a_state_is_used_once(train_step):
    state = fresh()
    assert int(run(state, train_step, steps=2, evaluate=None).step) == 2
    with pytest.raises(ValueError, match="state: got one that a train step took, needs the state that came back from"):
        run(state, train_step)


def many(params):
    return {f"of_what_is_measured_{n}": 1 / 3 for n in range(9)}


def test_progress_without_a_terminal_is_a_line_wherever_something_is_logged(train_step, capsys):
    run(fresh(), train_step, progress=True, items_per_batch=10, unit="rows")
    shown = capsys.readouterr().out.splitlines()
    assert [line.split("/")[0] for line in shown] == ["2", "3", "4", "6", "7"]
    assert len({re.search(r"loss (\S+)", line)[1] for line in shown}) == 5  # each step's own
    assert all(re.fullmatch(rf"{n}/7  rows/s [\d,]+  loss \d\.\d+", shown[i]) for i, n in ((0, 2), (2, 4)))
    assert re.fullmatch(r"7/7  rows/s [\d,]+  loss \d\.\d+  eval_norm \d\.\d+", shown[-1])
    run(fresh(), train_step, progress=False)
    assert not capsys.readouterr().out


def test_progress_in_a_terminal_of_80_columns_cuts_the_metrics_first(train_step, capsys, monkeypatch):
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    run(fresh(), train_step, progress=True, evaluate=many)
    last = re.sub(r"\x1b\[[\d;?]*\w", "", capsys.readouterr().out).replace("\r", "\n").strip().splitlines()[-1]
    assert re.fullmatch(r"━{20} 7/7 batches/s \S+  loss \d\.\d+\s+eval_of_w\S*… 0:00:00", last)
    assert len(last) <= 80
