"""Train steps: one update each, skipped where it is not finite."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrnn.checks import check_arrays, check_functions, check_key, check_structure, structure
from jaxrnn.training.checkpoints import difference, named
from jaxrnn.typing import Array, Key, Params, PyTree

__all__ = [
    "FIT_METRICS",
    "TrainState",
    "TrainStep",
    "check_names",
    "check_train_state",
    "form",
    "init_state",
    "make_train_step",
]

Batch = PyTree
Metrics = dict[str, Any]
LossFn = Callable[[Params, PyTree, Batch, Key], tuple[Array, tuple[PyTree, Metrics]]]
TrainStep = Callable[["TrainState", Batch], tuple["TrainState", Metrics]]

# What `fit` and a train step write beside the metrics of a loss.
FIT_METRICS, STEP_METRICS = ("step", "seconds"), ("loss", "grad_norm", "skipped")


class TrainState(NamedTuple):
    """Everything that the next step depends on, and so everything a checkpoint holds."""

    step: Array  # [] int32, batches seen: the position in the data
    params: Params
    opt_state: PyTree
    key: Key  # never changes; a step's own key is `fold_in(key, step)`
    carry: PyTree  # recurrent state that crosses windows; () without
    skipped: Array  # [] int32, total skipped updates: those that were not finite
    skipped_in_a_row: Array  # [] int32, consecutive skipped updates up to now


def init_state(key: Key, params: Params, optimizer: optax.GradientTransformation, carry: PyTree = ()) -> TrainState:
    """Returns the state before the first step, in buffers of its own: training donates them, the arguments stay usable.

    Args:
        key: a typed key, from which every step's own is made.
        params: any pytree of arrays.
        optimizer: the one that `make_train_step` gets.
        carry: the recurrent state before the first window, where one crosses windows.

    Raises:
        TypeError, ValueError: `key` is no key, `params` has no arrays, or something else than arrays, or `optimizer` is
            none of Optax.
    """
    zero, key = jnp.zeros((), jnp.int32), check_key(key)
    _check_optimizer(optimizer)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        check_arrays(**{f"params{jax.tree_util.keystr(path)}": leaf})
    if not jax.tree.leaves(params):
        raise ValueError(f"params: got {params!r}, needs arrays, such as those of cell.init(key)")
    state = TrainState(zero, params, optimizer.init(params), key, carry, zero, zero)
    # The explicit dtype also strips weak types, which would make the second step compile again.
    return jax.tree.map(lambda leaf: jnp.array(leaf, dtype=jnp.asarray(leaf).dtype, copy=True), state)


def make_train_step(loss_fn: LossFn, optimizer: optax.GradientTransformation) -> TrainStep:
    """Makes a jitted update, `(state, batch) -> (state, metrics)`, to which the state's buffers are donated.

    A state is gone once it was given to the update; go on with the one that comes back. To keep one, copy it before:
    `jax.tree.map(jnp.copy, state)`.

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
        TypeError: `loss_fn` is no function, or `optimizer` none of Optax.
        TypeError, ValueError: (from the step) the state is no `TrainState`, of another optimizer, or one that a step
            took; `loss_fn` returns anything but `(loss, (carry, metrics))`, a carry of another structure, shape or
            dtype, or a metric that is not a scalar or has the name of one that is written beside it ("step", "seconds",
            "loss", "grad_norm", "skipped", "eval_...").

    Example:
        >>> def loss_fn(params, carry, batch, key):
        ...     return jnp.mean((batch["x"] * params["w"] - batch["y"]) ** 2), (carry, {})
        >>> optimizer = optax.sgd(0.5)
        >>> state = init_state(jax.random.key(0), {"w": jnp.float32(0)}, optimizer)
        >>> train_step = make_train_step(loss_fn, optimizer)
        >>> state, metrics = train_step(state, {"x": jnp.ones(4), "y": jnp.full(4, 3.0)})
        >>> float(metrics["loss"]), float(state.params["w"]), int(state.step)
        (9.0, 3.0, 1)
    """
    _check_optimizer(optimizer)
    check_functions("(params, carry, batch, key) -> (loss, (carry, metrics))", 4, loss_fn=loss_fn)
    optimizer = optax.with_extra_args_support(optimizer)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        needed = jax.eval_shape(optimizer.init, state.params)
        source = f"needs {structure(needed)}, as from the optimizer of the train step"
        check_structure("state.opt_state", state.opt_state, needed, source)
        key = jax.random.fold_in(state.key, state.step)

        def loss_of(params: Params) -> tuple[Array, tuple[PyTree, Metrics]]:
            return _check_result(loss_fn(params, jax.lax.stop_gradient(state.carry), batch, key))

        (loss, (carry, metrics)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        check_names("loss_fn", metrics, FIT_METRICS + STEP_METRICS)
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

    jitted = jax.jit(train_step, donate_argnums=0)

    @functools.wraps(jitted)
    def checked(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        check_train_state(state)
        return jitted(state, batch)

    return checked


def check_train_state(state: Any) -> None:
    """Raises unless it is a `TrainState` whose buffers are there."""
    if not isinstance(state, TrainState):
        raise TypeError(f"state: got {type(state).__name__}, needs a TrainState, init_state(key, params, optimizer)")
    step = state.step
    if isinstance(step, jax.Array) and not isinstance(step, jax.core.Tracer) and step.is_deleted():
        raise ValueError(
            "state: got one that a train step took, needs the state that came back from it, or a new one of init_state "
            "or restore; jax.tree.map(jnp.copy, state) before the step keeps one"
        )


def _check_optimizer(optimizer: Any) -> None:
    """Raises unless it is one of Optax, `optax.MultiSteps` included, which is no `GradientTransformation`."""
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(f"optimizer: got {type(optimizer).__name__}, needs one of Optax, such as optax.adam(1e-3)")


def _check_result(result: Any) -> Any:
    """Returns what a loss function returned; raises unless it is `(loss, (carry, metrics))`."""

    def pair(value: Any) -> bool:
        return isinstance(value, tuple) and len(value) == 2

    if not (pair(result) and pair(result[1]) and isinstance(result[1][1], dict)):
        raise TypeError(
            f"loss_fn: got {form(result)}, needs (loss, (carry, metrics)), where metrics is a dict and carry, where "
            "nothing crosses windows, is the one it got: return loss, (carry, {})"
        )
    loss = result[0]
    if jnp.shape(loss) or not jnp.issubdtype(jnp.result_type(loss), jnp.floating):
        raise TypeError(
            f"loss_fn: got a loss of the shape {jnp.shape(loss)} of {jnp.result_type(loss)}, needs a real scalar"
        )
    return result


def form(value: Any) -> str:
    """Says in words what kind of value it is."""
    if type(value) is tuple:
        return f"({', '.join(map(form, value))})"
    return "array" if isinstance(value, jax.Array) else type(value).__name__


def check_names(source: str, names: Iterable[str], own: tuple[str, ...]) -> None:
    """Raises unless every metric has a name that is none of `own`, which are written beside it."""
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
