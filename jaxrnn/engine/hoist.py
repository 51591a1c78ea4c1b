"""What a step makes of its input alone by a product, found in its equations, is done for all steps at once.

A cell says in `project` what sees the input only. Where its equations come as a whole, as a Flax cell's or those of a
user's function do, the division is made here: an equation that the state does not reach, but a product of the input
does, goes ahead of the loop. Work on the input without a product stays in the step: done ahead, it would only be
written to memory and read again.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from jaxrnn.engine.jaxprs import bind, evaluate
from jaxrnn.typing import Array, Params, PyTree, State

__all__ = ["hoist"]

Step = Callable[[Params, State, PyTree], tuple[State, PyTree]]


def hoist(
    step: Step, params: Params, state: State, drive: PyTree
) -> tuple[Callable[[Params, PyTree], PyTree], Step] | None:
    """`(ahead, rest)` such that `step(params, s, d)` is `rest(params, s, ahead(params, d))`; None: nothing to hoist."""
    flat, shape = _inlined(step, params, state, drive)
    jaxpr = flat.jaxpr
    counts = [len(jax.tree.leaves(tree)) for tree in (params, state, drive)]
    n_params, n_state, _ = counts
    reached = set(jaxpr.invars[n_params : n_params + n_state])  # by the state
    seeing = set(jaxpr.invars[n_params + n_state :])  # the input
    early: list[Any] = []  # equations that need no state
    late: list[Any] = []  # those that are left to the step; some are both
    made: dict[Any, None] = {}  # of a product of the input alone, in order
    for eqn in jaxpr.eqns:
        read = {v for v in eqn.invars if not isinstance(v, Literal)}
        # What has an effect has it once a step.
        if eqn.effects or read & reached:
            reached.update(eqn.outvars)
            late.append(eqn)
            continue
        early.append(eqn)
        if read & seeing:
            seeing.update(eqn.outvars)
            if eqn.primitive.name in ("dot_general", "conv_general_dilated") or read & made.keys():
                made.update(dict.fromkeys(eqn.outvars))
                continue
        late.append(eqn)
    if not made:
        return None
    needed = {v for eqn in late for v in eqn.invars if not isinstance(v, Literal)} | set(jaxpr.outvars)
    given = [v for v in made if v in needed]
    before = ClosedJaxpr(_replaced(jaxpr, outvars=given, eqns=early, effects=set()), flat.consts)
    after = ClosedJaxpr(_replaced(jaxpr, invars=[*jaxpr.invars, *given], eqns=late), flat.consts)

    def run_ahead(params: Params, d: PyTree) -> tuple[PyTree, list[Array]]:
        # The state does not reach these equations: any will do.
        return d, jaxpr_as_fun(before)(*jax.tree.leaves((params, state, d)))

    def rest(params: Params, s: State, d: tuple[PyTree, list[Array]]) -> tuple[State, PyTree]:
        return jax.tree.unflatten(shape, jaxpr_as_fun(after)(*jax.tree.leaves((params, s, d))))

    return run_ahead, rest


def _inlined(step: Step, *args: Any) -> tuple[ClosedJaxpr, Any]:
    """The equations of `step` without calls of `jit`, and the structure of its results."""
    closed, shape = jax.make_jaxpr(step, return_shape=True)(*args)

    def flat(*leaves: Any) -> list[Any]:
        return evaluate(closed.jaxpr, closed.consts, leaves, bind)

    return jax.make_jaxpr(flat)(*jax.tree.leaves(args)), jax.tree.structure(shape)


def _replaced(jaxpr: Jaxpr, **fields: Any) -> Jaxpr:
    names = ("constvars", "invars", "outvars", "eqns", "effects", "debug_info")
    return Jaxpr(**({name: getattr(jaxpr, name) for name in names} | fields))
