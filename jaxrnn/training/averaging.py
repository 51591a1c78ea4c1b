"""Averages of parameters over steps, begun once a held-out loss stops falling."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrnn.checks import check_functions, check_sizes
from jaxrnn.training.steps import form
from jaxrnn.typing import Array, Params, PyTree

__all__ = ["TriggeredAverage", "averaged_params", "triggered_average"]


class TriggeredAverage(NamedTuple):
    """State of `triggered_average`."""

    steps: Array  # [] int32, updates seen
    averaged: Array  # [] int32, how many parameters, each after an update, are in the average; 0 until it begins
    mean: Params  # the average; until it begins, the last parameters
    recent: Array  # [patience], the newest held-out losses, the last one at the end
    best: Array  # [], the least of those before


def triggered_average(
    validate: Callable[[Params], Array], every: int, patience: int = 5
) -> optax.GradientTransformation:
    """Averages the parameters from the step on at which a held-out loss stops falling: the last in a chain of Optax.

        averaged_params = mean(w_T ... w_k)         T: the first look at a loss above the least of those that are
                                                    more than `patience` looks old

    With SGD, `optax.chain(optax.sgd(30.0), triggered_average(...))`, it is the NT-ASGD of AWD-LSTM. Updates pass
    unchanged: training goes on at its full learning rate, from parameters that are not averaged. `averaged_params` are
    for evaluation. Looks are taken within the update, so a resumed run begins to average where it would have.

    Args:
        validate: params -> scalar, the held-out loss; it is traced into the train step with the arrays it closes over.
        every: updates between looks, in the paper those of an epoch.
        patience: n of the paper, the looks without a better loss.

    Raises:
        TypeError, ValueError: `every` or `patience` is not a positive integer, `validate` no function that gives a
            scalar; from `update`, no `params`.

    Example:
        >>> optimizer = optax.chain(optax.sgd(1.9), triggered_average(lambda w: w**2, every=1, patience=1))
        >>> w = jnp.float32(1)
        >>> state = optimizer.init(w)
        >>> for target in (0.5, -0.5, 0.5, -0.5, 0.5, -0.5):                # the rate is too high: w jumps
        ...     updates, state = optimizer.update(w - target, state, w)
        ...     w = optax.apply_updates(w, updates)
        >>> abs(float(averaged_params(state))) < abs(float(w))
        True

    Reference: Merity, Keskar & Socher 2017, "Regularizing and optimizing LSTM language models", algorithm 1; the
    average: Polyak & Juditsky 1992.
    """
    check_functions("of parameters", 1, validate=validate)
    check_sizes(every=every, patience=patience)

    def init(params: Params) -> TriggeredAverage:
        zero, inf = jnp.zeros((), jnp.int32), jnp.float32(jnp.inf)
        return TriggeredAverage(zero, zero, params, jnp.full((patience,), inf), inf)

    def update(
        updates: PyTree, state: TriggeredAverage, params: Params | None = None
    ) -> tuple[PyTree, TriggeredAverage]:
        if params is None:
            raise ValueError("params: got None, triggered_average needs update(updates, state, params)")
        new, steps = optax.apply_updates(params, updates), state.steps + 1

        def look() -> tuple[Array, Array, Array]:
            loss = validate(new)
            if not isinstance(loss, jax.Array | np.ndarray | float):
                raise TypeError(f"validate: got {form(loss)} from it, needs a scalar")
            if jnp.shape(loss):
                raise ValueError(f"validate: got the shape {jnp.shape(loss)} from it, needs a scalar")
            loss = jnp.asarray(loss, jnp.float32)
            best = jnp.fmin(state.best, state.recent[0])  # a NaN among the losses is none of them
            return jnp.append(state.recent[1:], loss), best, loss > state.best

        recent, best, worse = jax.lax.cond(
            (state.averaged == 0) & (steps % every == 0),
            look,
            lambda: (state.recent, state.best, jnp.zeros((), bool)),
        )
        averaged = jnp.where((state.averaged > 0) | worse, state.averaged + 1, 0)

        def mean(m: Array, w: Array) -> Array:
            return jnp.where(averaged > 1, m + (w - m) / jnp.maximum(averaged, 1).astype(w.dtype), w)

        return updates, TriggeredAverage(steps, averaged, jax.tree.map(mean, state.mean, new), recent, best)

    return optax.GradientTransformation(init, update)


def averaged_params(opt_state: PyTree) -> Params:
    """Returns the average that `triggered_average` keeps in an optimizer's state; until it begins, the last parameters.

    Raises:
        ValueError: there is no such state.
    """

    def is_average(node: PyTree) -> bool:
        return isinstance(node, TriggeredAverage)

    found = [node for node in jax.tree.leaves(opt_state, is_leaf=is_average) if is_average(node)]
    if len(found) != 1:
        raise ValueError(f"opt_state: got {len(found)} averages of triggered_average in it, needs one")
    return found[0].mean
