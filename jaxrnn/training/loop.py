"""Train steps, and the loop that runs them."""

import contextlib
import operator
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrnn.checks import check_choice, check_key, check_sizes
from jaxrnn.training.checkpoints import Run, Which, difference, load, named, open_run
from jaxrnn.training.progress import interrupts, show_progress
from jaxrnn.typing import Array, Key, Params, PyTree

__all__ = ["NonFiniteError", "TrainState", "fit", "init_state", "make_train_step", "restore", "restore_params"]

Batch = PyTree
Metrics = dict[str, Any]
LossFn = Callable[[Params, PyTree, Batch, Key], tuple[Array, tuple[PyTree, Metrics]]]
TrainStep = Callable[["TrainState", Batch], tuple["TrainState", Metrics]]


FIT_METRICS, STEP_METRICS = ("step", "seconds"), ("loss", "grad_norm", "skipped")


class NonFiniteError(FloatingPointError):
    """Too many updates in a row were not finite."""


class TrainState(NamedTuple):
    """Everything that the next step depends on, and so everything a checkpoint holds."""

    step: Array  # [] int32, batches seen: the position in the data
    params: Params
    opt_state: PyTree
    key: Key  # never changes; a step's own key is `fold_in(key, step)`
    carry: PyTree  # recurrent state that crosses windows; () without
    skipped: Array  # [] int32, total skipped updates: those that were not finite
    skipped_in_a_row: Array  # [] int32, consecutive skipped updates up to now


def init_state(params: Params, optimizer: optax.GradientTransformation, key: Key, carry: PyTree = ()) -> TrainState:
    """The state before the first step, in buffers of its own: training donates them, the arguments stay usable.

    Args:
        params: any pytree of arrays.
        optimizer: the one that `make_train_step` gets.
        key: a typed key.
        carry: the recurrent state before the first window, where one crosses windows.
    """
    zero = jnp.zeros((), jnp.int32)
    _check_optimizer(optimizer)
    state = TrainState(zero, params, optimizer.init(params), check_key(key), carry, zero, zero)
    # The explicit dtype also strips weak types, which would make the second step compile again.
    return jax.tree.map(lambda leaf: jnp.array(leaf, dtype=jnp.asarray(leaf).dtype, copy=True), state)


def make_train_step(loss_fn: LossFn, optimizer: optax.GradientTransformation) -> TrainStep:
    """One jitted update: `(state, batch) -> (state, metrics)`; the given state's buffers are donated, so it is gone.

    An update is skipped and counted if its loss, its gradients or anything that it would change is not finite:
    parameters, optimizer state and carry stay as they were. What is infinite from the start, as some optimizers' states
    are, may stay so.

    Args:
        loss_fn: `(params, carry, batch, key) -> (loss, (carry, metrics))`: the scalar to minimize, the carry for the
            next window and a dict of scalars. The carry enters as a constant; `key` is this step's own.
        optimizer: an Optax transformation; one that searches along a line (`optax.lbfgs`) gets `value`, `grad` and
            `value_fn` as well. The gradient in which its search ends is not used again, because the next batch, key and
            carry give another loss; where they never do, see the train step of `examples/sine.py`.

    Returns:
        The step. Its metrics are those of `loss_fn`, "loss", "grad_norm" and "skipped", as device scalars.

    Raises:
        TypeError, ValueError: (at the first call) `loss_fn` returns anything but `(loss, (carry, metrics))`, a carry of
            another structure, shape or dtype, or a metric that is not a scalar or has the name of one that is written
            beside it ("step", "seconds", "loss", "grad_norm", "skipped", "eval_...").

    Example:
        >>> def loss_fn(params, carry, batch, key):
        ...     return jnp.mean((batch["x"] * params["w"] - batch["y"]) ** 2), (carry, {})
        >>> optimizer = optax.sgd(0.5)
        >>> state = init_state({"w": jnp.float32(0)}, optimizer, jax.random.key(0))
        >>> train_step = make_train_step(loss_fn, optimizer)
        >>> state, metrics = train_step(state, {"x": jnp.ones(4), "y": jnp.full(4, 3.0)})
        >>> float(metrics["loss"]), float(state.params["w"]), int(state.step)
        (9.0, 3.0, 1)
    """
    _check_optimizer(optimizer)
    optimizer = optax.with_extra_args_support(optimizer)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)

        def loss_of(params: Params) -> tuple[Array, tuple[PyTree, Metrics]]:
            return _check_result(loss_fn(params, jax.lax.stop_gradient(state.carry), batch, key))

        (loss, (carry, metrics)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        _check_names("loss_fn", metrics, FIT_METRICS + STEP_METRICS)
        if text := difference(named(carry), named(state.carry)):
            raise ValueError(f"loss_fn: the carry it returns differs from the one it got, {text}")
        for name, value in metrics.items():
            if (shape := jax.tree.map(jnp.shape, value)) != ():  # of a tree, the shapes in it
                raise ValueError(f"loss_fn: got the metric {name!r} of the shape {shape}, needs a scalar")
        # In float16 the squares of gradients run over.
        grad_norm = optax.tree.norm(jax.tree.map(lambda g: g.astype(np.promote_types(g.dtype, np.float32)), grads))
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, value=loss, grad=grads, value_fn=lambda params: loss_of(params)[0]
        )
        new = (optax.apply_updates(state.params, updates), opt_state, carry)
        old = (state.params, state.opt_state, state.carry)
        good = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & ~_spoils(new, old)
        params, opt_state, carry = jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)
        state = TrainState(
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            key=state.key,
            carry=carry,
            skipped=state.skipped + ~good,
            skipped_in_a_row=jnp.where(good, 0, state.skipped_in_a_row + 1),
        )
        return state, {**metrics, "loss": loss, "grad_norm": grad_norm, "skipped": state.skipped}

    return jax.jit(train_step, donate_argnums=0)


def _check_optimizer(optimizer: Any) -> None:
    """Raise unless it is one of Optax, `optax.MultiSteps` included, which is no `GradientTransformation`."""
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(f"optimizer: got {type(optimizer).__name__}, needs one of Optax, such as optax.adam(1e-3)")


def _check_result(result: Any) -> Any:
    """What a loss function returned; raise unless it is `(loss, (carry, metrics))`."""

    def pair(value: Any) -> bool:
        return isinstance(value, tuple) and len(value) == 2

    if not (pair(result) and pair(result[1]) and isinstance(result[1][1], dict)):
        raise TypeError(
            f"loss_fn: got {_form(result)}, needs (loss, (carry, metrics)), where metrics is a dict and carry, where "
            "nothing crosses windows, is the one it got"
        )
    loss = result[0]
    if jnp.shape(loss) or not jnp.issubdtype(jnp.result_type(loss), jnp.floating):
        raise TypeError(
            f"loss_fn: got a loss of the shape {jnp.shape(loss)} of {jnp.result_type(loss)}, needs a real scalar"
        )
    return result


def _form(value: Any) -> str:
    """What kind of value, in words."""
    if type(value) is tuple:
        return f"({', '.join(map(_form, value))})"
    return "array" if isinstance(value, jax.Array) else type(value).__name__


def _check_names(source: str, names: Iterable[str], own: tuple[str, ...]) -> None:
    """Raise unless every metric has a name that is none of `own`, which are written beside it."""
    for name in names:
        if not isinstance(name, str) or name in own or name.startswith("eval_"):
            raise ValueError(
                f"{source}: got a metric named {name!r}, needs another name; {', '.join(own)} and eval_... are written "
                "beside it"
            )


def _spoils(new: PyTree, old: PyTree) -> Array:
    """Whether anything that was finite is no longer so."""

    def one(n: Array, o: Array) -> Array:
        if not jnp.issubdtype(n.dtype, jnp.inexact):
            return jnp.zeros((), bool)
        return jnp.any(jnp.isfinite(o) & ~jnp.isfinite(n))

    return jax.tree.reduce(jnp.logical_or, jax.tree.map(one, new, old), jnp.zeros((), bool))


def fit(
    state: TrainState,
    train_step: TrainStep,
    batches: Callable[[int], Iterator[Batch]],
    *,
    steps: int,
    directory: str | os.PathLike[str] | None = None,
    evaluate: Callable[[Params], dict[str, float]] | None = None,
    params_of: Callable[[TrainState], Params] = operator.attrgetter("params"),
    eval_every: int = 500,
    log_every: int = 50,
    checkpoint_every: int = 500,
    best: str | None = None,
    best_mode: Literal["min", "max"] = "min",
    max_skipped: int = 20,
    items_per_batch: int = 1,
    unit: str = "batches",
    progress: bool = True,
) -> TrainState:
    """Train until `steps` batches have been seen in all, from wherever `state` stands.

    A run that was interrupted and goes on from `restore` ends with the same numbers, bit by bit, as one that was not.
    Ctrl-C (SIGINT) and SIGTERM end the step at hand, save a checkpoint and raise KeyboardInterrupt that says how to go
    on; a second one acts at once. Where `batches` ends early, or `batches` or `evaluate` raises an exception, a
    checkpoint is saved first, too. The device is waited for only where something is logged, evaluated or saved.

    Args:
        state: from `init_state`, or from `restore` to go on. Its buffers are donated.
        train_step: from `make_train_step`.
        batches: `batches(start)` iterates over the batches from number `start` on; with any function that makes an
            iterator, `lambda start: itertools.islice(make_iterator(), start, None)`.
        steps: batches in all, those before a resume included.
        directory: where to write `metrics.jsonl` (a JSON object a line: "step", "seconds", that step's metrics, those
            of `evaluate` after "eval_"; not finite: null) and `checkpoints/` (Orbax, the last three and the best one);
            None: nowhere. Lines of metrics beyond the step that `state` stands at are dropped: they will be written
            again. Only one `fit` at a time may write to a directory.
        evaluate: `params -> dict of floats`; it must not keep the parameters, whose buffers the next step takes.
        params_of: the parameters that `evaluate` gets, such as `lambda state: averaged_params(state.opt_state)`.
        eval_every: steps between evaluations; the last step always has one, as it is logged and saved.
        log_every: steps between lines of metrics.
        checkpoint_every: steps between checkpoints.
        best: a metric of `evaluate`, "eval_" before its name; whenever it is better than ever before, a checkpoint is
            saved, which `restore(..., step="best")` loads. The best one is kept beside the last three.
        best_mode: "min": the least is the best; "max": the greatest.
        max_skipped: this many skipped updates in a row, looked at where metrics are logged and before anything is
            saved, end the run.
        items_per_batch: what a batch counts in the throughput shown.
        unit: of what.
        progress: whether to show a progress bar, or, where there is no terminal, a line every `log_every` steps. Of
            several processes the first one shows it and writes the metrics.

    Returns:
        The state after `steps` batches.

    Raises:
        NonFiniteError: `max_skipped` updates in a row were skipped; parameters are those before them.
        ValueError, TypeError: a number is not positive, `batches` is not a function or ended too early, `evaluate` does
            not give a dict of numbers or not the one that `best` names, another `fit` writes to `directory`, or it
            holds checkpoints of other steps than the one that `state` stands at; nothing is overwritten.
    """
    check_sizes(steps=steps, eval_every=eval_every, log_every=log_every, checkpoint_every=checkpoint_every)
    check_sizes(max_skipped=max_skipped, items_per_batch=items_per_batch)
    check_choice(best_mode=best_mode, among=("min", "max"))
    if not callable(batches):
        raise TypeError(
            f"batches: got {type(batches).__name__}, needs a function of the number of the first batch, as those of "
            "jaxrnn.batches or lambda start: itertools.islice(batches, start, None)"
        )
    if best is not None and (directory is None or evaluate is None):
        raise ValueError(f"best: got {best!r}, needs evaluate, which gives it, and directory, where checkpoints go")
    start = step = int(state.step)
    with contextlib.ExitStack() as stack:
        files = None if directory is None else stack.enter_context(open_run(Path(directory).absolute(), start))
        show = stack.enter_context(
            show_progress(progress and jax.process_index() == 0, start, steps, items_per_batch, unit)
        )
        interrupted = stack.enter_context(interrupts())
        try:
            for step, batch in zip(range(start + 1, steps + 1), batches(start), strict=False):
                state, metrics = train_step(state, batch)
                if step == start + 1:
                    _check_names("train_step", metrics, FIT_METRICS)
                line: dict[str, float] = {}
                if step % log_every == 0 or step == steps:
                    line = {name: float(value) for name, value in jax.device_get(metrics).items()}
                show(step, line, False)
                improved = None
                if evaluate is not None and (step % eval_every == 0 or step == steps):
                    line |= _evaluated(evaluate(params_of(state)))
                    improved = _improved(files, line, best, best_mode)
                if line:
                    show(step, line, True)
                    if files is not None:
                        files.write(step, line)
                save = step % checkpoint_every == 0 or step == steps or bool(interrupted) or improved is not None
                if (line or save) and (skipped := int(state.skipped_in_a_row)) >= max_skipped:
                    raise NonFiniteError(
                        f"the loss, its gradients or what they would change was not finite in the last {skipped} "
                        f"updates, up to step {step}; these were skipped, and max_skipped is {max_skipped}. "
                        f"{_last(files)}"
                    )
                if save and files is not None:
                    files.save(state, step, improved)
                if interrupted:
                    signalled = signal.Signals(interrupted[0]).name
                    raise KeyboardInterrupt(f"{signalled} stopped it after step {step} of {steps}. {_last(files)}")
        except NonFiniteError:
            raise
        except Exception as error:
            # Such as one of `batches` or `evaluate`: what was trained until then is worth keeping. A step that failed
            # took its state with it.
            if files is not None and not state.step.is_deleted() and (reached := int(state.step)) > start:
                files.save(state, reached)
                error.add_note(_last(files))
            raise
        if step < steps:
            if files is not None and step > start:
                files.save(state, step)
            raise ValueError(f"batches: ended after number {step}, needs {steps} (steps). {_last(files)}")
    return state


def _evaluated(values: Any) -> dict[str, float]:
    """What `evaluate` gave, as metrics; raise unless it is a dict of numbers."""
    needs = "needs a dict of numbers, such as {'loss': 0.5}"
    if not isinstance(values, dict):
        raise TypeError(f"evaluate: got {_form(values)}, {needs}")
    arrays = {name: np.asarray(value) for name, value in values.items()}
    for name, array in arrays.items():
        if array.shape or not jnp.issubdtype(array.dtype, jnp.number):
            raise TypeError(f"evaluate: got {name!r} of the shape {array.shape} of {array.dtype}, {needs}")
    return {f"eval_{name}": float(array) for name, array in arrays.items()}


def _improved(
    files: Run | None, line: dict[str, float], best: str | None, mode: Literal["min", "max"]
) -> dict[str, float] | None:
    """The metric that `best` names, if it is the best so far."""
    if files is None or best is None:
        return None
    if best not in line or not best.startswith("eval_"):
        there = ", ".join(repr(name) for name in line if name.startswith("eval_"))
        raise ValueError(f"best: got {best!r}, needs one of {there}")
    return {best: line[best]} if files.improves(best, line[best], mode) else None


def _last(files: Run | None) -> str:
    """Where the last checkpoint is, and how to go on."""
    return "Nothing was saved: fit got no directory" if files is None else files.last()


def restore(
    directory: str | os.PathLike[str], like: TrainState, *, step: Which = "newest", new_carry: bool = False
) -> TrainState:
    """The state of a checkpoint that `fit` wrote to `directory`; nothing there is changed.

    Args:
        directory: the one that `fit` got.
        like: a state of the same model, optimizer and carry, such as the one from `init_state`: it gives the
            structure, shapes, dtypes and devices; its values are not used.
        step: "newest", from which `fit` goes on; "best", by the metric that `fit` got as `best`; or the number of a
            checkpoint that is there.
        new_carry: take the carry of `like` instead of the checkpoint's, so that a run can go on with another batch
            size.

    Returns:
        The state, ready for `fit` to go on from.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: there is none of this step; or the checkpoint is of another model: the error names the first array
            that differs; or it is damaged: the error names it and the newest intact one.
    """
    state = load(directory, like, step, skip=(".carry",) if new_carry else ())
    # `fit` donates the state, and `like` stays usable.
    return state._replace(carry=jax.tree.map(jnp.copy, state.carry)) if new_carry else state


def restore_params(directory: str | os.PathLike[str], like: Params, *, step: Which = "newest") -> Params:
    """The parameters alone of a checkpoint that `fit` wrote to `directory`; nothing there is changed.

    The optimizer and the carry's batch size need not match, so the model can be applied to other batch sizes.

    Args:
        directory: the one that `fit` got.
        like: parameters of the same model, such as fresh ones, used as those of `restore`.
        step: as in `restore`.

    Raises:
        FileNotFoundError, ValueError: as in `restore`.

    Example:
        >>> import tempfile
        >>> def loss_fn(params, carry, batch, key):
        ...     return (params["w"] - batch) ** 2, (carry, {})
        >>> optimizer = optax.sgd(0.5)
        >>> state = init_state({"w": jnp.float32(0)}, optimizer, jax.random.key(0))
        >>> train_step = make_train_step(loss_fn, optimizer)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = fit(state, train_step, lambda start: iter([3.0]), steps=1, directory=folder, progress=False)
        ...     params = restore_params(folder, {"w": jnp.float32(0)})
        >>> float(params["w"])
        3.0
    """
    return load(directory, like, step, at=".params")
