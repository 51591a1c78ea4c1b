"""The training loop, and the way back into one that was left."""

import contextlib
import operator
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import check_bools, check_choice, check_functions, check_sizes
from jaxrnn.training.checkpoints import Run, Which, folder, load, open_run
from jaxrnn.training.progress import interrupts, show_progress
from jaxrnn.training.steps import FIT_METRICS, Batch, TrainState, TrainStep, check_names, check_train_state, form
from jaxrnn.typing import Params

__all__ = ["NonFiniteError", "fit", "restore", "restore_params"]


class NonFiniteError(FloatingPointError):
    """Too many updates in a row were not finite."""


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
    """Trains until `steps` batches have been seen in all, from wherever `state` stands.

    A run that was interrupted and goes on from `restore` ends with the same numbers, bit by bit, as one that was not.
    Ctrl-C (SIGINT) and SIGTERM end the step at hand, save a checkpoint and raise KeyboardInterrupt that says how to go
    on; a second one acts at once. Where `batches` ends early, or `batches` or `evaluate` raises an exception, a
    checkpoint is saved first, too. The device is waited for only where something is logged, evaluated or saved.

    Args:
        state: from `init_state`, or from `restore` to go on. Its buffers are donated: what comes back takes its place.
        train_step: from `make_train_step`.
        batches: a function: `batches(start)` iterates over the batches from number `start` on, as those of
            `jaxrnn.batches` do; with any function that makes an iterator, `lambda start:
            itertools.islice(make_iterator(), start, None)`.
        steps: number of batches in all, those before a resume included.
        directory: where to write `metrics.jsonl` (one JSON object per line: "step", "seconds", that step's metrics,
            and those of `evaluate` with "eval_" before their names; null where not finite) and `checkpoints/` (Orbax,
            the last three and the best one); None: nowhere. Lines of metrics beyond the step that `state` stands at are
            dropped: they will be written again. Only one `fit` at a time may write to a directory.
        evaluate: `params -> dict of floats`, such as the loss on held-out data; it must not keep the parameters, whose
            buffers the next step takes.
        params_of: gives the parameters that `evaluate` gets, such as `lambda state: averaged_params(state.opt_state)`.
        eval_every: steps between evaluations; the last step always has one, as it is logged and saved.
        log_every: steps between lines of metrics; an evaluation has one, too.
        checkpoint_every: steps between checkpoints.
        best: a metric of `evaluate`, with "eval_" before its name; whenever it is better than ever before, a checkpoint
            is saved, which `restore(..., step="best")` loads. The best one is kept beside the last three.
        best_mode: "min": the least is the best; "max": the greatest.
        max_skipped: this many skipped updates in a row, looked at where metrics are logged and before anything is
            saved, end the run.
        items_per_batch: how many items a batch has, for the throughput that is shown.
        unit: what the items are called there.
        progress: whether to show a progress bar, or, where there is no terminal, a line every `log_every` steps. Of
            several processes the first one shows it and writes the metrics.

    Returns:
        The state after `steps` batches.

    Raises:
        NonFiniteError: `max_skipped` updates in a row were skipped; parameters are those before them.
        ValueError, TypeError: a number is not positive, `state` is no `TrainState` or one that a step took, `batches`
            is not a function or ended too early, `evaluate` does not give a dict of numbers or not the one that `best`
            names, another `fit` writes to `directory`, or it holds checkpoints of other steps than the one that `state`
            stands at; nothing is overwritten.

    Example:
        >>> import optax
        >>> from jaxrnn.training import init_state, make_train_step
        >>> def loss_fn(params, carry, batch, key):
        ...     return jnp.mean((params["w"] - batch) ** 2), (carry, {})
        >>> optimizer = optax.sgd(0.25)
        >>> state = init_state(jax.random.key(0), {"w": jnp.float32(0)}, optimizer)
        >>> data = lambda start: iter([jnp.ones(4)] * (3 - start))
        >>> state = fit(state, make_train_step(loss_fn, optimizer), data, steps=3, progress=False)
        >>> int(state.step), float(state.params["w"])
        (3, 0.875)
    """
    check_sizes(steps=steps, eval_every=eval_every, log_every=log_every, checkpoint_every=checkpoint_every)
    check_sizes(max_skipped=max_skipped, items_per_batch=items_per_batch)
    check_choice(best_mode=best_mode, among=("min", "max"))
    check_bools(progress=progress)
    check_train_state(state)
    check_functions(
        "(state, batch) -> (state, metrics), as of make_train_step(loss_fn, optimizer)", 2, train_step=train_step
    )
    if evaluate is not None:
        check_functions("of parameters", 1, evaluate=evaluate)
    check_functions("of a state", 1, params_of=params_of)
    needs = (
        "of the number of the first batch, as those of jaxrnn.batches or lambda start: "
        "itertools.islice(make_iterator(), start, None)"
    )
    if not callable(batches):
        raise TypeError(f"batches: got {type(batches).__name__}, needs a function {needs}")
    check_functions(needs, 1, batches=batches)
    if best is not None and (directory is None or evaluate is None):
        raise ValueError(f"best: got {best!r}, needs evaluate, which gives it, and directory, where checkpoints go")
    start = step = int(state.step)
    with contextlib.ExitStack() as stack:
        files = None if directory is None else stack.enter_context(open_run(folder(directory), start))
        show = stack.enter_context(
            show_progress(progress and jax.process_index() == 0, start, steps, items_per_batch, unit)
        )
        interrupted = stack.enter_context(interrupts())

        def keep() -> None:
            """Saves the state that was reached; a step that failed took its state with it."""
            if files is not None and not state.step.is_deleted() and (reached := int(state.step)) > start:
                files.save(state, reached)

        try:
            for step, batch in zip(range(start + 1, steps + 1), _iterable(batches(start)), strict=False):
                state, metrics = _result(train_step(state, batch))
                if step == start + 1:
                    check_names("train_step", metrics, FIT_METRICS)
                line: dict[str, float] = {}
                due = evaluate if step % eval_every == 0 or step == steps else None
                if due is not None or step % log_every == 0 or step == steps:
                    line = {name: float(value) for name, value in jax.device_get(metrics).items()}
                show(step, line, False)
                improved = None
                if due is not None:
                    line |= _evaluated(due(params_of(state)))
                    improved = _improved(files, line, best, best_mode)
                if line:
                    show(step, line, True)
                    if files is not None:
                        files.write(step, line)
                stop = bool(interrupted)  # read once: a signal from here on ends the next step, and that one is saved
                save = step % checkpoint_every == 0 or step == steps or stop or improved is not None
                if (line or save) and (skipped := int(state.skipped_in_a_row)) >= max_skipped:
                    raise NonFiniteError(
                        f"the loss, its gradients or what they would change was not finite in the last {skipped} "
                        f"updates, up to step {step}; these were skipped, and max_skipped is {max_skipped}. "
                        f"{_last(files)}"
                    )
                if save and files is not None:
                    files.save(state, step, improved)
                if stop or (interrupted and step == steps):
                    signalled = signal.Signals(interrupted[0]).name
                    raise KeyboardInterrupt(f"{signalled} stopped it after step {step} of {steps}. {_last(files)}")
        except NonFiniteError:
            raise
        except Exception as error:
            # Such as one of `batches` or `evaluate`: what was trained until then is worth keeping. Where it was saving
            # that failed, as on a full disk, it fails again; the first error tells more.
            with contextlib.suppress(Exception):
                keep()
            if files is not None and step > start:
                error.add_note(_last(files))
            raise
        if step < steps:
            keep()
            raise ValueError(f"batches: ended after number {step}, needs {steps} (steps). {_last(files)}")
    return state


def _iterable(batches: Any) -> Iterator[Batch]:
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches: got {type(batches).__name__} from it, needs an iterator over batches")
    return iter(batches)


def _result(result: Any) -> tuple[TrainState, dict[str, Any]]:
    """Returns what a train step gave; raises unless it is a pair of a state and metrics."""
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], TrainState)):
        raise TypeError(f"train_step: got {form(result)} from it, needs (state, metrics), as of make_train_step")
    return result


def _evaluated(values: Any) -> dict[str, float]:
    """Returns what `evaluate` gave, as metrics; raises unless it is a dict of numbers."""
    needs = "needs a dict of numbers, such as {'loss': 0.5}"
    if not isinstance(values, dict):
        raise TypeError(f"evaluate: got {form(values)}, {needs}")
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
        raise ValueError(f"best: got {best!r}, needs one of {there or 'those that evaluate gives, here none'}")
    return {best: line[best]} if files.improves(best, line[best], mode) else None


def _last(files: Run | None) -> str:
    """Where the last checkpoint is, and how to go on."""
    return "Nothing was saved: fit got no directory" if files is None else files.last()


def restore(
    directory: str | os.PathLike[str], like: TrainState, *, step: Which = "newest", new_carry: bool = False
) -> TrainState:
    """Reads the state of a checkpoint that `fit` wrote to `directory`; nothing there is changed.

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
        TypeError: `like` is no `TrainState`.
        ValueError: there is none of this step; or the checkpoint is of another model: the error names the first array
            that differs; or it is damaged: the error names it and the newest intact one.
    """
    check_bools(new_carry=new_carry)
    if not isinstance(like, TrainState):
        raise TypeError(
            f"like: got {type(like).__name__}, needs a TrainState; restore_params takes and gives parameters alone"
        )
    return load(directory, like, step, skip=(".carry",) if new_carry else ())


def restore_params(directory: str | os.PathLike[str], like: Params, *, step: Which = "newest") -> Params:
    """Reads the parameters alone of a checkpoint that `fit` wrote to `directory`; nothing there is changed.

    The optimizer and the carry's batch size need not match, so the model can be applied to other batch sizes.

    Args:
        directory: the one that `fit` got.
        like: parameters of the same model, such as fresh ones, used as those of `restore`.
        step: as in `restore`.

    Raises:
        FileNotFoundError, ValueError: as in `restore`.
        TypeError: `like` is a `TrainState`.

    Example:
        >>> import tempfile, optax
        >>> from jaxrnn.training import init_state, make_train_step
        >>> def loss_fn(params, carry, batch, key):
        ...     return (params["w"] - batch) ** 2, (carry, {})
        >>> optimizer = optax.sgd(0.5)
        >>> state = init_state(jax.random.key(0), {"w": jnp.float32(0)}, optimizer)
        >>> train_step = make_train_step(loss_fn, optimizer)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = fit(state, train_step, lambda start: iter([3.0]), steps=1, directory=folder, progress=False)
        ...     params = restore_params(folder, {"w": jnp.float32(0)})
        >>> float(params["w"])
        3.0
    """
    if isinstance(like, TrainState):
        raise TypeError("like: got a TrainState, needs parameters, such as its params; restore takes whole states")
    return load(directory, like, step, at=".params")
