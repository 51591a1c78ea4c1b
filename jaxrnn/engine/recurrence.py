"""The sequential part of `unroll`, and its derivative rule.

    s_t, y_t = step(params, s_{t-1}, d_t)                       t = 1 … T

The derivative of a recurrence is a linear recurrence. Its coefficients are known once the states are known. The
tangents are

    u_t  = ∂step/∂(params, d) · (dparams, dd_t)                 every t at once, from the known s_{t-1}
    ds_t = (∂step/∂s)_t ds_{t-1} + u_t                          the one sequential, linear part

JAX transposes this into the backward pass: a loop that carries only the state's cotangent, and products over all steps
for the parameters. Differentiating `lax.scan` instead would add to every parameter's cotangent at every step. The rule
is made of differentiable JAX code, so derivatives of any order and mode follow from it.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.interpreters import ad

from jaxrnn.engine.linearize import linearize
from jaxrnn.jaxprs import flat_products, without_closure
from jaxrnn.typing import Array, Params, PyTree, State

__all__ = ["STATES", "is_real", "loop", "merge", "reals", "recurrence", "saved", "states_before", "tangents_of"]

STATES = "jaxrnn_states"
"""The name under which the states are saved for the backward pass (`jax.checkpoint_policies`)."""

Step = Callable[[Params, State, PyTree], tuple[State, PyTree]]


def loop(step: Step, reverse: bool, params: Params, state: State, drives: PyTree) -> tuple[State, PyTree]:
    """Scans `step` as `recurrence`, with JAX's own derivatives."""
    return lax.scan(lambda s, d: step(params, s, d), state, drives, reverse=reverse)


def recurrence(step: Step, reverse: bool, params: Params, state: State, drives: PyTree) -> tuple[State, PyTree]:
    """Scans `step` over `drives` `[T, ...]`: `(final state, outputs [T, ...])`; T is at least 1.

    Differentiates also with respect to the traced values that `step` closes over.
    """
    opened, captured = without_closure(step, params, state, jax.tree.map(lambda d: d[0], drives))

    def explicit(given: tuple[Params, list[Any]], s: State, d: PyTree) -> tuple[State, PyTree]:
        return opened(given[1], given[0], s, d)

    return _recurrence(explicit, reverse, (params, captured), state, drives)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _recurrence(step: Step, reverse: bool, params: Params, state: State, drives: PyTree) -> tuple[State, PyTree]:
    return loop(step, reverse, params, state, drives)


@_recurrence.defjvp
def _recurrence_jvp(step: Step, reverse: bool, primals: Any, tangents: Any) -> Any:
    outputs = _outputs(step, *primals)
    # Named here: a name within the call of a custom_jvp is invisible to the checkpoint policy.
    states, extras = jax.tree.map(saved, _trajectory(step, reverse, *primals))
    found = jax.tree.map(lambda s: s[0 if reverse else -1], states), outputs.assemble(states, extras)
    return found, tangents_of(
        found, *_real_tangents(step, reverse, primals, tangents, states, outputs, outputs.assemble)
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _trajectory(step: Step, reverse: bool, params: Params, state: State, drives: PyTree) -> tuple[State, list[Array]]:
    """Returns the states after every step, and the leaves of the outputs that are not leaves of the state."""
    outputs = _outputs(step, params, state, drives)

    def body(s: State, d: PyTree) -> tuple[State, PyTree]:
        s, output = step(params, s, d)
        return s, (_pack(s), outputs.pick(output))

    packed, extras = lax.scan(body, state, drives, reverse=reverse)[1]
    return _unpack(packed, state, axis=1), extras


@_trajectory.defjvp
def _trajectory_jvp(step: Step, reverse: bool, primals: Any, tangents: Any) -> Any:
    kept = _trajectory(step, reverse, *primals)
    outputs = _outputs(step, *primals)
    return kept, tangents_of(
        kept, _real_tangents(step, reverse, primals, tangents, kept[0], outputs, lambda *ds: ds)[1]
    )


def _real_tangents(
    step: Step,
    reverse: bool,
    primals: tuple[Params, State, PyTree],
    tangents: tuple[Params, State, PyTree],
    states: State,
    outputs: "_Outputs",
    emit: Callable[[State, list[Array]], PyTree],
) -> tuple[list[Array], list[Array]]:
    """Returns the real tangents of the final state and of `emit(state, extras)` at every step."""
    params, state, drives = primals
    dparams, dstate, ddrives = tangents
    before = jax.tree.map(lambda s0, s: states_before(s0, s, reverse), state, states)

    def real(params: Params, s: list[Array], at: tuple[State, PyTree]) -> PyTree:
        """Takes the step as a function between the leaves that have tangents."""
        s, output = step(params, merge(at[0], s), at[1])
        return reals(s), reals(outputs.pick(output))

    every = flat_products(jax.vmap(real, (None, 0, 0)))
    _, (u, extra) = jax.jvp(lambda p, d: every(p, reals(before), (before, d)), (params, drives), (dparams, ddrives))
    coefficients, apply = linearize(real, params, reals(before), (before, drives))

    def body(ds: list[Array], at: PyTree) -> tuple[list[Array], list[Array]]:
        coefficients, u, extra = at
        ds, dextras = jax.tree.map(jnp.add, apply(coefficients, ds), (_unpack(u, ds), extra))
        return ds, reals(emit(merge(state, ds), merge(outputs.extras, dextras)))

    ds, emitted = lax.scan(body, reals(dstate), (coefficients, _pack(u, axis=1), extra), reverse=reverse)
    return ds, emitted


# The loops read and write state leaves of one shape and dtype as one stacked array: on a GPU, each array costs one
# kernel at every step.


def _alike(leaves: list[Any]) -> list[list[int]]:
    groups: dict[Any, list[int]] = {}
    for i, leaf in enumerate(leaves):
        groups.setdefault((leaf.shape, leaf.dtype), []).append(i)
    return list(groups.values())


def _pack(tree: PyTree, axis: int = 0) -> list[Array]:
    leaves = jax.tree.leaves(tree)
    return [jnp.stack([leaves[i] for i in group], axis) for group in _alike(leaves)]


def _unpack(packed: list[Array], like: PyTree, axis: int = 0) -> PyTree:
    leaves, tree = jax.tree.flatten(like)
    for array, group in zip(packed, _alike(leaves), strict=True):
        for i, leaf in zip(group, jnp.unstack(array, axis=axis), strict=True):
            leaves[i] = leaf
    return jax.tree.unflatten(tree, leaves)


class _Outputs(NamedTuple):
    """Where the leaves of a step's output come from."""

    tree: Any
    sources: list[int | None]  # the leaf of the new state that an output leaf is, if any
    extras: list[Any]  # shapes and dtypes of the leaves that are none

    def pick(self, output: PyTree) -> list[Array]:
        """The leaves that are not leaves of the state."""
        return [a for a, i in zip(jax.tree.leaves(output), self.sources, strict=True) if i is None]

    def assemble(self, state: State, extras: list[Array]) -> PyTree:
        """The output, from the state and the extras."""
        leaves, rest = jax.tree.leaves(state), iter(extras)
        return jax.tree.unflatten(self.tree, [next(rest) if i is None else leaves[i] for i in self.sources])


def _outputs(step: Step, params: Params, state: State, drives: PyTree) -> _Outputs:
    sources: list[int | None] = []

    def probe(params: Params, s: State, d: PyTree) -> PyTree:
        s, output = step(params, s, d)
        index = {id(leaf): i for i, leaf in enumerate(jax.tree.leaves(s))}
        sources.extend(index.get(id(leaf)) for leaf in jax.tree.leaves(output))
        return output

    output = jax.eval_shape(probe, params, state, jax.tree.map(lambda d: d[0], drives))
    found = _Outputs(jax.tree.structure(output), sources, [])
    return found._replace(extras=found.pick(output))


def saved(leaf: Array) -> Array:
    """Gives `leaf` the name that the checkpoint policy saves; for complex arrays, names real and imaginary parts."""
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        return lax.complex(checkpoint_name(leaf.real, STATES), checkpoint_name(leaf.imag, STATES))
    return checkpoint_name(leaf, STATES)


# Only real and complex leaves have tangents; JAX gives integers and booleans the dtype float0.


def is_real(leaf: Any) -> bool:
    """Returns whether a leaf has tangents of its own dtype."""
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def reals(tree: PyTree) -> list[Any]:
    """Returns the leaves that have tangents."""
    return [leaf for leaf in jax.tree.leaves(tree) if is_real(leaf)]


def merge(tree: PyTree, new: list[Any]) -> PyTree:
    """Replaces the real and complex leaves of `tree`."""
    leaves = iter(new)
    return jax.tree.map(lambda leaf: next(leaves) if is_real(leaf) else leaf, tree)


def tangents_of(primals: PyTree, *reals: list[Array]) -> PyTree:
    """Returns the tangents of `primals`, of which these are the real ones."""
    new = itertools.chain(*reals)

    def one(primal: Array) -> Any:
        # Under `jax.shard_map` a zero has a type that NumPy's zeros don't have.
        return next(new) if is_real(primal) else ad.instantiate_zeros(ad.Zero(jax.typeof(primal).to_tangent_aval()))

    return jax.tree.map(one, primals)


def states_before(first: Array, after: Array, reverse: bool) -> Array:
    """Returns the states before every step, from the first state and the states after every step."""
    if reverse:
        return jnp.concatenate([after[1:], first[None]])
    return jnp.concatenate([first[None], after[:-1]])
