"""Hoists input-only matrix products of a step out of the time loop by inspecting its jaxpr.

A cell says in `project` what sees the input only. Where its equations come as a whole, as those of a Flax cell or of a
user's function do, the division is made here: an equation that the state does not reach, but a product of the input
does, runs ahead of the loop. Work on the input without a product stays in the step: run ahead, it would only be written
to memory and read again.
"""

from collections.abc import Callable
from typing import Any

import jax

from jaxrnn.jaxprs import is_product, split
from jaxrnn.typing import Array, Params, PyTree, State

__all__ = ["hoist"]

Step = Callable[[Params, State, PyTree], tuple[State, PyTree]]
INPUT, PRODUCT, STATE = "input", "product", "state"  # what a value depends on; None: the parameters alone


def hoist(
    step: Step, params: Params, state: State, drive: PyTree
) -> tuple[Callable[[Params, PyTree], PyTree], Step] | None:
    """Returns `(ahead, rest)` such that `step(params, s, d)` is `rest(params, s, ahead(params, d))`.

    None if there is nothing to hoist.
    """
    closed, shape = jax.make_jaxpr(step, return_shape=True)(params, state, drive)
    n_params, n_state, n_drive = (len(jax.tree.leaves(tree)) for tree in (params, state, drive))
    found = split(closed, [*[None] * n_params, *[STATE] * n_state, *[INPUT] * n_drive], _kind, PRODUCT, STATE)
    if found is None:
        return None
    products, after = found

    def ahead(params: Params, d: PyTree) -> tuple[PyTree, list[Array]]:
        return d, products([*jax.tree.leaves(params), *[None] * n_state, *jax.tree.leaves(d)])

    def rest(params: Params, s: State, d: tuple[PyTree, list[Array]]) -> tuple[State, PyTree]:
        drive, given = d
        return jax.tree.unflatten(jax.tree.structure(shape), after(jax.tree.leaves((params, s, drive)), given))

    return ahead, rest


def _kind(eqn: Any, tags: list[Any]) -> Any:
    """Returns what the results of an equation depend on, from what it reads; an effect happens once a step."""
    if eqn.effects or STATE in tags:
        return STATE
    if PRODUCT in tags or (INPUT in tags and is_product(eqn)):
        return PRODUCT
    return INPUT if INPUT in tags else None
