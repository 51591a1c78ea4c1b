"""The sequential part of `unroll`, and its derivative rule.

    s_t, y_t = step(params, s_{t-1}, d_t)                       t = 1 … T

The derivative of a recurrence is a recurrence too, but a linear one, and all of its coefficients are known once the
states are. So the tangents are

    u_t  = ∂step/∂(params, d) · (dparams, dd_t)                 every t at once, from the known s_{t-1}
    ds_t = (∂step/∂s)_t ds_{t-1} + u_t                          the one sequential, linear part

JAX transposes this into the backward pass: a loop that carries the state's cotangent alone, and products over all
steps for the parameters, where differentiating `lax.scan` would add to every parameter's cotangent at every step.
Because the rule is itself made of differentiable JAX code, derivatives of any order and mode follow from it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Literal

from jaxrnn.typing import Array, Params, PyTree, State

__all__ = ["STATES", "recurrence"]

STATES = "jaxrnn_states"
"""The name under which the states are saved for the backward pass (`jax.checkpoint_policies`)."""

Step = Callable[[Params, State, PyTree], tuple[State, PyTree]]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def recurrence(step: Step, reverse: bool, params: Params, state: State, drives: PyTree) -> tuple[State, PyTree]:
    """`lax.scan` of `step` over `drives` `[T, ...]`: `(final state, outputs [T, ...])`; T is at least 1."""
    return lax.scan(lambda s, d: step(params, s, d), state, drives, reverse=reverse)


@recurrence.defjvp
def _recurrence_jvp(step: Step, reverse: bool, primals: Any, tangents: Any) -> Any:
    assemble = _outputs(step, primals)
    states, extras = trajectory(step, reverse, *primals)
    dfinal, doutputs = _tangents(step, reverse, primals, tangents, states, assemble)
    last = 0 if reverse else -1
    final = jax.tree.map(lambda s: s[last], states)
    return (final, assemble(states, extras)), (dfinal, doutputs)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def trajectory(step: Step, reverse: bool, params: Params, state: State, drives: PyTree) -> tuple[State, list[Array]]:
    """The states after every step, and those leaves of the outputs that are not leaves of the state."""
    _, split = _aliases(step, (params, state, drives))

    def body(s: State, d: PyTree) -> tuple[State, PyTree]:
        s, output = step(params, s, d)
        return s, (s, split(output))

    _, kept = lax.scan(body, state, drives, reverse=reverse)
    return checkpoint_name(kept, STATES)


@trajectory.defjvp
def _trajectory_jvp(step: Step, reverse: bool, primals: Any, tangents: Any) -> Any:
    kept = trajectory(step, reverse, *primals)
    _, dkept = _tangents(step, reverse, primals, tangents, kept[0], lambda s, extras: (s, extras))
    return kept, dkept


def _tangents(
    step: Step,
    reverse: bool,
    primals: tuple[Params, State, PyTree],
    tangents: tuple[Params, State, PyTree],
    states: State,
    emit: Callable[[State, list[Array]], PyTree],
) -> tuple[State, PyTree]:
    """Tangents of the final state, and of what `emit` makes of every step's `(state, extras)`."""
    params, state, drives = primals
    dparams, dstate, ddrives = tangents
    _, split = _aliases(step, primals)
    before = jax.tree.map(lambda s0, s: _shift(s0, s, reverse), state, states)

    def one(params: Params, s: State, d: PyTree) -> tuple[State, list[Array]]:
        s, output = step(params, s, d)
        return s, split(output)

    _, u = jax.jvp(lambda p, d: jax.vmap(one, (None, 0, 0))(p, before, d), (params, drives), (dparams, ddrives))
    coefficients, apply = _linearize(one, params, before, drives)

    def body(ds: State, at_t: PyTree) -> tuple[State, PyTree]:
        coefficients, u = at_t
        ds, dextras = jax.tree.map(_add, apply(coefficients, ds), u)
        return ds, emit(ds, dextras)

    return lax.scan(body, dstate, (coefficients, u), reverse=reverse)


def _linearize(
    one: Step, params: Params, states: State, drives: PyTree
) -> tuple[list[Array], Callable[[list[Array], State], PyTree]]:
    """The derivative of `one` with respect to the state at every step.

    Returns `(coefficients, apply)`: arrays `[T, ...]` computed for all steps at once, and the linear map that
    `apply(coefficients of one step, ds)` evaluates. What depends on the parameters alone (the weights) exists once.
    """
    trees = []

    def coefficients(params: Params, s: State, d: PyTree) -> list[Array]:
        _, linear = jax.linearize(lambda s: one(params, s, d), s)
        leaves, tree = jax.tree.flatten(linear)
        trees.append(tree)
        return leaves

    first = jax.tree.map(lambda a: a[0], (states, drives))
    jaxpr = jax.make_jaxpr(coefficients)(params, *first).jaxpr
    moving = set(jaxpr.invars[len(jax.tree.leaves(params)) :])
    for eqn in jaxpr.eqns:
        if any(not isinstance(v, Literal) and v in moving for v in eqn.invars):
            moving.update(eqn.outvars)
    is_moving = [not isinstance(v, Literal) and v in moving for v in jaxpr.outvars]

    def pick(leaves: list[Array], moving: bool) -> list[Array]:
        return [leaf for leaf, m in zip(leaves, is_moving, strict=True) if m == moving]

    at_every_step = jax.vmap(lambda s, d: pick(coefficients(params, s, d), True))(states, drives)
    once = pick(coefficients(params, *first), False)

    def apply(at_t: list[Array], ds: State) -> PyTree:
        sources = {True: iter(at_t), False: iter(once)}
        return jax.tree.unflatten(trees[-1], [next(sources[m]) for m in is_moving])(ds)

    return at_every_step, apply


def _aliases(
    step: Step, primals: tuple[Params, State, PyTree]
) -> tuple[list[int | None], Callable[[PyTree], list[Array]]]:
    """For each leaf of the output, which leaf of the state it is, if any; and how to pick the others."""
    params, state, drives = primals
    found: list[int | None] = []

    def probe(params: Params, s: State, d: PyTree) -> PyTree:
        s, output = step(params, s, d)
        where = {id(leaf): i for i, leaf in enumerate(jax.tree.leaves(s))}
        found.extend(where.get(id(leaf)) for leaf in jax.tree.leaves(output))
        return output

    jax.eval_shape(probe, params, state, jax.tree.map(lambda d: d[0], drives))
    return found, lambda output: [leaf for leaf, i in zip(jax.tree.leaves(output), found, strict=True) if i is None]


def _outputs(step: Step, primals: tuple[Params, State, PyTree]) -> Callable[[State, list[Array]], PyTree]:
    """How to put the output together again from the state and the leaves picked by `_aliases`."""
    params, state, drives = primals
    first = jax.tree.map(lambda d: d[0], drives)
    tree = jax.tree.structure(jax.eval_shape(step, params, state, first)[1])
    found, _ = _aliases(step, primals)

    def assemble(state: State, extras: list[Array]) -> PyTree:
        leaves, rest = jax.tree.leaves(state), iter(extras)
        return jax.tree.unflatten(tree, [next(rest) if i is None else leaves[i] for i in found])

    return assemble


def _shift(first: Array, after: Array, reverse: bool) -> Array:
    """The states before every step, of the one before the first and those after every step."""
    if reverse:
        return jnp.concatenate([after[1:], first[None]])
    return jnp.concatenate([first[None], after[:-1]])


def _add(a: Array, b: Array) -> Array:
    """Sum of two tangents; those of integers are float0 and have none."""
    return a if a.dtype == jax.dtypes.float0 else a + b
