"""Hoists input-only matrix products of a step out of the time loop by inspecting its jaxpr.

A cell says in `project` what sees the input only. Where its equations come as a whole, as those of a Flax cell or of a
user's function do, the division is made here: an equation that the state does not reach, but a product of the input
does, runs ahead of the loop. Work on the input without a product stays in the step: run ahead, it would only be written
to memory and read again.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax

from jaxrnn.jaxprs import bind, interpret, is_product
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
    tags = [*[None] * n_params, *[STATE] * n_state, *[INPUT] * n_drive]

    def run(values: list[Any], rule: Callable[..., list[Any]]) -> tuple[list[Any], list[Any]]:
        """Interprets the step by `rule(eqn, values, tags, kind, numbers)`; every result of an equation has a number."""
        count = itertools.count()

        def numbered(eqn: Any, values: list[Any], tags: list[Any]) -> tuple[list[Any], list[Any]]:
            kind, numbers = _kind(eqn, tags), [next(count) for _ in eqn.outvars]
            return rule(eqn, values, tags, kind, numbers), [kind] * len(numbers)

        return interpret(closed, values, tags, numbered)

    needed: dict[int, None] = {}  # results of products of the input that the rest of the step reads

    def look(eqn: Any, values: list[Any], tags: list[Any], kind: Any, numbers: list[int]) -> list[Any]:
        if kind is STATE:
            needed.update((v, None) for v, tag in zip(values, tags, strict=True) if tag is PRODUCT)
        return numbers

    results, kinds = run([None] * len(tags), look)
    needed |= {number: None for number, kind in zip(results, kinds, strict=True) if kind is PRODUCT}
    if not needed:
        return None

    def ahead(params: Params, d: PyTree) -> tuple[PyTree, list[Array]]:
        found: dict[int, Array] = {}

        def compute(eqn: Any, values: list[Any], tags: list[Any], kind: Any, numbers: list[int]) -> list[Any]:
            results: list[Any] = [None] * len(numbers) if kind is STATE else bind(eqn, values)
            found.update(zip(numbers, results, strict=True))
            return results

        run([*jax.tree.leaves(params), *[None] * n_state, *jax.tree.leaves(d)], compute)
        return d, [found[number] for number in needed]

    def rest(params: Params, s: State, d: tuple[PyTree, list[Array]]) -> tuple[State, PyTree]:
        drive, given = d
        found = dict(zip(needed, given, strict=True))

        def compute(eqn: Any, values: list[Any], tags: list[Any], kind: Any, numbers: list[int]) -> list[Any]:
            return [found.get(number) for number in numbers] if kind is PRODUCT else bind(eqn, values)

        return jax.tree.unflatten(jax.tree.structure(shape), run(jax.tree.leaves((params, s, drive)), compute)[0])

    return ahead, rest


def _kind(eqn: Any, tags: list[Any]) -> Any:
    """Returns what the results of an equation depend on, from what it reads; an effect happens once a step."""
    if eqn.effects or STATE in tags:
        return STATE
    if PRODUCT in tags or (INPUT in tags and is_product(eqn)):
        return PRODUCT
    return INPUT if INPUT in tags else None
